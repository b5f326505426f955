/*
 * Kinds `completion`, `event` and `spurious` of torment (spec/check/torment.ts): completions come late and in bursts,
 * completion events come late or without a completion.
 *
 * Completions of one work queue keep their order; completions of different work queues need not (IBA 10.8.3.3). A
 * receive completion also waits until the payloads for its queue pair are in memory (partial-writes.ts), a send
 * completion until the payloads for its queue pair and for the peer are in memory.
 */
import type { CoreObject } from '../../../core/model.ts'
import { WcOpcode } from '../../../spec/work.ts'
import { Completion } from '../../../transport/engine/types.ts'
import type { Decisions, HoldEnd } from '../../../transport/phy/faults/torment-decisions.ts'
import { NO_PROCESS, type ObjectNames, type TormentedObject } from './objects.ts'

/** Kind `skew`: times the longest wait of the seed, microseconds at most, and when it has shrunk to a half. */
const MOST_SKEW = 10
const LONGEST_SKEW = 50_000
const COMPLETIONS_UNTIL_HALF = 50
/** A program that polls does not wake the device: microseconds between two looks for an awaited poll. */
const LOOK_INTERVAL = 50

/** The longest time for which completions are held for those of other queues, microseconds: half of timeout 14. */
const LONGEST_HOLD = 33_554
/** Maximum number of held completions of a device; with one more, all are delivered. */
const MAX_HELD = 8192
/** The opcodes of all receive completions, and no others, have this bit. */
const { RECV } = WcOpcode.values
export const isReceiveCompletion = (words: Uint32Array): boolean => (words[Completion.OPCODE] & RECV) !== 0

/** What is known here of a completion queue. */
type AnyCq = CoreObject<{ readonly number: number }>

interface HeldCompletion {
  readonly write: () => void
  /** When it is written, if no earlier one of its queue waits longer: clock of `poll`, microseconds. */
  due: number
  end: HoldEnd | undefined
}

/** The held completions of one work queue for one CQ, in order. */
interface WorkQueueCompletions<Cq> {
  readonly cq: Cq
  readonly held: HeldCompletion[]
  /** The latest time at which one of `held` is due. */
  latest: number
}

/** A completion event that comes late, or without a completion. */
interface LateEvent<Cq> {
  readonly cq: Cq
  readonly solicited: boolean
  /** When it is raised: clock of `poll`, microseconds. */
  due: number
  /** Absent: it comes without a completion. */
  end?: HoldEnd
}

/** A completion until whose poll something is held. */
interface AwaitedPoll<Cq> {
  readonly cq: Cq
  /** How many completions of the CQ are polled when it is. */
  readonly polled: number
  /** As in `TormentHold.until`. */
  readonly event: string
}

export interface LateCompletions<Cq> {
  /**
   * The engine has a completion of a work queue for a CQ: calls `write`, now or later. `readyAt`: when all bytes that
   * it announces are in memory; 0: now.
   */
  push(cq: Cq, qpn: number, isReceive: boolean, readyAt: number, write: () => void): void
  /** A completion was written to a CQ: if the CQ is armed for it, raises the completion event now or later. */
  notify(cq: Cq, solicited: boolean): void
  /** Writes due completions and raises due events; true if there were any. */
  poll(now: number): boolean
  nextTimeout(): number
  /** Writes all held completions and raises all held events. */
  deliverAll(): void
}

/** What late completions use of the device. */
export interface CompletionSink<Cq> {
  /** The device's name. */
  readonly device: string
  readonly decisions: Decisions
  readonly names: ObjectNames
  objectOf(qpn: number): TormentedObject
  now(): number
  /** Whether nothing may be delayed now (`CallTorment.withoutDelays`). */
  isSuspended(): boolean
  /** Writes all waiting payload bytes, on all devices of the network (partial-writes.ts). */
  writeAllBytes(): void
  exists(cq: Cq): boolean
  /** Whether each completion of this kind raises an event now. */
  isArmed(cq: Cq, solicited: boolean): boolean
  /** Sends the event if the CQ is armed. */
  raise(cq: Cq, solicited: boolean): void
  /** How many completions of a CQ were written, and polled by the program, since its creation. */
  counts(cq: Cq): { readonly written: number; readonly polled: number }
}

