/*
 * `--torment SEED`: the devices of a network do what hardware may do and rarely does (spec/check/torment.ts,
 * docs/decisions/torment.md). Devices without it have none of this: the engine's environment is wrapped when a device is
 * created, or not at all.
 *
 * Whatever waits has a time, of the clock of `poll`. Before a call that changes an object, an asynchronous event or the
 * end of a device nothing waits any more (`settle`), so that calls have the same effects as without torment.
 */

import { addHook } from '../../../core/devices/registry.ts'
import { completed } from '../../../core/events/events.ts'
import type { Affiliation, Device } from '../../../core/model.ts'
import type { FaultPort } from '../../../phy/faults/layer.ts'
import type { Port } from '../../../phy/port.ts'
import type { TormentSetting } from '../../../spec/check/torment.ts'
import type { Engine } from '../../../transport/engine.ts'
import {
  Completion,
  type Completions,
  type Environment,
  type Memory,
  type WorkSource,
} from '../../../transport/types.ts'
import type { Arena } from '../../../wire/arena.ts'
import type { QueueLimits } from '../attributes.ts'
import type { QpRings } from '../rings/work-source.ts'
import type { CallTorment, CqObject, RxeState } from '../state.ts'
import { createLateCompletions, isReceiveCompletion, type LateCompletions } from './completions.ts'
import { createDecisions, type Decisions } from './decisions.ts'
import { decideLimits } from './limits.ts'
import { withPacketTorment } from './packets.ts'
import { createPieces, type Pieces } from './pieces.ts'
import { createExactQueues } from './queues.ts'
import { createResponder, type Responder } from './responder.ts'

/** Torment of all devices of a network. */
export interface Torment {
  readonly decisions: Decisions
  /** The port of a device that is created next. */
  port(port: Port, device: string): Port
  /** Its limits. */
  limits(device: string): QueueLimits
  /** Its rings for the engine. */
  work(plain: WorkSource, rings: readonly (QpRings | undefined)[]): WorkSource
  /**
   * One more device; `memory`: its registered memory as the engine would use it; `completionsWith`: its CQs, which call
   * a function for each completion of a CQ with events.
   */
  attach(device: Device<RxeState>, memory: Memory, completionsWith: (notify: Notify) => Completions): DeviceTorment
}

type Notify = (events: Affiliation, solicited: boolean, cq: CqObject) => void

/** Torment of one device. */
export interface DeviceTorment extends CallTorment {
  /** What the engine is given. */
  environment(plain: Environment): Environment
  /** The engine as the scan of posts uses it. */
  doorbells(engine: Engine): Engine
  /** Does what is due on all devices; true if there was anything. */
  poll(now: number): boolean
  nextTimeout(): number
}

interface Part {
  readonly pieces: Pieces
  readonly completions: LateCompletions
  readonly responder: Responder
  readonly doorbells: { poll(now: number): boolean; nextTimeout(): number; ringAll(): void }
}

/** Methods before which nothing waits. */
const CHANGES = ['modify', 'destroy']

/** Doorbells of a device, some of them late. */
const createDoorbells = (device: Device<RxeState>, decisions: Decisions, isCalm: () => boolean) => {
  const { state, name } = device
  const held = new Map<number, number>()
  let next = Number.POSITIVE_INFINITY
  const poll = (now: number): boolean => {
    if (now < next) return false
    next = Number.POSITIVE_INFINITY
    const due: number[] = []
    for (const [row, time] of held)
      if (time <= now) due.push(row)
      else next = Math.min(next, time)
    for (const row of due) {
      held.delete(row)
      if (state.qps[row] !== undefined) state.engine().onDoorbell(row)
    }
    return due.length > 0
  }
  return {
    poll,
    nextTimeout: () => next,
    ringAll: () => {
      next = Number.NEGATIVE_INFINITY
      poll(Number.POSITIVE_INFINITY)
    },
    ring(row: number): void {
      if (held.has(row)) return
      const qpn = state.qps[row]?.state.qpn ?? 0
      const sequence = decisions.sequence('request', name, qpn)
      // the order of binds and requests of a context is kept (drivers/rxe/rings/posts.ts)
      if (isCalm() || device.memory.windows > 0 || !sequence.acts()) {
        state.engine().onDoorbell(row)
        return
      }
      const wait = sequence.wait()
      const due = state.now() + wait
      held.set(row, due)
      next = Math.min(next, due)
      decisions.note('request', name, () => `requests of QP 0x${qpn.toString(16)} start after ${wait} µs`)
    },
  }
}

/** Size of `scratch` of `createTorment`. */
export const PIECE_BYTES = 0x1_0000

