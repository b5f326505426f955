/*
 * The queue of a channel: received messages, and sends that timed out. Each has a record on the channel's descriptor,
 * which wakes the program and is consumed with it.
 */
import { postRecord } from '../../core/events/events.ts'
import type { FdObject, MadAddress } from '../../core/model.ts'
import { CallError } from '../../spec/errno.ts'
import { MAD_BYTES } from '../../spec/wire/mad.ts'

/** A message, or a send that timed out, which the program has not received. */
export interface WaitingMessage {
  /** Handle of the agent. */
  readonly agent: number
  readonly data: Uint8Array
  /** Undefined: `data` is the header of a send that got no response in time. */
  readonly from: MadAddress | undefined
  /** The tag that the program gave to such a send. */
  readonly tag: Uint8Array | undefined
}

/**
 * The result of `take`. If the buffer is too small for the message, `data` is the first datagram and the message stays
 * in the queue.
 */
export interface TakenMessage {
  readonly message: WaitingMessage
  readonly data: Uint8Array
  readonly isTaken: boolean
}

/** Limit of the bytes of unread messages, and separately of unfinished sends, of one channel. */
const MAX_BYTES = 8 << 20
/** Bytes charged for a message in addition to its data. */
const MESSAGE_OVERHEAD = 256

const sizeOf = ({ data }: WaitingMessage): number => data.length + MESSAGE_OVERHEAD

/** A record. Its contents mean nothing: programs receive messages, not records. */
const RECORD = new Uint8Array(8)

export class MadQueue {
  readonly #channel: FdObject
  readonly #waiting: WaitingMessage[] = []
  /** Bytes of unread messages. */
  #unreadBytes = 0
  /** Bytes of unfinished sends. */
  #sendingBytes = 0
  /** Number of agents that report to this channel. */
  agentCount = 0

  constructor(channel: FdObject) {
    this.#channel = channel
  }

  get unread(): number {
    return this.#waiting.length
  }

  /** Counts the bytes of a send until `endSend`. Throws CallError ENOMEM. */
  beginSend({ length }: Uint8Array): void {
    if (this.#sendingBytes + length > MAX_BYTES)
      throw new CallError('ENOMEM', `mad_agent.send: ${this.#sendingBytes} bytes wait for their responses`)
    this.#channel.context.account?.charge(length)
    this.#sendingBytes += length
  }

  endSend({ length }: Uint8Array): void {
    this.#channel.context.account?.release(length)
    this.#sendingBytes -= length
  }

  /** Adds a message; drops it if it exceeds MAX_BYTES or the user's memory quota, or the channel is closed. */
  post(message: WaitingMessage): void {
    const bytes = sizeOf(message)
    if (this.#channel.isClosed || this.#unreadBytes + bytes > MAX_BYTES) return
    try {
      this.#channel.context.account?.charge(bytes)
    } catch (error) {
      if (error instanceof CallError) return
      throw error
    }
    this.#unreadBytes += bytes
    this.#waiting.push(message)
    postRecord(this.#channel, RECORD)
  }

  /**
   * Returns the oldest message for a buffer of `bufferBytes` bytes. Throws CallError EAGAIN if there is none, EINVAL if
   * the buffer is too small for its first datagram.
   */
  take(bufferBytes: number): TakenMessage {
    const [message] = this.#waiting
    if (message === undefined) throw new CallError('EAGAIN', 'mad_channel.receive: no message is pending')
    const { data } = message
    const firstBytes = Math.min(data.length, MAD_BYTES)
    if (bufferBytes < firstBytes)
      throw new CallError(
        'EINVAL',
        `mad_channel.receive: attribute bufferBytes: ${bufferBytes} bytes; the next message needs ${firstBytes} at least`,
      )
    if (bufferBytes < data.length) return { message, data: data.subarray(0, MAD_BYTES), isTaken: false }
    this.#waiting.shift()
    this.#release(sizeOf(message))
    this.#channel.sink.take(1)
    return { message, data, isTaken: true }
  }

  /**
   * Puts a message back at the front after its delivery failed. It never fails: other objects may have used the
   * message's part of the quota meanwhile.
   */
  putBack(message: WaitingMessage): void {
    if (this.#channel.isClosed) return
    const bytes = sizeOf(message)
    this.#channel.context.account?.recharge(bytes)
    this.#unreadBytes += bytes
    this.#waiting.unshift(message)
    postRecord(this.#channel, RECORD)
  }

  /** Drops the unread messages. */
  clear(): void {
    this.#waiting.length = 0
    this.#release(this.#unreadBytes)
  }

  #release(bytes: number): void {
    this.#channel.context.account?.release(bytes)
    this.#unreadBytes -= bytes
  }
}
