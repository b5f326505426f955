/*
 * What asynchronous events of devices and the events of rdma_cm mean, and what a program does then, for `userdma
 * explain`. Sources: IBA 11.6.3 and 12.9, rdma_get_cm_event(3), ibv_get_async_event(3), Linux's cma.c.
 */
import type { AsyncEventType, CmEventType } from '../enums.ts'

export interface EventMeaning {
  readonly meaning: string
  /** Of an event of rdma_cm: what its `status` says. */
  readonly status?: string
  readonly advice: string
}

/** Events that only devices of other kinds, or other networks, have. */
type DeviceEventName = Exclude<keyof typeof AsyncEventType.values, 'DEVICE_ADDED' | 'DEVICE_REMOVED'>

const ACKNOWLEDGE = 'ibv_ack_async_event: destroying the object waits for it'

export const deviceEventMeanings: Readonly<Record<DeviceEventName, EventMeaning>> = {
  CQ_ERR: {
    meaning: 'A completion queue has overrun: completions are lost, and it gives no more.',
    advice: `move the queue pairs of the completion queue to ERR, destroy them, and make both anew, larger; ${ACKNOWLEDGE}`,
  },
  QP_FATAL: {
    meaning: 'A queue pair failed in a way that no completion tells. It is in ERR.',
    advice: `poll what is flushed, then reset or destroy the queue pair and connect again; ${ACKNOWLEDGE}`,
  },
  QP_REQ_ERR: {
    meaning: 'The responder of a queue pair has received a request that it cannot execute. It is in ERR.',
    advice: `look what the peer has sent (\`userdma trace\`), and connect again; ${ACKNOWLEDGE}`,
  },
  QP_ACCESS_ERR: {
    meaning: 'The responder of a queue pair has received a request for memory without the right to it. It is in ERR.',
    advice: `compare rkey, address, length and rights that the peer uses with the region, and connect again; ${ACKNOWLEDGE}`,
  },
  COMM_EST: {
    meaning: 'A message has arrived at a queue pair in RTR: the peer is connected, though its RTU may be lost or late.',
    advice: 'with rdma_cm call rdma_notify; otherwise move the queue pair to RTS',
  },
  SQ_DRAINED: {
    meaning: 'A queue pair in SQD has completed what was in progress.',
    advice: 'change its attributes now, and return to RTS',
  },
  PATH_MIG: { meaning: 'A connection has moved to its alternate path.', advice: 'load another alternate path' },
  PATH_MIG_ERR: {
    meaning: 'A connection could not move to its alternate path.',
    advice: 'expect RETRY_EXC_ERR, and connect again',
  },
  DEVICE_FATAL: {
    meaning:
      'The device is gone or has failed: calls fail with EIO, all queue pairs are dead, and what was outstanding is flushed or lost.',
    advice:
      'destroy all objects, close the device, and look for devices again (ibv_get_device_list); it may return with another name, GUID order or index. Nothing of the old context is of use',
  },
  PORT_ACTIVE: {
    meaning: 'The link is up again. On devices of userdma also: the MTU of the port has changed.',
    advice: 'query the port, connect what has ended, and look the GID index up again if a GID_CHANGE came too',
  },
  PORT_ERR: {
    meaning:
      'The link is down. Packets are lost until PORT_ACTIVE; reliable queue pairs survive if their retries last longer (4.096 µs · 2^timeout, retry_cnt + 1 times).',
    advice:
      'send nothing that may fail, and wait for PORT_ACTIVE; queue pairs that have failed in between with RETRY_EXC_ERR need a new connection',
  },
  LID_CHANGE: {
    meaning: 'The subnet manager has given the port another LID. Ports of Ethernet have none.',
    advice: 'query the port; make address handles and paths anew',
  },
  PKEY_CHANGE: {
    meaning: 'The table of partition keys has changed.',
    advice: 'look up the index of the partition key again (ibv_get_pkey_index)',
  },
  SM_CHANGE: { meaning: 'There is another subnet manager.', advice: 'register with it again what was registered' },
  SRQ_ERR: {
    meaning: 'A shared receive queue has failed: nothing can be received by it.',
    advice: `destroy its queue pairs and it, and make them anew; ${ACKNOWLEDGE}`,
  },
  SRQ_LIMIT_REACHED: {
    meaning: 'A shared receive queue has fewer receives than its limit. The limit is 0 now: the event comes once.',
    advice: 'post receives, and arm the limit again (ibv_modify_srq)',
  },
  QP_LAST_WQE_REACHED: {
    meaning: 'A queue pair in ERR takes no more receives of its shared receive queue.',
    advice: 'poll what it has completed; then it can be destroyed without losing receives',
  },
  CLIENT_REREGISTER: {
    meaning: 'The subnet manager asks to register groups and services again.',
    advice: 'join multicast groups again',
  },
  GID_CHANGE: {
    meaning:
      'The table of GIDs has changed: an address has left or come. An address that returns while a queue pair or address handle still uses its old entry is found at another index; the old index is empty.',
    advice:
      'look the index of the address up again (ibv_query_gid_ex, ibv_find_gid_index) before the next queue pair or address handle; those with the old index must be made anew',
  },
  WQ_FATAL: {
    meaning: 'A work queue has failed.',
    advice: `destroy and make it anew, with its indirection table; ${ACKNOWLEDGE}`,
  },
  DEVICE_SPEED_CHANGE: { meaning: 'The speed of a port has changed.', advice: 'query it (ibv_query_port_speed)' },
}

