/*
 * The sending half of a fault layer: packets are dropped, duplicated, reordered, corrupted and delayed before they are
 * sent. Bits are flipped after the port has written the ICRCs (`commit`) and before the run is sent. Delayed packets
 * are sent by `flush` and `onTimeout`, when the device no longer uses its reservation; until then their flow stays
 * open.
 */

import type { FaultCounters } from '../../../spec/faults.ts'
import { markedFlow } from '../../wire/flow.ts'
import type { FlowAddress, Port } from '../port.ts'
import type { FaultDecider } from './decider.ts'
import { createDelayQueue, type DelayedPacket, MAX_DELAYED_BYTES } from './delay-queue.ts'
import { countHits, DAMAGE, damage, LOSE, MARK, OVERTAKE, REPEAT, WAIT } from './kinds.ts'
import { headerBytesOf, MAX_REORDER_DELAY, MAX_REORDER_DISTANCE } from './limits.ts'

interface FaultySending {
  /** As in `Port`. */
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
  flush(): void
  closeFlow(flow: number): void
  nextTimeout(): number
  onTimeout(now: number): void
  /** Replaces the rules; delayed packets are sent in the next poll. */
  setDecider(decider: FaultDecider): void
  /** Whether no packet is delayed, so that the inner port can be used directly. */
  isIdle(): boolean
  close(): void
}

/** µs until ready packets are sent to a port that was full: such a port need not call `wake` when it has room again. */
const FULL_PORT_DELAY = 100

/** Data of a delayed packet. */
interface Tag {
  readonly flow: number
  /** Kinds that change the packet when it is sent (DAMAGE and MARK), and their random bits. */
  readonly changes: number
  readonly seed: number
}

