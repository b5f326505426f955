/*
 * What `userdma check` tells on each kind of device: every finding, but for these absences, each with the reason that the
 * transport, the library or the adapter gives. test/system/check/by-device.long.test.ts compares with what the programs of
 * docs/findings show; docs/reference/findings-by-device.md is made of it.
 */
import type { FindingId } from '../../src/spec/check/findings.ts'

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

interface Absence {
  /** A sentence without its full stop. */
  readonly reason: string
  readonly findings: readonly FindingId[]
}

const ONLY_ADAPTERS = {
  reason: 'a device of ours knows each cause',
  findings: ['adapter-error'],
} as const satisfies Absence

const ONLY_MLX5 = {
  reason: 'only mlx5 has indirect keys',
  findings: ['key-not-configured'],
} as const satisfies Absence

const ONLY_INFINIBAND = {
  reason: 'the ports are Ethernet',
  findings: ['wrong-lid', 'wrong-grh', 'port-not-active'],
} as const satisfies Absence

const OF_MLX5: readonly Absence[] = [
  ONLY_ADAPTERS,
  { reason: 'libmlx5 refuses other operations itself (`refused-call`)', findings: ['bad-request'] },
  {
    reason: 'libmlx5 refuses a post while completions are unpolled for all slots (`queue-full`)',
    findings: ['never-signaled', 'sends-unpolled'],
  },
  { reason: 'libmlx5 writes only the flags that it knows into a request', findings: ['undefined-flags'] },
  {
    reason:
      'libmlx5 takes the completions of a queue pair out of its CQ when it destroys the queue pair (`sends-lost`)',
    findings: ['completions-unpolled', 'polled-after-destroy'],
  },
]

