/*
 * Reasons of refusals in the words of a program in C: ibv_modify_qp instead of rc_qp.modify, path_mtu instead of
 * pathMtu, IBV_QP_PATH_MTU where a bit of attr_mask is meant.
 */

import { isQueuePairClass } from '../../spec/classes/ids.ts'
import { modelWords, type Reason, type Words } from '../../spec/reason.ts'
import {
  cAddressMembers,
  cConstants,
  cEnums,
  cFunctions,
  cMasks,
  cMembers,
  otherCFunctions,
  refusalAdvice,
} from './libibverbs-words.ts'

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)

/** The function of C whose call was refused; undefined: C has none. */
export const cFunctionOf = ({ nouns: [first], subject }: Reason): string | undefined => {
  if (first?.kind === 'mask') return cFunctions['qp.modify']
  const [className = '', method] = subject.method?.split('.') ?? []
  return cFunctions[`${isQueuePairClass(className) ? 'qp' : className}.${method}`]
}

/** The function of C by `CLASS.METHOD`; the method if C has none, or none is known. */
export const callName = (method: string): string => {
  const [className = '', name = ''] = method.split('.')
  const called = `${isQueuePairClass(className) ? 'qp' : className}.${name}`
  return cFunctions[called] ?? otherCFunctions[called] ?? method
}

const wordsOf = (cFunction: string): Words => {
  const members = cMembers[cFunction] ?? {}
  const member = (path: string): string =>
    path
      .split('.')
      .map(part => members[part] ?? snakeCase(part))
      .join('.')
  const address = member('address')
  return {
    ...modelWords,
    method: () => cFunction,
    attribute: member,
    member,
    addressField: name => `${address}.${cAddressMembers[name] ?? snakeCase(name)}`,
    attributes: (...names) => names.map(name => (cMasks[name] ? `IBV_QP_${cMasks[name]}` : member(name))).join(', '),
    mask: () => `${cFunction}: attr_mask`,
    constant: (enumeration, name) => `${cConstants[enumeration] ?? ''}${name}`,
    enumeration: name => cEnums[name] ?? name,
  }
}

/** The sentence with C's words; with those of the object model if C has no such function. */
export const inC = (reason: Reason): string => {
  const cFunction = cFunctionOf(reason)
  return reason.text(cFunction === undefined ? modelWords : wordsOf(cFunction))
}

/** What to do about a refusal; undefined: unknown. */
export const adviceForRefusal = (reason: Reason): string | undefined => {
  const { code, coded } = reason
  const cFunction = cFunctionOf(reason) ?? ''
  const named = reason.nouns.map(({ kind, names: [name = ''] }) => (kind === 'addressField' ? `address.${name}` : name))
  return refusalAdvice.find(
    row =>
      (row.code === undefined || row.code === code) &&
      (row.attributes === undefined || row.attributes.some(name => named.includes(name))) &&
      (row.functions === undefined || row.functions.includes(cFunction)) &&
      (row.value === undefined || row.value === String(coded?.arguments[0])),
  )?.advice
}
