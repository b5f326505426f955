/*
 * A fault layer: wraps any port and applies the fault rules (`--fault`, `userdma fault set`, rules.ts) to the packets
 * that it sends and receives. Rules may change at any time. While no rule applies to this device, the layer's functions
 * are the port's own, so it costs nothing; they are replaced when rules are set, each direction separately.
 *
 * Each device of a daemon has such a layer. A rule applies to received packets unless it selects another direction, so
 * a packet between two devices of one daemon is subject to it once. Randomness comes from seeds (decider.ts), time from
 * the caller through `onTimeout`.
 */

import { type FaultCounters, type FaultRuleCounts, noFaultCounts, sumFaultRuleCounts } from '../../spec/faults.ts'
import type { FlowAddress, Port, PortTap } from '../port.ts'
import { createFaultDecider } from './decider.ts'
import { createFaultyReceiving } from './receiving.ts'
import type { FaultRule } from './rules.ts'
import { createFaultySending } from './sending.ts'

export interface FaultPort extends Port {
  readonly faults: FaultCounters
  /**
   * Replaces all rules, including those for other devices. Random sequences restart, and delayed packets leave
   * immediately. `device`: its new name.
   */
  setFaults(rules: readonly FaultRule[], device?: string): void
  /** Counts of the current rules on this port, by rule. */
  ruleCounts(): FaultRuleCounts[]
}

const noReceiver = (): null => null
const isAlwaysWaiting = (): boolean => true

/** State behind the accessors of a layer. */
interface LayerState {
  readonly port: Port
  listener: Port['receiver']
  viewer: PortTap | null
  connect(): void
}

type Watched = Pick<Port, 'windowBytes' | 'sharedWindowBytes' | 'receiver' | 'wake' | 'tap'>

/**
 * Accessors in a shared prototype: an object with its own accessors is slow to read, and ports are read for every run.
 */
const accessors: Watched & ThisType<LayerState> = {
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
    this.connect()
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
    this.connect()
  },
}

/** `device`: its name in rules. */
export const withFaults = (port: Port, device: string, initial: readonly FaultRule[] = []): FaultPort => {
  const faults = noFaultCounts()
  let rules: readonly FaultRule[] = []
  let name = device
  const deciderFor = (direction: 'sent' | 'received') => createFaultDecider(rules, name, direction, port.maxPackets)
  let receivedDecider = deciderFor('received')
  let sentDecider = deciderFor('sent')
  /** Record of each flow, also of closed ones. */
  const flows: FlowAddress[] = []

  const receiving = createFaultyReceiving(port, receivedDecider, faults, () => layer.viewer)
  const sending = createFaultySending(port, sentDecider, faults, flow => flows[flow])

  /** Connects each direction with its half of the layer, or directly with the port. */
  const connect = (): void => {
    const inFaulty = receivedDecider.active || !receiving.isIdle()
    const outFaulty = sentDecider.active || !sending.isIdle()
    // Faults apply to packets only, so messages without packets are off.
    port.receiver = inFaulty ? null : layer.listener
    layer.receiverOf = outFaulty ? noReceiver : port.receiverOf
    layer.isWaiting = inFaulty ? isAlwaysWaiting : port.isWaiting
    layer.receive = inFaulty ? receiving.receive : port.receive
    layer.release = inFaulty ? release : port.release
    layer.commit = outFaulty ? sending.commit : port.commit
    layer.flush = outFaulty ? flush : port.flush
    layer.nextTimeout = inFaulty || outFaulty ? nextTimeout : port.nextTimeout
    layer.onTimeout = inFaulty || outFaulty ? onTimeout : port.onTimeout
    // The layer shows received packets to the tap itself, after deciding about them.
    port.tap =
      layer.viewer === null || !inFaulty
        ? layer.viewer
        : run => {
            if (run.direction === 'sent' || run.outcome !== 'passed') layer.viewer?.(run)
          }
  }
  const release = (): void => {
    receiving.release()
    if (!receivedDecider.active && receiving.isIdle()) connect()
  }
  const flush = (): void => {
    sending.flush()
    if (!sentDecider.active && sending.isIdle()) connect()
  }
  const nextTimeout = (): number => Math.min(port.nextTimeout(), receiving.nextTimeout(), sending.nextTimeout())
  const onTimeout = (now: number): void => {
    if (port.nextTimeout() <= now) port.onTimeout(now)
    receiving.onTimeout(now)
    sending.onTimeout(now)
  }

  const setFaults = (wanted: readonly FaultRule[], device = name): void => {
    const corrupted = receivedDecider.corrupts || sentDecider.corrupts
    rules = wanted
    name = device
    receivedDecider = deciderFor('received')
    sentDecider = deciderFor('sent')
    const corrupts = receivedDecider.corrupts || sentDecider.corrupts
    if (corrupts !== corrupted) port.requireSeal(corrupts ? 1 : -1)
    receiving.setDecider(receivedDecider)
    sending.setDecider(sentDecider)
    connect()
  }

  const own: Omit<FaultPort, keyof Watched> & LayerState = {
    port,
    listener: port.receiver,
    viewer: null,
    connect: connect,
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
        sumFaultRuleCounts(
          [receivedDecider, sentDecider].map(({ counts }) => counts[i]).filter(counts => counts !== undefined),
        ),
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
      if (receivedDecider.corrupts || sentDecider.corrupts) port.requireSeal(-1)
      rules = []
      receivedDecider = deciderFor('received')
      sentDecider = deciderFor('sent')
      receiving.close()
      sending.close()
      port.close()
    },
  }
  const layer: FaultPort & LayerState = Object.setPrototypeOf(own, accessors)
  if (initial.length > 0) setFaults(initial)
  return layer
}
