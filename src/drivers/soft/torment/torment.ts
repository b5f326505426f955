/*
 * `--torment SEED`: the devices of a network do what hardware may do but rarely does (spec/check/torment.ts,
 * docs/decisions/torment.md). The engine's environment is wrapped when a device is created.
 *
 * Calls and events have the same effects as without torment. So all delays end (`endDelays`) before a call that
 * modifies or destroys an object, before a call whose result depends on earlier posts (`withoutDelays`), and when a
 * device is removed. Delays of completions end before the engine raises an asynchronous event.
 */

import { addHook } from '../../../core/devices/registry.ts'
import { completed } from '../../../core/events/events.ts'
import type { Device } from '../../../core/model.ts'
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
import type { CallTorment, SoftState } from '../state.ts'
import { createLateCompletions, isReceiveCompletion, type LateCompletions } from './completions.ts'
import { decideLimits } from './limits.ts'
import { createPartialWrites, type PartialWrites } from './partial-writes.ts'
import { createExactQueues, releaseSlot, slotOf } from './queues.ts'
import { createResponder, type Responder } from './responder.ts'
import { withUndefinedFields } from './undefined-fields.ts'

/** Torment of all devices of a network. */
export interface Torment {
  readonly decisions: Decisions
  /** Wraps the port of a new device, before the device is created. */
  port(port: Port, device: string): Port
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
}

/** Torment of one device. */
export interface DeviceTorment extends CallTorment {
  /** Wraps the engine's environment. */
  environment(plain: Environment): Environment
  /** The engine's `onDoorbell`, now or later: for the scan of posts. */
  onDoorbell(row: number): void
  /** Executes what is due on all devices of the network; true if anything was. `now` in microseconds. */
  poll(now: number): boolean
  /** When `poll` must be called for this device, microseconds; Infinity for never. */
  nextTimeout(): number
}

/** The fault layer and the delays of one device. */
interface DeviceParts {
  /** Undefined: the seed does not use the kind `packet`. */
  readonly packets: FaultPort | undefined
  readonly writes: PartialWrites
  readonly completions: LateCompletions
  readonly responder: Responder
  readonly doorbells: { poll(now: number): boolean; nextTimeout(): number; ringAll(): void }
}

/** Methods before which all delays end. */
const CHANGES = ['modify', 'destroy']

/** Kind `request` of torment (spec/check/torment.ts): the engine gets some doorbells of a device late. */
const createDoorbells = (device: Device<SoftState>, decisions: Decisions, isSuspended: () => boolean) => {
  const { state, name } = device
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
      if (state.qps[row] !== undefined) state.engine().onDoorbell(row)
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
      // with memory windows, the order of doorbells matters (../posts.ts)
      const mayHold = !isSuspended() && device.memory.windows === 0
      if (mayHold && held.has(row)) return
      const qpn = state.qps[row]?.state.qpn ?? 0
      const sequence = decisions.sequence('request', name, qpn)
      if (!mayHold || !sequence.acts()) {
        // a doorbell may be held since before the first window was created
        held.delete(row)
        state.engine().onDoorbell(row)
        return
      }
      const wait = sequence.wait()
      const due = state.now() + wait
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

  return {
    decisions,
    port(port, device) {
      const layer = withPacketTorment(port, device, decisions)
      if (layer !== undefined) layers.set(layer, layer)
      return layer ?? port
    },
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
      const completions = createLateCompletions({
        device: name,
        decisions,
        now,
        isSuspended,
        readyAt(qpn, isReceive) {
          const hasPartialWrites = [...devices].some(other => other.writes.nextTimeout() < Number.POSITIVE_INFINITY)
          if (!hasPartialWrites) return 0
          const ready = writes.readyAt(qpn)
          const row = state.qpns.rowOf(qpn)
          if (isReceive || row < 0) return ready
          return Math.max(ready, readyAtAllDevices(state.engine().query(row).destQpn))
        },
        writeAllBytes,
        exists: cq => state.cqs.get(cq.state.number) === cq,
        slotOf(qpn, isReceive) {
          const queues = queuesOf(qpn)
          return queues === undefined ? 0 : slotOf(queues, isReceive)
        },
        deliver(cq, words, solicited, slot) {
          const queues = queuesOf(words[Completion.QPN])
          if (queues !== undefined) releaseSlot(queues, isReceiveCompletion(words), slot)
          plain.push(cq.state.number, words, solicited)
        },
        raise: ({ events }, solicited) => {
          if (events !== undefined) completed(events, solicited)
        },
      })
      const doorbells = createDoorbells(device, decisions, isSuspended)
      const responder = createResponder(state, name, decisions, writes, isSuspended)
      const parts: DeviceParts = {
        packets: layers.get(state.port),
        writes,
        completions,
        responder,
        doorbells,
      }
      devices.add(parts)
      const removeHook = addHook(device as Device, {
        pre({ entry }) {
          if (CHANGES.includes(entry.name)) endDelays()
        },
      })
      return {
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
            completions: wrapper<Completions>({
              push: (number, words, solicited) => completions.push(state.cqs.get(number), words, solicited),
            }),
            events: wrapper<Events>({
              raise(row, type, cause) {
                completions.deliverAll()
                events.raise(row, type, cause)
              },
            }),
          }),
        onDoorbell: doorbells.ring,
        poll: pollAll,
        nextTimeout: () =>
          Math.min(writes.nextTimeout(), completions.nextTimeout(), responder.nextTimeout(), doorbells.nextTimeout()),
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
        close() {
          endDelays()
          devices.delete(parts)
          removeHook()
        },
      }
    },
  }
}