/** `scratch`: PIECE_BYTES that native code can read, if there is native code. */
export const createTorment = (setting: TormentSetting, scratch: Arena): Torment => {
  const decisions = createDecisions(setting)
  const parts = new Set<Part>()
  const queues = createExactQueues(decisions)
  const layers: FaultPort[] = []
  let calm = 0
  const isCalm = (): boolean => calm > 0

  const pollAll = (now: number): boolean => {
    let worked = false
    if (decisions.isOver) for (const layer of layers.splice(0)) layer.setFaults([])
    // bytes first: completions show them
    for (const { pieces } of parts) worked = pieces.poll(now) || worked
    for (const { completions } of parts) worked = completions.poll(now) || worked
    for (const { doorbells, responder } of parts) {
      worked = responder.poll(now) || worked
      worked = doorbells.poll(now) || worked
    }
    return worked
  }
  const placeBytes = (): void => {
    for (const { pieces } of parts) pieces.placeAll()
  }
  const settle = (): void => {
    calm++
    for (const { doorbells, responder } of parts) {
      doorbells.ringAll()
      responder.releaseAll()
    }
    placeBytes()
    for (const { completions } of parts) completions.deliverAll()
    calm--
  }
  /** When the bytes for queue pair `qpn` of any device are in memory: numbers of two devices may be equal. */
  const placedAt = (qpn: number): number => {
    let latest = 0
    for (const { pieces } of parts) latest = Math.max(latest, pieces.readyAt(qpn))
    return latest
  }

  return {
    decisions,
    port(port, device) {
      const layer = withPacketTorment(port, device, decisions)
      if (layer !== undefined) layers.push(layer)
      return layer ?? port
    },
    limits: device => decideLimits(decisions, device),
    work: queues.work,
    attach(device, memory, completionsWith) {
      const { state, name } = device
      const ringsOf = (qpn: number): QpRings | undefined => state.rings[state.qpns.rowOf(qpn)]
      const { now } = state
      const pieces = createPieces(memory, device.memory, scratch, name, decisions, now, isCalm)
      const plain = completionsWith((_events, solicited, cq) => completions.notify(cq, solicited))
      const completions = createLateCompletions({
        device: name,
        decisions,
        now,
        isCalm,
        readyAt(qpn, isReceive) {
          if (![...parts].some(part => part.pieces.nextTimeout() < Number.POSITIVE_INFINITY)) return 0
          const own = pieces.readyAt(qpn)
          const row = state.qpns.rowOf(qpn)
          if (isReceive || row < 0) return own
          return Math.max(own, placedAt(state.engine().query(row).destQpn))
        },
        placeBytes,
        isAlive: cq => state.cqs.get(cq.state.number) === cq,
        slotOf(qpn, isReceive) {
          const rings = ringsOf(qpn)
          return rings === undefined ? 0 : queues.slotOf(rings, isReceive)
        },
        deliver(cq, words, solicited, slot) {
          const rings = ringsOf(words[Completion.QPN])
          if (rings !== undefined) queues.release(rings, isReceiveCompletion(words), slot)
          plain.push(cq.state.number, words, solicited)
        },
        raise: ({ events }, solicited) => {
          if (events !== undefined) completed(events, solicited)
        },
      })
      const doorbells = createDoorbells(device, decisions, isCalm)
      const responder = createResponder(state, name, decisions, pieces, isCalm)
      const part: Part = { pieces, completions, responder, doorbells }
      parts.add(part)
      const removeHook = addHook(device as Device, {
        pre({ entry }) {
          if (CHANGES.includes(entry.name)) settle()
        },
      })
      return {
        environment: environment => ({
          ...environment,
          choices: responder.choices,
          memory: pieces.memory,
          completions: {
            push: (number, words, solicited) => completions.push(state.cqs.get(number), words, solicited),
          },
          events: {
            qp(row, type, cause) {
              completions.deliverAll()
              environment.events.qp(row, type, cause)
            },
          },
        }),
        doorbells: engine => ({ ...engine, onDoorbell: doorbells.ring }),
        poll: pollAll,
        nextTimeout: () =>
          Math.min(pieces.nextTimeout(), completions.nextTimeout(), responder.nextTimeout(), doorbells.nextTimeout()),
        entriesOf({ handle }, wanted, capacity) {
          const entries = Math.max(wanted, 1)
          if (decisions.share('limit') === 0 || decisions.isOver || entries >= capacity) return capacity
          decisions.note('limit', name, () => `CQ ${handle} has ${entries} entries, not ${capacity}`)
          return entries
        },
        queuesOf: (rings, qpn, wanted) => queues.limit(name, rings, qpn, wanted),
        limitShared: ({ state: { queue, number } }, requests) =>
          queues.limitShared(name, queue, `SRQ 0x${number.toString(16)}`, requests),
        restart: queues.restart,
        calmly(run) {
          settle()
          calm++
          try {
            return run()
          } finally {
            calm--
          }
        },
        close() {
          settle()
          parts.delete(part)
          removeHook()
        },
      }
    },
  }
}
