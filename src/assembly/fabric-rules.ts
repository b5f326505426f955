/*
 * Fault rules about the switches of InfiniBand ports and their subnet manager, and about simulated links.
 */
import { CABLE_ON_WAY, changesFabric, type FaultRule } from '../faults/rule.ts'
import { formatRule } from '../faults/rules.ts'
import { DEFAULT_FABRIC, parseFabric } from '../settings/fabric.ts'
import { type LinkTopology, namesOf } from '../transport/phy/links/graph.ts'

/** Names in a message. */
const MAX_NAMED = 8

/**
 * Throws an Error with a message for people if a rule names a router or cables that simulated links do not have.
 * `topology`: undefined without such links.
 */
export const checkLinkRules = (rules: readonly FaultRule[], topology: LinkTopology | undefined): void => {
  for (const rule of rules) {
    const { router, cable } = rule
    if (router !== '') {
      const names = topology === undefined ? [] : namesOf(topology).slice(topology.hosts + topology.switches)
      if (names.length === 0)
        throw new Error(
          `fault "${formatRule(rule)}": there are no routers; they are in links of createNetwork, and in a net its plays take them down`,
        )
      if (!names.includes(router.name))
        throw new Error(
          `fault router: there is no router "${router.name}"; there are ${names.slice(0, MAX_NAMED).join(', ')}${names.length > MAX_NAMED ? ' …' : ''}`,
        )
    }
    if (topology === undefined) continue
    if (rule.manager > 0) throw new Error(`fault "${formatRule(rule)}": simulated links have no subnet manager`)
    if (cable === '') continue
    if (cable.between === CABLE_ON_WAY)
      throw new Error(`fault "${formatRule(rule)}": simulated links have several ways; name two switches or routers`)
    const names = namesOf(topology)
    const [a, b] = cable.between.map(name => names.indexOf(name, topology.hosts))
    if (!topology.links.some(({ ends }) => ends.includes(a!) && ends.includes(b!)))
      throw new Error(`fault cable: no link is between switches or routers "${cable.between.join('" and "')}"`)
  }
}

/**
 * Throws an Error with a message for people if a rule names cables or a manager that the switches do not have. The
 * switches of another daemon are not known here. `fabric`: the text of `--fabric`. `hasPorts`: there is an InfiniBand
 * port.
 */
export const checkFabricRules = (rules: readonly FaultRule[], fabric: string | undefined, hasPorts: boolean): void => {
  const about = rules.filter(changesFabric)
  if (about.length === 0) return
  if (!hasPorts) throw new Error(`fault "${formatRule(about[0]!)}": no device has an InfiniBand port`)
  const { links, manager, socket } = fabric === undefined ? DEFAULT_FABRIC : parseFabric(fabric)
  if (socket !== undefined) return
  for (const rule of about) {
    if (rule.manager > 0 && manager === 'none')
      throw new Error(`fault "${formatRule(rule)}": the switches have no subnet manager (manager=none)`)
    if (rule.cable === '' || rule.cable.between === CABLE_ON_WAY) continue
    const [a, b] = rule.cable.between
    if (links.some(({ between }) => between.includes(a) && between.includes(b))) continue
    const known = links.slice(0, MAX_NAMED).map(({ between }) => between.join(':'))
    if (links.length > MAX_NAMED) known.push('…')
    throw new Error(
      `fault cable: no link of --fabric is between switches "${a}" and "${b}"; there are ${known.join(', ') || 'none'}`,
    )
  }
}
