/*
 * The receiving half of a fault layer: received packets are dropped, duplicated, reordered, corrupted and delayed
 * before the device gets them. Corrupting flips bits without changing the ICRC, as a bad cable does. A run is split
 * where a fault applies; delayed packets are received from a part of the arena that the port provides.
 */
import type { FaultCounters } from '../../spec/faults.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { makeFlow, verifyIcrc } from '../../wire/icrc.ts'
import {
  emptyRun,
  emptyTappedRun,
  type FlowAddress,
  type Port,
  type PortTap,
  type ReceivedRun,
  type TapOutcome,
} from '../port.ts'
import type { FaultDecider } from './decider.ts'
import { createDelayQueue, type DelayedPacket, MAX_DELAYED_BYTES } from './delay-queue.ts'
import { countHits, DAMAGE, damage, LOSE, OVERTAKE, REPEAT, WAIT } from './kinds.ts'
import { ipBytes, MAX_REORDER_DELAY, MAX_REORDER_DISTANCE } from './limits.ts'

export interface FaultyReceiving {
  /** As in `Port`. */
  receive(run: ReceivedRun): boolean
  release(): void
  nextTimeout(): number
  onTimeout(now: number): void
  /** Replaces the decisions. Those for the rest of the current run are cleared, and delayed packets leave. */
  setDecider(decider: FaultDecider): void
  /** Whether nothing is delayed and no run of the inner port is in progress: the inner port can be used directly. */
  isIdle(): boolean
  close(): void
}

interface Tag {
  readonly from: FlowAddress
  readonly identification: number
  readonly outcome: TapOutcome
}

