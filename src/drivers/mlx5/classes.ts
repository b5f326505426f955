/*
 * The classes of mlx5 devices: those of the soft device (rxe/), whose queues are the device's own here, with the
 * program's queues beside them (R19, R22).
 */
import { answered, driverClass, withMethods, withoutOptions } from '../../core/devices/driver.ts'
import type { DriverClass, MethodAdditions } from '../../core/driver-contract.ts'
import { affiliate } from '../../core/events/events.ts'
import { type MappedChunk, mappedMemoryOf } from '../../core/memory/mappable-memory.ts'
import type { AnyHandler, CallContext, CoreObject, Device } from '../../core/model.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { Mr } from '../../spec/classes/mr.ts'
import { Pd } from '../../spec/classes/pd.ts'
import { DciQp } from '../../spec/classes/qp/dc_qp.ts'
import {
  MLX5_CONTEXT_DEVX,
  Mlx5Attributes,
  Mlx5Clock,
  Mlx5CqFlags,
  Mlx5QpFlags,
  Mlx5Responses,
  queryNumber,
  RESPONSE_BYTES,
  RX_HASH_FIELDS,
  TOEPLITZ,
  Uar,
} from '../../spec/drivers/mlx5.ts'
import { ArmWord, BLOCK_BYTES, CompletionEntry } from '../../spec/drivers/mlx5-queues.ts'
import { CqFlags, CqKind, QpState } from '../../spec/enums.ts'
import { CallError, type ErrnoName } from '../../spec/errno.ts'
import { PAGE_BYTES, wholePages } from '../../spec/memory.ts'
import { NO_VLAN } from '../rxe/address/path.ts'
import { ahClass as softAhs } from '../rxe/classes/ah-class.ts'
import { cqClass as softCqs } from '../rxe/classes/cq-class.ts'
import { datagramQpClasses } from '../rxe/classes/datagram-qp-classes.ts'
import { qpClasses } from '../rxe/classes/qp-class.ts'
import { srqClass as softSrqs, xrcSrqClass as softXrcSrqs } from '../rxe/classes/srq-class.ts'
import { xrcQpClasses } from '../rxe/classes/xrc-qp-class.ts'
import { readConsumer } from '../rxe/rings/completion-ring.ts'
import type { CqObject, QpObject, RxeState, SrqObject } from '../rxe/state.ts'
import { Limits } from './attributes.ts'
import { clockOf, openClock } from './clock.ts'
import { type CompletedQueues, createCq, type Mlx5Cq, resizeCq, watchArmings } from './completions.ts'
import { DcTransport } from './dc/transport.ts'
import { InlineRegion } from './inline-region.ts'
import { ProgramRecord, share, unshare } from './program-memory.ts'
import type { Station } from './raw/frame-link.ts'
import { Receives } from './receives.ts'
import { MAX_FRAME_HEADER, type SendKind, Sends } from './sends.ts'
import { prepareRings } from './shadow-rings.ts'

const { RESET } = QpState.values

export const refuse = (errno: ErrnoName, reason: string): never => {
  throw new CallError(errno, reason)
}

export const requirePowerOfTwo = (what: string, count: number, max: number): void => {
  if (count < 1 || count > max || (count & (count - 1)) !== 0)
    refuse('EINVAL', `${what}: ${count} is no power of two from 1 to ${max}`)
}

// ---- state ----

/** The program's queues of a queue pair or shared receive queue. */
export interface ProgramQueues extends CompletedQueues {
  /** One range with both queues; of raw packets one for each queue that there is. */
  readonly buffers: readonly MappedChunk[]
  readonly record: ProgramRecord
  readonly sends: Sends | undefined
  readonly receives: Receives | undefined
  readonly inline?: InlineRegion | undefined
}

export interface Mlx5State {
  readonly soft: RxeState
  /** By QPN. */
  readonly queues: Map<number, ProgramQueues>
  /** Shared receive queues, by their queue in the soft device. */
  readonly shared: Map<object, ProgramQueues>
  /** CQs with a channel. */
  readonly cqs: Set<Mlx5Cq>
  readonly dc: DcTransport
  /** The device on the link of raw packets; undefined if the link has none. */
  readonly station: Station | undefined
}

