/*
 * Causes: why requests fail, packets are dropped, events are raised and destroys wait. The code of a cause is the
 * `vendor_err` of the failed completion; a successful completion has 0. Codes keep their meaning and are never reused.
 */
import { AccessFlags, type AsyncEventType, nameIn, QpState } from '../enums.ts'
import type { ActingRule } from '../faults.ts'
import { type WcStatus, WrOpcode } from '../work.ts'

type StatusName = keyof typeof WcStatus.values
type EventName = keyof typeof AsyncEventType.values

interface CauseRow {
  readonly code: number
  /** The completion statuses and asynchronous events to which the cause leads. */
  readonly results: readonly (StatusName | EventName)[]
  /** Not an error: not in the log. */
  readonly isNote?: boolean
  /**
   * A sentence without its full stop, with arguments in braces. `{length}`: a decimal number or a text; `{key:hex}`:
   * hexadecimal; `{right:rights}`: ibv_access_flags; `{opcode:request}`: ibv_wr_opcode; `{state:state}`: a queue pair's
   * state.
   */
  readonly text: string
  /** What to do about it, where the cause alone tells. Of findings that have several causes (findings.ts). */
  readonly advice?: string
  /** The same for programs of the TypeScript library. Absent: the advice of the finding. */
  readonly libraryAdvice?: string
}

/** Of a path by a wrong LID. */
const TELL_LID =
  "tell the peer the lid of ibv_query_port beside the queue pair number, and set ah_attr.dlid to the peer's; on RoCE it is 0, and is_global with the GID leads there"
/** Of a GRH that names another port than the LID. */
const TELL_GRH =
  'set grh.dgid to the GID of the port whose LID is in dlid (ibv_query_gid of the peer), or leave is_global 0: within a subnet the LID is enough'
/** Of partition keys that do not let two ends talk. */
const TELL_PKEY = 'give both ends a pkey_index of the same P_Key (ibv_modify_qp to INIT, ibv_query_pkey)'
/** Only the peer knows the cause. */
const ASK_PEER = "look into the peer's log, or check both ends in one daemon, which knows the cause"

