/*
 * Class `cm_id`: an identifier of the RDMA connection manager, the end of a connection as a socket is (R17, R18). It
 * exists before a device is known, on the system-wide device; binding or resolving an address ties it to one. What
 * happens to it is told by events on its channel. Methods are those of rdma_cma.h; errors are Linux's.
 */
import { CmOptionLevel, CmPortSpace } from '../enums.ts'
import {
  blob,
  bytes,
  CREATE,
  DESTROY,
  enumOf,
  fd,
  list,
  MODIFY,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  u8,
  u16,
  u32,
  u64,
} from '../schema/schema.ts'
import {
  ADDRESS_BYTES,
  CmAddresses,
  CmConnectionParameters,
  CmEce,
  CmPathRecord,
  PRIVATE_DATA_BYTES,
} from './cm_parameters.ts'
import { CallNumber, ClassId } from './ids.ts'
import { qpAttributes } from './qp.ts'

const calls = CallNumber.cm_id

/** Attributes of a queue pair that connection management decides. */
const decided = {
  state: qpAttributes.state,
  accessFlags: optional(qpAttributes.accessFlags),
  pkeyIndex: optional(qpAttributes.pkeyIndex),
  port: optional(qpAttributes.port),
  qkey: optional(qpAttributes.qkey),
  address: optional(qpAttributes.address),
  pathMtu: optional(qpAttributes.pathMtu),
  timeout: optional(qpAttributes.timeout),
  retryCnt: optional(qpAttributes.retryCnt),
  rnrRetry: optional(qpAttributes.rnrRetry),
  rqPsn: optional(qpAttributes.rqPsn),
  maxRdAtomic: optional(qpAttributes.maxRdAtomic),
  minRnrTimer: optional(qpAttributes.minRnrTimer),
  sqPsn: optional(qpAttributes.sqPsn),
  maxDestRdAtomic: optional(qpAttributes.maxDestRdAtomic),
  destQpn: optional(qpAttributes.destQpn),
}

export const CmId = objectClass('cm_id', ClassId.cm_id, {
  global: true,
  methods: {
    create: method(CREATE, {
      in: {
        channel: fd(1, 'cm_channel'),
        userHandle: u64(2),
        portSpace: enumOf(3, CmPortSpace, 2),
        /** ibv_qp_type; 0: as the port space has it. */
        qpType: optional(u8(4)),
      },
      out: {},
    }),
    /** Addresses as sockaddr, and the device and the path once there are any. */
    query: method(QUERY, {
      in: {},
      out: { addresses: record(64, CmAddresses), paths: optional(list(65, CmPathRecord, 6)) },
    }),
    /** Moves it, with its unread events, to another channel; answers how many events were read before. */
    modify: method(MODIFY, { in: { channel: fd(1, 'cm_channel') }, out: { events: u32(64) } }),
    /** Ends what there is, telling the peer. `events`: of this identifier that were read. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
    /** The same as `query`, with addresses as sockaddr_ib. */
    queryGids: method(calls.queryGids, { in: {}, out: { addresses: record(64, CmAddresses) } }),
    queryPath: method(calls.queryPath, { in: {}, out: { paths: list(64, CmPathRecord, 6) } }),
    /** A local address; of port 0 one is chosen. EADDRNOTAVAIL, EADDRINUSE. */
    bind: method(calls.bind, { in: { address: bytes(1, ADDRESS_BYTES) }, out: {} }),
    /** Finds the device that leads to `destination`. The outcome is an event: ADDR_RESOLVED or ADDR_ERROR. */
    resolveAddress: method(calls.resolveAddress, {
      in: {
        destination: bytes(1, ADDRESS_BYTES),
        source: optional(bytes(2, ADDRESS_BYTES)),
        /** Milliseconds. */
        timeout: optional(u32(3)),
      },
      out: {},
    }),
    /** ROUTE_RESOLVED or ROUTE_ERROR. */
    resolveRoute: method(calls.resolveRoute, { in: { timeout: optional(u32(1)) }, out: {} }),
    /**
     * Asks the peer. CONNECT_RESPONSE (`accept` without parameters then), REJECTED, UNREACHABLE; datagrams: ESTABLISHED.
     *
     * With `qp`, a queue pair of the same device, the rest is done here (R17): the address and route of `destination` are
     * resolved, the queue pair goes to INIT, and with the peer's answer to RTS; then ESTABLISHED is told. Until the
     * connection ends only a move to ERR is allowed to programs, which comes by itself then.
     */
    connect: method(calls.connect, {
      in: {
        parameters: record(1, CmConnectionParameters),
        ece: optional(record(2, CmEce)),
        qp: optional(u32(3)),
        destination: optional(bytes(4, ADDRESS_BYTES)),
      },
      out: {},
    }),
    /** CONNECT_REQUEST for each peer that asks, with an identifier of its own. */
    listen: method(calls.listen, { in: { backlog: optional(u32(1)) }, out: {} }),
    /**
     * Answers a request; without parameters, confirms the answer to one's own. Events name it by `userHandle` then.
     * `qp`: a queue pair of the same device that goes to RTS before, as with `connect`.
     */
    accept: method(calls.accept, {
      in: {
        parameters: optional(record(1, CmConnectionParameters)),
        userHandle: optional(u64(2)),
        ece: optional(record(3, CmEce)),
        qp: optional(u32(4)),
      },
      out: {},
    }),
    reject: method(calls.reject, {
      in: { privateData: optional(blob(1, PRIVATE_DATA_BYTES)), reason: optional(u8(2)) },
      out: {},
    }),
    disconnect: method(calls.disconnect, { in: {}, out: {} }),
    /** What a queue pair is to be given for a transition to `state`. */
    initQpAttr: method(calls.initQpAttr, { in: { state: u32(64) }, out: decided }),
    setOption: method(calls.setOption, {
      in: { level: enumOf(1, CmOptionLevel), option: u32(2), value: blob(3, 4096) },
      out: {},
    }),
    /** Tells of an event of the queue pair (ibv_event_type): COMM_EST, data came before the peer's last message. */
    notify: method(calls.notify, { in: { event: u32(1) }, out: {} }),
  },
})

/** Class `cm_multicast`: the membership of an identifier in a multicast group. */
export const CmMulticast = objectClass('cm_multicast', ClassId.cm_multicast, {
  global: true,
  methods: {
    /** Membership of a group; MULTICAST_JOIN on the identifier's channel says how to reach it, or MULTICAST_ERROR. */
    create: method(CREATE, {
      in: {
        id: u32(1),
        userHandle: u64(2),
        address: bytes(3, ADDRESS_BYTES),
        /** 1: send only. */
        flags: optional(u16(4)),
      },
      out: {},
    }),
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  },
})
