/*
 * The sending half of a fault layer: packets are dropped, duplicated, reordered, corrupted and delayed before they are
 * sent, so that peers on other machines see the faults. The port seals a run when it is committed; bits are flipped
 * after that, before the run is sent. Delayed packets are sent at the end of a turn, when the device has no
 * reservation; their flow stays open until then.
 */

import type { FaultCounters } from '../../spec/faults.ts'
import type { FlowAddress, Port } from '../port.ts'
import { createDelayQueue, type DelayedPacket, MAX_DELAYED_BYTES } from './delay-queue.ts'
import type { FaultDice } from './dice.ts'
import { countHits, DAMAGE, damage, LOSE, OVERTAKE, REPEAT, WAIT } from './kinds.ts'
import { ipBytes, MAX_REORDER_DISTANCE, REORDER_PATIENCE } from './limits.ts'

export interface FaultySending {
  /** As in `Port`. */
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  flush(): void
  closeFlow(flow: number): void
  nextTimeout(): number
  onTimeout(now: number): void
  /** Replaces the decisions; delayed packets are sent. */
  setDice(dice: FaultDice): void
  /** Nothing is delayed: the inner port can be used directly. */
  isIdle(): boolean
  close(): void
}

interface Tag {
  readonly flow: number
  /** Kinds that change the packet when it leaves (bits of DAMAGE), and their random bits. */
  readonly spoilt: number
  readonly seed: number
}

/** `flowOf`: the record of an open flow. */
export const createFaultySending = (
  port: Port,
  first: FaultDice,
  faults: FaultCounters,
  flowOf: (flow: number) => FlowAddress,
): FaultySending => {
  const { arena } = port
  let dice = first
  const held = createDelayQueue<Tag>((limits, time, length, { flow }) =>
    dice.departure(limits, time, length + ipBytes(flowOf(flow))),
  )
  /** By flow: its delayed packets, and pending closes, which follow when they have been sent. */
  const holding = new Map<number, { packets: number; closes: number }>()

  const closeFlow = (flow: number): void => {
    const use = holding.get(flow)
    if (use === undefined) port.closeFlow(flow)
    else use.closes++
  }
  const left = (flow: number): void => {
    const use = holding.get(flow)
    if (use === undefined || --use.packets > 0) return
    holding.delete(flow)
    for (let i = 0; i < use.closes; i++) port.closeFlow(flow)
  }

  const hold = (
    at: number,
    length: number,
    flow: number,
    spoilt: number,
    seed: number,
    passing: number,
    wait: number,
    limits: number,
  ): boolean => {
    if (!held.hold(arena.bytes, at, length, { flow, spoilt, seed }, passing, wait, limits)) {
      faults.overflowed++
      return false
    }
    const use = holding.get(flow)
    if (use === undefined) holding.set(flow, { packets: 1, closes: 0 })
    else use.packets++
    return true
  }

  /** Applies the faults of a packet: true if it is sent now. */
  const strike = (packet: number, at: number, length: number, flow: number): boolean => {
    const { actions, extras, waits, limits } = dice.decisions
    const action = actions[packet]
    if (action & LOSE) {
      countHits(faults, action & LOSE)
      return false
    }
    countHits(faults, action & (DAMAGE | REPEAT))
    const spoilt = action & DAMAGE
    const seed = extras[packet]
    const wait = waits[packet]
    if (action & REPEAT) {
      hold(at, length, flow, spoilt, seed, action & WAIT ? Infinity : 0, wait, limits[packet])
    }
    if (action & WAIT) {
      const late = action & OVERTAKE ? REORDER_PATIENCE : 0
      if (!hold(at, length, flow, spoilt, seed, Infinity, wait + late, limits[packet])) return false
      faults.delayed++
      countHits(faults, action & OVERTAKE)
      return false
    }
    if (
      action & OVERTAKE &&
      hold(at, length, flow, spoilt, seed, 1 + (seed % MAX_REORDER_DISTANCE), REORDER_PATIENCE, 0)
    ) {
      countHits(faults, action & OVERTAKE)
      return false
    }
    return true
  }

  const sendNow = (at: number, length: number, flow: number, spoilt: number, seed: number): void => {
    port.commit(at, length, 1, length, flow)
    damage(arena.bytes, at, length, spoilt, seed)
  }

  /** Sends delayed packets that are ready, while the port takes them. */
  const sendDelayed = (): void => {
    // the second copy is not delayed
    held.pass(0)
    let at = 0
    let end = 0
    while (held.ready > 0) {
      if (at + MAX_DELAYED_BYTES > end) {
        at = port.reserve(port.maxBytes)
        if (at < 0) return
        end = at + port.maxBytes
      }
      const { bytes, offset, length, tag } = held.take() as DelayedPacket<Tag>
      arena.bytes.set(bytes.subarray(offset, offset + length), at)
      sendNow(at, length, tag.flow, tag.spoilt, tag.seed)
      at += (length + 63) & ~63
      left(tag.flow)
    }
  }

  return {
    commit: (offset, packetBytes, count, lastBytes, flow) => {
      // the inner port refuses a run outside of the arena
      const inside = offset >= 0 && offset + (count - 1) * packetBytes + lastBytes <= arena.bytes.length
      if (!inside || !dice.decide(arena.view, offset, packetBytes, count)) {
        port.commit(offset, packetBytes, count, lastBytes, flow)
        held.pass(count)
        return
      }
      const { actions, extras } = dice.decisions
      for (let next = 0; next < count; ) {
        const from = next
        while (next < count && actions[next] === 0) next++
        const at = offset + from * packetBytes
        if (next > from) port.commit(at, packetBytes, next - from, next === count ? lastBytes : packetBytes, flow)
        else {
          const length = next === count - 1 ? lastBytes : packetBytes
          if (!strike(next++, at, length, flow)) continue
          sendNow(at, length, flow, actions[from] & DAMAGE, extras[from])
        }
        held.pass(next - from)
      }
    },
    flush: () => {
      if (held.count > 0) sendDelayed()
      port.flush()
    },
    closeFlow,
    // packets that are ready are sent even if nothing else is: there may be no other turn of sending
    nextTimeout: () => (held.ready > 0 ? 0 : held.nextTimeout()),
    onTimeout: now => {
      if (!held.onTimeout(now) && held.ready === 0) return
      sendDelayed()
      port.flush()
    },
    setDice: wanted => {
      dice = wanted
      held.readyAll()
      if (held.count > 0) port.wake?.()
    },
    isIdle: () => held.count === 0,
    close: () => {
      held.clear()
      for (const [flow, { closes }] of holding) for (let i = 0; i < closes; i++) port.closeFlow(flow)
      holding.clear()
    },
  }
}
