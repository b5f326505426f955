/*
 * The operations of connected queue pairs (IBA 9.4, 10.8; annex A19).
 */
import { AccessFlags } from '../../../spec/enums.ts'
import type { ObjectClass } from '../../../spec/schema/schema.ts'
import { flushPlacement, flushSelectivity } from '../../../spec/wire/headers.ts'
import { WrOpcode } from '../../../spec/work.ts'
import { checkFlag, checkOptions } from '../arguments/options.ts'
import {
  checkAligned,
  checkExtent,
  checkOriginal,
  checkTarget,
  checkWord,
  flushLength,
} from '../arguments/request-checks.ts'
import {
  type FlushExtent,
  type ImmediateOptions,
  type RcMessageOptions,
  RequestOptionBits,
  type SendOptions,
} from '../arguments/request-options.ts'
import { checkByteCount, checkU32, invalidArgument } from '../error.ts'
import { accessFlags, type Slice } from '../mr/region.ts'
import {
  createRemoteMemory,
  lengthOfPart,
  type RemoteMemory,
  type RemoteMemoryData,
  rangeOf,
} from '../mr/remote-memory.ts'
import {
  type BindInfo,
  bindingAccessNames,
  bindingOptionNames,
  checkWindow,
  type MemoryWindow,
  Window,
} from '../mr/window.ts'
import { checkObject } from '../plan.ts'
import type { ProgramRing } from '../ring.ts'
import { type Connectable, type Endpoint, endpointOf, modifyInSteps, type RcConnectOptions } from './connection.ts'
import { beginRequest, endRequest, NO_DATA, QueuedQp, type SendData, STEPS, type StepsTo } from './queue-pair.ts'
import { bytesOf, putAtomic, putBind, putFlush, putImmediate, putInvalidate, putRemote, putWord } from './requests.ts'

/**
 * Operations of all connected services. `M`: options of `send`; `O`: options of every other request; `R`: the result of
 * a post; `B`: the result of `bind`.
 */
export interface Operations<M extends object, O extends object, R = void, B = RemoteMemory> {
  /**
   * SEND: the message goes into the peer's next receive. All operations fail with RdmaError ENOMEM if the send queue is
   * full, and EINVAL for bytes that are not a slice of this device or too long for inline data.
   */
  send(local: SendData, options?: M): R
  /** WRITE: writes to the peer's memory. With `immediate`, a receive of the peer completes too. */
  write(local: SendData, remote: RemoteMemoryData, options?: O & ImmediateOptions): R
  /**
   * Binds a window: grants the peer access to part of a region. Returns address and rkey for the peer. The window's old
   * rkey becomes invalid when the bind completes. A type 1 window may be bound already, a type 2 window may not.
   */
  bind(window: MemoryWindow, binding: BindInfo, options?: O): B
  /** Invalidates the rkey of a type 2 window and so unbinds the window. */
  invalidate(window: MemoryWindow, options?: O): R
}

/** Operations of RC and XRC only. `O` and `R`: see `Operations`. */
export interface ReliableOperations<O extends object, R = void> {
  /** READ: reads from the peer's memory into `local`. */
  read(local: Slice | readonly Slice[], remote: RemoteMemoryData, options?: O): R
  /** Compare-and-swap of the peer's 64-bit word; `local` (8 bytes) receives the old value. */
  compareSwap(local: Slice, remote: RemoteMemoryData, compare: bigint, swap: bigint, options?: O): R
  /** Fetch-and-add to the peer's 64-bit word; `local` (8 bytes) receives the old value. */
  fetchAdd(local: Slice, remote: RemoteMemoryData, add: bigint, options?: O): R
  /** ATOMIC WRITE: writes the peer's 64-bit word atomically. */
  atomicWrite(remote: RemoteMemoryData, word: bigint, options?: O): R
  /** FLUSH: completes when earlier WRITEs to these bytes are globally visible, or persistent, at the peer. */
  flush(remote: RemoteMemoryData, options?: O & FlushExtent): R
}

const wr = WrOpcode.values
const { ANY, IMMEDIATE, INVALIDATE, FLUSH, SRQ } = RequestOptionBits
// The options of each operation.
const SEND_OPTIONS = ANY | IMMEDIATE | INVALIDATE | SRQ
const WRITE_OPTIONS = ANY | IMMEDIATE | SRQ
const READ_ATOMIC_OPTIONS = ANY | SRQ
const FLUSH_OPTIONS = ANY | FLUSH | SRQ

