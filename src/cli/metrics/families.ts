/*
 * The metrics of daemons, from their answers to `stat` and the files of their ports (metric-names.ts).
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type CounterFile, DATA_UNIT_BYTES, otherCounts, portCounterFiles } from '../../spec/counters.ts'
import type { DeviceStat, Stat } from '../../uapi/tool.ts'
import type { Health, ProcessHealth } from '../waits/health.ts'
import type { Family, Sample } from './exposition.ts'
import { infinibandMetrics, portStateMetrics } from './metric-names.ts'

/** A daemon's answer. */
export interface Scraped {
  readonly socket: string
  /** Labels of all its samples. */
  readonly labels: Readonly<Record<string, string>>
  /** Undefined: it does not answer. */
  readonly stat: Stat | undefined
  /** Undefined: it does not tell. */
  readonly health: Health | undefined
}

const PORT = '1'
const BITS_PER_GIGABIT = 1e9
/** Of a second. */
const MICROSECONDS = 1e6

/** The value of a file of a port: `4: ACTIVE`, or `10 Gb/sec (…)` as bytes per second. Undefined: there is none. */
const portState = (socket: string, device: string, file: string): number | undefined => {
  try {
    const path = join(`${socket}.tree`, 'sys/class/infiniband', device, 'ports', PORT, file)
    const [, number = '', unit] = /^([\d.]+)(:| Gb)/.exec(readFileSync(path, 'latin1')) ?? []
    if (number === '') return undefined
    return unit === ':' ? Number(number) : (Number(number) * BITS_PER_GIGABIT) / 8
  } catch {
    // A device without a network, or one that was removed.
    return undefined
  }
}

/** All metrics of some daemons. */
export const familiesOf = (all: readonly Scraped[]): Family[] => {
  const running = all.flatMap(({ stat, ...rest }) => (stat === undefined ? [] : [{ ...rest, stat }]))
  const devices = running.flatMap(({ socket, labels, stat }) =>
    stat.devices.map(device => ({ socket, device, labels: { ...labels, device: device.name } })),
  )
  /** A sample of each daemon. */
  const ofDaemons = (value: (stat: Stat) => number): Sample[] =>
    running.map(({ labels, stat }) => ({ labels, value: value(stat) }))
  /** A sample of the port of each device that has the value. */
  const ofPorts = (value: (device: DeviceStat, socket: string) => number | undefined): Sample[] =>
    devices.flatMap(({ socket, device, labels }) => {
      const found = value(device, socket)
      return found === undefined ? [] : [{ labels: { ...labels, port: PORT }, value: found }]
    })
  /** A sample of each device of each process that has one of `found`: the sum of their values. */
  const ofPrograms = <T extends { readonly device: string }>(
    found: (process: ProcessHealth) => readonly T[],
    value: (one: T) => number,
    label?: (one: T) => Readonly<Record<string, string>>,
  ): Sample[] => {
    const sums = new Map<string, Sample>()
    for (const { labels, health } of all)
      for (const process of health?.processes ?? [])
        for (const one of found(process)) {
          const { pid, command } = process
          const own = { ...labels, device: one.device, pid: String(pid), command, ...label?.(one) }
          const key = JSON.stringify(own)
          sums.set(key, { labels: own, value: (sums.get(key)?.value ?? 0) + value(one) })
        }
    return [...sums.values()]
  }
  /** A sample of each count of each device, with its name as label. */
  const ofCounts = (label: string, counts: (device: DeviceStat) => Readonly<Record<string, number>>): Sample[] =>
    devices.flatMap(({ device, labels }) =>
      Object.entries(counts(device)).map(([name, value]) => ({ labels: { ...labels, [label]: name }, value })),
    )
  const counter = (name: string, help: string, samples: readonly Sample[]): Family => ({
    name,
    type: 'counter',
    help,
    samples,
  })
  const gauge = (name: string, help: string, samples: readonly Sample[]): Family => ({
    name,
    type: 'gauge',
    help,
    samples,
  })
  return [
    gauge(
      'userdma_up',
      'whether the daemon answers',
      all.map(({ labels, stat }) => ({ labels, value: stat === undefined ? 0 : 1 })),
    ),
    ...Object.entries(portStateMetrics).map(([name, { file, help }]) =>
      gauge(
        `node_infiniband_${name}`,
        help,
        ofPorts((device, socket) => portState(socket, device.name, file)),
      ),
    ),
    ...portCounterFiles.flatMap(({ folder, name, unit, meaning }) => {
      if (folder === 'hw_counters')
        return [
          counter(
            `rdma_${name}_total`,
            meaning,
            ofPorts(device => device.hw_counters[name]),
          ),
        ]
      const metric = infinibandMetrics[name as CounterFile<'counters'>]
      if (metric === undefined) return []
      const scale = unit === '4 bytes' ? DATA_UNIT_BYTES : 1
      const help = scale === 1 ? meaning : meaning.replace(', divided by 4', '')
      const scaled = (device: DeviceStat): number | undefined => {
        const value = device.counters[name]
        return value === undefined ? undefined : value * scale
      }
      return [counter(`node_infiniband_${metric}`, help, ofPorts(scaled))]
    }),
    counter(
      'userdma_engine_total',
      'what the engine counts beyond the files of the port',
      ofCounts('counter', device => otherCounts('engine', device.transport)),
    ),
    counter(
      'userdma_faults_total',
      'packets by injected fault',
      ofCounts('fault', device => device.faults),
    ),
    gauge(
      'userdma_objects',
      'live objects by class',
      ofCounts('class', device => device.objects),
    ),
    counter(
      'userdma_waited_seconds_total',
      "what the daemon's thread has waited for",
      running.flatMap(({ labels, stat }) =>
        Object.entries(stat.waited).map(([cause, { microseconds }]) => ({
          labels: { ...labels, cause },
          value: microseconds / MICROSECONDS,
        })),
      ),
    ),
    gauge(
      'userdma_failed_queue_pairs',
      'queue pairs of programs in an error state after a failure',
      ofPrograms(
        ({ queuePairs }) => queuePairs,
        ({ isFailed }) => (isFailed ? 1 : 0),
      ),
    ),
    gauge(
      'userdma_unpolled_completions',
      'completions that programs have not polled',
      ofPrograms(
        ({ completions }) => completions,
        ({ unpolled }) => unpolled,
      ),
    ),
    gauge(
      'userdma_unread_events',
      'asynchronous events that programs have not read',
      ofPrograms(
        ({ events }) => events,
        ({ unread }) => unread,
      ),
    ),
    gauge(
      'userdma_waits',
      'states in which programs get nothing, by the name of the finding',
      ofPrograms(
        ({ waits }) => waits,
        () => 1,
        ({ id }) => ({ wait: id }),
      ),
    ),
    gauge(
      'userdma_sessions',
      'sessions of programs and tools',
      ofDaemons(stat => stat.sessions),
    ),
    gauge(
      'userdma_connections',
      'connections of rdma_cm',
      ofDaemons(stat => stat.connections.connections),
    ),
    gauge(
      'userdma_resident_memory_bytes',
      'memory of the daemon',
      ofDaemons(stat => stat.memory.resident),
    ),
  ]
}
