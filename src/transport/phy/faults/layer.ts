/*
 * A fault layer: wraps any port and applies the fault rules (`--fault`, `userdma fault set`, rules.ts) to the packets
 * that the port sends and receives. Rules may change at any time. While no rule applies to this device and no packet is
 * delayed, the layer's functions for runs are the port's own, so the layer costs nothing.
 *
 * Randomness comes from seeds (decider.ts), time from the caller through `onTimeout`.
 */

import type { AllMembers } from '../../../base/wrapper.ts'
import { type FaultRule, noFaults } from '../../../faults/rule.ts'
import { type FaultCounters, type FaultRuleCounts, noFaultCounts, sumFaultRuleCounts } from '../../../spec/faults.ts'
import type { FlowAddress, Port, PortTap, ReceivedRun } from '../port.ts'
import { createFaultDecider, type FaultDecider } from './decider.ts'
import { createFaultyReceiving } from './receiving.ts'
import { createRecentLosses } from './recent-losses.ts'
import { createFaultySending } from './sending.ts'

export interface FaultPort extends Port {
  readonly faults: FaultCounters
  /**
   * Replaces all rules. Counts and random sequences restart, and delayed packets leave in the next poll. `rules`: those of
   * all devices; `device`: the current name of this port's device, if it was renamed. `kept`: by rule, the index that it
   * has had among the rules before: it goes on; undefined: it is new.
   */
  setFaults(rules: readonly FaultRule[], device?: string, kept?: readonly (number | undefined)[]): void
  /** While the link is down, all packets are lost, sent and received. Rules keep their counts and random sequences. */
  setLink(isUp: boolean): void
  /** By rule: its effects on this port since the last `setFaults`. */
  ruleCounts(): FaultRuleCounts[]
  /** The last rule that lost, damaged or delayed a packet to this queue pair, since `time`; undefined: none. */
  lossTo(qpn: number, time: number): FaultRule | undefined
}

const LINK_DOWN: readonly FaultRule[] = [{ ...noFaults, dir: 'both', drop: 1 }]

const noReceiver = (): null => null
const isAlwaysWaiting = (): boolean => true

/** State behind the accessors of a layer: the inner port, and properties that the layer's owner has set. */
interface LayerState {
  readonly port: Port
  ownReceiver: Port['receiver']
  ownTap: PortTap | null
  connect(): void
}

type AccessorProperties = Pick<Port, 'windowBytes' | 'sharedWindowBytes' | 'receiver' | 'wake' | 'tap'>

/** In a shared prototype, because an object with its own accessors is slow, and ports are read for every run. */
const accessors: AllMembers<AccessorProperties> & ThisType<LayerState> = {
  get windowBytes() {
    return this.port.windowBytes
  },
  get sharedWindowBytes() {
    return this.port.sharedWindowBytes
  },
  get receiver() {
    return this.ownReceiver
  },
  set receiver(receiver) {
    this.ownReceiver = receiver
    this.connect()
  },
  get wake() {
    return this.port.wake
  },
  set wake(wake) {
    this.port.wake = wake
  },
  get tap() {
    return this.ownTap
  },
  set tap(tap) {
    this.ownTap = tap
    this.connect()
  },
}

/**
 * Wraps a port. `device`: the device's name in rules. `now`: the clock of `lossTo`. `ownDecider`: decides about received
 * packets instead of rules, until `setFaults`.
 */
