/*
 * What programs take down and up in the links of a network: links between switches and routers, and routers.
 */
import { didYouMean } from '../../../base/suggest.ts'
import { type LinkTopology, namesOf } from '../../../transport/phy/links/graph.ts'
import type { PacketCarrier } from '../../../transport/phy/links/packet-carrier.ts'
import { formatValue, invalidArgument } from '../../verbs/error.ts'

/**
 * `ends`: two names of switches or routers between which links are, or that of a router. `changed`: called after each
 * change. Throws RdmaError EINVAL.
 */
export const linkOutages = (
  topology: LinkTopology | undefined,
  carrier: PacketCarrier | undefined,
  changed: () => void,
): ((call: string, ends: readonly string[], isUp: boolean) => void) => {
  const down = new Map<string, () => void>()
  return (call, ends, isUp) => {
    if (topology === undefined || carrier === undefined) {
      const named = ends.map(formatValue).join(' and ')
      throw invalidArgument(call, `${named}: the network has no links`, 'pass links to createNetwork')
    }
    if (typeof isUp !== 'boolean') throw invalidArgument(call, `isUp is ${formatValue(isUp)}`, 'give true or false')
    const { hosts, switches } = topology
    const isRouter = ends.length === 1
    const names = namesOf(topology).slice(isRouter ? hosts + switches : hosts)
    const wrong = ends.find(name => !names.includes(name))
    if (wrong !== undefined || ends.length > 2) {
      const what = isRouter ? 'router' : 'switch or router'
      const hint = namesOf(topology).includes(wrong!)
        ? 'the link of a host goes down with its device: give that name'
        : ''
      throw invalidArgument(call, `there is no ${what} ${formatValue(wrong)}${didYouMean(wrong ?? '', names)}`, hint)
    }
    const key = ends.toSorted().join('\n')
    if (isUp) down.get(key)?.()
    if (isUp) down.delete(key)
    else if (!down.has(key)) {
      const end = carrier.takeDown(...(ends as [string, string?]))
      if (end === undefined) throw invalidArgument(call, `there is no link of ${ends.join(' and ')}`)
      down.set(key, end)
    }
    changed()
  }
}
