/*
 * True findings of `userdma check` in third-party programs and in test/programs. docs/findings.md shows this table.
 *
 * Programs of Debian 12: rdma-core 44.0, perftest 4.5-0.17. C programs are stripped, so their findings have no source
 * lines: `source` is from reading the sources.
 */
import { basename } from 'node:path'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import type { Severity } from '../../../src/spec/check/severity.ts'

export interface KnownFinding {
  /** Process names, cut to 15 characters; a `*` at the end stands for any characters. */
  readonly programs: readonly string[]
  readonly id: FindingId
  /** Findings of a lower severity match too. */
  readonly severity: Exclude<Severity, 'note'>
  /** Matches the text of the finding; absent: any text. */
  readonly text?: RegExp
  /** A function of the program that is in the stack; absent: any stack. */
  readonly stackFunction?: string
  /** File and line, or function. */
  readonly source: string
  /** A sentence without a full stop. */
  readonly why: string
}

/** A test of pyverbs that provokes the failure. */
const python = (id: FindingId, file: string, test: string, why: string): KnownFinding => ({
  programs: ['python3'],
  id,
  severity: 'error',
  stackFunction: test,
  source: `tests/${file}, ${test}`,
  why,
})

/** A mistake that a program of test/programs makes on purpose; `file`: without `.c`. */
const ofOwnProgram = (file: string, id: FindingId, stackFunction: string, why: string): KnownFinding => ({
  programs: [basename(file)],
  id,
  severity: 'error',
  stackFunction,
  source: `test/programs/${file}.c, ${stackFunction}`,
  why,
})

/** `programs`: separated by spaces. */
const warning = (programs: string, id: FindingId, source: string, why: string, text?: RegExp): KnownFinding => ({
  programs: programs.split(' '),
  id,
  severity: 'warning',
  ...(text && { text }),
  source,
  why,
})

const PERFTEST = 'ib_*'

