import { describe, expect, it } from 'vitest';
import { errorCode, NexusLostError } from '../../../../src/errors.ts';
import { pdu } from '../../../../src/iser/iscsi/pdu.ts';
import { FIRST_STAT_SN, flush, scsiCommands, setUpSession } from '../../../support/session-fixture.ts';

describe('StatSN', () => {
  it('ends the session when StatSN has a gap', async () => {
    const { datamover, session, submit, ended } = setUpSession();
    const { outcome } = submit();
    const [command] = scsiCommands(datamover.take());
    session.handlePdu(
      pdu({ opcode: 'scsi-response', itt: command?.itt ?? -1, statSn: FIRST_STAT_SN + 1, expCmdSn: 101, maxCmdSn: 131 }),
      0,
    );
    await flush();
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
    expect(outcome.error).toBeInstanceOf(NexusLostError);
  });

  it('takes responses over RDMA in any order, and one StatSN twice', async () => {
    const { datamover, session, submit, ended } = setUpSession({ isOverRdma: true });
    const outcomes = Array.from({ length: 4 }, () => submit().outcome);
    const commands = scsiCommands(datamover.take());
    for (const [index, ahead] of [1, 0, 2, 2].entries()) {
      const { itt = -1 } = commands[index] ?? {};
      session.handlePdu(
        pdu({ opcode: 'scsi-response', itt, statSn: FIRST_STAT_SN + ahead, expCmdSn: 104, maxCmdSn: 131 + index }),
        0,
      );
    }
    submit();
    await flush();
    expect(ended).toEqual([]);
    expect(outcomes.map(({ result }) => result?.status)).toEqual([0, 0, 0, 0]);
    expect(scsiCommands(datamover.take())).toMatchObject([{ expStatSn: FIRST_STAT_SN + 3 }]);
  });

  it.each([
    ['ahead of', 200],
    ['behind', -200],
  ])('ends the session over RDMA when StatSN is far %s the one that is due', async (_where, distance) => {
    const { datamover, session, submit, ended } = setUpSession({ isOverRdma: true });
    submit();
    const [command] = scsiCommands(datamover.take());
    session.handlePdu(
      pdu({ opcode: 'scsi-response', itt: command?.itt ?? -1, statSn: FIRST_STAT_SN + distance, expCmdSn: 101, maxCmdSn: 131 }),
      0,
    );
    await flush();
    expect(errorCode(ended[0]?.reason)).toBe('protocol-error');
  });
});