const table = {
  // ---- 0x1..: the work request itself ----
  BAD_OPCODE: {
    code: 0x101,
    results: ['LOC_QP_OP_ERR'],
    text: 'this type of queue pair has no {opcode:request}',
    advice: 'use an operation of this type of queue pair (ibv_post_send(3))',
  },
  TOO_MANY_SGE: {
    code: 0x102,
    results: ['LOC_QP_OP_ERR'],
    text: 'the request has more scatter/gather elements than max_send_sge, {max}',
    advice: 'request a larger max_send_sge when creating the queue pair, or post fewer elements',
  },
  NOT_INLINE: {
    code: 0x103,
    results: ['LOC_QP_OP_ERR'],
    text: '{opcode:request} does not support inline data',
    advice: 'post the request without IBV_SEND_INLINE',
  },
  NO_READS: {
    code: 0x104,
    results: ['LOC_QP_OP_ERR'],
    text: 'max_rd_atomic of the queue pair is 0: it may have no READ or atomic outstanding',
  },
  BAD_FLUSH: {
    code: 0x105,
    results: ['LOC_QP_OP_ERR'],
    text: 'placement {placement} with selectivity {selectivity} is not a valid FLUSH',
  },
  MESSAGE_TOO_LONG: {
    code: 0x106,
    results: ['LOC_LEN_ERR'],
    text: 'the message is longer than 2147483648 bytes',
    advice: 'split the message',
  },
  INLINE_TOO_LONG: {
    code: 0x107,
    results: ['LOC_LEN_ERR'],
    text: 'the inline data is longer than max_inline_data of the queue pair',
    advice: 'request a larger max_inline_data when creating the queue pair, or post without IBV_SEND_INLINE',
  },
  ATOMIC_LENGTH: {
    code: 0x108,
    results: ['LOC_LEN_ERR'],
    text: 'the request has {length} bytes; an atomic needs 8',
    advice: 'give an atomic one scatter/gather element of 8 bytes, for its result',
  },
  COPY_LENGTH: {
    code: 0x10e,
    results: ['LOC_LEN_ERR'],
    text: 'a copy has 1 to {max} bytes, the same number on both sides',
  },
  NO_ADDRESS_HANDLE: {
    code: 0x109,
    results: ['LOC_QP_OP_ERR'],
    text: 'the protection domain has no such address handle',
    advice:
      'use an address handle of the protection domain of the queue pair, and destroy it after the completions of its sends',
  },
  DATAGRAM_TOO_LONG: {
    code: 0x10a,
    results: ['LOC_LEN_ERR'],
    text: 'a datagram of {length} bytes is longer than the path MTU, {mtu}, and is not sent',
    advice: 'send at most one path MTU in a datagram, or use a connection',
  },
  FRAME_LENGTH: {
    code: 0x10b,
    results: ['LOC_LEN_ERR'],
    text: 'a raw packet has {min} to {max} bytes, not {length}',
  },
  SRD_LENGTH: {
    code: 0x10c,
    results: ['LOC_LEN_ERR'],
    text: 'the request has {length} bytes: a SEND may have {mtu}, the inline data of a request must be whole, and the elements of a READ or WRITE must be as long as its remote range',
  },
  KEY_CONFIGURATION: {
    code: 0x10d,
    results: ['LOC_QP_OP_ERR'],
    text: 'the request configures a key, or sets a protection signature, that the protection domain does not have, or in a way that the device does not have',
  },
  REFUSED: {
    code: 0x10f,
    results: ['LOC_QP_OP_ERR', 'LOC_LEN_ERR'],
    text: 'the queue pair does not accept the request',
  },

  // ---- 0x2..: local memory, of the scatter/gather elements of a send or receive request ----
  LKEY_UNKNOWN: {
    code: 0x201,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex} is unknown: it was never registered, or was deregistered long ago',
    advice: "set lkey of each scatter/gather element to the region's lkey",
  },
  LKEY_DEREGISTERED: {
    code: 0x202,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex} was deregistered (it was [{rangeStart:hex}, {rangeEnd:hex}))',
  },
  LKEY_OTHER_PD: {
    code: 0x203,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex} belongs to another protection domain',
  },
  LKEY_NO_RIGHT: { code: 0x204, results: ['LOC_PROT_ERR', 'REM_OP_ERR'], text: 'lkey {key:hex} has no {right:rights}' },
  LKEY_RANGE: {
    code: 0x205,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex}: [{accessStart:hex}, {accessEnd:hex}) is outside [{rangeStart:hex}, {rangeEnd:hex})',
  },
  LKEY_WINDOW: {
    code: 0x206,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex} is of a memory window, which only peers can use',
    advice: 'set lkey to that of the region: only peers use the key of a window',
  },
  LOCAL_FAULT: {
    code: 0x207,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex}: memory [{accessStart:hex}, {accessEnd:hex}) is unmapped or protected',
  },
  LOCAL_ENDED: {
    code: 0x208,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'the program that owns the memory has ended',
  },
  LOCAL_SLOW: {
    code: 0x209,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex}: memory [{accessStart:hex}, {accessEnd:hex}) took too long to access; the daemon has disconnected the program',
  },
  LKEY_REFUSED: {
    code: 0x20f,
    results: ['LOC_PROT_ERR', 'REM_OP_ERR'],
    text: 'lkey {key:hex} does not allow [{accessStart:hex}, {accessEnd:hex})',
    advice: 'set lkey, addr and length of each scatter/gather element to a range of the region',
  },

  // ---- 0x3..: a NAK, a wrong response or no response. For the NAK of a peer in this process, the peer's own cause
  // (0x2.., 0x4.. or 0x5..) is reported instead. ----
  NAK_INVALID_REQUEST: {
    code: 0x301,
    results: ['REM_INV_REQ_ERR'],
    text: 'the peer answered: invalid request',
    advice: ASK_PEER,
  },
  NAK_REMOTE_ACCESS: {
    code: 0x302,
    results: ['REM_ACCESS_ERR'],
    text: 'the peer answered: remote access error',
    advice: ASK_PEER,
  },
  NAK_REMOTE_OPERATION: {
    code: 0x303,
    results: ['REM_OP_ERR'],
    text: 'the peer answered: remote operational error',
    advice: ASK_PEER,
  },
  NAK_INVALID_RD: {
    code: 0x304,
    results: ['REM_INV_RD_REQ_ERR'],
    text: 'the peer answered: invalid RD request',
    advice: ASK_PEER,
  },
  NO_ANSWER: {
    code: 0x305,
    results: ['RETRY_EXC_ERR'],
    text: 'no answer: sent {tries} times, retry_cnt is {retryCnt}',
  },
  LID_UNKNOWN: {
    code: 0x313,
    results: ['RETRY_EXC_ERR'],
    text: 'no port of the subnet has LID {lid}',
    advice: TELL_LID,
  },
  LID_OF_OTHER: {
    code: 0x311,
    results: ['RETRY_EXC_ERR'],
    text: 'LID {lid} is not that of the peer: QP {peerQpn:hex} is on {port}, whose LID is {right}',
    advice: TELL_LID,
  },
  NOT_JOINED: {
    code: 0x314,
    results: [],
    text: 'queue pairs of {port} are attached to the group, and the port has not joined it: switches forward nothing with multicast LID {lid:hex} to it',
    advice:
      'join the group before ibv_attach_mcast, and attach with the LID of the answer: rdma_join_multicast, or an MCMemberRecord to the subnet manager; ibv_attach_mcast joins nothing',
  },
  GROUP_QPN: {
    code: 0x316,
    results: [],
    text: '{group} is a multicast group, and remote_qpn is {qpn:hex}, not 0xffffff',
    advice: 'set wr.ud.remote_qpn to 0xffffff, which is param.ud.qp_num of the event MULTICAST_JOIN too',
  },
  GRH_OF_OTHER: {
    code: 0x315,
    results: [],
    text: 'dgid {dgid} is no GID of {port}, to which LID {lid} leads',
    advice: TELL_GRH,
  },
  ROCE_VERSION: {
    code: 0x317,
    results: ['RETRY_EXC_ERR'],
    text: "GID index {index} is of RoCE v{version}, and the peer's GID index {peerIndex} is not: adapters drop packets of the other version",
    advice:
      'choose indices of one type on both ends (ibv_query_gid_ex, NCCL_IB_GID_INDEX): of each address, v1 comes before v2',
  },
  VLAN_DIFFERS: {
    code: 0x31b,
    results: ['RETRY_EXC_ERR'],
    text: "GID index {index} is of {vlan}, and the peer's GID index {peerIndex} of {peerVlan}: no switch carries packets from one to the other",
    advice:
      'choose indices of one VLAN on both ends (gid_attrs/ndevs names the interface of each index, ibv_query_gid_ex, NCCL_IB_GID_INDEX)',
  },
  LINK_LOCAL_ROUTED: {
    code: 0x318,
    results: ['RETRY_EXC_ERR'],
    text: 'dgid {dgid} is a link-local address, the router {router} is on the way, and no router forwards these: both ends need GIDs of IP addresses',
    advice:
      'choose the index of a RoCE v2 GID of an IP address on both ends (ibv_query_gid_ex, NCCL_IB_GID_INDEX), and tell the peer that GID',
  },
  ROCE_V1_ROUTED: {
    code: 0x319,
    results: ['RETRY_EXC_ERR'],
    text: 'GID index {index} is of RoCE v1, the router {router} is on the way to {dgid}, and no router forwards frames of v1, which have no IP header',
    advice:
      'choose the index of a RoCE v2 GID on both ends (gid_attrs/types, ibv_query_gid_ex, NCCL_IB_GID_INDEX): of each address, v1 comes before v2',
  },
  HOP_LIMIT_ENDED: {
    code: 0x31a,
    results: ['RETRY_EXC_ERR'],
    text: 'hop_limit is {hopLimit}, and the router {router} is on the way to {dgid}: the packets end there',
    advice:
      'set hop_limit to 64 or more: queue pairs of firmware commands (DEVX) and address handles of adapters send it as given, where Linux takes that of the route for connected queue pairs',
  },
  LOSSY_CLASS: {
    code: 0x31c,
    results: ['RETRY_EXC_ERR'],
    text: 'DSCP {dscp} is in class {name}, which is lossy: {lost} of its packets were lost in front of the link from {from} to {to}, while class {lossless} is lossless there',
    libraryAdvice:
      'connect both ends with a trafficClass of the lossless class (DSCP × 4), put the DSCP into that class, or let senders slow down (dcqcn, and mark of the class)',
  },
  CLASS_PAUSED: {
    code: 0x31d,
    results: ['RETRY_EXC_ERR'],
    text: 'DSCP {dscp} is in class {name}, which {to} pauses: packets wait in front of the link from {from} to {to}',
    libraryAdvice:
      'look in network.stats() for what pauses the class, link by link: many senders to one host, or a pause storm; choose timeout and retryCount for the longest pause',
  },
  LONGER_THAN_MTU: {
    code: 0x31e,
    results: ['RETRY_EXC_ERR'],
    text: 'packets are longer than the MTU of the link from {from} to {to}, {mtu} bytes of IP, which has lost {packets} of this path',
    advice:
      'choose a smaller path_mtu on both ends, which leaves room for the headers (76 bytes, IPv6 96), or raise the MTU of the link; devices set DF, and act on no ICMP',
  },
  TTL_ENDED: {
    code: 0x31f,
    results: ['RETRY_EXC_ERR'],
    text: 'the TTL of {packets} packets of this path has ended at the router {from}',
    advice: 'set hop_limit to more routers than are on the way: 64, or 255',
  },
  NO_ROUTE: {
    code: 0x320,
    results: ['RETRY_EXC_ERR'],
    text: '{from} has no path to {dgid}: {packets} packets were lost there',
    advice: 'look at the routers and links on the way, of which one is down',
  },
  PORT_NOT_ACTIVE: {
    code: 0x312,
    results: ['RETRY_EXC_ERR'],
    text: 'the port of {port} is {state}, not ACTIVE: no subnet manager has made it so',
  },
  DC_NO_ANSWER: {
    code: 0x30b,
    results: ['RETRY_EXC_ERR'],
    text: 'the DC target did not answer in time: none has this number and address, it is not in RTR, or its device is overloaded',
  },
  DC_BUSY: {
    code: 0x30c,
    results: ['RNR_RETRY_EXC_ERR'],
    text: 'the DC target has as many connections as it may have, and rnr_retry is used up',
    advice: 'let fewer initiators use the target at a time, or set rnr_retry to 7 (retries without limit)',
  },
  DC_ACCESS_KEY: {
    code: 0x30a,
    results: ['REM_ACCESS_ERR'],
    text: 'the DC target has another access key than the request, {accessKey:hex}',
    advice: 'give the request the access key of the target (dc_key)',
  },
  SRD_NO_ANSWER: {
    code: 0x30d,
    results: ['RESP_TIMEOUT_ERR'],
    text: 'the destination did not answer in time: no device has this address, or it is overloaded',
  },
  SRD_NO_QUEUE_PAIR: {
    code: 0x30e,
    results: ['REM_INV_RD_REQ_ERR'],
    text: 'the destination has no queue pair with this number, type and Q_Key that can receive',
    advice: "send with number and Q_Key of the destination's queue pair, and only when that has moved to RTR",
  },
  SRD_QKEY: {
    code: 0x310,
    results: ['REM_INV_RD_REQ_ERR'],
    text: 'the request has Q_Key {packetQkey:hex}, and the queue pair at the destination {qkey:hex}',
    advice: 'send with the Q_Key that the receiver gave to ibv_modify_qp (to INIT)',
  },
  SRD_UNKNOWN: {
    code: 0x30f,
    results: ['REM_OP_ERR'],
    text: 'the destination has no address handle for the sender, which RDMA needs',
    advice: 'create an address handle for the sender at the destination, before it is read or written',
  },
  PACKETS_LOST: {
    code: 0x306,
    results: ['RETRY_EXC_ERR'],
    text: 'packets were lost repeatedly: sent {tries} times, retry_cnt is {retryCnt}',
  },
  RNR_EXCEEDED: {
    code: 0x307,
    results: ['RNR_RETRY_EXC_ERR'],
    text: 'the peer has no receive posted: RNR NAK {rnrNaks} times, rnr_retry is {rnrRetry}',
    advice: 'post receives before the peer may send, count credits, or set rnr_retry to 7 (retries without limit)',
  },
  BAD_RESPONSE: {
    code: 0x308,
    results: ['BAD_RESP_ERR'],
    text: 'the response does not match {opcode:request} or its length',
    advice: 'compare the path MTUs of both ends',
  },
  PSN_DIFFERS: {
    code: 0x309,
    results: ['RETRY_EXC_ERR', 'REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'the requester began at PSN {sent:hex} (sq_psn), and the responder expected {expected:hex} then',
  },

  // ---- 0x4..: why a responder refuses a request or drops a packet ----
  OUT_OF_PLACE: {
    code: 0x401,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'a packet with BTH opcode {bthOpcode:hex} does not continue the message',
  },
  PACKET_LENGTH: {
    code: 0x402,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'a packet with {payload} bytes does not fit path MTU {mtu}; both ends must have the same',
  },
  NO_SRQ: {
    code: 0x403,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'the XRC domain has no SRQ {srqn:hex}, or the packets of one message name different SRQs',
    advice:
      "send to the number of an SRQ of the receiver's XRC domain (ibv_get_srq_num), the same for the whole message",
  },
  QP_NO_RIGHT: {
    code: 0x404,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'the queue pair has no {right:rights} in its access flags',
  },
  REMOTE_TOO_LONG: {
    code: 0x405,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'a message of {length} bytes is longer than 2147483648',
    advice: 'split the message',
  },
  DMA_LENGTH: {
    code: 0x406,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'a packet does not match the {length} bytes of the request that remain',
  },
  RECEIVE_TOO_SHORT: {
    code: 0x407,
    results: ['LOC_LEN_ERR', 'REM_INV_REQ_ERR'],
    text: 'the receive buffer of {bufferBytes} bytes is too short for a message of {length} bytes or more',
  },
  TOO_MANY_READS: {
    code: 0x408,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'more READs and atomics are outstanding than max_dest_rd_atomic, {max}',
  },
  ATOMIC_ADDRESS: {
    code: 0x409,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'address {address:hex} of an atomic is not a multiple of 8',
  },
  FLUSH_KIND: {
    code: 0x40a,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'a FLUSH with placement {placement} and selectivity {selectivity} is not supported',
  },
  ATOMIC_WRITE_LENGTH: {
    code: 0x40b,
    results: ['REM_INV_REQ_ERR', 'QP_REQ_ERR'],
    text: 'an ATOMIC WRITE has 8 bytes, not {length}',
    advice: 'give an ATOMIC WRITE 8 bytes',
  },
  NOT_INVALIDATED: {
    code: 0x40c,
    results: ['REM_INV_REQ_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} of a SEND with invalidate is not a type 2 window bound to the queue pair',
    advice: 'invalidate only a type 2 window, on the queue pair to which it is bound',
  },
  QKEY_DIFFERS: {
    code: 0x40d,
    results: [],
    text: 'QP {sourceQpn:hex} sends with Q_Key {packetQkey:hex}, and the queue pair has {qkey:hex}',
    advice:
      'send with the Q_Key that the receiver gave to ibv_modify_qp (to INIT); a remote_qkey with the highest bit set stands for the Q_Key of the sending queue pair',
  },
  PKEY_DIFFERS: {
    code: 0x40e,
    results: ['RETRY_EXC_ERR'],
    text: 'QP {sourceQpn:hex} sends with P_Key {packetPkey:hex}, and QP {qpn:hex} has {pkey:hex}',
    advice: TELL_PKEY,
  },
  PKEY_LIMITED: {
    code: 0x410,
    results: ['RETRY_EXC_ERR'],
    text: 'QP {sourceQpn:hex} and QP {qpn:hex} are both limited members of their partition: P_Key {pkey:hex}, without 0x8000',
    advice:
      'limited members talk to full members only: give one of the two ports the full P_Key, with 0x8000 (the subnet manager: `partitions.conf` of OpenSM), or use a partition of which one is a full member',
  },
  PKEY_EMPTY: {
    code: 0x411,
    results: ['RETRY_EXC_ERR'],
    text: 'QP {qpn:hex} has P_Key 0: its pkey_index is an empty entry of the table of its port',
    advice:
      'look for the P_Key in the table (ibv_query_pkey), and set pkey_index to its place: an index below pkey_tbl_len may be empty, and a P_Key may have another place on each port',
  },
  NO_RECEIVE: {
    code: 0x40f,
    results: [],
    isNote: true,
    text: 'no receive request is posted',
    advice: 'post receives before the peer may send, and as many as it may have outstanding',
  },

  // ---- 0x5..: remote memory: the responder refuses the rkey or the range of a request ----
  RKEY_UNKNOWN: {
    code: 0x501,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is unknown: it was never registered, or was deregistered long ago',
    advice:
      "compare the rkey of the request with that of the peer's region (ibv_mr.rkey), where the two ends exchange it",
  },
  RKEY_DEREGISTERED: {
    code: 0x502,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} was deregistered (it was [{rangeStart:hex}, {rangeEnd:hex}))',
    advice: 'deregister only after the peer has said that it no longer uses the rkey',
  },
  RKEY_OTHER_PD: {
    code: 0x503,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} belongs to another protection domain',
  },
  RKEY_NO_RIGHT: {
    code: 0x504,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} has no {right:rights}',
  },
  RKEY_RANGE: {
    code: 0x505,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex}: [{accessStart:hex}, {accessEnd:hex}) is outside [{rangeStart:hex}, {rangeEnd:hex})',
  },
  WINDOW_UNBOUND: {
    code: 0x506,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is of a memory window that is not bound',
    advice: 'wait for the completion of the bind before the rkey is sent',
  },
  WINDOW_INVALIDATED: {
    code: 0x510,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is of a memory window that an invalidation has unbound (SEND_WITH_INV, LOCAL_INV)',
    advice: 'an rkey ends with its invalidation: bind the window again and send its new rkey before the next access',
  },
  WINDOW_OTHER_QP: {
    code: 0x507,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is of a memory window that is bound to QP {qpn:hex}',
    advice:
      'use the rkey on the connection of the queue pair to which the window was bound: a type 2 window is for no other',
  },
  RKEY_OLD: {
    code: 0x508,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is stale: the key of this memory window is now {currentKey:hex}',
    advice: 'send the rkey that the window has since its last bind',
  },
  REMOTE_FAULT: {
    code: 0x509,
    results: ['REM_OP_ERR', 'LOC_ACCESS_ERR', 'QP_FATAL'],
    text: 'rkey {key:hex}: memory [{accessStart:hex}, {accessEnd:hex}) is unmapped or protected',
  },
  REMOTE_ENDED: {
    code: 0x50a,
    results: ['REM_OP_ERR', 'LOC_ACCESS_ERR', 'QP_FATAL'],
    text: 'the program that owns the memory has ended',
  },
  WINDOW_DEALLOCATED: {
    code: 0x50b,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} is of a memory window that was deallocated',
    advice: 'deallocate the window only after the peer has said that it no longer uses the rkey',
  },
  REMOTE_SLOW: {
    code: 0x50c,
    results: ['REM_OP_ERR', 'LOC_ACCESS_ERR', 'QP_FATAL'],
    text: 'rkey {key:hex}: memory [{accessStart:hex}, {accessEnd:hex}) took too long to access; the daemon has disconnected the program',
  },
  RKEY_NONE: {
    code: 0x50d,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey 0 is no key: the region with address {accessStart:hex} was registered without {right:rights}',
  },
  RKEY_REFUSED: {
    code: 0x50f,
    results: ['REM_ACCESS_ERR', 'LOC_ACCESS_ERR', 'QP_ACCESS_ERR'],
    text: 'rkey {key:hex} does not allow [{accessStart:hex}, {accessEnd:hex})',
    advice:
      "compare rkey, address and length of the request with those of the peer's region, where the two ends exchange them",
  },

  // ---- 0x6..: flushed requests ----
  FLUSHED: {
    code: 0x601,
    results: ['WR_FLUSH_ERR'],
    isNote: true,
    text: 'the queue pair moved to {state:state} after an error',
  },
  MODIFIED: {
    code: 0x602,
    results: ['WR_FLUSH_ERR'],
    isNote: true,
    text: 'the program has moved the queue pair to ERR, or its connection has ended',
  },
  DEVICE_REMOVED: {
    code: 0x603,
    results: ['WR_FLUSH_ERR', 'DEVICE_FATAL'],
    isNote: true,
    text: 'the device was removed',
  },

  // ---- 0x7..: memory windows ----
  BIND_WINDOW: {
    code: 0x701,
    results: ['MW_BIND_ERR'],
    text: 'the protection domain has no memory window {key:hex}',
    advice: 'bind a window of the protection domain of the queue pair, with the rkey that it has now',
  },
  BIND_RIGHTS: {
    code: 0x702,
    results: ['MW_BIND_ERR'],
    text: 'a window of this type cannot grant {right:rights}',
    advice: 'leave out the rights that this type of window does not have',
  },
  BIND_BOUND: {
    code: 0x703,
    results: ['MW_BIND_ERR'],
    text: 'window {key:hex} is bound already; invalidate it first',
    advice: 'invalidate the window before it is bound again (IBV_WR_LOCAL_INV)',
  },
  BIND_LENGTH: {
    code: 0x704,
    results: ['MW_BIND_ERR'],
    text: 'a type 2 window cannot be bound to 0 bytes',
    advice: 'bind at least 1 byte; to take the rights away invalidate the window (IBV_WR_LOCAL_INV)',
  },
  BIND_REGION: {
    code: 0x705,
    results: ['MW_BIND_ERR'],
    text: 'the protection domain has no region with lkey {key:hex}',
    advice: 'bind the window to a region of the protection domain of the queue pair',
  },
  BIND_NO_RIGHT: {
    code: 0x706,
    results: ['MW_BIND_ERR'],
    text: 'region {key:hex} has no {right:rights}',
    advice:
      'register the region with IBV_ACCESS_MW_BIND, and with IBV_ACCESS_LOCAL_WRITE if peers may write to the window',
  },
  BIND_RANGE: {
    code: 0x707,
    results: ['MW_BIND_ERR'],
    text: '[{accessStart:hex}, {accessEnd:hex}) is outside region {key:hex}, [{rangeStart:hex}, {rangeEnd:hex})',
    advice: 'bind a range that is in the region',
  },
  BIND_REFUSED: {
    code: 0x70f,
    results: ['MW_BIND_ERR'],
    text: 'window {key:hex} cannot be bound with these arguments',
  },
  LOCAL_INVALIDATE: {
    code: 0x711,
    results: ['LOC_QP_OP_ERR', 'MW_BIND_ERR'],
    text: 'rkey {key:hex} is not a type 2 window bound to the queue pair',
    advice: 'invalidate only a type 2 window, on the queue pair to which it is bound',
  },

  // ---- 0x8..: queues and events ----
  CQ_FULL: { code: 0x801, results: ['CQ_ERR'], text: 'CQ {cq} of {entries} is full; a completion was lost' },
  COMPLETION_LOST: { code: 0x802, results: ['QP_FATAL', 'WR_FLUSH_ERR'], text: 'CQ {cq} of {entries} is full' },
  ESTABLISHED: { code: 0x811, results: ['COMM_EST'], isNote: true, text: 'a packet arrived in state RTR' },
  DRAINED: { code: 0x812, results: ['SQ_DRAINED'], isNote: true, text: 'all requests that were sent are complete' },
  LAST_WQE: {
    code: 0x813,
    results: ['QP_LAST_WQE_REACHED'],
    isNote: true,
    text: 'the queue pair moved to ERR and takes no more receives from its shared receive queue',
  },
  SRQ_LIMIT: {
    code: 0x814,
    results: ['SRQ_LIMIT_REACHED'],
    isNote: true,
    text: 'SRQ {srq} has fewer requests than its limit, {limit}',
  },
  PORT_EVENT: {
    code: 0x815,
    results: ['PORT_ACTIVE', 'PORT_ERR', 'GID_CHANGE'],
    isNote: true,
    text: 'the interface of port {port} has changed',
  },
  UNACKNOWLEDGED: {
    code: 0x816,
    results: [],
    text: '{call}_{object} of {number:hex} waits: {acknowledged} of the {read} events that were read are acknowledged ({acknowledge})',
  },
  SPEED_CHANGE: {
    code: 0x817,
    results: ['DEVICE_SPEED_CHANGE'],
    isNote: true,
    text: 'the speed of a port has changed (`ibv_query_port_speed`)',
  },
  NO_SHARE: { code: 0x818, results: [], text: 'no room for {subject}: {reason}; those of new peers are dropped' },
  LISTENS_ELSEWHERE: {
    code: 0x819,
    results: [],
    text: 'a connection request of {peer} for {requested} was rejected: CM_ID {number} listens at {bound}',
  },
  SUBNET_EVENT: {
    code: 0x81a,
    results: ['PORT_ACTIVE', 'PORT_ERR', 'GID_CHANGE', 'LID_CHANGE', 'PKEY_CHANGE', 'SM_CHANGE', 'CLIENT_REREGISTER'],
    isNote: true,
    text: 'InfiniBand port {port}: {change}',
  },
  OTHER_EVENT: { code: 0x81f, results: [], isNote: true, text: 'event {event} of the device' },

  // ---- 0x9..: injected faults ----
  INJECTED: {
    code: 0x901,
    results: [
      'LOC_LEN_ERR',
      'LOC_QP_OP_ERR',
      'LOC_PROT_ERR',
      'WR_FLUSH_ERR',
      'MW_BIND_ERR',
      'BAD_RESP_ERR',
      'LOC_ACCESS_ERR',
      'REM_INV_REQ_ERR',
      'REM_ACCESS_ERR',
      'REM_OP_ERR',
      'RETRY_EXC_ERR',
      'RNR_RETRY_EXC_ERR',
      'FATAL_ERR',
      'GENERAL_ERR',
      'CQ_ERR',
      'QP_FATAL',
      'QP_REQ_ERR',
      'QP_ACCESS_ERR',
      'SRQ_ERR',
      'SRQ_LIMIT_REACHED',
      'PORT_ERR',
      'PORT_ACTIVE',
      'GID_CHANGE',
      'DEVICE_FATAL',
      'DEVICE_SPEED_CHANGE',
    ],
    text: 'injected by fault rule {rule} ({text})',
  },

  // ---- 0xa..: adapters of the machine (--host) ----
  NOT_OBSERVED: {
    code: 0xa01,
    // Any status of an adapter; `userdma explain` is about our devices.
    results: [],
    text: 'the calls and posts that were seen do not say why; the adapter says vendor_err {vendorErr:hex}',
  },
} as const satisfies Record<string, CauseRow>

