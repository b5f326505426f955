/*
 * What a capture can show about a queue pair's failures and slowness, as `userdma explain FILE` prints it: what the
 * packets say, what may cause it, and where to look next. A capture has no state of the devices, so a row names
 * findings (spec/check/findings.ts) that look alike on the wire; which of them it was, only their end knows.
 */
import type { FindingId } from './check/findings.ts'

/** `failure`: requests failed, or will. `slow`: time was lost. `note`: what the reader should know. */
export type CaptureSeverity = 'failure' | 'slow' | 'note'

interface CauseRow {
  readonly severity: CaptureSeverity
  /** Of problems with the same severity, the higher rank comes first. */
  readonly rank: number
  readonly title: string
  readonly why: string
  /** What the packets cannot tell, after "unknown, because ". */
  readonly unknown?: string
  readonly advice: string
  /** Further advice for captures of InfiniBand. */
  readonly infiniband?: string
  /** Findings of `userdma check` that look like this on the wire. */
  readonly findings: readonly FindingId[]
}

const ACCESS = [
  'stale-rkey',
  'unknown-rkey',
  'rkey-other-pd',
  'remote-out-of-bounds',
  'rkey-no-right',
  'qp-no-right',
  'window-not-bound',
  'remote-unmapped',
  'peer-ended',
  'peer-refused',
] as const satisfies readonly FindingId[]

const REJECTED = [
  'port-byte-order',
  'refused-call',
  'conn-param-uninitialised',
  'connection-waits',
  'listener-address',
  'cm-refused-used',
  'cm-not-confirmed',
  'cm-connected-again',
] as const satisfies readonly FindingId[]