/** `flowOf` returns the record of an open flow, or of a closed flow with delayed packets. */
export const createFaultySending = (
  port: Port,
  initialDecider: FaultDecider,
  faults: FaultCounters,
  flowOf: (flow: number) => FlowAddress,
): FaultySending => {
  const { arena } = port
  let decider = initialDecider
  const delayQueue = createDelayQueue<Tag>((rateLimits, time, length, { flow }) =>
    decider.departure(rateLimits, time, length + headerBytesOf(flowOf(flow))),
  )
  /** By flow: number of delayed packets, and of `closeFlow` calls that wait until these packets are sent. */
  const delayedByFlow = new Map<number, { packets: number; closes: number }>()
  /** When to send the ready packets, µs: immediately, or later if the port was full. */
  let readyDue = 0

  const closeFlow = (flow: number): void => {
    const delayed = delayedByFlow.get(flow)
    if (delayed === undefined) port.closeFlow(flow)
    else delayed.closes++
  }
  const onDelayedSent = (flow: number): void => {
    const delayed = delayedByFlow.get(flow)
    if (delayed === undefined || --delayed.packets > 0) return
    delayedByFlow.delete(flow)
    for (let i = 0; i < delayed.closes; i++) port.closeFlow(flow)
  }

  /** Copies a packet to the delay queue; arguments as in `DelayQueue.hold`. False if the queue is full. */
  const hold = (
    at: number,
    length: number,
    flow: number,
    changes: number,
    seed: number,
    passesLeft: number,
    delayTime: number,
    rateLimits: number,
  ): boolean => {
    if (!delayQueue.hold(arena.bytes, at, length, { flow, changes, seed }, passesLeft, delayTime, rateLimits))
      return false
    const delayed = delayedByFlow.get(flow)
    if (delayed === undefined) delayedByFlow.set(flow, { packets: 1, closes: 0 })
    else delayed.packets++
    return true
  }

  /**
   * Applies the faults of packet `packet` of the run, which is at `at` of the arena, except damage. True if the packet
   * is sent now.
   */
  const applyFaults = (packet: number, at: number, length: number, flow: number): boolean => {
    const { actions, randomBits, delays, rateLimits } = decider.decisions
    const action = actions[packet]
    if (action & LOSE) {
      countHits(faults, action & LOSE)
      return false
    }
    countHits(faults, action & (DAMAGE | REPEAT | MARK))
    const changes = action & (DAMAGE | MARK)
    const seed = randomBits[packet]
    const delayTime = delays[packet]
    if (action & REPEAT) {
      const passesLeft = action & WAIT ? Infinity : 0
      if (!hold(at, length, flow, changes, seed, passesLeft, delayTime, rateLimits[packet])) faults.overflowed++
    }
    if (action & WAIT) {
      const extraDelay = action & OVERTAKE ? MAX_REORDER_DELAY : 0
      if (hold(at, length, flow, changes, seed, Infinity, delayTime + extraDelay, rateLimits[packet])) {
        faults.delayed++
        countHits(faults, action & OVERTAKE)
      } else faults.overflowed++
      return false
    }
    if (
      action & OVERTAKE &&
      hold(at, length, flow, changes, seed, 1 + (seed % MAX_REORDER_DISTANCE), MAX_REORDER_DELAY, 0)
    ) {
      countHits(faults, action & OVERTAKE)
      return false
    }
    return true
  }

  /** The flow of the marked packets of `flow`; -1 if the port cannot open it, as without a route: then none arrives. */
  const openMarked = (flow: number): number => {
    try {
      return port.openFlow(markedFlow(flowOf(flow)))
    } catch {
      return -1
    }
  }

  const sendNow = (at: number, length: number, flow: number, changes: number, seed: number): void => {
    const damageBits = changes & DAMAGE
    // Without an ICRC, the receiver would not detect the corruption.
    if (damageBits !== 0) port.requireSeal(1)
    const marked = changes & MARK ? openMarked(flow) : -1
    port.commit(at, length, 1, length, marked < 0 ? flow : marked)
    // the port keeps the flow open until it has sent the packet
    if (marked >= 0) port.closeFlow(marked)
    if (damageBits !== 0) port.requireSeal(-1)
    damage(arena.bytes, at, length, damageBits, seed)
  }

  /** Sends ready delayed packets while the port accepts them. */
  const sendDelayed = (): void => {
    // Makes the second copies of duplicated packets ready: `passesLeft` 0.
    delayQueue.pass(0)
    let at = 0
    let end = 0
    while (delayQueue.ready > 0) {
      if (at + MAX_DELAYED_BYTES > end) {
        at = port.reserve(port.maxBytes)
        if (at < 0) return
        end = at + port.maxBytes
      }
      const { bytes, offset, length, tag } = delayQueue.take() as DelayedPacket<Tag>
      arena.bytes.set(bytes.subarray(offset, offset + length), at)
      sendNow(at, length, tag.flow, tag.changes, tag.seed)
      at += (length + 63) & ~63
      onDelayedSent(tag.flow)
    }
  }

  return {
    commit: (offset, packetBytes, count, lastBytes, flow) => {
      // A run outside of the arena is passed on, because the inner port throws for it.
      const isInside = offset >= 0 && offset + (count - 1) * packetBytes + lastBytes <= arena.bytes.length
      if (!isInside || !decider.decide(arena.view, offset, packetBytes, count, lastBytes, flowOf(flow))) {
        port.commit(offset, packetBytes, count, lastBytes, flow)
        delayQueue.pass(count)
        return
      }
      const { actions, randomBits } = decider.decisions
      for (let next = 0; next < count; ) {
        const first = next
        while (next < count && actions[next] === 0) next++
        const at = offset + first * packetBytes
        if (next > first) port.commit(at, packetBytes, next - first, next === count ? lastBytes : packetBytes, flow)
        else {
          const length = next === count - 1 ? lastBytes : packetBytes
          if (!applyFaults(next++, at, length, flow)) continue
          sendNow(at, length, flow, actions[first] & (DAMAGE | MARK), randomBits[first])
        }
        delayQueue.pass(next - first)
      }
    },
    flush: () => {
      if (delayQueue.count > 0) sendDelayed()
      port.flush()
    },
    closeFlow,
    // Ready packets need a timeout, because there may be no other poll.
    nextTimeout: () => (delayQueue.ready > 0 ? readyDue : delayQueue.nextTimeout()),
    onTimeout: now => {
      if (!delayQueue.onTimeout(now) && delayQueue.ready === 0) return
      sendDelayed()
      port.flush()
      readyDue = delayQueue.ready > 0 ? now + FULL_PORT_DELAY : 0
    },
    setDecider: newDecider => {
      decider = newDecider
      delayQueue.readyAll()
      if (delayQueue.count > 0) port.wake?.()
    },
    isIdle: () => delayQueue.count === 0,
    close: () => {
      delayQueue.clear()
      for (const [flow, { closes }] of delayedByFlow) for (let i = 0; i < closes; i++) port.closeFlow(flow)
      delayedByFlow.clear()
    },
  }
}
