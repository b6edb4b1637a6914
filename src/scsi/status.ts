/** SCSI status codes (SAM-5). */

export const Status = {
  good: 0x00,
  'check-condition': 0x02,
  'condition-met': 0x04,
  busy: 0x08,
  'reservation-conflict': 0x18,
  'task-set-full': 0x28,
  'aca-active': 0x30,
  'task-aborted': 0x40,
} as const satisfies Record<string, number>;

/** The standard's name, such as `CHECK CONDITION`; `status 22h` for a code that has none. */
export function statusName(status: number): string {
  for (const [name, code] of Object.entries(Status)) {
    if (code === status) return name.replaceAll('-', ' ').toUpperCase();
  }
  return `status ${status.toString(16).padStart(2, '0')}h`;
}
