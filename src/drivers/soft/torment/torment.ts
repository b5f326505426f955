/*
 * `--torment SEED`: the devices of a network do what hardware may do but rarely does (spec/check/torment.ts,
 * docs/decisions/torment.md). The engine's environment is wrapped when a device is created.
 *
 * Calls and events have the same effects as without torment. So all delays end (`endDelays`) before a call that
 * modifies or destroys an object, before a call whose result depends on earlier posts (`withoutDelays`), and when a
 * device is removed. Delays of completions end before the engine raises an asynchronous event.
 */

import { wrapper } from '../../../base/wrapper.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { armedFor, completed } from '../../../core/events/events.ts'
import { Armed, type CoreObject, type Device } from '../../../core/model.ts'
import { MAX_HOLD, type TormentSetting } from '../../../spec/check/torment.ts'
import { ackTimeoutMicroseconds } from '../../../spec/work.ts'
import {
  Completion,
  type Completions,
  type Environment,
  type Events,
  type Memory,
  type WorkSource,
} from '../../../transport/engine/types.ts'
import {
  createDecisions,
  type Decisions,
  type HoldEnd,
  type SendCounts,
} from '../../../transport/phy/faults/torment-decisions.ts'
import { type TormentedPort, withPacketTorment } from '../../../transport/phy/faults/torment-packets.ts'
import type { Port } from '../../../transport/phy/port.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { QueueLimits } from '../attributes.ts'
import { polledCompletions } from '../completion-queue.ts'
import type { Notify, ProgramWords } from '../completions.ts'
import type { QpQueues } from '../queues.ts'
import type { CallTorment, CqObject, SoftState } from '../state.ts'
import { type CompletionSink, createLateCompletions, isReceiveCompletion, type LateCompletions } from './completions.ts'
import { connectedOf, createLateSites } from './late.ts'
import { decideLimits } from './limits.ts'
import { decideKeys, decideNumbers, decideReuse } from './numbers.ts'
import { createObjectNames, type TormentedObject } from './objects.ts'
import { createPartialWrites, type PartialWrites } from './partial-writes.ts'
import { createExactQueues, releaseSlot, slotOf } from './queues.ts'
import { createResponder } from './responder.ts'
import { withUndefinedFields } from './undefined-fields.ts'

/** Torment of all devices of a network. */
export interface Torment {
  readonly decisions: Decisions
  /** See `ObjectNames`. */
  readonly nameOf: (id: number) => string | undefined
  /** Wraps the port of a new device, before the device is created. */
  port(port: Port, device: string): Port
  /** The random numbers of a new device, from which its first keys and QPNs come; undefined: its own. */
  random(): (() => number) | undefined
  /** Whether a new device gives out numbers and keys again at once. */
  reuses(device: string): boolean
  /** The limits of a new device, at most `own`. */
  limits(device: string, own: QueueLimits): QueueLimits
  /**
   * Torment of a new device. `memory`: its `Memory`. `createCompletions`: creates its `Completions`, which call
   * `notify` for each completion that is written to a CQ, and write what `programWords` returns.
   */
  attach(
    device: Device<SoftState>,
    memory: Memory,
    createCompletions: (notify: Notify, programWords: ProgramWords) => Completions,
  ): DeviceTorment
  /** Torment of a new device with an engine of its own. `port`: its port; `memory`: its `Memory`. */
  attachEngine<Cq extends AnyCq>(
    device: Device,
    port: Port,
    memory: Memory,
    engine: TormentedEngine<Cq>,
  ): EngineTorment<Cq>
}

/** The delays of one device in time. */
interface DelaysInTime {
  /** Executes what is due on all devices of the network; true if anything was. `now` in microseconds. */
  poll(now: number): boolean
  /** When `poll` must be called for this device, microseconds; Infinity for never. */
  nextTimeout(): number
  /** Ends all delays: the device is removed. */
  close(): void
}

/** Torment of one device. */
export interface DeviceTorment extends CallTorment, DelaysInTime {
  /** Wraps the engine's environment. */
  environment(plain: Environment): Environment
}

