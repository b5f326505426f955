/*
 * Class `cm_id`: an identifier of the RDMA connection manager, one end of a connection, comparable to a socket (R17,
 * R18). The identifier's channel receives its events. An identifier gets its RDMA device when it is bound to an address
 * that is no wildcard, or when its destination is resolved. An identifier that was created on an RDMA device gets no
 * other device. Most methods are those of rdma_cma.h; errors are Linux's. After the removal of its device an identifier
 * can only be destroyed: other methods fail with ENXIO.
 */
import { CmEventType, CmOptionLevel, CmPortSpace } from '../../enums.ts'
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

/** As many as librdmacm reads (ucma_query_path). */
const MAX_PATHS = 6
/** Maximum bytes of an option's value. */
export const MAX_OPTION_BYTES = 4096

/** The queue pair attributes that connection management determines. */
const qpAttributesOfConnection = {
  state: qpAttributes.state,
  accessFlags: optional(qpAttributes.accessFlags),
  pkeyIndex: optional(qpAttributes.pkeyIndex),
  port: optional(qpAttributes.port),
  qkey: optional(qpAttributes.qkey),
  /** Of the device's link (spec/links.ts). */
  address: optional(qpAttributes.address),
  ibAddress: qpAttributes.ibAddress,
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

/** With `qp`: attributes of the queue pair in place of the agreed ones. */
const chosenQpAttributes = {
  timeout: optional(qpAttributes.timeout),
  retryCnt: optional(qpAttributes.retryCnt),
  rnrRetry: optional(qpAttributes.rnrRetry),
  minRnrTimer: optional(qpAttributes.minRnrTimer),
}

/** RDMA_USER_CM_IB_SERVICE_NAME_SIZE. */
const SERVICE_NAME_BYTES = 64

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
    /** Addresses as sockaddr, and the identifier's device, if any. `paths`: absent before the route is resolved. */
    query: method(QUERY, {
      in: {},
      out: { addresses: record(64, CmAddresses), paths: optional(list(65, CmPathRecord, MAX_PATHS)) },
    }),
    /** Moves the identifier and its unread events to another channel. `events`: as for `destroy`. */
    modify: method(MODIFY, { in: { channel: fd(1, 'cm_channel') }, out: { events: u32(64) } }),
    /**
     * Ends the connection and tells the peer. `events`: number of events of the identifier and its memberships that
     * were read, for rdma_ack_cm_event.
     */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
    /** As `query`, with addresses as sockaddr_ib and without paths. */
    queryGids: method(calls.queryGids, { role: 'asks', in: {}, out: { addresses: record(64, CmAddresses) } }),
    /** As `paths` of `query`, but an empty list before the route is resolved. */
    queryPath: method(calls.queryPath, { role: 'asks', in: {}, out: { paths: list(64, CmPathRecord, MAX_PATHS) } }),
    /** Binds a local address; port 0 chooses a free port. Fails for example with EADDRNOTAVAIL or EADDRINUSE. */
    bind: method(calls.bind, { role: 'changes', in: { address: bytes(1, ADDRESS_BYTES) }, out: {} }),
    /**
     * Finds the device that routes to `destination`. An identifier that is not bound is first bound to `source`, with
     * the errors of `bind`. Raises ADDR_RESOLVED or, if no device has a suitable source address, ADDR_ERROR with
     * ENODEV. Fails with the system's errno if there is no route.
     */
    resolveAddress: method(calls.resolveAddress, {
      role: 'resolves',
      in: {
        destination: bytes(1, ADDRESS_BYTES),
        /** Ignored if the identifier is bound. Absent: the wildcard of the family of `destination`. */
        source: optional(bytes(2, ADDRESS_BYTES)),
        /** Ignored: addresses are resolved at once. */
        timeout: optional(u32(3)),
      },
      out: {},
    }),
    /**
     * Raises ROUTE_RESOLVED. On InfiniBand the subnet administrator is asked, and without an answer in `timeout` ms, or
     * if it knows no path, ROUTE_ERROR is raised; EAGAIN without a subnet manager. Elsewhere routes are resolved at
     * once.
     */
    resolveRoute: method(calls.resolveRoute, { role: 'resolves', in: { timeout: optional(u32(1)) }, out: {} }),
    /**
     * Sends a connection request. Raises REJECTED (for datagrams UNREACHABLE) if the peer rejects the request, and
     * UNREACHABLE if the peer does not answer. If the peer accepts, the call raises ESTABLISHED for datagrams and with
     * `qp`. Otherwise it raises CONNECT_RESPONSE, which the caller confirms by `accept` without parameters.
     *
     * `qp`: the handle of a queue pair of the same context, which this call connects. The call resolves address
     * and route of `destination`, if given (EINVAL without `qp`), and moves the queue pair to INIT. When the peer
     * accepts, the queue pair moves to RTS, and ESTABLISHED is raised. Until the connection ends, the program may move
     * the queue pair only to ERR. A failure in INIT leaves the queue pair in INIT. A later failure, or the connection's
     * end, moves it to ERR.
     */
    connect: method(calls.connect, {
      role: 'connects',
      in: {
        parameters: record(1, CmConnectionParameters),
        ece: optional(record(2, CmEce)),
        qp: optional(u32(3)),
        destination: optional(bytes(4, ADDRESS_BYTES)),
        ...chosenQpAttributes,
      },
      out: {},
    }),
    /**
     * Each connection request of a peer raises CONNECT_REQUEST with a new identifier. The new identifier has no events
     * until it is accepted or attached to an `event_queue`. If the peer has disconnected meanwhile, `accept` fails.
     */
    listen: method(calls.listen, {
      role: 'listens',
      in: {
        /** Maximum unread requests; 0 or absent: 1024, the maximum. */
        backlog: optional(u32(1)),
      },
      out: {},
    }),
    /**
     * Accepts a connection request; without `parameters`, confirms a CONNECT_RESPONSE. Later events have `userHandle`.
     * `qp`: as in `connect`; this call first moves the queue pair to RTS.
     */
    accept: method(calls.accept, {
      role: 'connects',
      in: {
        parameters: optional(record(1, CmConnectionParameters)),
        userHandle: optional(u64(2)),
        ece: optional(record(3, CmEce)),
        qp: optional(u32(4)),
        ...chosenQpAttributes,
      },
      out: {},
    }),
    /** Rejects a connection request or a CONNECT_RESPONSE. */
    reject: method(calls.reject, {
      role: 'undoes',
      in: {
        privateData: optional(blob(1, PRIVATE_DATA_BYTES)),
        /** The reason in the REJ; 0 or absent: consumer defined. */
        reason: optional(u8(2)),
      },
      out: {},
    }),
    /**
     * Ends an established connection, or confirms that the peer has ended the connection. EINVAL without a connection;
     * no effect in other states.
     */
    disconnect: method(calls.disconnect, { role: 'closes', in: {}, out: {} }),
    /** The queue pair attributes for a transition to `state` (ibv_qp_state). */
    initQpAttr: method(calls.initQpAttr, {
      role: 'prepares',
      // 64, because the results have the ids of `qpAttributes`
      in: { state: u32(64) },
      out: qpAttributesOfConnection,
    }),
    /** rdma_set_option(3). ENOSYS for an unknown option. */
    setOption: method(calls.setOption, {
      role: 'changes',
      in: { level: enumOf(1, CmOptionLevel), option: u32(2), value: blob(3, MAX_OPTION_BYTES) },
      out: {},
    }),
    /** Reports an event of the queue pair (ibv_event_type): COMM_EST if data arrived before the RTU. */
    notify: method(calls.notify, { role: 'transfers', in: { event: u32(1) }, out: {} }),
    /**
     * Raises an event of the program itself (Linux 6.18: rdma_write_cm_event), which ends a wait for events. `type`:
     * USER, or INTERNAL for librdmacm. ENOMEM if 32 events of the identifier are unread.
     */
    writeEvent: method(calls.writeEvent, {
      role: 'changes',
      in: { type: enumOf(1, CmEventType), status: optional(u32(2)), argument: optional(u64(3)) },
      out: {},
    }),
    /**
     * Asks the subnet administrator for a service (Linux 6.18: rdma_resolve_addrinfo). EINVAL unless the identifier is
     * in ADDR_BOUND with a device; otherwise EOPNOTSUPP: RoCE has no subnet administrator, and on InfiniBand programs
     * ask it by datagrams.
     */
    resolveService: method(calls.resolveService, {
      role: 'resolves',
      in: {
        serviceId: optional(u64(1)),
        /** Text, filled with zeros. */
        serviceName: optional(bytes(2, SERVICE_NAME_BYTES)),
        /** 1: by `serviceId`; 2: by `serviceName`. */
        flags: optional(u32(3)),
      },
      out: {},
    }),
    /** The services that were resolved: always ENODATA. */
    queryServices: method(calls.queryServices, { role: 'asks', in: {}, out: {} }),
  },
})

/** Class `cm_multicast`: an identifier's membership in a multicast group. */
export const CmMulticast = objectClass('cm_multicast', ClassId.cm_multicast, {
  global: true,
  methods: {
    /** Joins a group. The identifier's channel receives MULTICAST_JOIN with the group's address. */
    create: method(CREATE, {
      in: {
        /** The handle of the `cm_id`. */
        id: u32(1),
        userHandle: u64(2),
        address: bytes(3, ADDRESS_BYTES),
        /** 0 or absent: the member sends and receives; 1: it only sends. */
        flags: optional(u16(4)),
      },
      out: {},
    }),
    /** Leaves the group. `events`: number of events of the membership that were read. */
    destroy: method(DESTROY, { in: {}, out: { events: u32(64) } }),
  },
})
