/*
 * `userdma run`: runs a program that sees userdma's devices, under a daemon that it joins or starts. Ends as
 * the program: with its exit status, or by the same signal.
 */

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import type { FailureRecord } from '../../spec/records.ts'
import { failureLine } from '../../tools/trace/calls.ts'
import { countSkipped, DEADLOCK_HEAD, DEADLOCK_STATUS, watchDeadlock } from '../clock.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { runOptions } from '../command-line/options.ts'
import { type Joined, joinDaemon } from '../join.ts'
import { lowLimits } from '../limits.ts'
import { programFiles, requireDifferentFiles } from '../output-file.ts'
import type { RecordReader } from '../program/host-program.ts'
import { preloadProblems } from '../program/preload-check.ts'
import {
  endAs,
  type ProgramEnd,
  ProgramError,
  preloadedLibraries,
  programEnvironment,
  type Recording,
  recordedEnd,
  requireProgram,
  runProgram,
} from '../program/program.ts'
import { isForCheck, openRecordFile } from '../record.ts'

/** Milliseconds for which programs wait for each other before they are ended. */
const STEADY = 500

type RunOptions = OptionsOf<typeof runOptions>

/** The signals with which programs end that lack memory, threads, file size or time; Node.js also ends by SIGTRAP. */
const CRASHES: ReadonlySet<NodeJS.Signals | null> = new Set([
  'SIGSEGV',
  'SIGBUS',
  'SIGABRT',
  'SIGTRAP',
  'SIGXFSZ',
  'SIGXCPU',
] as const)

/**
 * Runs a program under a joined daemon to its end. Prints a message if the daemon ends before the program, and how much
 * was skipped if its clock skips; `verbose`: and what has kept real time.
 */
export const runUnder = async (
  { client, lastOutput }: Joined,
  program: string,
  args: readonly string[],
  recording?: Recording,
  { verbose, ...ending }: NonNullable<Parameters<typeof runProgram>[3]> & { readonly verbose?: boolean } = {},
): Promise<ProgramEnd> => {
  let isRunning = true
  void client.ended.then(() => {
    if (!isRunning) return
    const output = lastOutput()
    process.stderr.write(
      `userdma: the daemon at ${client.socket} (process ${client.daemon}) ended while ${program} was running${output ? `; its last output:\n${output}` : ''}\n`,
    )
  })
  const tellSkipped = countSkipped(client.socket, verbose === true)
  try {
    const end = await runProgram(program, args, programEnvironment(client.socket, recording), ending)
    tellSkipped()
    const limits = CRASHES.has(end.signal) ? lowLimits() : ''
    if (limits !== '') process.stderr.write(`userdma: ${program} ended by ${end.signal}${limits}\n`)
    return end
  } finally {
    isRunning = false
  }
}

/**
 * Throws if the program cannot be executed, also with the preload library, and warns of each program on the command
 * line that will find no devices.
 */
export const checkProgram = (program: string, args: readonly string[]): void => {
  requireProgram(program)
  for (const { name, problem, isFatal } of preloadProblems(program, args)) {
    if (isFatal && name === program) throw new ProgramError(126, `${name} cannot run here: ${problem}`)
    process.stderr.write(`userdma: ${name} will ${isFatal ? 'not start' : 'find no devices'}: ${problem}\n`)
  }
}

/** Says once for each function that a program takes queues around libibverbs' tables. */
export const directMessages = (command: string) => {
  const told = new Set<string>()
  return (
    { program }: { readonly program: { readonly pid: number; readonly command: string } },
    name: string,
  ): void => {
    if (told.has(name)) return
    told.add(name)
    process.stderr.write(
      `userdma ${command}: ${program.command} takes queues by ${name}, around libibverbs: its requests and completions on them are not seen\n`,
    )
  }
}

