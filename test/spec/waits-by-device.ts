/*
 * Waits that do not end, and what `userdma check` says of each, by device: the kinds of test/programs/check/waits.c.
 * test/system/check/waits.test.ts runs them; docs/reference/waits-by-device.md is made of this table.
 */
import type { FindingId } from '../../src/spec/check/findings.ts'

export const waitColumns = ['rxe', 'mlx5', 'infiniband', 'efa'] as const
export type WaitColumn = (typeof waitColumns)[number]

/** The finding, and words of its text or details. */
interface Explanation {
  readonly finding: FindingId
  readonly says: string
}

export interface WaitKind {
  readonly kind: string
  /** What the program does. */
  readonly does: string
  readonly told: Explanation
  /** Why rxe has no such wait. */
  readonly rxe?: string
  /** On EFA, if it differs there. A string: why EFA has no such wait. */
  readonly efa?: Explanation | string
  /** What "who waits for whom:" says of its thread. */
  readonly thread?: string
  /** Options of `userdma check` for this kind alone. */
  readonly options?: readonly string[]
  /** An error is found too, after which idle queues are notes that need `--notes`. */
  readonly hasError?: true
  /** Left to the long run. */
  readonly isLong?: true
}

const idle = (says: string): Explanation => ({ finding: 'idle-queues', says })
const ofCm = (says: string): Explanation => ({ finding: 'connection-waits', says })
const deadlock = (says: string): Explanation => ({ finding: 'deadlock', says })
const ONLY_A_MESSAGE = idle('only a message for one of its')
const NO_ATOMICS = 'EFA has no atomics'
const NO_CM = 'EFA has no connection manager'

