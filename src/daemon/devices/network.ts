/*
 * The network of a daemon: a memory link between its devices, or UDP sockets. Each port can inject faults and be
 * captured.
 */
import { startCapture } from '../../assembly/capture.ts'
import { checkFabricRules, checkLinkRules } from '../../assembly/fabric-rules.ts'
import { NetworkFaults } from '../../assembly/faults.ts'
import type { NetworkLink } from '../../assembly/link.ts'
import { didYouMean } from '../../base/suggest.ts'
import type { Identity } from '../../core/devices/identity.ts'
import type { FaultRule, RuleScope } from '../../faults/rule.ts'
import { checkRates, formatFaults, formatRule, MAX_DAEMON_RULES, parseFaults, sameRules } from '../../faults/rules.ts'
import { nowMicroseconds, realClock } from '../../host/event-loop/clock.ts'
import { appendBlock } from '../../host/output-file.ts'
import type { FaultCounters, FaultStat } from '../../spec/faults.ts'
import { createPcapng } from '../../tools/trace/pcapng.ts'
import type { FaultPort } from '../../transport/phy/faults/layer.ts'
import type { Port, PortTap } from '../../transport/phy/port.ts'
import { addTap } from '../../transport/phy/tap.ts'
import type { DaemonConfig, DeviceSpec, RuleMatches } from '../../uapi/tool.ts'
import { hasAddress } from './device-spec.ts'

export interface Network {
  /** Devices may have VLANs of their own: no system adds the tags. */
  readonly hasVlans: boolean
  /**
   * Creates the port of a device, and binds it over UDP, unless the driver has a port of its `own`. Throws an Error
   * with a message for people.
   */
  attach(device: DeviceSpec, identity: Identity, own?: Port): FaultPort
  /** Forgets a removed device. Its driver closes the port. */
  detach(device: string): void
  /** Renames a device, also in fault rules. */
  rename(device: string, name: string): void
  /** The current fault rules, as the text of `--fault`. */
  readonly faults: string
  /** How many of a device's packets were dropped, delayed, … since it was added. */
  faultsOf(device: string): FaultCounters | undefined
  /** The rules with their counts on the existing devices, since they were set. */
  faultCounts(): FaultStat[]
  /**
   * Replaces the fault rules. `keeps`: those that were there before go on with their counts and random sequences.
   * Throws an Error with a message for people: invalid rules, or no such soft device.
   */
  setFaults(text: string, keeps?: boolean): void
  /** Fulfilled when one of these rules has matched so often, or is no longer there, or the rules change. */
  untilMatched(matches: readonly RuleMatches[]): Promise<void>
  /**
   * Adds rules of a program, all with this scope. They stay until `endOwnRules`, and `setFaults` does not concern them.
   * Throws an Error with a message for people.
   */
  addOwnRules(scope: RuleScope, rules: readonly FaultRule[]): void
  endOwnRules(scope: RuleScope): void
  /**
   * Passes the runs of a device's port to `tap`, without ICRCs; returns a function that ends it. Undefined: no port.
   */
  tap(device: string, tap: PortTap): (() => void) | undefined
  /** The rules, and what they decide. */
  readonly rules: NetworkFaults
  /** Called after each change of the rules. Set once. */
  rulesChanged: () => void
  /**
   * Captures packets in a pcapng file: all that the existing devices send, or receive from elsewhere. The capture ends
   * when the returned function is called or a write fails. `isOwn`: whether one of these devices has an address (16
   * bytes); `failed`: called if a write fails. The caller closes the file. Throws the system's error if the first write
   * fails.
   */
  capture(fd: number, isOwn: (address: Uint8Array) => boolean, failed: (error: unknown) => void): () => void
}

/** Throws an Error with a message for people if a rule names a device that is not there. */
const checkDevicesOf = (rules: readonly FaultRule[], names: readonly string[]): void => {
  for (const { device } of rules)
    if (device !== '' && !names.includes(device))
      throw new Error(
        `fault device: there is no soft device "${device}"; there are ${names.join(', ') || 'none'}${didYouMean(device, names)}`,
      )
}

const hasFabric = ({ layer }: DeviceSpec): boolean => layer === 'infiniband'

/**
 * Parses fault rules for these soft devices. Throws an Error with a message for people: invalid text, or an unknown
 * device.
 */
const faultRules = (text: string, devices: readonly DeviceSpec[], fabric: string | undefined): FaultRule[] => {
  const rules = parseFaults(text, MAX_DAEMON_RULES)
  checkDevicesOf(
    rules,
    devices.map(({ name }) => name),
  )
  checkLinkRules(rules, undefined)
  checkFabricRules(rules, fabric, devices.some(hasFabric))
  return rules
}

