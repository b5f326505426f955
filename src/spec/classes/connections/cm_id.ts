/*
 * Class `cm_id`: an identifier of the RDMA connection manager, one end of a connection, comparable to a socket (R17,
 * R18). It is created on the system-wide device, before a device is chosen; binding or resolving an address binds it to
 * a device. Its channel receives its events. Methods are those of rdma_cma.h; errors are Linux's.
 */
import { CmOptionLevel, CmPortSpace } from '../../enums.ts'
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
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { qpAttributes } from '../qp/qp.ts'
import {
  ADDRESS_BYTES,
  CmAddresses,
  CmConnectionParameters,
  CmEce,
  CmPathRecord,
  PRIVATE_DATA_BYTES,
} from './cm_parameters.ts'

const calls = CallNumber.cm_id

/** Queue pair attributes that connection management determines. */
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
        /** ibv_qp_type; 0: the default of the port space. */
        qpType: optional(u8(4)),
      },
      out: {},
    }),
    /** Addresses as sockaddr, and the device and path once they are known. */
    query: method(QUERY, {
      in: {},
      out: { addresses: record(64, CmAddresses), paths: optional(list(65, CmPathRecord, 6)) },
    }),
    /**
     * Moves the identifier and its unread events to another channel. Returns how many of its events were read before.
     */
    modify: method(MODIFY, { in: { channel: fd(1, 'cm_channel') }, out: { events: u32(64) } }),
    /** Disconnects and tells the peer. `events`: how many events of this identifier were read. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
    /** As `query`, with addresses as sockaddr_ib. */
    queryGids: method(calls.queryGids, { in: {}, out: { addresses: record(64, CmAddresses) } }),
    queryPath: method(calls.queryPath, { in: {}, out: { paths: list(64, CmPathRecord, 6) } }),
    /** Binds a local address; port 0 chooses a free port. EADDRNOTAVAIL, EADDRINUSE. */
    bind: method(calls.bind, { in: { address: bytes(1, ADDRESS_BYTES) }, out: {} }),
    /** Finds the device that routes to `destination`. Its event is ADDR_RESOLVED or ADDR_ERROR. */
    resolveAddress: method(calls.resolveAddress, {
      in: {
        destination: bytes(1, ADDRESS_BYTES),
        source: optional(bytes(2, ADDRESS_BYTES)),
        /** Milliseconds. */
        timeout: optional(u32(3)),
      },
      out: {},
    }),
    /** Its event is ROUTE_RESOLVED or ROUTE_ERROR. */
    resolveRoute: method(calls.resolveRoute, { in: { timeout: optional(u32(1)) }, out: {} }),
    /**
     * Sends a connection request. Its event is ESTABLISHED, REJECTED or UNREACHABLE; without a queue pair it is
     * CONNECT_RESPONSE, which the caller confirms by `accept` without parameters; for datagrams it is ESTABLISHED.
     *
     * With `qp`, a queue pair of the same device, this one call does the rest (R17): it resolves the address and route
     * of `destination`, moves the queue pair to INIT, and to RTS when the peer accepts; then ESTABLISHED is raised.
     * Until the connection ends, programs may move the queue pair to ERR only; the end of the connection moves it
     * there.
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
    /**
     * Each request of a peer raises CONNECT_REQUEST with a new identifier, which has no events until it is accepted; if
     * its peer has disconnected by then, `accept` fails.
     */
    listen: method(calls.listen, { in: { backlog: optional(u32(1)) }, out: {} }),
    /**
     * Accepts a request; without parameters, confirms a CONNECT_RESPONSE. Later events carry `userHandle`. `qp`: a
     * queue pair of the same device, which is moved to RTS first, as by `connect`.
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
    /** The queue pair attributes for a transition to `state`. */
    initQpAttr: method(calls.initQpAttr, { in: { state: u32(64) }, out: decided }),
    setOption: method(calls.setOption, {
      in: { level: enumOf(1, CmOptionLevel), option: u32(2), value: blob(3, 4096) },
      out: {},
    }),
    /** Reports an event of the queue pair (ibv_event_type): COMM_EST, data arrived before the RTU. */
    notify: method(calls.notify, { in: { event: u32(1) }, out: {} }),
  },
})

/** Class `cm_multicast`: an identifier's membership in a multicast group. */
export const CmMulticast = objectClass('cm_multicast', ClassId.cm_multicast, {
  global: true,
  methods: {
    /** Joins a group. The identifier's channel receives MULTICAST_JOIN with the group's address, or MULTICAST_ERROR. */
    create: method(CREATE, {
      in: {
        id: u32(1),
        userHandle: u64(2),
        address: bytes(3, ADDRESS_BYTES),
        /** 1: send-only member. */
        flags: optional(u16(4)),
      },
      out: {},
    }),
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  },
})