/** The devices with late completions, by their network's decisions. */
const skewed = new WeakMap<Decisions, string[]>()

/** Kind `skew`: how late the next completion of a device is, microseconds. It shrinks, so that programs end. */
const createSkew = (decisions: Decisions, device: string): (() => number) => {
  const devices = skewed.get(decisions) ?? []
  skewed.set(decisions, devices)
  const isSkewed = devices.push(device) % 2 === 1
  let skew: number | undefined
  let count = 0
  return () => {
    if (!isSkewed || !decisions.mayAct('skew')) return 0
    if (skew === undefined) {
      const decision = decisions.decide('skew', `${device}/${NO_PROCESS}/device`, 'completions', '', { isAlways: true })
      const longest = decision === undefined ? 0 : Math.min(MOST_SKEW * decision.wait(), LONGEST_SKEW)
      decision?.note(() => `all completions come ${longest} µs late`, true)
      skew = longest
    }
    return skew / (1 + count++ / COMPLETIONS_UNTIL_HALF)
  }
}

export const createLateCompletions = <Cq extends AnyCq>(sink: CompletionSink<Cq>): LateCompletions<Cq> => {
  const { device, decisions, names, objectOf } = sink
  /** By CQ number, QPN and send or receive queue. */
  const queues = new Map<string, WorkQueueCompletions<Cq>>()
  let events: LateEvent<Cq>[] = []
  let awaited: AwaitedPoll<Cq>[] = []
  /** Number of held completions. */
  let heldCount = 0
  const lateness = createSkew(decisions, device)
  let nextDue = Number.POSITIVE_INFINITY
  /** Everything held goes on before its time. */
  let isEarly = false

  const deliverDue = (key: string, queue: WorkQueueCompletions<Cq>, time: number): boolean => {
    const { cq, held } = queue
    let count = 0
    for (; count < held.length && held[count].due <= time; count++) {
      if (sink.exists(cq)) held[count].write()
      held[count].end?.(sink.now(), isEarly)
    }
    held.splice(0, count)
    heldCount -= count
    if (held.length === 0) queues.delete(key)
    else nextDue = Math.min(nextDue, held[0].due)
    return count > 0
  }

  const raiseDue = (time: number): boolean => {
    const due = events.filter(event => event.due <= time)
    if (due.length === 0) return false
    events = events.filter(event => event.due > time)
    for (const { cq, solicited, end } of due) {
      if (sink.exists(cq)) sink.raise(cq, solicited)
      end?.(sink.now(), isEarly)
    }
    return true
  }

  const raiseLater = (event: LateEvent<Cq>): void => {
    events.push(event)
    nextDue = Math.min(nextDue, event.due)
  }

  /** Tells which awaited completions are polled. */
  const lookForPolls = (): void => {
    if (awaited.length === 0) return
    const isPolled = ({ cq, polled }: AwaitedPoll<Cq>): boolean => !sink.exists(cq) || sink.counts(cq).polled >= polled
    const polls = awaited.filter(isPolled)
    awaited = awaited.filter(one => !polls.includes(one))
    for (const { event } of polls) decisions.occurred(event)
  }

  const poll = (time: number): boolean => {
    lookForPolls()
    if (time < nextDue) return false
    nextDue = Number.POSITIVE_INFINITY
    let worked = false
    for (const [key, queue] of [...queues]) worked = deliverDue(key, queue, time) || worked
    worked = raiseDue(time) || worked
    for (const { due } of events) nextDue = Math.min(nextDue, due)
    return worked
  }
  const deliverAll = (): void => {
    sink.writeAllBytes()
    isEarly = true
    while (queues.size > 0 || events.length > 0) poll(Number.POSITIVE_INFINITY)
    isEarly = false
  }

  return {
    push(cq, qpn, isReceive, readyAt, write) {
      const number = cq.state.number
      const key = `${number} ${qpn} ${isReceive}`
      let queue = queues.get(key)
      if (queue !== undefined && queue.cq !== cq) {
        // a destroyed CQ had this number
        deliverAll()
        queue = undefined
      }
      const completion: HeldCompletion = { write: writeNow, due: readyAt, end: undefined }
      /** When it is written without a wait of its own. */
      const previousDue = Math.max(readyAt, queue?.latest ?? 0)
      const isSuspended = sink.isSuspended()
      const skew = isSuspended ? 0 : lateness()
      if (skew > 0) completion.due = Math.max(readyAt, sink.now() + skew)
      const object = objectOf(qpn)
      const thing = isReceive ? 'receive' : 'send'
      const nth = object.next(thing)
      const decision = isSuspended ? undefined : decisions.decide('completion', object.name, thing, nth)
      if (decision !== undefined) {
        const now = sink.now()
        const wait = decision.isBounded ? Math.min(decision.wait(), LONGEST_HOLD) : decision.wait()
        // of a queue whose completions wait longer already, this one waits with them
        if (now + wait > Math.max(previousDue, completion.due)) {
          const dueWithout = completion.due
          completion.due = now + wait
          decision.note(
            () => `completion ${nth} of the ${thing} queue of QP 0x${qpn.toString(16)} waits for ${wait} µs`,
          )
          completion.end = decision.hold(now, () => {
            completion.due = dueWithout
            nextDue = 0
          })
        }
      }
      function writeNow(): void {
        write()
        decisions.passed(object.name, thing, nth)
        const event = `${object.name}/${thing}${nth}`
        if (decisions.isAwaited(event)) awaited.push({ cq, polled: sink.counts(cq).written, event })
      }
      if (completion.due === 0 && queue === undefined) {
        writeNow()
        return
      }
      if (queue === undefined) {
        queues.set(key, { cq, held: [completion], latest: completion.due })
        nextDue = Math.min(nextDue, completion.due)
      } else {
        queue.held.push(completion)
        queue.latest = Math.max(queue.latest, completion.due)
      }
      if (++heldCount > MAX_HELD) deliverAll()
    },

    notify(cq, solicited) {
      if (!sink.isArmed(cq, solicited) || sink.isSuspended()) {
        sink.raise(cq, solicited)
        return
      }
      // The event is on its way.
      if (events.some(event => event.cq === cq && event.end !== undefined)) return
      const object = names.of(device, cq, 'cq')
      const nth = object.next('event')
      const time = sink.now()
      const late = decisions.decide('event', object.name, 'event', nth)
      const delay = late?.wait() ?? 0
      if (late === undefined) sink.raise(cq, solicited)
      else {
        late.note(() => `event ${nth} of CQ ${cq.handle} comes after ${delay} µs`)
        const event: LateEvent<Cq> = { cq, solicited, due: time + delay }
        event.end = late.hold(time, () => {
          event.due = sink.now()
          nextDue = event.due
        })
        raiseLater(event)
      }
      const extra = decisions.decide('spurious', object.name, 'event', nth)
      if (extra === undefined) return
      // the first event disarms the CQ, so the program gets this one only if it arms the CQ again
      const extraDelay = delay + extra.wait()
      raiseLater({ cq, solicited: true, due: time + extraDelay })
      extra.note(() => `CQ ${cq.handle} gets an event without a completion after ${extraDelay} µs, if it is armed then`)
    },

    poll,
    nextTimeout: () => (awaited.length === 0 ? nextDue : Math.min(nextDue, sink.now() + LOOK_INTERVAL)),
    deliverAll,
  }
}
