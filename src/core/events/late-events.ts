/*
 * Events that a fault rule delays, gives to another thread, or lets come once more (spec/faults/program-faults.ts):
 * between core and the sink of a descriptor. Later events of the descriptor wait for a delayed one, so their order
 * stays. What is held counts as unread, and is withdrawn with its object.
 */
import type { Affiliation, EventDelays, EventRecord, EventSink, FdObject, Lateness } from '../model.ts'

interface HeldEvent {
  readonly event: EventRecord
  isDue: boolean
}

class LateSink implements EventSink {
  readonly #inner: EventSink
  #held: HeldEvent[] = []
  /** Events that come once more. */
  readonly #repeated = new Set<EventRecord>()

  constructor(inner: EventSink) {
    this.#inner = inner
  }

  post(event: EventRecord): void {
    if (this.#held.length > 0) this.#held.push({ event, isDue: true })
    else this.#inner.post(event)
  }

  async hold(event: EventRecord, wait: Promise<void>): Promise<void> {
    const held: HeldEvent = { event, isDue: false }
    this.#held.push(held)
    await wait
    this.#release(held)
  }

  /** As `hold`, after the thread that has waited longest was woken in vain. */
  async skip(event: EventRecord, wait: () => Promise<void>): Promise<void> {
    const held: HeldEvent = { event, isDue: false }
    this.#held.push(held)
    await this.#inner.prepareSkip?.()
    if (this.#held[0] === held && this.#inner.skipTurn?.(event)) this.#held.shift()
    else await wait()
    this.#release(held)
  }

  #release(held: HeldEvent): void {
    held.isDue = true
    while (this.#held[0]?.isDue) this.#inner.post(this.#held.shift()!.event)
  }

  /** True after `wait`, unless the event's object is gone. */
  async isRepeated(event: EventRecord, wait: Promise<void>): Promise<boolean> {
    this.#repeated.add(event)
    await wait
    return this.#repeated.delete(event)
  }

  prepareWithdraw(): Promise<void> | undefined {
    return this.#inner.prepareWithdraw?.()
  }

  withdraw(element: Affiliation): readonly EventRecord[] {
    for (const event of this.#repeated) if (event.element === element) this.#repeated.delete(event)
    const held = this.#held.filter(({ event }) => event.element === element)
    this.#held = this.#held.filter(({ event }) => event.element !== element)
    return [...this.#inner.withdraw(element), ...held.map(({ event }) => event)]
  }

  unread(): number {
    return this.#inner.unread() + this.#held.length
  }

  take(limit: number): readonly EventRecord[] {
    const taken = this.#inner.take(limit)
    return limit === Number.POSITIVE_INFINITY ? [...taken, ...this.#held.splice(0).map(({ event }) => event)] : taken
  }

  end(): void {
    this.#repeated.clear()
    for (const { event } of this.#held.splice(0)) this.#inner.post(event)
    this.#inner.end()
  }
}

/** `post` posts and counts the event once more. */
export const postLate = (
  fd: FdObject,
  event: EventRecord,
  { delay, again, turn }: Lateness,
  { wait }: EventDelays,
  post: () => void,
): void => {
  const mutable: { sink: EventSink } = fd
  const sink = fd.sink instanceof LateSink ? fd.sink : new LateSink(fd.sink)
  mutable.sink = sink
  if (turn > 0) void sink.skip(event, () => wait(delay + turn))
  else if (delay > 0) void sink.hold(event, wait(delay))
  else sink.post(event)
  if (again > 0)
    void sink.isRepeated(event, wait(delay + turn + again)).then(isRepeated => {
      if (isRepeated && !fd.isClosed) post()
    })
}
