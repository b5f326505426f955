/*
 * The kinds of mistakes that `userdma check` finds, by id. Ids keep their meaning. Those with memory are in
 * memory-findings.ts.
 */

import { type CauseName, causes } from './causes.ts'
import type { FindingRow } from './finding-row.ts'
import { memoryFindings } from './memory-findings.ts'
import { waitFindings } from './wait-findings.ts'

const table = {
  // ---- connections: the attributes of both ends ----
  'no-peer-qp': {
    severity: 'error',
    needs: ['call', 'completion', 'peer'],
    title: 'the peer has no queue pair of that number',
    why: 'Packets to an unknown queue pair are dropped without an answer (IBA 9.6.1): the retries of a connection run out, and datagrams are lost. If a signal ended the peer, the finding says so: a warning, or a note if a later request succeeds or the program closes its device.',
    advice: 'check dest_qp_num and that the peer keeps its queue pair until the last acknowledgement',
    libraryAdvice:
      "give each side the other's `qp.endpoint`, and keep the peer's queue pair open until the last request is complete",
    statuses: ['RETRY_EXC_ERR'],
  },
  'peer-not-ready': {
    severity: 'error',
    needs: ['call', 'completion', 'peer'],
    title: 'requests were sent to the peer while it was in RESET or INIT',
    why: 'A queue pair in RESET or INIT drops all packets (IBA 10.3.1): the retries of a connection run out, and datagrams are lost.',
    advice: 'exchange a message outside the connection after both ends are in RTR, before the first request',
    statuses: ['RETRY_EXC_ERR'],
  },
  'peer-in-error': {
    severity: 'error',
    needs: ['call', 'completion', 'peer'],
    title: 'the peer is in an error state',
    why: 'A queue pair in ERR drops all packets (IBA 10.3.1): the retries of a connection run out, and datagrams are lost.',
    advice: "look for the first failure of the peer's queue pair; this one follows from it",
    statuses: ['RETRY_EXC_ERR'],
  },
  'peer-connected-elsewhere': {
    severity: 'error',
    needs: ['call', 'peer'],
    title: 'the peer is connected to another queue pair',
    why: 'A connected queue pair accepts only packets from its peer: both ends name each other by dest_qp_num and address (IBA 9.6.1).',
    advice: "check dest_qp_num and dgid at both ends: each is the other's",
    libraryAdvice: "give each side the `qp.endpoint` of the other's queue pair",
    statuses: ['RETRY_EXC_ERR'],
  },
  'service-mismatch': {
    severity: 'error',
    needs: ['call', 'peer'],
    title: 'the ends have different types of queue pair',
    why: 'The opcode of a packet names its transport service, and a queue pair of another service drops the packet (IBA 9.6.1).',
    advice: 'create both queue pairs with the same qp_type',
    libraryAdvice: 'create both queue pairs with the same method: pd.rcQp or pd.ucQp',
    statuses: ['RETRY_EXC_ERR'],
  },
  'path-mtu-mismatch': {
    severity: 'error',
    needs: ['call', 'completion', 'peer'],
    title: 'the ends have different path MTUs',
    why: 'Messages are segmented into packets of the path MTU. A packet with an unexpected length is an invalid request or response (IBA 9.7.4).',
    advice: "set path_mtu to the same value at both ends: the smaller of the two ports' active_mtu",
    libraryAdvice: 'give both calls of qp.connect the same pathMtu, or none',
    causes: ['PACKET_LENGTH'],
    statuses: ['RETRY_EXC_ERR', 'REM_INV_REQ_ERR', 'BAD_RESP_ERR'],
  },
  'psn-mismatch': {
    severity: 'error',
    needs: ['call', 'peer'],
    title: 'one end sends from another PSN than the other end expects',
    why: "The first packet of a send queue has the PSN sq_psn, and the responder expects rq_psn (IBA 9.7.1). If sq_psn is lower, the responder acknowledges every request as a duplicate, and executes none. If sq_psn is higher, the responder waits for earlier packets, and the sender's retries run out.",
    advice:
      "set rq_psn (to RTR) to the sq_psn that the peer uses (to RTS); exchange both with the queue pairs' numbers",
    libraryAdvice: "give qp.connect the peer's `qp.endpoint`, which has its psn",
    causes: ['PSN_DIFFERS'],
  },
  'rd-atomic-exceeds': {
    severity: 'error',
    needs: ['call', 'post', 'completion', 'peer'],
    title: 'more READs and atomics are outstanding than the peer accepts',
    why: 'A responder has resources for max_dest_rd_atomic READs and atomics, and refuses more as invalid requests (IBA 9.4.4).',
    advice: "set max_rd_atomic (to RTS) to at most the peer's max_dest_rd_atomic (to RTR)",
    libraryAdvice: 'give both calls of qp.connect the same maxRdAtomic',
    causes: ['TOO_MANY_READS'],
  },
  'no-receive-posted': {
    severity: 'error',
    needs: ['completion'],
    title: 'the peer had no receive posted, and the RNR retries ran out',
    why: 'A SEND or a WRITE with immediate needs a receive request. Without a receive request the responder answers RNR NAK, and the sender tries rnr_retry times more (IBA 9.7.5.2.8).',
    libraryAdvice:
      'post receives before the peer may send, count credits, or set rnrRetryCount to 7 (retries without limit)',
    causes: ['RNR_EXCEEDED', 'DC_BUSY'],
  },
  'no-answer': {
    severity: 'error',
    needs: ['completion'],
    title: 'the peer does not answer, or packets are lost, though the known attributes of both ends match',
    why: 'The request was sent retry_cnt + 1 times, and each time the transport timer expired or packets were lost (IBA 9.7.6). If a port was down meanwhile, an address had left its device, or a fault rule lost packets of the connection, the finding names that; and it is a note, if the program survives: it completes a later request, closes its device, or is ended by a signal while the outage lasts.',
    libraryAdvice:
      'check address, route and firewall (UDP port 4791), and that the peer runs; choose timeout and retryCount for its longest pause',
    causes: ['NO_ANSWER', 'PACKETS_LOST', 'DC_NO_ANSWER', 'SRD_NO_ANSWER'],
  },
  'wrong-lid': {
    severity: 'error',
    needs: ['device'],
    title: 'the LID of a path is not that of the port on which the peer is',
    why: 'On InfiniBand switches forward by LIDs, and a packet whose LID no port has, or the port of another device, is lost: the retries of a connection run out, and datagrams get nowhere. LIDs are given by the subnet manager, may change, and are not in the GID. A program that was tried on RoCE only has none: its dlid is 0.',
    libraryAdvice: "give each side the other's `qp.endpoint`, which has the LID",
    causes: ['LID_UNKNOWN', 'LID_OF_OTHER'],
  },
  'wrong-grh': {
    severity: 'warning',
    needs: ['device'],
    title: 'the GRH of a path names another port than its LID',
    why: 'On InfiniBand switches forward by the LID, and routers between subnets by the GRH. An adapter drops packets whose GRH does not name it (IBA 8.3, 9.6.1); this device takes them. Programs that were tried on RoCE only leave is_global set, with a GID that is of no use here.',
    libraryAdvice: "give each side the other's `qp.endpoint`, which has LID and GID",
    causes: ['GRH_OF_OTHER'],
  },
  'port-not-active': {
    severity: 'error',
    needs: ['device'],
    title: 'requests are sent before the port is ACTIVE',
    why: 'A port of InfiniBand is INIT until a subnet manager has given it a LID and made it ACTIVE (IBA 10.5, 14.2.5). Queue pairs can be connected before, but the port sends and receives management datagrams only: retries run out, and datagrams are lost.',
    advice:
      'wait for IBV_PORT_ACTIVE (ibv_query_port, or the event IBV_EVENT_PORT_ACTIVE) before you take the LID and connect; on a machine, look whether a subnet manager runs (`sminfo`)',
    causes: ['PORT_NOT_ACTIVE'],
  },
  'peer-refused': {
    severity: 'error',
    needs: ['completion'],
    title: 'the peer refused the request, or its response does not match, for a reason that only the peer knows',
    why: 'A NAK has the kind of error but not the cause (IBA 9.7.5.2). A READ response of another length may come from a peer with another path MTU.',
    causes: [
      'NAK_INVALID_REQUEST',
      'NAK_REMOTE_ACCESS',
      'NAK_REMOTE_OPERATION',
      'NAK_INVALID_RD',
      'BAD_RESPONSE',
      'DC_ACCESS_KEY',
      'SRD_NO_QUEUE_PAIR',
      'SRD_UNKNOWN',
    ],
  },
  'key-mismatch': {
    severity: 'error',
    needs: ['device'],
    title: 'the Q_Key of a datagram or the P_Key of a packet is not that of its destination',
    why: 'A packet with another P_Key or Q_Key than the queue pair is dropped without an answer (IBA 10.2.4, 10.2.5): datagrams are lost, a request of SRD fails, and the retries of a connection run out. Of two limited members of a partition (a P_Key without 0x8000) neither takes packets of the other, and an empty entry of the table of P_Keys is in no partition (IBA 10.9.1).',
    libraryAdvice:
      'send with the qkey that the receiver gave to qp.activate; a qkey with the highest bit set stands for the one of the sending queue pair',
    causes: ['QKEY_DIFFERS', 'PKEY_DIFFERS', 'PKEY_LIMITED', 'PKEY_EMPTY', 'SRD_QKEY'],
  },
  'message-dropped': {
    severity: 'note',
    needs: ['check'],
    title: 'a message of UD or UC was dropped, and its request succeeds',
    why: 'Without acknowledgements the sender learns nothing: its request completes when the last packet is sent (IBA 9.8.2, 9.8.3). The message found no receive; or no device has the GID of its address handle, or no queue pair is in its multicast group, or on InfiniBand only queue pairs of ports that have not joined it (known if no packets leave the daemon, `--link memory`); or the peer of UC was destroyed or is not connected. The finding also names an address handle that was destroyed before the completion of its send was polled: an adapter may still need it (IBA 11.2.2).',
    causes: ['NO_RECEIVE', 'NOT_JOINED'],
  },
  'invalid-request': {
    severity: 'error',
    needs: ['device'],
    title: 'the responder refuses packets that break a rule of the protocol',
    why: 'The packets of a message come in order, have as many bytes as the first packet announces, and request an operation that the responder supports (IBA 9.7.4).',
    causes: ['OUT_OF_PLACE', 'NO_SRQ', 'REMOTE_TOO_LONG', 'DMA_LENGTH', 'FLUSH_KIND', 'ATOMIC_WRITE_LENGTH'],
  },
  'infinite-timeout': {
    severity: 'note',
    needs: ['call'],
    title: 'timeout 0 waits without limit for an answer',
    why: 'Timeout 0 switches the transport timer off (IBA 9.7.6): after a lost packet the request never completes. The finding is a warning if a request waits and its peer is gone.',
    advice: 'set timeout to 14 (67 ms) or more',
  },
  ...waitFindings,
  'connected-to-itself': {
    severity: 'note',
    needs: ['call'],
    title: 'a queue pair is connected to itself',
    why: 'dest_qp_num and dgid name the queue pair itself, which receives its own messages. This is legal, but rarely intended.',
    advice: "exchange the numbers of both queue pairs, and set dest_qp_num to the peer's",
    libraryAdvice: "exchange the endpoints of both queue pairs: qp.connect takes the peer's",
  },

  // ---- rdma_cm ----
  'cm-id-destroyed-early': {
    severity: 'warning',
    needs: ['check'],
    title: 'an identifier of rdma_cm was destroyed before its queue pair',
    why: 'rdma_destroy_id ends the connection and frees the identifier, but not the queue pair that rdma_create_qp has created (rdma_destroy_id(3)): rdma_destroy_qp needs the identifier, so afterwards only ibv_destroy_qp can destroy it.',
    advice: 'call rdma_destroy_qp before rdma_destroy_id, or rdma_destroy_ep instead of both',
  },
  'conn-param-uninitialised': {
    severity: 'warning',
    needs: ['device'],
    title: 'a field of rdma_conn_param has a value beyond its range, or names no queue pair',
    why: 'An identifier without a queue pair (rdma_create_qp) connects the queue pair that qp_num names, and no program has queue pair 0. retry_count and rnr_retry_count have 3 bits, flow_control and srq are 0 or 1 (rdma_connect(3)). Linux takes larger values for the largest; most often the program has not initialised the struct, and other fields are random too.',
    advice: 'initialise all fields: struct rdma_conn_param parameters = {0}, then set those that the connection needs',
  },
  'receives-after-accept': {
    severity: 'note',
    needs: ['device'],
    title: 'the first receive was posted after the connection was accepted',
    why: 'The peer may send as soon as it has the acceptance: without a receive its message waits for RNR retries, or fails (IBA 9.7.5.2.8). The finding is a note because the peer may send later.',
    advice: 'post receives between rdma_create_qp and rdma_accept',
  },

  ...memoryFindings,

  // ---- requests ----
  'bad-request': {
    severity: 'error',
    needs: ['call', 'post', 'completion'],
    title: 'the queue pair does not accept the work request',
    why: 'Each type of queue pair has its operations and limits (IBA 10.8); adapters refuse other requests at the post, or complete them in error.',
    libraryAdvice:
      "check operation, options and number of slices against the queue pair's type and options (maxSendSge, maxInlineData)",
    causes: [
      'BAD_OPCODE',
      'TOO_MANY_SGE',
      'NOT_INLINE',
      'BAD_FLUSH',
      'KEY_CONFIGURATION',
      'NO_ADDRESS_HANDLE',
      'REFUSED',
    ],
  },
  'batch-misused': {
    severity: 'error',
    needs: ['call', 'post', 'library'],
    title: 'functions of ibv_wr_* are called in an order, or without setters, that make no valid request',
    why: 'Between ibv_wr_start and ibv_wr_complete or ibv_wr_abort of one thread, each request is a function that adds it, such as ibv_wr_send, followed by one setter of its data, and of its address if the queue pair has type UD or XRC_SEND (ibv_wr_post(3)). No function returns an error: a wrong order changes other requests, loses data, crashes, or waits for ever.',
    advice:
      'call ibv_wr_start, then for each request the function that adds it and its setters, then ibv_wr_complete or ibv_wr_abort',
  },
  'failure-ignored': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program posts to a queue pair whose failure it has polled',
    why: 'After a failure a queue pair is in ERR, where all requests are flushed, until it is reset (IBA 10.3.1). Other queue pairs, and the port, may work meanwhile: the event PORT_ACTIVE does not bring the queue pair back. An initiator of DC in ERR flushes also the requests to targets that are well. The finding is reported from the third request on that was posted after the completion before it, an error, was polled.',
    advice:
      'make the queue pair anew, or reset and connect it, after the first completion with an error status; post to another one until then',
    statuses: ['WR_FLUSH_ERR'],
  },
  'poll-in-handler': {
    severity: 'warning',
    needs: ['check'],
    title: 'ibv_poll_cq is called in a signal handler',
    why: 'Functions of libibverbs are not async-signal-safe (signal-safety(7)): if the signal interrupts a poll or post of the same thread, the handler waits for ever for the lock that the thread holds, or changes a queue that is half changed.',
    advice: 'set a flag or write to a descriptor (eventfd) in the handler, and poll outside of it',
  },
  'poll-misused': {
    severity: 'error',
    needs: ['call', 'library'],
    title: 'functions of an extended CQ are called in a wrong order, or read what the CQ does not have',
    why: 'ibv_start_poll, if it returns 0, begins a poll of one thread with the first completion, ibv_next_poll goes to the next one, and ibv_end_poll ends the poll (ibv_create_cq_ex(3)). ibv_start_poll takes the lock of the CQ and ibv_end_poll releases it. The functions that read a completion exist only for the fields in wc_flags of ibv_create_cq_ex. None of them returns an error: a wrong order waits for ever, releases a lock that another thread holds, reads another completion, or crashes. A call of another thread that waits for the lock for a second is reported too.',
    advice:
      'if ibv_start_poll returns 0, read the completion, go to others by ibv_next_poll until it returns ENOENT, and call ibv_end_poll, all in one thread; if it does not return 0, call none of these',
  },
  'thread-promise': {
    severity: 'error',
    needs: ['call', 'post', 'library'],
    title: 'two threads use a queue that the program has promised to use by one thread at a time',
    why: 'The provider takes no locks for a CQ with IBV_CREATE_CQ_ATTR_SINGLE_THREADED (ibv_create_cq_ex(3)), nor for CQs and queue pairs of a parent domain with a thread domain (ibv_alloc_td(3)): calls of two threads at the same time lose and repeat completions and requests. Threads that were seen to use it in turns, not at the same time, may have a lock of their own: a warning for SINGLE_THREADED, a note for a thread domain.',
    advice:
      'use the queue in one thread, or under a lock of the program; or leave out IBV_CREATE_CQ_ATTR_SINGLE_THREADED, or the thread domain',
  },
  'no-rd-atomic': {
    severity: 'error',
    needs: ['call', 'post', 'completion'],
    title: 'a READ or atomic was posted to a queue pair with max_rd_atomic 0',
    why: 'max_rd_atomic is the maximum number of outstanding READs and atomics (IBA 11.2.4).',
    advice: 'set max_rd_atomic to at least 1 when the queue pair moves to RTS',
    libraryAdvice: 'give qp.connect a maxRdAtomic of at least 1',
    causes: ['NO_READS'],
  },
  'adapter-error': {
    severity: 'error',
    needs: ['completion'],
    title: 'an adapter failed a request, and what was seen of the program does not say why',
    why: "An adapter reports a status and a number of its vendor. With `--host` userdma sees the program's calls, posts and completions, not the adapter.",
    advice:
      'look up vendor_err in the documentation of the adapter; run the program on a device of userdma for the cause',
    causes: ['NOT_OBSERVED'],
  },
  'request-length': {
    severity: 'error',
    needs: ['device'],
    title: 'the work request has a length that its operation does not allow',
    why: 'A message has at most 2^31 bytes, inline data at most max_inline_data; the result of an atomic needs 8 (IBA 9.4). A datagram longer than the path MTU is not sent, although its request completes with success (C10-93.1.1).',
    libraryAdvice: 'check the lengths of the slices; ask for a larger maxInlineData',
    causes: [
      'MESSAGE_TOO_LONG',
      'INLINE_TOO_LONG',
      'ATOMIC_LENGTH',
      'COPY_LENGTH',
      'DATAGRAM_TOO_LONG',
      'FRAME_LENGTH',
      'SRD_LENGTH',
    ],
  },
  'receive-too-short': {
    severity: 'error',
    needs: ['post', 'completion'],
    title: 'a message is longer than the receive request that it takes',
    why: 'Both ends of RC fail: the receiver with LOC_LEN_ERR, the sender with REM_INV_REQ_ERR (IBA 9.7.4). UC and UD drop the message. Receives of UD need 40 more bytes for the GRH (IBA 11.4.1.2).',
    advice: 'post receives that are as long as the longest message that the peer may send',
    causes: ['RECEIVE_TOO_SHORT'],
  },

  // ---- queues and events ----
  'cq-overrun': {
    severity: 'error',
    needs: ['device'],
    title: 'a completion queue was full when a completion came',
    why: 'The completion is lost, and the queue is unusable from then on (IBA 11.6.3). A program that takes the memory of a CQ to poll it itself (mlx5dv_init_obj) must write the consumer index to its doorbell record: an adapter counts what it does not tell as not polled.',
    advice: 'create the CQ with room for all requests that can be outstanding on its queue pairs, and poll it in time',
    libraryAdvice:
      'create the queue with room (`entries`) for all requests that can be outstanding on its queue pairs, and poll it in time',
    causes: ['CQ_FULL', 'COMPLETION_LOST'],
  },
  'cq-too-small': {
    severity: 'note',
    needs: ['call'],
    title: 'a completion queue is smaller than the number of requests that can complete into it',
    why: 'If all requests of its queue pairs complete before the program polls, the CQ overruns.',
    advice:
      'create the CQ with at least the sum of max_send_wr and max_recv_wr of its queue pairs, or limit the outstanding requests',
    libraryAdvice:
      'create the queue with at least the sum of maxSendWr and maxRecvWr of its queue pairs as `entries`, or limit the outstanding requests',
  },
  'events-unacknowledged': {
    severity: 'warning',
    needs: ['check'],
    title: 'a destroy or rdma_migrate_id waits for events that are not acknowledged',
    why: 'ibv_destroy_cq, _qp and _srq, rdma_destroy_id and rdma_migrate_id wait until all events that were read are acknowledged (ibv_get_cq_event(3), rdma_get_cm_event(3)). The wait is reported after a second. Another thread may still acknowledge the events.',
    advice: 'call ibv_ack_cq_events, ibv_ack_async_event or rdma_ack_cm_event for each event that was read',
    causes: ['UNACKNOWLEDGED'],
  },
  'events-overacknowledged': {
    severity: 'warning',
    needs: ['check'],
    title: 'more events were acknowledged than were read',
    why: 'libibverbs counts the events that were acknowledged of each CQ, queue pair and SRQ, and the destroy of the object waits until this count is the number of events that were read (ibv_get_cq_event(3), ibv_get_async_event(3)): with a larger count ibv_destroy_cq does not return. If the event was of another object, the destroy of that one waits too.',
    advice:
      'acknowledge each event once, with the CQ that ibv_get_cq_event has returned, or a sum of its events at once',
  },
  'cm-refused-used': {
    severity: 'warning',
    needs: ['check'],
    title: 'a request was posted to a queue pair whose connection was refused',
    why: 'REJECTED, UNREACHABLE and CONNECT_ERROR end the attempt, and the queue pair moves to ERR: its requests are flushed (rdma_get_cm_event(3)). rdma_connect returns 0 as soon as the request is sent.',
    advice: 'look at the type of each event: only ESTABLISHED is a connection',
  },
  'cm-connected-again': {
    severity: 'warning',
    needs: ['check'],
    title: 'an identifier connects again after its connection was refused, which Linux refuses',
    why: 'REJECTED, UNREACHABLE and CONNECT_ERROR leave the identifier in the state of a connection in progress: rdma_connect returns EINVAL on Linux (cma_ib_handler, rdma_connect_locked in drivers/infiniband/core/cma.c). Here the call succeeds.',
    advice: 'destroy the identifier and its queue pair, and resolve address and route with new ones',
  },
  'cm-not-confirmed': {
    severity: 'warning',
    needs: ['check'],
    title: 'CONNECT_RESPONSE was read, and rdma_establish was not called',
    why: "With a queue pair of the program's own the connection is established only by rdma_establish, after CONNECT_RESPONSE and the moves to RTR and RTS: until then the peer gets no ESTABLISHED (rdma_establish(3)).",
    advice: 'call rdma_establish after the queue pair is in RTS, or rdma_reject',
  },
  'qp-after-disconnect': {
    severity: 'note',
    needs: ['call', 'post', 'library'],
    title: "rdma_disconnect did not move a queue pair of the program's own to ERR",
    why: 'rdma_disconnect moves the queue pair to ERR only if rdma_create_qp has created it (rdma_disconnect(3)). A queue pair that the program has created and given by qp_num stays in RTS: its outstanding requests are not flushed, and sends fail only when their retries run out.',
    advice:
      'after rdma_disconnect, and at DISCONNECTED, move the queue pair to ERR with ibv_modify_qp, and poll the flushed requests',
  },
  'port-byte-order': {
    severity: 'warning',
    needs: ['call', 'peer', 'library'],
    title: 'a connection is requested at the port of a listener in the other byte order',
    why: 'sin_port and sin6_port are in network byte order. Without htons a program on a little-endian machine uses another port: 7471 becomes 12061. If only one of the two programs forgets it, the connection is rejected.',
    advice: 'assign ports with htons, in both programs',
  },
  'listener-address': {
    severity: 'warning',
    needs: ['device'],
    title:
      'a connection is requested at an address at which no identifier listens at this port, and one does at another address',
    why: 'rdma_bind_addr with an address takes connections for this address only: 127.0.0.1 and ::1 those of the same host, and the name localhost may be either. A request for another address is rejected (REJECTED with status 8, IB_CM_REJ_INVALID_SERVICE_ID), and the listener learns of none.',
    advice: 'bind the listener to INADDR_ANY (in6addr_any takes IPv4 too), or to the address that the peer connects to',
    causes: ['LISTENS_ELSEWHERE'],
  },
  'never-signaled': {
    severity: 'warning',
    needs: ['call', 'post', 'completion'],
    title: 'more unsignaled sends follow each other than the send queue has slots',
    why: 'An adapter frees the slots of unsignaled requests with the completion of a later signaled request (ibv_post_send(3)). Without a signaled request the queue stays full, and posts are refused with ENOMEM.',
    advice: 'signal at least one request in max_send_wr, and poll its completion',
    libraryAdvice: 'post at least one request in maxSendWr without { signaled: false }, and poll its completion',
  },
  'sends-unpolled': {
    severity: 'warning',
    needs: ['device'],
    title: 'more sends are posted, without a polled completion, than the send queue has slots',
    why: 'Most adapters free a slot only when the completion of its request, or of a later one, is polled, and refuse further posts with ENOMEM (mlx5, irdma and efa). This device frees the slot when the request is complete, so the program works here and fails there. With `--like` and one of these adapters such posts are refused here too.',
    advice: 'poll completions before more than max_send_wr sends are posted, or request a larger max_send_wr',
    libraryAdvice: 'await earlier requests before more than maxSendWr are posted, or ask for a larger maxSendWr',
  },
  'undefined-flags': {
    severity: 'warning',
    needs: ['post'],
    title: 'send_flags has bits that are not defined',
    why: 'ibv_send_flags has the bits 0x1 to 0x10 (ibv_post_send(3)). Others are ignored here; most often the struct was not initialised, or a flag of another call (IBV_ACCESS_…) or an opcode was given. Then defined bits may be missing too.',
    advice: 'initialise the whole request: struct ibv_send_wr wr = {0}, then set IBV_SEND_SIGNALED and the like',
  },
  'not-signaled': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program waits, and its last sends are complete and not signaled',
    why: 'A send without IBV_SEND_SIGNALED, on a queue pair without sq_sig_all, has a completion only if it fails (IBA 10.8.6): a program that waits for its completion waits without end. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`; as a note if receives are posted, for which the program may wait instead.',
    advice:
      'set IBV_SEND_SIGNALED in each request whose completion the program waits for, or create the queue pair with sq_sig_all',
  },
  'late-receives': {
    severity: 'warning',
    needs: ['device'],
    title: 'a message arrived before a receive was posted',
    why: 'The responder answers RNR NAK until a receive is posted, and the sender tries rnr_retry times more (IBA 9.7.5.2.8). With a smaller rnr_retry, or on another network, the sender fails.',
    advice: 'post receives before the queue pair moves to RTR, or before the peer learns its number',
    libraryAdvice:
      'post receives before qp.connect, or before the peer gets the endpoint; of a connection by address in `prepare`',
    statuses: ['RNR_RETRY_EXC_ERR'],
  },
  'receives-short': {
    severity: 'note',
    needs: ['device'],
    title: 'messages waited for a receive',
    why: 'The responder answers a message without a receive by RNR NAK, and the sender repeats it after at least min_rnr_timer of the peer (IBA 9.7.5.2.8): no request fails, the program is only slow. With rnr_retry below 7 a longer wait fails the send. The finding is reported at the end of the queue pair. It is a warning if more than half of at least 8 messages waited, or if the waits took at least 100 ms and more than half of the time from the first to the last message. Messages before the first receive are the finding late-receives, a message that waits without end is endless-rnr.',
    advice:
      'count the receives of the peer as credits: send only as many messages as it has receives posted, and post a receive again before the credit is returned',
    libraryAdvice:
      'count the receives of the peer as credits: send only as many messages as it has receives posted, and post a receive again before the credit is returned',
    statuses: ['RNR_RETRY_EXC_ERR'],
  },
  'lost-wakeup': {
    severity: 'warning',
    needs: ['check'],
    title:
      'a CQ was not polled for a second, and was not armed, has no channel, was armed with completions that the program did not poll afterwards, or only for solicited ones, which did not come',
    why: 'Only the next completion after ibv_req_notify_cq raises an event; completions that are in the CQ already raise none, so the program waits for another one, perhaps for ever. The program must poll until the CQ is empty, not only a fixed number of completions. A CQ that is not armed is reported if it has a channel, and either was never armed nor polled, or the program is ended by a signal or hangs (`--hang`). Then it is also reported that a thread waits for an event (ibv_get_cq_event) of a channel that no CQ has, or whose CQs were never armed, or in epoll_wait for one that it was told of before and has not read (EPOLLET, EPOLLONESHOT). A CQ that is armed for solicited completions only (solicited_only 1) is reported if messages came and are not polled, and none of the messages so far had IBV_SEND_SOLICITED.',
    advice: 'call ibv_req_notify_cq, then poll the CQ until it is empty, and only then wait for the event',
    libraryAdvice:
      'call cq.arm, then poll until the queue is empty, and only then wait for the event; cq.wait and `for await` do so',
  },
  'completions-unpolled': {
    severity: 'note',
    needs: ['device'],
    title: 'a CQ was destroyed with completions that the program never polled',
    why: 'Only the completion says whether a request succeeded, and when its buffer may be used again. The finding is a warning if one of the completions has an error status other than WR_FLUSH_ERR.',
    advice: 'poll all completions before the CQ is destroyed; flushed requests need not be polled',
  },
  'polled-after-destroy': {
    severity: 'note',
    needs: ['check'],
    title: 'a completion of a queue pair was polled after the queue pair was destroyed',
    why: 'Its wr_id names a request that the program has often freed with the queue pair. The rxe provider leaves the completions of a destroyed queue pair in its CQ; libmlx5 takes them out, and libefa refuses to poll them, so a program that waits for them there waits for ever.',
    advice:
      'before ibv_destroy_qp, move the queue pair to ERR and poll until all its requests have completed; or keep what the wr_id names until the CQ is empty',
  },

  // ---- order of accesses (--races) ----
  race: {
    severity: 'error',
    needs: ['check'],
    title: 'two requests access the same bytes, at least one writes, and nothing orders them',
    why: 'Requests of different queues are executed in any order, also at the same time (IBA 10.8.3.3). The device may fetch the data of a request before earlier requests of its queue have arrived at the peer. The first request is before the second only if the thread that posts the second knows that the first is complete. The thread knows this if it has polled the completion, or if a thread that has polled the completion has passed this on by a message, an atomic or thread synchronization. The finding is an error if one thread posted both requests and did not wait between, and no thread had polled the completion of the first when the second was posted. Otherwise the finding is a warning: the program may know from memory that the first is complete. When the device executes the requests does not count: it differs from run to run. `userdma_check.h` lets a program say what it knows, or that accesses to some memory may overlap. Races with receives are warnings. Races of two accesses to one aligned word of 1, 2, 4 or 8 bytes are warnings, because programs use words as flags.',
    advice:
      'poll the completion of the first request before the second is posted; if another thread or process posts the second, notify it after the poll',
    statuses: ['SUCCESS'],
  },
  'counter-shared': {
    severity: 'note',
    needs: ['check'],
    title: 'two queue pairs add to one counter, each behind a WRITE of its own',
    why: 'An atomic is executed after the WRITEs before it in its queue, but those of another queue may come before or after (IBA 10.8.3.3). So the value of a counter that several queues add to says how many of the WRITEs have landed, not which: who waits for the first one may read bytes that the second queue has not written yet. It is told if one thread posted both additions, polled no completion of the first and did not wait between. It is a note because who waits for the sum of all additions may use all bytes.',
    advice:
      'count in a word for each queue pair, or wait for the sum of all additions before any of the bytes are used',
  },
  'read-then-write-unfenced': {
    severity: 'error',
    needs: ['check'],
    title: 'a READ is followed, without a fence, by a request that changes the bytes that it reads',
    why: 'A READ or atomic may be in progress when a later SEND, WRITE or atomic of the queue is executed. With IBV_SEND_FENCE the later request waits until earlier READs and atomics are complete (IBA 10.8.3.3).',
    advice: 'set IBV_SEND_FENCE in the later request, or poll the completion of the READ first',
    libraryAdvice: 'set { fence: true } in the later request, or await the READ first',
    statuses: ['SUCCESS'],
  },
  'buffer-reused': {
    severity: 'error',
    needs: ['check'],
    title: 'a request was posted with a buffer that another request still uses, and one of the two writes to it',
    why: 'The device may read and write the buffer of a request at any time until the completion was polled (IBA 10.8.3, 11.4.1). The data of a READ is in the buffer only after the completion of the READ. Later requests of the same queue must be fenced to see this data.',
    advice:
      'poll the completion of the request that uses the buffer, or set IBV_SEND_FENCE in a request that sends the data of a READ',
    libraryAdvice:
      'await the request that uses the buffer, or set { fence: true } in a request that sends the data of a READ',
    statuses: ['SUCCESS'],
  },
  'atomic-mixed-with-write': {
    severity: 'warning',
    needs: ['check'],
    title: 'an access that is neither an atomic nor a READ of one word overlaps an atomic, and nothing orders the two',
    why: 'Atomics are atomic only among atomics (IBA 9.4.5). On some adapters a WRITE between the read and the write of an atomic is lost.',
    advice:
      'change the word by atomics only, for example release a lock with compare and swap, or order the two by a completion',
    statuses: ['SUCCESS'],
  },

  // ---- objects ----
  'destroy-busy': {
    severity: 'warning',
    needs: ['call'],
    title: 'a program tried to destroy an object that other objects use',
    why: 'The call returns EBUSY and the object stays (IBA 11.2). A program that ignores the error leaks the object.',
    libraryAdvice: 'close the objects that use it first',
  },
  'use-after-destroy': {
    severity: 'error',
    needs: ['call', 'library'],
    title: 'a call has an object that was destroyed',
    why: "Without userdma check, the libraries read memory that was freed: the program crashes, or changes another object. Under it the call is refused: with EINVAL, or NULL. The memory of the last 4,096 destroyed objects is kept for this. Objects whose device was closed count too: their handles belong to the device's file.",
    advice:
      'keep one owner of each object, end the threads that use it before it is destroyed, and set the pointer to NULL',
  },
  'event-ignored': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program goes on with what an event, or the end of a connection, has made invalid',
    why: "An index of the GID table may be empty, or another address's, after GID_CHANGE: an address that returns gets another index while queue pairs hold the old one. A refused call is reported if the program does not look for the address again. An address handle keeps the addresses, and on adapters the MAC, of the time when it was made: the finding is reported if it is still used a second after a change; it is a note for another MAC, which our devices find. After DEVICE_FATAL all calls on the device fail with EIO, after DEVICE_REMOVAL those of the identifier with ENXIO: the third is reported, of a device the third after 100 ms. A reply to an earlier request for a connection names a queue pair whose peer is gone, while the other end has connected a later one: an error. DISCONNECTED has a status: if it is not 0, nobody has answered DREQ. It is a warning if the peer is still connected when the identifier is destroyed, else a note.",
    advice: 'read the events, and look up or make anew what they are about',
  },
  'double-destroy': {
    severity: 'error',
    needs: ['call', 'library'],
    title: 'an object is destroyed twice',
    why: 'Without userdma check, the libraries free memory twice, or destroy an object that has got the same handle since. Under it the second call is refused with EINVAL.',
    advice: 'keep one owner of each object, and set the pointer to NULL when it is destroyed',
  },
  'program-died': {
    severity: 'error',
    needs: ['check'],
    title: 'a signal such as SIGSEGV has ended the program',
    why: 'The stack is that at the signal: SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT. The finding is a warning if no function of libibverbs, librdmacm or a provider is in it. A program that handles the signal itself has no such finding.',
  },
  'refused-call': {
    severity: 'warning',
    needs: ['call'],
    title: 'a call was refused for its arguments',
    why: 'The call returns an error and has no effect. The finding has the reason, if known, also if libibverbs, its provider or librdmacm refuse the call themselves, without a call of the kernel (from reading rdma-core 44 and 64). The finding is a note if the device or provider lacks what was requested (EOPNOTSUPP), and if only max_inline_data is too large: no call returns its limit, so programs try several values. A registration beyond RLIMIT_MEMLOCK is reported too, with the limit and what is registered. A refused call of rdma_cm is reported when its identifier is destroyed: as an error if the identifier needs the call to connect and the call never succeeded, else as a note. The header of rdma_cm takes 36 bytes of the private data of a request: 56 are left with RDMA_PS_TCP, 180 with RDMA_PS_UDP.',
  },
  'post-wrong-state': {
    severity: 'warning',
    needs: ['call', 'post', 'library'],
    title: 'a request was posted to a queue pair whose state does not allow it',
    why: 'Sends can be posted from RTS on, receives from INIT on (IBA 10.3.1, 10.8.3). The call returns EINVAL, and no completion follows.',
    libraryAdvice: 'call qp.connect or qp.activate before the first send',
  },
  'sends-lost': {
    severity: 'warning',
    needs: ['check'],
    title: 'a queue pair was destroyed, reset, or moved to ERR, or its program ended, while sends were outstanding',
    why: 'The end of a queue pair ends its requests (IBA 10.3.1): their messages may have arrived, in part, or not, and data that they request does not come. rdma_disconnect moves the queue pair to ERR. The finding names the sends, and says whether the peer has received their messages. A send that only waits for the processor does not count: the device first executes what it can, so the finding does not depend on the load. Sends that are posted in ERR are flushed and lose nothing. The finding is a note if a signal has ended the program; if after the move to ERR the program has polled the flushed completions; or if the sends are complete, but the program has polled no completion that tells it, and got no message of the peer since.',
    advice: 'wait for the completions of all sends before the queue pair is destroyed, reset or disconnected',
    statuses: ['WR_FLUSH_ERR'],
  },
  'queue-full': {
    severity: 'note',
    needs: ['post', 'library'],
    title: 'a request was posted to a full queue',
    why: 'A queue has at least max_send_wr or max_recv_wr slots, an SRQ at least max_wr. The call returns ENOMEM, and the request is not posted. The finding is a warning if the queue pair was created without a slot (max_send_wr or max_recv_wr 0). Adapters free the slots of unsignaled requests only with the completion of a later signaled request.',
    libraryAdvice: 'await earlier requests first (requestWindow does), or ask for a larger maxSendWr or maxRecvWr',
  },

  // ---- limits and operations of other adapters (--like) ----
  'adapter-limit': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program requested more than an adapter named by `--like` allows',
    why: 'Limits differ between adapters, and creation fails beyond a limit. ibv_query_device returns the limits of the device. `userdma help reference/adapters` has the limits of the adapters for `--like`.',
    advice: 'request less, or at most the limit that ibv_query_device returns',
    libraryAdvice: 'ask for less, or at most the limit that device.query() returns',
  },
  'adapter-operation': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program used an operation that an adapter named by `--like` lacks',
    why: 'Some types of queue pairs, operations and objects are optional. `userdma help reference/adapters` says what the adapters for `--like` lack.',
    advice: 'query the device for the operation before use, and provide a fallback',
  },
  'adapter-memlock': {
    severity: 'warning',
    needs: ['check'],
    title: 'more memory was registered than a user may lock (RLIMIT_MEMLOCK)',
    why: 'Adapters pin registered memory, and the pages count against RLIMIT_MEMLOCK of the process. The registration succeeded here because the process has CAP_IPC_LOCK (root) or the daemon runs with --ignore-memlock. A registration that is refused for the limit is reported as refused-call.',
    advice: 'raise the limit where the program will run (ulimit -l, LimitMEMLOCK), or register less',
  },
  'fork-unsafe': {
    severity: 'warning',
    needs: ['check'],
    title: 'a program with registered memory forks without ibv_fork_init',
    why: 'After a fork the first write to a page copies the page. An adapter that has pinned the page keeps the old page: the program does not see received data (ibv_fork_init(3)). Since 5.12 Linux copies pinned pages at the fork: only older kernels need ibv_fork_init. This finding is reported with `--like`. A fork with requests outstanding is reported in every run, as fork-outstanding.',
    advice:
      'call ibv_fork_init before the first registration, or set RDMAV_FORK_SAFE=1; system and posix_spawn need neither',
    statuses: ['SUCCESS'],
  },

  leak: {
    severity: 'warning',
    needs: ['call'],
    title: 'an object existed when its program closed the device or ended',
    why: 'An object that the program does not destroy stays allocated as long as the device is open. If the program ends because a call was refused, which is a finding of its own, its leaks are notes.',
    advice: 'destroy objects in reverse order of creation before ibv_close_device',
    libraryAdvice: 'close each object, or declare it with `using`; `await device.close()` closes what is left',
  },
} as const satisfies Record<string, FindingRow>

/** Ids of findings. */
export type FindingId = keyof typeof table
export const findings: Readonly<Record<FindingId, FindingRow>> = table
export const findingIds = Object.keys(table) as readonly FindingId[]

export const isFindingId = (text: string): text is FindingId => Object.hasOwn(table, text)

const byCause = new Map<CauseName, FindingId>(
  findingIds.flatMap(id => (findings[id].causes ?? []).map(cause => [cause, id] as const)),
)

/** What to do about a kind of finding, each sentence without its full stop; empty: that depends on the case. */
export const adviceOfKind = (id: FindingId): readonly string[] => {
  const { advice, causes: names = [] } = findings[id]
  if (advice !== undefined) return [advice]
  const byAdvice = new Map<string, CauseName[]>()
  for (const name of names) {
    const own = causes[name].advice
    if (own !== undefined) byAdvice.set(own, [...(byAdvice.get(own) ?? []), name])
  }
  return [...byAdvice].map(([own, of]) => `${of.join(', ')}: ${own}`)
}

/** The finding to which a cause belongs. */
export const findingOfCause = (cause: CauseName): FindingId | undefined => byCause.get(cause)
