/*
 * `--torment SEED`: the devices of a network do what hardware may do but rarely does (spec/check/torment.ts,
 * docs/decisions/torment.md). The engine's environment is wrapped when a device is created.
 *
 * Calls and events have the same effects as without torment. So all delays end (`endDelays`) before a call that
 * modifies or destroys an object, before a call whose result depends on earlier posts (`withoutDelays`), and when a
 * device is removed. Delays of completions end before the engine raises an asynchronous event.
 */

import { addHook } from '../../../core/devices/registry.ts'
import { armedFor, completed } from '../../../core/events/events.ts'
import { Armed, type Device } from '../../../core/model.ts'
import type { TormentSetting } from '../../../spec/check/torment.ts'
import { wrapper } from '../../../spec/wrapper.ts'
import {
  Completion,
  type Completions,
  type Environment,
  type Events,
  type Memory,
} from '../../../transport/engine/types.ts'
import type { FaultPort } from '../../../transport/phy/faults/layer.ts'
import { createDecisions, type Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import { withPacketTorment } from '../../../transport/phy/faults/torment-packets.ts'
import type { Port } from '../../../transport/phy/port.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { QueueLimits } from '../attributes.ts'
import type { Notify, ProgramWords } from '../completions.ts'
import type { QpQueues } from '../queues.ts'
import type { CallTorment, CqObject, SoftState } from '../state.ts'
import { type CompletionSink, createLateCompletions, isReceiveCompletion, type LateCompletions } from './completions.ts'
import { decideLimits } from './limits.ts'
import { decideNumbers } from './numbers.ts'
import { createPartialWrites, type PartialWrites } from './partial-writes.ts'
import { createExactQueues, releaseSlot, slotOf } from './queues.ts'
import { createResponder } from './responder.ts'
import { withUndefinedFields } from './undefined-fields.ts'

/** Torment of all devices of a network. */
export interface Torment {
  readonly decisions: Decisions
  /** Wraps the port of a new device, before the device is created. */
  port(port: Port, device: string): Port
  /** The random numbers of a new device, from which its first keys and QPNs come; undefined: its own. */
  random(device: string): (() => number) | undefined
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
  /** The engine's `onDoorbell`, now or later: for the scan of posts. */
  onDoorbell(row: number): void
}

/** What torment uses of a device with an engine of its own. */
interface TormentedEngine<Cq> extends Pick<CompletionSink<Cq>, 'now' | 'exists' | 'isArmed' | 'raise'> {
  hasQp(qpn: number): boolean
  /** Executes the posted sends of a queue pair. */
  ring(qpn: number): void
  /** Sends all acknowledgements that it holds. Called while `isSuspended`. */
  releaseAcknowledgements(): void
  /** When a held acknowledgement is due, microseconds; Infinity: none is held. */
  nextAcknowledgement(): number
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
  /** The queue pair has posted sends: `TormentedEngine.ring`, now or later. */
  ring(qpn: number): void
}

/** The fault layer and the delays of one device. */
interface DeviceParts {
  /** Undefined: the seed does not use the kind `packet`. */
  readonly packets: FaultPort | undefined
  readonly writes: PartialWrites
  readonly completions: Pick<LateCompletions<never>, 'poll' | 'nextTimeout' | 'deliverAll'>
  readonly responder: { poll(now: number): boolean; nextTimeout(): number; releaseAll(): void }
  readonly doorbells: { poll(now: number): boolean; nextTimeout(): number; ringAll(): void }
}

type AnyCq = Pick<CqObject, 'handle'> & { readonly state: { readonly number: number } }

/** Methods before which all delays end. */
const CHANGES = ['modify', 'destroy']

/** Queue pairs by row: whatever number the engine knows them by. */
interface DoorbellSink {
  now(): number
  mayHold(): boolean
  exists(row: number): boolean
  qpnOf(row: number): number
  /** The engine gets the doorbell. */
  ring(row: number): void
}

/** Kind `request` of torment (spec/check/torment.ts): the engine gets some doorbells of a device late. */
const createDoorbells = (name: string, decisions: Decisions, sink: DoorbellSink) => {
  /** By row of the engine: when the doorbell is due. */
  const held = new Map<number, number>()
  let nextDue = Number.POSITIVE_INFINITY
  const poll = (now: number): boolean => {
    if (now < nextDue) return false
    nextDue = Number.POSITIVE_INFINITY
    const due: number[] = []
    for (const [row, time] of held)
      if (time <= now) due.push(row)
      else nextDue = Math.min(nextDue, time)
    for (const row of due) {
      held.delete(row)
      if (sink.exists(row)) sink.ring(row)
    }
    return due.length > 0
  }
  return {
    poll,
    nextTimeout: () => nextDue,
    ringAll: () => {
      poll(Number.POSITIVE_INFINITY)
    },
    ring(row: number): void {
      const mayHold = sink.mayHold()
      if (mayHold && held.has(row)) return
      const qpn = sink.qpnOf(row)
      const sequence = decisions.sequence('request', name, qpn)
      if (!mayHold || !sequence.acts()) {
        // a doorbell may be held since before the first window was created
        held.delete(row)
        sink.ring(row)
        return
      }
      const wait = sequence.wait()
      const due = sink.now() + wait
      held.set(row, due)
      nextDue = Math.min(nextDue, due)
      decisions.note('request', name, () => `requests of QP 0x${qpn.toString(16)} start after ${wait} µs`)
    },
  }
}

export const TORMENT_SCRATCH_BYTES = 0x1_0000

/** `scratch`: TORMENT_SCRATCH_BYTES of memory, which native code can read if the process has native code. */
export const createTorment = (setting: TormentSetting, scratch: Arena): Torment => {
  const decisions = createDecisions(setting)
  const devices = new Set<DeviceParts>()
  const exactQueues = createExactQueues(decisions)
  /** The fault layers among the ports that `port` has returned. */
  const layers = new WeakMap<Port, FaultPort>()
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
    for (const { packets } of devices) packets?.setFaults([])
  }

  const pollAll = (now: number): boolean => {
    let worked = false
    if (decisions.isOver && !hasEndedPackets) endPackets()
    // bytes first: completions announce them
    for (const { writes } of devices) worked = writes.poll(now) || worked
    for (const { completions } of devices) worked = completions.poll(now) || worked
    for (const { doorbells, responder } of devices) {
      worked = responder.poll(now) || worked
      worked = doorbells.poll(now) || worked
    }
    return worked
  }
  const writeAllBytes = (): void => {
    for (const { writes } of devices) writes.writeAll()
  }
  const endDelays = (): void =>
    suspended(() => {
      for (const { doorbells, responder } of devices) {
        doorbells.ringAll()
        responder.releaseAll()
      }
      writeAllBytes()
      for (const { completions } of devices) completions.deliverAll()
    })
  /**
   * The time at which all bytes for queue pairs with this QPN are in memory: the latest of all devices, since the peer's
   * device is not known.
   */
  const readyAtAllDevices = (qpn: number): number => {
    let latest = 0
    for (const { writes } of devices) latest = Math.max(latest, writes.readyAt(qpn))
    return latest
  }

  /** The delays of a device are among those of its network. */
  const join = (device: Device, parts: DeviceParts): DelaysInTime => {
    const { writes, completions, responder, doorbells } = parts
    devices.add(parts)
    const removeHook = addHook(device, {
      pre({ entry }) {
        if (CHANGES.includes(entry.name)) endDelays()
      },
    })
    return {
      poll: pollAll,
      nextTimeout: () =>
        Math.min(writes.nextTimeout(), completions.nextTimeout(), responder.nextTimeout(), doorbells.nextTimeout()),
      close() {
        endDelays()
        devices.delete(parts)
        removeHook()
      },
    }
  }

  return {
    decisions,
    port(port, device) {
      const layer = withPacketTorment(port, device, decisions)
      if (layer !== undefined) layers.set(layer, layer)
      return layer ?? port
    },
    random: device => decideNumbers(decisions, device),
    limits: (device, own) => decideLimits(decisions, device, own),
    attach(device, memory, createCompletions) {
      const { state, name } = device
      const queuesOf = (qpn: number): QpQueues | undefined => state.queues[state.qpns.rowOf(qpn)]
      const { now } = state
      const writes = createPartialWrites(memory, device.memory, scratch, name, decisions, now, isSuspended)
      const plain = createCompletions(
        (_events, solicited, cq) => completions.notify(cq, solicited),
        withUndefinedFields(name, decisions),
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
      const doorbells = createDoorbells(name, decisions, {
        now,
        // with memory windows, the order of doorbells matters (../posts.ts)
        mayHold: () => !isSuspended() && device.memory.windows === 0,
        exists: row => state.qps[row] !== undefined,
        qpnOf: row => state.qps[row]?.state.qpn ?? 0,
        ring: row => state.engine().onDoorbell(row),
      })
      const responder = createResponder(state, name, decisions, writes, isSuspended)
      const parts: DeviceParts = {
        packets: layers.get(state.port),
        writes,
        completions,
        responder,
        doorbells,
      }
      return {
        ...join(device as Device, parts),
        environment: ({ localDevice, grh, frames, work, events, causes, taps, refusesLongDatagrams = false }) =>
          wrapper<Environment>({
            localDevice,
            grh,
            frames,
            work,
            causes,
            taps,
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
        onDoorbell: doorbells.ring,
        entriesOf({ handle }, requested, capacity) {
          if (decisions.probability('limit') === 0 || decisions.isOver || requested >= capacity) return capacity
          decisions.note('limit', name, () => `CQ ${handle} has ${requested} entries, not ${capacity}`)
          return requested
        },
        limitQueues: (queues, qpn, requested) => exactQueues.limit(name, queues, qpn, requested),
        limitShared: ({ state: { number } }, exact, requests) =>
          exactQueues.limitShared(name, exact, `SRQ 0x${number.toString(16)}`, requests),
        withoutDelays(run) {
          endDelays()
          return suspended(run)
        },
      }
    },
    attachEngine<Cq extends AnyCq>(device: Device, port: Port, memory: Memory, engine: TormentedEngine<Cq>) {
      const { name } = device
      const writes = createPartialWrites(memory, device.memory, scratch, name, decisions, engine.now, isSuspended)
      const completions = createLateCompletions<Cq>({
        device: name,
        decisions,
        isSuspended,
        writeAllBytes,
        now: engine.now,
        exists: engine.exists,
        isArmed: engine.isArmed,
        raise: engine.raise,
      })
      const doorbells = createDoorbells(name, decisions, {
        now: engine.now,
        mayHold: () => !isSuspended(),
        exists: engine.hasQp,
        qpnOf: qpn => qpn,
        ring: engine.ring,
      })
      const responder = {
        // the engine sends them at its poll
        poll: () => false,
        nextTimeout: engine.nextAcknowledgement,
        releaseAll: engine.releaseAcknowledgements,
      }
      return {
        ...join(device, { packets: layers.get(port), writes, completions, responder, doorbells }),
        decisions,
        isSuspended,
        memory: writes.memory,
        readyAt: writes.readyAt,
        readyAtAllDevices,
        completions,
        ring: doorbells.ring,
      }
    },
  }
}
