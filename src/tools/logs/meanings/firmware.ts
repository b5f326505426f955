/*
 * Commands of mlx5's firmware, its health, and events of irdma: what the kernel prints of them. The syndromes of
 * commands are not published; those here are from public reports, each with the command that it belongs to.
 */
import type { Meaning } from './certainty.ts'

const LINUX_MLX5 = 'Linux 6.1 drivers/net/ethernet/mellanox/mlx5/core'

/** mlx5 command status (cmd.c). */
const commandStatuses: Readonly<Record<number, string>> = {
  1: 'the firmware has an internal error',
  2: 'the firmware does not know the command, or it is not allowed on this function',
  3: 'a parameter is not valid',
  4: 'the system is in a state that does not allow it',
  5: 'an object that the command names does not exist',
  6: 'an object is in use',
  8: 'a limit of the adapter is exceeded',
  9: 'an object is in a state that does not allow it',
  10: 'an index is not valid',
  15: 'the adapter has no more resources',
  16: 'the queue pair is in a state that does not allow it',
  48: 'a packet was not valid',
  64: 'too many CQEs are outstanding',
  80: 'the driver gave too few or too many bytes: driver and firmware do not fit',
  81: 'the driver has room for too few or too many bytes: driver and firmware do not fit',
}
export const commandStatus = (status: number): Meaning | undefined => {
  const text = commandStatuses[status]
  return text === undefined ? undefined : { text, certainty: 'sure', source: `${LINUX_MLX5}/cmd.c` }
}

/** mlx5 health syndromes (health.c). */
const healthSyndromes: Readonly<Record<number, string>> = {
  1: 'an internal error of the firmware',
  7: 'a processor of the adapter does not respond',
  8: 'an unrecoverable error of the hardware',
  9: 'the checksum of the firmware is wrong',
  10: 'the adapter could not read its tables in host memory over PCIe',
  11: 'a fatal error of the hardware',
  12: 'the asynchronous event queue has overrun',
  13: 'an error of an event queue',
  14: 'an event queue that does not exist was named',
  15: 'an error while reading the flash (FFSER)',
  16: 'the temperature is too high',
}
export const healthSyndrome = (syndrome: number): Meaning | undefined => {
  const text = healthSyndromes[syndrome]
  return text === undefined ? undefined : { text, certainty: 'sure', source: `${LINUX_MLX5}/health.c` }
}

/** Command and syndrome: the number alone says nothing, since each command counts for itself. */
const commandSyndromes: Readonly<
  Record<string, readonly [text: string, certainty: 'likely' | 'guess', source: string]>
> = {
  'INIT2RTR_QP 0x29e0df': [
    'the address vector does not fit RoCE: NVSHMEM before 3.2.5 with IBGDA',
    'likely',
    'DeepEP issue 17',
  ],
  'CREATE_MKEY 0x35e6ec': [
    'a known fault of OFED with keys that protect integrity (3735400)',
    'likely',
    'UCX issue 9488',
  ],
  'CREATE_RQ 0x43d98f': ['real-time timestamps are not supported', 'likely', 'daqiri issue 283'],
  'RTR2RTS_QP 0x4bb88f': [
    'an attribute is not valid; which one, the report does not settle',
    'guess',
    'Charm++ issue 2532',
  ],
  'ACCESS_REG 0x9a6171': [
    'a monitor has read a register that this adapter does not have: harmless',
    'likely',
    'gpud issue 1164',
  ],
}
export const commandSyndrome = (command: string, syndrome: number): Meaning => {
  const found = commandSyndromes[`${command.toUpperCase()} 0x${syndrome.toString(16)}`]
  if (found !== undefined) return { text: found[0], certainty: found[1], source: found[2] }
  if (syndrome === 0)
    return {
      text: 'no syndrome: the kernel refused before the firmware was asked',
      certainty: 'likely',
      source: 'UCX reports',
    }
  return {
    text: 'syndromes of commands have no public meaning; the maker of the adapter knows it',
    certainty: 'none',
    source: '',
  }
}
export const knownCommandSyndromes = Object.entries(commandSyndromes)

/** Commands whose refusals monitors cause, not programs. */
export const MONITOR_COMMANDS = /^(?:ACCESS_REG|QUERY_MODULE|MCIA|PPCNT|QUERY_VPORT_COUNTER)/

/** Asynchronous events of irdma: which request failed by them (Linux 6.1, defs.h and irdma_set_flush_fields). */
const irdmaRanges: readonly (readonly [from: number, to: number, text: string])[] = [
  [0x0102, 0x010a, 'key, bounds, right or protection domain of the memory'],
  [0x010c, 0x0111, 'a fast registration or invalidation was not valid'],
  [0x0112, 0x0112, 'the peer may not invalidate this key'],
  [0x0113, 0x0121, 'a memory window or fast registration was not valid'],
  [0x0132, 0x0132, 'a datagram is too long'],
  [0x0133, 0x0133, 'a protection domain that does not fit'],
  [0x0134, 0x0135, 'a datagram is too short, or its length does not fit'],
  [0x0207, 0x0207, 'the peer has more READs outstanding than the responder has resources'],
  [0x0208, 0x0208, 'the peer refuses the request as invalid'],
  [0x020a, 0x020c, 'the work request is not valid'],
  [0x020d, 0x020d, 'the peer refuses the access'],
  [0x020e, 0x020e, 'the peer could not execute the request'],
  [0x0303, 0x0303, 'the message is longer than the receive'],
  [0x0316, 0x0316, 'the length of a response does not fit'],
  [0x0401, 0x0403, "the address of the peer is not in the adapter's ARP table, or no longer"],
  [0x0406, 0x0406, 'the address handle is not valid'],
  [0x0501, 0x0503, 'the TCP connection under iWARP was closed or reset'],
  [0x0505, 0x0507, 'a segment of iWARP is damaged'],
  [0x0509, 0x0509, 'the peer has ended the connection (iWARP Terminate)'],
  [0x050a, 0x050a, 'retries are used up: the peer did not answer'],
  [0x050f, 0x050f, 'the peer had no receive, too many times'],
  [0x0601, 0x0603, 'this end has reset or ended the connection'],
  [0x0700, 0x0700, 'a catastrophic error of the queue pair'],
  [0x0900, 0x0900, 'the queue pair is suspended: no error'],
]
export const irdmaEvent = (id: number): Meaning | undefined => {
  const found = irdmaRanges.find(([from, to]) => id >= from && id <= to)
  return found === undefined
    ? undefined
    : { text: found[2], certainty: 'sure', source: 'Linux 6.1 drivers/infiniband/hw/irdma/defs.h' }
}