const { REMOTE_READ, REMOTE_WRITE, ZERO_BASED } = AccessFlags.values
/** The key portion of an rkey, which `bind` increments (ibv_inc_rkey). */
const KEY_BITS = 0xff

const sendOpcode = (immediate: number | undefined, invalidate: number | undefined): number => {
  if (invalidate !== undefined) return wr.SEND_WITH_INV
  return immediate === undefined ? wr.SEND : wr.SEND_WITH_IMM
}

/** The send ring, which `beginRequest` has mapped. */
const ringOf = ({ sends }: QueuedQp): ProgramRing => sends as ProgramRing

/** A connected queue pair with the operations that UC has: SEND, WRITE, and operations on windows. */
export abstract class MessageQp<C extends ObjectClass = ObjectClass>
  extends QueuedQp<C>
  implements Operations<RcMessageOptions, SendOptions>, Connectable<RcConnectOptions>
{
  abstract override get [STEPS](): StepsTo

  get endpoint(): Endpoint {
    return endpointOf(this.context.path, this)
  }

  connect(peer: Endpoint, options?: RcConnectOptions): void {
    modifyInSteps('qp.connect', this, this[STEPS](this.context.path, this.psn, peer, options))
  }

  send(local: SendData, options?: RcMessageOptions): void {
    const immediate = options?.immediate
    const invalidate = options?.invalidate
    const at = beginRequest(this, 'qp.send', sendOpcode(immediate, invalidate), local, options, SEND_OPTIONS)
    if (immediate !== undefined && invalidate !== undefined)
      throw invalidArgument('qp.send', 'options: immediate and invalidate exclude each other', 'give one of them')
    if (invalidate !== undefined) {
      checkU32('qp.send', 'invalidate', invalidate)
      putInvalidate(ringOf(this), at, invalidate)
    } else if (immediate !== undefined) {
      checkU32('qp.send', 'immediate', immediate)
      putImmediate(ringOf(this), at, immediate)
    }
    endRequest(this)
  }

  write(local: SendData, remote: RemoteMemoryData, options?: SendOptions & ImmediateOptions): void {
    const range = rangeOf('qp.write', remote)
    const immediate = options?.immediate
    const opcode = immediate === undefined ? wr.RDMA_WRITE : wr.RDMA_WRITE_WITH_IMM
    const at = beginRequest(this, 'qp.write', opcode, local, options, WRITE_OPTIONS)
    checkExtent('qp.write', bytesOf(ringOf(this), at), range)
    putRemote(ringOf(this), at, range)
    if (immediate !== undefined) {
      checkU32('qp.write', 'immediate', immediate)
      putImmediate(ringOf(this), at, immediate)
    }
    endRequest(this)
  }

  bind(window: MemoryWindow, binding: BindInfo, options?: SendOptions): RemoteMemory {
    checkObject(this.context, 'qp.bind', 'window', window)
    const target = checkWindow('qp.bind', window)
    checkOptions('qp.bind', 'binding', binding, bindingOptionNames)
    checkObject(this.context, 'qp.bind', 'region', binding.region)
    const { region, offset = 0, access } = binding
    checkByteCount('qp.bind', 'offset', offset)
    if (binding.length !== undefined) checkByteCount('qp.bind', 'length', binding.length)
    const length = lengthOfPart('qp.bind', region.length, offset, binding.length)
    const address = region.address + BigInt(offset)
    const rights =
      access === undefined ? REMOTE_READ | REMOTE_WRITE : accessFlags('qp.bind', access, false, bindingAccessNames)
    const oldRkey = Window.rkeyFor(target, this)
    const rkey = ((oldRkey & ~KEY_BITS) | ((oldRkey + 1) & KEY_BITS)) >>> 0
    const at = beginRequest(this, 'qp.bind', wr.BIND_MW, NO_DATA, options, ANY)
    putBind(ringOf(this), at, oldRkey, rkey, region.lkey, address, length, rights)
    Window.setRkey(target, this, rkey)
    endRequest(this)
    return createRemoteMemory((rights & ZERO_BASED) === 0 ? address : 0n, rkey, length)
  }

  invalidate(window: MemoryWindow, options?: SendOptions): void {
    checkObject(this.context, 'qp.invalidate', 'window', window)
    const target = checkWindow('qp.invalidate', window)
    if (target.type !== 2)
      throw invalidArgument('qp.invalidate', 'a window of type 1 cannot be invalidated', 'bind it with length 0')
    const rkey = Window.rkeyFor(target, this)
    const at = beginRequest(this, 'qp.invalidate', wr.LOCAL_INV, NO_DATA, options, ANY)
    putInvalidate(ringOf(this), at, rkey)
    endRequest(this)
  }
}

