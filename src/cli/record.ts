/*
 * The options of commands that record: `--record`, `--record-depth`, `--payload`, `--record-limit` and
 * `--record-on-failure`.
 */
import { closeSync, fstatSync } from 'node:fs'
import type { ToolSession } from '../daemon/client/tool-session.ts'
import { removeHeld } from '../host/held-file.ts'
import { lockOpenFile } from '../host/lock-file.ts'
import type { ProgramEnd } from '../uapi/tool.ts'
import type { LookUp } from './check/symbols.ts'
import type { OptionsOf } from './command-line/option.ts'
import type { recordOptions, runOptions } from './command-line/options.ts'
import { messageOf, UsageError } from './fail.ts'
import { openInPlace } from './output-file.ts'
import { packageVersion } from './paths.ts'

export type RecordOptions = OptionsOf<typeof recordOptions & Pick<typeof runOptions, 'recordOnFailure'>>

/** Whether --record-depth asks for what the checker needs. */
export const isForCheck = ({ recordDepth }: Pick<RecordOptions, 'recordDepth'>): boolean => recordDepth === 'check'

/** The limit with --record-on-failure, if there is no --record-limit. */
const FAILURE_LIMIT = 64 * 2 ** 20

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
  end(client: ToolSession, hasFailed: boolean, program?: ProgramEnd, symbols?: LookUp): Promise<boolean>
}

/**
 * Opens the file of --record; undefined without the option. An older file is emptied when the recording starts. Throws
 * UsageError.
 */
export const openRecordFile = (recordOptions: RecordOptions): RecordFile | undefined => {
  const { record: name, payload = 0, recordOnFailure = false } = recordOptions
  if (name === undefined) return undefined
  const { recordLimit: limit = recordOnFailure ? FAILURE_LIMIT : undefined } = recordOptions
  const options = {
    application: `userdma ${packageVersion()}`,
    payload,
    ...(limit !== undefined && { limit }),
    ...(isForCheck(recordOptions) && { depth: 'check' as const }),
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
