/*
 * A port with a bad link: wraps any port and does to what it sends and receives what the fault rules say (those of
 * `--fault` and `userdma fault set`, fault-spec.ts). Rules change while packets flow. While there are none for this
 * device the layer's functions are the port's own, so that it costs nothing; they are exchanged when rules come, each
 * direction by itself.
 *
 * Each device of a daemon has such a layer. A rule is for arriving packets unless it says otherwise, so that a packet
 * between two devices of one daemon meets faults once. Chance comes from seeds (chance.ts), time from the caller
 * through `onTimeout`. Of packets only BTH.opcode and BTH.destQP are looked at.
 */
import { createChance, type RuleCounts } from './chance.ts'
import { type FaultCounters, noFaultCounts } from './fault-counters.ts'
import type { FaultRule } from './fault-spec.ts'
import { createFaultyReceiving } from './faults-receiving.ts'
import { createFaultySending } from './faults-sending.ts'
import type { FlowAddress, Port, PortTap } from './port.ts'

export interface FaultPort extends Port {
  readonly faults: FaultCounters
  /**
   * Other rules from now on, those for other devices included; their random sequences begin again. What was held back
   * leaves at once.
   */
  setFaults(rules: readonly FaultRule[]): void
  /** What the present rules have done here, by rule. */
  ruleCounts(): RuleCounts[]
}

/** `device`: the name that rules use. */
const nobody = (): null => null
const always = (): boolean => true

export const withFaults = (port: Port, device: string, initial: readonly FaultRule[] = []): FaultPort => {
  const faults = noFaultCounts()
  let rules: readonly FaultRule[] = []
  const chanceFor = (direction: 'sent' | 'received') => createChance(rules, device, direction, port.maxPackets)
  let arriving = chanceFor('received')
  let leaving = chanceFor('sent')
  let tap: PortTap | null = null
  let receiver = port.receiver
  /** By flow that was ever opened, its record. */
  const flows: FlowAddress[] = []

  const receiving = createFaultyReceiving(port, arriving, faults, () => tap)
  const sending = createFaultySending(port, leaving, faults, flow => flows[flow])

  /** Lets each direction go through its half, or past it. */
  const settle = (): void => {
    const inFaulty = arriving.active || !receiving.isIdle()
    const outFaulty = leaving.active || !sending.isIdle()
    // faults are for packets
    port.receiver = inFaulty ? null : receiver
    layer.receiverOf = outFaulty ? nobody : port.receiverOf
    layer.isWaiting = inFaulty ? always : port.isWaiting
    layer.receive = inFaulty ? receiving.receive : port.receive
    layer.release = inFaulty ? release : port.release
    layer.commit = outFaulty ? sending.commit : port.commit
    layer.flush = outFaulty ? flush : port.flush
    layer.nextTimeout = inFaulty || outFaulty ? nextTimeout : port.nextTimeout
    layer.onTimeout = inFaulty || outFaulty ? onTimeout : port.onTimeout
    // What the inner port received is shown by our half, when its fate is known.
    port.tap =
      tap === null || !inFaulty
        ? tap
        : run => {
            if (run.direction === 'sent' || run.fate !== 'passed') tap?.(run)
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

  const setFaults = (wanted: readonly FaultRule[]): void => {
    const corrupted = arriving.corrupts || leaving.corrupts
    rules = wanted
    arriving = chanceFor('received')
    leaving = chanceFor('sent')
    const corrupts = arriving.corrupts || leaving.corrupts
    if (corrupts !== corrupted) port.requireSeal(corrupts ? 1 : -1)
    receiving.setChance(arriving)
    sending.setChance(leaving)
    settle()
  }

  const layer: FaultPort = {
    arena: port.arena,
    scratch: port.scratch,
    counters: port.counters,
    faults,
    maxPackets: port.maxPackets,
    soonPackets: port.soonPackets,
    maxBytes: port.maxBytes,
    pathMtu: port.pathMtu,
    get windowBytes() {
      return port.windowBytes
    },
    get sharedWindowBytes() {
      return port.sharedWindowBytes
    },
    setFaults,
    ruleCounts: () =>
      rules.map((_, i) => {
        const sum = { matched: 0, dropped: 0, duplicated: 0, reordered: 0, corrupted: 0 }
        for (const { counts } of [arriving, leaving])
          for (const [name, count] of Object.entries(counts[i] ?? {})) sum[name as keyof RuleCounts] += count
        return sum
      }),

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
    closeFlow: sending.closeFlow,
    peerOf: port.peerOf,
    reserve: port.reserve,
    commit: port.commit,
    flush: port.flush,
    receive: port.receive,
    release: port.release,

    get receiver() {
      return receiver
    },
    set receiver(wanted) {
      receiver = wanted
      settle()
    },
    staging: port.staging,
    receiverOf: port.receiverOf,
    peerAt: port.peerAt,
    isWaiting: port.isWaiting,

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
      settle()
    },
    requireSeal: port.requireSeal,
    takeRoom: port.takeRoom,
    giveRoom: port.giveRoom,
    nextTimeout: port.nextTimeout,
    onTimeout: port.onTimeout,
    close: () => {
      if (arriving.corrupts || leaving.corrupts) port.requireSeal(-1)
      rules = []
      arriving = chanceFor('received')
      leaving = chanceFor('sent')
      receiving.close()
      sending.close()
      port.close()
    },
  }
  if (initial.length > 0) setFaults(initial)
  return layer
}