/** What torment uses of a device with an engine of its own. */
interface TormentedEngine<Cq> extends Pick<CompletionSink<Cq>, 'now' | 'exists' | 'isArmed' | 'raise' | 'counts'> {
  /** The queue pair with a number. */
  qp(qpn: number): CoreObject | undefined
  /** Executes the posted sends of a queue pair. */
  ring(qpn: number): void
  /** Sends all acknowledgements that it holds. Called while `isSuspended`. */
  releaseAcknowledgements(): void
  /** When a held acknowledgement is due, microseconds; Infinity: none is held. */
  nextAcknowledgement(): number
  qpns(): Iterable<number>
  /** Number of sends that are posted to a queue pair, and not executed. */
  pendingSends(qpn: number): number
}

/** Torment of a device with an engine of its own. */
export interface EngineTorment<Cq> extends DelaysInTime {
  readonly decisions: Decisions
  /** Whether nothing may be delayed now. */
  isSuspended(): boolean
  /** The device's memory, which bytes reach late. */
  readonly memory: Memory
  /** When the bytes that were written for this queue pair of this device, or of any, are in memory; 0: now. */
  readyAt(qpn: number): number
  readyAtAllDevices(qpn: number): number
  readonly completions: Pick<LateCompletions<Cq>, 'push' | 'notify'>
  objectOf(qpn: number): TormentedObject
  /** Whether a posted send waits, counted from 0 since RESET: `TormentedEngine.ring` follows. */
  holdsPost(qpn: number, index: number): boolean
  /** The oldest send of a queue pair is done. */
  retired(qpn: number): void
}

/** The fault layer and the delays of one device. */
interface DeviceParts {
  /** Undefined: the seed uses neither kind `packet` nor `late`. */
  readonly packets: TormentedPort | undefined
  readonly writes: PartialWrites
  readonly completions: Pick<LateCompletions<never>, 'poll' | 'nextTimeout' | 'deliverAll'>
  readonly responder: { poll(now: number): boolean; nextTimeout(): number; releaseAll(): void }
  readonly posts: LatePosts
}

type AnyCq = CoreObject<{ readonly number: number }>

/** Methods before which all delays end. */
const CHANGES = ['modify', 'destroy']

/** Queue pairs by row: whatever number the engine knows them by. */
interface PostSink {
  now(): number
  mayHold(): boolean
  /** The queue pair; undefined: it is destroyed. */
  qp(row: number): CoreObject | undefined
  objectOf(row: number): TormentedObject
  qpnOf(row: number): number
  /** The engine gets the doorbell. */
  ring(row: number): void
  rows(): Iterable<number>
  /** Number of sends that are posted and not retired. */
  pending(row: number): number
  /** How long a post may be held for what other queue pairs do, microseconds. */
  longestHold(row: number): number
}

interface LatePosts {
  poll(now: number): boolean
  nextTimeout(): number
  releaseAll(): void
  /** Whether post number `index` of a row, counted from 0 since RESET, waits. */
  holds(row: number, index: number): boolean
  /** The oldest sends of a row are done. */
  retired(row: number, count: number): void
  /** Of the queue pair DEVICE/PROCESS/OBJECT; undefined: it is not of this device. */
  sends(object: string): SendCounts | undefined
}

/** The post of a queue pair that was looked at last. */
interface LastPost {
  readonly qp: CoreObject | undefined
  readonly index: number
  /** When it starts; 0: it has started. */
  due: number
  readonly end: HoldEnd | undefined
}

