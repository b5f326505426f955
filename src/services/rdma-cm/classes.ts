/*
 * The classes of connection management (R18): channels, identifiers and multicast memberships. Their objects are
 * created on the system-wide device (/dev/infiniband/rdma_cm) or on an RDMA device. An identifier on an RDMA device
 * uses only this device.
 */
import { driverClass } from '../../core/devices/driver.ts'
import type { DriverClass } from '../../core/driver-contract.ts'
import { affiliate, readEventsFor, withdrawEvents } from '../../core/events/events.ts'
import type { CallContext, CoreObject, FdObject } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { destroyNow, dropParent, objectsDownwards } from '../../core/objects/lifetime.ts'
import { createLimit, orRelease, take } from '../../core/objects/limits.ts'
import { onUndelivered } from '../../core/undelivered.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { CmId, CmMulticast } from '../../spec/classes/connections/cm_id.ts'
import type { CmAddresses, SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { AsyncEventType, CmEventType, CmPortSpace } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { because, type Reason, the } from '../../spec/reason.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'
import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { rejReason } from '../../spec/wire/mad.ts'
import { FULL_MEMBER } from '../../spec/wire/subnet.ts'
import { rdmaCmServiceId } from '../../transport/wire/mad/mad.ts'
import { addressSize, anyAddress, emitAddress, Family, isAny, parseAddress } from '../socket-address.ts'
import {
  bindToChannel,
  type CmEventRecord,
  type CmIdObject,
  moveIdentifier,
  postGroupEvent,
  postWrittenEvent,
  requireUnreadBelowMax,
} from './channel.ts'
import type { Identifier } from './identifier.ts'
import { setOption } from './options.ts'
import { groupParameters, noDatagram, UDP_QKEY } from './parameters.ts'
import { pathRecord } from './path-record.ts'
import { qpAttributesFor } from './qp-attributes.ts'
import { acceptWithQueuePair, connectQueuePair, unownedObject } from './queue-pair-owner.ts'
import { type RdmaCm, requireDatagrams } from './rdma-cm.ts'

const { CONSUMER_DEFINED } = rejReason
const { MULTICAST_JOIN, MULTICAST_ERROR, USER, INTERNAL } = CmEventType.values
const { COMM_EST } = AsyncEventType.values
/** RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER. */
const SEND_ONLY = 1
/** States of an identifier in which it can join multicast groups. */
const JOINABLE_STATES: ReadonlySet<string> = new Set(['ADDR_BOUND', 'ADDR_RESOLVED'])

/** The address in an attribute of a call. Throws CallError EINVAL. */
const addressOf = (method: string, attribute: string, bytes: Uint8Array): SocketAddress => {
  const address = parseAddress(bytes)
  if (address === undefined)
    throw callError.EINVAL`${the.method(method)}: ${the.attribute(attribute)}: the family is not AF_INET, AF_INET6 or AF_IB`
  return address
}

/** The addresses of an identifier as a record (rdma_ucm_query_addr_resp). */
const addressesRecord = (
  id: Identifier,
  source: SocketAddress,
  destination: SocketAddress,
): RecordOf<typeof CmAddresses> => ({
  nodeGuid: copyOfBytes(id.device?.device.attributes.nodeGuid ?? new Uint8Array(8)),
  port: id.device === undefined ? 0 : 1,
  pkey: pkeyOf(id),
  sourceSize: addressSize(source),
  destinationSize: addressSize(destination),
  source: emitAddress(source),
  destination: emitAddress(destination),
  deviceIndex: id.device?.device.serial ?? 0,
})

/** Of an AF_IB address, or of the partition of IP over InfiniBand, in network order as on Linux; RoCE: 0. */
const pkeyOf = ({ device, pkey: own }: Identifier): number => {
  const port = device?.device.ports[0]
  if (port?.ipAddresses === undefined) return 0
  const pkey = own ?? port.pkeys[0]! | FULL_MEMBER
  return ((pkey & 0xff) << 8) | (pkey >> 8)
}

/** In place of an address that the identifier does not have. */
const noFamily: SocketAddress = { ...anyAddress(Family.INET6), family: 0 }

/** In place of an unknown GID. */
const noGid = new Uint8Array(16)

/**
 * An address of an identifier as an AF_IB address. `gid`: the GID of the address, if known. As in Linux, an identifier
 * without a device has no GIDs.
 */
const asIbAddress = (id: Identifier, address: SocketAddress, gid: Uint8Array | undefined): SocketAddress =>
  address.family === Family.IB
    ? address
    : {
        ...address,
        family: Family.IB,
        address: id.device === undefined ? noGid : (gid ?? address.address),
        serviceId: rdmaCmServiceId(id.portSpace, address.port),
        serviceMask: 0n,
      }

/** A job that destroys the identifiers of a channel. Yields after each object of the context. */
function* destroyIdsOf(channel: FdObject): Generator<void> {
  for (const object of objectsDownwards(channel.context)) {
    if (object?.events?.route.channel === channel && object.class.id === CmId.id) destroyNow(object, 'close')
    yield
  }
}

/** A job that destroys the objects. Yields after each. */
function* destroyEach(objects: readonly CoreObject[]): Generator<void> {
  for (const object of objects) {
    destroyNow(object, 'close')
    yield
  }
}

/** As in Linux, an identifier whose device was removed can only be destroyed, together with its memberships. */
const requireDevicePresent = (method: string, { state }: Identifier): void => {
  if (state === 'DEVICE_REMOVAL') throw callError.ENXIO`${the.method(method)}: the identifier's device was removed`
}

/** `cls` with `requireDevicePresent` before each method except create and destroy. */
const refusedAfterRemoval = (cls: DriverClass): DriverClass => {
  const handlers: Record<string, DriverClass['handlers'][string]> = {}
  for (const [name, handler] of Object.entries(cls.handlers))
    handlers[name] =
      name === 'create' || name === 'destroy'
        ? handler
        : (call, object, args, core) => {
            requireDevicePresent(`${cls.class.name}.${name}`, object.state as Identifier)
            return handler?.(call, object, args, core)
          }
  return { ...cls, handlers }
}

/** Memberships in groups of which the network knows the members; the subnet has as many multicast LIDs. */
const MAX_MEMBERSHIPS = 0x3ffe

interface Membership {
  readonly id: Identifier
  /** Of a group of which the network knows the members. */
  leave: (() => void) | undefined
}

const channelClass = driverClass(CmChannel, {
  create: () => ({}),
  query: (_call, object) => ({ unread: (object as FdObject).sink.unread() }),
  destroy({ device: { core } }, object) {
    core.runJob(destroyIdsOf(object as FdObject))
    return {}
  },
  getEvent(call, object) {
    const [event] = readEventsFor(call, object as FdObject) as CmEventRecord[]
    const { details, userHandle, handle, type, id, member, request } = event!
    if (id !== undefined) id.unreadEvents--
    if (member !== undefined) member.readGroupEvents++
    const listener = request?.listener
    request?.removeFromBacklog()
    onUndelivered(call, () => {
      if (id !== undefined) id.unreadEvents++
      if (member !== undefined) member.readGroupEvents--
      if (request === undefined) return
      request.listener = listener
      listener?.unreadRequests.add(request)
    })
    const { status = 0, connection, datagram, ece, argument } = details
    if (id !== undefined) id.lastRead = { type, status }
    return {
      userHandle,
      object: handle,
      type,
      status: status >>> 0,
      unread: (object as FdObject).sink.unread(),
      ...(connection && { connection }),
      ...(datagram && { datagram }),
      ...(ece && { ece }),
      ...(argument !== undefined && { argument }),
    }
  },
})

const idClass = (service: () => RdmaCm): DriverClass =>
  driverClass<typeof CmId, Identifier>(CmId, {
    create({ device }, object, { channel, userHandle, portSpace, qpType = 0 }) {
      const cm = service()
      const onlyDevice = cm.devices.forDevice(device)
      if (onlyDevice === undefined && device.core.system !== device)
        throw callError.EOPNOTSUPP`${the.method('cm_id.create')}: device ${device.name} has no connection protocol, or its queue pair 1 is in use`
      bindToChannel(cm, object, channel as FdObject, userHandle, { portSpace, qpType, onlyDevice })
      // Otherwise the identifier would keep the channel alive after the channel's descriptor is closed.
      dropParent(object, channel)
      return {}
    },
    query(_call, { state: id }) {
      const paths = pathRecord(id)
      return {
        addresses: addressesRecord(id, id.source ?? noFamily, id.destination ?? noFamily),
        ...(paths.length > 0 && { paths }),
      }
    },
    queryGids(_call, { state: id }) {
      const { source = noFamily, destination = noFamily } = id
      return {
        addresses: addressesRecord(
          id,
          asIbAddress(id, source, id.localGid),
          asIbAddress(id, destination, id.remoteGid),
        ),
      }
    },
    queryPath: (_call, { state: id }) => ({ paths: pathRecord(id) }),
    modify({ caller }, object, { channel }) {
      const events = moveIdentifier(object as CmIdObject, channel as FdObject)
      if (events > 0) caller.eventsRead?.(object, { compEvents: 0, asyncEvents: events, isMove: true })
      return { events }
    },
    destroy({ device: { core }, caller }, object) {
      const { state: id } = object
      service().destroy(id)
      // As in Linux: rdma_destroy_id waits for acknowledgements of the memberships' events too.
      const events = withdrawEvents(object).asyncEvents + id.readGroupEvents
      if (events > 0) caller.eventsRead?.(object, { compEvents: 0, asyncEvents: events })
      // No program knows the handle of an unread request's identifier, so it is destroyed here.
      const requests = [...id.unreadRequests].flatMap(request => request.object ?? [])
      if (id.memberships.size + requests.length > 0) core.runJob(destroyEach([...id.memberships, ...requests]))
      return { events }
    },
    bind(_call, { state: id }, { address }) {
      service().bind(id, addressOf('cm_id.bind', 'address', address))
      return {}
    },
    resolveAddress(_call, object, { destination, source }) {
      requireUnreadBelowMax(object as CmIdObject)
      const method = 'cm_id.resolveAddress'
      const sourceAddress = source && addressOf(method, 'source', source)
      service().resolveAddress(object.state, addressOf(method, 'destination', destination), sourceAddress)
      return {}
    },
    resolveRoute(_call, { state: id }, { timeout = 0 }) {
      service().resolveRoute(id, timeout)
      return {}
    },
    connect(call, object, { parameters, ece, qp, destination, ...chosen }) {
      const method = 'cm_id.connect'
      const { state: id } = object
      id.ece = ece
      requireUnreadBelowMax(object as CmIdObject)
      const destinationAddress = destination && addressOf(method, 'destination', destination)
      if (qp !== undefined)
        connectQueuePair(service(), id, unownedObject(call, qp, method), parameters, destinationAddress, chosen)
      else if (destinationAddress === undefined) service().connect(id, parameters)
      else throw callError.EINVAL`${the.method(method)}: ${the.attribute('destination')}: it requires attribute qp`
      return {}
    },
    listen(_call, { state: id }, { backlog = 0 }) {
      service().listen(id, backlog)
      return {}
    },
    accept(call, object, { parameters, userHandle, ece, qp, ...chosen }) {
      const method = 'cm_id.accept'
      const { state: id, events } = object
      id.ece = ece
      const previousHandle = events?.userHandle
      // Events of the connection carry this user handle; the first may be raised before this call returns.
      if (userHandle !== undefined && events !== undefined) events.userHandle = userHandle
      try {
        if (qp === undefined) service().accept(id, parameters)
        else if (parameters === undefined)
          throw callError.EINVAL`${the.method(method)}: ${the.attribute('qp')}: it requires attribute parameters`
        else acceptWithQueuePair(service(), id, unownedObject(call, qp, method), parameters, chosen)
      } catch (error) {
        if (previousHandle !== undefined && events !== undefined) events.userHandle = previousHandle
        throw error
      }
      return {}
    },
    reject(_call, { state: id }, { privateData = new Uint8Array(0), reason }) {
      // As in Linux, reason 0 too means CONSUMER_DEFINED.
      service().reject(id, privateData, reason || CONSUMER_DEFINED)
      return {}
    },
    disconnect(_call, { state: id }) {
      service().disconnect(id)
      return {}
    },
    initQpAttr: (_call, { state: id }, { state }) => qpAttributesFor(id, state) ?? { state },
    setOption(_call, { state: id }, { level, option, value }) {
      setOption(service(), id, level, option, value)
      return {}
    },
    notify(_call, { state: id }, { event }) {
      if (event !== COMM_EST)
        throw callError.EINVAL`${the.method('cm_id.notify')}: ${the.attribute('event')}: ${event} is not COMM_EST (${COMM_EST})`
      service().establish(id)
      return {}
    },
    writeEvent(_call, object, { type, status = 0, argument = 0n }) {
      if (type !== USER && type !== INTERNAL)
        throw callError.EINVAL`${the.method('cm_id.writeEvent')}: ${the.attribute('type')}: ${type} is not USER (${USER}) or INTERNAL (${INTERNAL})`
      postWrittenEvent(object as CmIdObject, type, { status, argument })
      return {}
    },
    resolveService(_call, { state: { state, device } }) {
      if (state !== 'ADDR_BOUND' || device === undefined)
        throw callError.EINVAL`${the.method('cm_id.resolveService')}: the identifier is in state ${state}${device ? '' : ' without a device'}, not ADDR_BOUND with a device`
      const why =
        device.device.driver.link === 'ib'
          ? 'services of a subnet are not resolved here; ask subnet administration for a ServiceRecord by management datagrams'
          : 'RoCE has no subnet administrator, which knows services'
      throw callError.EOPNOTSUPP`${the.method('cm_id.resolveService')}: ${why}`
    },
    queryServices() {
      throw callError.ENODATA`${the.method('cm_id.queryServices')}: no service was resolved`
    },
  })

const multicastClass = (): DriverClass => {
  const joins = createLimit('memberships of multicast groups', MAX_MEMBERSHIPS, { advice: 'leave some groups' })
  return driverClass<typeof CmMulticast, Membership>(CmMulticast, {
    create(call, object, { id: handle, userHandle, address, flags = 0 }) {
      const method = 'cm_multicast.create'
      const id = identifierOf(call, handle)
      requireDevicePresent(method, id)
      const group = addressOf(method, 'address', address)
      const channel = id.object?.events?.route.channel
      const refuse = (why: Reason | string): never => {
        throw callError.EINVAL`${the.method(method)}: ${why}`
      }
      if (channel === undefined || id.device === undefined || !JOINABLE_STATES.has(id.state))
        return refuse(
          `the identifier is in state ${id.state}${id.device ? '' : ' without a device'}; ` +
            'it must be in ADDR_BOUND or ADDR_RESOLVED, with a device',
        )
      if (!id.isDatagram) refuse('the identifier is not for datagrams')
      requireDatagrams(method, id)
      if (flags > SEND_ONLY)
        refuse(because`${the.attribute('flags')}: ${flags}; 0 is a full member, ${SEND_ONLY} a member that only sends`)
      const { protocol } = id.device
      if (protocol.joinGroup === undefined && isAny(group))
        refuse(because`${the.attribute('address')}: it is a wildcard, not a group`)
      object.state = { id, leave: undefined }
      id.memberships.add(object)
      affiliate(object, userHandle, { channel })
      if (protocol.joinGroup !== undefined) {
        const request = { address: group, isSendOnly: flags === SEND_ONLY }
        const join = (): (() => void) =>
          protocol.joinGroup!(id, request, outcome => {
            if (typeof outcome === 'number') postGroupEvent(object, id, MULTICAST_ERROR, { status: outcome })
            else postGroupEvent(object, id, MULTICAST_JOIN, { datagram: { ...noDatagram, ...outcome } })
          })
        const release = take(joins, call.context.account, the.method(method))
        const leave = orRelease(release, join)
        object.state.leave = () => {
          release()
          leave()
        }
        return {}
      }
      const qkey = id.portSpace === CmPortSpace.values.IB ? id.qkey : UDP_QKEY
      const datagram = groupParameters(id.device.device, id, group.address, { qpNum: MULTICAST_QPN, qkey })
      postGroupEvent(object, id, MULTICAST_JOIN, { datagram })
      return {}
    },
    destroy({ why }, object) {
      const { id, leave } = object.state
      if (why === 'call') requireDevicePresent('cm_multicast.destroy', id)
      const { asyncEvents: events } = withdrawEvents(object)
      id.memberships.delete(object)
      leave?.()
      return { events }
    },
  })
}

/** `service` returns rdma_cm, and starts it if necessary. */
export const cmClasses = (service: () => RdmaCm): readonly DriverClass[] => [
  channelClass,
  refusedAfterRemoval(idClass(service)),
  multicastClass(),
]

/** The identifier with the handle that a call of cm_multicast.create names. Throws CallError ENOENT, EINVAL. */
const identifierOf = ({ context }: CallContext, handle: number): Identifier => {
  const object = findHandle(context.handles, handle)
  if (object === undefined)
    throw callError.ENOENT`${the.method('cm_multicast.create')}: there is no object with handle ${handle}`
  if (object.class.id !== CmId.id)
    throw callError.EINVAL`${the.method('cm_multicast.create')}: handle ${handle} is of class ${object.class.name}, not cm_id`
  return object.state as Identifier
}
