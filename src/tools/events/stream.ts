/*
 * The fan-out of the stream of program events: producers give it events, and it passes them to consumers in the order
 * of their ranks. An event has one time for all consumers, whole nanoseconds as in session files, so that what a
 * consumer concludes from a file is what it concluded when it happened.
 */

import { type ProbeName, type ProgramProbes, probeNames } from '../../spec/check/probes.ts'
import type { ProgramConsumer, ProgramEvent } from '../../spec/check/program-events.ts'

/** Microseconds as session files have them. */
export const eventTime = (microseconds: number): number => Math.round(microseconds * 1000) / 1000

/** The order of consumers: a recording has an event before the answers to what the checker asks about it. */
export const ConsumerRank = { RECORD: 0, CHECK: 1, TRACE: 2 } as const

/** Gets each answer of a probe, while an event is taken. */
type ProbeListener = (probe: ProbeName, args: readonly unknown[], answer: unknown) => void

type AnyProbe = (a: unknown, b: unknown, c: unknown, d: unknown, e: unknown) => unknown

export class ProgramStream {
  readonly #now: () => number
  /** NaN: nobody has asked for the time of the current event. */
  #time = Number.NaN
  #isNext = false
  readonly #listeners: ProbeListener[] = []
  readonly #consumers: { readonly rank: number; readonly consumer: ProgramConsumer }[] = []

  /** `now`: microseconds. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** The time of the current event, in microseconds. The clock is read at most once for an event. */
  get time(): number {
    if (Number.isNaN(this.#time)) this.#time = eventTime(this.#now())
    return this.#time
  }

  /** An event of requests begins. `event` and `accessed` begin theirs. */
  begin(): void {
    this.#time = Number.NaN
  }

  /** Called before the device's first sight of a request is told: gives events of before. */
  beforePosted: (() => void) | undefined

  /** A request is told for the first time, at this time. */
  at(time: number): void {
    this.beforePosted?.()
    this.#time = time
  }

  /** The time of the event that is given next, for an event that has it too. */
  next(): number {
    this.begin()
    this.#isNext = true
    return this.time
  }

  /** Passes events on to `consumer` too, until the returned function is called. `rank`: ConsumerRank. */
  add(rank: number, consumer: ProgramConsumer): () => void {
    const entry = { rank, consumer }
    this.#consumers.push(entry)
    this.#consumers.sort((a, b) => a.rank - b.rank)
    return () => {
      const at = this.#consumers.indexOf(entry)
      if (at >= 0) this.#consumers.splice(at, 1)
    }
  }

  /** Tells listeners an answer that nobody has asked for. */
  answered(probe: ProbeName, args: readonly unknown[], answer: unknown): void {
    for (const listen of this.#listeners) listen(probe, args, answer)
  }

  /** The same probes, whose answers `listen` tells. */
  probed(probes: ProgramProbes): ProgramProbes {
    const listeners = this.#listeners
    const probed: Partial<Record<ProbeName, AnyProbe>> = {}
    for (const name of probeNames) {
      const ask = probes[name] as AnyProbe | undefined
      if (ask === undefined) continue
      // Without a rest parameter: some are asked for every datagram.
      probed[name] = (a, b, c, d, e) => {
        const answer = ask(a, b, c, d, e)
        if (listeners.length > 0) for (const listen of listeners) listen(name, [a, b, c, d, e], answer)
        return answer
      }
    }
    return probed as unknown as ProgramProbes
  }

  /** Calls `listener` with the answers of `probed`, until the returned function is called. */
  listen(listener: ProbeListener): () => void {
    this.#listeners.push(listener)
    return () => {
      const at = this.#listeners.indexOf(listener)
      if (at >= 0) this.#listeners.splice(at, 1)
    }
  }

  event(event: ProgramEvent): void {
    if (!this.#isNext) this.begin()
    this.#isNext = false
    for (const { consumer } of this.#consumers) consumer.event(event)
  }

  accessed(device: number, rkey: number, hi: number, lo: number, length: number, access: number, qpn: number): void {
    this.begin()
    for (const { consumer } of this.#consumers) consumer.accessed?.(device, rkey, hi, lo, length, access, qpn)
  }
}
