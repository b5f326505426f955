/*
 * What happens now to the programs of a daemon: `userdma stat --health`, and /health of `userdma metrics`.
 */
import { counted, hex } from '../../base/text.ts'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { durationText } from '../../spec/duration.ts'
import type { HealthRow } from '../../spec/health.ts'
import { printable } from '../../spec/printable.ts'
import { waitBlock } from '../../tools/check/finding-text.ts'
import { waitGraph } from '../../tools/check/waits/graph.ts'
import type { QpStat } from '../../uapi/tool.ts'
import { waitsJson } from '../check/report.ts'
import { lookUp } from '../check/symbols.ts'
import { withUnseen } from './unseen.ts'

type Row<Kind extends HealthRow['kind']> = Omit<Extract<HealthRow, { kind: Kind }>, 'kind' | 'pid' | 'command'>

/** A process with open devices. */
export interface ProcessHealth {
  readonly pid: number
  readonly command: string
  /** `isFailed`: in ERR or SQE, with a failure in `lastError` that the program has not repaired. */
  readonly queuePairs: readonly (Omit<QpStat, 'pid' | 'command'> & { readonly isFailed?: true })[]
  readonly waits: readonly Row<'wait'>[]
  readonly completions: readonly Row<'completions'>[]
  readonly events: readonly Row<'events'>[]
}

export type Health = Awaited<ReturnType<typeof healthJson>>

const isFailed = ({ state, lastError }: QpStat): boolean =>
  (state === 'ERR' || state === 'SQE') && lastError !== undefined && lastError.isNote === undefined

const rowsOf = <Kind extends HealthRow['kind']>(rows: readonly HealthRow[], wanted: Kind, owner: number): Row<Kind>[] =>
  rows.flatMap(({ kind, pid, command: _, ...row }) =>
    kind === wanted && pid === owner ? [row as unknown as Row<Kind>] : [],
  )

/** The processes with open devices, by number. One look. */
const processHealth = async (client: ToolSession): Promise<readonly ProcessHealth[]> => {
  const rows = await client.health()
  const qps = await client.qps()
  const programs = new Map([...rows, ...qps].map(({ pid, command }) => [pid, command]))
  // 0: of the daemon itself
  programs.delete(0)
  return [...programs]
    .sort(([a], [b]) => a - b)
    .map(([pid, command]) => ({
      pid,
      command,
      queuePairs: qps
        .filter(qp => qp.pid === pid)
        .map(({ pid: _, command: __, ...qp }) => ({
          ...qp,
          ...(isFailed({ pid, command, ...qp }) && { isFailed: true as const }),
        })),
      waits: rowsOf(rows, 'wait', pid),
      completions: rowsOf(rows, 'completions', pid),
      events: rowsOf(rows, 'events', pid),
    }))
}

const agoText = (age: number): string => (age === 0 ? '' : `, for ${durationText(age)} at least`)

const processLines = ({ pid, command, queuePairs, waits, completions, events }: ProcessHealth): string[] => {
  const failed = queuePairs.filter(qp => qp.isFailed)
  const lines = [
    ...failed.map(
      ({ device, qpn, state, lastError }) => `${device}: QP ${hex(qpn)} is in ${state}: ${lastError?.text}`,
    ),
    ...waits.map(({ device, text, age }) => `${device}: ${text}${agoText(age)}`),
    ...completions.map(
      ({ device, cq, unpolled, isError, age }) =>
        `${device}: ${counted(unpolled, 'completion')} of CQ ${cq} not polled${isError ? ', errors among them' : ''}${agoText(age)}`,
    ),
    ...events.map(
      ({ device, unread, age }) => `${device}: ${counted(unread, 'asynchronous event')} not read${agoText(age)}`,
    ),
  ]
  const count = counted(queuePairs.length, 'queue pair')
  const end = lines.length === 0 ? ', nothing is left undone' : ''
  return [`process ${pid} (${command}): ${count}${end}`, ...lines.map(line => `  ${line}`)]
}

/** One look at a daemon. */
const lookAt = async (client: ToolSession) => {
  const processes = await processHealth(client)
  const graph = waitGraph(withUnseen(await client.threadWaits(), performance.now() * 1000))
  return { processes, graph }
}

/** The output of `userdma stat --health --json`. */
export const healthJson = async (client: ToolSession) => {
  const { processes, graph } = await lookAt(client)
  return { processes, threads: await lookUp(symbols => waitsJson(graph, symbols)) }
}

/** What the processes leave undone, a line for each, and one for each process. */
export const processText = async (client: ToolSession): Promise<string> =>
  (await processHealth(client))
    .flatMap(processLines)
    .map(line => `${printable(line)}\n`)
    .join('')

/** The output of `userdma stat --health`. */
export const healthText = async (client: ToolSession): Promise<string> => {
  const { processes, graph } = await lookAt(client)
  if (processes.length === 0) return 'no programs with queues\n'
  const threads = graph.threads.length === 0 ? [] : await lookUp(symbols => waitBlock(graph, symbols))
  return `${[...processes.flatMap(processLines), ...threads].map(printable).join('\n')}\n`
}