export const knownFindings: readonly KnownFinding[] = [
  // ---- ibverbs-utils ----
  warning(
    'ibv_srq_pingpon',
    'sends-lost',
    'libibverbs/examples/srq_pingpong.c (main)',
    'counts the messages of all queue pairs together, and ends although sends of some of them have not arrived',
  ),
  warning(
    'ibv_srq_pingpon',
    'receive-overlap',
    'libibverbs/examples/srq_pingpong.c:585',
    'all receives are posted to one buffer',
  ),
  warning(
    'ibv_srq_pingpon',
    'buffer-reused',
    'libibverbs/examples/srq_pingpong.c:585',
    'that buffer is also used for the sends',
  ),
  warning(
    'ibv_rc_pingpong',
    'refused-call',
    'libibverbs/examples/rc_pingpong.c (ibv_modify_qp)',
    'without `-g`: RoCE needs a global route',
    /is_global is 0/,
  ),
  warning(
    'ibv_rc_pingpong',
    'leak',
    'libibverbs/examples/rc_pingpong.c:372, :439, :474',
    'without `-g` it stops, and destroys nothing',
  ),

  // ---- rdmacm-utils ----
  {
    programs: ['mckey'],
    id: 'bad-request',
    severity: 'error',
    text: /no such address handle/,
    source: 'librdmacm/examples/mckey.c:566, :390',
    why: 'the sender destroys its address handle without waiting for its sends: those that still wait for the port fail',
  },
  warning(
    'mckey',
    'completions-unpolled',
    'librdmacm/examples/mckey.c:566',
    'the sender polls no completion, so it learns of no failure',
  ),
  warning(
    'mckey',
    'leak',
    'librdmacm/examples/mckey.c:102, :140, :148, :184, :315',
    'a receiver that is stopped while it waits has destroyed none of its objects',
  ),
  warning(
    'ucmatose udaddy mckey',
    'receive-overlap',
    'librdmacm/examples/cmatose.c:176, udaddy.c:189, mckey.c:220',
    'all receives are posted to one buffer',
  ),
  warning(
    'rping rstream riostream rcopy cmtime mckey',
    'leak',
    'librdmacm: rdma_create_id, rdma_get_cm_event, rdma_bind_addr',
    'librdmacm keeps one PD for each device until the process ends',
    /^PD [01] /,
  ),
  warning(
    'rping',
    'leak',
    'librdmacm/examples/rping.c:476, :483, :497, :597, :617, :632',
    'with `-P` the server ends while the thread of a connection has not freed it',
  ),
  warning(
    'rping',
    'cm-id-destroyed-early',
    'librdmacm/examples/rping.c, rping_run_server',
    'the server calls rdma_destroy_id before rping_free_qp, which calls ibv_destroy_qp',
  ),
  warning(
    'rcopy',
    'leak',
    'librdmacm/rsocket.c:775, :785, :800, :844, :938',
    'the server never ends; if it is stopped before it has closed a connection, the objects of the connection remain',
    /^(?:QP|CQ|MR) /,
  ),
  warning(
    'rstream riostream rcopy',
    'region-in-use',
    'librdmacm/rsocket.c:1056, :1062, :1079',
    'rclose deregisters the buffers before it destroys the queue pair, and does not poll the remaining completions',
  ),
  warning(
    'rstream riostream',
    'sends-lost',
    'librdmacm/rsocket.c, rshutdown',
    "it waits for its message that says the end until the peer's comes, and then ends the connection",
    / WRITE_WITH_IMM /,
  ),
  warning(
    'cmtime',
    'destroy-busy',
    'librdmacm/examples/cmtime.c:267, :606',
    'rdma_destroy_qp of the first connection destroys CQs that later ones use: the call answers EBUSY, and librdmacm ignores that',
    /^CQ /,
  ),
  warning('cmtime', 'leak', 'librdmacm/examples/cmtime.c:267, :606', 'the CQs that could not be destroyed', /^CQ /),
  warning(
    'rdma_xclient rdma_xserver',
    'leak',
    'librdmacm/examples/rdma_xclient.c:97, rdma_xserver.c:61, :93',
    'the XRC domain, its queue and CQs are not destroyed',
  ),
  warning(
    'udpong',
    'refused-call',
    'librdmacm/rsocket.c (ibv_create_ah)',
    'rsockets of datagrams name no GID, which every RoCE device requires',
    /is_global is 0/,
  ),

  // ---- perftest ----
  warning(
    'ib_send_bw ib_send_lat',
    'receive-overlap',
    'perftest_resources.c:3172, :3188',
    'receives are posted to a few buffers in turn, whose contents the program does not read',
  ),
  warning(
    'ib_send_bw',
    'receives-short',
    'perftest_resources.c (run_iter_bw_server)',
    'with few receives (`-r 16`) a server that gets no processor posts them again later than the client sends',
  ),
  warning(
    'ib_send_bw',
    'leak',
    'perftest_resources.c:1605, :1415',
    'a client creates a CQ for receives, and destroy_ctx destroys it only for a server, `-b`, `-e` or a latency test',
    /^CQ /,
  ),
  warning('ib_atomic_lat', 'leak', 'atomic_lat.c:257', 'the server returns from main without destroy_ctx'),
  warning(
    PERFTEST,
    'leak',
    'perftest_resources.c:1597, :1605 (CQs), :1769 (MR), :1989 (PD), :2403 (QP)',
    'with rdma_cm (`-R`, `-z`) the resources of the exchange of addresses, or all, are not destroyed',
  ),
  ...(['refused-call', 'double-destroy'] as const).map(
    (id): KnownFinding => ({
      programs: [PERFTEST],
      id,
      severity: 'error',
      text: /rdma_(?:resolve_addr|destroy_id|destroy_event_channel)/,
      source: 'perftest_communication.c:2691, perftest_resources.c:5313',
      why: 'with `-R` a client does not wait until the server of its second connection listens; when it is rejected it tries again with identifiers and a channel that it has destroyed',
    }),
  ),
  warning(
    PERFTEST,
    'cm-id-destroyed-early',
    'perftest_resources.c:5313, rdma_cm_destroy_cma',
    'the identifier of a rejected connection is destroyed before its queue pair',
  ),
  warning(
    'ib_send_bw',
    'destroy-busy',
    'send_bw.c:106, :611',
    'with `-g` and a group that is refused, it destroys queue pairs that are attached to a group',
  ),

  // ---- pyverbs: most tests provoke the failure that they expect ----
  python('qp-no-right', 'test_atomic.py:133', 'test_atomic_invalid_qp_access', 'the queue pair does not allow atomics'),
  python(
    'rkey-no-right',
    'test_atomic.py:139',
    'test_atomic_invalid_mr_access',
    'a region without remote rights has rkey 0',
  ),
  python('unknown-rkey', 'test_atomic.py:160', 'test_atomic_invalid_rkey', 'it sends the rkey + 1'),
  python('unknown-lkey', 'test_atomic.py:153', 'test_atomic_invalid_lkey', 'it uses the lkey + 1'),
  python('atomic-misaligned', 'test_atomic.py:146', 'test_atomic_non_aligned_addr', 'the address is odd'),
  python(
    'stale-rkey',
    'test_mr.py:342',
    'test_invalidate_mw_type1',
    'it writes through the window after a bind of no bytes',
  ),
  python('stale-rkey', 'test_mr.py:371', 'test_mw_type2_invalidate_dealloc', 'it writes through a deallocated window'),
  python(
    'window-not-bound',
    'test_mr.py:355',
    'test_mw_type2_invalidate_local',
    'it writes through an invalidated window',
  ),
  python(
    'window-not-bound',
    'test_mr.py:362',
    'test_mw_type2_invalidate_remote',
    'it writes through an invalidated window',
  ),
  python(
    'rkey-no-right',
    'test_qpex.py:357',
    'test_qp_ex_rc_bind_mw',
    'it writes through a window without remote rights',
  ),
  python('post-wrong-state', 'test_qpex.py:364', 'test_post_receive_qp_state_bad_flow', 'it posts in RESET'),
  python('post-wrong-state', 'test_qpex.py:368', 'test_post_send_qp_state_bad_flow', 'it posts in RESET'),
  python(
    'bad-request',
    'test_qpex.py:376',
    'test_rq_with_larger_sgl_bad_flow',
    'a receive has more elements than its queue takes',
  ),
  warning(
    'python3',
    'refused-call',
    'tests/test_addr.py:62, test_cq.py:74, :78, :136, test_cqex.py:125, :133, test_device.py:109, test_mr.py:181, :184, :382, test_qp.py:201, :212, :223, :234',
    'tests that pass wrong arguments, or skip when the call is refused',
  ),
  warning(
    'python3',
    'region-in-use',
    'tests/test_cq_events.py:54, test_cq_events_rc',
    'it ends with receives outstanding',
  ),
  warning(
    'python3',
    'leak',
    'tests/rdmacm_utils.py:214, :291, :295, :307, test_rdmacm_async_ex_leave_multicast_traffic',
    'its processes end without destroying their objects',
  ),
  warning(
    'python3',
    'late-receives',
    'tests/rdmacm_utils.py:131, _ext_qp_client_traffic',
    'it posts the receive of the answer after its request, and the peer may answer before',
  ),

  warning(
    'python3',
    'receives-short',
    'tests/rdmacm_utils.py, _ext_qp_server_traffic',
    'the server posts its receive after the client may send: the send is repeated after 655 ms, the longest time',
  ),

  // ---- our own programs ----
  ofOwnProgram('pairs/datagrams', 'bad-request', 'unreliable_connection', 'it expects that UC refuses a READ'),
  ofOwnProgram('memory/memory_windows', 'stale-rkey', 'type1', 'it writes through a window that was bound anew'),
  ofOwnProgram(
    'memory/memory_windows',
    'rkey-no-right',
    'type2_local_invalidate',
    'it writes through a window for reading',
  ),
  ofOwnProgram(
    'memory/memory_windows',
    'atomic-misaligned',
    'atomic_write_at',
    'it expects that the responder refuses the address',
  ),
  ofOwnProgram(
    'memory/memory_windows',
    'qp-no-right',
    'flush_range',
    'it expects that the responder refuses the FLUSH',
  ),
  warning(
    'memory_windows',
    'destroy-busy',
    'test/programs/memory/memory_windows.c, type1',
    'it expects that a region with bound windows cannot be deregistered',
  ),
  warning(
    'memory_windows',
    'batch-misused',
    'test/programs/memory/memory_windows.c, flush_range',
    'its WRITE without data becomes a FLUSH in the ring',
  ),
  warning(
    'shared_queues',
    'refused-call',
    'test/programs/pairs/shared_queues.c, limit and resize',
    'it expects that wrong limits are refused',
  ),
  warning(
    'initialised',
    'leak',
    'test/programs/check/initialised.c, main',
    'it is run under valgrind, and ends without destroying its objects',
  ),
  warning(
    'initialised',
    'receive-overlap',
    'test/programs/check/initialised.c, main',
    'all receives are posted to one buffer',
  ),
  warning(
    'unacknowledged',
    'leak',
    'test/programs/failures/unacknowledged.c, main',
    'it ends with the event unacknowledged',
  ),
]

