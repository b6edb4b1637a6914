import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { StandardStream } from '../../../src/cli/standard-streams.ts';

/** As Node's own: it can be written to after an error. */
function failing(code: string): Writable {
  return new Writable({
    autoDestroy: false,
    write: (_chunk, _encoding, done) => done(Object.assign(new Error(code), { code })),
  });
}

describe('a standard stream', () => {
  it('keeps why what is written does not arrive, and throws nothing', async () => {
    const stream = new StandardStream(failing('ENOSPC'));
    stream.write('text');
    await stream.flushed();
    expect(stream.failure).toMatchObject({ code: 'ENOSPC' });
  });

  it('takes a reader that has seen enough for no fault', async () => {
    const stream = new StandardStream(failing('EPIPE'));
    stream.write('text');
    await stream.flushed();
    expect(stream.failure).toBeUndefined();
  });
});
