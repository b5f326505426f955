/*
 * Kinds `completion`, `event` and `spurious` of torment (spec/check/torment.ts): completions come late and in bursts, events
 * late or without a completion.
 *
 * Completions of one work queue keep their order; those of different work queues do not (IBA 10.8.3.3). A completion
 * also waits until the bytes that it shows are in memory, those of its own queue pair and of the peer (drivers/rxe/torment/pieces.ts).
 */
import { WcOpcode } from '../../../spec/work.ts'
import { Completion } from '../../../transport/types.ts'
import type { CqObject } from '../state.ts'
import type { Decisions } from './decisions.ts'

/** Completions that wait in one device at most; then all are delivered. */
const MAX_HELD = 8192
/** Bit of the opcodes of receive completions. */
const { RECV } = WcOpcode.values
export const isReceiveCompletion = (words: Uint32Array): boolean => (words[Completion.OPCODE] & RECV) !== 0

interface Held {
  readonly words: Uint32Array
  readonly solicited: boolean
  readonly due: number
  readonly slot: number
}

/** Completions of one work queue for one CQ. */
interface Lane {
  readonly cq: CqObject
  readonly queue: Held[]
}

interface LateEvent {
  readonly cq: CqObject
  readonly solicited: boolean
  readonly due: number
}

export interface LateCompletions {
  /** A completion for a CQ. */
  push(cq: CqObject, words: Uint32Array, solicited: boolean): void
  /** A completion was written to a CQ with events. */
  notify(cq: CqObject, solicited: boolean): void
  poll(now: number): boolean
  nextTimeout(): number
  deliverAll(): void
}

/** What the completions need of the device. */
export interface CompletionSink {
  readonly device: string
  readonly decisions: Decisions
  now(): number
  isCalm(): boolean
  /** When all bytes that a completion of this queue pair shows are in memory; 0: they are. */
  readyAt(qpn: number, isReceive: boolean): number
  /** Nothing that a completion shows is missing in memory when this returns. */
  placeBytes(): void
  isAlive(cq: CqObject): boolean
  /** The slot of its work queue behind those that a completion releases. */
  slotOf(qpn: number, isReceive: boolean): number
  /** Releases slots, writes a completion, and calls `notify`. */
  deliver(cq: CqObject, words: Uint32Array, solicited: boolean, slot: number): void
  /** Sends the event if the CQ is armed. */
  raise(cq: CqObject, solicited: boolean): void
}

export const createLateCompletions = (sink: CompletionSink): LateCompletions => {
  const { device, decisions } = sink
  /** By CQ number, QPN and kind of queue. */
  const lanes = new Map<string, Lane>()
  let events: LateEvent[] = []
  let held = 0
  let next = Number.POSITIVE_INFINITY

  const deliverFrom = (key: string, lane: Lane, time: number): boolean => {
    const { cq, queue } = lane
    let count = 0
    for (; count < queue.length && queue[count].due <= time; count++) {
      const { words, solicited, slot } = queue[count]
      if (sink.isAlive(cq)) sink.deliver(cq, words, solicited, slot)
    }
    queue.splice(0, count)
    held -= count
    if (queue.length === 0) lanes.delete(key)
    else next = Math.min(next, queue[0].due)
    return count > 0
  }

  const raiseDue = (time: number): boolean => {
    const due = events.filter(event => event.due <= time)
    if (due.length === 0) return false
    events = events.filter(event => event.due > time)
    for (const { cq, solicited } of due) if (sink.isAlive(cq)) sink.raise(cq, solicited)
    return true
  }

  const later = (event: LateEvent): void => {
    events.push(event)
    next = Math.min(next, event.due)
  }

  const poll = (time: number): boolean => {
    if (time < next) return false
    next = Number.POSITIVE_INFINITY
    let worked = false
    for (const [key, lane] of [...lanes]) worked = deliverFrom(key, lane, time) || worked
    worked = raiseDue(time) || worked
    for (const { due } of events) next = Math.min(next, due)
    return worked
  }
  const deliverAll = (): void => {
    sink.placeBytes()
    while (lanes.size > 0 || events.length > 0) {
      next = Number.NEGATIVE_INFINITY
      poll(Number.POSITIVE_INFINITY)
    }
  }

  return {
    push(cq, words, solicited) {
      const qpn = words[Completion.QPN]
      const isReceive = isReceiveCompletion(words)
      const number = cq.state.number
      const key = `${number} ${qpn} ${isReceive}`
      let lane = lanes.get(key)
      if (lane !== undefined && lane.cq !== cq) {
        // a destroyed CQ had this number
        deliverAll()
        lane = undefined
      }
      const before = lane?.queue.at(-1)?.due ?? 0
      let due = Math.max(before, sink.readyAt(qpn, isReceive))
      if (before === 0 && !sink.isCalm()) {
        const sequence = decisions.sequence('completion', device, 2 * qpn + +isReceive)
        if (sequence.acts()) {
          const wait = sequence.wait()
          due = Math.max(due, sink.now() + wait)
          const what = isReceive ? 'receive' : 'send'
          decisions.note(
            'completion',
            device,
            () => `${what} completions of QP 0x${qpn.toString(16)} wait for ${wait} µs`,
          )
        }
      }
      const slot = sink.slotOf(qpn, isReceive)
      if (due === 0) {
        sink.deliver(cq, words, solicited, slot)
        return
      }
      const one = { words: words.slice(), solicited, due, slot }
      if (lane === undefined) lanes.set(key, { cq, queue: [one] })
      else lane.queue.push(one)
      next = Math.min(next, due)
      if (++held > MAX_HELD) deliverAll()
    },

    notify(cq, solicited) {
      const armed = cq.events?.armed ?? 0
      const hasThreshold = cq.events?.more?.threshold !== undefined
      if (armed === 0 || (armed === 1 && !solicited) || hasThreshold || sink.isCalm()) {
        sink.raise(cq, solicited)
        return
      }
      const { number } = cq.state
      const late = decisions.sequence('event', device, number)
      const due = late.acts() ? sink.now() + late.wait() : 0
      if (due === 0) sink.raise(cq, solicited)
      else {
        later({ cq, solicited, due })
        decisions.note('event', device, () => `the event of CQ ${cq.handle} comes after ${due - sink.now()} µs`)
      }
      const extra = decisions.sequence('spurious', device, number)
      if (!extra.acts()) return
      const wait = extra.wait()
      later({ cq, solicited: true, due: Math.max(due, sink.now()) + wait })
      decisions.note('spurious', device, () => `CQ ${cq.handle} gets an event without a completion after ${wait} µs`)
    },

    poll,
    nextTimeout: () => next,
    deliverAll,
  }
}
