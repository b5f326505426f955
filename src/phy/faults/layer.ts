/*
 * A fault layer: wraps any port and applies the fault rules (`--fault`, `userdma fault set`, rules.ts) to what it sends
 * and receives. Rules may change at any time. While no rule applies to this device, the layer's functions are the
 * port's own, so it costs nothing; they are replaced when rules are set, each direction separately.
 *
 * Each device of a daemon has such a layer. A rule applies to received packets unless it names another direction, so a
 * packet between two devices of one daemon is subject to faults once. Randomness comes from seeds (dice.ts), time from
 * the caller through `onTimeout`.
 */

import { type FaultCounters, type FaultRuleCounts, noFaultCounts, sumFaultRuleCounts } from '../../spec/faults.ts'
import type { FlowAddress, Port, PortTap } from '../port.ts'
import { createFaultDice } from './dice.ts'
import { createFaultyReceiving } from './receiving.ts'
import type { FaultRule } from './rules.ts'
import { createFaultySending } from './sending.ts'

export interface FaultPort extends Port {
  readonly faults: FaultCounters
  /**
   * Replaces the rules, those for other devices included; random sequences begin again, and delayed packets leave at
   * once. `device`: its name from now on.
   */
  setFaults(rules: readonly FaultRule[], device?: string): void
  /** Counts of the present rules on this port, by rule. */
  ruleCounts(): FaultRuleCounts[]
}

const noReceiver = (): null => null
const always = (): boolean => true

/** State behind the accessors of a layer. */
interface Wrapping {
  readonly port: Port
  listener: Port['receiver']
  viewer: PortTap | null
  settle(): void
}

type Watched = Pick<Port, 'windowBytes' | 'sharedWindowBytes' | 'receiver' | 'wake' | 'tap'>

/** Shared by all layers: an object with its own accessors is slow to read, and ports are read with every run. */
const accessors: Watched & ThisType<Wrapping> = {
  get windowBytes() {
    return this.port.windowBytes
  },
  get sharedWindowBytes() {
    return this.port.sharedWindowBytes
  },
  get receiver() {
    return this.listener
  },
  set receiver(wanted) {
    this.listener = wanted
    this.settle()
  },
  get wake() {
    return this.port.wake
  },
  set wake(wake) {
    this.port.wake = wake
  },
  get tap() {
    return this.viewer
  },
  set tap(wanted) {
    this.viewer = wanted
    this.settle()
  },
}

/** `device`: the name that rules use. */
export const withFaults = (port: Port, device: string, initial: readonly FaultRule[] = []): FaultPort => {
  const faults = noFaultCounts()
  let rules: readonly FaultRule[] = []
  let name = device
  const diceFor = (direction: 'sent' | 'received') => createFaultDice(rules, name, direction, port.maxPackets)
  let arriving = diceFor('received')
  let leaving = diceFor('sent')
  /** By flow that was ever opened, its record. */
  const flows: FlowAddress[] = []

  const receiving = createFaultyReceiving(port, arriving, faults, () => layer.viewer)
  const sending = createFaultySending(port, leaving, faults, flow => flows[flow])

  /** Connects each direction with its half of the layer, or directly with the port. */
  const settle = (): void => {
    const inFaulty = arriving.active || !receiving.isIdle()
    const outFaulty = leaving.active || !sending.isIdle()
    // faults apply to packets only
    port.receiver = inFaulty ? null : layer.listener
    layer.receiverOf = outFaulty ? noReceiver : port.receiverOf
    layer.isWaiting = inFaulty ? always : port.isWaiting
    layer.receive = inFaulty ? receiving.receive : port.receive
    layer.release = inFaulty ? release : port.release
    layer.commit = outFaulty ? sending.commit : port.commit
    layer.flush = outFaulty ? flush : port.flush
    layer.nextTimeout = inFaulty || outFaulty ? nextTimeout : port.nextTimeout
    layer.onTimeout = inFaulty || outFaulty ? onTimeout : port.onTimeout
    // our half shows the tap what the inner port received, once its outcome is decided
    port.tap =
      layer.viewer === null || !inFaulty
        ? layer.viewer
        : run => {
            if (run.direction === 'sent' || run.outcome !== 'passed') layer.viewer?.(run)
          }
  }
  const release = (): void => {
    receiving.release()
    if (!arriving.active && receiving.isIdle()) settle()
  }
  const flush = (): void => {
    sending.flush()
    if (!leaving.active && sending.isIdle()) settle()
  }
  const nextTimeout = (): number => Math.min(port.nextTimeout(), receiving.nextTimeout(), sending.nextTimeout())
  const onTimeout = (now: number): void => {
    if (port.nextTimeout() <= now) port.onTimeout(now)
    receiving.onTimeout(now)
    sending.onTimeout(now)
  }

  const setFaults = (wanted: readonly FaultRule[], device = name): void => {
    const corrupted = arriving.corrupts || leaving.corrupts
    rules = wanted
    name = device
    arriving = diceFor('received')
    leaving = diceFor('sent')
    const corrupts = arriving.corrupts || leaving.corrupts
    if (corrupts !== corrupted) port.requireSeal(corrupts ? 1 : -1)
    receiving.setDice(arriving)
    sending.setDice(leaving)
    settle()
  }

  const own: Omit<FaultPort, keyof Watched> & Wrapping = {
    port,
    listener: port.receiver,
    viewer: null,
    settle,
    arena: port.arena,
    scratch: port.scratch,
    counters: port.counters,
    faults,
    maxPackets: port.maxPackets,
    soonPackets: port.soonPackets,
    maxBytes: port.maxBytes,
    pathMtu: port.pathMtu,
    setFaults,
    ruleCounts: () =>
      rules.map((_, i) =>
        sumFaultRuleCounts([arriving, leaving].map(({ counts }) => counts[i]).filter(counts => counts !== undefined)),
      ),

    addAddress: port.addAddress,
    removeAddress: port.removeAddress,
    joinGroup: port.joinGroup,
    ...(port.moveTo !== undefined && { moveTo: port.moveTo }),
    leaveGroup: port.leaveGroup,
    openFlow: address => {
      const flow = port.openFlow(address)
      flows[flow] = address
      return flow
    },
    holdFlow: port.holdFlow,
    closeFlow: sending.closeFlow,
    peerOf: port.peerOf,
    reserve: port.reserve,
    commit: port.commit,
    flush: port.flush,
    receive: port.receive,
    release: port.release,

    staging: port.staging,
    receiverOf: port.receiverOf,
    peerAt: port.peerAt,
    isWaiting: port.isWaiting,

    requireSeal: port.requireSeal,
    takeRoom: port.takeRoom,
    giveRoom: port.giveRoom,
    nextTimeout: port.nextTimeout,
    onTimeout: port.onTimeout,
    close: () => {
      if (arriving.corrupts || leaving.corrupts) port.requireSeal(-1)
      rules = []
      arriving = diceFor('received')
      leaving = diceFor('sent')
      receiving.close()
      sending.close()
      port.close()
    },
  }
  const layer: FaultPort & Wrapping = Object.setPrototypeOf(own, accessors)
  if (initial.length > 0) setFaults(initial)
  return layer
}
