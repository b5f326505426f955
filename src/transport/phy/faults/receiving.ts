/*
 * The receiving half of a fault layer: received packets are dropped, duplicated, reordered, corrupted and delayed
 * before the device gets them. Corrupting flips bits without correcting the ICRC. A run is split where a fault applies.
 * Delayed packets are received from a buffer of the port (`Port.takeLayerBuffer`).
 */
import type { FaultCounters } from '../../../spec/faults.ts'
import { ROCE_UDP_PORT } from '../../../spec/wire/headers.ts'
import { ECN_CE, ECN_MASK, markedFlow } from '../../wire/flow.ts'
import { makeFlow, verifyIcrc } from '../../wire/icrc.ts'
import { isRoceV1 } from '../../wire/lrh.ts'
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
import { flowKeyOf } from './flows.ts'
import { countHits, DAMAGE, damage, HOLD, LOSE, MARK, OVERTAKE, REPEAT, WAIT } from './kinds.ts'
import { headerBytesOf, MAX_REORDER_DELAY, MAX_REORDER_DISTANCE } from './limits.ts'

interface FaultyReceiving {
  /** As in `Port`. */
  receive(run: ReceivedRun): boolean
  release(): void
  nextTimeout(): number
  onTimeout(now: number): void
  /** Replaces the rules. No fault applies to the rest of the current run; delayed packets are delivered at once. */
  setDecider(decider: FaultDecider): void
  /** Whether no packet is delayed and no run is unreleased, so that the inner port can be used directly. */
  isIdle(): boolean
  close(): void
}

/** Data of a delayed packet, for `ReceivedRun` and the tap. */
interface Tag {
  readonly flowAddress: FlowAddress
  readonly identification: number
  readonly outcome: TapOutcome
}