const states = new WeakMap<Device, Mlx5State>()

/** The state of a new device. */
export const addState = (device: Device<RxeState>, station: Station | undefined): Mlx5State => {
  const state: Mlx5State = {
    soft: device.state,
    queues: new Map(),
    shared: new Map(),
    cqs: new Set(),
    dc: new DcTransport(device.state),
    station,
  }
  states.set(device as Device, state)
  return state
}

export const dcOf = (device: Device<RxeState>): DcTransport | undefined => states.get(device as Device)?.dc

export const stateOf = (call: CallContext): Mlx5State => states.get(call.device) as Mlx5State

/** Throws CallError EOPNOTSUPP if the device's link carries no frames. */
export const requireFrames = (call: CallContext, method: string): void => {
  if (stateOf(call).station === undefined)
    refuse(
      'EOPNOTSUPP',
      `${method}: the link carries packets of RoCE only, no other frames: use --link memory, between devices of one daemon`,
    )
}

/** The queues that a completion of `qpn` names: an XRC target has its SRQ's, a responder of DC its target's. */
const queuesOf = ({ soft, queues, shared, dc }: Mlx5State, qpn: number): CompletedQueues | undefined => {
  const own = queues.get(qpn) ?? dc.targets.completedOf(qpn)
  if (own !== undefined) return own
  const receive = soft.rings[soft.qpns.rowOf(qpn)]?.receive
  return receive === undefined ? undefined : shared.get(receive)
}

// ---- contexts, protection domains, address handles ----

/** What a context tells its program. */
const contextFacts = (hasClock: boolean) => ({
  qpTableSize: 0x4_0000,
  cacheLineSize: 64,
  maxSendBytes: Limits.maxSendBytes,
  maxReceiveBytes: Limits.maxReceiveBytes,
  maxSendBlocks: Limits.maxQpWr,
  maxReceives: Limits.maxQpWr,
  maxSharedReceives: Limits.maxSrqWr,
  ports: 1,
  responseMask: hasClock ? Mlx5Clock.HAS_CORE_CLOCK : 0,
  clockInfoVersions: hasClock ? Mlx5Clock.INFO_V1 : 0,
  responseBytes: RESPONSE_BYTES.context,
  cqeVersion: 1,
  responses: Mlx5Responses.QUERY_DEVICE | Mlx5Responses.CREATE_AH,
  minInline: 1,
  logUarBytes: Math.log2(PAGE_BYTES),
  uarsPerPage: 1,
})

export const deviceClass = driverClass<typeof DeviceClass, unknown, typeof Mlx5Attributes.device>(
  DeviceClass,
  {
    open(call, object, args, core) {
      if (((args.contextFlags ?? 0) & MLX5_CONTEXT_DEVX) !== 0)
        refuse('EOPNOTSUPP', 'device.open: the device has no firmware that takes commands (DEVX)')
      const hasClock = openClock(call.context, stateOf(call).soft.now, performance.timeOrigin * 1e6)
      return { ...core(call, object, args), ...contextFacts(hasClock) }
    },
    query: (call, object, args, core) => ({
      ...core(call, object, args),
      ...contextFacts(clockOf(call.context) !== undefined),
      driverBytes: RESPONSE_BYTES.device,
      driverFlags: 0,
      ...(stateOf(call).station && { rssFields: BigInt(RX_HASH_FIELDS), rssFunctions: TOEPLITZ }),
    }),
  },
  Mlx5Attributes.device,
)

/** The numbers of protection domains only inform. */
const numberOf = ({ id }: CoreObject): number => id & 0xff_ffff
export const pdClass = withMethods(
  driverClass<typeof Pd, unknown, typeof Mlx5Attributes.pd>(
    Pd,
    { create: (call, object, args, core) => ({ ...core(call, object, args), number: numberOf(object) }) },
    Mlx5Attributes.pd,
  ),
  { queryNumber },
  { queryNumber: (_call, object) => ({ number: numberOf(object) }) },
)

/** A region has one key, also without rights for peers: programs keep it when they add such rights. */
export const mrClass = driverClass(Mr, {
  create: (call, object, args, core) => answered(core(call, object, args), out => ({ ...out, rkey: out.lkey })),
})

