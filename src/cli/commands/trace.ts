/*
 * `userdma trace`: runs a program and prints its calls, as text or JSON, or counts them; its daemon can write the
 * packets to a file (R46).
 *
 * A tag in the environment of the program and its children identifies their calls. Packets have no tag: the file
 * contains the packets of all programs of the daemon, so both ends of a connection within the daemon are in it.
 */

import { randomBytes } from 'node:crypto'
import { closeSync } from 'node:fs'
import { Sink } from '../../drivers/null/device.ts'
import { emptyOutputFile } from '../../host/output-file.ts'
import { CtxContext } from '../../spec/drivers/ctx.ts'
import { jsonText } from '../../spec/printable.ts'
import type { LendRecord, TormentRecord, TraceEvent, TraceRecord } from '../../spec/records.ts'
import { callJson, callLine, failureLine, lostLine, tormentLine } from '../../tools/trace/calls.ts'
import { isSelected, parseClasses, type Selection } from '../../tools/trace/select.ts'
import { createSummary, summaryJson, summaryText } from '../../tools/trace/summary.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { traceOptions } from '../command-line/options.ts'
import { lentLine } from '../export/lent.ts'
import { UsageError } from '../fail.ts'
import { joinDaemon } from '../join.ts'
import { openInPlace, openOutput, programFiles, requireDifferentFiles } from '../output-file.ts'
import { shimLibrary } from '../paths.ts'
import { endAs, type ProgramEnd } from '../program/program.ts'
import { checkProgram, directMessages, runUnder } from './run.ts'

export type TraceOptions = OptionsOf<typeof traceOptions>

/** Names of classes that drivers have beside the common ones. */
const DRIVER_CLASSES = [CtxContext.name, Sink.name]

/** A tag that is unique on this machine. */
export const newTag = (): string => `trace-${process.pid}-${randomBytes(6).toString('hex')}`

const selectionOf = ({ class: lists, errors }: TraceOptions): Selection => {
  try {
    return { classes: lists && parseClasses(lists, DRIVER_CLASSES), onlyFailed: errors }
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** Prints calls as they arrive, or counts them and prints the summary at the end. */
export const printer = (options: TraceOptions, print: (text: string) => void) => {
  const selection = selectionOf(options)
  const { verbose = false, abi = false, json = false } = options
  const summary = options.summary ? createSummary() : undefined
  return {
    onTrace(record: TraceEvent): void {
      if ('failure' in record) {
        // A failure has no class, so it is omitted if classes are selected.
        if (summary === undefined && selection.classes === undefined)
          print(json ? jsonText(record) : failureLine(record))
        return
      }
      if (!isSelected(record, selection)) return
      if (summary !== undefined) summary.add(record)
      else print(json ? jsonText(callJson(record)) : callLine(record, { verbose, abi }))
    },
    onLost(lost: number): void {
      if (summary !== undefined) summary.addLost(lost)
      else print(json ? jsonText({ lost }) : lostLine(lost))
    },
    /** A decision of torment has no class and is no error, so it is omitted if classes or errors are selected. */
    onTorment(record: TormentRecord): void {
      if (summary === undefined && selection.classes === undefined && !selection.onlyFailed)
        print(json ? jsonText(record) : tormentLine(record))
    },
    /** Lent memory has no class and is no error. */
    onLent(record: LendRecord): void {
      if (summary === undefined && selection.classes === undefined && !selection.onlyFailed)
        print(json ? jsonText(record) : lentLine(record))
    },
    end(): void {
      if (summary === undefined) return
      if (json) for (const row of summaryJson(summary)) print(jsonText(row))
      else print(summaryText(summary))
    },
  }
}

/** `trace --host`: the calls as the kernel answers them, and failed requests. */
const traceOnHost = async (program: string, args: readonly string[], options: TraceOptions): Promise<void> => {
  const { hostFaults, Observer, runObserved } = await import('../program/host-program.ts')
  const observing = await hostFaults(options)
  requireDifferentFiles([['--output', options.output]], programFiles(program, args))
  const output = openOutput(options.output)
  const { onTrace, onLost, end } = printer(options, text => output.write(`${text}\n`))
  let lost = 0
  const handlers = {
    call: (record: TraceRecord) => onTrace(options.abi || record.call === undefined ? record : withoutBytes(record)),
    failure: onTrace,
    direct: directMessages('trace'),
    lost: (count: number) => {
      lost += count
    },
  }
  const observer = new Observer(() => {}, handlers, observing.faults)
  let programEnd: ProgramEnd
  try {
    programEnd = await runObserved(program, args, observer, observing)
    if (lost > 0) onLost(lost)
    end()
  } finally {
    output.close()
  }
  const { status } = programEnd
  endAs({ ...programEnd, status: output.hasFailed ? status || 1 : status })
}

const withoutBytes = ({ raw: _, ...record }: TraceRecord): TraceRecord => record

/** The command. Throws UsageError. */
export const trace = async (program: string, args: readonly string[], options: TraceOptions): Promise<void> => {
  checkProgram(program, args)
  if (options.host) return traceOnHost(program, args, options)
  // Throws if the library is missing, before a daemon is started.
  shimLibrary()
  const { end: printEnd, ...handlers } = printer(options, text => output.write(`${text}\n`))
  const outputs = [
    ['--output', options.output],
    ['--pcap', options.pcap],
  ] as const
  requireDifferentFiles(outputs, programFiles(program, args))
  const output = openOutput(options.output)
  const pcap = options.pcap === undefined ? undefined : openInPlace(options.pcap)
  const joined = await joinDaemon(options, handlers)
  let isOpen = true
  const close = (): void => {
    if (isOpen && pcap !== undefined) closeSync(pcap)
    if (isOpen) output.close()
    isOpen = false
  }
  const end = (): void => {
    if (isOpen) printEnd()
    close()
  }
  // Nothing can follow, and the program may run much longer.
  void joined.client.ended.then(end)
  let programEnd: ProgramEnd
  let captureError: string | undefined
  try {
    const tag = newTag()
    if (pcap !== undefined) emptyOutputFile(pcap)
    await joined.client.trace(tag, pcap, options.abi === true)
    // A daemon that checks knows what programs lend: they declare it by the libraries of `check`.
    const { check = false } = await joined.client.config()
    programEnd = await runUnder(joined, program, args, { tag, stacks: check })
    // Messages of the session stay in order: all calls of the program have arrived before this reply, or before the end
    // of the daemon.
    const status = await joined.client.traceStatus().catch(() => undefined)
    captureError = status?.captureError
    end()
  } finally {
    close()
    await joined.leave()
  }
  if (captureError !== undefined)
    process.stderr.write(`userdma: cannot write to ${options.pcap}: ${captureError}; the rest is missing\n`)
  const { status } = programEnd
  endAs({ ...programEnd, status: output.hasFailed || captureError !== undefined ? status || 1 : status })
}
