/*
 * The classes of EFA devices: contexts, protection domains, memory regions, address handles and completion queues. The
 * answers have what libefa needs to map the queues (spec/drivers/efa.ts).
 */
import { answered, driverClass, withMethods } from '../../core/devices/driver.ts'
import { getGid } from '../../core/devices/gids.ts'
import { affiliate } from '../../core/events/events.ts'
import type { CoreObject } from '../../core/model.ts'
import { numberFromId } from '../../core/objects/lifetime.ts'
import { Ah } from '../../spec/classes/ah.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { QpAddress } from '../../spec/classes/qp/qp.ts'
import {
  EFA_CQ_HAS_DOORBELL,
  EfaAttributes,
  EfaCqFlags,
  EfaResponses,
  queryInterconnects,
} from '../../spec/drivers/efa.ts'
import { COMPLETION_SIZES } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags, CqKind } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { coded, outOfRange, the } from '../../spec/reason.ts'
import { type In, zeroRecord } from '../../spec/schema/schema.ts'
import { capabilities, Limits } from './attributes.ts'
import { type EfaState, stateOf } from './device-state.ts'
import { allocateQueue, doorbellOffset, freeQueue, pageKey } from './doorbells.ts'
import { closePeer, openPeer } from './peers.ts'
import { descriptorKey } from './requests.ts'
import { NOT_SCANNED } from './scan.ts'
import type { AddressHandle, CompletionQueue, Peer } from './state.ts'

export const requireInRange = (method: string, attribute: string, value: number, min: number, max: number): void => {
  if (value < min || value > max) throw new CallError('EINVAL', outOfRange(method, attribute, value, min, max))
}

export const deviceClass = driverClass<typeof DeviceClass, unknown, typeof EfaAttributes.device>(
  DeviceClass,
  {
    open: (call, object, args, core) => ({
      ...core(call, object, args),
      responses: EfaResponses.QUERY_DEVICE | EfaResponses.CREATE_AH,
      subCqs: Limits.subCqs,
      inlineBytes: Limits.inlineBytes,
      maxSendRingBytes: Limits.maxSendRingBytes,
      maxBatch: 0,
      minSends: Limits.minSends,
      inlineBytesExtended: Limits.inlineBytesExtended,
    }),
    query: (call, object, args, core) => ({
      ...core(call, object, args),
      maxSends: Limits.maxSends,
      maxReceives: Limits.maxReceives,
      maxSendSges: Limits.maxSendSges,
      maxReceiveSges: Limits.maxReceiveSges,
      maxRdmaBytes: Limits.maxRdmaBytes,
      capabilities,
    }),
  },
  EfaAttributes.device,
)

/** The numbers of protection domains only inform. */
export const pdClass = driverClass<typeof Pd, unknown, typeof EfaAttributes.pd>(
  Pd,
  {
    create: (call, object, args, core) => ({ ...core(call, object, args), number: numberFromId(object, Limits.maxPd) }),
  },
  EfaAttributes.pd,
)

const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, OPTIONAL_RANGE } = AccessFlags.values
/** Linux's efa_alloc_mr refuses the other access flags of regions. */
const REGION_ACCESS = LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE | OPTIONAL_RANGE
const KNOWN_ACCESS = Object.values(AccessFlags.values).reduce((all, flag) => all | flag, 0)
const PAGE_OFFSET_MASK = 4095n

const right = (name: keyof typeof AccessFlags.values) => the.constant(AccessFlags.name, name)

/** Leaves to core what Linux refuses with EINVAL before the driver sees the call. */
const requireAccess = ({ access, start, iova }: In<typeof Mr.methods.create, CoreObject>): void => {
  const isWriteAlone = (access & (REMOTE_WRITE | REMOTE_ATOMIC)) !== 0 && (access & LOCAL_WRITE) === 0
  const isForCore = isWriteAlone || (access & ~KNOWN_ACCESS) !== 0 || ((start ^ iova) & PAGE_OFFSET_MASK) !== 0n
  const missing = access & ~REGION_ACCESS
  if (missing !== 0 && !isForCore)
    throw callError.EOPNOTSUPP`${the.method('mr.create')}: access 0x${missing.toString(16)}: EFA has ${right('LOCAL_WRITE')}, ${right('REMOTE_READ')} and ${right('REMOTE_WRITE')}`
}

/** Descriptors have room for 24 bits of an lkey; an rkey has 32. */
const regionClass = driverClass(Mr, {
  create(call, object, args, core) {
    requireAccess(args)
    return answered(core(call, object, args), ({ lkey, ...rest }) => ({ ...rest, lkey: descriptorKey(lkey) }))
  },
})

/** The device has no interconnects to choose from, so none of the numbers is valid. */
export const mrClass = withMethods(
  regionClass,
  { queryInterconnects },
  { queryInterconnects: () => ({ valid: 0, receive: 0, read: 0, readReceive: 0 }) },
)

