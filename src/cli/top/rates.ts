/*
 * What `userdma top` shows: rates of devices, processes and queue pairs, from two looks at a daemon.
 */

import type { WaitStat } from '../../spec/check/waits.ts'
import { type QpClassName, QpTypes } from '../../spec/classes/qp/qp.ts'
import { type CounterFile, DATA_UNIT_BYTES } from '../../spec/counters.ts'
import type { DeviceStat, QpStat } from '../../uapi/tool.ts'
import type { Look } from '../looks.ts'

interface DeviceRates {
  readonly device: string
  readonly address: string
  /** Bytes per second. */
  readonly bytesOut: number
  readonly bytesIn: number
  /** Requests that were sent again, after a timeout or a NAK, and those given up; per second. */
  readonly retries: number
  readonly queuePairs: number
}

export interface QpRates {
  readonly device: string
  readonly qpn: number
  readonly pid: number
  readonly command: string
  /** RC, UD, … */
  readonly type: string
  readonly state: string
  /** `0x12 at 127.0.0.2`; undefined without a peer. */
  readonly peer: string | undefined
  /** Packets per second; `received` is undefined for UD, which does not count them. */
  readonly sent: number
  readonly received: number | undefined
  /** Requests posted and not completed. */
  readonly pending: number
  /** Why it failed, or what it waits for; undefined if neither is known. */
  readonly cause: string | undefined
}

interface ProcessRates {
  readonly pid: number
  readonly command: string
  readonly queuePairs: number
  /** Packets per second of all its queue pairs. */
  readonly sent: number
  readonly received: number
}

export interface Rates {
  readonly daemon: number
  /** Seconds between the two looks; 0 for the first one, which has no rates. */
  readonly seconds: number
  readonly sessions: number
  readonly residentBytes: number
  readonly devices: readonly DeviceRates[]
  readonly processes: readonly ProcessRates[]
  readonly queuePairs: readonly QpRates[]
}

const PSN_MASK = 0xff_ffff
/** Counters of requests that were sent again, or could not be (docs/reference/counters.md). */
const RETRY_COUNTERS: readonly CounterFile<'hw_counters'>[] = [
  'completer_retry_err',
  'rcvd_rnr_err',
  'retry_exceeded_err',
]

const perSecond = (difference: number, seconds: number): number =>
  seconds === 0 || difference < 0 ? 0 : difference / seconds

const deviceRates = (before: DeviceStat | undefined, after: DeviceStat, seconds: number, queuePairs: number) => {
  const growth = (kind: 'counters' | 'hw_counters', name: string): number =>
    before === undefined ? 0 : perSecond((after[kind][name] ?? 0) - (before[kind][name] ?? 0), seconds)
  return {
    device: after.name,
    address: after.address,
    bytesOut: growth('counters', 'port_xmit_data') * DATA_UNIT_BYTES,
    bytesIn: growth('counters', 'port_rcv_data') * DATA_UNIT_BYTES,
    retries: RETRY_COUNTERS.reduce((sum, name) => sum + growth('hw_counters', name), 0),
    queuePairs,
  }
}

/** Queue pairs that count no received packets: datagrams need not arrive in order. */
const UNCOUNTED: ReadonlySet<string> = new Set(['UD', 'GSI'])

const typeName = (type: string): string => (Object.hasOwn(QpTypes, type) ? QpTypes[type as QpClassName] : type)

const keyOf = ({ device, qpn, pid }: QpStat): string => `${device} ${qpn} ${pid}`

const waiterOf = ({ device, pid }: { readonly device: string; readonly pid: number }): string => `${device} ${pid}`

/** The packets between two PSNs. A move to RESET sets them anew: at most half of the numbers count as progress. */
const packetsBetween = (before: number, after: number): number => {
  const count = (after - before) & PSN_MASK
  return count > PSN_MASK / 2 ? 0 : count
}

const qpRates = (
  before: QpStat | undefined,
  after: QpStat,
  seconds: number,
  waits: ReadonlyMap<string, WaitStat>,
): QpRates => {
  const { device, qpn, pid, command, type, state, peer, send, lastError } = after
  const rate = (part: 'next' | 'expected'): number =>
    before === undefined ? 0 : perSecond(packetsBetween(before.psn[part], after.psn[part]), seconds)
  return {
    device,
    qpn,
    pid,
    command,
    type: typeName(type),
    state,
    peer: peer && `0x${peer.qpn.toString(16)} at ${peer.address}`,
    sent: rate('next'),
    received: UNCOUNTED.has(typeName(type)) ? undefined : rate('expected'),
    pending: send.pending,
    cause: lastError?.text ?? (send.pending > 0 ? waits.get(waiterOf(after))?.text : undefined),
  }
}

const processRates = (qps: readonly QpRates[]): readonly ProcessRates[] => {
  const byPid = new Map<number, ProcessRates>()
  for (const { pid, command, sent, received = 0 } of qps) {
    if (pid === 0) continue
    const sum = byPid.get(pid) ?? { pid, command, queuePairs: 0, sent: 0, received: 0 }
    byPid.set(pid, {
      ...sum,
      queuePairs: sum.queuePairs + 1,
      sent: sum.sent + sent,
      received: sum.received + received,
    })
  }
  return [...byPid.values()].sort((a, b) => b.sent + b.received - a.sent - a.received)
}

/** The rates between two looks; without `before` all rates are 0. */
export const ratesBetween = (before: Look | undefined, after: Look): Rates => {
  const seconds = before === undefined ? 0 : (after.time - before.time) / 1000
  const earlier = new Map(before?.qps.map(qp => [keyOf(qp), qp]))
  // Of a program with several waits the first counts: they are in the order of reports.
  const waits = new Map(after.waits.toReversed().map(wait => [waiterOf(wait), wait]))
  const queuePairs = after.qps.map(qp => qpRates(earlier.get(keyOf(qp)), qp, seconds, waits))
  const queuePairsOf = new Map<string, number>()
  for (const { device } of after.qps) queuePairsOf.set(device, (queuePairsOf.get(device) ?? 0) + 1)
  return {
    daemon: after.stat.pid,
    seconds,
    sessions: after.stat.sessions,
    residentBytes: after.stat.memory.resident,
    devices: after.stat.devices.map(device =>
      deviceRates(
        before?.stat.devices.find(({ name }) => name === device.name),
        device,
        seconds,
        queuePairsOf.get(device.name) ?? 0,
      ),
    ),
    processes: processRates(queuePairs),
    queuePairs,
  }
}

/** Orders of queue pairs by the keys that choose them. */
export const orders = {
  P: { name: 'packets', value: ({ sent, received = 0 }: QpRates) => sent + received },
  E: {
    name: 'failures',
    value: ({ cause, state }: QpRates) => (cause === undefined ? 0 : 1) + (state === 'ERR' ? 1 : 0),
  },
  S: { name: 'requests', value: ({ pending }: QpRates) => pending },
  N: { name: 'processes', value: ({ pid }: QpRates) => pid },
} as const

export type OrderKey = keyof typeof orders

/** The queue pairs in an order, the highest first; `reverse`: the lowest. Equal ones keep their order. */
export const sorted = (qps: readonly QpRates[], key: OrderKey, reverse = false): readonly QpRates[] => {
  const { value } = orders[key]
  return [...qps].sort((a, b) => (reverse ? value(a) - value(b) : value(b) - value(a)))
}
