/*
 * Where a request was posted, and the hash of its buffer at its post, from the logs that programs write into the memory
 * files of their contexts (spec/context-logs.ts). The contents are not trusted.
 */
import { readSync } from 'node:fs'
import type { Context } from '../../core/model.ts'
import type { Stack } from '../../spec/check/finding.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import {
  findPosition,
  HashLog,
  hashSlot,
  PositionLog,
  PostLog,
  positionSet,
  postSlot,
} from '../../spec/context-logs.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { Messages, PostQueue } from '../../spec/session.ts'
import type { Contexts } from '../context/contexts.ts'

const POST = offsetsOf(Messages.post)
const POSITION = offsetsOf(Messages.position)
const HASH = offsetsOf(Messages.hash)

const NO_STACK: Stack = []

/** A typed array, not the DataView, is read: event-log.ts says why. */
const bufferOf = (size: number) => {
  const bytes = new Uint8Array(size)
  return { bytes, view: new DataView(bytes.buffer) }
}

export class PostLogs {
  readonly #contexts: Contexts
  readonly #stackOf: (context: Context, namespacePid: number, id: number) => Stack
  readonly #post = bufferOf(Messages.post.size)
  readonly #set = bufferOf(PositionLog.ways * Messages.position.size)
  readonly #hash = bufferOf(Messages.hash.size)

  /** `stackOf`: of a process with this pid in the namespace of the context's program. */
  constructor(contexts: Contexts, stackOf: (context: Context, namespacePid: number, id: number) => Stack) {
    this.#contexts = contexts
    this.#stackOf = stackOf
  }

  /**
   * The stack of a request's post; empty: unknown. `queue`: PostQueue. `number`: the QPN, or the handle of the SRQ.
   * `index`: its position; absent: unknown.
   */
  stackOf(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack {
    const exact = index === undefined ? NO_STACK : this.#byPosition(context, queue, number, index)
    // ibv_wr_complete logs one entry, with wr_id 0, for all its requests, beside those by their positions.
    return exact.length > 0 ? exact : this.#byId(context, queue, number, queue === PostQueue.BATCH ? 0n : wrId)
  }

  /** As `stackOf`; of a send of the ibv_wr_ interface, that of its ibv_wr_complete. */
  requestStackOf(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack {
    const stack = this.stackOf(context, queue, number, wrId, index)
    const isBatch = stack.length === 0 && queue === PostQueue.SEND
    return isBatch ? this.stackOf(context, PostQueue.BATCH, number, 0n) : stack
  }

  /** The hash of a send's buffer at its post. */
  hashOf(context: Context, { number, postIndex: index }: WorkRequest) {
    if (index === undefined) return undefined
    const entry = this.#read(context, this.#hash, HashLog.offset + hashSlot(number, index) * Messages.hash.size)
    const u32 = (offset: number): number | undefined => entry?.getUint32(offset, true)
    return u32(HASH.number) === number && u32(HASH.hashed) === (index + 1) >>> 0
      ? { hash: u32(HASH.hash)!, isWhole: u32(HASH.isWhole) === 1 }
      : undefined
  }

  #byId(context: Context, queue: number, number: number, id: bigint): Stack {
    const entry = this.#read(context, this.#post, PostLog.offset + postSlot(queue, number, id) * Messages.post.size)
    return entry?.getBigUint64(POST.wrId, true) === id &&
      entry.getUint32(POST.queue, true) === queue &&
      entry.getUint32(POST.number, true) === number
      ? this.#stackOf(context, entry.getUint32(POST.pid, true), entry.getUint32(POST.stack, true))
      : NO_STACK
  }

  #byPosition(context: Context, queue: number, number: number, index: number): Stack {
    const set = this.#read(context, this.#set, PositionLog.offset + positionSet(queue, number, index))
    const at = set === undefined ? -1 : findPosition(set, 0, queue, number, index)
    return set === undefined || at < 0
      ? NO_STACK
      : this.#stackOf(context, set.getUint32(at + POSITION.pid, true), set.getUint32(at + POSITION.stack, true))
  }

  /** Also of a context that is being closed. Undefined: it has no memory file. */
  #read(context: Context, { bytes, view }: ReturnType<typeof bufferOf>, offset: number): DataView | undefined {
    for (const open of this.#contexts.withMemory())
      if (open.context === context) {
        readSync(open.memory.fd, bytes, 0, bytes.length, offset)
        return view
      }
    return undefined
  }
}
