/*
 * Hosts to which several others send at the same time, and whether what congestion causes (marks, CNPs, repeats)
 * happens then.
 */
import type { Located } from '../located.ts'
import type { Flow } from './flow.ts'

/** Nanoseconds of a slice in which the senders to one host are counted. */
const INCAST_SLICE = 1e6

/** A host to which several others sent at once. */
interface Incast {
  readonly destination: number
  /** The most senders in one slice of INCAST_SLICE, their bytes, and the time of the slice. */
  readonly senders: number
  readonly bytes: number
  readonly time: number
  /** Marks, CNPs and packets that were sent again, and those of slices with several senders. */
  readonly trouble: number
  readonly troubleOfMany: number
}

/** Senders at once from which on it is an incast. */
const INCAST_SENDERS = 3

/** Counts, for each host, how many others send to it at once. Numbers of addresses are its indices. */
export class IncastTable {
  readonly #slice: number[] = []
  readonly #senders: (Set<number> | undefined)[] = []
  readonly #bytes: number[] = []
  readonly #found = new Map<number, { -readonly [key in keyof Incast]: Incast[key] }>()

  add(flow: Flow, { length, destination, source }: Located, time: number): void {
    const slice = Math.floor(time / INCAST_SLICE)
    if (this.#slice[destination] !== slice) {
      this.#slice[destination] = slice
      this.#bytes[destination] = 0
      this.#senders[destination]?.clear()
    }
    this.#bytes[destination] += length
    if (flow.slice === slice) {
      this.#most(destination, time)
      return
    }
    flow.slice = slice
    const senders = this.#senders[destination] ?? new Set()
    this.#senders[destination] = senders
    senders.add(source)
    this.#most(destination, time)
  }

  #most(destination: number, time: number): void {
    const senders = this.#senders[destination]!.size
    if (senders < INCAST_SENDERS) return
    let found = this.#found.get(destination)
    if (found === undefined) {
      found = { destination, senders: 0, bytes: 0, time: 0, trouble: 0, troubleOfMany: 0 }
      this.#found.set(destination, found)
    }
    if (senders < found.senders) return
    if (senders > found.senders || this.#bytes[destination] > found.bytes) {
      found.senders = senders
      found.bytes = this.#bytes[destination]
      found.time = time
    }
  }

  /** Something that congestion causes happened to packets to this host. */
  trouble(destination: number): void {
    const found = this.#found.get(destination)
    if (found === undefined) return
    found.trouble++
    if (this.#senders[destination]!.size >= INCAST_SENDERS) found.troubleOfMany++
  }

  get list(): readonly Incast[] {
    return [...this.#found.values()]
  }
}