/** `run --host --flight-recorder`: keeps the last posts and polls, and writes them when something fails. */
const flyOnHost = async (program: string, args: readonly string[], options: RunOptions): Promise<void> => {
  const { Observer, runObserved } = await import('../program/host-program.ts')
  const { startFlight } = await import('../program/flight.ts')
  const { recorder, observing, close } = await startFlight(options.flightRecorder ?? true, options.flightFolder, {
    failure: (record: FailureRecord) => {
      if (record.failure.isNote !== true) process.stderr.write(`userdma run: ${failureLine(record)}\n`)
    },
    direct: directMessages('run'),
  })
  let end: ProgramEnd
  try {
    const observer = new Observer(() => {}, recorder.output)
    recorder.observer = observer
    const reader: RecordReader = {
      answer: question => observer.answer(question),
      take: records => recorder.take(records),
      lostThreads: count => observer.lostThreads(count),
    }
    end = await runObserved(program, args, reader, observing)
  } finally {
    close()
  }
  endAs(end)
}

/** `run --host`: prints each failed request with its cause. */
const runOnHost = async (program: string, args: readonly string[], options: RunOptions): Promise<void> => {
  const { hostFaults, Observer, runObserved } = await import('../program/host-program.ts')
  requireDifferentFiles([['--record', options.record]], programFiles(program, args))
  if (options.flightRecorder !== undefined) return flyOnHost(program, args, options)
  const observing = await hostFaults(options)
  const { openHostRecording } = await import('../program/host-record.ts')
  const recording = openHostRecording(options)
  const output = {
    ...(recording !== undefined && { recording: recording.events }),
    failure: (record: FailureRecord) => {
      if (record.failure.isNote !== true) process.stderr.write(`userdma run: ${failureLine(record)}\n`)
    },
    direct: directMessages('run'),
  }
  const observer = new Observer(() => {}, output, observing.faults)
  const stacks = observing.stacks || isForCheck(options)
  const end = await runObserved(program, args, observer, { ...observing, stacks })
  const isComplete = (await recording?.end(recordedEnd(program, end))) ?? true
  endAs(isComplete ? end : { ...end, status: end.status || 1 })
}

/** A program all of whose processes wait for each other is ended, with a report. `file`: for their stacks. */
const onDeadlock = (client: ToolSession, file: string) => ({
  watch: (found: () => void) => watchDeadlock(client.socket, { milliseconds: STEADY, world: false }, found),
  async reached() {
    const { deadlockReport } = await import('../waits/report.ts')
    process.stderr.write(`userdma run: ${DEADLOCK_HEAD}\n${await deadlockReport(client, client.daemon, file)}`)
  },
})

/**
 * The file to which programs of a private daemon append stacks, which is made. It ends with the folder of the socket.
 */
export const crashesBeside = (socket: string): string => {
  const file = join(dirname(socket), 'crashes')
  writeFileSync(file, '')
  return file
}

/** The command. */
export const run = async (program: string, args: readonly string[], options: RunOptions): Promise<void> => {
  checkProgram(program, args)
  if (options.host) return runOnHost(program, args, options)
  // Call sites are known of recorded stacks only, which a daemon keeps that checks programs.
  const recorded = isForCheck(options)
  // The world of a private daemon is known, unless it sends packets.
  const isAlone = options.private === true && options.link !== 'udp'
  const tellsDeadlocks = isAlone && options.clock === 'skip'
  const stacks = recorded || options.fault?.some(rule => rule.includes('site=')) === true
  const preloaded = { stacks, ...(recorded && { events: 'record' as const }) }
  // Throws if a library is missing, before a daemon is started.
  preloadedLibraries(preloaded)
  requireDifferentFiles([['--record', options.record]], programFiles(program, args))
  const recording = openRecordFile(options)
  const joined = await joinDaemon({ ...options, ...(stacks && { check: true }) })
  const { client } = joined
  let end: ProgramEnd
  try {
    await recording?.start(client)
    const crashes = tellsDeadlocks ? crashesBeside(client.socket) : ''
    end = await runUnder(
      joined,
      program,
      args,
      { ...preloaded, ...(tellsDeadlocks && { crashes }) },
      {
        ...(options.verbose && { verbose: true }),
        ...(tellsDeadlocks && { limit: onDeadlock(client, crashes) }),
      },
    )
    const isComplete =
      (await recording?.end(client, end.status !== 0 || end.signal !== null, recordedEnd(program, end))) ?? true
    if (!isComplete) end = { ...end, status: end.status || 1 }
  } finally {
    await joined.leave()
  }
  endAs(end.isDeadlock === true ? { ...end, status: DEADLOCK_STATUS, signal: null } : end)
}
