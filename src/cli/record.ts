/*
 * The options of commands that record: `--record`, `--record-depth`, `--payload`, `--record-limit` and
 * `--record-on-failure`.
 */
import { closeSync, fstatSync } from 'node:fs'
import type { ToolSession } from '../daemon/client/tool-session.ts'
import { removeHeld } from '../host/held-file.ts'
import { lockOpenFile } from '../host/lock-file.ts'
import { MIN_RECORD_LIMIT } from '../tools/record/writer.ts'
import type { Symbols } from '../tools/trace/findings.ts'
import type { ProgramEnd } from '../uapi/tool.ts'
import { messageOf, UsageError } from './fail.ts'
import { openInPlace } from './output-file.ts'
import { packageVersion } from './paths.ts'

/** As commander parses them. */
export interface RecordOptions {
  readonly record?: string
  readonly payload?: string
  readonly recordLimit?: string
  readonly recordOnFailure?: boolean
  readonly recordDepth?: string
}

/** Values of --record-depth. */
const recordDepths = ['plain', 'check'] as const

/** Whether --record-depth asks for what the checker needs. Throws UsageError. */
export const isForCheck = ({ recordDepth = 'plain' }: Pick<RecordOptions, 'recordDepth'>): boolean => {
  if (!(recordDepths as readonly string[]).includes(recordDepth))
    throw new UsageError(`--record-depth "${recordDepth}" is not one of ${recordDepths.join(', ')}`)
  return recordDepth === 'check'
}

/** The largest --payload: that of the largest packet. */
const MAX_PAYLOAD = 4096
const MIB = 2 ** 20
/** The limit with --record-on-failure, if there is no --record-limit. */
const FAILURE_LIMIT = 64 * MIB
const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: MIB, G: 2 ** 30 }

/** The bytes of a size such as 64M. Throws UsageError if they are fewer than `least`, a number of MiB. */
export const sizeOf = (option: string, text: string, least: number): number => {
  const [, digits, unit = ''] = /^(\d{1,12})([KMG]?)$/i.exec(text) ?? []
  const bytes = Number(digits) * (UNITS[unit.toUpperCase()] ?? Number.NaN)
  if (bytes >= least * MIB) return bytes
  throw new UsageError(`${option} "${text}": give bytes, such as 64M or 1G; at least ${least}M`)
}

const payloadOf = (text: string): number => {
  const bytes = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (bytes <= MAX_PAYLOAD) return bytes
  throw new UsageError(`--payload "${text}": give the recorded bytes of each packet, from 0 to ${MAX_PAYLOAD}`)
}

/** A file for a recording. */
export interface RecordFile {
  readonly fd: number
  readonly options: {
    readonly application: string
    readonly payload: number
    readonly limit?: number
    readonly depth?: 'check'
  }
  /** Starts the recording of the client's daemon. Throws an Error. */
  start(client: ToolSession): Promise<void>
  /**
   * Ends the recording, with the symbols of its stacks; `program`: how its program has ended. With --record-on-failure
   * removes the file, unless `hasFailed`. Returns false, with a message on standard error, if the file lacks something.
   * `symbols`: a look-up that knows some of the frames.
   */
  end(client: ToolSession, hasFailed: boolean, program?: ProgramEnd, symbols?: Symbols): Promise<boolean>
}

/**
 * Opens the file of --record; undefined without the option. An older file is emptied when the recording starts. Throws
 * UsageError.
 */
export const openRecordFile = (recordOptions: RecordOptions): RecordFile | undefined => {
  const { record: name, payload, recordLimit, recordOnFailure = false, recordDepth } = recordOptions
  const depth = isForCheck(recordOptions)
  if (name === undefined) {
    const given = { '--payload': payload, '--record-limit': recordLimit, '--record-depth': recordDepth }
    const option = Object.entries(given).find(([, value]) => value !== undefined)?.[0]
    const lacking = option ?? (recordOnFailure ? '--record-on-failure' : undefined)
    if (lacking !== undefined) throw new UsageError(`${lacking} is for --record FILE`)
    return undefined
  }
  const limit =
    recordLimit === undefined
      ? recordOnFailure
        ? FAILURE_LIMIT
        : undefined
      : sizeOf('--record-limit', recordLimit, MIN_RECORD_LIMIT / MIB)
  const options = {
    application: `userdma ${packageVersion()}`,
    payload: payload === undefined ? 0 : payloadOf(payload),
    ...(limit !== undefined && { limit }),
    ...(depth && { depth: 'check' as const }),
  }
  const fd = openInPlace(name)
  if (!fstatSync(fd).isFile()) {
    closeSync(fd)
    throw new UsageError(`--record ${name}: a recording needs a regular file`)
  }
  const holder = lockOpenFile(fd)
  if (holder !== undefined) {
    closeSync(fd)
    throw new UsageError(`--record ${name}: ${holder} records into this file; choose another file`)
  }
  const warn = (text: string): void => void process.stderr.write(`userdma: ${name}: ${text}\n`)
  return {
    fd,
    options,
    start: client => client.record(fd, options),
    async end(client, hasFailed, program, symbols) {
      try {
        if (!recordOnFailure || hasFailed)
          try {
            const { addSymbols } = await import('./recorded-symbols.ts')
            await addSymbols(client, symbols)
          } catch (error) {
            warn(`its stacks have no symbols: ${messageOf(error)}`)
          }
        const { lost, error } = await client.endRecording(program)
        if (error !== null) warn(`the recording is not complete: ${error}`)
        else if (lost > 0) warn(`${lost} events are missing, because the file could not be written fast enough`)
        if (recordOnFailure && !hasFailed) removeHeld(name, fd)
        else if (recordOnFailure) warn('has the last part of what happened; `userdma export` shows it')
        return error === null
      } catch (error) {
        warn(`the recording ended early: ${messageOf(error)}`)
        return false
      } finally {
        closeSync(fd)
      }
    },
  }
}