export const ahClass = driverClass<typeof Ah, AddressHandle, typeof EfaAttributes.ah>(
  Ah,
  {
    create(call, object, { pd, address }) {
      const efa = stateOf(call)
      const { ahs, ahNumbers } = efa
      if (address.port !== 1)
        throw callError.EINVAL`${the.method('ah.create')}: ${the.addressField('port')} ${address.port}: the device has port 1`
      if (!address.isGlobal)
        throw new CallError(
          'EINVAL',
          coded(
            'not-global',
          )`${the.method('ah.create')}: ${the.addressField('isGlobal')} is 0: a destination of EFA is a GID`,
        )
      getGid(call.device.ports[0].gids, address.sgidIndex)
      const peer = peerOf(efa, address.dgid)
      const known = ahs.get(peer.ahs.get(pd.id) ?? 0)
      const number = known?.number ?? ahNumbers.take()
      if (number === undefined) {
        closePeer(efa, peer)
        throw callError.ENOMEM`${the.method('ah.create')}: all ${Limits.maxAh - 1} numbers are in use`
      }
      object.state = known ?? { number, pd: pd.id, peer, uses: 0 }
      object.state.uses++
      ahs.set(number, object.state)
      peer.ahs.set(pd.id, number)
      return { number }
    },
    query: (_call, { state: { peer } }) => ({
      address: { ...zeroRecord(QpAddress), dgid: peer.address.slice(), isGlobal: 1, port: 1 },
    }),
    modify: null,
    destroy(call, object, args, core) {
      const efa = stateOf(call)
      const { ahs, ahNumbers } = efa
      const { number, pd, peer } = object.state
      if (--object.state.uses === 0) {
        ahs.delete(number)
        ahNumbers.give(number)
        peer.ahs.delete(pd)
      }
      closePeer(efa, peer)
      return core(call, object, args)
    },
  },
  EfaAttributes.ah,
)

const peerOf = (efa: EfaState, gid: Uint8Array): Peer => {
  try {
    return openPeer(efa, gid)
  } catch (error) {
    throw callError.EINVAL`${the.method('ah.create')}: ${the.attribute('address')}: ${(error as Error).message}`
  }
}

/** The smallest power of two that is at least `n`. */
export const powerOfTwo = (n: number): number => 2 ** Math.ceil(Math.log2(Math.max(n, 1)))

export const cqClass = driverClass<typeof Cq, CompletionQueue, typeof EfaAttributes.cq>(
  Cq,
  {
    create(call, object, args) {
      const { cqe, userHandle, channel, asyncFd, flags = 0, kind = CqKind.values.ENTRIES, compVector } = args
      const { entryBytes = COMPLETION_SIZES[0], subCqs = Limits.subCqs, cqFlags = 0 } = args
      const { cqs, cqNumbers, scan, torment } = stateOf(call)
      if (flags !== 0 || kind !== CqKind.values.ENTRIES)
        throw callError.EOPNOTSUPP`${the.method('cq.create')}: the device has no flags and no counting queues`
      requireInRange('cq.create', 'cqe', cqe, 1, Limits.maxCqe)
      requireInRange('cq.create', 'compVector', compVector, 0, Limits.compVectors - 1)
      if (!(COMPLETION_SIZES as readonly number[]).includes(entryBytes))
        throw callError.EINVAL`${the.method('cq.create')}: entries of ${entryBytes} bytes; they have ${COMPLETION_SIZES.join(' or ')}`
      if (subCqs !== Limits.subCqs)
        throw callError.EINVAL`${the.method('cq.create')}: ${subCqs} parts of a queue; the device has ${Limits.subCqs}`
      const entries = powerOfTwo(cqe)
      const { ring, doorbell } = allocateQueue(call, entries * entryBytes)
      const number = cqNumbers.take()
      if (number === undefined) {
        freeQueue(call, { ring, doorbell })
        throw callError.ENOMEM`${the.method('cq.create')}: all ${Limits.maxCq} numbers are in use`
      }
      object.state = {
        number,
        ring,
        entryBytes,
        entries,
        hasSourceGid: (cqFlags & EfaCqFlags.SOURCE_GID) !== 0,
        doorbell,
        hasChannel: channel !== undefined,
        produced: 0,
        lastError: 0,
        seenDoorbell: 0,
        raised: 0,
        isArmed: false,
        lateEvent: torment && (cq => torment.notify(cq)),
        hasOverrun: false,
        ...NOT_SCANNED,
      }
      cqs.set(number, object)
      if (channel !== undefined) scan.add(object, [doorbell])
      affiliate(object, userHandle, { channel, asyncFd })
      return {
        cqe: entries,
        present: EFA_CQ_HAS_DOORBELL,
        ringKey: BigInt(ring.offset),
        ringSize: BigInt(ring.length),
        number,
        doorbellOffset: doorbellOffset(doorbell),
        doorbellKey: pageKey(doorbell),
      }
    },
    query: (_call, { state }) => ({
      cqe: state.entries,
      kind: CqKind.values.ENTRIES,
      completions: BigInt(state.produced),
      errors: 0n,
      compVector: 0,
      count: 0,
      period: 0,
    }),
    modify: null,
    reqNotify: null,
    destroy(call, object, args, core) {
      const { cqs, cqNumbers, scan } = stateOf(call)
      cqs.delete(object.state.number)
      if (object.state.hasChannel) scan.remove(object)
      cqNumbers.give(object.state.number)
      freeQueue(call, object.state)
      return core(call, object, args)
    },
  },
  EfaAttributes.cq,
)