export const withFaults = (
  port: Port,
  device: string,
  initial: readonly FaultRule[] = [],
  now: () => number = () => 0,
  ownDecider?: FaultDecider,
): FaultPort => {
  const losses = createRecentLosses(now)
  const faults = noFaultCounts()
  let rules: readonly FaultRule[] = []
  let deviceName = device
  const deciderFor = (direction: 'sent' | 'received', ofRules = rules) =>
    createFaultDecider(ofRules, deviceName, direction, port.maxPackets, ofRules === rules ? losses.add : undefined)
  /** The decider of the rules after `before`. */
  const nextDecider = (
    direction: 'sent' | 'received',
    before: FaultDecider,
    kept: readonly (number | undefined)[],
  ): FaultDecider =>
    createFaultDecider(rules, deviceName, direction, port.maxPackets, losses.add, index => {
      const earlier = kept[index]
      return earlier === undefined ? undefined : before.stateOf(earlier)
    })
  // Those of the rules.
  let receivedRules = ownDecider ?? deciderFor('received')
  let sentRules = deciderFor('sent')
  // Those that decide: they differ while the link is down.
  let receivedDecider = receivedRules
  let sentDecider = sentRules
  let isUp = true
  /** By flow number: its addresses. Those of a closed flow stay, because delayed packets may need them. */
  const flows: FlowAddress[] = []

  const receiving = createFaultyReceiving(port, receivedDecider, faults, () => layer.ownTap)
  const sending = createFaultySending(port, sentDecider, faults, flow => flows[flow])

  /** Connects each direction with its half of the layer, or, if there is nothing to do, directly with the port. */
  const connect = (): void => {
    const receivesThroughLayer = receivedDecider.hasRules || !receiving.isIdle()
    const sendsThroughLayer = sentDecider.hasRules || !sending.isIdle()
    // Faults apply to packets only, so messages must not be passed without packets (`Port.receiverOf`).
    port.receiver = receivesThroughLayer ? null : layer.ownReceiver
    layer.receiverOf = sendsThroughLayer ? noReceiver : port.receiverOf
    layer.isWaiting = receivesThroughLayer ? isAlwaysWaiting : port.isWaiting
    layer.receive = receivesThroughLayer ? receive : port.receive
    layer.release = receivesThroughLayer ? release : port.release
    layer.commit = sendsThroughLayer ? sending.commit : port.commit
    layer.flush = sendsThroughLayer ? flush : port.flush
    layer.nextTimeout = receivesThroughLayer || sendsThroughLayer ? nextTimeout : port.nextTimeout
    layer.onTimeout = receivesThroughLayer || sendsThroughLayer ? onTimeout : port.onTimeout
    // The receiving half passes what it delivers to the tap itself, with the outcome of its faults.
    port.tap =
      layer.ownTap === null || !receivesThroughLayer
        ? layer.ownTap
        : run => {
            const isDelivered = run.outcome === 'passed' || run.outcome === 'marked'
            if (run.direction === 'sent' || !isDelivered) layer.ownTap?.(run)
          }
  }
  const receive = (run: ReceivedRun): boolean => {
    if (receiving.receive(run)) return true
    // Nothing was delivered, so no `release` may follow.
    if (!receivedDecider.hasRules && receiving.isIdle()) connect()
    return false
  }
  const release = (): void => {
    receiving.release()
    if (!receivedDecider.hasRules && receiving.isIdle()) connect()
  }
  const flush = (): void => {
    sending.flush()
    if (!sentDecider.hasRules && sending.isIdle()) connect()
  }
  const nextTimeout = (): number => Math.min(port.nextTimeout(), receiving.nextTimeout(), sending.nextTimeout())
  const onTimeout = (now: number): void => {
    if (port.nextTimeout() <= now) port.onTimeout(now)
    receiving.onTimeout(now)
    sending.onTimeout(now)
  }

  const setDeciders = (): void => {
    const didChangeBytes = receivedDecider.changesBytes
    receivedDecider = isUp ? receivedRules : deciderFor('received', LINK_DOWN)
    sentDecider = isUp ? sentRules : deciderFor('sent', LINK_DOWN)
    const { changesBytes } = receivedDecider
    if (changesBytes !== didChangeBytes) port.requireSeal(changesBytes ? 1 : -1)
    receiving.setDecider(receivedDecider)
    sending.setDecider(sentDecider)
    connect()
  }
  const setFaults = (
    newRules: readonly FaultRule[],
    device = deviceName,
    kept: readonly (number | undefined)[] = [],
  ): void => {
    rules = newRules
    deviceName = device
    receivedRules = nextDecider('received', receivedRules, kept)
    sentRules = nextDecider('sent', sentRules, kept)
    setDeciders()
  }

  const properties: AllMembers<Omit<FaultPort, keyof AccessorProperties>> & LayerState = {
    port,
    ownReceiver: port.receiver,
    ownTap: null,
    connect,
    arena: port.arena,
    scratch: port.scratch,
    counters: port.counters,
    faults,
    maxPackets: port.maxPackets,
    maxSinglePacketRun: port.maxSinglePacketRun,
    maxFlows: port.maxFlows,
    maxBytes: port.maxBytes,
    pathMtu: port.pathMtu,
    pathBytes: port.pathBytes,
    hasSourcePorts: port.hasSourcePorts,
    hasGroupSockets: port.hasGroupSockets,
    setFaults,
    setLink: isNowUp => {
      if (isNowUp === isUp) return
      isUp = isNowUp
      setDeciders()
    },
    ruleCounts: () =>
      rules.map((_, i) =>
        sumFaultRuleCounts(
          [receivedRules, sentRules].map(({ counts }) => counts[i]).filter(counts => counts !== undefined),
        ),
      ),
    lossTo: losses.since,

    addAddress: port.addAddress,
    removeAddress: port.removeAddress,
    joinGroup: port.joinGroup,
    setInterface: port.setInterface,
    leaveGroup: port.leaveGroup,
    setFabric: port.setFabric,
    openFlow: address => {
      const flow = port.openFlow(address)
      flows[flow] = address
      return flow
    },
    reopenFlow: port.reopenFlow,
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
    takeLayerBuffer: port.takeLayerBuffer,
    releaseLayerBuffer: port.releaseLayerBuffer,
    nextTimeout: port.nextTimeout,
    onTimeout: port.onTimeout,
    close: () => {
      if (receivedDecider.changesBytes) port.requireSeal(-1)
      rules = []
      receivedDecider = deciderFor('received')
      sentDecider = deciderFor('sent')
      receiving.close()
      sending.close()
      port.close()
    },
  }
  const layer: FaultPort & LayerState = Object.setPrototypeOf(properties, accessors)
  if (initial.length > 0) setFaults(initial)
  else if (ownDecider !== undefined) connect()
  return layer
}
