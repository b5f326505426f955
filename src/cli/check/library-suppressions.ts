/*
 * Findings of `userdma check` in libraries, which the author of a program cannot correct: not reported unless
 * `--no-default-suppressions` is given. Each row names frames of the library, so the same mistake of a program stays
 * reported. Each has its evidence: where the library does it, and what it leads to on adapters.
 */
import type { FindingId } from '../../spec/check/findings.ts'

interface LibrarySuppression {
  /** The library that makes the calls, as the report names it. */
  readonly library: string
  /** What the library does: a sentence without its full stop. */
  readonly name: string
  readonly id: FindingId
  /** Lines of a block of `--suppressions`, after the id. */
  readonly frames: readonly string[]
  /** Versions that do it. */
  readonly versions: string
  /** File, function and lines. */
  readonly source: string
  /** What it leads to. */
  readonly why: string
}

/** UCX destroys the pool of a UD interface's receive buffers in the line before the queue pair. */
const UCX_POOL = {
  versions: 'UCX before 1.19',
  source:
    'src/uct/ib/ud/base/ud_iface.c, cleanup of uct_ud_iface_t: lines 644 and 645 of 1.13.1, 607 and 608 of 1.18.1; 1.19 destroys the queue pair first (commit 47a5c47fb0)',
  why: 'A datagram that arrives between the two lines is written to memory that was freed. Adapters write to the pages of the registration, which UCX still has in its cache, so no other data is overwritten; after the next line the queue pair is gone.',
} as const

/** rshutdown stops waiting for its sends when the peer has shut down its end. */
const RSOCKET_END = {
  id: 'sends-lost',
  versions: 'rdma-core 44 to 63',
  source: 'librdmacm/rsocket.c, rshutdown: rs_process_cq waits until rs_conn_all_sends_done or the connection is over',
} as const
const RSOCKET_QUEUE_PAIR = ['registered:', '...', 'obj:*/librdmacm.so*']

export const librarySuppressions: readonly LibrarySuppression[] = [
  {
    library: 'librdmacm',
    name: 'rsockets do not wait for their last credit update if the peer has ended the connection',
    ...RSOCKET_END,
    frames: ['...', 'fun:rshutdown', 'posted:', 'fun:rrecv', ...RSOCKET_QUEUE_PAIR],
    why: 'rrecv tells the peer how many messages it may send (rs_send_credits). A peer that has ended the connection sends none. Data that rsend has posted is reported.',
  },
  {
    library: 'librdmacm',
    name: 'rsockets do not wait for the message that ends the connection if the peer has ended it',
    ...RSOCKET_END,
    frames: ['...', 'fun:rshutdown', 'posted:', 'fun:rshutdown', ...RSOCKET_QUEUE_PAIR],
    why: 'Both ends send RS_CTRL_DISCONNECT. A peer that has sent its own needs no other.',
  },
  {
    library: 'librdmacm',
    name: 'rclose deregisters the buffers of an rsocket before the last completions are polled',
    id: 'region-in-use',
    frames: ['...', 'fun:rclose', ...RSOCKET_QUEUE_PAIR],
    versions: RSOCKET_END.versions,
    source: 'librdmacm/rsocket.c, rs_free: the regions go before the queue pair, and the CQ is not polled',
    why: 'The connection is over (rshutdown), so the device uses the buffers no more, and both are freed next.',
  },
  {
    library: 'perftest',
    name: 'perftest posts receives to the same bytes again, which it never reads',
    id: 'receive-overlap',
    frames: ['...', 'obj:*/ib_send_*'],
    versions: 'perftest 4.5',
    source: 'src/perftest_resources.c:3172, :3188: receives are posted to a few buffers in turn',
    why: 'Only the number of messages and the time are measured; no byte that was received is read, so it does not matter which message was the last.',
  },
  {
    library: 'libuct_ib',
    name: 'UCX frees the receive buffers of a UD interface before its queue pair',
    id: 'buffer-freed',
    frames: [
      'obj:*/libuct.so*',
      '...',
      'fun:uct_iface_mp_chunk_release',
      'fun:ucs_mpool_cleanup',
      'obj:*/libuct_ib.so*',
    ],
    ...UCX_POOL,
  },
  {
    library: 'libuct_ib',
    name: 'UCX unmaps the receive buffers of a UD interface before it deregisters them',
    id: 'region-unmapped',
    frames: [
      'registered:',
      'fun:ibv_reg_mr*',
      'obj:*/libuct_ib.so*',
      '...',
      'fun:uct_iface_mp_chunk_alloc',
      'fun:ucs_mpool_grow',
      'registered:',
      'fun:ibv_*create_qp*',
      'obj:*/libuct_ib.so*',
      '...',
      'fun:uct_ud_iface_t_init',
    ],
    ...UCX_POOL,
  },
  {
    library: 'libfabric',
    name: "libfabric's verbs provider sets retry_count to 15 for rdma_connect, and not at all for rdma_accept",
    id: 'conn-param-uninitialised',
    frames: ['fun:rdma_*', 'obj:*/libfabric.so*'],
    versions: 'libfabric 1.17 to 2.1, and main of August 2026',
    source:
      'prov/verbs/src/verbs_cm.c, vrb_msg_ep_connect (line 192 of 1.17.0, 189 of 2.1.0) and vrb_msg_ep_accept; verbs_domain_xrc.c:329, vrb_process_ini_conn',
    why: 'Linux takes a value above 7 for 7, the largest (drivers/infiniband/core/cma.c, cma_connect_ib). rdma_accept ignores the field (rdma/rdma_cma.h), and libfabric sets those that it uses.',
  },
  {
    library: 'libfabric',
    name: "Open MPI's mtl_ofi ends with the protection domain of libfabric's verbs provider open",
    id: 'leak',
    frames: ['fun:ibv_alloc_pd', 'obj:*/libfabric.so*', '...', 'obj:*/mca_mtl_ofi.so'],
    versions: 'Open MPI 4.1.4 with libfabric 1.17, in about half of the runs',
    source:
      'prov/verbs/src/verbs_domain.c deallocates it when the domain is closed; MPI_Finalize returns without a call of ibv_dealloc_pd',
    why: 'The process ends right after MPI_Finalize, and the kernel frees the domain.',
  },
]
