/*
 * The fault rules of a network in this process: texts of programs become rules, which all parts then have
 * (assembly/faults.ts).
 */

import { checkFabricRules, checkLinkRules } from '../../assembly/fabric-rules.ts'
import type { NetworkFaults } from '../../assembly/faults.ts'
import type { CallingProcess } from '../../core/model.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import { type FaultRule, noFaults, type RuleScope, targetOf } from '../../faults/rule.ts'
import { formatRule, parseFaults } from '../../faults/rules.ts'
import { type Clock, waitAtLeast } from '../../host/event-loop/clock.ts'
import { commandName } from '../../host/process-status.ts'
import type { InjectedFaults, injectFaults } from '../../tools/clients/faults/inject.ts'
import type { LinkTopology } from '../../transport/phy/links/graph.ts'
import type { PacketCarrier } from '../../transport/phy/links/packet-carrier.ts'
import type { CarriedFault } from '../verbs/carrier.ts'
import { formatValue, invalidArgument } from '../verbs/error.ts'
import type { DriveLoop } from './drive-loop.ts'

/** This process, as fault rules select it. A browser has none. */
export const ownProcess: CallingProcess =
  typeof process === 'undefined'
    ? { pid: 0, name: () => '' }
    : { pid: process.pid, name: () => commandName(process.pid) ?? process.title }

/** In this process all is the program's own. */
const anyScope: RuleScope = {
  pid: ownProcess.pid,
  receives: () => true,
  sends: () => true,
  mayChange: () => true,
}

interface RuleOptions {
  readonly seed: number | undefined
  /** `NetworkOptions.fabric`. */
  readonly fabric: string | undefined
  readonly topology: LinkTopology | undefined
}

/** Parses fault rules. Those without a seed of their own get `seed`. Throws RdmaError EINVAL. */
export const faultRules = (call: string, text: string, { seed, fabric, topology }: RuleOptions): FaultRule[] => {
  if (typeof text !== 'string')
    throw invalidArgument(call, `fault ${formatValue(text)} is not a string`, 'write "drop=1%", or "" for none')
  try {
    const parsed = parseFaults(text)
    const rules = parsed.map(rule => (rule.seed === noFaults.seed && seed !== undefined ? { ...rule, seed } : rule))
    checkLinkRules(rules, topology)
    if (topology === undefined) checkFabricRules(rules, fabric, true)
    const delayed = rules.find(rule => targetOf(rule) === 'call' && rule.delay > 0)
    if (delayed !== undefined)
      throw new Error(
        `fault "${formatRule(delayed)}": calls of devices in this process are synchronous and cannot be delayed; use a daemon, or leave out delay`,
      )
    const outside = rules.find(rule => rule.gone > 0 || rule.signal !== '' || rule.stop > 0 || rule.notice.length > 0)
    if (outside !== undefined)
      throw new Error(
        `fault "${formatRule(outside)}": notice, gone, signal and stop are for programs under a daemon; in this process close the device, or delay your own handler`,
      )
    return rules
  } catch (error) {
    throw invalidArgument(call, (error as Error).message)
  }
}

/** What faults of programs do to the devices of a network (tools/clients/faults/sources.ts). */
export const faultSources = (
  rules: NetworkFaults,
  devices: readonly SoftDevice[],
  clock: Clock,
  { touch, scheduleTimers }: Pick<DriveLoop, 'touch' | 'scheduleTimers'>,
  carrier: PacketCarrier | undefined,
): Parameters<typeof injectFaults>[2] => {
  const onLinks = rules.onLinks(
    device => devices.find(one => one.device === device),
    () => touch(),
  )
  return {
    wait: milliseconds =>
      clock.isVirtual
        ? new Promise(resolve => void clock.after(milliseconds, 'background', resolve))
        : waitAtLeast(milliseconds, false),
    setLink: onLinks.setLink,
    cutOff: onLinks.cutOff,
    moveGid(device, by) {
      onLinks.moveGid(device, by)
      scheduleTimers()
    },
    disturb(device, disturbance) {
      if (disturbance.kind === 'router') return carrier?.takeDown(disturbance.name)
      if (disturbance.kind === 'cable' && carrier !== undefined) return carrier.takeDown(...disturbance.between!)
      const end = onLinks.disturb(device, disturbance)
      scheduleTimers()
      return (
        end &&
        (() => {
          end()
          scheduleTimers()
        })
      )
    },
    // `faultRules` refuses rules that need these.
    remove() {},
    signal() {},
    now: () => clock.now() / 1000,
    // Contexts without a handler for events are clients' own.
    processOf: context => ([...context.device.eventHandlers.values()].includes(context) ? ownProcess : undefined),
  }
}

/** `changed`: called after each change of the rules. */
export const networkRules = (
  rules: NetworkFaults,
  faults: InjectedFaults,
  options: RuleOptions,
  changed: () => void,
) => {
  const change = (change: () => void): void => {
    change()
    faults.rulesChanged()
    changed()
  }
  return {
    /** As `Network.setFaults`. */
    setFaults(text: string): void {
      const own = rules.rules.flatMap((rule, i) => (rule.scope === undefined ? [] : [{ rule, i }]))
      const set = faultRules('network.setFaults', text, options)
      const kept = own.length === 0 ? undefined : [...set.map(() => undefined), ...own.map(({ i }) => i)]
      change(() => rules.replace([...set, ...own.map(({ rule }) => rule)], kept))
    },
    /** As `LocalNetwork.addFault`. */
    addFault(device: string, text: string): CarriedFault {
      const scope: RuleScope = { ...anyScope }
      const added = faultRules('device.fault', text, options).map(rule => ({
        ...rule,
        scope,
        device: rule.device || device,
      }))
      if (added.length === 0) throw invalidArgument('device.fault', `fault "${text}": the text has no rule`)
      const other = added.find(rule => rule.device !== device)
      if (other !== undefined)
        throw invalidArgument(
          'device.fault',
          `fault "${formatRule(other)}": the rules of ${device} name another device`,
        )
      change(() => rules.add(added))
      return {
        count: () => rules.effectsOf(scope),
        clear() {
          change(() => rules.endScope(scope))
          faults.endOutages(scope)
        },
      }
    },
  }
}
