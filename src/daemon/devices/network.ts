/*
 * The network of a daemon: a memory link between its devices, or UDP sockets. Each port can inject faults and be
 * captured.
 */
import { startCapture } from '../../assembly/capture.ts'
import { checkFabricRules } from '../../assembly/fabric-rules.ts'
import type { NetworkLink } from '../../assembly/link.ts'
import { didYouMean } from '../../base/suggest.ts'
import type { Identity } from '../../core/devices/identity.ts'
import { createProgramFaults, type ProgramFaults } from '../../faults/program-faults.ts'
import type { FaultRule, RuleScope } from '../../faults/rule.ts'
import {
  checkRates,
  formatFaults,
  formatRule,
  lossByRule,
  MAX_DAEMON_RULES,
  parseFaults,
  sameRules,
} from '../../faults/rules.ts'
import { nowMicroseconds, realClock } from '../../host/event-loop/clock.ts'
import { appendBlock } from '../../host/output-file.ts'
import { roleOf } from '../../host/process-status.ts'
import type { LossByRule } from '../../spec/check/probes.ts'
import type { FaultStat } from '../../spec/faults.ts'
import {
  effectsIn,
  type FaultCounters,
  type FaultRuleCounts,
  type ProgramRuleCounts,
  sumFaultRuleCounts,
} from '../../spec/faults.ts'
import { createPcapng } from '../../tools/trace/pcapng.ts'
import { type FaultPort, withFaults } from '../../transport/phy/faults/layer.ts'
import type { Port, PortTap } from '../../transport/phy/port.ts'
import { addTap } from '../../transport/phy/tap.ts'
import type { DaemonConfig, DeviceSpec, RuleMatches } from '../../uapi/tool.ts'
import { hasAddress } from './device-spec.ts'

export interface Network {
  /**
   * Creates the port of a device, and binds it over UDP, unless the driver has a port of its `own`. Throws an Error with
   * a message for people.
   */
  attach(device: DeviceSpec, identity: Identity, own?: Port): FaultPort
  /** Forgets a removed device. Its driver closes the port. */
  detach(device: string): void
  /** Takes the link of a device down or up (`FaultPort`). */
  setLink(device: string, isUp: boolean): void
  /** Renames a device, also in fault rules. */
  rename(device: string, name: string): void
  /** The current fault rules, as the text of `--fault`. */
  readonly faults: string
  /** How many of a device's packets were dropped, delayed, … since it was added. */
  faultsOf(device: string): FaultCounters | undefined
  /** The rules with their counts on the existing devices, since they were set. */
  faultCounts(): FaultStat[]
  /**
   * The text of the last rule that lost, damaged or delayed a packet to one of these queue pairs of the daemon's
   * devices, since `time` (microseconds); undefined: none.
   */
  lossTo(qpns: readonly number[], time: number): LossByRule | undefined
  /**
   * Replaces the fault rules. `keeps`: those that were there before go on with their counts and random sequences. Throws
   * an Error with a message for people: invalid rules, or no such soft device.
   */
  setFaults(text: string, keeps?: boolean): void
  /** Fulfilled when one of these rules has matched so often, or is no longer there, or the rules change. */
  untilMatched(matches: readonly RuleMatches[]): Promise<void>
  /**
   * Adds rules of a program, all with this scope. They stay until `endOwnRules`, and `setFaults` does not concern them. Throws an
   * Error with a message for people.
   */
  addOwnRules(scope: RuleScope, rules: readonly FaultRule[]): void
  endOwnRules(scope: RuleScope): void
  /** How often the program's rules with this scope have acted. */
  effectsOf(scope: RuleScope): number
  /** Passes the runs of a device's port to `tap`, without ICRCs; returns a function that ends it. Undefined: no port. */
  tap(device: string, tap: PortTap): (() => void) | undefined
  /** Decides about calls, posts, completions and contexts of programs. */
  readonly programFaults: ProgramFaults
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
  let rules = readRules(fault, devices.filter(hasAddress))
  const programFaults = createProgramFaults(rules, roleOf)
  const ports: { readonly port: FaultPort; device: DeviceSpec }[] = []
  const daemonRules = (): FaultRule[] => rules.filter(({ scope }) => scope === undefined)
  /** `kept`: by rule (see `FaultPort.setFaults`). */
  const replaceRules = (replaced: FaultRule[], kept: readonly (number | undefined)[] | undefined): void => {
    checkRates(replaced)
    rules = replaced
    for (const { port, device } of ports) port.setFaults(rules, device.name, kept)
    programFaults.setRules(rules, kept)
    network.rulesChanged()
    look(true)
  }
  /** By rule. */
  const allCounts = (): (FaultRuleCounts | ProgramRuleCounts)[] => {
    const counts = ports.map(({ port }) => port.ruleCounts())
    return rules.map((_, i) => programFaults.counts[i] ?? sumFaultRuleCounts(counts.map(portCounts => portCounts[i]!)))
  }
  const findPort = (name: string) => ports.find(({ device }) => device.name === name)

