/*
 * A port with a bad link: wraps any port and loses, repeats, reorders, spoils and delays what arrives there (the faults
 * of `--fault`). It works on arriving packets, since only behind the sender's ICRC can bits be flipped as a cable flips
 * them; each device of a daemon has such a layer, so a packet between two devices meets faults once in each direction.
 *
 * It works packet by packet: a run is handed on in pieces where a fault hits. What is held back is copied into room in
 * the arena that the port lends. Chance comes from a seed, and each packet uses up the same part of the random sequence
 * however packets are cut into runs; time comes from the caller through `onTimeout`. Knows no queue pairs and no
 * opcodes.
 */

import { ROCE_UDP_PORT } from '../spec/headers.ts'
import { makeFlow, verifyIcrc } from '../wire/icrc.ts'
import { type FaultSpec, hasFaults, noFaults } from './fault-spec.ts'
import { createHeldPackets } from './held.ts'
import { emptyRun, emptyTappedRun, type Fate, type Port, type PortTap, type ReceivedRun } from './port.ts'
import { createRandom } from './random.ts'

export interface FaultCounters {
  dropped: number
  duplicated: number
  reordered: number
  corrupted: number
  delayed: number
  /** Delayed packets that were lost because too many were held back. */
  overflowed: number
}

export interface FaultPort extends Port {
  readonly faults: FaultCounters
  readonly spec: FaultSpec
  /**
   * Other faults from now on; the random sequence begins again. What is held back and no longer has a reason leaves at
   * once.
   */
  setFaults(spec: FaultSpec, seed?: number): void
}

/** Packets that pass a reordered one at most. */
export const MAX_PASSING = 8
/** Microseconds after which a reordered packet arrives although fewer have passed it. */
const REORDER_PATIENCE = 1000
const DROP = 1
const CORRUPT = 2
const DUP = 4
const REORDER = 8

