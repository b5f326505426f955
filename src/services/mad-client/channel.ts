/*
 * The queue of a channel: received messages, and sends that timed out. For each message there is a record on the
 * channel's descriptor, which wakes the program.
 */

import type { MadAddress } from '../../core/driver-contract.ts'
import { postRecord } from '../../core/events/events.ts'
import type { Account, FdObject } from '../../core/model.ts'
import { chargeMemory, releaseMemory } from '../../core/objects/limits.ts'
import type { PeerTable } from '../../core/objects/peer-table.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { GSI_QPN, MAD_BYTES } from '../../spec/wire/mad.ts'

/** A message, or the header of a send that timed out. */
interface WaitingMessage {
  /** Handle of the agent. */
  readonly agent: number
  readonly data: Uint8Array
  /** Undefined for a send that timed out. */
  readonly from: MadAddress | undefined
  /** Only for a send that timed out: the program's tag, if it has passed one. */
  readonly tag: Uint8Array | undefined
}

interface TakenMessage {
  readonly message: WaitingMessage
  /** The message, or only its first datagram if the buffer is too small. */
  readonly data: Uint8Array
  /** False if the buffer is too small: the message stays in the queue. */
  readonly isTaken: boolean
}

/** Maximum bytes of a channel's unread messages, and maximum bytes of its unfinished sends. */
const MAX_BYTES = 8 << 20
/** Bytes charged for a message in addition to its data. */
const MESSAGE_OVERHEAD = 256

const sizeOf = ({ data }: WaitingMessage): number => data.length + MESSAGE_OVERHEAD

/** The contents mean nothing. */
const RECORD = new Uint8Array(8)

export class MadQueue {
  readonly #channel: FdObject
  readonly #table: PeerTable
  readonly #waiting: WaitingMessage[] = []
  #unreadBytes = 0
  /** Bytes of unfinished sends. */
  #sendingBytes = 0
  /** Number of agents of this channel. */
  agentCount = 0

  /** Whether the port is that of a subnet manager until the channel is closed. */
  readonly isManager: boolean

  /** `table`: of the bytes of all unread messages. */
  constructor(channel: FdObject, table: PeerTable, isManager: boolean) {
    this.isManager = isManager
    this.#channel = channel
    this.#table = table
  }

  get #account(): Account | undefined {
    return this.#channel.context.account
  }

  get unread(): number {
    return this.#waiting.length
  }

  /** Charges the bytes of a send until `endSend`. Throws CallError ENOMEM beyond MAX_BYTES or the share of memory. */
  beginSend({ length }: Uint8Array): void {
    if (this.#sendingBytes + length > MAX_BYTES)
      throw callError.ENOMEM`${the.method('mad_agent.send')}: unfinished sends have ${this.#sendingBytes} bytes, and may have ${MAX_BYTES}`
    chargeMemory(this.#account, the.method('mad_agent.send'), length)
    this.#sendingBytes += length
  }

  endSend({ length }: Uint8Array): void {
    releaseMemory(this.#account, length)
    this.#sendingBytes -= length
  }

  /** Adds a message. Drops it beyond MAX_BYTES or the share of memory, or if the channel is closed. */
  post(message: WaitingMessage): void {
    const bytes = sizeOf(message)
    if (this.#channel.isClosed || this.#unreadBytes + bytes > MAX_BYTES) return
    if (!this.#table.take({ context: this.#channel.context, qpn: GSI_QPN }, bytes)) return
    this.#unreadBytes += bytes
    this.#waiting.push(message)
    postRecord(this.#channel, RECORD)
  }

  /**
   * Takes the oldest message for a buffer of `bufferBytes` bytes. Throws CallError EAGAIN if there is none, EINVAL if
   * the buffer is too small for the first datagram.
   */
  take(bufferBytes: number): TakenMessage {
    const [message] = this.#waiting
    if (message === undefined) throw callError.EAGAIN`${the.method('mad_channel.receive')}: no message is pending`
    const { data } = message
    const firstBytes = Math.min(data.length, MAD_BYTES)
    if (bufferBytes < firstBytes)
      throw callError.EINVAL`${the.method('mad_channel.receive')}: ${the.attribute('bufferBytes')}: ${bufferBytes} bytes; the next message needs ${firstBytes} at least`
    if (bufferBytes < data.length) return { message, data: data.subarray(0, MAD_BYTES), isTaken: false }
    this.#waiting.shift()
    this.#release(sizeOf(message))
    this.#channel.sink.take(1)
    return { message, data, isTaken: true }
  }

  /** Puts a message back at the front after its delivery failed. Ignores MAX_BYTES and the share, so it cannot fail. */
  putBack(message: WaitingMessage): void {
    if (this.#channel.isClosed) return
    const bytes = sizeOf(message)
    this.#table.add(this.#account, bytes)
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
    this.#table.release(this.#account, bytes)
    this.#unreadBytes -= bytes
  }
}
