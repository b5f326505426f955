/*
 * The receiving half of a fault layer: received packets are dropped, duplicated, reordered, corrupted and delayed
 * before the device gets them. Corrupting flips bits without correcting the ICRC, as a bad cable does. A run is split
 * where a fault applies; delayed packets are copied to a buffer of the port (`Port.takeLayerBuffer`) to be received.
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
import { ipUdpHeaderBytes, MAX_REORDER_DELAY, MAX_REORDER_DISTANCE } from './limits.ts'

export interface FaultyReceiving {
  /** As in `Port`. */
  receive(run: ReceivedRun): boolean
  release(): void
  nextTimeout(): number
  onTimeout(now: number): void
  /** Replaces the rules. No fault applies to the rest of the current run, and delayed packets leave. */
  setDecider(decider: FaultDecider): void
  /** Whether nothing is delayed and no run of the inner port is in progress: the inner port can be used directly. */
  isIdle(): boolean
  close(): void
}

/** Data of a delayed packet, for `ReceivedRun` and the tap. */
interface Tag {
  readonly from: FlowAddress
  readonly identification: number
  readonly outcome: TapOutcome
}

/** `tap` returns the current tap, which gets each packet with its outcome. */
export const createFaultyReceiving = (
  port: Port,
  initialDecider: FaultDecider,
  faults: FaultCounters,
  tap: () => PortTap | null,
): FaultyReceiving => {
  const { arena, counters } = port
  let decider = initialDecider
  // The run of the inner port that is being received; packets from `next` on were not delivered yet.
  const inner = emptyRun()
  let next = 0
  let packets = 0
  /** Packet of the inner run to deliver a second time; -1: none. */
  let repeated = -1
  /** Whether a run was delivered, and whether one was taken from the inner port, since the last release. */
  let hasDelivered = false
  let isInnerTaken = false

  const held = createDelayQueue<Tag>((limits, time, length, { from }) =>
    decider.departure(limits, time, length + ipUdpHeaderBytes(from)),
  )
  /** Offset of the layer buffer that delayed packets are received from (-1: none), and its bytes in use. */
  let buffer = -1
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
  const packetRun = emptyRun()
  const showPacket = (outcome: TapOutcome, packet: number): void => {
    if (tap() === null) return
    setPart(packetRun, packet, packet + 1)
    showTap(outcome, packetRun)
  }
  /** Undoes the inner port's count of a packet that is not delivered now. */
  const uncount = (length: number): void => {
    counters.receivedPackets--
    counters.receivedBytes -= length
  }
  /** Counts a packet that is delivered late, or twice. */
  const countReceived = (length: number): void => {
    counters.receivedPackets++
    counters.receivedBytes += length
  }

  /** Copies a packet to the delay queue; false if the port has no layer buffer, or the queue is full. */
  const hold = (packet: number, outcome: TapOutcome, passing: number, wait: number, limits: number): boolean => {
    if (buffer < 0) buffer = port.takeLayerBuffer(port.maxBytes)
    const tag = { from: inner.from, identification: inner.identification + packet, outcome }
    return buffer >= 0 && held.hold(arena.bytes, offsetOf(packet), lengthOf(packet), tag, passing, wait, limits)
  }

  /** Corrupts a packet; true if its ICRC is still correct (for bits that it does not cover, or a bit flipped twice). */
  const corrupt = (packet: number, kinds: number): boolean => {
    const at = offsetOf(packet)
    const length = lengthOf(packet)
    damage(arena.bytes, at, length, kinds, decider.decisions.extras[packet])
    countHits(faults, kinds)
    const flow = makeFlow({ ...inner.from, destinationPort: ROCE_UDP_PORT })
    return verifyIcrc(arena, at, length, flow, inner.identification + packet)
  }

  /** Delays a packet by its delay and `extraDelay` (µs); false if the queue is full, and the packet is lost. */
  const delay = (packet: number, outcome: TapOutcome, extraDelay: number): boolean => {
    const { waits, limits } = decider.decisions
    const isHeld = hold(packet, outcome, Number.POSITIVE_INFINITY, waits[packet] + extraDelay, limits[packet])
    if (!isHeld) faults.overflowed++
    return isHeld
  }

  /**
   * Applies the faults of a packet. True if it is delivered now, once or, if `repeated` is set, twice; false if it is
   * lost or delayed.
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
      const extraDelay = action & OVERTAKE ? MAX_REORDER_DELAY : 0
      uncount(length)
      if (delay(packet, 'delayed', extraDelay)) {
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
      repeated = packet
      return true
    }
    if (!(action & OVERTAKE)) return true
    if (!hold(packet, 'reordered', 1 + (extras[packet] % MAX_REORDER_DISTANCE), MAX_REORDER_DELAY, 0)) return true
    countHits(faults, action & OVERTAKE)
    uncount(length)
    return false
  }

  /**
   * Delivers a delayed packet that is ready, in the layer buffer; false if there is none, or the buffer is full.
   */
  const deliverDelayed = (run: ReceivedRun): boolean => {
    if (held.ready === 0 || used + MAX_DELAYED_BYTES > port.maxBytes) return false
    const { bytes, offset, length, tag } = held.take() as DelayedPacket<Tag>
    run.offset = buffer + used
    run.packetBytes = length
    run.count = 1
    run.lastBytes = length
    run.peer = port.peerOf(tag.from.source)
    run.from = tag.from
    run.identification = tag.identification
    arena.bytes.set(bytes.subarray(offset, offset + length), run.offset)
    used += (length + 63) & ~63
    countReceived(length)
    showTap(tag.outcome, run)
    return true
  }

  /** Delivers the next part of the inner run; false at its end. */
  const deliverPart = (run: ReceivedRun): boolean => {
    if (repeated >= 0) {
      setPart(run, repeated, repeated + 1)
      repeated = -1
      countReceived(run.lastBytes)
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

  const giveLayerBuffer = (): void => {
    if (buffer >= 0 && held.count === 0 && used === 0) {
      port.giveLayerBuffer(buffer)
      buffer = -1
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
        if (!hasDelivered && isInnerTaken) {
          // The device no longer uses any of the inner run.
          port.release()
          isInnerTaken = false
        }
        packets = 0
        next = 0
        if (!port.receive(inner)) return false
        isInnerTaken = true
        packets = inner.count
        decider.decide(arena.view, inner.offset, inner.packetBytes, packets)
      }
    },
    release: () => {
      hasDelivered = false
      used = 0
      if (next === packets && repeated < 0 && isInnerTaken) {
        port.release()
        isInnerTaken = false
      }
      giveLayerBuffer()
    },
    nextTimeout: held.nextTimeout,
    onTimeout: now => {
      if (held.onTimeout(now)) port.wake?.()
    },
    setDecider: newDecider => {
      // Without active rules the device has used the inner port directly, and may not have released its run yet.
      if (newDecider.active && !decider.active) isInnerTaken = true
      decider = newDecider
      decider.clear(packets)
      held.readyAll()
      if (held.count > 0) port.wake?.()
    },
    isIdle: () => held.count === 0 && used === 0 && next === packets && repeated < 0 && !isInnerTaken && !hasDelivered,
    close: () => {
      held.clear()
      used = 0
      giveLayerBuffer()
    },
  }
}
