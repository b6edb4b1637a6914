import { describe, expect, it } from 'vitest';
import { InitiatorText } from '../../../../src/iser/iscsi/initiator-text.ts';
import { NO_BYTES, type Pdu, pdu, RESERVED_TAG } from '../../../../src/iser/iscsi/pdu.ts';

describe("the initiator's end of a text exchange", () => {
  const response = (fields: Partial<Pdu<'text-response'>>) => pdu({ opcode: 'text-response', itt: 1, ...fields });

  it('begins with all pairs, and no tag', () => {
    const request = new InitiatorText().start([['SendTargets', 'All']]);
    expect(request).toMatchObject({ opcode: 'text-request', final: true, continue: false, ttt: RESERVED_TAG });
    expect(Buffer.from(request.data).toString()).toBe('SendTargets=All\0');
  });

  it.each([
    ['the C bit', { continue: true, final: false }],
    ['the missing F bit', { continue: false, final: false }],
  ])('asks for what is announced by %s, with the tag given', (_sign, flags) => {
    const exchange = new InitiatorText();
    const step = exchange.handle(response({ ...flags, ttt: 9, data: Buffer.from('TargetName=iqn.2001-0') }));
    expect(step).toMatchObject({ type: 'send', pdu: { opcode: 'text-request', final: true, ttt: 9, data: NO_BYTES } });
    const rest = Buffer.from('4.com.example:a\0');
    expect(exchange.handle(response({ final: true, ttt: RESERVED_TAG, data: rest }))).toEqual({
      type: 'answered',
      text: Uint8Array.from(Buffer.from('TargetName=iqn.2001-04.com.example:a\0')),
    });
  });

  it('keeps no memory that was lent to it', () => {
    const lent = Uint8Array.of(0x41, 0x3d, 0);
    const step = new InitiatorText().handle(response({ final: true, ttt: RESERVED_TAG, data: lent }));
    lent.fill(0xff);
    expect(step).toEqual({ type: 'answered', text: Uint8Array.of(0x41, 0x3d, 0) });
  });

  it('refuses what goes on without a tag to ask with', () => {
    const step = () => new InitiatorText().handle(response({ continue: true, ttt: RESERVED_TAG }));
    expect(step).toThrow(/no tag/);
  });
});