/** The program writes addresses into its requests; a handle only checks that there is a path. */
export const ahClass = withoutOptions(
  {
    ...softAhs,
    handlers: {
      ...softAhs.handlers,
      create(call, object, args, core) {
        ;(softAhs.handlers.create as AnyHandler)(call, object, args, core)
        return { driverBytes: RESPONSE_BYTES.ah, nextHop: new Uint8Array(6) }
      },
    },
    additions: Mlx5Attributes.ah,
  } satisfies DriverClass,
  NO_VLAN,
)

interface UarState {
  readonly page: MappedChunk
}

/** Programs store to these pages to wake the device; it reads the doorbell records. */
export const uarClass = driverClass<typeof Uar, UarState>(Uar, {
  create(call, object) {
    const page = mappedMemoryOf(call.context).allocate(PAGE_BYTES, 'doorbells')
    object.state = { page }
    return { offset: BigInt(page.offset), length: page.length, page: object.id & 0xffff }
  },
  destroy(call, { state }) {
    mappedMemoryOf(call.context).free(state.page)
    return {}
  },
})

// ---- completion queues ----

const requireEntries = (method: string, entries: number, entryBytes: number): void => {
  requirePowerOfTwo(`${method}: the number of entries`, entries, Limits.maxCqe + 1)
  if (entryBytes !== CompletionEntry.BYTES && entryBytes !== 2 * CompletionEntry.BYTES)
    refuse('EINVAL', `${method}: entries of ${entryBytes} bytes; they have 64 or 128`)
}

export const cqClass = driverClass<typeof Cq, Mlx5Cq, typeof Mlx5Attributes.cq>(
  Cq,
  {
    create(call, object, args) {
      const { cqe, userHandle, channel, compVector, flags = 0, asyncFd, kind = CqKind.values.ENTRIES } = args
      const { bufferAddress = 0n, doorbellAddress = 0n, entryBytes = 64, isCompressed = 0, cqFlags = 0 } = args
      const { IGNORE_OVERRUN, TIMESTAMP_COMPLETION } = CqFlags.values
      if ((flags & ~(IGNORE_OVERRUN | TIMESTAMP_COMPLETION)) !== 0 || kind !== CqKind.values.ENTRIES)
        refuse(
          'EOPNOTSUPP',
          'cq.create: of flags the device has IGNORE_OVERRUN and TIMESTAMP_COMPLETION, and it has no counting queues',
        )
      if (isCompressed !== 0 || (cqFlags & ~Mlx5CqFlags.UAR_PAGE_INDEX) !== 0)
        refuse(
          'EOPNOTSUPP',
          'cq.create: the device neither compresses nor pads entries, and time stamps are free running',
        )
      const entries = cqe + 1
      requireEntries('cq.create', entries, entryBytes)
      if (compVector >= call.device.numCompVectors)
        refuse('EINVAL', `cq.create: attribute compVector: ${compVector}: the device has ${call.device.numCompVectors}`)
      const mlx5 = stateOf(call)
      const buffer = share(call, bufferAddress, entries * entryBytes)
      let record: ProgramRecord
      try {
        record = new ProgramRecord(call, doorbellAddress, ArmWord.TAKEN)
      } catch (error) {
        unshare(buffer)
        throw error
      }
      const hasChannel = channel !== undefined
      const ignoresOverrun = (flags & IGNORE_OVERRUN) !== 0
      const clock = clockOf(call.context)
      const description = { entries, entryBytes, buffer, record, compVector, hasChannel, ignoresOverrun, clock }
      object.state = createCq(description, qpn => queuesOf(mlx5, qpn))
      object.state.number = mlx5.soft.cqs.add(object as unknown as CqObject)
      affiliate(object, userHandle, { channel, asyncFd })
      if (hasChannel) {
        mlx5.cqs.add(object.state)
        watchArmings(object as unknown as CqObject)
      }
      return { cqe, number: object.state.number }
    },
    query: softCqs.handlers.query as never,
    modify(call, object, args, core) {
      const { cqe, bufferAddress = 0n, entryBytes = 64, ...moderation } = args
      const { state } = object
      if ((moderation.period ?? 0) > Limits.moderationPeriod)
        refuse('EINVAL', `cq.modify: attribute period: ${moderation.period} µs is above ${Limits.moderationPeriod}`)
      if (cqe === undefined) {
        core(call, object, moderation)
        return { cqe: state.ring.mask }
      }
      const entries = cqe + 1
      requireEntries('cq.modify', entries, entryBytes)
      stateOf(call).soft.pollNow()
      readConsumer(state)
      if (state.outstanding >= entries)
        refuse('EINVAL', `cq.modify: attribute cqe: ${cqe} is less than the ${state.outstanding} completions that wait`)
      // the entry that tells the program of the new ones would overwrite the oldest
      if (state.outstanding > state.ring.mask)
        refuse('EBUSY', `cq.modify: all ${state.outstanding} entries have completions that wait; poll one first`)
      const old = state.buffer
      // completions of the present traffic are written to it before the program has mapped it
      const buffer = share(call, bufferAddress, wholePages(entries * entryBytes), { writer: 'device' })
      resizeCq(state, entries, entryBytes, buffer)
      unshare(old)
      return { cqe }
    },
    reqNotify: null,
    destroy(call, object, args, core) {
      const mlx5 = stateOf(call)
      mlx5.soft.cqs.remove(object.state.number)
      mlx5.cqs.delete(object.state)
      unshare(object.state.buffer)
      object.state.record.end()
      return core(call, object, args)
    },
  },
  Mlx5Attributes.cq,
)

