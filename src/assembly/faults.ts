/*
 * The fault rules of a network, of a daemon or in a program: the layer of each port and what decides for programs have
 * the same rules. And what rules do to links and subnets of devices.
 */
import { isLinked, type NetworkDevice, NO_EVENT } from '../core/driver-contract.ts'
import { raisePort } from '../core/events/events.ts'
import type { Device } from '../core/model.ts'
import { createProgramFaults, type ProgramFaults } from '../faults/program-faults.ts'
import type { FaultRule, RuleScope } from '../faults/rule.ts'
import { lossByRule } from '../faults/rules.ts'
import { roleOf } from '../host/process-status.ts'
import type { LossByRule } from '../spec/check/probes.ts'
import { effectsIn, type FaultRuleCounts, type ProgramRuleCounts, sumFaultRuleCounts } from '../spec/faults.ts'
import type { Disturbance } from '../spec/subnet-port.ts'
import { type FaultPort, withFaults } from '../transport/phy/faults/layer.ts'
import type { Port } from '../transport/phy/port.ts'
import { moveGid } from './move-gid.ts'

export class NetworkFaults {
  /** Decides about calls, posts, completions and contexts of programs. */
  readonly ofPrograms: ProgramFaults
  #rules: readonly FaultRule[]
  /** In the order of their addition. Of two ports of one name, the first one's device is there. */
  readonly #ports: { readonly port: FaultPort; device: string }[] = []
  readonly #now: () => number

  /** `now`: microseconds. */
  constructor(rules: readonly FaultRule[], now: () => number) {
    this.#rules = rules
    this.#now = now
    this.ofPrograms = createProgramFaults(rules, roleOf)
  }

  get rules(): readonly FaultRule[] {
    return this.#rules
  }

  /** Wraps the port of a new device. */
  wrap(port: Port, device: string): FaultPort {
    const wrapped = withFaults(port, device, this.#rules, this.#now)
    this.#ports.push({ port: wrapped, device })
    return wrapped
  }

  /** Forgets a removed device, or one that could not be added. Its driver closes the port. */
  forget(device: string): void {
    const at = this.#ports.findLastIndex(port => port.device === device)
    if (at >= 0) this.#ports.splice(at, 1)
  }

  portOf(device: string): FaultPort | undefined {
    return this.#ports.findLast(port => port.device === device)?.port
  }

  /** `kept`: by rule, as of `FaultPort.setFaults`. */
  replace(rules: readonly FaultRule[], kept: readonly (number | undefined)[] | undefined): void {
    this.#rules = rules
    for (const { port, device } of this.#ports) port.setFaults(rules, device, kept)
    this.ofPrograms.setRules(rules, kept)
  }

  /** Adds rules of a program, with one scope. */
  add(rules: readonly FaultRule[]): void {
    const kept = this.#rules.map((_, i) => i)
    this.replace([...this.#rules, ...rules], kept)
  }

  endScope(scope: RuleScope): void {
    const left = this.#rules.map((rule, i) => ({ rule, i })).filter(({ rule }) => rule.scope !== scope)
    this.replace(
      left.map(({ rule }) => rule),
      left.map(({ i }) => i),
    )
  }

  /** A device has another name, also in rules. */
  rename(device: string, name: string): void {
    const found = this.#ports.findLast(port => port.device === device)
    if (found === undefined) return
    found.device = name
    const hasRuleOfName = this.#rules.some(rule => rule.device === name)
    this.#rules = this.#rules.map(rule => (rule.device === device ? { ...rule, device: name } : rule))
    const kept = this.#rules.map((_, i) => i)
    this.ofPrograms.setRules(this.#rules, kept)
    // Otherwise the same rules apply to the port, which keeps their counts, random sequences and rate limits.
    if (hasRuleOfName || this.#rules.some(({ scope }) => scope !== undefined))
      found.port.setFaults(this.#rules, name, kept)
  }

  /** By rule. */
  counts(): (FaultRuleCounts | ProgramRuleCounts)[] {
    const counts = this.#ports.map(({ port }) => port.ruleCounts())
    return this.#rules.map(
      (_, i) => this.ofPrograms.counts[i] ?? sumFaultRuleCounts(counts.map(portCounts => portCounts[i]!)),
    )
  }

  /** How often the rules with this scope have acted. */
  effectsOf(scope: RuleScope): number {
    return this.counts().reduce(
      (sum, counts, i) => (this.#rules[i]?.scope === scope ? sum + effectsIn(counts) : sum),
      0,
    )
  }

  /**
   * The text of the last rule that lost, damaged or delayed a packet to one of these queue pairs of the network's
   * devices, since `time` (microseconds); undefined: none.
   */
  readonly lossTo = (qpns: readonly number[], time: number): LossByRule | undefined => {
    for (const { port } of this.#ports)
      for (const qpn of qpns) {
        const rule = port.lossTo(qpn, time)
        if (rule !== undefined) return lossByRule(rule)
      }
    return undefined
  }

  /**
   * What rules do to links, addresses and subnets (`FaultSources`). `find`: undefined for a device that was removed.
   * `changed`: called before programs are told.
   */
  onLinks(find: (device: Device) => NetworkDevice | undefined, changed: (device: Device) => void) {
    return {
      setLink: (device: Device, isUp: boolean): void => {
        const found = find(device)
        if (!isLinked(found)) return
        this.portOf(device.name)?.setLink(isUp)
        const event = found.link.setCarrier(isUp)
        changed(device)
        if (event !== undefined && event !== NO_EVENT) raisePort(device, 1, event)
      },
      cutOff: (device: Device): void => this.portOf(device.name)?.setLink(false),
      moveGid(device: Device, by: number): void {
        const found = find(device)
        if (found?.subnetPort !== undefined) found.subnetPort.subnet?.disturb({ kind: 'lid' })
        else if (isLinked(found)) moveGid(found, by, () => changed(device))
      },
      disturb: (device: Device, disturbance: Disturbance): (() => void) | undefined =>
        find(device)?.subnetPort?.subnet?.disturb(disturbance),
    }
  }
}
