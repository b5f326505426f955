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
   * Replaces all rules. Counts and random sequences restart, and delayed packets leave in the next poll. `rules`: those
   * of all devices; `device`: the current name of this port's device, if it was renamed. `kept`: by rule, the index
   * that it has had among the rules before: it goes on; undefined: it is new.
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

/** Decides what happens to the packets of a port: by the rules, or while its link is down all are lost. */
class LayerDeciders {
  /** These decide. They are not those of the rules while the link is down. */
  received: FaultDecider
  sent: FaultDecider
  isUp = true
  #receivedRules: FaultDecider
  #sentRules: FaultDecider
  #rules: readonly FaultRule[] = []
  #device: string
  readonly #maxPackets: number
  readonly #noteLoss: ReturnType<typeof createRecentLosses>['add']
  readonly #links: Port['links']

  constructor(
    device: string,
    maxPackets: number,
    noteLoss: ReturnType<typeof createRecentLosses>['add'],
    ownDecider: FaultDecider | undefined,
    links: Port['links'],
  ) {
    this.#device = device
    this.#maxPackets = maxPackets
    this.#noteLoss = noteLoss
    this.#links = links
    this.#receivedRules = ownDecider ?? this.#ofRules('received', [])
    this.#sentRules = this.#ofRules('sent', [])
    this.received = this.#receivedRules
    this.sent = this.#sentRules
  }

  /** As `FaultPort.setFaults`, before `choose`. */
  setRules(rules: readonly FaultRule[], device = this.#device, kept: readonly (number | undefined)[] = []): void {
    this.#rules = rules
    this.#device = device
    this.#receivedRules = this.#next('received', this.#receivedRules, kept)
    this.#sentRules = this.#next('sent', this.#sentRules, kept)
  }

  /** Chooses `received` and `sent`. */
  choose(): void {
    this.received = this.isUp ? this.#receivedRules : this.#ofRules('received', LINK_DOWN)
    this.sent = this.isUp ? this.#sentRules : this.#ofRules('sent', LINK_DOWN)
  }

  /** From now on nothing happens to packets. */
  clear(): void {
    this.#rules = []
    this.received = this.#ofRules('received', [])
    this.sent = this.#ofRules('sent', [])
  }

  /** As `FaultPort.ruleCounts`. */
  counts(): FaultRuleCounts[] {
    return this.#rules.map((_, i) =>
      sumFaultRuleCounts(
        [this.#receivedRules, this.#sentRules].map(({ counts }) => counts[i]).filter(counts => counts !== undefined),
      ),
    )
  }

  #ofRules(direction: 'sent' | 'received', rules: readonly FaultRule[]): FaultDecider {
    return createFaultDecider(rules, this.#device, direction, this.#maxPackets)
  }

  /** The decider of the rules after `before`. */
  #next(direction: 'sent' | 'received', before: FaultDecider, kept: readonly (number | undefined)[]): FaultDecider {
    const stateOf = (index: number): ReturnType<FaultDecider['stateOf']> => {
      const earlier = kept[index]
      return earlier === undefined ? undefined : before.stateOf(earlier)
    }
    const [rules, device, maxPackets] = [this.#rules, this.#device, this.#maxPackets]
    return createFaultDecider(rules, device, direction, maxPackets, this.#noteLoss, stateOf, this.#links)
  }
}

/**
 * Wraps a port. `device`: the device's name in rules. `now`: the clock of `lossTo`. `ownDecider`: decides about
 * received packets instead of rules, until `setFaults`.
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
  const deciders = new LayerDeciders(device, port.maxPackets, losses.add, ownDecider, port.links)
  /** By flow number: its addresses. Those of a closed flow stay, because delayed packets may need them. */
  const flows: FlowAddress[] = []

  const receiving = createFaultyReceiving(port, deciders.received, faults, () => layer.ownTap)
  const sending = createFaultySending(port, deciders.sent, faults, flow => flows[flow])

  /** Connects each direction with its half of the layer, or, if there is nothing to do, directly with the port. */
  const connect = (): void => {
    const receivesThroughLayer = deciders.received.hasRules || !receiving.isIdle()
    const sendsThroughLayer = deciders.sent.hasRules || !sending.isIdle()
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
    if (!deciders.received.hasRules && receiving.isIdle()) connect()
    return false
  }
  const release = (): void => {
    receiving.release()
    if (!deciders.received.hasRules && receiving.isIdle()) connect()
  }
  const flush = (): void => {
    sending.flush()
    if (!deciders.sent.hasRules && sending.isIdle()) connect()
  }
  const nextTimeout = (): number => Math.min(port.nextTimeout(), receiving.nextTimeout(), sending.nextTimeout())
  const onTimeout = (now: number): void => {
    if (port.nextTimeout() <= now) port.onTimeout(now)
    receiving.onTimeout(now)
    sending.onTimeout(now)
  }

  const setDeciders = (): void => {
    const didChangeBytes = deciders.received.changesBytes
    deciders.choose()
    const { changesBytes } = deciders.received
    if (changesBytes !== didChangeBytes) port.requireSeal(changesBytes ? 1 : -1)
    receiving.setDecider(deciders.received)
    sending.setDecider(deciders.sent)
    connect()
  }
  const setFaults: FaultPort['setFaults'] = (...rules) => {
    deciders.setRules(...rules)
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
    hasRoceV1: port.hasRoceV1,
    hasGroupSockets: port.hasGroupSockets,
    links: port.links,
    hopLimitOf: port.hopLimitOf,
    routerTo: port.routerTo,
    setFaults,
    setLink: isNowUp => {
      if (isNowUp === deciders.isUp) return
      deciders.isUp = isNowUp
      setDeciders()
    },
    ruleCounts: () => deciders.counts(),
    lossTo: losses.since,

    addAddress: port.addAddress,
    vlanOf: port.vlanOf,
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
    recordOf: port.recordOf,
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
      if (deciders.received.changesBytes) port.requireSeal(-1)
      deciders.clear()
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
