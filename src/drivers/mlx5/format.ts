/*
 * Blocks in the program's memory as the queue format of a soft device (drivers/soft/format.ts): libmlx5 allocates the
 * queues and their doorbell records, and tells where they are.
 */
import type { DriverClass, MethodAdditions } from '../../core/driver-contract.ts'
import type { CallContext, CoreObject } from '../../core/model.ts'
import { mayChargeMemory, releaseMemory } from '../../core/objects/limits.ts'
import { DciQp } from '../../spec/classes/qp/dc_qp.ts'
import { Mlx5Attributes, Mlx5QpFlags } from '../../spec/drivers/mlx5.ts'
import { BLOCK_BYTES } from '../../spec/drivers/mlx5-queues.ts'
import { callError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import type { Address } from '../soft/address/path.ts'
import { datagramQpClasses } from '../soft/classes/datagram-qp-classes.ts'
import { connectedQpClasses } from '../soft/classes/qp-class.ts'
import { srqClasses } from '../soft/classes/srq-class.ts'
import { xrcQpClasses } from '../soft/classes/xrc-qp-class.ts'
import type { QpCreate, QueueFormat, SharedFormat, SrqCreate } from '../soft/format.ts'
import { emptyReceiveQueue, emptySendQueue } from '../soft/queues.ts'
import type { QpCap } from '../soft/state.ts'
import { Limits } from './attributes.ts'
import { type DoorbellPage, DoorbellRegister } from './doorbell-register.ts'
import { InlineRegion } from './inline-region.ts'
import { keyChanger } from './key-changes.ts'
import { ProgramRecord, type SharedPart, share, unshare } from './program-memory.ts'
import { Receives, type SharedOrder } from './receives.ts'
import { BYTES_PER_BLOCK, MAX_FRAME_HEADER, type SendKind, Sends } from './sends.ts'
import { type ProgramQueues, requirePowerOfTwo, stateOf } from './state.ts'

const ELEMENT_BYTES = 16

/** What libmlx5 adds to the arguments. */
interface BlockArguments {
  readonly bufferAddress?: bigint
  readonly doorbellAddress?: bigint
  readonly sendBlocks?: number
  readonly receiveRequests?: number
  readonly receiveShift?: number
  readonly qpFlags?: number
  readonly uidx?: number
  readonly sendBufferAddress?: bigint
}
type Create = QpCreate & BlockArguments & ByCommand

/** Of queues that firmware commands make: an argument that no program's call has. */
interface ByCommand {
  /** The send queue has no doorbell record. */
  readonly doorbellPage?: CoreObject<DoorbellPage>
}

const UNSUPPORTED_FLAGS = Mlx5QpFlags.SIGNATURE | Mlx5QpFlags.TYPE_DCI | Mlx5QpFlags.TYPE_DCT | Mlx5QpFlags.DCI_STREAM

const kinds: Readonly<Record<string, SendKind>> = {
  ud_qp: 'datagram',
  xrc_ini_qp: 'xrc',
  dci_qp: 'dc',
  raw_packet_qp: 'frame',
}
/** Classes whose requests may copy within memory (dma_mmo_sq). */
const COPYING_CLASSES: readonly string[] = ['rc_qp', DciQp.name]
const kindOf = (className: string): SendKind => kinds[className] ?? 'connected'

/** Throws CallError EINVAL. */
export const checkReceives = (method: string, requests: number, shift: number): void => {
  requirePowerOfTwo(because`${the.method(method)}: rq_wqe_count`, requests, Limits.maxQpWr)
  const max = Math.log2(Limits.maxReceiveBytes)
  if (shift < 4 || shift > max)
    throw callError.EINVAL`${the.method(method)}: rq_wqe_shift: ${shift} is not in 4 to ${max}`
}

/** Number of elements of a request of a receive queue. */
export const receiveElements = (shift: number): number => 2 ** shift / ELEMENT_BYTES

/** Offset of the send queue after the receive queue. Throws CallError EINVAL. */
const sendsAtOf = (method: string, { sendBlocks = 0, receiveRequests = 0, receiveShift = 0 }: BlockArguments) => {
  if (sendBlocks > 0) requirePowerOfTwo(because`${the.method(method)}: sq_wqe_count`, sendBlocks, Limits.maxQpWr)
  if (receiveRequests > 0) checkReceives(method, receiveRequests, receiveShift)
  return receiveRequests * 2 ** receiveShift
}

/** Room for the frame's first bytes beside the inline data, if the limit allows it. */
const withFrameHeader = (maxInline: number): number =>
  Math.max(maxInline, Math.min(maxInline + MAX_FRAME_HEADER, Limits.maxInline))

/** libmlx5 subtracts a header from what requests without elements have room for, and tells -4. */
const inlineOf = ({ maxInlineData }: Create['cap']): number => ((maxInlineData | 0) < 0 ? 0 : maxInlineData)

/** Undoes the steps that were done, if one throws. */
export const inSteps = <T>(run: (undo: (step: () => void) => void) => T): T => {
  const steps: (() => void)[] = []
  try {
    return run(step => steps.push(step))
  } catch (error) {
    for (const step of steps.reverse()) step()
    throw error
  }
}

type Undo = (step: () => void) => void

const shareFor = (call: CallContext, address: bigint, bytes: number, undo: Undo): SharedPart => {
  const part = share(call, address, bytes)
  undo(() => unshare(part))
  return part
}

const recordFor = (call: CallContext, address: bigint, undo: Undo): ProgramRecord => {
  const record = new ProgramRecord(call, address)
  undo(() => record.end())
  return record
}

interface Opened extends ProgramQueues {
  readonly send: Sends | typeof emptySendQueue
  readonly receive: Receives | typeof emptyReceiveQueue
  readonly register: DoorbellRegister | undefined
}

/**
 * Shares the program's queues of a new queue pair. Raw packets have a range for the receive queue and another one for
 * the send queue.
 */
const open = (
  call: CallContext,
  args: Create,
  className: string,
  sizes: QpCap,
  shared: Opened['receive'] | undefined,
  undo: Undo,
): Opened => {
  const { bufferAddress = 0n, doorbellAddress = 0n, sendBlocks = 0, receiveRequests = 0, receiveShift = 0 } = args
  const { sendBufferAddress = 0n, uidx = 0 } = args
  const sendsAt = sendsAtOf(`${className}.create`, args)
  const kind = kindOf(className)
  const isFrames = kind === 'frame'
  const sendBytes = sendBlocks * BLOCK_BYTES
  const firstBytes = isFrames ? sendsAt : sendsAt + sendBytes
  const { account } = call.context
  const bytes = sendBlocks * BYTES_PER_BLOCK
  if (!mayChargeMemory(account, bytes))
    throw callError.ENOMEM`a queue needs ${bytes} bytes of the device, more than the account's share`
  undo(() => releaseMemory(account, bytes))
  const first = firstBytes > 0 ? shareFor(call, bufferAddress, firstBytes, undo) : undefined
  const second = isFrames && sendBytes > 0 ? shareFor(call, sendBufferAddress, sendBytes, undo) : first
  const record = recordFor(call, doorbellAddress, undo)
  const offset = isFrames ? 0 : sendsAt
  const buffer = sendBlocks > 0 ? second : undefined
  const inline =
    buffer &&
    new InlineRegion(call.device, args.pd.id, buffer.bytes.subarray(buffer.at + offset, buffer.at + offset + sendBytes))
  // elements and inline data share the bytes of a request: the limit is as large as the bytes allow
  const maxInline = Math.max(sizes.maxSendSge * ELEMENT_BYTES, sizes.maxInlineData)
  // only libmlx5 knows how many elements the program asked for: UCX posts more to such queues itself
  const { maxSge } = Limits
  const register =
    buffer && args.doorbellPage && new DoorbellRegister(args.doorbellPage.state, buffer, buffer.at + offset, sendBlocks)
  undo(() => register?.end())
  const hasCopies = COPYING_CLASSES.includes(className)
  const sends =
    buffer &&
    inline &&
    new Sends({
      record: register ?? record,
      buffer,
      offset,
      blocks: sendBlocks,
      kind,
      hasCopies,
      inline,
      maxSge,
      maxInline,
    })
  const { signatures } = stateOf(call)
  const wire = signatures.requestLengths(call.device.memory)
  if (sends !== undefined) {
    sends.keyChanger = keyChanger(call.device.memory, args.pd.id, signatures)
    sends.wire = wire
  }
  const receives =
    shared === undefined && receiveRequests > 0 && first !== undefined
      ? new Receives({
          record,
          buffer: first,
          count: receiveRequests,
          shift: receiveShift,
          maxSge: receiveElements(receiveShift),
          wire,
        })
      : undefined
  return {
    send: sends ?? emptySendQueue,
    receive: shared ?? receives ?? emptyReceiveQueue,
    buffers: [first, second === first ? undefined : second].filter(part => part !== undefined),
    record,
    register,
    sends,
    receives,
    inline,
    uidx,
    bytes,
    ...(isFrames && { hasFrames: true }),
    opcodeOf: counter => sends?.opcodeOf(counter) ?? 0,
  }
}

export const closeQueues = ({ context }: Pick<CallContext, 'context'>, queues: ProgramQueues): void => {
  const { buffers, record, register, inline, bytes } = queues
  inline?.end()
  register?.end()
  for (const buffer of buffers) unshare(buffer)
  record.end()
  releaseMemory(context.account, bytes)
}

/** Of ib_rate, from 2.5 to 600 Gb/s; those of 800 and 1600 Gb/s are as none. */
const STATIC_RATES = { first: 2, last: 22, others: [0, 23, 25] } as const

/** Throws CallError EINVAL for a rate that Linux's driver does not know (mlx5r_ib_rate). The device limits no rate. */
export const checkStaticRate = (method: string, { staticRate }: Address): void => {
  const { first, last, others } = STATIC_RATES
  if ((staticRate < first || staticRate > last) && !others.some(rate => rate === staticRate))
    throw callError.EINVAL`${the.method(method)}: ${the.attribute('address.staticRate')}: ${staticRate}: ${first} to ${last}, ${others.join(', ')} are rates`
}

/** Blocks, for classes whose calls have these attributes. */
export const blockFormat = (additions: MethodAdditions = Mlx5Attributes.rc_qp): QueueFormat => ({
  additions,
  hasPostCall: false,
  isInProcess: () => false,

  sizesOf(method, args: Create) {
    const { cap, sendBlocks = 0, receiveRequests = 0, qpFlags = 0 } = args
    const className = method.slice(0, method.indexOf('.'))
    const ownFlags = className === DciQp.name ? Mlx5QpFlags.TYPE_DCI | Mlx5QpFlags.DCI_STREAM : 0
    if ((qpFlags & ~ownFlags & UNSUPPORTED_FLAGS) !== 0)
      throw callError.EOPNOTSUPP`${the.method(method)}: flags 0x${qpFlags.toString(16)}: the device has no signatures, and only initiators of DC have streams`
    sendsAtOf(method, args)
    return {
      maxSendWr: sendBlocks,
      maxRecvWr: receiveRequests,
      // also for inline data between pointers, which may go on at the first block
      maxSendSge: Math.max(2, Math.min(cap.maxSendSge + 1, Limits.maxSge)),
      // the program rounds the bytes of a receive up to a power of two
      maxRecvSge: receiveRequests === 0 ? 0 : cap.maxRecvSge,
      maxInlineData: kindOf(className) === 'frame' ? withFrameHeader(inlineOf(cap)) : inlineOf(cap),
    }
  },

  // libmlx5 asks for what the blocks of a request have room for, where elements or inline data may be
  inlineLimit: (limit, { maxSendSge }) =>
    Math.min(Limits.maxInline, Math.max(limit, maxSendSge * ELEMENT_BYTES) + BLOCK_BYTES - 1),

  open(call, args: Create, { className, sizes, shared }) {
    const { sendBlocks = 0, receiveRequests = 0 } = args
    if (sendBlocks + receiveRequests === 0) return { send: emptySendQueue, receive: shared ?? emptyReceiveQueue }
    return inSteps(undo => open(call, args, className, sizes, shared, undo))
  },

  opened(call, _args, qpn, opened: Partial<Opened>) {
    if (opened.register !== undefined) opened.register.qpn = qpn
    if (opened.record !== undefined) stateOf(call).queues.set(qpn, opened as Opened)
  },

  answer: ({ cap }, qpNum) => ({ cap, qpNum, uarOut: 0 }),

  checkPath: checkStaticRate,

  close(call, qpn) {
    const { queues } = stateOf(call)
    const own = queues.get(qpn)
    queues.delete(qpn)
    if (own !== undefined) closeQueues(call, own)
  },
})

const format = blockFormat()

/** Without the queue pair of the general services, which programs cannot create. XRC targets have no queues. */
export const mlx5QpClasses: readonly DriverClass[] = [
  ...connectedQpClasses(format),
  ...datagramQpClasses(format),
  ...xrcQpClasses(format),
].filter(({ class: { name } }) => name !== 'gsi_qp')

// ---- shared receive queues ----

type CreateShared = SrqCreate &
  Pick<BlockArguments, 'bufferAddress' | 'doorbellAddress' | 'uidx'> & { readonly srqFlags?: number } & SharedLayout

/** Of queues that firmware commands make: their arguments, which no program's call has. */
interface SharedLayout {
  readonly order?: SharedOrder
  /** Log2 of a request's bytes. */
  readonly shift?: number
}

/** Bytes of the link to the next request, before the elements. */
const LINK_BYTES = 16

const sharedBlocks: SharedFormat<Receives> = {
  additions: { srq: Mlx5Attributes.srq, xrc_srq: Mlx5Attributes.srq },
  // programs may ask for none
  minWr: 0,
  check(className, { maxWr, srqFlags = 0 }: CreateShared) {
    if (srqFlags !== 0)
      throw callError.EOPNOTSUPP`${the.method(`${className}.create`)}: flags 0x${srqFlags.toString(16)}: the device knows none`
    requirePowerOfTwo(
      because`${the.method(`${className}.create`)}: the number of requests`,
      maxWr + 1,
      Limits.maxSrqWr + 1,
    )
  },
  open(call, _className, args: CreateShared, sges, onLimitReached) {
    const { maxWr, maxSge, bufferAddress = 0n, doorbellAddress = 0n, uidx = 0, order } = args
    const count = maxWr + 1
    // as the program computes it
    const { shift = Math.max(5, Math.ceil(Math.log2(LINK_BYTES + maxSge * ELEMENT_BYTES))) } = args
    return inSteps(undo => {
      const buffer = shareFor(call, bufferAddress, count * 2 ** shift, undo)
      const record = recordFor(call, doorbellAddress, undo)
      const receives = new Receives({
        record,
        buffer,
        count,
        shift,
        maxSge: sges,
        onLimitReached,
        wire: stateOf(call).signatures.requestLengths(call.device.memory),
        ...(order !== undefined && { order }),
      })
      receives.open()
      const queues = { buffers: [buffer], record, receives, sends: undefined, uidx, bytes: 0, opcodeOf: () => 0 }
      stateOf(call).shared.set(receives, queues)
      return receives
    })
  },
  answer: ({ maxWr, maxSge }) => ({ maxWr, maxSge }),
  close(call, queue) {
    const { shared } = stateOf(call)
    const own = shared.get(queue)
    shared.delete(queue)
    if (own !== undefined) closeQueues(call, own)
  },
}

export const mlx5SrqClasses: readonly DriverClass[] = srqClasses(sharedBlocks)
