/*
 * `userdma stat`: shows the objects, sessions, memory and counters of a daemon, or its queue pairs (`--qps`).
 */

import { counted } from '../../base/text.ts'
import { lastingWaits } from '../../daemon/client/lasting-waits.ts'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { bytesText } from '../../spec/byte-count.ts'
import { frameText } from '../../spec/check/frames.ts'
import type { WaitStat } from '../../spec/check/waits.ts'
import { otherCounts } from '../../spec/counters.ts'
import { durationText } from '../../spec/duration.ts'
import type { LentBytes } from '../../spec/lends.ts'
import type { LoopWaitStat } from '../../spec/loop-waits.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { classText } from '../../spec/wire/flow.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import type { DeviceStat, QpStat, Stat } from '../../uapi/tool.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { statOptions } from '../command-line/options.ts'
import { openChosenSession } from '../own-daemon.ts'

/** Options of commands that query or change a daemon. */
export type QueryOptions = Omit<OptionsOf<typeof statOptions>, 'watch'>

/** Nonzero counts, by name. */
export const countsText = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .filter(([, count]) => count !== 0)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ') || 'none'

const amountText = ({ count, bytes }: Stat['rings']): string => (count === 0 ? '0' : `${count} (${bytesText(bytes)})`)

/** Maximum processes that are named with their memory, those with the most. */
const MAX_PROCESSES = 3

/** Memory of objects, with the processes to which most of it is charged. */
const chargedText = ({ bytes, processes }: Stat['charged']): string => {
  const largest = processes.slice(0, MAX_PROCESSES).map(process => `process ${process.pid} ${bytesText(process.bytes)}`)
  const ellipsis = processes.length > MAX_PROCESSES ? ', …' : ''
  return largest.length === 0 ? '0' : `${bytesText(bytes)} (${largest.join(', ')}${ellipsis})`
}

const secondsText = (microseconds: number): string =>
  microseconds < 1000
    ? `${microseconds} µs`
    : microseconds < 1e6
      ? `${(microseconds / 1000).toFixed(1)} ms`
      : `${(microseconds / 1e6).toFixed(1)} s`

/** A wait: `1.2 s (4123 times, longest 31.0 ms)`. */
const waitText = ({ microseconds, count, longest = 0 }: LoopWaitStat): string =>
  count === undefined
    ? secondsText(microseconds)
    : `${secondsText(microseconds)} (${count} times, longest ${secondsText(longest)})`

/** What the loop has waited for. */
const waitedText = (waited: Stat['waited']): string =>
  Object.entries(waited)
    .filter(([, { microseconds }]) => microseconds > 0)
    .map(([cause, wait]) => `${cause} ${waitText(wait)}`)
    .join(', ') || 'never'

/** Maximum users that are named with the waits for their programs, those with the longest. */
const MAX_USERS = 3

/** Where an InfiniBand port is in its subnet: `ACTIVE, LID 2, subnet manager at LID 1`. */
export const subnetText = ({ state, lid, smLid }: NonNullable<DeviceStat['subnet']>): string =>
  smLid === 0
    ? `${state}: no subnet manager has come`
    : `${state}, ${lid === 0 ? 'no LID' : `LID ${lid}`}, subnet manager at LID ${smLid}`

/** The output of `userdma stat`. */
export const statText = (stat: Stat, socket: string): string => {
  const { rings, mappings, memory } = stat
  const rows: [string, string][] = [
    ['sessions', String(stat.sessions)],
    ['contexts', String(stat.contexts)],
    ['rings', amountText(rings)],
    ['mappings', amountText(mappings)],
    ['descriptors', String(stat.descriptors)],
    ['connections', countsText({ ...stat.connections })],
    ['memory', `${bytesText(memory.resident)} resident, ${bytesText(memory.heap)} heap`],
    ['objects', chargedText(stat.charged)],
    ['waited', waitedText(stat.waited)],
  ]
  const users = stat.waitedFor.slice(0, MAX_USERS)
  if (users.length > 0)
    rows.push(['waited for', users.map(({ user, ...wait }) => `user ${user} ${waitText(wait)}`).join(', ')])
  const lines = [`daemon ${stat.pid} at ${socket}`, ...rows.map(([name, value]) => `  ${name.padEnd(12)} ${value}`)]
  for (const device of stat.devices)
    lines.push(
      device.address === '' ? `device ${device.name}` : `device ${device.name} at ${device.address}`,
      ...(device.subnet === undefined ? [] : [`  subnet       ${subnetText(device.subnet)}`]),
      `  objects      ${countsText(device.objects)}`,
      `  hw_counters  ${countsText(device.hw_counters)}`,
      `  counters     ${countsText(device.counters)}`,
      `  port         ${countsText(otherCounts('port', device.port))}`,
      `  transport    ${countsText(otherCounts('engine', device.transport))}`,
      `  faults       ${countsText(device.faults)}`,
    )
  return `${lines.join('\n')}\n`
}

/** Opens a session with the daemon, and prints the text that `show` returns. */
export const printFromDaemon = async (
  options: QueryOptions,
  show: (client: ToolSession) => Promise<string>,
): Promise<void> => {
  const client = await openChosenSession(options.socket)
  try {
    process.stdout.write(await show(client))
  } finally {
    client.close()
  }
}

type Peer = NonNullable<QpStat['peer']>

/** Requests in a queue, and its size. */
const requestsText = ({ pending, depth }: QpStat['send']): string => `${pending}/${depth}`

/**
 * The source port of paths for which no socket is left (transport/phy/udp/outlets.ts), and of those to a peer to which
 * packets are lost: it tells which of several equal paths they take.
 */