const CONNECTION_ENDED =
  'poll what is flushed, then destroy the queue pair and the identifier, and connect with new ones: replies that come later belong to the old connection'

export const cmEventMeanings: Readonly<Record<keyof typeof CmEventType.values, EventMeaning>> = {
  ADDR_RESOLVED: {
    meaning: 'rdma_resolve_addr has found the device by which the address is reached.',
    advice: 'the identifier has a device now (id->verbs): make the queue pair, and call rdma_resolve_route',
  },
  ADDR_ERROR: {
    meaning: 'rdma_resolve_addr has found no device or no neighbour.',
    status: 'a negative errno: -ENODEV no device with the source address, -ETIMEDOUT no answer of the neighbour',
    advice: 'check address, link and route; the identifier can resolve again',
  },
  ROUTE_RESOLVED: { meaning: 'rdma_resolve_route has a path.', advice: 'call rdma_connect' },
  ROUTE_ERROR: {
    meaning: 'rdma_resolve_route has found no path.',
    status: 'a negative errno',
    advice: 'resolve again, with a longer timeout, or the address first',
  },
  CONNECT_REQUEST: {
    meaning: 'A peer wants to connect. The event has a new identifier, and the parameters of the peer.',
    advice:
      'make a queue pair for it, post receives, and call rdma_accept or rdma_reject; in time, or the peer gives up',
  },
  CONNECT_RESPONSE: {
    meaning: 'The peer has accepted, and the identifier has no queue pair of rdma_create_qp.',
    advice: 'move your queue pair to RTR and RTS, and call rdma_establish',
  },
  CONNECT_ERROR: {
    meaning: 'The connection could not be made, for example because the queue pair could not change its state.',
    status: 'a negative errno',
    advice: CONNECTION_ENDED,
  },
  UNREACHABLE: {
    meaning: 'The peer has not answered: its REP or RTU did not come after all retries.',
    status: '-ETIMEDOUT; of datagrams the status of the peer’s SIDR_REP',
    advice:
      'check that the peer runs, the link, and that nothing drops UDP port 4791; then connect with a new identifier',
  },
  REJECTED: {
    meaning: 'The peer has refused the connection.',
    status:
      'the reason (rdma_reject_msg; IBA 12.6.7.2): 8 nobody listens at the port, 28 the program has called rdma_reject, with its private data; 10 a stale connection: the peer still has one with this queue pair',
    advice: 'read the reason; connect again with a new identifier and queue pair, not in a loop without a pause',
  },
  ESTABLISHED: {
    meaning: 'The connection exists.',
    advice: 'post; the private data of the event is gone with its acknowledgement',
  },
  DISCONNECTED: {
    meaning:
      'The connection has ended: the peer has disconnected or ended (DREQ), or has confirmed one’s own rdma_disconnect. The queue pair is moved to ERR by rdma_disconnect only.',
    status:
      '0, or -ETIMEDOUT: one’s own DREQ was never answered (the peer is dead, or DREQ or DREP were lost). Programs that do not read it take a dead peer for a good end',
    advice: `call rdma_disconnect if you have not, ${CONNECTION_ENDED}`,
  },
  DEVICE_REMOVAL: {
    meaning: 'The device of the identifier is being removed; the removal may wait until its identifiers are destroyed.',
    advice:
      'destroy queue pair, completion queues, memory regions and identifier of this device; acknowledge the event before rdma_destroy_id. Resolve again to find another device',
  },
  MULTICAST_JOIN: {
    meaning: 'rdma_join_multicast has joined the group.',
    advice: 'make an address handle of the event’s parameters (ud.ah_attr, ud.qp_num, ud.qkey)',
  },
  MULTICAST_ERROR: {
    meaning: 'The group could not be joined, or was left because of an error.',
    status: 'a negative errno',
    advice: 'leave it, and join again',
  },
  ADDR_CHANGE: {
    meaning:
      'The hardware address of the interface has changed, as after the failover of a bond. The connection still uses the old path.',
    advice: 'disconnect, and connect with a new identifier; the old one may go on, or fail with RETRY_EXC_ERR',
  },
  TIMEWAIT_EXIT: {
    meaning: 'No packet of the ended connection can arrive any more.',
    advice: 'the queue pair may be used for another connection now, not before',
  },
  USER: { meaning: 'A program has sent itself this event (rdma_write_cm_event).', advice: 'read its argument' },
  INTERNAL: { meaning: 'librdmacm uses this event itself.', advice: 'programs never see it' },
}
