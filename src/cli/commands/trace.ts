/*
 * `userdma trace`: runs a program and prints its calls, one line each or as JSON, or counts them; its daemon can write
 * the packets to a file (R46).
 *
 * A tag in the environment of the program and its children identifies their calls. Packets have no tag: the file
 * contains the packets of all programs of the daemon, so both ends of a connection are in it.
 */
import { randomBytes } from 'node:crypto'
import { closeSync } from 'node:fs'
import { Sink } from '../../drivers/null/device.ts'
import { CtxContext } from '../../spec/drivers/ctx.ts'
import { callJson, callLine, failureLine, lostLine, tormentLine } from '../../trace/calls.ts'
import { classList, isSelected, type Selection } from '../../trace/select.ts'
import { createSummary, summaryJson, summaryText } from '../../trace/summary.ts'
import type { TormentRecord, TraceEvent } from '../../uapi/tool.ts'
import { UsageError } from '../fail.ts'
import { type JoinOptions, joinDaemon } from '../join.ts'
import { createOutput, openOutput } from '../output-file.ts'
import { shimLibrary } from '../places.ts'
import { checkProgram, runUnder } from './run.ts'

/** As commander parses them. */
export interface TraceOptions extends JoinOptions {
  readonly output?: string
  readonly pcap?: string
  readonly verbose?: boolean
  readonly abi?: boolean
  /** Lists of class names. */
  readonly class?: readonly string[]
  readonly errors?: boolean
  readonly summary?: boolean
  readonly json?: boolean
}

/** Class names of all drivers. */
const OWN_CLASSES = [CtxContext.name, Sink.name]

/** Identifies the calls of this program. */
export const newTag = (): string => `trace-${process.pid}-${randomBytes(6).toString('hex')}`

const selectionOf = ({ class: lists, errors }: TraceOptions): Selection => {
  try {
    return { classes: lists && classList(lists, OWN_CLASSES), errors }
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** Prints calls as they arrive, or counts them and prints the summary at the end. */
const printer = (options: TraceOptions, print: (text: string) => void) => {
  const selection = selectionOf(options)
  const { verbose = false, abi = false, json = false } = options
  const summary = options.summary ? createSummary() : undefined
  return {
    onTrace(record: TraceEvent): void {
      if ('failure' in record) {
        // A failure has no class, so it is omitted if classes are selected.
        if (summary === undefined && selection.classes === undefined)
          print(json ? JSON.stringify(record) : failureLine(record))
        return
      }
      const selected = isSelected(record, selection)
      if (summary !== undefined) summary.add(record, selected)
      else if (selected) print(json ? JSON.stringify(callJson(record)) : callLine(record, { verbose, abi }))
      // Lost calls are always reported.
      else if (record.lost && !json) print(lostLine(record.lost))
    },
    /** Decisions are neither calls nor errors. */
    onTorment(record: TormentRecord): void {
      if (summary === undefined && selection.classes === undefined && !selection.errors)
        print(json ? JSON.stringify(record) : tormentLine(record))
    },
    end(): void {
      if (summary === undefined) return
      for (const row of json ? summaryJson(summary).map(row => JSON.stringify(row)) : [summaryText(summary)]) print(row)
    },
  }
}

export const trace = async (program: string, args: readonly string[], options: TraceOptions): Promise<void> => {
  checkProgram(program, args)
  shimLibrary()
  const { onTrace, onTorment, end } = printer(options, text => output.write(`${text}\n`))
  const output = openOutput(options.output)
  const pcap = options.pcap === undefined ? undefined : createOutput(options.pcap)
  const joined = await joinDaemon(options, { onTrace, onTorment })
  let status = 1
  try {
    const tag = newTag()
    await joined.client.trace(tag, pcap, options.abi === true)
    status = await runUnder(joined, program, args, { tag })
    // Messages stay in order: all calls of the program precede this reply. If the daemon has ended, all have arrived
    // too.
    await joined.client.config().catch(() => {})
    end()
  } finally {
    await joined.leave()
    output.close()
    if (pcap !== undefined) closeSync(pcap)
  }
  process.exitCode = output.failed ? status || 1 : status
}