// ---- queue pairs ----

interface QpArguments {
  readonly pd: CoreObject
  readonly cap: { maxSendWr: number; maxRecvWr: number; maxSendSge: number; maxRecvSge: number; maxInlineData: number }
  readonly bufferAddress?: bigint
  readonly doorbellAddress?: bigint
  readonly sendBlocks?: number
  readonly receiveRequests?: number
  readonly receiveShift?: number
  readonly qpFlags?: number
  readonly uidx?: number
  readonly sendBufferAddress?: bigint
}

const UNSUPPORTED_FLAGS = Mlx5QpFlags.SIGNATURE | Mlx5QpFlags.TYPE_DCI | Mlx5QpFlags.TYPE_DCT | Mlx5QpFlags.DCI_STREAM

/** Offset of the send queue after the receive queue, and bytes of both. Throws CallError EINVAL. */
const buffersOf = (method: string, args: QpArguments): { sendsAt: number; bytes: number } => {
  const { sendBlocks = 0, receiveRequests = 0, receiveShift = 0 } = args
  if (sendBlocks > 0) requirePowerOfTwo(`${method}: sq_wqe_count`, sendBlocks, Limits.maxQpWr)
  if (receiveRequests > 0) {
    requirePowerOfTwo(`${method}: rq_wqe_count`, receiveRequests, Limits.maxQpWr)
    const max = Math.log2(Limits.maxReceiveBytes)
    if (receiveShift < 4 || receiveShift > max)
      refuse('EINVAL', `${method}: rq_wqe_shift: ${receiveShift} is not in 4 to ${max}`)
  }
  const sendsAt = receiveRequests * 2 ** receiveShift
  return { sendsAt, bytes: sendsAt + sendBlocks * BLOCK_BYTES }
}

/**
 * Shares the program's queues of a new queue pair. Raw packets have a range for the receive queue and another one for the
 * send queue.
 */
const openQueues = (call: CallContext, { state }: QpObject, args: QpArguments, kind: SendKind) => {
  const { bufferAddress = 0n, doorbellAddress = 0n, sendBlocks = 0, receiveRequests = 0, receiveShift = 0 } = args
  const { sendsAt, bytes } = buffersOf('create', args)
  const isFrames = kind === 'frame'
  const buffers: MappedChunk[] = []
  const shared = (address: bigint, size: number): MappedChunk => {
    buffers.push(share(call, address, size))
    return buffers.at(-1)!
  }
  try {
    const receiveBytes = isFrames ? sendsAt : bytes
    const first = receiveBytes > 0 ? shared(bufferAddress, receiveBytes) : undefined
    const second = isFrames && sendBlocks > 0 ? shared(args.sendBufferAddress ?? 0n, sendBlocks * BLOCK_BYTES) : first
    const record = new ProgramRecord(call, doorbellAddress)
    const at = isFrames ? 0 : sendsAt
    const queue = sendBlocks > 0 ? second : undefined
    const queueBytes = queue?.bytes.subarray(queue.at + at, queue.at + at + sendBlocks * BLOCK_BYTES)
    const inline = queueBytes && new InlineRegion(call.device, args.pd.id, queueBytes)
    const sends = queue && inline && new Sends(record, queue, at, sendBlocks, kind, state.send, inline)
    const receives =
      receiveRequests > 0 && first !== undefined && !state.receive.isShared
        ? new Receives(record, first, receiveRequests, receiveShift, state.receive)
        : undefined
    const queues: ProgramQueues = {
      buffers,
      record,
      sends,
      receives,
      inline,
      uidx: args.uidx ?? 0,
      ...(isFrames && { hasFrames: true }),
      opcodeOf: counter => sends?.opcodeOf(counter) ?? 0,
    }
    stateOf(call).queues.set(state.qpn, queues)
  } catch (error) {
    for (const buffer of buffers) unshare(buffer)
    throw error
  }
}

