/*
 * The call slot of a session (call-slot-layout.ts, docs/decisions/call-slot.md): a request and its answer in
 * memory that the client shares. The client may change it at any time, so each value is read once.
 */
import type { Account } from '../../core/model.ts'
import { orRelease } from '../../core/objects/limits.ts'
import { loadWord, setWord } from '../../host/memory/fence.ts'
import { createRingPool, type Mapping, type RingPool } from '../../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../../host/memory/memfd.ts'
import { close } from '../../host/net/sockets.ts'
import { CallError } from '../../spec/errno.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { Messages } from '../../spec/session.ts'
import { takeRings } from '../accounts.ts'
import { AnswerState, CallSlot as Offsets } from './call-slot-layout.ts'

const { NONE, SLOT, SOCKET } = AnswerState
const { address: ADDRESS, length: LENGTH } = offsetsOf(Messages.range)
const MESSAGE_SIZE = offsetsOf(Messages.header).size
const RANGE = Messages.range.size

/** Bytes of the program's memory. */
interface Range {
  readonly address: bigint
  readonly bytes: Uint8Array
}

const endOf = ({ address, bytes }: Range): bigint => address + BigInt(bytes.length)
const contains = (range: Range, from: bigint, to: bigint): boolean => range.address <= from && to <= endOf(range)
const overlaps = (range: Range, from: bigint, to: bigint): boolean => range.address < to && from < endOf(range)

/** Separate, because `userdma stat` shows the counts of the contexts' pool. */
let pool: RingPool | undefined

/** What a slot needs of its program. */
interface SlotProgram {
  /** Writes to the process itself. Throws CallError EFAULT. */
  write(address: bigint, bytes: Uint8Array): void
  /** The client has asked again, and has not taken the answer before. No request is taken from then on. */
  leftAnswer(): void
}

export class CallSlot {
  /** The memory file, for the client. `fileSent` closes it. */
  readonly fd: number
  readonly #mapping: Mapping
  readonly #release: () => void
  readonly #program: SlotProgram
  /** The serial of the last request. */
  #taken = 0
  #isCalled = false
  #isClosed = false
  #isPolled = false
  #hasLeftAnswer = false
  /** Copies of what the request's pointers name. */
  #inputs: Range[] = []
  /** What the answer brings, which the process's memory does not have yet. */
  #outputs: Range[] = []
  #outputBytes = 0
  #stackLow = 0n
  #stackHigh = 0n