export const waitKinds: readonly WaitKind[] = [
  {
    kind: 'credit',
    does: 'both ends wait for a credit that the other one sends',
    told: { finding: 'both-receive', says: 'both have receives posted' },
    efa: ONLY_A_MESSAGE,
  },
  {
    kind: 'credit-read',
    does: 'the peer waits on its socket, and sends nothing',
    told: idle('has no send outstanding'),
    efa: ONLY_A_MESSAGE,
  },
  { kind: 'credit-event', does: 'as before, by ibv_get_cq_event', told: ONLY_A_MESSAGE, isLong: true },
  {
    kind: 'no-doorbell',
    does: 'writes a request into the memory of its send queue (mlx5dv_init_obj), and does not ring',
    told: idle('its doorbell record does not count it'),
    rxe: 'no direct queues: posts of the provider ring',
    efa: 'its queues have no doorbell record',
  },
  {
    kind: 'thrown-away',
    does: 'another thread has polled the completions, and dropped them',
    told: idle('2 threads have polled CQ'),
  },
  {
    kind: 'thrown-joined',
    does: 'joins a thread whose completion another thread has polled, and dropped',
    told: deadlock('2 threads have polled CQ'),
    isLong: true,
  },
  {
    kind: 'polled-twice',
    does: 'the completion was polled before',
    told: idle('the program has polled all completions'),
    isLong: true,
  },
  {
    kind: 'took-first',
    does: 'a poll has given two completions, and the program has handled one of them',
    told: idle('the program has polled all completions'),
    thread: '2 of at most 4 from CQ ',
  },
  {
    kind: 'flush-destroyed',
    does: 'waits for the flush of a queue pair that it has destroyed',
    told: idle('was destroyed with 4 receives outstanding'),
  },
  {
    kind: 'flush-shared',
    does: 'waits for the flush of receives of an SRQ',
    told: idle('a queue pair flushes none of an SRQ'),
    efa: 'EFA has no SRQ',
  },
  {
    kind: 'no-async',
    does: 'a target of WRITEs reads no asynchronous events, and a refused one has moved its queue pair to ERR',
    told: idle('delivered and not read (ibv_get_async_event)'),
    efa: 'a refused access of SRD reaches only its sender',
    hasError: true,
  },
  {
    kind: 'poll-memory',
    does: 'polls memory that nobody writes',
    told: idle('no send outstanding and no receive posted'),
    isLong: true,
  },
  { kind: 'own-init', does: 'its own queue pair is in INIT', told: idle('is in INIT, so no message comes') },
  {
    kind: 'peer-init',
    does: 'the queue pair of the peer is in INIT',
    told: { finding: 'peer-gone', says: 'which is in INIT' },
    efa: ONLY_A_MESSAGE,
  },
  { kind: 'own-error', does: 'its own queue pair is in ERR', told: idle('is in ERR, where it gets no message') },
  { kind: 'own-sqd', does: 'its own queue pair is in SQD', told: idle('is in SQD, so 1 send') },
  { kind: 'no-receive', does: 'no receive is posted anywhere', told: idle('no receive posted'), isLong: true },
  {
    kind: 'no-peer',
    does: 'the peer does not exist',
    told: { finding: 'peer-gone', says: 'which does not exist' },
    efa: ONLY_A_MESSAGE,
    isLong: true,
  },
  { kind: 'no-qp', does: 'its queue pair was destroyed', told: idle('it has no queue pair'), isLong: true },
  {
    kind: 'endless-rnr',
    does: 'the peer posts no receive (rnr_retry 7)',
    told: { finding: 'endless-rnr', says: 'waits without limit for a receive' },
    isLong: true,
  },
  {
    kind: 'unacknowledged',
    does: 'ibv_destroy_cq waits for an event that was read and not acknowledged',
    told: { finding: 'events-unacknowledged', says: 'are acknowledged (ibv_ack_cq_events)' },
    isLong: true,
  },
  {
    kind: 'no-arm',
    does: 'waits for an event of a CQ that it has not armed',
    told: { finding: 'lost-wakeup', says: 'armed' },
    isLong: true,
  },
  { kind: 'async-event', does: 'waits for an asynchronous event', told: idle('no completion can come'), isLong: true },
  {
    kind: 'closed-all',
    does: 'a program that became a daemon has closed all descriptors',
    told: { finding: 'descriptor-closed', says: 'the device destroys all objects of the context' },
    hasError: true,
  },
  {
    kind: 'forked-away',
    does: 'a forked child polls the queues of its parent, which has ended',
    told: { finding: 'context-inherited', says: 'whose context it inherited by fork' },
    isLong: true,
    hasError: true,
  },
  {
    kind: 'held-itself',
    does: 'starts a poll of an extended CQ twice',
    told: { finding: 'poll-misused', says: 'ibv_start_poll on CQ' },
    isLong: true,
    hasError: true,
  },
  {
    kind: 'held-by-other',
    does: 'polls an extended CQ that another thread holds by ibv_start_poll',
    told: { finding: 'poll-misused', says: 'another thread has had a poll of it open for a second' },
    hasError: true,
  },
  {
    kind: 'held-destroy',
    does: 'destroys a queue pair while another thread holds its CQ: libmlx5 spins on the lock',
    told: { finding: 'poll-misused', says: 'ibv_destroy_qp on CQ' },
    isLong: true,
    hasError: true,
  },
  {
    kind: 'join-events',
    does: 'joins a thread that waits for an asynchronous event',
    told: deadlock('waits in ibv_get_async_event'),
    isLong: true,
  },
  {
    kind: 'mutex-event',
    does: 'holds a mutex across ibv_get_cq_event, and the send of which the event would be needs it',
    told: deadlock('waits for mutex'),
    efa: ONLY_A_MESSAGE,
  },
  {
    kind: 'rwlock-event',
    does: 'as before, with a read-write lock',
    told: deadlock('waits for rwlock'),
    efa: ONLY_A_MESSAGE,
    isLong: true,
  },
  {
    kind: 'ring',
    does: 'three processes in a ring wait each for the token of the one before',
    told: deadlock('3 threads wait for each other'),
    efa: ONLY_A_MESSAGE,
  },
  {
    kind: 'child-waits',
    does: 'waits for the end of a child, which waits for a message of its parent',
    told: deadlock('waits for the end of a child process'),
    efa: ONLY_A_MESSAGE,
    isLong: true,
  },
  {
    kind: 'open-batch',
    does: 'polls for what it has added to a batch that is open',
    told: deadlock('is open (ibv_wr_start)'),
  },
  {
    kind: 'cond-missed',
    does: 'waits for a condition variable that was signaled before',
    told: idle('no completion can come'),
    thread: 'signaled last: signal_ready (',
  },
  {
    kind: 'sem-short',
    does: 'takes a semaphore twice that was posted once',
    told: idle('no completion can come'),
    thread: 'signaled last: post_credit (',
    isLong: true,
  },
  {
    kind: 'barrier-short',
    does: 'waits at a barrier to which no other thread comes',
    told: idle('no completion can come'),
    thread: 'waits at barrier',
    isLong: true,
  },
  {
    kind: 'server-killed',
    does: 'polls memory that a server would write that was killed',
    told: { finding: 'peer-gone', says: 'has ended' },
    efa: idle('no completion can come'),
    isLong: true,
  },
  {
    kind: 'spin',
    does: 'reads a word of registered memory in a loop without calls, which its peer does not write',
    told: idle('no completion can come'),
    thread: 'runs without calls',
    options: ['--hang', '4'],
    isLong: true,
  },
  {
    kind: 'sleep',
    does: 'sleeps until a word of registered memory changes, which its peer does not write',
    told: idle('no completion can come'),
    thread: 'sleep_for_word (',
  },
  {
    kind: 'stdio',
    does: 'reads a line from a pipe (fgets)',
    told: idle('no completion can come'),
    thread: 'waits in read for descriptor',
    isLong: true,
  },
  {
    kind: 'epoll-pwait2',
    does: 'waits in epoll_pwait2',
    told: idle('no completion can come'),
    thread: 'waits for the set of descriptor',
  },
  {
    kind: 'sigwaitinfo',
    does: 'waits for a signal',
    told: idle('no completion can come'),
    thread: 'waits for a signal',
  },
  {
    kind: 'semop',
    does: 'takes a semaphore of System V that nobody gives',
    told: idle('no completion can come'),
    thread: 'waits for semaphore set',
    isLong: true,
  },
  {
    kind: 'mq-receive',
    does: 'waits for a message of a queue (mq_receive)',
    told: idle('no completion can come'),
    thread: 'waits for descriptor',
    isLong: true,
  },
  {
    kind: 'other-cq',
    does: 'polls one CQ, and its completions are in another one',
    told: idle('is not polled; of CQ'),
    thread: 'for which it does not wait, is not polled',
    isLong: true,
  },
  {
    kind: 'edge-epoll',
    does: 'reads one of two events, and its epoll set tells only of new ones',
    told: { finding: 'lost-wakeup', says: 'the set tells only of new ones (EPOLLET)' },
  },
  {
    kind: 'swap-order',
    does: 'repeats a compare-and-swap, and the word has the other byte order',
    told: { finding: 'swap-repeated', says: 'which is 0x7 in the other byte order; QP' },
    efa: NO_ATOMICS,
  },
  {
    kind: 'holder-ended',
    does: 'as before, and the process that has locked the word has ended',
    told: { finding: 'swap-repeated', says: 'whose process has ended, has written that' },
    efa: NO_ATOMICS,
    isLong: true,
  },
  {
    kind: 'lost-uc',
    does: 'polls for a SEND of UC that came before the receive',
    told: idle('dropped 1 message before, which nobody repeats'),
    efa: 'EFA has no UC',
  },
  {
    kind: 'timeout-0',
    does: 'waits for an answer of a peer that is gone (timeout 0)',
    told: { finding: 'infinite-timeout', says: 'waits without limit for an answer (timeout 0)' },
    efa: 'a queue pair of SRD has no timeout',
    isLong: true,
  },
  {
    kind: 'rnr-timer-0',
    does: 'each late receive costs 655 ms (min_rnr_timer 0)',
    told: { finding: 'receives-short', says: 'min_rnr_timer 0 is the longest time, 655.36 ms' },
    efa: 'a queue pair of SRD has no min_rnr_timer',
    isLong: true,
  },
  {
    kind: 'cm-not-accepted',
    does: 'a request is never accepted',
    told: ofCm('neither rdma_accept nor rdma_reject'),
    efa: NO_CM,
  },
  {
    kind: 'cm-not-read',
    does: 'a request is never read',
    told: ofCm('has not read CONNECT_REQUEST'),
    efa: NO_CM,
    isLong: true,
  },
  {
    kind: 'cm-no-port',
    does: 'nobody listens at the port, and the program waits for ESTABLISHED',
    told: ofCm('no program listens there) was read'),
    efa: NO_CM,
  },
  {
    kind: 'cm-no-port-poll',
    does: 'as before, and polls its CQ without reading the event',
    told: ofCm('no program listens there'),
    efa: NO_CM,
    isLong: true,
  },
  { kind: 'cm-no-address', does: 'nobody listens at the address', told: ofCm('was read'), efa: NO_CM, isLong: true },
  {
    kind: 'cm-rejected',
    does: 'the request is rejected, and the event is not read',
    told: ofCm('not read (rdma_get_cm_event): REJECTED'),
    efa: NO_CM,
  },
  {
    kind: 'cm-rejected-read',
    does: 'the request is rejected, and the program waits for ESTABLISHED',
    told: ofCm('REJECTED (reason 28, consumer defined'),
    efa: NO_CM,
    isLong: true,
  },
  {
    kind: 'cm-no-route',
    does: 'waits for ROUTE_RESOLVED without rdma_resolve_route',
    told: ofCm('the next one comes after rdma_resolve_route'),
    efa: NO_CM,
    isLong: true,
  },
  {
    kind: 'cm-no-connect',
    does: 'the client does not call rdma_connect',
    told: idle('connected (ibv_modify_qp, rdma_connect)'),
    efa: NO_CM,
    isLong: true,
  },
  {
    kind: 'cm-removed',
    does: 'waits for DISCONNECTED after DEVICE_REMOVAL',
    told: ofCm('DEVICE_REMOVAL was read, and no further event comes'),
    efa: NO_CM,
    options: ['--fault', 'call=cm_id.resolveRoute,nth=1,gone=600s'],
    isLong: true,
  },
  {
    kind: 'cm-unread',
    does: 'the client does not read CONNECT_RESPONSE',
    told: ofCm('not read (rdma_get_cm_event): CONNECT_RESPONSE'),
    efa: NO_CM,
    isLong: true,
  },
  {
    kind: 'cm-unacked',
    does: 'rdma_destroy_id waits for an event that was read and not acknowledged',
    told: { finding: 'events-unacknowledged', says: 'are acknowledged (rdma_ack_cm_event)' },
    efa: NO_CM,
  },
  {
    kind: 'cm-disconnected',
    does: 'the peer has disconnected, and the event is not read',
    told: { finding: 'peer-gone', says: 'DISCONNECTED was delivered and not read' },
    efa: NO_CM,
    isLong: true,
  },
]