export const closeQueues = ({ buffers, record, inline }: ProgramQueues): void => {
  inline?.end()
  for (const buffer of buffers) unshare(buffer)
  record.end()
}

/** Room for the frame's first bytes beside the inline data, if the limit allows it. */
const withFrameHeader = (maxInline: number): number =>
  Math.max(maxInline, Math.min(maxInline + MAX_FRAME_HEADER, Limits.maxInline))

const kinds: Readonly<Record<string, SendKind>> = {
  ud_qp: 'datagram',
  xrc_ini_qp: 'xrc',
  dci_qp: 'dc',
  raw_packet_qp: 'frame',
}
const kindOf = (name: string): SendKind => kinds[name] ?? 'connected'

/** A class of queue pairs of the soft device, with the program's queues. */
export const withProgramQueues = (
  soft: DriverClass,
  additions: MethodAdditions = Mlx5Attributes.rc_qp,
): DriverClass => {
  const { create, modify, destroy } = soft.handlers as Readonly<Record<string, AnyHandler>>
  const { name } = soft.class
  return {
    ...soft,
    additions,
    handlers: {
      ...soft.handlers,
      ...('postSend' in soft.class.methods && { postSend: null }),
      create(call, object, args, core) {
        const passed = args as unknown as QpArguments
        const { sendBlocks = 0, receiveRequests = 0, receiveShift = 0, qpFlags = 0, cap } = passed
        const ownFlag = name === DciQp.name ? Mlx5QpFlags.TYPE_DCI : 0
        if ((qpFlags & ~ownFlag & UNSUPPORTED_FLAGS) !== 0)
          refuse(
            'EOPNOTSUPP',
            `${name}.create: flags 0x${qpFlags.toString(16)}: the device has no signatures, and no streams of DC`,
          )
        buffersOf(`${name}.create`, passed)
        prepareRings(call.context)
        const rings = {
          ...cap,
          maxInlineData: kindOf(name) === 'frame' ? withFrameHeader(cap.maxInlineData) : cap.maxInlineData,
          maxSendWr: sendBlocks,
          maxRecvWr: receiveRequests,
          // also for inline data between pointers, or longer than max_inline_data, which may go on at the first block
          maxSendSge: Math.max(2, Math.min(cap.maxSendSge + 1, Limits.maxSge)),
          maxRecvSge: receiveRequests === 0 ? 0 : 2 ** receiveShift / 16,
        }
        const { qpNum } = create!(call, object, { ...args, cap: rings }, core) as { qpNum: number }
        if (sendBlocks + receiveRequests > 0)
          try {
            openQueues(call, object as QpObject, passed, kindOf(name))
          } catch (error) {
            destroy!(call, object, {}, () => ({}))
            throw error
          }
        return { cap, qpNum, uarOut: 0 }
      },
      modify(call, object, args, core) {
        const { qpn, row } = (object as QpObject).state
        const mlx5 = stateOf(call)
        const queues = mlx5.queues.get(qpn)
        const { state } = args as { state?: number }
        const own = [queues?.sends, queues?.receives].filter(queue => queue !== undefined)
        const open = own.filter(({ isOpen }) => isOpen)
        if (state === RESET) for (const queue of own) queue.isOpen = false
        let answer: ReturnType<AnyHandler>
        try {
          answer = modify!(call, object, args, core)
        } catch (error) {
          for (const queue of open) queue.isOpen = true
          throw error
        }
        if (state === RESET) for (const queue of own) queue.reset()
        if (queues !== undefined && state !== undefined && state !== RESET) {
          for (const queue of own) queue.isOpen = true
          mlx5.soft.recheck(row)
        }
        return answer
      },
      destroy(call, object, args, core) {
        const { qpn } = (object as QpObject).state
        const { queues } = stateOf(call)
        const answer = destroy!(call, object, args, core)
        const own = queues.get(qpn)
        queues.delete(qpn)
        if (own !== undefined) closeQueues(own)
        return answer
      },
    },
  }
}

