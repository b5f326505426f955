/*
 * The screen of `userdma top`: text from rates, for a width and a height.
 */

import { bytesText } from '../../spec/byte-count.ts'
import { printable } from '../../spec/printable.ts'
import { type OrderKey, orders, type QpRates, type Rates, sorted } from './rates.ts'

/** What the user has chosen. */
export interface View {
  readonly order: OrderKey
  readonly reverse: boolean
  /** Queue pairs that are above the screen. */
  readonly first: number
  /** Seconds between two looks. */
  readonly delay: number
  readonly help: boolean
  /** The seconds that the user is typing; undefined: none. */
  readonly typing?: string | undefined
}

const HELP = [
  'P  order by packets per second        S  by requests outstanding',
  'E  order by failures                  N  by process',
  'R  reverse the order                  d  change the seconds between two looks',
  '↑ ↓ PgUp PgDn Home End  scroll        space  look now',
  'h ?  this help                        q  quit',
]

/** Three digits and a unit of thousands: 12345 is `12.3k`. */
export const countText = (count: number): string => {
  const units = ['', 'k', 'M', 'G', 'T']
  let value = count
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${value === 0 ? '0' : Number(value.toPrecision(3))}${units[unit]}`
}

/** Columns of a table: a text each; those with `right` are aligned on the right, the last one takes the rest. */
interface Column {
  readonly head: string
  readonly right?: boolean
}

const table = (columns: readonly Column[], rows: readonly (readonly string[])[]): readonly string[] => {
  const widths = columns.map(({ head }, i) => Math.max(head.length, ...rows.map(row => row[i]!.length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (columns[i]!.right ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd()
  return [line(columns.map(({ head }) => head)), ...rows.map(line)]
}

const rateText = (bytes: number): string => `${bytesText(Math.round(bytes))}/s`

const deviceLines = ({ devices }: Rates): readonly string[] =>
  table(
    [
      { head: 'DEVICE' },
      { head: 'ADDRESS' },
      { head: 'QPS', right: true },
      { head: 'OUT', right: true },
      { head: 'IN', right: true },
      { head: 'RETRIES/S', right: true },
    ],
    devices.map(({ device, address, queuePairs, bytesOut, bytesIn, retries }) => [
      device,
      address === '' ? '-' : address,
      String(queuePairs),
      rateText(bytesOut),
      rateText(bytesIn),
      countText(retries),
    ]),
  )

/** Processes on the screen: those with the most packets. */
const MAX_PROCESSES = 4

const processLines = ({ processes }: Rates): readonly string[] =>
  processes.length === 0
    ? []
    : table(
        [
          { head: 'PID', right: true },
          { head: 'QPS', right: true },
          { head: 'SENT/S', right: true },
          { head: 'RECEIVED/S', right: true },
          { head: 'COMMAND' },
        ],
        processes
          .slice(0, MAX_PROCESSES)
          .map(({ pid, command, queuePairs, sent, received }) => [
            String(pid),
            String(queuePairs),
            countText(sent),
            countText(received),
            printable(command),
          ]),
      )

const QP_COLUMNS: readonly Column[] = [
  { head: 'PID', right: true },
  { head: 'COMMAND' },
  { head: 'DEVICE' },
  { head: 'QPN', right: true },
  { head: 'TYPE' },
  { head: 'STATE' },
  { head: 'PEER' },
  { head: 'SENT/S', right: true },
  { head: 'RECEIVED/S', right: true },
  { head: 'OPEN', right: true },
  { head: 'CAUSE' },
]

const qpCells = (qp: QpRates): readonly string[] => [
  qp.pid === 0 ? '-' : String(qp.pid),
  // A program chooses its command: the name must not forge rows.
  qp.pid === 0 ? '-' : printable(qp.command),
  qp.device,
  `0x${qp.qpn.toString(16)}`,
  qp.type,
  qp.state,
  qp.peer ?? '-',
  countText(qp.sent),
  qp.received === undefined ? '-' : countText(qp.received),
  String(qp.pending),
  printable(qp.cause ?? ''),
]

/** The table of queue pairs, with its heads. */
const qpLines = (qps: readonly QpRates[]): readonly string[] => table(QP_COLUMNS, qps.map(qpCells))

const summary = ({ daemon, sessions, residentBytes, queuePairs }: Rates, { order, reverse, delay }: View): string =>
  `userdma top: daemon ${daemon}, ${sessions} ${sessions === 1 ? 'session' : 'sessions'}, ${queuePairs.length} queue pairs, ${bytesText(residentBytes)}; every ${delay} s, by ${orders[order].name}${reverse ? ', reversed' : ''}`

/** The lines above the queue pairs. */
const headLines = (rates: Rates, view: View): readonly string[] => [
  summary(rates, view),
  ...(view.typing === undefined ? [] : [`seconds between two looks [${view.delay}]: ${view.typing}`]),
  ...(view.help ? HELP : []),
  '',
  ...deviceLines(rates),
  '',
  ...processLines(rates),
  ...(rates.processes.length > 0 ? [''] : []),
]

/** How many queue pairs fit on a screen. */
export const visibleQps = (rates: Rates, view: View, height: number): number =>
  Math.max(1, height - headLines(rates, view).length - 1)

/** The lines of the screen, at most `height`, each at most `width` characters long. */
export const screenLines = (rates: Rates, view: View, width: number, height: number): readonly string[] => {
  const ordered = sorted(rates.queuePairs, view.order, view.reverse)
  const shown = ordered.slice(view.first, view.first + visibleQps(rates, view, height))
  const qps = ordered.length === 0 ? ['no queue pairs'] : qpLines(shown)
  const [first = '', ...rest] = headLines(rates, view)
  return [`${first}; h for help`, ...rest, ...qps].slice(0, height).map(line => [...line].slice(0, width).join(''))
}

/** What a look prints with `--batch`: all queue pairs, lines in full. */
export const batchText = (rates: Rates, view: View): string => {
  const qps = sorted(rates.queuePairs, view.order, view.reverse)
  return `${[...headLines(rates, view), ...(qps.length === 0 ? ['no queue pairs'] : qpLines(qps))].join('\n')}\n`
}
