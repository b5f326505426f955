/*
 * Fault rules that a program sets for itself (FAULT in spec/session.ts, shim/include/userdma.h). Rules for packets
 * select those of its own queue pairs, rules for programs its process. What touches a whole device needs that all
 * contexts of the device are the process's, or with `--allow-faults` its user's. Rules end by FAULT_CLEAR and with the
 * session.
 */
import { isQueuePair } from '../core/driver-contract.ts'
import type { Account, Device, Limit } from '../core/model.ts'
import { orRelease, requireShare, take } from '../core/objects/limits.ts'
import {
  ALL_DEVICES,
  changesDevice,
  changesFabric,
  type FaultRule,
  packetEffects,
  type RuleScope,
  targetOf,
} from '../faults/rule.ts'
import { formatRule, parseFaults } from '../faults/rules.ts'
import { parseFabric } from '../settings/fabric.ts'
import { CallError, callError } from '../spec/errno.ts'
import type { InjectedFaults } from '../tools/clients/faults/inject.ts'
import type { DaemonConfig, ListedDevice } from '../uapi/tool.ts'
import type { DaemonDevice, Devices } from './devices/devices.ts'
import type { Network } from './devices/network.ts'
import type { FailureReports } from './failures.ts'
import type { Turn } from './turn.ts'

/** Of all programs; a program sets at most as many at once as `parseFaults` takes. */
export const MAX_OWN_RULES = 1024

/** What a daemon keeps for rules of other users' programs: copies of packets, and places of packets in their flows. */
const KEPT = ['delay', 'jitter', 'rate', 'dup', 'reorder'] as const

export interface OwnFaultParts {
  readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] }
  readonly network: Network
  readonly devices: Devices
  readonly failures: FailureReports
  readonly faults: InjectedFaults
  /** Counts the rules. */
  readonly ownRules: Limit
  readonly turn: Turn
}

const allowedEffects = packetEffects.filter(name => !(KEPT as readonly string[]).includes(name)).join(', ')

const notAllowed = (rule: FaultRule, why: string): CallError => callError.EPERM`fault "${formatRule(rule)}": ${why}`

/** Errors of `parse` as CallError EINVAL. */
const invalidUnless = <T>(parse: () => T): T => {
  try {
    return parse()
  } catch (error) {
    throw new CallError('EINVAL', error instanceof Error ? error.message : String(error))
  }
}

/**
 * Whose queue pairs send to a queue pair, as long as a packet does not name its sender. Known for a turn of the daemon,
 * in which no program changes them.
 */
class Senders {
  readonly #daemon: Pick<OwnFaultParts, 'turn' | 'failures'>
  readonly #known = new Map<string, number | undefined>()
  #turn = -1

  constructor(daemon: Pick<OwnFaultParts, 'turn' | 'failures'>) {
    this.#daemon = daemon
  }