/** Posts the WRITE of zero bytes of `ping`. C9-88: the peer checks neither address nor rkey. */
export const postPing = (qp: QueuedQp, options: SendOptions): void => {
  const at = beginRequest(qp, 'qp.ping', wr.RDMA_WRITE, NO_DATA, options, ANY)
  putRemote(ringOf(qp), at, rangeOf('qp.ping', { address: 0n, rkey: 0, length: 0 }))
  endRequest(qp)
}

/** Posts an atomic. `swap`: 0 for fetch-and-add. */
const atomic = (
  qp: QueuedQp,
  call: string,
  opcode: number,
  local: Slice,
  remote: RemoteMemoryData,
  compareOrAdd: bigint,
  swap: bigint,
  options: SendOptions | undefined,
): void => {
  checkOriginal(call, local)
  const range = rangeOf(call, remote)
  checkAligned(call, range)
  const at = beginRequest(qp, call, opcode, local, options, READ_ATOMIC_OPTIONS)
  putAtomic(ringOf(qp), at, range, compareOrAdd, swap)
  endRequest(qp)
}

/** A connected queue pair with all operations: RC and XRC. */
export abstract class ReliableQp<C extends ObjectClass = ObjectClass>
  extends MessageQp<C>
  implements ReliableOperations<SendOptions>
{
  read(local: Slice | readonly Slice[], remote: RemoteMemoryData, options?: SendOptions): void {
    checkTarget('qp.read', local)
    const range = rangeOf('qp.read', remote)
    const at = beginRequest(this, 'qp.read', wr.RDMA_READ, local, options, READ_ATOMIC_OPTIONS)
    checkExtent('qp.read', bytesOf(ringOf(this), at), range)
    putRemote(ringOf(this), at, range)
    endRequest(this)
  }

  compareSwap(local: Slice, remote: RemoteMemoryData, compare: bigint, swap: bigint, options?: SendOptions): void {
    checkWord('qp.compareSwap', 'compare', compare)
    checkWord('qp.compareSwap', 'swap', swap)
    atomic(this, 'qp.compareSwap', wr.ATOMIC_CMP_AND_SWP, local, remote, compare, swap, options)
  }

  fetchAdd(local: Slice, remote: RemoteMemoryData, add: bigint, options?: SendOptions): void {
    checkWord('qp.fetchAdd', 'add', add)
    atomic(this, 'qp.fetchAdd', wr.ATOMIC_FETCH_AND_ADD, local, remote, add, 0n, options)
  }

  atomicWrite(remote: RemoteMemoryData, word: bigint, options?: SendOptions): void {
    const range = rangeOf('qp.atomicWrite', remote)
    checkAligned('qp.atomicWrite', range)
    checkWord('qp.atomicWrite', 'word', word)
    const at = beginRequest(this, 'qp.atomicWrite', wr.ATOMIC_WRITE, NO_DATA, options, READ_ATOMIC_OPTIONS)
    putRemote(ringOf(this), at, range)
    putWord(ringOf(this), at, word)
    endRequest(this)
  }

  flush(remote: RemoteMemoryData, options?: SendOptions & FlushExtent): void {
    const range = rangeOf('qp.flush', remote)
    const isWholeRegion = options?.wholeRegion === true
    const length = flushLength(range, isWholeRegion)
    const at = beginRequest(this, 'qp.flush', wr.FLUSH, NO_DATA, options, FLUSH_OPTIONS)
    checkFlag('qp.flush', 'persistent', options?.persistent)
    checkFlag('qp.flush', 'wholeRegion', options?.wholeRegion)
    const placement = options?.persistent === true ? flushPlacement.PERSISTENT : flushPlacement.GLOBAL
    const selectivity = isWholeRegion ? flushSelectivity.REGION : flushSelectivity.RANGE
    putFlush(ringOf(this), at, range, length, placement, selectivity)
    endRequest(this)
  }
}
