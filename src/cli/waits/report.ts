/*
 * Who waits for whom: `userdma stat --waits`, and programs of `userdma run` that wait for each other.
 */
import { setTimeout } from 'node:timers/promises'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { commandName, descendantsOf } from '../../host/process-status.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import { deadlockText } from '../../spec/check/wait-lines.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { waitBlock } from '../../tools/check/finding-text.ts'
import { waitGraph } from '../../tools/check/waits/graph.ts'
import { waitsJson } from '../check/report.ts'
import { createSymbols } from '../check/symbols.ts'
import { withUnseen } from './unseen.ts'

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
  return reportOf(processes, isJson)
}

const reportOf = (processes: readonly GraphProcess[], isJson: boolean): string => {
  const graph = waitGraph(withUnseen(processes, performance.now() * 1000))
  const symbols = createSymbols()
  if (isJson) return `${jsonText(waitsJson(graph, symbols), 2)}\n`
  if (graph.threads.length === 0) return 'no threads wait\n'
  const head = graph.shape === 'open' ? [] : [deadlockText(graph)]
  return `${[...head, ...waitBlock(graph, symbols)].map(printable).join('\n')}\n`
}

/**
 * The report of a deadlock of the programs that this process has started, as far as /proc and the daemon know it.
 * `daemon`: the daemon's process.
 */
export const deadlockReport = async (client: ToolSession, daemon: number): Promise<string> => {
  const known = await client.threadWaits()
  const seen = new Set([...known.map(({ pid }) => pid), daemon, ...descendantsOf(daemon)])
  const others = descendantsOf(process.pid)
    .filter(pid => !seen.has(pid))
    .map((pid): GraphProcess => ({ pid, command: commandName(pid) ?? '', threads: [], others: 1 }))
  return reportOf([...known, ...others], false)
}