  /** The process whose queue pairs alone send there; undefined: none, or those of several. */
  pidOf(found: DaemonDevice, destQpn: number): number | undefined {
    const { turn } = this.#daemon
    if (this.#turn !== turn.count) this.#known.clear()
    this.#turn = turn.count
    const key = `${found.spec.name} ${destQpn}`
    if (!this.#known.has(key)) this.#known.set(key, this.#search(found, destQpn))
    return this.#known.get(key)
  }

  #search({ device }: DaemonDevice, destQpn: number): number | undefined {
    const pids = new Set<number | undefined>()
    const { requests } = device.driver
    for (const context of device.contexts)
      for (const object of requests?.queuesOf?.(context) ?? [])
        if (isQueuePair(object) && requests?.peerOf?.(object)?.qpn === destQpn)
          pids.add(this.#daemon.failures.ownerOf(context)?.pid)
    const [pid] = pids
    return pids.size === 1 ? pid : undefined
  }
}

/** Of whom rules are. */
interface Owner {
  readonly process: { readonly pid: number }
  readonly account: Account
  readonly standing: 'owner' | 'guest'
}

export class OwnFaults {
  readonly #daemon: OwnFaultParts
  readonly #owner: Owner
  readonly #senders: Senders
  readonly #sets = new Map<number, { readonly scope: RuleScope; release(): void }>()
  #lastId = 0

  constructor(daemon: OwnFaultParts, owner: Owner) {
    this.#daemon = daemon
    this.#owner = owner
    this.#senders = new Senders(daemon)
  }

  /** Sets rules, the text of `--fault`. Returns their id. Throws CallError: EINVAL, EPERM, ENOMEM. */
  set(text: string): number {
    const { network, ownRules } = this.#daemon
    const { account } = this.#owner
    const rules = invalidUnless(() => parseFaults(text))
    if (rules.length === 0) throw callError.EINVAL`fault "${text}": the text has no rule`
    requireShare(ownRules, account, 'fault', rules.length)
    const scope = this.#scope()
    for (const rule of rules) this.#requireAllowed(rule, scope)
    const release = take(ownRules, account, 'fault', rules.length)
    const { pid } = this.#owner.process
    const own = rules.map(rule => (targetOf(rule) === 'packet' ? rule : { ...rule, pid: [pid] }))
    orRelease(release, () => invalidUnless(() => network.addOwnRules(scope, own)))
    const id = ++this.#lastId
    this.#sets.set(id, { scope, release })
    return id
  }

  /** False if there is no such id. */
  clear(id: number): boolean {
    const set = this.#sets.get(id)
    if (set === undefined) return false
    this.#sets.delete(id)
    this.#daemon.network.endOwnRules(set.scope)
    this.#daemon.faults.endOutages(set.scope)
    set.release()
    return true
  }

  /** How often the rules have acted; undefined: there is no such id. */
  count(id: number): number | undefined {
    const set = this.#sets.get(id)
    return set && this.#daemon.network.rules.effectsOf(set.scope)
  }

  close(): void {
    for (const id of [...this.#sets.keys()]) this.clear(id)
  }

  #requireAllowed(rule: FaultRule, scope: RuleScope): void {
    const { devices } = this.#daemon
    if (rule.pid.some(pid => pid !== scope.pid)) throw notAllowed(rule, 'it names another process')
    const kept = KEPT.find(name => rule[name] > 0)
    const isKept = kept !== undefined || rule.message.length > 0 || rule.packet.length > 0
    if (this.#owner.standing === 'guest' && targetOf(rule) === 'packet' && isKept)
      throw notAllowed(rule, `the daemon keeps no packets for other users; allowed are ${allowedEffects}`)
    if (changesFabric(rule)) this.#requireFabric(rule, scope)
    const concerned = rule.device === '' ? devices.all.filter(one => this.#isOpen(one)) : [devices.find(rule.device)]
    const who = this.#daemon.config.allowFaults
      ? 'programs of other users; use a device that they do not open'
      : 'other programs too; use a device that they do not open, or start the daemon with --allow-faults'
    const shared = concerned.find(one => one !== undefined && !scope.mayChange(one.spec.name))
    if (shared !== undefined && (changesDevice(rule) || rule.cm.length > 0))
      throw notAllowed(rule, `${shared.spec.name} is open in ${who}`)
  }

  /** Switches may have the ports of several daemons, whose programs are not known here. */
  #requireFabric(rule: FaultRule, scope: RuleScope): void {
    const { fabric, allowFaults } = this.#daemon.config
    const { serve, socket } = fabric === undefined ? {} : parseFabric(fabric)
    if ((serve ?? socket) !== undefined && !allowFaults)
      throw notAllowed(rule, 'the switches have ports of other daemons too; start the daemon with --allow-faults')
    if (!scope.mayChange(ALL_DEVICES))
      throw notAllowed(
        rule,
        'it concerns all devices, and other programs have one open; start the daemon with --allow-faults',
      )
  }

  #isOpen({ device }: DaemonDevice): boolean {
    for (const context of device.contexts)
      if (this.#daemon.failures.ownerOf(context)?.pid === this.#owner.process.pid) return true
    return false
  }

  #scope(): RuleScope {
    const { devices, config } = this.#daemon
    const { process, account } = this.#owner
    const { pid } = process
    const mayChangeDevice = (device: Device): boolean => {
      for (const context of device.contexts) {
        const owner = this.#daemon.failures.ownerOf(context)
        const isOfUser = config.allowFaults === true && context.account?.user === account.user
        if (owner !== undefined && owner.pid !== pid && !isOfUser) return false
      }
      return true
    }
    const mayChange = (name: string): boolean => {
      const found = devices.find(name)
      return found === undefined
        ? devices.all.every(({ device }) => mayChangeDevice(device))
        : mayChangeDevice(found.device)
    }
    const isOwn = (found: DaemonDevice, qpn: number): boolean => {
      const context = found.network?.queues?.qpOfNumber(qpn)?.context
      return context === undefined ? mayChangeDevice(found.device) : this.#daemon.failures.ownerOf(context)?.pid === pid
    }
    return {
      pid,
      mayChange,
      receives(name, qpn) {
        const found = devices.find(name)
        return found !== undefined && isOwn(found, qpn)
      },
      sends: (name, destQpn, sourceQpn) => {
        const found = devices.find(name)
        if (found === undefined) return false
        if (sourceQpn !== 0) return isOwn(found, sourceQpn)
        return this.#senders.pidOf(found, destQpn) === pid
      },
    }
  }
}