/** Of large applications: UCX 1.13.1, libfabric 1.17.0 and others of Debian 12 (applications.ts). */
export const applicationFindings: readonly KnownFinding[] = [
  warning(
    'ucx_perftest',
    'send-buffer-changed',
    'src/tools/perf/lib/ucp_tests.cc:435 of UCX 1.13.1 (write_sn)',
    'the ping-pong of puts writes the next number into its buffer when the answer of the peer has come, although the put before may not be complete: the peer has its bytes',
  ),
  {
    programs: ['fi_pingpong', 'mpi_check'],
    id: 'no-receive-posted',
    severity: 'error',
    source: 'prov/efa/src/rxr/rxr_pkt_cmd.c:701 of libfabric 1.17.0',
    why: 'the peer posts its receives when it first makes progress, and rnr_retry is 3: libfabric queues the packet that failed, and sends it again',
  },
  warning(
    'fi_pingpong mpi_check',
    'late-receives',
    'prov/efa/src/rxr/rxr_pkt_cmd.c:701 of libfabric 1.17.0',
    'the peer posts its receives when it first makes progress: the sender sends again',
  ),
  warning(
    'fi_pingpong',
    'no-peer-qp',
    'prov/rxd/src/rxd_ep.c of libfabric 1.17.0 (rxd_ep_close, rxd_ep_send_ack, rxd_progress_pkt_list)',
    'the end that is done first closes without waiting for the last acknowledgement or packet of the other one, which finds no queue pair',
  ),
  warning(
    'fi_pingpong',
    'region-in-use',
    'util/pingpong.c:1876, :1877 of libfabric 1.17.0 (pp_free_res)',
    'the region is closed before the endpoint whose receives use it',
    / while QP /,
  ),
  warning(
    'fi_pingpong',
    'region-in-use',
    'prov/rxm/src/rxm_ep.c:1010, :1012 of libfabric 1.17.0 (rxm_ep_close)',
    'the buffers are freed, and their region deregistered, before the shared receive queue is closed',
    / while (?:XRC_)?SRQ /,
  ),
  warning(
    'fio',
    'conn-param-uninitialised',
    'engines/rdma.c:884 of fio 3.33',
    'it sets retry_count to 10, and the field has 3 bits: the kernel takes 7',
  ),
  warning(
    'fio',
    'events-overacknowledged',
    'engines/rdma.c:410, :684 of fio 3.33',
    'it acknowledges as many events as it has polled completions, after one ibv_get_cq_event',
  ),
  warning(
    'fio',
    'destroy-busy',
    'engines/rdma.c:1010, :1011, :1020, :1021 of fio 3.33',
    'it destroys the CQ before its queue pair, and does not look at the results; so the channel and the protection domain are in use too',
  ),
  warning(
    'fio',
    'leak',
    'engines/rdma.c:501, :508, :1346, :1010, :1021 of fio 3.33',
    'it deregisters no region, and what could not be destroyed stays',
  ),
  {
    programs: ['qperf'],
    id: 'refused-call',
    severity: 'error',
    text: /^rdma_destroy_qp calls ibv_destroy_qp with NULL/,
    source: 'src/rdma.c:1942 of qperf 0.4.11 (cm_close)',
    why: 'the process of the server that serves a test calls rdma_destroy_qp with the identifier that listens, which has no queue pair; without the checker it crashes there, after the test',
  },
  warning(
    'qperf',
    'destroy-busy',
    'src/rdma.c:1609, :1611, :1613, :1614 of qperf 0.4.11 (rd_close)',
    'the queue pair of the server is not destroyed, so CQ, domain and channel are in use; and the domain is deallocated before the region is deregistered (rd_mrfree)',
  ),
  warning(
    'qperf',
    'region-in-use',
    'src/rdma.c:1614 of qperf 0.4.11 (rd_mrfree)',
    'the queue pair of the server is not destroyed, and has receives and sends outstanding',
  ),
  warning(
    'qperf',
    'leak',
    'src/rdma.c:1611, :1942 of qperf 0.4.11',
    'what could not be destroyed stays until the process ends',
  ),
  warning(
    'qperf',
    'sends-lost',
    'src/rdma.c:1938, :1942 of qperf 0.4.11 (cm_close)',
    'a test ends after its time, with sends outstanding',
  ),
  warning(
    'qperf',
    'receive-overlap',
    'src/rdma.c of qperf 0.4.11 (rd_post_recv_std)',
    'all receives are posted to one buffer, whose contents are not read',
  ),
  warning(
    'ib_write_bw',
    'leak',
    'perftest_resources.c:1605, :1633, :1415',
    'a server of DC creates a CQ for receives, and destroy_ctx does not destroy it',
    /^CQ /,
  ),
]
