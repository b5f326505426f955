/*
 * Who waits for whom: `userdma stat --waits`, and programs of `userdma run` that wait for each other.
 */
import { statSync } from 'node:fs'
import os from 'node:os'
import { setTimeout } from 'node:timers/promises'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { catches, commandName, descendantsOf } from '../../host/process-status.ts'
import type { GraphProcess, WaitGraph } from '../../spec/check/thread-waits.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { type Symbols, waitBlock } from '../../tools/check/finding-text.ts'
import { waitGraph } from '../../tools/check/waits/graph.ts'
import { deadlockText } from '../../tools/check/waits/wait-lines.ts'
import { waitsJson } from '../check/report.ts'
import { lookUp } from '../check/symbols.ts'
import { takeCrashes } from '../walk/crashes.ts'
import { recordText } from '../walk/report.ts'
import { withUnseen } from './unseen.ts'

/** Milliseconds for the stacks of programs, of which the file is looked at each so many. */
const STACK_TIME = 1000
const STACK_LOOK = 50

/** Looks, and milliseconds between two: a loop that polls shows in the third. */
const LOOKS = 3
const INTERVAL = 250

/** The output. */
export const waitsReport = async (client: ToolSession, isJson: boolean): Promise<string> => {
  let processes = await client.threadWaits()
  for (let look = 1; look < LOOKS; look++) {
    await setTimeout(INTERVAL)
    processes = await client.threadWaits()
  }
  const graph = graphOf(processes)
  return lookUp(symbols => (isJson ? `${jsonText(waitsJson(graph, symbols), 2)}\n` : graphText(graph, symbols)))
}

const graphOf = (processes: readonly GraphProcess[]): WaitGraph =>
  waitGraph(withUnseen(processes, performance.now() * 1000))

const graphText = (graph: WaitGraph, symbols: Symbols): string => {
  if (graph.threads.length === 0) return 'no threads wait\n'
  const head = graph.shape === 'open' ? [] : [deadlockText(graph)]
  return `${[...head, ...waitBlock(graph, symbols)].map(printable).join('\n')}\n`
}

/**
 * Stacks of all threads of these processes, as far as they write them to the file at SIGQUIT (shim/check/crashes.c).
 */
const stacksOf = async (pids: readonly number[], file: string): Promise<ReturnType<typeof takeCrashes>> => {
  for (const pid of pids) if (catches(pid, os.constants.signals.SIGQUIT)) process.kill(pid, 'SIGQUIT')
  const end = performance.now() + STACK_TIME
  for (let before = -1, bytes = 0; performance.now() < end && (bytes === 0 || bytes > before); ) {
    before = bytes
    await setTimeout(STACK_LOOK)
    bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0
  }
  return takeCrashes(file)
}

/**
 * The report of a deadlock of the programs that this process has started, as far as /proc and the daemon know it.
 * `daemon`: the daemon's process. `file`: to which they append stacks.
 */
export const deadlockReport = async (client: ToolSession, daemon: number, file: string): Promise<string> => {
  const known = await client.threadWaits()
  const ofDaemon = new Set([daemon, ...descendantsOf(daemon)])
  const started = descendantsOf(process.pid).filter(pid => !ofDaemon.has(pid))
  const others = started
    .filter(pid => known.every(one => one.pid !== pid))
    .map((pid): GraphProcess => ({ pid, command: commandName(pid) ?? '', threads: [], others: 1 }))
  const graph = graphOf([...known, ...others])
  const records = await stacksOf(started, file)
  return lookUp(symbols => [graphText(graph, symbols), ...records.map(one => recordText(one, symbols))].join(''))
}
