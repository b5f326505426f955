/*
 * A queue of unread events. A program that never reads its events must not exhaust memory: if LIMIT events are queued,
 * an event is dropped if one of the same source and type is queued. So a program that reads later still learns of each
 * source and type.
 */
import type { Affiliation, EventRecord } from '../model.ts'

const LIMIT = 65536

export class BoundedQueue {
  /** Oldest first. */
  readonly records: EventRecord[] = []
  /**
   * Number of queued events by type and source, because a search of a long queue for each new event would be slow.
   * Created when LIMIT events are queued, removed when fewer than half remain.
   */
  #counts: Map<number, Map<Affiliation, number>> | undefined

  /** Appends an event. False: it was dropped. */
  add(event: EventRecord): boolean {
    if (this.records.length >= LIMIT) {
      if (this.#counts === undefined) {
        this.#counts = new Map()
        for (const queued of this.records) this.#count(queued, 1)
      }
      if (this.#counts.get(event.type)?.has(event.element)) return false
    }
    this.records.push(event)
    this.#count(event, 1)
    return true
  }

  /** Puts events before the oldest one, and drops none. */
  prepend(events: readonly EventRecord[]): void {
    this.records.splice(0, 0, ...events)
    for (const event of events) this.#count(event, 1)
  }

  /** Removes and returns the oldest events, at most `limit`. */
  take(limit: number): EventRecord[] {
    const taken = this.records.splice(0, limit)
    this.#uncount(taken)
    return taken
  }

  /** Removes and returns the events of a source. */
  withdraw(element: Affiliation): EventRecord[] {
    const { records } = this
    const withdrawn: EventRecord[] = []
    let kept = 0
    for (const event of records) {
      if (event.element === element) withdrawn.push(event)
      else records[kept++] = event
    }
    records.length = kept
    this.#uncount(withdrawn)
    return withdrawn
  }

  #uncount(removed: readonly EventRecord[]): void {
    // Not already below LIMIT: else a queue whose length varies about LIMIT would be counted again and again.
    if (this.records.length < LIMIT / 2) this.#counts = undefined
    if (this.#counts !== undefined) for (const event of removed) this.#count(event, -1)
  }

  #count({ element, type }: EventRecord, delta: 1 | -1): void {
    if (this.#counts === undefined) return
    let ofType = this.#counts.get(type)
    if (ofType === undefined) {
      ofType = new Map()
      this.#counts.set(type, ofType)
    }
    const count = (ofType.get(element) ?? 0) + delta
    if (count > 0) ofType.set(element, count)
    else ofType.delete(element)
  }
}