/** `tap`: gets the outcome of each packet. */
export const createFaultyReceiving = (
  port: Port,
  first: FaultDecider,
  faults: FaultCounters,
  tap: () => PortTap | null,
): FaultyReceiving => {
  const { arena, counters } = port
  let decider = first
  // The run of the inner port that is being received; packets from `next` on were not delivered yet.
  const inner = emptyRun()
  let next = 0
  let packets = 0
  /** Packet to deliver a second time; -1: none. */
  let again = -1
  /** Whether a run was delivered, and whether one was taken from the inner port, since the last release. */
  let hasDelivered = false
  let innerTaken = false

  const held = createDelayQueue<Tag>((limits, time, length, { from }) =>
    decider.departure(limits, time, length + ipBytes(from)),
  )
  /** Offset of the arena's part for delayed packets while the device reads them (-1: none), and bytes in use. */
  let room = -1
  let used = 0

  const tapped = emptyTappedRun(arena, 'received')
  const showTap = (outcome: TapOutcome, run: ReceivedRun): void => {
    const observe = tap()
    if (observe === null) return
    const { offset, packetBytes, count, lastBytes, from: flow, identification } = run
    Object.assign(tapped, { outcome, offset, packetBytes, count, lastBytes, flow, identification })
    observe(tapped)
  }
  const lengthOf = (packet: number): number => (packet === packets - 1 ? inner.lastBytes : inner.packetBytes)
  const offsetOf = (packet: number): number => inner.offset + packet * inner.packetBytes

  /** Sets `run` to packets [from, end) of the inner run. */
  const setPart = (run: ReceivedRun, from: number, end: number): void => {
    run.offset = offsetOf(from)
    run.packetBytes = inner.packetBytes
    run.count = end - from
    run.lastBytes = lengthOf(end - 1)
    run.peer = inner.peer
    run.from = inner.from
    run.identification = inner.identification + from
  }
  const single = emptyRun()
  const showPacket = (outcome: TapOutcome, packet: number): void => {
    if (tap() === null) return
    setPart(single, packet, packet + 1)
    showTap(outcome, single)
  }
  const uncount = (length: number): void => {
    counters.receivedPackets--
    counters.receivedBytes -= length
  }
  const recount = (length: number): void => {
    counters.receivedPackets++
    counters.receivedBytes += length
  }

  /** Copies a packet to the delay queue; false if there is no space. */
  const hold = (packet: number, outcome: TapOutcome, passing: number, wait: number, limits: number): boolean => {
    if (room < 0) room = port.takeRoom(port.maxBytes)
    const tag = { from: inner.from, identification: inner.identification + packet, outcome }
    return room >= 0 && held.hold(arena.bytes, offsetOf(packet), lengthOf(packet), tag, passing, wait, limits)
  }

  /** Corrupts a packet; true if the ICRC is still correct (bits that it does not cover, or the same bit twice). */
  const corrupt = (packet: number, kinds: number): boolean => {
    const at = offsetOf(packet)
    const length = lengthOf(packet)
    damage(arena.bytes, at, length, kinds, decider.decisions.extras[packet])
    countHits(faults, kinds)
    const flow = makeFlow({ ...inner.from, destinationPort: ROCE_UDP_PORT })
    return verifyIcrc(arena, at, length, flow, inner.identification + packet)
  }

  /** Delays a packet; it is lost if the queue is full. */
  const delay = (packet: number, outcome: TapOutcome, late: number): boolean => {
    const { waits, limits } = decider.decisions
    const done = hold(packet, outcome, Number.POSITIVE_INFINITY, waits[packet] + late, limits[packet])
    if (!done) faults.overflowed++
    return done
  }

  /**
   * Applies the faults of a packet. True if it is delivered now, once or, if `again` is set, twice; false if it is lost
   * or delayed.
   */
  const applyFaults = (packet: number): boolean => {
    const { actions, extras } = decider.decisions
    const action = actions[packet]
    const length = lengthOf(packet)
    if (action & LOSE) {
      countHits(faults, action & LOSE)
      uncount(length)
      showPacket('dropped', packet)
      return false
    }
    if (action & DAMAGE && !corrupt(packet, action & DAMAGE)) {
      // Both copies of a duplicated packet have the same bytes.
      const copies = action & REPEAT ? 2 : 1
      countHits(faults, action & REPEAT)
      counters.icrcErrors += copies
      uncount(length)
      for (let i = 0; i < copies; i++) showPacket('corrupted', packet)
      return false
    }
    if (action & WAIT) {
      const late = action & OVERTAKE ? MAX_REORDER_DELAY : 0
      uncount(length)
      if (delay(packet, 'delayed', late)) {
        faults.delayed++
        countHits(faults, action & OVERTAKE)
      } else showPacket('dropped', packet)
      if (action & REPEAT) {
        countHits(faults, action & REPEAT)
        delay(packet, 'duplicated', 0)
      }
      return false
    }
    if (action & REPEAT) {
      countHits(faults, action & REPEAT)
      again = packet
      return true
    }
    if (!(action & OVERTAKE)) return true
    if (!hold(packet, 'reordered', 1 + (extras[packet] % MAX_REORDER_DISTANCE), MAX_REORDER_DELAY, 0)) return true
    countHits(faults, action & OVERTAKE)
    uncount(length)
    return false
  }

  /**
   * Delivers a delayed packet that is ready, from the arena's part for them; false if there is none, or that part is
   * full.
   */
  const deliverDelayed = (run: ReceivedRun): boolean => {
    if (held.ready === 0 || used + MAX_DELAYED_BYTES > port.maxBytes) return false
    const { bytes, offset, length, tag } = held.take() as DelayedPacket<Tag>
    run.offset = room + used
    run.packetBytes = length
    run.count = 1
    run.lastBytes = length
    run.peer = port.peerOf(tag.from.source)
    run.from = tag.from
    run.identification = tag.identification
    arena.bytes.set(bytes.subarray(offset, offset + length), run.offset)
    used += (length + 63) & ~63
    recount(length)
    showTap(tag.outcome, run)
    return true
  }

  /** Delivers the next part of the inner run; false at its end. */
  const deliverPart = (run: ReceivedRun): boolean => {
    if (again >= 0) {
      setPart(run, again, again + 1)
      again = -1
      recount(run.lastBytes)
      showTap('duplicated', run)
      return true
    }
    while (next < packets) {
      const from = next
      const limit = Math.min(packets, from + held.untilNext())
      const { actions } = decider.decisions
      while (next < limit && actions[next] === 0) next++
      // A fault applies to this packet.
      if (next === from && !applyFaults(next++)) continue
      setPart(run, from, next)
      held.pass(next - from)
      showTap('passed', run)
      return true
    }
    return false
  }

  const giveRoom = (): void => {
    if (room >= 0 && held.count === 0 && used === 0) {
      port.giveRoom(room)
      room = -1
    }
  }

  return {
    receive: run => {
      for (;;) {
        if (deliverDelayed(run) || (held.ready === 0 && deliverPart(run))) {
          hasDelivered = true
          return true
        }
        // Ready packets wait for the release, which frees space.
        if (held.ready > 0) return false
        if (!hasDelivered && innerTaken) {
          // The device no longer uses any of the inner run.
          port.release()
          innerTaken = false
        }
        packets = 0
        next = 0
        if (!port.receive(inner)) return false
        innerTaken = true
        packets = inner.count
        decider.decide(arena.view, inner.offset, inner.packetBytes, packets)
      }
    },
    release: () => {
      hasDelivered = false
      used = 0
      if (next === packets && again < 0 && innerTaken) {
        port.release()
        innerTaken = false
      }
      giveRoom()
    },
    nextTimeout: held.nextTimeout,
    onTimeout: now => {
      if (held.onTimeout(now)) port.wake?.()
    },
    setDecider: wanted => {
      // The inner port may have been used directly until now.
      if (wanted.active && !decider.active) innerTaken = true
      decider = wanted
      // Decisions of the old rules no longer apply.
      decider.clear(packets)
      held.readyAll()
      if (held.count > 0) port.wake?.()
    },
    isIdle: () => held.count === 0 && used === 0 && next === packets && again < 0 && !innerTaken && !hasDelivered,
    close: () => {
      held.clear()
      used = 0
      giveRoom()
    },
  }
}
