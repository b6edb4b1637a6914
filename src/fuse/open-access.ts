/** What open(2) asks for, from its flags: the same for every host. */

import { constants } from 'node:fs';

export function accessOf(flags: number): 'read' | 'write' | 'read-write' {
  switch (flags & (constants.O_RDONLY | constants.O_WRONLY | constants.O_RDWR)) {
    case constants.O_RDONLY:
      return 'read';
    case constants.O_WRONLY:
      return 'write';
    default:
      return 'read-write';
  }
}
