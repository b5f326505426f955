/*
 * Sentences of refusals in the words of a program in C: ibv_modify_qp instead of rc_qp.modify, path_mtu instead of
 * pathMtu, IBV_QP_PATH_MTU where a bit of attr_mask is meant.
 */
import {
  cAddressMembers,
  cConstants,
  cEnums,
  cFunctions,
  cMasks,
  cMembers,
  refusalAdvice,
} from '../../spec/check/c-words.ts'

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)

/** The function of a sentence that begins with `CLASS.METHOD: ` or `CLASS.METHOD (LINUX'S NAME): `. */
const splitReason = (reason: string): { readonly cFunction: string; readonly rest: string } | undefined => {
  const [, className = '', method = '', rest] = /^(\w+)\.(\w+)(?: \(\w+\))?: (.*)$/s.exec(reason) ?? []
  const kind = className.endsWith('_qp') ? 'qp' : className
  const cFunction = cFunctions[`${kind}.${method}`]
  return cFunction === undefined || rest === undefined ? undefined : { cFunction, rest }
}

const masksIn = (text: string): string =>
  text.replace(/[A-Za-z]+/g, name => (Object.hasOwn(cMasks, name) ? `IBV_QP_${cMasks[name]}` : name))

/** The sentence with C's words; unchanged if it names no function that C has. */
export const inC = (reason: string): string => {
  if (/^attribute mask: /.test(reason))
    return `ibv_modify_qp: ${masksIn(reason.replace('attribute mask', 'attr_mask'))}`
  const split = splitReason(reason)
  if (split === undefined) return reason
  const { cFunction, rest } = split
  const members = cMembers[cFunction] ?? {}
  const memberOf = (name: string): string =>
    name
      .split('.')
      .map(part => members[part] ?? snakeCase(part))
      .join('.')
  const text = rest
    // A list of attributes that belong, or do not belong, into attr_mask.
    .replace(/ needs .* as well$| does not take .*$/s, masksIn)
    .replace(/^attribute address: (\w+)(?= )/, (_, name: string) => {
      const inAddress = Object.hasOwn(cAddressMembers, name)
      return inAddress ? `${memberOf('address')}.${cAddressMembers[name]}` : `${memberOf('address')}: ${name}`
    })
    .replace(/^attribute ([\w.]+)/, (_, name: string) => memberOf(name))
    .replace(/\b(?!IBV_)[a-z]+(?:[A-Z][a-z]*)+\b/g, memberOf)
    .replace(/ of (\w+) \(/, (all, name: string) => (Object.hasOwn(cEnums, name) ? ` of ${cEnums[name]} (` : all))
  const withConstants = cConstants.reduce((changed, [name, prefix]) => changed.replace(name, prefix), text)
  return `${cFunction}: ${withConstants}`
}

/** What to do about a refusal, whose sentence is in C's words; undefined: unknown. */
export const adviceForRefusal = (reason: string): string | undefined =>
  refusalAdvice.find(([pattern]) => pattern.test(reason))?.[1]
