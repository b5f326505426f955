/*
 * Shared receive queues that match tags, in the library (class `tm_srq`; rdma-core: IBV_SRQT_TM, ibv_post_srq_ops): a
 * message goes to the buffer whose tag is its own, and to a plain receive request if there is none. No device here has
 * them.
 */
import { TmSrq } from '../../spec/classes/srq.ts'
import { TmFlags } from '../../spec/enums.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { checkRequest, checkWord } from '../checks/request-checks.ts'
import { invalidArgument } from '../error.ts'
import type { Slice } from '../mr/region.ts'
import { checkOwn, type DeviceContext, eventSource, type HeldObject, type Named, type Plan } from '../plan.ts'
import { withMethods } from '../shared-methods.ts'
import {
  type SharedReceiveQueue,
  type SrqOptions,
  srqArguments,
  srqFields,
  srqTable,
  srqWords,
} from './shared-receive.ts'

export interface TagSrqOptions extends SrqOptions {
  /** Messages and operations on tags complete there. */
  readonly cq: Named
  /** Tags that can be waited for at once. */
  readonly maxTags: number
}

/** What every operation on tags may say. */
export interface TagOptions {
  /** Comes back in the completion of the operation; an exact Number, default 0. */
  readonly id?: number
  /** Makes a completion; default true. */
  readonly signaled?: boolean
  /** How many messages without a tag that matched have been taken so far, modulo 2^32: the device may go on then. */
  readonly unexpected?: number
}

export interface AddTagOptions extends TagOptions {
  /** Bits of the tag that matter, 64; default all. */
  readonly mask?: bigint
  /** Comes back in the completion of the message; default 0. */
  readonly receiveId?: number
}

export interface TagSharedReceiveQueue extends SharedReceiveQueue {
  /** Offers a buffer for the message with this tag, 64 bits; answers what names it until it is used or removed. */
  addTag(tag: bigint, local: Slice | readonly Slice[], options?: AddTagOptions): number
  /** Takes back what `addTag` has answered. */
  removeTag(tag: number, options?: TagOptions): void
  /** Only tells how many unexpected messages have been taken, modulo 2^32. */
  syncTags(unexpected: number, options?: Omit<TagOptions, 'unexpected'>): void
}

const words: Words<TagSrqOptions> = { ...srqWords, cq: true, maxTags: true }
const tagWords: Words<TagOptions> = { id: true, signaled: true, unexpected: true }
const addWords: Words<AddTagOptions> = { ...tagWords, mask: true, receiveId: true }
const { unexpected: _, ...syncWords } = tagWords

const { SIGNALED, SYNC } = TmFlags.values
const ALL_BITS = 2n ** 64n - 1n

/** What all operations say, as the class has it. */
const operationOf = (call: string, kit: DeviceContext, { id = 0, signaled = true, unexpected }: TagOptions) => {
  checkRequest(call, kit, undefined, id)
  return {
    wrId: BigInt(id),
    flags: (signaled ? SIGNALED : 0) | (unexpected === undefined ? 0 : SYNC),
    ...(unexpected !== undefined && { unexpected }),
  }
}

const pieceOf = ({ hi, lo, length, lkey }: Slice) => ({ address: (BigInt(hi) << 32n) | BigInt(lo), length, lkey })

const tagMethods: Pick<TagSharedReceiveQueue, 'addTag' | 'removeTag' | 'syncTags'> & ThisType<HeldObject> = {
  addTag(tag, local, options = {}) {
    const call = 'tm_srq.tagAdd'
    checkOptions(call, 'options', options, addWords)
    const { mask = ALL_BITS, receiveId = 0 } = options
    checkWord(call, 'tag', tag)
    checkWord(call, 'mask', mask)
    if (local === undefined) throw invalidArgument(call, 'the buffer is missing', 'give a slice of registered memory')
    checkRequest(call, this.kit, local, receiveId)
    const pieces = (Array.isArray(local) ? local : [local]).map(pieceOf)
    const args = { ...operationOf(call, this.kit, options), tag, mask, recvWrId: BigInt(receiveId), pieces }
    return this.kit.carrier.call(TmSrq, 'tagAdd', this.handle, args).out.handle
  },
  removeTag(tag, options = {}) {
    checkOptions('tm_srq.tagDel', 'options', options, tagWords)
    const args = { ...operationOf('tm_srq.tagDel', this.kit, options), handle: tag }
    this.kit.carrier.call(TmSrq, 'tagDel', this.handle, args)
  },
  syncTags(unexpected, options = {}) {
    checkOptions('tm_srq.tagSync', 'options', options, syncWords)
    const args = operationOf('tm_srq.tagSync', this.kit, { ...options, unexpected })
    this.kit.carrier.call(TmSrq, 'tagSync', this.handle, args)
  },
}
const methods = srqTable(TmSrq, tagMethods)

export const tagSrqPlan = (kit: DeviceContext, pd: Named, options: TagSrqOptions): Plan<TagSharedReceiveQueue> => {
  checkOptions('tm_srq.create', 'options', options, words)
  checkOwn(kit, 'tm_srq.create', 'pd', pd)
  checkOwn(kit, 'tm_srq.create', 'cq', options.cq)
  const source = eventSource(kit, TmSrq)
  return {
    class: TmSrq,
    args: { ...srqArguments(pd, source, options), cq: options.cq.handle, maxNumTags: options.maxTags },
    made: answered => source.is(withMethods<TagSharedReceiveQueue>(methods, srqFields(kit, source, answered))),
    failed: source.forget,
  }
}