export const withFaults = (port: Port, initial: FaultSpec, seed: number = initial.seed): FaultPort => {
  const { arena, counters } = port
  const faults: FaultCounters = { dropped: 0, duplicated: 0, reordered: 0, corrupted: 0, delayed: 0, overflowed: 0 }
  let spec = noFaults
  let active = false
  let random = createRandom(seed)

  // The run of the inner port that is being handed on, from packet `next` on, and what chance has in store for its
  // packets.
  const inner = emptyRun()
  let next = 0
  let packets = 0
  let actions = new Uint8Array(port.maxPackets)
  let extras = new Float64Array(port.maxPackets)
  /** The packet is handed on a second time. */
  let again = -1
  /** Whether something was handed on, or taken from the inner port, since the last release. */
  let handedOn = false
  let innerTaken = false

  const held = createHeldPackets(port)

  let tap: PortTap | null = null
  const tapped = emptyTappedRun(arena, 'received')
  const showTap = (fate: Fate, run: ReceivedRun): void => {
    if (tap === null) return
    const { offset, packetBytes, count, lastBytes, from: flow, identification } = run
    Object.assign(tapped, { fate, offset, packetBytes, count, lastBytes, flow, identification })
    tap(tapped)
  }
  const lengthOf = (packet: number): number => (packet === packets - 1 ? inner.lastBytes : inner.packetBytes)
  const offsetOf = (packet: number): number => inner.offset + packet * inner.packetBytes

  /** Fills `run` with packets [from, end) of the inner run. */
  const pieceOf = (run: ReceivedRun, from: number, end: number): void => {
    run.offset = offsetOf(from)
    run.packetBytes = inner.packetBytes
    run.count = end - from
    run.lastBytes = lengthOf(end - 1)
    run.peer = inner.peer
    run.from = inner.from
    run.identification = inner.identification + from
  }
  const single = emptyRun()
  const showPacket = (fate: Fate, packet: number): void => {
    if (tap === null) return
    pieceOf(single, packet, packet + 1)
    showTap(fate, single)
  }
  const uncount = (length: number): void => {
    counters.receivedPackets--
    counters.receivedBytes -= length
  }
  const recount = (length: number): void => {
    counters.receivedPackets++
    counters.receivedBytes += length
  }

  const hits = (rate: number): boolean => rate > 0 && random() < rate * 2 ** 32
  const drawActions = (): void => {
    if (actions.length < packets) {
      actions = new Uint8Array(packets)
      extras = new Float64Array(packets)
    }
    for (let i = 0; i < packets; i++) {
      const action =
        (hits(spec.drop) ? DROP : 0) |
        (hits(spec.corrupt) ? CORRUPT : 0) |
        (hits(spec.dup) ? DUP : 0) |
        (hits(spec.reorder) ? REORDER : 0)
      actions[i] = action
      if (action !== 0 || spec.jitter > 0) extras[i] = random()
    }
  }

  /** Copies a packet away; false if there is no place. */
  const hold = (packet: number, fate: Fate, passing: number, wait: number): boolean =>
    held.hold(offsetOf(packet), lengthOf(packet), inner.from, inner.identification + packet, fate, passing, wait)

  /** Flips one to three bits; true if the ICRC does not notice (bits that it does not cover, or twice the same bit). */
  const corrupt = (packet: number): boolean => {
    const at = offsetOf(packet)
    const length = lengthOf(packet)
    const chance = createRandom(extras[packet])
    for (let flips = 1 + (chance() % 3); flips > 0; flips--) {
      const bit = chance() % (length * 8)
      arena.bytes[at + (bit >> 3)] ^= 1 << (bit & 7)
    }
    faults.corrupted++
    const flow = makeFlow({ ...inner.from, destinationPort: ROCE_UDP_PORT })
    return verifyIcrc(arena, at, length, flow, inner.identification + packet)
  }

  const delayOf = (packet: number): number => 1000 * (spec.delay + spec.jitter * (2 * (extras[packet] / 2 ** 32) - 1))

  /**
   * What becomes of packet `next`, which is not just passed on: true if it is to be handed on now all the same, once or
   * (`again`) twice; false if it is lost or held back.
   */
  const strike = (packet: number): boolean => {
    const action = actions[packet]
    const length = lengthOf(packet)
    if (action & DROP) {
      faults.dropped++
      uncount(length)
      showPacket('dropped', packet)
      return false
    }
    if (action & DUP) {
      faults.duplicated++
      if (spec.delay > 0) {
        if (!hold(packet, 'duplicated', Number.POSITIVE_INFINITY, delayOf(packet))) faults.overflowed++
      } else again = packet
    }
    if (action & CORRUPT && !corrupt(packet)) {
      // A repeated packet is spoilt as a whole: both copies have the same bytes.
      counters.icrcErrors++
      uncount(length)
      showPacket('corrupted', packet)
      if (again === packet) {
        again = -1
        counters.icrcErrors++
        showPacket('corrupted', packet)
      }
      return false
    }
    if (spec.delay > 0) {
      const wait = delayOf(packet) + (action & REORDER ? REORDER_PATIENCE : 0)
      uncount(length)
      if (hold(packet, 'delayed', Number.POSITIVE_INFINITY, wait)) {
        faults.delayed++
        if (action & REORDER) faults.reordered++
      } else {
        faults.overflowed++
        showPacket('dropped', packet)
      }
      return false
    }
    if (
      action & REORDER &&
      again < 0 &&
      hold(packet, 'reordered', 1 + (extras[packet] % MAX_PASSING), REORDER_PATIENCE)
    ) {
      faults.reordered++
      uncount(length)
      return false
    }
    return true
  }

  /** Hands on a packet that was held back and is ready. */
  const handHeld = (run: ReceivedRun): boolean => {
    const fate = held.take(run)
    if (fate === undefined) return false
    recount(run.lastBytes)
    showTap(fate, run)
    return true
  }

  /** Hands on the next piece of the inner run; false when it is used up. */
  const handPiece = (run: ReceivedRun): boolean => {
    if (again >= 0) {
      pieceOf(run, again, again + 1)
      again = -1
      recount(run.lastBytes)
      showTap('duplicated', run)
      return true
    }
    const delays = spec.delay > 0
    while (next < packets) {
      const first = next
      const limit = Math.min(packets, first + held.untilNext())
      if (!delays) while (next < limit && actions[next] === 0) next++
      // No clean packet: chance has something in store for this one.
      if (next === first && !strike(next++)) continue
      pieceOf(run, first, next)
      held.pass(next - first)
      showTap('passed', run)
      return true
    }
    return false
  }

  const setFaults = (wanted: FaultSpec, from: number = wanted.seed): void => {
    if (wanted.corrupt > 0 !== spec.corrupt > 0) port.requireSeal(wanted.corrupt > 0 ? 1 : -1)
    spec = wanted
    active = hasFaults(wanted)
    random = createRandom(from)
    // Packets already drawn for keep nothing of the former faults.
    actions.fill(0, next, packets)
    held.readyAll()
    if (held.count > 0) port.wake?.()
  }

  setFaults(initial, seed)

  return {
    arena,
    counters,
    faults,
    get spec() {
      return spec
    },
    maxPackets: port.maxPackets,
    maxBytes: port.maxBytes,
    pathMtu: port.pathMtu,
    get windowBytes() {
      return port.windowBytes
    },
    setFaults,

    addAddress: address => port.addAddress(address),
    openFlow: address => port.openFlow(address),
    closeFlow: flow => port.closeFlow(flow),
    peerOf: address => port.peerOf(address),
    reserve: bytes => port.reserve(bytes),
    commit: (offset, packetBytes, count, lastBytes, flow) => port.commit(offset, packetBytes, count, lastBytes, flow),
    flush: () => port.flush(),

    receive: run => {
      if (!active && held.count === 0 && next === packets && again < 0 && tap === null) {
        const received = port.receive(run)
        innerTaken ||= received
        handedOn ||= received
        return received
      }
      for (;;) {
        if ((held.count > 0 && handHeld(run)) || handPiece(run)) {
          handedOn = true
          return true
        }
        if (!handedOn && innerTaken) {
          // Nothing of what was taken so far is in anybody's hands.
          port.release()
          innerTaken = false
        }
        packets = 0
        next = 0
        if (!port.receive(inner)) return false
        innerTaken = true
        packets = inner.count
        drawActions()
      }
    },
    release: () => {
      handedOn = false
      held.release()
      if (next === packets && again < 0 && innerTaken) {
        port.release()
        innerTaken = false
      }
      if (!active) held.giveRooms()
    },

    get wake() {
      return port.wake
    },
    set wake(wake) {
      port.wake = wake
    },
    get tap() {
      return tap
    },
    set tap(wanted) {
      tap = wanted
      // What the inner port received is shown here, when its fate is known.
      port.tap =
        wanted === null
          ? null
          : run => {
              if (run.direction === 'sent' || run.fate !== 'passed') wanted(run)
            }
    },
    requireSeal: change => port.requireSeal(change),
    takeRoom: bytes => port.takeRoom(bytes),
    giveRoom: offset => port.giveRoom(offset),

    nextTimeout: () => Math.min(port.nextTimeout(), held.nextTimeout()),
    onTimeout: now => {
      if (port.nextTimeout() <= now) port.onTimeout(now)
      if (held.onTimeout(now)) port.wake?.()
    },
    close: () => {
      held.release()
      held.clear()
      held.giveRooms()
      if (spec.corrupt > 0) port.requireSeal(-1)
      spec = noFaults
      port.close()
    },
  }
}
