/*
 * Selects calls of a trace: those of given classes, and those that failed (`userdma trace --class`, `--errors`).
 */
import { classes } from '../../spec/classes.ts'
import { ucmaCommands } from '../../spec/linux/ucma.ts'
import type { TraceRecord } from '../../spec/records.ts'
import { linuxCalls } from '../../uapi/linux/coverage.ts'
import { decodeChain } from './chain.ts'
import { decodeRecord } from './decode.ts'
import { isFailed } from './failed.ts'

/** The calls to select. Without fields: all calls. */
export interface Selection {
  /** Names of classes; absent: all. */
  readonly classes?: ReadonlySet<string> | undefined
  /** Selects only failed calls; default false. */
  readonly onlyFailed?: boolean | undefined
}

/**
 * Calls by `TraceRecord.attempt`, with their possible classes. In `attempt`, an ioctl has only the METHOD of its name
 * OBJECT.METHOD.
 */
const attempts: readonly (readonly [attempt: string, classes: readonly string[]])[] = [
  ...linuxCalls.map(({ name, classes }) => [name.slice(name.indexOf('.') + 1), classes] as const),
  ...ucmaCommands.map(command => [`ucma ${command.name}`, [command.class]] as const),
  ['umad REGISTER_AGENT', ['mad_agent']],
  ['umad REGISTER_AGENT2', ['mad_agent']],
  ['umad UNREGISTER_AGENT', ['mad_agent']],
  ['umad ENABLE_PKEY', ['mad_channel']],
  ['umad write', ['mad_agent']],
  ['umad read', ['mad_channel']],
]

/**
 * The classes of a call and of the entries of its chain. For a call that was refused before it was decoded, the
 * possible classes by Linux's name of the call.
 */
export const classesOf = (record: TraceRecord): readonly string[] => {
  const decoded = decodeRecord(record, 0)
  if (decoded !== undefined) {
    const entries = decodeChain(decoded, 0, record)?.entries ?? []
    return [decoded.class.name, ...entries.flatMap(({ call }) => (call === undefined ? [] : [call.class.name]))]
  }
  return [...new Set(attempts.filter(([name]) => name === record.attempt).flatMap(([, names]) => names))]
}

/** Whether a call, or an entry of its chain, failed. */
export const hasFailed = (record: TraceRecord): boolean => {
  if (record.ret < 0) return isFailed(record)
  const decoded = decodeRecord(record, 0)
  return decoded !== undefined && decodeChain(decoded, 0, record)?.error !== undefined
}

export const isSelected = (record: TraceRecord, { classes, onlyFailed = false }: Selection): boolean =>
  (!onlyFailed || hasFailed(record)) && (classes === undefined || classesOf(record).some(name => classes.has(name)))

/**
 * Parses lists of `--class`, such as `rc_qp,mr`. `driverClasses`: names of drivers' own classes. Throws an Error for an
 * unknown class.
 */
export const parseClasses = (texts: readonly string[], driverClasses: readonly string[] = []): ReadonlySet<string> => {
  const known = [...classes.map(({ name }) => name), ...driverClasses]
  const names = texts.flatMap(text => text.split(',')).map(name => name.trim())
  const unknown = names.find(name => !known.includes(name))
  if (unknown !== undefined) throw new Error(`--class ${JSON.stringify(unknown)} is not one of ${known.join(', ')}`)
  return new Set(names)
}