/** Kind `request` of torment (spec/check/torment.ts): the engine finds some posts of a device late. */
const createLatePosts = (decisions: Decisions, sink: PostSink): LatePosts => {
  /** By row of the engine. */
  const last = new Map<number, LastPost>()
  /** Sends that are done since RESET, by row. */
  const done = new Map<number, { readonly qp: CoreObject | undefined; count: number }>()
  const doneOf = (row: number): number => {
    const counted = done.get(row)
    return counted?.qp === sink.qp(row) ? (counted?.count ?? 0) : 0
  }
  const held = new Set<number>()
  let nextDue = Number.POSITIVE_INFINITY

  const start = (row: number, post: LastPost, isEarly: boolean): void => {
    held.delete(row)
    post.due = 0
    post.end?.(sink.now(), isEarly)
  }
  const poll = (now: number, isEarly = false): boolean => {
    if (now < nextDue) return false
    nextDue = Number.POSITIVE_INFINITY
    let worked = false
    for (const row of [...held]) {
      const post = last.get(row)!
      if (post.due > now) {
        nextDue = Math.min(nextDue, post.due)
        continue
      }
      start(row, post, isEarly)
      worked = true
      if (sink.qp(row) === post.qp) sink.ring(row)
    }
    return worked
  }
  return {
    poll,
    nextTimeout: () => nextDue,
    releaseAll: () => {
      poll(Number.POSITIVE_INFINITY, true)
    },
    holds(row, index) {
      const mayHold = sink.mayHold()
      const qp = sink.qp(row)
      if (index === 0) done.delete(row)
      const before = last.get(row)
      if (before?.qp === qp && before?.index === index) {
        if (before.due === 0) return false
        if (mayHold) return true
        // a post may be held since before the first window was created
        start(row, before, true)
        return false
      }
      if (before !== undefined && held.has(row)) start(row, before, true)
      const decision = mayHold
        ? decisions.decide('request', sink.objectOf(row).name, 'post', index + 1, { round: index })
        : undefined
      if (decision === undefined) {
        last.set(row, { qp, index, due: 0, end: undefined })
        return false
      }
      const wait = decision.isBounded ? Math.min(decision.wait(), sink.longestHold(row)) : decision.wait()
      const now = sink.now()
      decision.note(() => `request ${index + 1} of QP 0x${sink.qpnOf(row).toString(16)} starts after ${wait} µs`)
      const post: LastPost = {
        ...{ qp, index, due: now + wait },
        end: decision.hold(now, () => {
          post.due = sink.now()
          nextDue = post.due
        }),
      }
      last.set(row, post)
      held.add(row)
      nextDue = Math.min(nextDue, now + wait)
      return true
    },
    retired(row, count) {
      done.set(row, { qp: sink.qp(row), count: doneOf(row) + count })
      decisions.retired(sink.objectOf(row).name)
    },
    sends(object) {
      for (const row of sink.rows())
        if (sink.qp(row) !== undefined && sink.objectOf(row).name === object)
          return { done: doneOf(row), pending: sink.pending(row) }
      return undefined
    },
  }
}

export const TORMENT_SCRATCH_BYTES = 0x1_0000

