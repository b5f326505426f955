/*
 * What fault rules can do to programs on the machine's own devices (`--allow-host-faults`). The preload library sees
 * what a program calls, posts and polls, and no packets.
 */
import { methodsOfRule } from '../../faults/program-rules.ts'
import { type FaultRule, targetOf } from '../../faults/rule.ts'
import { formatRule } from '../../faults/rules.ts'
import { ioctlMethods } from '../../spec/linux/ioctl.ts'
import { ucmaCommands } from '../../spec/linux/ucma.ts'
import { writeCommands } from '../../spec/linux/write.ts'

/** The methods, as `class.method`, that programs call by ioctl and write: others come by read, mmap and netlink. */
const hostMethods: ReadonlySet<string> = new Set([
  ...[...ioctlMethods, ...writeCommands].flatMap(({ classes, method }) =>
    method === undefined ? [] : classes.map(cls => `${cls}.${method}`),
  ),
  ...ucmaCommands.map(({ class: cls, method }) => `${cls}.${method}`),
  'mad_agent.create',
  'mad_agent.destroy',
  'mad_agent.send',
])

const ALLOWED =
  'allowed are call=…,errno=…, call=…,delay=…, post=… and completion=…,status=… (`userdma help how-to/adapters`)'

/** Throws an Error for a rule that can do nothing with `--host`: the rule, why, and what is allowed. */
export const checkHostRule = (rule: FaultRule): void => {
  const target = targetOf(rule)
  const refuse = (why: string): never => {
    throw new Error(`fault "${formatRule(rule)}": ${why}; with --host ${ALLOWED}`)
  }
  if (target === 'page') refuse("the pages of the machine's own devices are the kernel's")
  if (target === 'packet') refuse("the packets of the machine's own devices are not seen")
  if (rule.phase.length > 0) refuse('a phase is of programs on devices of userdma')
  if (rule.link > 0) refuse("the links of the machine's own devices are not userdma's")
  if (rule.event !== '') refuse(`the kernel of the machine's own devices gives the events, ${rule.event} too`)
  if (target === 'call' && ![...methodsOfRule(rule)].some(name => hostMethods.has(name)))
    refuse(`programs make no ioctl or write for ${rule.call.join('+')}`)
}