  /** Charges `account` for the mapping. Throws CallError ENOMEM, SystemError. */
  constructor(account: Account, program: SlotProgram) {
    this.#program = program
    this.#release = takeRings(account, Offsets.bytes)
    this.fd = orRelease(this.#release, () => createMemfd('userdma-calls', Offsets.bytes))
    this.#mapping = orRelease(
      () => {
        this.#release()
        close(this.fd)
      },
      () => {
        addSeals(this.fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
        pool ??= createRingPool()
        return pool.map(this.fd, 0, Offsets.bytes)
      },
    )
  }

  fileSent(): void {
    close(this.fd)
  }

  /** Whether a request of the slot waits for its answer. */
  get isCalled(): boolean {
    return this.#isCalled
  }

  /** Whether the client relies on the daemon to look at the slot. */
  get isPolled(): boolean {
    return this.#isPolled
  }

  /** After `polls(false)`, `isAsked` must be asked again: the client may have seen the old value. */
  polls(isPolled: boolean): void {
    if (isPolled === this.#isPolled || this.#isClosed) return
    this.#isPolled = isPolled
    setWord(this.#mapping.i32, Offsets.polled >> 2, isPolled ? 1 : 0)
  }

  /** Whether there is a request to take. */
  get isAsked(): boolean {
    return (
      !this.#isClosed &&
      !this.#isCalled &&
      !this.#hasLeftAnswer &&
      loadWord(this.#mapping.i32, Offsets.asked >> 2) !== this.#taken
    )
  }

  /**
   * Copies the next request into `message`. Returns its length as the client says, at most that of a slot; −1: none.
   */
  take(message: Uint8Array): number {
    if (!this.isAsked) return -1
    const { i32, view, bytes } = this.#mapping
    // The client sets NONE, then asks.
    const answer = loadWord(i32, Offsets.answer >> 2)
    if (answer === SLOT || answer === SOCKET) {
      this.#onLeftAnswer()
      return -1
    }
    this.#taken = loadWord(i32, Offsets.asked >> 2)
    this.#isCalled = true
    const length = Math.min(view.getUint32(Offsets.request + MESSAGE_SIZE, true), Offsets.requestBytes)
    message.set(bytes.subarray(Offsets.request, Offsets.request + length))
    this.#stackLow = view.getBigUint64(Offsets.stackLow, true)
    this.#stackHigh = view.getBigUint64(Offsets.stackHigh, true)
    this.#takeInputs()
    return length
  }

  #takeInputs(): void {
    const { view, bytes } = this.#mapping
    const count = Math.min(view.getUint32(Offsets.rangeCount, true), Offsets.maxRanges)
    let from = Offsets.input
    for (let i = 0; i < count; i++) {
      const at = Offsets.ranges + i * RANGE
      const length = Number(view.getBigUint64(at + LENGTH, true))
      if (length > Offsets.input + Offsets.inputBytes - from) return
      this.#inputs.push({
        address: view.getBigUint64(at + ADDRESS, true),
        bytes: bytes.slice(from, from + length),
      })
      from += length
    }
  }

  /** Memory of the process during the call; undefined: it is not in the slot. */
  copyIn(address: bigint, length: number): Uint8Array | undefined {
    const end = address + BigInt(length)
    const isWritten = this.#outputs.some(output => overlaps(output, address, end))
    if (isWritten) this.#flush()
    else
      for (const input of this.#inputs)
        if (contains(input, address, end)) {
          const from = Number(address - input.address)
          return input.bytes.slice(from, from + length)
        }
    return undefined
  }

  /** Keeps what the call writes for the answer; false: it must be written to the process. */
  copyOut(address: bigint, bytes: Uint8Array): boolean {
    const end = address + BigInt(bytes.length)
    if (!this.#isCalled || address < this.#stackLow || end > this.#stackHigh) return false
    if (this.#outputs.length === Offsets.maxRanges || this.#outputBytes + bytes.length > Offsets.outputBytes) {
      // In their order: a later write may be to the same address.
      this.#flush()
      return false
    }
    this.#outputs.push({ address, bytes: bytes.slice() })
    this.#outputBytes += bytes.length
    return true
  }

  /** Whether the client has asked again before the answer. */
  get #hasAskedAgain(): boolean {
    return loadWord(this.#mapping.i32, Offsets.asked >> 2) !== this.#taken
  }

  #onLeftAnswer(): void {
    if (this.#hasLeftAnswer) return
    this.#hasLeftAnswer = true
    this.#program.leftAnswer()
  }

  /** Writes the answer; false: it must go over the socket, after `beforeSocket`. */
  answer(message: Uint8Array): boolean {
    if (this.#hasAskedAgain) this.#onLeftAnswer()
    if (message.length > Offsets.replyBytes) return false
    const { i32, bytes } = this.#mapping
    bytes.set(message, Offsets.reply)
    this.#putOutputs()
    const isSeen = Atomics.compareExchange(i32, Offsets.answer >> 2, NONE, SLOT) === NONE
    if (isSeen) this.#end()
    return isSeen
  }

  #putOutputs(): void {
    const { u32, view, bytes } = this.#mapping
    u32[Offsets.outputCount >> 2] = this.#outputs.length
    let to: number = Offsets.output
    for (const [i, output] of this.#outputs.entries()) {
      const at = Offsets.outputs + i * RANGE
      view.setBigUint64(at + ADDRESS, output.address, true)
      view.setBigUint64(at + LENGTH, BigInt(output.bytes.length), true)
      bytes.set(output.bytes, to)
      to += output.bytes.length
    }
  }

  /**
   * Before an answer by the socket. The client takes the output from the slot: it may have left a late call. After the
   * answer it may ask again at once.
   */
  beforeSocket(): void {
    if (!this.#isCalled) return
    if (this.#hasAskedAgain) this.#onLeftAnswer()
    this.#putOutputs()
    this.#end()
    Atomics.compareExchange(this.#mapping.i32, Offsets.answer >> 2, NONE, SOCKET)
  }

  close(): void {
    if (this.#isClosed) return
    this.polls(false)
    this.#isClosed = true
    this.#end()
    pool?.release(this.#mapping)
    this.#release()
  }

  #end(): void {
    this.#isCalled = false
    this.#inputs = []
    this.#outputs = []
    this.#outputBytes = 0
  }

  #flush(): void {
    const outputs = this.#outputs
    this.#outputs = []
    this.#outputBytes = 0
    for (const { address, bytes } of outputs)
      try {
        this.#program.write(address, bytes)
      } catch (error) {
        // The client has said that this is its stack.
        if (!(error instanceof CallError)) throw error
      }
    // What was copied before may be stale.
    if (outputs.length > 0)
      this.#inputs = this.#inputs.filter(input => !outputs.some(o => overlaps(o, input.address, endOf(input))))
  }
}
