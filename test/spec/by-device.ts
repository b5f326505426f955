/*
 * What `userdma check` tells on each kind of device: every finding, unless the device lacks something that it needs
 * (`needs` of spec/check/findings/), each with the reason that the transport, the library or the adapter gives.
 * test/system/check/by-device.long.test.ts compares with what the programs of docs/findings show;
 * docs/reference/findings-by-device.md is made of it.
 */
import { type FindingId, findings } from '../../src/spec/check/findings.ts'
import type { Need } from '../../src/spec/check/needs.ts'

export const columns = ['rxe', 'mlx5', 'infiniband', 'efa', 'examples', 'host'] as const
export type Column = (typeof columns)[number]

/** The heads of the columns. */
export const columnTitles: Readonly<Record<Column, string>> = {
  rxe: 'rxe',
  mlx5: 'mlx5',
  infiniband: 'InfiniBand',
  efa: 'EFA',
  examples: "the examples' drivers",
  host: '`--host`',
}

/** Why a column lacks what findings need: sentences without their full stop. */
type Lacks = Readonly<Partial<Record<Need, string>>>

const OURS: Lacks = { adapter: 'a device of ours knows each cause' }
const ETHERNET: Lacks = { InfiniBand: 'the ports are Ethernet' }
const NOT_MLX5: Lacks = { ...OURS, ...ETHERNET, 'indirect keys': 'only mlx5 has indirect keys' }

const MLX5: Lacks = {
  ...OURS,
  'all opcodes': 'libmlx5 refuses other operations itself (`refused-call`)',
  'unpolled sends': 'libmlx5 refuses a post while completions are unpolled for all slots (`queue-full`)',
  'all flags': 'libmlx5 writes only the flags that it knows into a request',
  'left completions':
    'libmlx5 takes the completions of a queue pair out of its CQ when it destroys the queue pair (`sends-lost`)',
}

const OTHER_OPERATIONS_OF_EFA = 'libefa refuses other operations and flags itself'
const ATOMICS_OF_EFA = 'EFA has no atomics and no fences'

export const lacks: Readonly<Record<Column, Lacks>> = {
  rxe: NOT_MLX5,
  mlx5: { ...MLX5, ...ETHERNET },
  infiniband: {
    ...MLX5,
    'GID paths': 'the program changes the GID of the peer, which is no path here (`wrong-grh`)',
    'hop limits': 'paths within a subnet are by LID, without a hop limit',
  },
  efa: {
    ...NOT_MLX5,
    connections:
      'SRD has no connections: a request names its destination, and a queue pair has no attributes of a peer',
    'hop limits': 'address handles of EFA have no hop limit',
    rdma_cm: 'EFA has no connection manager',
    'single-threaded CQ': 'libefa creates no CQ for a single thread (`refused-call`)',
    'pending requests':
      'a request of SRD to a queue pair that is not ready fails at once: that of the program is not outstanding',
    windows: 'EFA has no memory windows',
    atomics: ATOMICS_OF_EFA,
    fences: ATOMICS_OF_EFA,
    'unsignaled sends': 'EFA refuses requests without a completion',
    'all opcodes': OTHER_OPERATIONS_OF_EFA,
    'all flags': OTHER_OPERATIONS_OF_EFA,
    WRITEs: 'the program writes to a peer, and the libefa of rdma-core 44 posts no WRITE',
    ibv_post_send: 'the program posts by ibv_post_send without an address handle, which is refused (`refused-call`)',
    'late polls': 'libefa refuses to poll completions of a destroyed queue pair',
    'unpolled sends': 'libefa refuses a post while completions are unpolled for all slots (`queue-full`)',
  },
  examples: {
    ...NOT_MLX5,
    packets: 'the driver has no packets, and its queue pairs reach only those that name them',
    'RNR limit': 'the driver has no RNR limit: a SEND waits',
    'other services': 'the driver has only reliable connections',
    windows: 'the driver has no memory windows',
    atomics: 'the driver has no atomics',
    queues: 'the optional members of the contract that tell of queues and waits are left out',
    'calls after REJECTED': 'after REJECTED the queue pair is in ERR, and the device refuses the call (`refused-call`)',
    'peer accesses': 'the driver does not tell when a peer accesses memory',
  },
  host: {
    rejections: 'Linux does not tell of requests that it rejects',
    causes:
      'an adapter drops packets and refuses accesses without a word, or its status has several causes (`adapter-error`, `peer-refused`)',
    waits: 'an adapter does not tell what a queue waits for, nor what it has executed before the program polls',
    accesses: 'an adapter does not tell when it reads and writes memory',
    preload:
      'the preload library of `--host` intercepts only calls, posts and polls: no memory, stack frame, signal, or function of librdmacm',
    invalidations: 'an adapter does not tell when an address leaves its table, nor what an event has made invalid',
    'other limits': 'the program runs on an adapter, whose own limits apply: `--like` is for devices of ours',
  },
}

/** Why a finding is not told on the devices of a column; undefined: it is. */
export const absenceOf = (column: Column, id: FindingId): string | undefined => {
  const missing = findings[id].needs.find(need => lacks[column][need] !== undefined)
  return missing && lacks[column][missing]
}
