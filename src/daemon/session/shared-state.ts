/*
 * A state that tools subscribe to (uapi/tool.ts, `Topics`). It is read once for all subscribers, and a change is
 * encoded once for all that have seen the same state before. Both are done in steps: there may be very many queue
 * pairs.
 */
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { patchPieces } from '../../uapi/merge-patch.ts'
import { piecesText, type RecordParts } from '../../uapi/tool.ts'

/** What a subscriber has got and waits for, as numbers of states; 0: none. */
export interface Follower {
  seen: number
  due: number
}

/** Work for which several wait: each that waits does steps of it. */
class SharedWork<T> {
  readonly #steps: Iterator<unknown, T>
  #result: (() => T) | undefined

  constructor(steps: Iterator<unknown, T>) {
    this.#steps = steps
  }

  *toEnd(): Generator<void, T> {
    while (this.#result === undefined) {
      try {
        const { done, value } = this.#steps.next()
        if (done) this.#result = () => value
      } catch (error) {
        this.#result = () => {
          throw error
        }
      }
      if (this.#result === undefined) yield
    }
    return this.#result()
  }
}

/** The record that leads to the state `to`; `parts` is undefined if nothing has changed. */
interface Encoding {
  readonly to: number
  readonly parts: RecordParts | undefined
}

export class SharedState {
  readonly #read: () => Iterator<unknown, unknown>
  readonly #maxKept: number
  readonly #followers = new Set<Follower>()
  /** The latest states, by number. */
  readonly #states = new Map<number, unknown>()
  /** The records that lead to the latest state, by the number of the state before; 0: the snapshot. */
  readonly #encodings = new Map<number, SharedWork<Encoding>>()
  #latest = 0
  /** The state that is being read. Its number is `#latest` + 1. */
  #reading: SharedWork<unknown> | undefined
  /** When the last read began. */
  #begunAt = Number.NEGATIVE_INFINITY

  /**
   * `read`: reads the state in steps. `maxKept`: maximum states that are kept for changes. A subscriber that is further
   * behind gets a new snapshot.
   */
  constructor(read: () => Iterator<unknown, unknown>, maxKept: number) {
    this.#read = read
    this.#maxKept = maxKept
  }

  /** A new subscriber, which waits for a state that is read from now on. */
  follow(): Follower {
    const follower = { seen: 0, due: 0 }
    this.#followers.add(follower)
    this.expect(follower)
    return follower
  }

  end(follower: Follower): void {
    this.#followers.delete(follower)
    if (this.#followers.size > 0) return
    this.#states.clear()
    this.#encodings.clear()
  }

  /**
   * The subscriber waits for a state whose read began at most `maxAge` microseconds ago; default: begins from now on.
   */
  expect(follower: Follower, maxAge = 0): void {
    const begun = this.#latest + (this.#reading === undefined ? 0 : 1)
    follower.due = nowMicroseconds() - this.#begunAt < maxAge ? begun : begun + 1
  }

  /**
   * The record that brings the subscriber to the state that it waits for; undefined: it has that, or nothing has
   * changed.
   */
  *next(follower: Follower): Generator<void, RecordParts | undefined> {
    if (follower.due <= follower.seen) return undefined
    while (this.#latest < follower.due) yield* this.#readOn()
    const before = this.#states.has(follower.seen) ? follower.seen : 0
    const encoding = this.#encodings.get(before) ?? new SharedWork(this.#encode(before, this.#latest))
    this.#encodings.set(before, encoding)
    const { to, parts } = yield* encoding.toEnd()
    follower.seen = to
    return parts
  }

  *#readOn(): Generator<void> {
    if (this.#reading === undefined) this.#begunAt = nowMicroseconds()
    const reading = this.#reading ?? new SharedWork(this.#read())
    this.#reading = reading
    try {
      const state = yield* reading.toEnd()
      if (this.#reading === reading) this.#add(state)
    } finally {
      if (this.#reading === reading) this.#reading = undefined
    }
  }

  #add(state: unknown): void {
    this.#states.set(++this.#latest, state)
    this.#encodings.clear()
    let oldest = this.#latest
    for (const { seen } of this.#followers) if (seen > 0 && seen < oldest) oldest = seen
    for (const number of this.#states.keys())
      if (number < oldest || number <= this.#latest - this.#maxKept) this.#states.delete(number)
  }

  *#encode(before: number, to: number): Generator<void, Encoding> {
    const texts: string[] = []
    yield* piecesText(patchPieces(this.#states.get(before), this.#states.get(to)), texts)
    return { to, parts: texts.length === 0 ? undefined : { kind: before === 0 ? 'snapshot' : 'change', texts } }
  }
}
