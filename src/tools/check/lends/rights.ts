/*
 * What peers may do with lent memory, and do with any, in words: of findings, and of recordings as text.
 */
import { hex } from '../../../base/text.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { LendRight } from '../../../spec/lends.ts'
import type { Lend } from './table.ts'

const words: readonly (readonly [right: number, word: string, noun: string])[] = [
  [LendRight.READ, 'reading', 'READ'],
  [LendRight.WRITE, 'writing', 'WRITE'],
  [LendRight.ATOMIC, 'atomics', 'atomic'],
]

export const nounOf = (right: number): string => words.find(([bit]) => bit === right)?.[2] ?? 'request'

const rightsText = (rights: number): string => {
  const named = words.flatMap(([bit, word]) => ((rights & bit) === 0 ? [] : [word]))
  return named.length === 0 ? 'nothing' : named.join(', ').replace(/, ([^,]*)$/, ' and $1')
}

export const labelText = ({ label }: Pick<Lend, 'label'>): string => (label === '' ? '' : ` (${label})`)

const toText = ({ qpn }: Pick<Lend, 'qpn'>): string => (qpn === 0 ? '' : ` to the peer of QP ${hex(qpn)}`)

/** For what, to whom: `for reading (request 1) to the peer of QP 0x11`. */
export const lendText = (lend: Pick<Lend, 'rights' | 'label' | 'qpn'>): string =>
  `for ${rightsText(lend.rights)}${labelText(lend)}${toText(lend)}`

const { REMOTE_READ, REMOTE_ATOMIC } = AccessFlags.values

/** `access`: of AccessFlags. */
export const accessText = (access: number): string =>
  (access & REMOTE_ATOMIC) !== 0 ? 'atomic' : (access & REMOTE_READ) !== 0 ? 'READ' : 'WRITE'