const captureCauses = {
  'lost-between': {
    severity: 'failure',
    rank: 97,
    title: 'packets left one point and never came to the next',
    why: 'a link, switch, bond or host between the two points dropped them (a full queue, a wrong checksum, an MTU, a filter)',
    unknown: 'a capture may miss packets that passed its point, and does not say so',
    advice:
      'look at what lies between the two points only: drops of switch ports, `ethtool -S` of the interfaces (rx_discards_phy, rx_crc_errors_phy), and drops that the capturing programs printed',
    findings: ['no-answer'],
  },
  'no-answer': {
    severity: 'failure',
    rank: 95,
    title: 'requests were sent again and never answered',
    why: 'a responder drops packets without an answer if it has no such queue pair, if the queue pair is not ready, in error, of another type or connected elsewhere, if the P_Key is not its own, or if the packet is longer than its path MTU; a path that loses all packets looks the same',
    unknown: 'all of these are silent',
    advice:
      'on the responder: compare the destination QPN, GID and MTU with its queue pair (`rdma resource show qp`), and look whether its port counts the packets (mlx5: rx_vport_rdma_unicast_packets of `ethtool -S`; irdma: ip4InPkts; bnxt_re: rx_pkts; EFA: rx_pkts; rxe: rcvd_pkts; in hw_counters); if it counts none, the path loses them',
    infiniband:
      'compare LID and P_Key with its port (`ibstat`, `smpquery pkeys LID`), and follow the way by `ibtracert` and the counters of the switches (`perfquery LID PORT`: PortXmitDiscards, PortRcvSwitchRelayErrors)',
    findings: [
      'no-peer-qp',
      'peer-not-ready',
      'peer-in-error',
      'peer-connected-elsewhere',
      'service-mismatch',
      'path-mtu-mismatch',
      'no-answer',
      'peer-gone',
      'key-mismatch',
      'psn-mismatch',
      'sends-lost',
      'infinite-timeout',
      'rd-atomic-exceeds',
      'peer-ended',
      'message-dropped',
      'cq-overrun',
      'cq-never-polled',
      'wrong-grh',
      'not-routed',
    ],
  },
  'answers-stop': {
    severity: 'failure',
    rank: 90,
    title: 'the responder answered, and then no more',
    why: 'its queue pair was destroyed or went to the error state, its process or host ended, or the path broke, in one direction or in both',
    unknown: 'the packets do not say why an end is silent',
    advice:
      'look at the log of the responder from the time of the last answer on: an asynchronous event, a failed receive, an exit; then at its port (`ip -s link`, `rdma statistic show`)',
    infiniband:
      'the subnet manager may have given a port another LID (event LID_CHANGE, `ibstat`), or a link between switches has failed (`iblinkinfo`, `ibtracert`, `perfquery LID PORT`)',
    findings: [
      'peer-in-error',
      'peer-gone',
      'no-answer',
      'no-peer-qp',
      'sends-lost',
      'infinite-timeout',
      'peer-ended',
      'receive-too-short',
      'local-unmapped',
      'rd-atomic-exceeds',
      'message-dropped',
      'path-mtu-mismatch',
      'cq-overrun',
      'cq-never-polled',
    ],
  },
  'lid-zero': {
    severity: 'failure',
    rank: 91,
    title: 'packets go to LID 0, which no port has',
    why: 'the program does not exchange LIDs: on RoCE they are 0, and a path of InfiniBand needs that of the port at the other end',
    advice:
      'set dlid of the queue pair or address handle to the lid of the other port (`ibv_query_port`; `ibstat`), or connect by rdma_cm',
    findings: ['wrong-lid'],
  },
  'pkey-limited': {
    severity: 'failure',
    rank: 94,
    title: 'requests with the P_Key of no full member have no answer',
    why: 'a responder that is a limited member of the partition too drops them, and every port drops those with P_Key 0',
    unknown: 'the packets do not have the P_Key table of the other port',
    advice:
      'look at both tables (`smpquery pkeys LID`): one end must be a full member; choose pkey_index by its P_Key, or let the subnet manager make the port a full member',
    findings: ['key-mismatch', 'no-answer'],
  },
  'answer-elsewhere': {
    severity: 'failure',
    rank: 93,
    title: 'the answers go to another address than the requests come from',
    why: "the responder's queue pair has another address vector: a GID index of another address, or a host with several addresses",
    advice: 'compare sgid_index and dgid of both ends (`ibv_query_qp`); name the GID, not its index',
    findings: ['no-answer', 'peer-connected-elsewhere'],
  },
  'icmp-refused': {
    severity: 'failure',
    rank: 96,
    title: 'a host or router says by ICMP that it cannot deliver the packets',
    why: 'the message says why',
    advice:
      'port unreachable: the host has no RoCEv2 device at this address (`rdma link`, its GID table); packet too big: lower path_mtu of both ends, or raise the MTU of the path (`ping -M do -s`); prohibited: a firewall refuses UDP port 4791; unreachable or time exceeded: look at the routes',
    findings: ['no-answer', 'peer-gone', 'path-mtu-mismatch'],
  },
  'other-port': {
    severity: 'failure',
    rank: 94,
    title: 'RoCEv2 packets go to another UDP port',
    why: 'their ICRC is right, and RoCEv2 devices take packets at one UDP port only (4791); a middlebox that translates ports makes the ICRC wrong, so the sender chose it',
    advice: 'read the capture again with --port and this number; at the sender, look for a changed port of RoCEv2',
    findings: ['no-answer'],
  },
  'psn-mismatch': {
    severity: 'failure',
    rank: 92,
    title: 'the responder expects another PSN than the requester sends',
    why: "the requester's sq_psn is not the responder's rq_psn, so no packet is in order; or only one end was reset, and what it sends at its old PSNs is answered as a duplicate: its requests succeed without effect",
    advice:
      'exchange sq_psn of each end, and set it as rq_psn at the other; mind the byte order; after a reset of one end, reset the other too',
    findings: ['psn-mismatch', 'peer-connected-elsewhere'],
  },
  'sequence-repeats': {
    severity: 'failure',
    rank: 88,
    title: 'the responder asks for the same packet again and again',
    why: 'a packet of this PSN never arrives in order: it is lost each time (a middlebox, or an MTU on the path below that of the queue pair), or the requester does not send it',
    unknown: 'the capture shows one point of the path only',
    advice:
      'capture at the responder too, and give `userdma explain` both files; compare the MTU on the path (`ping -M do -s`)',
    findings: ['no-answer', 'path-mtu-mismatch', 'psn-mismatch'],
  },
  'remote-access': {
    severity: 'failure',
    rank: 85,
    title: 'NAK remote access error',
    why: 'the rkey is wrong, stale, of another protection domain or does not allow the access, the address is out of its bounds, or the queue pair does not allow remote access',
    unknown: 'the NAK has one code for all of them',
    advice:
      'on the responder: compare the rkey and address range of the request with its regions (`rdma resource show mr`), and their lifetimes',
    findings: [...ACCESS, 'atomic-misaligned', 'failure-ignored'],
  },
  'invalid-request': {
    severity: 'failure',
    rank: 84,
    title: 'NAK invalid request',
    why: 'the request breaks a rule of the protocol: more READs and atomics outstanding than max_dest_rd_atomic, an operation that the responder lacks or its queue pair does not allow, a length that does not fit, packets that are not as long as the path MTU of its queue pair, a misaligned atomic, or a message that is longer than the receive; or the responder expects a later PSN than the first, and the first packet that it takes is a MIDDLE or LAST of a message',
    unknown: 'the NAK has one code for all of them',
    advice:
      "on the responder: qp_access_flags and max_dest_rd_atomic, and the length of its receives; at both ends: the same path_mtu, and the requester's sq_psn as the responder's rq_psn",
    findings: [
      'invalid-request',
      'rd-atomic-exceeds',
      'atomic-misaligned',
      'receive-too-short',
      'qp-no-right',
      'path-mtu-mismatch',
      'psn-mismatch',
      'peer-refused',
      'request-length',
    ],
  },
  'remote-operation': {
    severity: 'failure',
    rank: 84,
    title: 'NAK remote operational error',
    why: "the responder failed: the receive's memory cannot be written (lkey, bounds, unmapped), the message is longer than the receive, or its completion queue overran",
    unknown: 'the NAK has one code for all of them',
    advice: "look at the responder's completions and asynchronous events: its own completion has the cause",
    findings: [
      'receive-too-short',
      'stale-lkey',
      'unknown-lkey',
      'lkey-other-pd',
      'local-out-of-bounds',
      'lkey-no-right',
      'local-unmapped',
      'cq-overrun',
      'cq-never-polled',
      'remote-unmapped',
      'slow-memory',
      'peer-refused',
      'peer-ended',
      'buffer-freed',
      'frame-returned',
      'region-in-use',
      'window-not-bound',
      'program-died',
    ],
  },
  'invalid-rd-request': {
    severity: 'failure',
    rank: 84,
    title: 'NAK invalid RD request',
    why: 'reliable datagrams, which no adapter has: the packet is damaged or forged',
    advice: 'look at the packet in Wireshark, and at what rewrites packets on the path',
    findings: [],
  },
  'rnr-exhausted': {
    severity: 'failure',
    rank: 86,
    title: 'the RNR retries ran out',
    why: 'the responder had no receive posted for the message, longer than rnr_retry and its timer allow',
    advice:
      'post receives before the peer may send, or raise rnr_retry (7: without limit) and min_rnr_timer; responder counters: mlx5 out_of_buffer, rxe rnr_nak_err (`hw_counters`)',
    findings: ['no-receive-posted', 'late-receives', 'receives-short', 'endless-rnr', 'receives-after-accept'],
  },
  'rnr-last': {
    severity: 'failure',
    rank: 83,
    title: 'the last answers are RNR NAKs: no receive was posted',
    why: 'the RNR retries ran out, the program ended before, or the capture did',
    unknown: 'the packets do not have rnr_retry, unless the connection was made in the capture',
    advice:
      'look whether the requester has a completion with RNR_RETRY_EXC_ERR; post receives before the peer may send, or raise rnr_retry (7: without limit) and min_rnr_timer',
    findings: [
      'no-receive-posted',
      'late-receives',
      'receives-short',
      'endless-rnr',
      'receives-after-accept',
      'sends-lost',
      'program-ended',
    ],
  },
  'cm-rejected': {
    severity: 'failure',
    rank: 80,
    title: 'a connection was rejected',
    why: 'the REJ says why',
    advice:
      'look at the reason: 8 means that nobody listens at this port, 28 that the program called rdma_reject, or ended with the connection waiting',
    findings: REJECTED,
  },
  'cm-rejected-alone': {
    severity: 'failure',
    rank: 78,
    title: 'a REJ, and nothing else of its connection',
    why: 'the REJ says why; the message that it rejects is not in the capture, because that began later or has one direction only',
    advice:
      'look at the reason: 4 means that its sender waited for an answer in vain, 8 that nobody listens at this port, 28 that the program called rdma_reject, or ended; capture from before the connection, on both hosts',
    findings: [...REJECTED, 'no-answer', 'peer-gone'],
  },
  'cm-no-answer': {
    severity: 'failure',
    rank: 79,
    title: 'a message of the connection manager was not answered',
    why: 'the other host does not run the service, does not get the packets (firewall for UDP port 4791, wrong GID), or its program does not accept',
    unknown: 'silence has one form only',
    advice: 'on the other host: `rdma resource show cm_id`, and a capture at its port',
    findings: [
      'cm-connected-again',
      'port-byte-order',
      'no-answer',
      'peer-gone',
      'connection-waits',
      'conn-param-uninitialised',
    ],
  },
  'disconnected-outstanding': {
    severity: 'note',
    rank: 48,
    title: 'the connection was closed while requests were outstanding',
    why: 'a DREQ moves both ends to the error state, and flushes what is outstanding',
    unknown: 'the capture may miss the acknowledgement',
    advice: 'look at the program whose end sent the DREQ',
    findings: ['sends-lost', 'cm-id-destroyed-early', 'peer-gone', 'qp-after-disconnect'],
  },
  'qkey-zero': {
    severity: 'failure',
    rank: 60,
    title: 'datagrams have Q_Key 0',
    why: 'a receiver drops datagrams whose Q_Key is not that of its queue pair, and rarely has 0 itself',
    advice: 'set remote_qkey of the request to the qkey of the receiver',
    findings: ['key-mismatch', 'message-dropped'],
  },
  'pkey-differs': {
    severity: 'failure',
    rank: 82,
    title: 'the ends use different P_Keys',
    why: 'an end drops packets of another partition',
    advice: 'set the same pkey_index value at both ends (`/sys/class/infiniband/*/ports/1/pkeys`)',
    findings: ['key-mismatch'],
  },
  fragmented: {
    severity: 'failure',
    rank: 77,
    title: 'RoCEv2 packets are fragmented by IP',
    why: 'they are longer than the MTU of a link on the path, and may be fragmented; adapters do not put fragments together, and drop them',
    advice: 'lower path_mtu of both ends, or raise the MTU of the path (`ping -M do -s`)',
    findings: ['no-answer', 'path-mtu-mismatch'],
  },
  'mtu-differs': {
    severity: 'failure',
    rank: 70,
    title: 'the ends use different path MTUs',
    why: 'an end refuses or drops packets that are longer than its own path MTU, and middle packets that are shorter',
    advice: 'set the same path_mtu at both ends: the smaller of both active MTUs',
    findings: ['path-mtu-mismatch'],
  },
  'icrc-wrong': {
    severity: 'failure',
    rank: 75,
    title: 'packets have a wrong ICRC',
    why: 'something on the path rewrote a field that the ICRC covers (a NAT, a load balancer, an address or port), or damaged the packet; receivers drop it silently',
    advice: 'compare the same packet at both ends; take what rewrites packets out of the path',
    findings: ['no-answer'],
  },
  malformed: {
    severity: 'failure',
    rank: 50,
    title: 'packets break the rules of their opcode: length, pad or order',
    why: 'a receiver drops them, or answers NAK invalid request',
    advice: 'look at the frames in Wireshark; who sent them is not a healthy adapter',
    findings: ['invalid-request'],
  },
  'psn-jump': {
    severity: 'note',
    rank: 40,
    title: 'the PSN jumps',
    why: 'a new connection uses the number of a queue pair that was destroyed, packets of the earlier one are still on the path ("ghosts"), or much is missing in the capture',
    unknown: 'the capture may miss what is between',
    advice: 'start each connection with a random PSN; wait for the TIMEWAIT of the earlier one',
    findings: [],
  },
  ghosts: {
    severity: 'note',
    rank: 42,
    title: 'packets of an earlier connection arrive',
    why: 'the queue pair number is in use again, and packets with the PSNs of the connection before are still on the path or still sent: the peer does not know that the connection has ended',
    advice:
      'start each connection with a random PSN; wait for the TIMEWAIT of the earlier one; look whether the peer gets the DREQ',
    findings: [],
  },
  'after-disconnect': {
    severity: 'note',
    rank: 44,
    title: 'packets of a connection follow its DREP',
    why: 'one end sends, or answers, although both have agreed to end: its queue pair is not yet destroyed, or not in the error state',
    unknown: "packets may overtake the connection manager's messages on the path",
    advice:
      'look at the program that sends them: it should flush its queue pair (rdma_disconnect) and poll what is left',
    findings: ['qp-after-disconnect', 'sends-lost'],
  },
  'class-differs': {
    severity: 'note',
    rank: 41,
    title: 'queue pairs between two hosts have different DSCP, or the two directions of one connection',
    why: 'each end sends in the traffic class of its own path, acknowledgements and READ responses too; switches choose queue, PFC and ECN by the DSCP',
    unknown: 'a switch before the capture point may have rewritten it, and it may be intended',
    advice:
      'compare grh.traffic_class of both ends (NCCL_IB_TC, UCX_IB_TRAFFIC_CLASS, `cat /sys/class/infiniband/*/tc/1/traffic_class`) and the classes that are lossless (`mlnx_qos -i`, `dcb pfc show`); capture at the sender to see what it sends',
    findings: ['class-differs', 'no-answer'],
  },
  unanswered: {
    severity: 'note',
    rank: 45,
    title: 'the last requests have no answer in the capture',
    why: 'the capture ended first, misses this direction, or the requester did not repeat them where it was taken',
    unknown: 'offloads of an adapter hide its repeated packets from a capture on its host',
    advice: 'capture longer, or on the other side',
    findings: [
      'no-answer',
      'no-peer-qp',
      'peer-in-error',
      'peer-not-ready',
      'peer-gone',
      'infinite-timeout',
      'sends-lost',
      'program-ended',
      'both-receive',
    ],
  },
  'one-direction': {
    severity: 'note',
    rank: 46,
    title: 'the capture has packets of one direction only',
    why: 'a filter of the capturing program, a mirror port that copies one direction, a bond or a path whose other direction takes another way',
    unknown: 'a host that sends nothing looks the same',
    advice:
      'capture where both directions pass, without a filter for one host; the missing half says which requests succeeded, and why others were sent again',
    findings: [],
  },
  unpaired: {
    severity: 'note',
    rank: 20,
    title: 'the queue pair at the other end is not known',
    why: 'packets carry only the destination queue pair, and the connection began before the capture',
    unknown: 'several queue pairs between these hosts used the same PSNs, or one direction is missing',
    advice: 'start the capture before the connection',
    findings: [],
  },
  'rnr-waits': {
    severity: 'slow',
    rank: 35,
    title: 'requests waited for a receive of the responder (RNR NAK)',
    why: 'the responder had no receive posted when the message came; the requester waits for the time of the NAK, and sends again',
    advice: 'post more receives, earlier; responder counters: mlx5 out_of_buffer, rxe rnr_nak_err',
    findings: ['late-receives', 'receives-short', 'no-receive-posted', 'endless-rnr', 'receives-after-accept'],
  },
  loss: {
    severity: 'slow',
    rank: 38,
    title: 'packets were lost and sent again',
    why: 'go-back-N sends all packets again from the lost one on',
    advice:
      'look at drops on the path (`ethtool -S`: rx_discards_phy, rx_out_of_buffer; switch queues) and at PFC or ECN; requester counters: mlx5 packet_seq_err, local_ack_timeout_err; bnxt_re to_retransmits, seq_err_naks_rcvd; EFA retrans_pkts; rxe retry_exceeded_err, out_of_seq_request; irdma has none for RoCE',
    infiniband: 'look at the ports on the way (`ibtracert`; `perfquery LID PORT`: PortXmitDiscards, SymbolErrors)',
    findings: ['no-answer'],
  },
  'lossy-path': {
    severity: 'slow',
    rank: 41,
    title: 'of the flows between two hosts, those with some UDP source ports lose packets, and others do not',
    why: 'switches and routers choose one of several equal paths by the hash of the five-tuple (ECMP), in which these flows differ by the source port only: one path loses packets, and these ports take it',
    unknown: 'packets do not name their path',
    advice:
      'find out where the paths of both kinds of ports part (`traceroute -U -p 4791 --sport=PORT HOST`; on a Linux router `ip route get HOST from SOURCE iif INTERFACE ipproto udp sport PORT dport 4791`; switches show the next hop of a five-tuple too), and look at the drops and errors of links and routers there that only the lossy ones cross',
    findings: ['no-answer'],
  },
  'implied-nak': {
    severity: 'slow',
    rank: 37,
    title: 'responses were lost, and the requester asked for them again (implied NAK)',
    why: 'a response to a READ or an atomic was lost on the way to the requester; it sees that at the next one, and repeats the request from the missing PSN on, without waiting for its timer',
    unknown: 'a timeout that is as short looks the same',
    advice:
      'look at drops on the path from the responder to the requester (`ethtool -S`: rx_discards_phy, rx_out_of_buffer; switch queues), and at PFC or ECN; requester counters: mlx5 implied_nak_seq_err, rxe completer_retry_err',
    findings: ['no-answer'],
  },
  'late-acknowledgements': {
    severity: 'slow',
    rank: 39,
    title: 'acknowledgements came later than the timeout: nothing was lost',
    why: 'the timeout of the queue pair is shorter than an answer takes: a long path, a queue on it, or a responder that is busy; the requester sends again what has arrived already',
    advice:
      'raise timeout of the requester (4.096 µs × 2^timeout; rdma_cm: RDMA_OPTION_ID_ACK_TIMEOUT) above the longest answer; look at why answers take so long: queues on the path, the load of the responder; counters: mlx5 local_ack_timeout_err, and duplicate_request at the responder',
    findings: ['no-answer'],
  },
  congestion: {
    severity: 'slow',
    rank: 30,
    title: 'the path is congested',
    why: 'switches mark packets (ECN), receivers send CNPs, and senders slow down',
    advice:
      'compare the rates of the senders to one receiver (incast), and the ECN thresholds of switches; counters: mlx5 np_cnp_sent, rp_cnp_handled, np_ecn_marked_roce_packets',
    findings: [],
  },
  incast: {
    severity: 'slow',
    rank: 32,
    title: 'several hosts send to one at the same time (incast)',
    why: 'the link to the receiver carries less than they send together, so its switch queues, marks or drops',
    advice:
      'compare the times of the senders; spread the transfers over time or receivers, let fewer be outstanding, and look at ECN, PFC and the queue of the switch port to the receiver (mlx5: rx_discards_phy, rx_prio*_pause)',
    findings: [],
  },
  doubled: {
    severity: 'slow',
    rank: 24,
    title: 'packets arrive twice',
    why: 'the path doubles them (a bond, a bridge loop, a mirror whose copies are in the capture): no sender repeats a packet that fast',
    unknown: 'the capture itself may have each packet twice',
    advice:
      'look at the points of the capture first; then at bridges and bonds; responder counter: mlx5 duplicate_request',
    findings: [],
  },
  'reads-limited': {
    severity: 'slow',
    rank: 16,
    title: 'READs and atomics wait for each other',
    why: "the requester may have only so many outstanding (max_rd_atomic, or rdma_cm's initiator_depth and responder_resources)",
    unknown: 'the program may have posted no more',
    advice: 'raise max_rd_atomic of the requester and max_dest_rd_atomic of the responder, or read larger parts',
    findings: ['no-rd-atomic'],
  },
  'sender-paused': {
    severity: 'slow',
    rank: 8,
    title: 'the requester paused while nothing was outstanding',
    why: 'neither the path nor the responder: the program posted nothing',
    unknown: 'the packets do not say what the program waited for',
    advice: 'look at what the program does between its posts: `userdma run --host --record`, `perf sched`',
    findings: [],
  },
  reordered: {
    severity: 'slow',
    rank: 28,
    title: 'packets arrive out of order',
    why: 'several paths (ECMP per packet, a bond, adaptive routing) carry one flow; a responder without out-of-order support takes it as loss',
    advice: 'hash by flow, not by packet; mlx5 counter: out_of_sequence',
    findings: [],
  },
  'one-in-flight': {
    severity: 'slow',
    rank: 15,
    title: 'never more than one message was in flight',
    why: 'each message waits for the acknowledgement of the one before, so the rate is one message per round trip',
    advice: 'post several requests before polling; for READs raise max_rd_atomic at both ends',
    findings: ['no-rd-atomic'],
  },
  'slow-answers': {
    severity: 'slow',
    rank: 18,
    title: 'some answers took much longer than most',
    why: 'the responder, its PCIe or its memory paused, or packets queued on the path',
    unknown: 'one capture point cannot tell which',
    advice: 'capture at the responder too: `userdma explain` then says on which side the time went',
    findings: [],
  },
} as const satisfies Record<string, CauseRow>

export type CaptureCause = keyof typeof captureCauses

/** The row of a cause, with what rows may lack. `isInfiniband`: with the advice for a capture of InfiniBand. */
export const captureCause = (cause: CaptureCause, isInfiniband = false): CauseRow => {
  const row: CauseRow = captureCauses[cause]
  const { advice, infiniband } = row
  return isInfiniband && infiniband !== undefined ? { ...row, advice: `${advice}; ${infiniband}` } : row
}

/** Failures before slowness before notes. */
export const severityOrder: Readonly<Record<CaptureSeverity, number>> = { failure: 2, slow: 1, note: 0 }
