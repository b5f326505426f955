/*
 * Which calls of a trace are shown: those of some classes, those that failed (`userdma trace --class`, `--errors`).
 */
import { classes } from '../spec/classes.ts'
import { Errno } from '../spec/errno.ts'
import { linuxCalls } from '../spec/linux/coverage.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { decodeChain } from './chain.ts'
import { decodeRecord } from './decode.ts'

export interface Selection {
  /** Names of classes; calls of all, if it is absent. */
  readonly classes?: ReadonlySet<string> | undefined
  readonly errors?: boolean | undefined
}

/**
 * The classes that a call is about: one; those of the calls of a chain; those that a refused call of Linux can have.
 */
export const classesOf = (record: TraceRecord): readonly string[] => {
  const decoded = decodeRecord(record, 0)
  if (decoded !== undefined) {
    const entries = decodeChain(decoded, 0, record)?.entries ?? []
    return [decoded.class.name, ...entries.flatMap(({ call }) => (call === undefined ? [] : [call.class.name]))]
  }
  const { attempt } = record
  const call = linuxCalls.find(({ name }) => name === attempt || name.split('.')[1] === attempt)
  return call?.classes ?? []
}

/** Whether a call failed, or an entry of the chain that it carried. */
export const hasFailed = (record: TraceRecord): boolean => {
  if (record.ret < 0) return true
  const decoded = decodeRecord(record, 0)
  return decoded !== undefined && decodeChain(decoded, 0, record)?.error !== undefined
}

/**
 * libibverbs asks each context once whether Linux's write commands can be called by ioctl, with a QUERY_DEVICE without
 * a request, and takes ENOSPC for yes.
 */
const isProbe = ({ dialect, attempt, ret }: TraceRecord): boolean =>
  dialect === 'ioctl' && attempt === 'QUERY_DEVICE' && ret === -Errno.ENOSPC

export const isSelected = (record: TraceRecord, { classes, errors = false }: Selection): boolean =>
  (!errors || (hasFailed(record) && !isProbe(record))) &&
  (classes === undefined || classesOf(record).some(name => classes.has(name)))

/**
 * Reads lists like `rc_qp,mr`; `own` are classes of drivers. Throws an Error with a sentence for a name that is no
 * class.
 */
export const classList = (texts: readonly string[], own: readonly string[] = []): ReadonlySet<string> => {
  const known = [...classes.map(({ name }) => name), ...own]
  const names = texts.flatMap(text => text.split(',')).map(name => name.trim())
  const wrong = names.find(name => !known.includes(name))
  if (wrong !== undefined) throw new Error(`class ${JSON.stringify(wrong)}: there are ${known.join(', ')}`)
  return new Set(names)
}