  const network: Network = {
    programFaults,
    rulesChanged: () => {},
    attach(device, identity, own = link.attach(device, identity)) {
      const port = withFaults(own, device.name, rules, nowMicroseconds)
      ports.push({ port, device })
      return port
    },
    detach(device) {
      const at = ports.findIndex(({ device: { name } }) => name === device)
      if (at >= 0) ports.splice(at, 1)
    },
    setLink: (device, isUp) => findPort(device)?.port.setLink(isUp),
    rename(device, name) {
      const found = findPort(device)
      if (found === undefined) return
      const hasRuleOfName = rules.some(rule => rule.device === name)
      rules = rules.map(rule => (rule.device === device ? { ...rule, device: name } : rule))
      found.device = { ...found.device, name }
      const kept = rules.map((_, i) => i)
      programFaults.setRules(rules, kept)
      // Otherwise the same rules apply to the port, which keeps their counts, random sequences and rate limits.
      if (hasRuleOfName || rules.some(({ scope }) => scope !== undefined)) found.port.setFaults(rules, name, kept)
    },
    get faults() {
      return formatFaults(daemonRules())
    },
    faultsOf: device => findPort(device)?.port.faults,
    faultCounts() {
      const counts = allCounts()
      return rules.map((rule, i) => ({
        rule: formatRule(rule),
        ...(rule.scope && { process: rule.scope.pid }),
        ...counts[i]!,
      }))
    },
    effectsOf: scope =>
      allCounts().reduce((sum, counts, i) => (rules[i]?.scope === scope ? sum + effectsIn(counts) : sum), 0),
    lossTo(qpns, time) {
      for (const { port } of ports)
        for (const qpn of qpns) {
          const rule = port.lossTo(qpn, time)
          if (rule !== undefined) return lossByRule(rule)
        }
      return undefined
    },
    setFaults(text, keeps = false) {
      const before = daemonRules()
      const set = readRules(
        text,
        ports.map(port => port.device),
      )
      const own = rules.slice(before.length)
      const kept = keeps ? sameRules(before, set) : set.map(() => undefined)
      const isAnyKept = keeps || own.length > 0
      replaceRules([...set, ...own], isAnyKept ? [...kept, ...own.map((_, i) => before.length + i)] : undefined)
    },
    untilMatched: matches =>
      new Promise(resolve => {
        const one = (isChanged: boolean): void => {
          const counts = allCounts()
          const isReached = matches.some(({ rule, count }) => (counts[rule]?.matched ?? Infinity) >= count)
          if (!isChanged && !isReached) return
          waiting.delete(one)
          resolve()
        }
        waiting.add(one)
        one(false)
      }),
    addOwnRules(scope, added) {
      const specs = ports.map(({ device }) => device)
      checkDevicesOf(
        added,
        specs.map(({ name }) => name),
      )
      checkFabricRules(added, fabric, specs.some(hasFabric))
      replaceRules(
        [...rules, ...added.map(rule => ({ ...rule, scope }))],
        rules.map((_, i) => i),
      )
    },
    endOwnRules(scope) {
      const left = rules.map((rule, i) => ({ rule, i })).filter(({ rule }) => rule.scope !== scope)
      replaceRules(
        left.map(({ rule }) => rule),
        left.map(({ i }) => i),
      )
    },
    tap(device, tap) {
      const found = findPort(device)
      return found && addTap(found.port, tap, false)
    },
    capture(fd, isOwn, failed) {
      const write = createPcapng(bytes => appendBlock(fd, bytes), {
        interfaces: ports.map(({ device }) => device.name),
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
      const capture = startCapture(isOwn, write, onFailure, () => rules.length > 0, realClock)
      const removers = ports.map(({ port }, index) => capture.add(port, index))
      return stopCapture
    },
  }
  return network
}
