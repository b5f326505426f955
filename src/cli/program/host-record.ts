/*
 * `run --host --record FILE`: a session file of what a program does on the machine's own devices. There is no daemon:
 * this command writes the file.
 */
import { writeSync } from 'node:fs'
import { release } from 'node:os'
import { removeHeld } from '../../host/held-file.ts'
import { emptyOutputFile } from '../../host/output-file.ts'
import { OBSERVED_CHECK, observedRecorder, RECORDING_ORIGIN } from '../../tools/observe/observe.ts'
import { SessionWriter } from '../../tools/record/writer.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { ProgramEnd } from '../../uapi/tool.ts'
import { openRecordFile, type RecordOptions } from '../record.ts'

/** Milliseconds between writes of what was recorded. */
const FLUSH = 500

interface HostRecording {
  readonly events: ReturnType<typeof observedRecorder>
  /** The program has ended. Returns false, with a message on standard error, if the file lacks something. */
  end(program: ProgramEnd): Promise<boolean>
}

const machine = `${process.platform} ${process.arch}, kernel ${release()}, node ${process.version}`

/** Microseconds of CLOCK_MONOTONIC. */
const now = (): number => Number(process.hrtime.bigint()) / 1000

/** Opens the file of --record; undefined without the option. Throws UsageError. */
export const openHostRecording = (options: RecordOptions): HostRecording | undefined => {
  const { record: name, recordOnFailure = false } = options
  const file = openRecordFile(options)
  if (file === undefined || name === undefined) return undefined
  emptyOutputFile(file.fd)
  let failure: unknown
  const write = (position: number, bytes: Uint8Array, done: (error?: Error) => void): void => {
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(file.fd, bytes, at, bytes.length - at, position + at)
      done()
    } catch (error) {
      failure ??= error
      done(error as Error)
    }
  }
  const { depth, ...rest } = file.options
  const isForCheck = depth === 'check'
  const about = {
    ...rest,
    origin: RECORDING_ORIGIN,
    machine,
    isObserved: true as const,
    ...(isForCheck && { check: OBSERVED_CHECK }),
  }
  const writer = new SessionWriter({ write }, about)
  const events = observedRecorder(writer, addressText, isForCheck)
  const timer = setInterval(() => writer.flush(), FLUSH)
  return {
    events,
    async end(program) {
      clearInterval(timer)
      const warn = (text: string): void => void process.stderr.write(`userdma: ${name}: ${text}\n`)
      writer.programEnd(now(), program)
      await events.end(now(), 'the program has ended')
      if (failure !== undefined) warn(`the recording is not complete: ${(failure as Error).message}`)
      if (writer.lost > 0) warn(`${writer.lost} events are missing: the program was faster than this command`)
      const hasFailed = program.status !== 0 || program.signal !== ''
      if (recordOnFailure && !hasFailed) removeHeld(name, file.fd)
      return failure === undefined
    },
  }
}