export type CauseName = keyof typeof table
export const causes: Readonly<Record<CauseName, CauseRow>> = table

/** The names in braces, without their formats. */
type ArgumentName<T extends string> = T extends `${string}{${infer Placeholder}}${infer Rest}`
  ? (Placeholder extends `${infer Name}:${string}` ? Name : Placeholder) | ArgumentName<Rest>
  : never

type CauseArguments<N extends CauseName> = {
  readonly [name in ArgumentName<(typeof table)[N]['text']>]: number | bigint | string
}

export interface Cause {
  readonly id: CauseName
  readonly args: Readonly<Record<string, number | bigint | string>>
  /** In place of the text of `causes`. */
  readonly text?: string
}

export const createCause = <N extends CauseName>(id: N, args: CauseArguments<N>): Cause => ({ id, args })

/** The cause of what a fault rule does. `number`: from 1, as `userdma fault show` counts rules. */
export const causeOfRule = ({ number, text }: ActingRule): Cause => createCause('INJECTED', { rule: number, text })

export const vendorErrorOf = (id: CauseName): number => causes[id].code

const byCode = new Map<number, CauseName>(Object.entries(table).map(([name, { code }]) => [code, name as CauseName]))

export const causeOfCode = (code: number): CauseName | undefined => byCode.get(code)

const rightsText = (bits: number): string =>
  Object.entries(AccessFlags.values)
    .filter(([, bit]) => (bits & bit) !== 0)
    .map(([name]) => name)
    .join(' and ') || `right 0x${bits.toString(16)}`

const formats: Readonly<Record<string, (value: number | bigint | string) => string>> = {
  hex: value => `0x${value.toString(16)}`,
  rights: value => rightsText(Number(value)),
  request: value => requestName(Number(value)),
  state: value => nameIn(QpState.values, Number(value)),
}

/** The name of an ibv_wr_opcode without the prefix RDMA_. */
export const requestName = (opcode: number): string => nameIn(WrOpcode.values, opcode).replace(/^RDMA_/, '')

/** The sentence without its full stop. A missing argument is `?` or NaN. */
export const causeText = ({ id, args, text = causes[id].text }: Cause): string =>
  text.replace(/\{(\w+)(?::(\w+))?\}/g, (_, name: string, format: string | undefined) => {
    const value = args[name] ?? '?'
    return format === undefined ? String(value) : formats[format]!(value)
  })