/** Without the queue pair of the general services, which programs cannot create. XRC targets have no queues. */
export const mlx5QpClasses: readonly DriverClass[] = [...qpClasses, ...datagramQpClasses, ...xrcQpClasses]
  .filter(({ class: { name } }) => name !== 'gsi_qp')
  .map(soft => (soft.class.name === 'xrc_tgt_qp' ? soft : withProgramQueues(soft)))

// ---- shared receive queues ----

interface SrqArguments {
  readonly maxWr: number
  readonly maxSge: number
  readonly bufferAddress?: bigint
  readonly doorbellAddress?: bigint
  readonly srqFlags?: number
  readonly uidx?: number
}

const withProgramRequests = (soft: DriverClass): DriverClass => {
  const { create, modify, destroy } = soft.handlers as Readonly<Record<string, AnyHandler>>
  const { name } = soft.class
  return {
    ...soft,
    additions: Mlx5Attributes.srq,
    handlers: {
      ...soft.handlers,
      create(call, object, args, core) {
        const passed = args as unknown as SrqArguments
        const { maxWr, maxSge, bufferAddress = 0n, doorbellAddress = 0n, srqFlags = 0 } = passed
        if (srqFlags !== 0)
          refuse('EOPNOTSUPP', `${name}.create: flags 0x${srqFlags.toString(16)}: the device knows none`)
        const count = maxWr + 1
        requirePowerOfTwo(`${name}.create: the number of requests`, count, Limits.maxSrqWr + 1)
        prepareRings(call.context)
        // programs may ask for none, and the soft device has at least one
        const answer = create!(call, object, { ...args, maxWr: Math.max(maxWr, 1) }, core) as Record<string, unknown>
        const srq = object as SrqObject
        // as the program computes it: the link to the next request, and the elements
        const shift = Math.max(5, Math.ceil(Math.log2(16 + maxSge * 16)))
        const buffer = shareOrUndo(
          () => share(call, bufferAddress, count * 2 ** shift),
          () => destroy!(call, object, {}, () => ({})),
        )
        const record = shareOrUndo(
          () => new ProgramRecord(call, doorbellAddress),
          () => {
            unshare(buffer)
            destroy!(call, object, {}, () => ({}))
          },
        )
        const receives = new Receives(record, buffer, count, shift, srq.state.queue)
        receives.isOpen = true
        stateOf(call).shared.set(srq.state.queue, {
          buffers: [buffer],
          record,
          receives,
          sends: undefined,
          uidx: passed.uidx ?? 0,
          opcodeOf: () => 0,
        })
        const { queue: _, ...rest } = answer
        return { ...rest, maxWr, maxSge, number: srq.state.number }
      },
      modify(call, object, args, core) {
        if ((args as { maxWr?: number }).maxWr !== undefined)
          refuse('EINVAL', `${name}.modify: attribute maxWr: the device cannot resize shared receive queues`)
        return modify!(call, object, args, core)
      },
      destroy(call, object, args, core) {
        const { queue } = (object as SrqObject).state
        const { shared } = stateOf(call)
        const answer = destroy!(call, object, args, core)
        const own = shared.get(queue)
        shared.delete(queue)
        if (own !== undefined) closeQueues(own)
        return answer
      },
    },
  }
}

const shareOrUndo = <T>(body: () => T, undo: () => void): T => {
  try {
    return body()
  } catch (error) {
    undo()
    throw error
  }
}

export const srqClasses: readonly DriverClass[] = [softSrqs, softXrcSrqs].map(withProgramRequests)
