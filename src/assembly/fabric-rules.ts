/*
 * Fault rules about the switches of InfiniBand ports, and their subnet manager.
 */
import { CABLE_ON_WAY, changesFabric, type FaultRule } from '../faults/rule.ts'
import { formatRule } from '../faults/rules.ts'
import { DEFAULT_FABRIC, parseFabric } from '../settings/fabric.ts'

/** Links in a message. */
const MAX_NAMED = 8

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