/** `tap` returns the current tap, which gets each packet with its outcome. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: per packet, with one queue
export const createFaultyReceiving = (
  port: Port,
  initialDecider: FaultDecider,
  faults: FaultCounters,
  tap: () => PortTap | null,
): FaultyReceiving => {
  const { arena, counters } = port
  let decider = initialDecider
  // The current run of the inner port, and its number of packets. Packets from `nextPacket` on are not delivered yet.
  const innerRun = emptyRun()
  let nextPacket = 0
  let innerPackets = 0
  /** Packet of the inner run to deliver a second time; -1: none. */
  let repeatedPacket = -1
  /** Whether the device has unreleased runs. */
  let hasDelivered = false
  /** Whether the layer has unreleased runs of the inner port. */
  let isInnerTaken = false

  const delayQueue = createDelayQueue<Tag>((rateLimits, time, length, { flowAddress }) =>
    decider.departure(rateLimits, time, length + headerBytesOf(flowAddress)),
  )
  /** Offset of the buffer for delayed packets (-1: none), and its bytes in use. */
  let layerBuffer = -1
  let usedBytes = 0

  const tapped = emptyTappedRun(arena, 'received')
  const showTap = (outcome: TapOutcome, run: ReceivedRun): void => {
    const currentTap = tap()
    if (currentTap === null) return
    const { offset, packetBytes, count, lastBytes, flowAddress: flow, identification } = run
    Object.assign(tapped, { outcome, offset, packetBytes, count, lastBytes, flow, identification })
    currentTap(tapped)
  }
  const lengthOf = (packet: number): number => (packet === innerPackets - 1 ? innerRun.lastBytes : innerRun.packetBytes)
  const offsetOf = (packet: number): number => innerRun.offset + packet * innerRun.packetBytes

  /** The flow of a packet of the inner run, marked if a rule marks the packet. */
  const flowOf = (packet: number): FlowAddress =>
    decider.decisions.actions[packet] & MARK ? markedFlow(innerRun.flowAddress) : innerRun.flowAddress
  /** Sets `run` to packets [first, end) of the inner run, of which several have no faults. */
  const setPart = (run: ReceivedRun, first: number, end: number): void => {
    run.offset = offsetOf(first)
    run.packetBytes = innerRun.packetBytes
    run.count = end - first
    run.lastBytes = lengthOf(end - 1)
    run.peer = innerRun.peer
    run.flowAddress = flowOf(first)
    run.identification = innerRun.identification + first
  }
  const packetRun = emptyRun()
  const showPacket = (outcome: TapOutcome, packet: number): void => {
    if (tap() === null) return
    setPart(packetRun, packet, packet + 1)
    showTap(outcome, packetRun)
  }
  /** The inner port has counted the packet, which is not delivered now. */
  const uncount = (length: number): void => {
    counters.receivedPackets--
    counters.receivedBytes -= length
  }
  /** Counts a packet that is delivered late, or twice. */
  const countReceived = (length: number): void => {
    counters.receivedPackets++
    counters.receivedBytes += length
  }

  /** As `DelayQueue.hold`, for a packet of the inner run. False also if the port has no layer buffer. */
  const hold = (
    packet: number,
    outcome: TapOutcome,
    passesLeft: number,
    delayTime: number,
    rateLimits: number,
  ): boolean => {
    if (layerBuffer < 0) layerBuffer = port.takeLayerBuffer(port.maxBytes)
    const tag = { flowAddress: flowOf(packet), identification: innerRun.identification + packet, outcome }
    return (
      layerBuffer >= 0 &&
      delayQueue.hold(arena.bytes, offsetOf(packet), lengthOf(packet), tag, passesLeft, delayTime, rateLimits)
    )
  }

  /**
   * Changes a packet as each kind in `kinds` does. True if the ICRC is still correct: it does not cover all bits, and a
   * bit may be flipped twice.
   */
  const corrupt = (packet: number, kinds: number): boolean => {
    const at = offsetOf(packet)
    const length = lengthOf(packet)
    damage(arena.bytes, at, length, kinds, decider.decisions.randomBits[packet])
    countHits(faults, kinds)
    const flow = makeFlow({ ...innerRun.flowAddress, destinationPort: ROCE_UDP_PORT })
    return verifyIcrc(arena, at, length, flow, innerRun.identification + packet)
  }

  /** Delays a packet by its delay plus `extraDelay`, µs. If that is not possible, counts an overflow, returns false. */
  const delay = (packet: number, outcome: TapOutcome, extraDelay: number): boolean => {
    const { delays, rateLimits } = decider.decisions
    const isHeld = hold(packet, outcome, Number.POSITIVE_INFINITY, delays[packet] + extraDelay, rateLimits[packet])
    if (!isHeld) faults.overflowed++
    return isHeld
  }

  /**
   * Applies the faults of a packet of the inner run. True if the packet is delivered now, false if it is lost,
   * damaged or delayed. Sets `repeatedPacket` if a second copy is delivered now.
   */
  const applyFaults = (packet: number): boolean => {
    const { actions, randomBits } = decider.decisions
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
      // restored: the other members of a multicast group may have the same bytes
      damage(arena.bytes, offsetOf(packet), length, action & DAMAGE, randomBits[packet])
      return false
    }
    if (action & HOLD) {
      // Its flow may have been released since the decision.
      if (!decider.late?.has(arena.view, offsetOf(packet))) return true
      uncount(length)
      if (hold(packet, 'delayed', Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 0)) faults.delayed++
      else {
        faults.overflowed++
        showPacket('dropped', packet)
      }
      return false
    }
    countHits(faults, action & MARK)
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
      repeatedPacket = packet
    }
    if (!(action & OVERTAKE)) return true
    if (!hold(packet, 'reordered', 1 + (randomBits[packet] % MAX_REORDER_DISTANCE), MAX_REORDER_DELAY, 0)) return true
    countHits(faults, action & OVERTAKE)
    uncount(length)
    return false
  }

  /** Delivers a ready delayed packet, from the layer buffer. False if there is none, or if the buffer is full. */
  const deliverDelayed = (run: ReceivedRun): boolean => {
    if (delayQueue.ready === 0 || usedBytes + MAX_DELAYED_BYTES > port.maxBytes) return false
    const { bytes, offset, length, tag } = delayQueue.take() as DelayedPacket<Tag>
    run.offset = layerBuffer + usedBytes
    run.packetBytes = length
    run.count = 1
    run.lastBytes = length
    run.peer = port.peerOf(tag.flowAddress.source, isRoceV1(tag.flowAddress))
    run.flowAddress = tag.flowAddress
    run.identification = tag.identification
    arena.bytes.set(bytes.subarray(offset, offset + length), run.offset)
    usedBytes += (length + 63) & ~63
    countReceived(length)
    showTap(tag.outcome, run)
    return true
  }

  /** Delivers the next part of the inner run; false at its end. */
  const deliverPart = (run: ReceivedRun): boolean => {
    for (;;) {
      if (repeatedPacket >= 0) {
        setPart(run, repeatedPacket, repeatedPacket + 1)
        repeatedPacket = -1
        countReceived(run.lastBytes)
        showTap('duplicated', run)
        return true
      }
      if (nextPacket === innerPackets) return false
      const first = nextPacket
      const limit = Math.min(innerPackets, first + delayQueue.untilNext())
      const { actions } = decider.decisions
      while (nextPacket < limit && actions[nextPacket] === 0) nextPacket++
      // If no packet was free of faults, a fault applies to the first one.
      if (nextPacket === first && !applyFaults(nextPacket++)) continue
      setPart(run, first, nextPacket)
      delayQueue.pass(nextPacket - first)
      showTap((run.flowAddress.trafficClass & ECN_MASK) === ECN_CE ? 'marked' : 'passed', run)
      return true
    }
  }

  /** The packets of a flow wait no longer. */
  const release = (flow: number): void =>
    delayQueue.readyIf(
      ({ bytes, offset }) => flowKeyOf(new DataView(bytes.buffer, bytes.byteOffset + offset), 0) === flow,
    )

  const releaseLayerBuffer = (): void => {
    if (layerBuffer >= 0 && delayQueue.count === 0 && usedBytes === 0) {
      port.releaseLayerBuffer(layerBuffer)
      layerBuffer = -1
    }
  }

  return {
    receive: run => {
      for (;;) {
        if (deliverDelayed(run) || (delayQueue.ready === 0 && deliverPart(run))) {
          hasDelivered = true
          return true
        }
        // Ready packets wait for `release`, which frees space.
        if (delayQueue.ready > 0) return false
        innerPackets = 0
        nextPacket = 0
        if (!port.receive(innerRun)) {
          // The device got no packet of these runs, so no `release` follows. Not earlier: a `release` begins the next
          // poll of the port, so a flood of packets that are dropped would keep this loop running.
          if (!hasDelivered && isInnerTaken) {
            port.release()
            isInnerTaken = false
          }
          return false
        }
        isInnerTaken = true
        innerPackets = innerRun.count
        decider.decide(
          arena.view,
          innerRun.offset,
          innerRun.packetBytes,
          innerPackets,
          innerRun.lastBytes,
          innerRun.flowAddress,
        )
      }
    },
    release: () => {
      hasDelivered = false
      usedBytes = 0
      if (nextPacket === innerPackets && repeatedPacket < 0 && isInnerTaken) {
        port.release()
        isInnerTaken = false
      }
      releaseLayerBuffer()
    },
    nextTimeout: () => Math.min(delayQueue.nextTimeout(), decider.late?.nextTimeout() ?? Infinity),
    onTimeout: now => {
      const before = delayQueue.ready
      decider.late?.onTimeout(now, release)
      if (delayQueue.onTimeout(now) || delayQueue.ready > before) port.wake?.()
    },
    setDecider: newDecider => {
      decider.late?.releaseAll()
      // Without rules the device has used the inner port directly, and may not have released its run yet.
      if (newDecider.hasRules && !decider.hasRules) isInnerTaken = true
      decider = newDecider
      decider.clear(innerPackets)
      delayQueue.readyAll()
      if (delayQueue.count > 0) port.wake?.()
    },
    isIdle: () =>
      delayQueue.count === 0 &&
      usedBytes === 0 &&
      nextPacket === innerPackets &&
      repeatedPacket < 0 &&
      !isInnerTaken &&
      !hasDelivered,
    close: () => {
      delayQueue.clear()
      nextPacket = innerPackets
      repeatedPacket = -1
      usedBytes = 0
      releaseLayerBuffer()
    },
  }
}