export const absences: Readonly<Record<Column, readonly Absence[]>> = {
  rxe: [ONLY_ADAPTERS, ONLY_MLX5, ONLY_INFINIBAND],
  mlx5: [...OF_MLX5, ONLY_INFINIBAND],
  infiniband: [
    ...OF_MLX5,
    { reason: 'the program changes the GID of the peer, which is no path here (`wrong-grh`)', findings: ['no-answer'] },
  ],
  efa: [
    ONLY_ADAPTERS,
    ONLY_MLX5,
    ONLY_INFINIBAND,
    {
      reason: 'SRD has no connections: a request names its destination, and a queue pair has no attributes of a peer',
      findings: [
        'peer-connected-elsewhere',
        'service-mismatch',
        'path-mtu-mismatch',
        'psn-mismatch',
        'rd-atomic-exceeds',
        'no-rd-atomic',
        'invalid-request',
        'infinite-timeout',
        'both-receive',
        'peer-gone',
        'connected-to-itself',
        'qp-no-right',
      ],
    },
    {
      reason: 'EFA has no connection manager',
      findings: [
        'connection-waits',
        'cm-id-destroyed-early',
        'cm-refused-used',
        'cm-not-confirmed',
        'cm-connected-again',
        'conn-param-uninitialised',
        'receives-after-accept',
        'qp-after-disconnect',
        'port-byte-order',
        'listener-address',
      ],
    },
    { reason: 'libefa creates no CQ for a single thread (`refused-call`)', findings: ['thread-promise'] },
    {
      reason:
        'a request of SRD to a queue pair that is not ready fails at once: that of the program is not outstanding',
      findings: ['taken-back-early'],
    },
    { reason: 'EFA has no memory windows', findings: ['window-not-bound', 'bind-refused'] },
    {
      reason: 'EFA has no atomics and no fences',
      findings: [
        'atomic-misaligned',
        'request-length',
        'atomic-mixed-with-write',
        'counter-shared',
        'read-then-write-unfenced',
        'swap-repeated',
      ],
    },
    { reason: 'EFA refuses requests without a completion', findings: ['never-signaled', 'not-signaled'] },
    { reason: 'libefa refuses other operations and flags itself', findings: ['bad-request', 'undefined-flags'] },
    {
      reason: 'the program writes to a peer, and the libefa of rdma-core 44 posts no WRITE',
      findings: ['race', 'buffer-reused', 'failure-ignored', 'private-file', 'late-write'],
    },
    {
      reason: 'the program posts by ibv_post_send without an address handle, which is refused (`refused-call`)',
      findings: ['immediate-byte-order', 'elements-unused'],
    },
    { reason: 'libefa refuses to poll completions of a destroyed queue pair', findings: ['polled-after-destroy'] },
    {
      reason: 'libefa refuses a post while completions are unpolled for all slots (`queue-full`)',
      findings: ['sends-unpolled'],
    },
  ],
  examples: [
    ONLY_ADAPTERS,
    ONLY_MLX5,
    ONLY_INFINIBAND,
    {
      reason: 'the driver has no packets, and its queue pairs reach only those that name them',
      findings: ['no-answer', 'invalid-request', 'no-rd-atomic', 'qp-no-right'],
    },
    { reason: 'the driver has no RNR limit: a SEND waits', findings: ['no-receive-posted'] },
    {
      reason: 'the driver has only reliable connections',
      findings: ['service-mismatch', 'key-mismatch', 'message-dropped'],
    },
    { reason: 'the driver has no memory windows', findings: ['window-not-bound', 'bind-refused'] },
    {
      reason: 'the driver has no atomics',
      findings: ['atomic-misaligned', 'request-length', 'atomic-mixed-with-write', 'counter-shared', 'swap-repeated'],
    },
    {
      reason: 'the optional members of the contract that tell of queues and waits are left out',
      findings: [
        'endless-rnr',
        'both-receive',
        'idle-queues',
        'peer-gone',
        'not-signaled',
        'region-in-use',
        'buffer-freed',
        'fork-outstanding',
        'sends-lost',
        'qp-after-disconnect',
      ],
    },
    {
      reason: 'after REJECTED the queue pair is in ERR, and the device refuses the call (`refused-call`)',
      findings: ['cm-connected-again'],
    },
    {
      reason: 'the driver does not tell when a peer accesses memory',
      findings: ['private-file', 'not-lent', 'taken-back-early', 'lent-changed', 'late-write', 'late-read'],
    },
  ],
  host: [
    { reason: 'Linux does not tell of requests that it rejects', findings: ['listener-address'] },
    {
      reason:
        'an adapter drops packets and refuses accesses without a word, or its status has several causes (`adapter-error`, `peer-refused`)',
      findings: [
        'key-mismatch',
        'message-dropped',
        'invalid-request',
        'window-not-bound',
        'bind-refused',
        'remote-unmapped',
        'local-unmapped',
        'peer-ended',
        'request-length',
        'cq-overrun',
      ],
    },
    {
      reason: 'an adapter does not tell what a queue waits for, nor what it has executed before the program polls',
      findings: [
        'endless-rnr',
        'both-receive',
        'connection-waits',
        'deadlock',
        'swap-repeated',
        'idle-queues',
        'peer-gone',
        'events-unacknowledged',
        'not-signaled',
        'late-receives',
        'receives-short',
        'lost-wakeup',
        'sends-unpolled',
        'completions-unpolled',
        'sends-lost',
        'program-ended',
      ],
    },
    {
      reason: 'an adapter does not tell when it reads and writes memory',
      findings: [
        'memory-gone',
        'private-file',
        'not-lent',
        'taken-back-early',
        'lent-changed',
        'late-write',
        'late-read',
        'lent-twice',
        'slow-memory',
        'send-buffer-changed',
        'race',
        'read-then-write-unfenced',
        'buffer-reused',
        'atomic-mixed-with-write',
        'counter-shared',
      ],
    },
    {
      reason:
        'the preload library of `--host` intercepts only calls, posts and polls: no memory, stack frame, signal, or function of librdmacm',
      findings: [
        'buffer-freed',
        'region-unmapped',
        'array-too-short',
        'frame-returned',
        'descriptor-closed',
        'fork-outstanding',
        'context-inherited',
        'program-died',
        'events-overacknowledged',
        'shared-elements',
        'list-posted-again',
        'elements-unused',
        'failure-ignored',
        'poll-in-handler',
        'polled-after-destroy',
        'key-not-configured',
        'wrong-lid',
        'wrong-grh',
        'port-not-active',
        'immediate-byte-order',
        'cm-id-destroyed-early',
        'cm-refused-used',
        'cm-not-confirmed',
        'cm-connected-again',
        'conn-param-uninitialised',
        'receives-after-accept',
      ],
    },
    {
      reason: 'an adapter does not tell when an address leaves its table, nor what an event has made invalid',
      findings: ['event-ignored'],
    },
    {
      reason: 'the program runs on an adapter, whose own limits apply: `--like` is for devices of ours',
      findings: ['adapter-limit', 'adapter-operation', 'adapter-memlock', 'fork-unsafe'],
    },
  ],
}
