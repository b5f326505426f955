/*
 * Tells a program what peers are about to do with its memory (message PEERS, `peerAccess` in spec/session.ts): a
 * sanitizer in the program must know it before it happens, since from then on the program may act on it.
 *
 * The daemon waits for the program, at most LIMIT_MS; a process that is stopped it does not wait for. What a late
 * program has not taken is not told; from its MAX_LATE-th time on nothing is, nor while it has used up its time.
 */
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { addToWord, loadWord, setWord } from '../../host/memory/fence.ts'
import { waitWord, wakeWord } from '../../host/memory/futex.ts'
import { createRingPool, type Mapping, type RingPool } from '../../host/memory/mapping.ts'
import { statFieldsOf } from '../../host/process-status.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { Messages } from '../../spec/session.ts'
import type { PeerListener } from '../memory/process-space.ts'

const LIMIT_MS = 500
/** The program runs within this time, or its state is looked at. */
const SLICE_MS = 20
const MAX_LATE = 16
/** The place of the number of threads among `statFieldsOf`. */
const THREADS_FIELD = 17
/** Of the time that others may wait for the program: longer waits count, and it has a tenth of the time. */
const SHORT_MS = 2
const BUDGET_MS = 3000
const SHARE = 0.1

const AT = offsetsOf(Messages.peerAccess)
const POSTED = AT.posted >> 2
const TAKEN = AT.taken >> 2
const IS_ENDED = AT.isEnded >> 2
const MISSED = AT.missed >> 2

let pool: RingPool | undefined

export class PeerAccesses implements PeerListener {
  readonly #pid: number
  readonly #mapping: Mapping
  #posted = 0
  #late = 0
  /** Milliseconds that are left, and since when, in microseconds. */
  #left = BUDGET_MS
  #since = nowMicroseconds()

  /** `fd`: the file of process `pid`; not used afterwards. Throws as `RingPool.map`. */
  constructor(pid: number, fd: number) {
    pool ??= createRingPool()
    this.#pid = pid
    this.#mapping = pool.map(fd, 0, Messages.peerAccess.size)
  }

  /** As `AddressSpace.peerAccesses`. Returns when the program knows of the access, or is late. */
  tell(hi: number, lo: number, length: number, access: number, qpn: number): void {
    const { i32, u32 } = this.#mapping
    if (loadWord(i32, IS_ENDED) !== 0) return
    if (this.#left <= 0) this.#charge(0)
    if (this.#left <= 0 || this.#late >= MAX_LATE || loadWord(i32, TAKEN) !== this.#posted) {
      addToWord(i32, MISSED, 1)
      return
    }
    u32[AT.address >> 2] = lo
    u32[(AT.address >> 2) + 1] = hi
    u32[AT.length >> 2] = length
    u32[(AT.length >> 2) + 1] = 0
    u32[AT.access >> 2] = access
    u32[AT.qpn >> 2] = qpn
    this.#posted = (this.#posted + 1) & 0x7fff_ffff
    setWord(i32, POSTED, this.#posted)
    wakeWord(this.#mapping.address + AT.posted)
    const begin = nowMicroseconds()
    this.#wait()
    this.#charge((nowMicroseconds() - begin) / 1000)
  }

  #wait(): void {
    const { i32, address } = this.#mapping
    const deadline = nowMicroseconds() + LIMIT_MS * 1000
    for (let remaining = LIMIT_MS; ; ) {
      const taken = loadWord(i32, TAKEN)
      if (taken === this.#posted || loadWord(i32, IS_ENDED) !== 0) return
      waitWord(address + AT.taken, taken, Math.min(remaining, SLICE_MS))
      remaining = (deadline - nowMicroseconds()) / 1000
      const isLate = remaining <= 0 || (remaining < LIMIT_MS - SLICE_MS && !this.#runs())
      if (isLate && loadWord(i32, TAKEN) !== this.#posted) {
        this.#late++
        addToWord(i32, MISSED, 1)
        return
      }
    }
  }

  /** After a wait of so many milliseconds. */
  #charge(waited: number): void {
    const now = nowMicroseconds()
    const earned = ((now - this.#since) / 1000) * SHARE
    this.#left = Math.min(BUDGET_MS, this.#left + earned) - (waited > SHORT_MS ? waited : 0)
    this.#since = now
  }

  /** Whether the process is neither stopped nor has ended. Its main thread may have ended before others. */
  #runs(): boolean {
    const fields = statFieldsOf(this.#pid)
    return fields?.[0] === 'Z' ? Number(fields[THREADS_FIELD]) > 1 : !/[TtX]/.test(fields?.[0] ?? 'X')
  }

  close(): void {
    pool?.release(this.#mapping)
  }
}