const portText = ({ sourcePort = 0 }: Peer, isLossy: boolean): string =>
  sourcePort === ROCE_UDP_PORT
    ? `, from UDP port ${sourcePort}, as none of its own is free`
    : isLossy && sourcePort > 0
      ? `, from UDP port ${sourcePort}`
      : ''

const retriesText = (retries: number): string => (retries === 0 ? '' : `, ${counted(retries, 'retry', 'retries')}`)

/** `isLossy`: a queue pair has sent requests to the peer again. */
const peerText = (peer: Peer, retries: number, isLossy: boolean): string =>
  `0x${peer.qpn.toString(16)} at ${peer.address}${classText(peer)}${portText(peer, isLossy)}${retriesText(retries)}`

/** The output of `userdma stat --qps`: a table, and below each queue pair its last failure. */
export const qpsText = (qps: readonly QpStat[]): string => {
  if (qps.length === 0) return 'no queue pairs\n'
  const heads = ['DEVICE', 'QPN', 'PROCESS', 'TYPE', 'STATE', 'PEER', 'SEND', 'RECEIVE']
  const lossy = new Set(
    qps.flatMap(({ peer, retries = 0 }) => (peer !== undefined && retries > 0 ? [peer.address] : [])),
  )
  const rows = qps.map(({ device, qpn, pid, command, type, state, peer, retries = 0, send, receive }) => [
    device,
    `0x${qpn.toString(16)}`,
    // A program chooses its command: the name must not forge rows.
    pid === 0 ? '-' : `${pid} ${printable(command)}`,
    type,
    state,
    peer === undefined ? '-' : peerText(peer, retries, lossy.has(peer.address)),
    requestsText(send),
    `${requestsText(receive)}${receive.shared ? ' shared' : ''}`,
  ])
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map(row => row[i]!.length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd()
  const lines = [line(heads)]
  for (const [i, row] of rows.entries()) {
    lines.push(line(row))
    const { lastError } = qps[i]!
    if (lastError !== undefined) lines.push(`    last error: ${printable(lastError.text)}`)
  }
  return `${lines.join('\n')}\n`
}

/** The end of the output of `userdma stat --qps`: what programs wait for. */
export const waitsText = (waits: readonly WaitStat[]): string =>
  waits
    .map(({ device, pid, command, text }) => `${device}: (${pid}, ${printable(command)}) ${printable(text)}\n`)
    .join('')

const programText = ({ pid, command }: Pick<LentBytes, 'pid' | 'command'>): string =>
  `process ${pid}${command === '' ? '' : ` (${printable(command)})`}`

/** To whom bytes are lent: `, to process 12 (peer) by QP 0x11`. */
const borrowerText = ({ qpn, to }: LentBytes): string =>
  qpn === undefined ? '' : ` to ${to === undefined ? 'the peer of' : `${programText(to)} by`} QP 0x${qpn.toString(16)}`

const rightWords = { read: 'reading', write: 'writing', atomic: 'atomics' } as const
const purposes = (rights: readonly (keyof typeof rightWords)[]): string =>
  rights.map(right => rightWords[right]).join(' and ') || 'nothing'

/** Where the program has lent, innermost first. */
const framesOf = ({ stack = [] }: LentBytes, symbols: Symbols): readonly string[] =>
  symbols.framesOf(stack).map(frame => printable(frameText(frame)))

const lentRowText = (row: LentBytes, symbols: Symbols): string => {
  const { address, length, age, rights, label, left, told } = row
  const from = framesOf(row, symbols).map(frame => `\n    ${frame}`)
  const purpose = told === undefined ? `lent for ${purposes(rights ?? [])}` : `told by ${told}`
  const name = label === undefined ? '' : ` (${printable(label)})`
  const rest = left === undefined ? '' : `, for ${durationText(left)}`
  return `  ${length} bytes at ${address} ${purpose}${name}${borrowerText(row)}, since ${durationText(age)}${rest}${from.join('')}`
}

/** The output of `userdma stat --lent`: rows by process. */
const lentText = async (rows: readonly LentBytes[], isJson: boolean): Promise<string> => {
  const { lookUp } = await import('../check/symbols.ts')
  return lookUp(symbols => {
    if (isJson) {
      const named = rows.map(row => (row.stack === undefined ? row : { ...row, stack: framesOf(row, symbols) }))
      return `${jsonText(named, 2)}\n`
    }
    return lentByProcess(rows, symbols)
  })
}

const lentByProcess = (rows: readonly LentBytes[], symbols: Symbols): string => {
  if (rows.length === 0) return 'no lent memory\n'
  const byProcess = new Map<string, string[]>()
  for (const row of rows) {
    const name = programText(row)
    byProcess.set(name, [...(byProcess.get(name) ?? []), lentRowText(row, symbols)])
  }
  return `${[...byProcess].flatMap(([name, lines]) => [name, ...lines]).join('\n')}\n`
}

/** The command. */
export const stat = (options: QueryOptions): Promise<void> =>
  printFromDaemon(options, async client => {
    if (options.waits) {
      const { waitsReport } = await import('../waits/report.ts')
      return waitsReport(client, options.json === true)
    }
    if (options.health) {
      const { healthJson, healthText } = await import('../waits/health.ts')
      return options.json ? `${jsonText(await healthJson(client), 2)}\n` : healthText(client)
    }
    if (options.qps) {
      const qps = await client.qps()
      return options.json ? `${jsonText(qps, 2)}\n` : qpsText(qps) + waitsText(await lastingWaits(() => client.waits()))
    }
    if (options.lent) {
      return lentText(await client.lent(), options.json === true)
    }
    const current = await client.stat()
    return options.json ? `${jsonText(current, 2)}\n` : statText(current, client.socket)
  })
