/*
 * What programs take down and up in the links of a network: links between switches and routers, and routers. And ends
 * of links that pause the other end without cause.
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

/** As `Network.setPauseStorm`. `changed`: called after each change. */
export const pauseStorms =
  (topology: LinkTopology | undefined, carrier: PacketCarrier | undefined, changed: () => void) =>
  (ends: readonly [string, string], name: string, isOn: boolean): void => {
    const call = 'network.setPauseStorm'
    if (topology === undefined || carrier === undefined)
      throw invalidArgument(call, `${formatValue(ends)}: the network has no links`, 'pass links to createNetwork')
    if (typeof isOn !== 'boolean') throw invalidArgument(call, `isOn is ${formatValue(isOn)}`, 'give true or false')
    const names = namesOf(topology)
    const [from, to] = Array.isArray(ends) ? ends : []
    const wrong = [from, to].find(end => end === undefined || !names.includes(end))
    if (wrong !== undefined || !Array.isArray(ends))
      throw invalidArgument(
        call,
        `there is no host, switch or router ${formatValue(wrong)}${didYouMean(String(wrong), names)}`,
      )
    if (!carrier.setStorm(from!, to!, name, isOn)) {
      const between = topology.links.filter(link =>
        [from, to].every(end => link.ends.some(node => names[node] === end)),
      )
      const lossless = between.flatMap(({ classes = [] }) => classes.flatMap(one => (one.pause ? one.name : [])))
      throw between.length === 0
        ? invalidArgument(call, `there is no link between ${from} and ${to}`)
        : invalidArgument(
            call,
            `the link between ${from} and ${to} has no lossless class ${formatValue(name)}`,
            lossless.length > 0
              ? `it has ${[...new Set(lossless)].join(', ')}`
              : 'give the link classes with lossless: true',
          )
    }
    changed()
  }