/** What is told of a wait on a device; a string: why it does not exist there. */
export const explanationOf = ({ told, rxe, efa }: WaitKind, column: WaitColumn): Explanation | string =>
  (column === 'efa' ? efa : column === 'rxe' ? rxe : undefined) ?? told

/** A wait of two processes on two hosts of a net with `check: true` (test/programs/check/net_pair.c). */
interface NetWait {
  readonly kind: string
  /** What the server, and the client do. */
  readonly does: readonly [string, string]
  /**
   * What is told where queue pairs are connected: the finding, and its threads, each HOST KIND, from any of a cycle on.
   */
  readonly connected: readonly [FindingId, readonly string[]]
}

/** The first host has the server. */
export const netWaits: readonly NetWait[] = [
  {
    kind: 'wait',
    does: ['polls', 'polls'],
    connected: ['deadlock', ['h1 poll', 'h2 poll']],
  },
  {
    kind: 'wait-event',
    does: ['waits in ibv_get_cq_event', 'waits in ibv_get_cq_event'],
    connected: ['deadlock', ['h1 channel', 'h2 channel']],
  },
  {
    kind: 'wait-read',
    does: ['waits in read of a socket', 'polls'],
    connected: ['idle-queues', ['h2 poll', 'h1 descriptor']],
  },
  {
    kind: 'wait-mutex',
    does: ['polls', 'waits for a mutex that a thread has, which waits in ibv_get_cq_event'],
    connected: ['deadlock', ['h1 poll', 'h2 mutex', 'h2 channel']],
  },
  {
    kind: 'wait-join',
    does: ['joins a thread that waits in ibv_get_cq_event', 'waits in ibv_get_cq_event'],
    connected: ['deadlock', ['h1 join', 'h1 channel', 'h2 channel']],
  },
]
