/*
 * Who has written words that compare-and-swaps of programs want to change: of each queue pair the last writes and
 * atomics are kept, by address.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { ContextEnd } from '../../spec/check/program-events.ts'
import type { Swap, WorkRequest } from '../../spec/check/requests.ts'
import type { DetectorServices } from './detector.ts'
import type { KnownObject } from './objects.ts'

/** Queue pairs whose writes are kept, the newest. */
const MAX_WRITERS = 1024
/** Kept writes of a queue pair, the latest. */
const MAX_WRITES = 8

export type SwapRequest = WorkRequest & { readonly swap: Swap; readonly remote: NonNullable<WorkRequest['remote']> }

export const isSwap = (request: WorkRequest): request is SwapRequest =>
  request.swap !== undefined && request.remote !== undefined

/** A write or an atomic: the last of its queue pair to this address, of swaps with this expected value. */
interface Write {
  request: WorkRequest
  /** Microseconds of the end. */
  time: number
  /** Where the first swap was posted. */
  readonly stack: Stack
}

interface Writer {
  readonly qp: KnownObject
  /** The latest last. */
  readonly writes: Write[]
  end: ContextEnd['how'] | undefined
}

/** Who wrote a word; undefined: it is unknown. */
export interface WordWriter {
  readonly by: Writer | undefined
  readonly write: Write | undefined
}

const isSame = (one: WorkRequest, other: WorkRequest): boolean =>
  one.remote!.address === other.remote!.address && one.swap?.expected === other.swap?.expected

export class SwapWriters {
  readonly #services: DetectorServices
  /** By the id of the queue pair. */
  readonly #writers = new Map<number, Writer>()
  /** The writer of the last request. */
  #latest: Writer | undefined

  constructor(services: DetectorServices) {
    this.#services = services
  }

  #of(owner: number): Writer | undefined {
    const known = this.#writers.get(owner)
    const qp = known ? undefined : this.#services.objects.find(owner)
    if (known !== undefined || qp === undefined) return known
    const [oldest] = this.#writers.keys()
    if (this.#writers.size === MAX_WRITERS && oldest !== undefined) {
      if (this.#writers.get(oldest) === this.#latest) this.#latest = undefined
      this.#writers.delete(oldest)
    }
    const writer: Writer = { qp, writes: [], end: undefined }
    this.#writers.set(owner, writer)
    return writer
  }

  /** A WRITE or atomic has ended: most often it is like the one before. */
  ended(request: WorkRequest): void {
    const writer = this.#latest?.qp.id === request.owner ? this.#latest : this.#of(request.owner)
    if (writer === undefined) return
    this.#latest = writer
    const { writes, qp } = writer
    const newest = writes[writes.length - 1]
    const time = this.#services.sources.now()
    if (newest !== undefined && isSame(newest.request, request)) {
      newest.request = request
      newest.time = time
      return
    }
    const at = writes.findLastIndex(one => isSame(one.request, request))
    const [known] = at < 0 ? [] : writes.splice(at, 1)
    const stack = known?.stack ?? (isSwap(request) ? this.#services.postStack(qp, request) : [])
    writes.push({ request, time, stack })
    if (writes.length > MAX_WRITES) writes.shift()
  }

  contextEnds({ context, how }: ContextEnd): void {
    for (const writer of this.#writers.values()) if (writer.qp.context === context) writer.end ??= how
  }

  /** The memory of a request at the peer: of a region of a process that is known, as its own address. */
  #placeOf({ remote }: WorkRequest, qp: KnownObject): { readonly space: string; readonly start: number } {
    const device = this.#services.peerDeviceOf(qp)
    const { rkey, address } = remote!
    const region = device === undefined ? undefined : this.#services.objects.region(device, rkey)
    if (region?.start === undefined || region.iova === undefined) return { space: `${device} ${rkey}`, start: address }
    return { space: `process ${region.program?.pid}`, start: address - region.iova + region.start }
  }

  /**
   * Who wrote the word of the swaps since `since`, of which `last` is the last and found `found`. 'taken': it is a lock
   * that others give back meanwhile, so that the swap may have an effect yet.
   */
  of(last: SwapRequest, since: number, qp: KnownObject, found: bigint): 'taken' | WordWriter {
    const word = this.#placeOf(last, qp)
    let holder: { readonly by: Writer; readonly write: Write } | undefined
    let latest: { readonly by: Writer; readonly write: Write } | undefined
    for (const by of this.#writers.values()) {
      const own = by.writes.filter(({ request }) => {
        const { space, start } = this.#placeOf(request, by.qp)
        return space === word.space && start < word.start + 8 && word.start < start + request.remote!.length
      })
      const newest = own.at(-1)
      for (const write of own) {
        const { request, time } = write
        if (time > since && (request.swap === undefined || request.swap.value === last.swap.expected)) return 'taken'
        if (request.swap === undefined)
          latest = latest === undefined || latest.write.time < time ? { by, write } : latest
        else if (request.swap.value === found && write === newest && request !== last)
          // The one that has succeeded repeats it no more.
          holder = holder === undefined || time < holder.write.time ? { by, write } : holder
      }
    }
    return holder ?? latest ?? { by: undefined, write: undefined }
  }
}