/** `scratch`: TORMENT_SCRATCH_BYTES of memory, which native code can read if the process has native code. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: wrappers share decisions and devices
export const createTorment = (setting: TormentSetting, scratch: Arena): Torment => {
  const devices = new Set<DeviceParts>()
  const decisions = createDecisions(setting, object => {
    for (const { posts } of devices) {
      const sends = posts.sends(object)
      if (sends !== undefined) return sends
    }
    return undefined
  })
  const names = createObjectNames()
  const exactQueues = createExactQueues(decisions)
  const sites = createLateSites()
  /** The fault layers among the ports that `port` has returned. */
  const layers = new WeakMap<Port, TormentedPort>()
  let hasEndedPackets = false
  /** Depth of nested calls during which nothing is delayed. */
  let suspensions = 0
  const isSuspended = (): boolean => suspensions > 0
  const suspended = <T>(run: () => T): T => {
    suspensions++
    try {
      return run()
    } finally {
      suspensions--
    }
  }

  /** After the last of `maxDecisions` decisions: the fault layers pass all packets. A later device gets no layer. */
  const endPackets = (): void => {
    hasEndedPackets = true
    for (const { packets } of devices) packets?.port.setFaults([])
  }

  const pollAll = (now: number): boolean => {
    let worked = false
    if (decisions.isOver && !hasEndedPackets) endPackets()
    // bytes first: completions announce them
    for (const { writes } of devices) worked = writes.poll(now) || worked
    for (const { completions } of devices) worked = completions.poll(now) || worked
    for (const { posts, responder } of devices) {
      worked = responder.poll(now) || worked
      worked = posts.poll(now) || worked
    }
    return worked
  }
  const writeAllBytes = (): void => {
    for (const { writes } of devices) writes.writeAll()
  }
  const endDelays = (): void =>
    suspended(() => {
      for (const { posts, responder } of devices) {
        posts.releaseAll()
        responder.releaseAll()
      }
      writeAllBytes()
      for (const { completions } of devices) completions.deliverAll()
    })
  /**
   * The time at which all bytes for queue pairs with this QPN are in memory: the latest of all devices, since the
   * peer's device is not known.
   */
  const readyAtAllDevices = (qpn: number): number => {
    let latest = 0
    for (const { writes } of devices) latest = Math.max(latest, writes.readyAt(qpn))
    return latest
  }

  /** The delays of a device are among those of its network. */
  const join = (device: Device, parts: DeviceParts): DelaysInTime => {
    const { writes, completions, responder, posts } = parts
    devices.add(parts)
    const removeNames = addHook(device, names.hook(device.name))
    if (decisions.mayAct('keys'))
      device.memory.separatesKeys = region =>
        decideKeys(decisions, names.of(device.name, region as CoreObject, 'region').name)
    const removeHook = addHook(device, {
      pre({ entry }, object, args) {
        if (!CHANGES.includes(entry.name)) return
        endDelays()
        sites.calling(device.name, entry, object, args)
      },
    })
    return {
      poll: pollAll,
      nextTimeout: () =>
        Math.min(writes.nextTimeout(), completions.nextTimeout(), responder.nextTimeout(), posts.nextTimeout()),
      close() {
        endDelays()
        devices.delete(parts)
        sites.remove(device.name)
        removeHook()
        removeNames()
      },
    }
  }

  return {
    decisions,
    nameOf: names.nameOf,
    port(port, device) {
      const layer = withPacketTorment(port, device, decisions, sites.site(device))
      if (layer === undefined) return port
      layers.set(layer.port, layer)
      return layer.port
    },
    random: () => decideNumbers(decisions),
    reuses: device => decideReuse(decisions, device),
    limits: (device, own) => decideLimits(decisions, device, own),
    attach(device, memory, createCompletions) {
      const { state, name } = device
      const objectAt = (row: number): TormentedObject => names.of(name, state.qps[row], 'qp')
      const objectOf = (qpn: number): TormentedObject => objectAt(state.qpns.rowOf(qpn))
      const packets = layers.get(state.port)
      sites.add(
        name,
        { memory: device.memory, now: state.now, objectOf, connected: connectedOf(state), hasSenders: () => false },
        packets?.late,
      )
      const queuesOf = (qpn: number): QpQueues | undefined => state.queues[state.qpns.rowOf(qpn)]
      const { now } = state
      const writes = createPartialWrites(memory, device.memory, scratch, objectOf, decisions, now, isSuspended)
      const plain = createCompletions(
        (_events, solicited, cq) => completions.notify(cq, solicited),
        withUndefinedFields(objectOf, decisions),
      )
      /** When all bytes that a completion of this queue pair announces are in memory; 0: now. */
      const readyAt = (qpn: number, isReceive: boolean): number => {
        const hasPartialWrites = [...devices].some(other => other.writes.nextTimeout() < Number.POSITIVE_INFINITY)
        if (!hasPartialWrites) return 0
        const ready = writes.readyAt(qpn)
        const row = state.qpns.rowOf(qpn)
        if (isReceive || row < 0) return ready
        return Math.max(ready, readyAtAllDevices(state.engine().query(row).destQpn))
      }
      const completions = createLateCompletions<CqObject>({
        device: name,
        decisions,
        names,
        objectOf,
        now,
        isSuspended,
        writeAllBytes,
        exists: cq => state.cqs.get(cq.state.number) === cq,
        isArmed({ events }, solicited) {
          if (events === undefined || events.state?.threshold !== undefined) return false
          const armed = armedFor(events)
          return armed !== Armed.NO && (armed !== Armed.SOLICITED || solicited)
        },
        raise: ({ events }, solicited) => {
          if (events !== undefined) completed(events, solicited)
        },
        counts: ({ state }) => ({ written: state.completions, polled: polledCompletions(state) }),
      })
      /** Writes a completion now or later, and releases the slots before it (queues.ts). */
      const push = (number: number, words: Uint32Array, solicited: boolean): void => {
        const qpn = words[Completion.QPN]
        const isReceive = isReceiveCompletion(words)
        const queues = queuesOf(qpn)
        const slot = queues === undefined ? 0 : slotOf(queues, isReceive)
        const own = words.slice()
        completions.push(state.cqs.get(number), qpn, isReceive, readyAt(qpn, isReceive), () => {
          const queues = queuesOf(qpn)
          if (queues !== undefined) releaseSlot(queues, isReceive, slot)
          plain.push(number, own, solicited)
        })
      }
      const posts = createLatePosts(decisions, {
        now,
        // with memory windows, the order of posts matters (../posts.ts)
        mayHold: () => !isSuspended() && device.memory.windows === 0,
        qp: row => state.qps[row],
        objectOf: objectAt,
        qpnOf: row => state.qps[row]?.state.qpn ?? 0,
        ring: row => state.engine().onDoorbell(row),
        rows: () => state.qps.keys(),
        pending: row => state.queues[row]?.send.pending() ?? 0,
        longestHold: row => Math.floor(ackTimeoutMicroseconds(state.engine().query(row).timeout) / 2),
      })
      const responder = createResponder(state, objectAt, decisions, writes, isSuspended)
      const parts: DeviceParts = {
        packets,
        writes,
        completions,
        responder,
        posts,
      }
      return {
        ...join(device as Device, parts),
        environment: ({
          localDevice,
          pkeys,
          grh,
          frames,
          work,
          events,
          causes,
          taps,
          now,
          refusesLongDatagrams = false,
        }) =>
          wrapper<Environment>({
            localDevice,
            pkeys,
            grh,
            frames,
            work: wrapper<WorkSource>({
              loadSend: (row, index, into, at, isFlushed) =>
                work.loadSend(row, index, into, at, isFlushed) && (isFlushed === true || !posts.holds(row, index)),
              retireSend(row, count) {
                work.retireSend(row, count)
                posts.retired(row, count)
              },
              copyInline: work.copyInline,
              takeReceive: work.takeReceive,
              selectShared: work.selectShared,
            }),
            causes,
            taps,
            now,
            refusesLongDatagrams,
            choices: responder.choices,
            memory: writes.memory,
            completions: wrapper<Completions>({ push }),
            events: wrapper<Events>({
              raise(row, type, cause) {
                completions.deliverAll()
                events.raise(row, type, cause)
              },
            }),
          }),
        entriesOf(cq, requested, capacity) {
          if (requested >= capacity) return capacity
          const { name: object } = names.of(name, cq, 'cq')
          const decision = decisions.decide('limit', object, 'entries', '', { isAlways: true })
          if (decision === undefined) return capacity
          decision.note(() => `CQ ${cq.handle} has ${requested} entries, not ${capacity}`)
          return requested
        },
        limitQueues: (qp, queues, qpn, requested) =>
          exactQueues.limit(names.of(name, qp, 'qp'), queues, qpn, requested),
        limitShared: (srq, exact, requests) =>
          exactQueues.limitShared(
            names.of(name, srq, 'srq'),
            exact,
            `SRQ 0x${srq.state.number.toString(16)}`,
            requests,
          ),
        withoutDelays(run) {
          endDelays()
          return suspended(run)
        },
      }
    },
    attachEngine<Cq extends AnyCq>(device: Device, port: Port, memory: Memory, engine: TormentedEngine<Cq>) {
      const { name } = device
      const objectOf = (qpn: number): TormentedObject => names.of(name, engine.qp(qpn), 'qp')
      const packets = layers.get(port)
      sites.add(
        name,
        {
          memory: device.memory,
          now: engine.now,
          objectOf,
          connected: () => undefined,
          hasSenders: qpn => engine.qp(qpn)?.class.name === 'driver_qp',
        },
        packets?.late,
      )
      const writes = createPartialWrites(memory, device.memory, scratch, objectOf, decisions, engine.now, isSuspended)
      const completions = createLateCompletions<Cq>({
        device: name,
        decisions,
        names,
        objectOf,
        isSuspended,
        writeAllBytes,
        now: engine.now,
        exists: engine.exists,
        isArmed: engine.isArmed,
        raise: engine.raise,
        counts: engine.counts,
      })
      const posts = createLatePosts(decisions, {
        now: engine.now,
        mayHold: () => !isSuspended(),
        qp: engine.qp,
        objectOf,
        qpnOf: qpn => qpn,
        ring: engine.ring,
        rows: engine.qpns,
        pending: engine.pendingSends,
        // SRD has no timeout that the program chooses
        longestHold: () => MAX_HOLD,
      })
      const responder = {
        // the engine sends them at its poll
        poll: () => false,
        nextTimeout: engine.nextAcknowledgement,
        releaseAll: engine.releaseAcknowledgements,
      }
      return {
        ...join(device, { packets, writes, completions, responder, posts }),
        decisions,
        isSuspended,
        memory: writes.memory,
        readyAt: writes.readyAt,
        readyAtAllDevices,
        completions,
        objectOf,
        holdsPost: posts.holds,
        retired: qpn => posts.retired(qpn, 1),
      }
    },
  }
}