export const createNetwork = (
  { devices, fault, fabric }: Pick<DaemonConfig, 'devices' | 'fault' | 'fabric'>,
  link: NetworkLink,
): Network => {
  /** Of those who wait for matches; `isChanged`: the rules are others. */
  const waiting = new Set<(isChanged: boolean) => void>()
  const look = (isChanged: boolean): void => {
    for (const one of waiting) one(isChanged)
  }
  let willLook = false
  /** Who waits is told after the match, and before the daemon sleeps. */
  const onMatch = (): void => {
    if (waiting.size === 0 || willLook) return
    willLook = true
    setImmediate(() => {
      willLook = false
      look(false)
    })
  }
  const readRules = (text: string, specs: readonly DeviceSpec[]): FaultRule[] =>
    faultRules(text, specs, fabric).map(rule => ({ ...rule, onMatch }))
  /** The daemon's, then those of programs. */
  const rules = new NetworkFaults(readRules(fault, devices.filter(hasAddress)), nowMicroseconds)
  const specs = new Map<FaultPort, DeviceSpec>()
  const specsNow = (): DeviceSpec[] => [...specs.values()]
  const daemonRules = (): FaultRule[] => rules.rules.filter(({ scope }) => scope === undefined)
  const changeRules = (changed: readonly FaultRule[], change: () => void): void => {
    checkRates(changed)
    change()
    network.rulesChanged()
    look(true)
  }

  const network: Network = {
    hasVlans: link.isMemory,
    rules,
    rulesChanged: () => {},
    attach(device, identity, own = link.attach(device, identity)) {
      const port = rules.wrap(own, device.name)
      specs.set(port, device)
      return port
    },
    detach(device) {
      const port = rules.portOf(device)
      if (port !== undefined) specs.delete(port)
      rules.forget(device)
    },
    rename(device, name) {
      const port = rules.portOf(device)
      const spec = port && specs.get(port)
      if (spec !== undefined) specs.set(port!, { ...spec, name })
      rules.rename(device, name)
    },
    get faults() {
      return formatFaults(daemonRules())
    },
    faultsOf: device => rules.portOf(device)?.faults,
    faultCounts() {
      const counts = rules.counts()
      return rules.rules.map((rule, i) => ({
        rule: formatRule(rule),
        ...(rule.scope && { process: rule.scope.pid }),
        ...counts[i]!,
      }))
    },
    setFaults(text, keeps = false) {
      const before = daemonRules()
      const set = readRules(text, specsNow())
      const own = rules.rules.slice(before.length)
      const kept = keeps ? sameRules(before, set) : set.map(() => undefined)
      const isAnyKept = keeps || own.length > 0
      const all = [...set, ...own]
      changeRules(all, () =>
        rules.replace(all, isAnyKept ? [...kept, ...own.map((_, i) => before.length + i)] : undefined),
      )
    },
    untilMatched: matches =>
      new Promise(resolve => {
        const one = (isChanged: boolean): void => {
          const counts = rules.counts()
          const isReached = matches.some(({ rule, count }) => (counts[rule]?.matched ?? Infinity) >= count)
          if (!isChanged && !isReached) return
          waiting.delete(one)
          resolve()
        }
        waiting.add(one)
        one(false)
      }),
    addOwnRules(scope, added) {
      checkDevicesOf(
        added,
        specsNow().map(({ name }) => name),
      )
      checkLinkRules(added, undefined)
      checkFabricRules(added, fabric, specsNow().some(hasFabric))
      const own = added.map(rule => ({ ...rule, scope }))
      changeRules([...rules.rules, ...own], () => rules.add(own))
    },
    endOwnRules: scope => changeRules([], () => rules.endScope(scope)),
    tap(device, tap) {
      const port = rules.portOf(device)
      return port && addTap(port, tap, false)
    },
    capture(fd, isOwn, failed) {
      const write = createPcapng(bytes => appendBlock(fd, bytes), {
        interfaces: specsNow().map(({ name }) => name),
      })
      const stopCapture = (): void => {
        for (const remove of removers) remove()
        capture.end()
      }
      const onFailure = (error: unknown): void => {
        // Only the capture ends.
        console.error('userdma daemon: a packet capture failed:', String(error))
        stopCapture()
        failed(error)
      }
      const capture = startCapture(isOwn, write, onFailure, () => rules.rules.length > 0, realClock)
      const removers = [...specs.keys()].map((port, index) => capture.add(port, index))
      return stopCapture
    },
  }
  return network
}
