/*
 * The options of commands that record: `--record`, `--payload`, `--record-limit` and `--record-on-failure`.
 */
import { fstatSync } from 'node:fs'
import { removeHeld } from '../host/held-file.ts'
import { MIN_RECORD_LIMIT } from '../record/writer.ts'
import type { ToolSession } from '../session/tool-session.ts'
import { messageOf, UsageError } from './fail.ts'
import { closeOutput, createOutput, keepOutput } from './output-file.ts'
import { packageVersion } from './paths.ts'

/** As commander parses them. */
export interface RecordOptions {
  readonly record?: string
  readonly payload?: string
  readonly recordLimit?: string
  readonly recordOnFailure?: boolean
}

/** The largest --payload: that of the largest packet. */
const MAX_PAYLOAD = 4096
/** The limit with --record-on-failure, if there is no --record-limit. */
const FAILURE_LIMIT = 64 * 2 ** 20
const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }

const limitOf = (text: string): number => {
  const [, digits, unit = ''] = /^(\d{1,12})([KMG]?)$/i.exec(text) ?? []
  const bytes = Number(digits) * (UNITS[unit.toUpperCase()] ?? Number.NaN)
  if (bytes >= MIN_RECORD_LIMIT) return bytes
  throw new UsageError(
    `--record-limit "${text}": give bytes, such as 64M or 1G; at least ${MIN_RECORD_LIMIT / 2 ** 20}M`,
  )
}

const payloadOf = (text: string): number => {
  const bytes = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (bytes <= MAX_PAYLOAD) return bytes
  throw new UsageError(`--payload "${text}": give the recorded bytes of each packet, from 0 to ${MAX_PAYLOAD}`)
}

/** A file for a recording. */
export interface RecordFile {
  readonly fd: number
  readonly options: { readonly application: string; readonly payload: number; readonly limit?: number }
  /** Starts the recording of the client's daemon, which completes the file if the session ends. Throws an Error. */
  start(client: ToolSession): Promise<void>
  /** As `keepOutput`. */
  keep(): void
  /**
   * Ends the recording. With --record-on-failure removes the file, unless `hasFailed`. Returns false, with a message on
   * standard error, if the file lacks something.
   */
  end(client: ToolSession, hasFailed: boolean): Promise<boolean>
}

/** Creates the file of --record; undefined without the option. Throws UsageError. */
export const openRecordFile = ({
  record: name,
  payload,
  recordLimit,
  recordOnFailure = false,
}: RecordOptions): RecordFile | undefined => {
  if (name === undefined) {
    const option = payload !== undefined ? '--payload' : recordLimit !== undefined ? '--record-limit' : undefined
    const lacking = option ?? (recordOnFailure ? '--record-on-failure' : undefined)
    if (lacking !== undefined) throw new UsageError(`${lacking} is for --record FILE`)
    return undefined
  }
  const limit = recordLimit === undefined ? (recordOnFailure ? FAILURE_LIMIT : undefined) : limitOf(recordLimit)
  const options = {
    application: `userdma ${packageVersion()}`,
    payload: payload === undefined ? 0 : payloadOf(payload),
    ...(limit !== undefined && { limit }),
  }
  const fd = createOutput(name)
  if (!fstatSync(fd).isFile()) {
    closeOutput(fd)
    throw new UsageError(`--record ${name}: a recording needs a regular file`)
  }
  const warn = (text: string): void => void process.stderr.write(`userdma: ${name}: ${text}\n`)
  return {
    fd,
    options,
    async start(client) {
      await client.record(fd, options)
      keepOutput(fd)
    },
    keep: () => keepOutput(fd),
    async end(client, hasFailed) {
      try {
        const { lost, error } = await client.endRecording()
        if (error !== null) warn(`the recording is not complete: ${error}`)
        else if (lost > 0) warn(`${lost} events are missing, because the file could not be written fast enough`)
        if (recordOnFailure && !hasFailed) removeHeld(name, fd)
        else if (recordOnFailure) warn('has the last part of what happened; `userdma export` shows it')
        return error === null
      } catch (error) {
        warn(`the recording ended early: ${messageOf(error)}`)
        return false
      } finally {
        closeOutput(fd)
      }
    },
  }
}
