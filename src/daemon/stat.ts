/*
 * The current state of the daemon, for `userdma stat` and for tests that check for leaks.
 */

import { countersOf } from '../assembly/counters.ts'
import type { ContextWait } from '../core/driver-contract.ts'
import type { Context } from '../core/model.ts'
import { stat as coreStat } from '../core/stat.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { failureText } from '../spec/check/failures.ts'
import { inReportOrder, type WaitId } from '../spec/check/waits.ts'
import type { DeviceStat, QpCursor, QpStat, Stat, StatView, ToolReply, WaitStat } from '../uapi/tool.ts'
import { memoryOfProcesses } from './accounts.ts'
import { waitsOfChannels } from './channel-waits.ts'
import type { DaemonState } from './state.ts'

const QPS_PER_MESSAGE = 50

/**
 * Up to QPS_PER_MESSAGE queue pairs from `cursor` on, in the order of nodes (N of uverbsN); default: from the first
 * device's first queue pair.
 */
export const qpsOf = (daemon: DaemonState, cursor?: QpCursor): Extract<ToolReply, { readonly qps: unknown }> => {
  const qps: QpStat[] = []
  // A device can have the node of a removed one, so the order of creation is not the order of nodes.
  const devices = [...daemon.devices.all].sort((a, b) => a.device.index - b.device.index)
  for (const {
    spec,
    device: { index: node },
    network,
  } of devices) {
    if (network?.queues === undefined || node < (cursor?.node ?? 0)) continue
    const { name: device } = spec
    const row = node === cursor?.node ? cursor.row : 0
    const found = network.queues.list(row, QPS_PER_MESSAGE - qps.length)
    for (const { facts, context } of found.qps) {
      const { pid = 0, command = '' } = (context && daemon.failures.ownerOf(context)) ?? {}
      qps.push({ device, pid, command, ...facts })
    }
    if (found.next !== undefined) return { qps, next: { node, row: found.next } }
  }
  return { qps }
}

/** Maximum waits in a reply, which must fit into one message. */
const MAX_WAITS = 100

/** What programs wait for: destroys, then queues, in the order of reports. Made in steps. */
export function* waitsOf({ destroyWaits, failures, ...daemon }: DaemonState): Generator<void, readonly WaitStat[]> {
  const destroys = destroyWaits.current().map(({ object: { context }, failure }) => ({
    context,
    device: failure.device,
    id: 'events-unacknowledged' as const,
    text: failureText(failure),
  }))
  const ofQueues: { context: Context; device: string; id: WaitId; text: string }[] = []
  for (const found of waitsOfQueues({ ...daemon, failures })) {
    if (found === undefined) yield
    else {
      const { context, wait } = found
      ofQueues.push({ context, device: context.device.name, id: wait.id, text: wait.text })
    }
  }
  return inReportOrder([...destroys, ...ofQueues])
    .slice(0, MAX_WAITS)
    .map(({ context, device, id, text }) => {
      const { pid = 0, command = '' } = (context && failures.ownerOf(context)) ?? {}
      return { device, pid, command, id, text }
    })
}

/** The waits of programs for queues of devices; undefined between steps. */
export function* waitsOfQueues(
  daemon: Pick<DaemonState, 'devices' | 'failures'>,
): Generator<ContextWait | undefined, void> {
  const ofDrivers: ContextWait[] = []
  for (const { network } of [...daemon.devices.all])
    for (const found of network?.waits?.() ?? []) {
      if (found !== undefined) ofDrivers.push(found)
      yield found
    }
  yield* waitsOfChannels(daemon, ofDrivers)
}

/** Maximum number of processes in a stat. */
const MAX_PROCESSES = 10

/** `objects`: live objects by class name. */
export const deviceStat = (
  daemon: DaemonState,
  { name, address }: Pick<DeviceStat, 'name' | 'address'>,
  objects: DeviceStat['objects'] = {},
): DeviceStat => ({
  name,
  address,
  objects,
  ...countersOf(daemon.devices.find(name)?.network),
  faults: { ...daemon.network.faultsOf(name) },
})

/** `names`: the devices in the result, default all. */
export const statOf = (daemon: DaemonState, names?: readonly string[]): Stat => {
  const counts = coreStat(daemon.core)
  const memory = process.memoryUsage()
  const { mapped, mappedBytes } = daemon.ringPool.counters
  const { listed } = daemon.devices
  const devices = names === undefined ? listed : listed.filter(({ name }) => names.includes(name))
  return {
    pid: process.pid,
    // The session of the requesting tool is not counted.
    sessions: daemon.sessions() - 1,
    contexts: daemon.contexts.count,
    rings: daemon.contexts.rings,
    mappings: { count: mapped, bytes: mappedBytes },
    descriptors: daemon.events.count + daemon.netlink.count,
    memory: { resident: memory.rss, heap: memory.heapUsed },
    charged: { bytes: daemon.limits.memory.used, processes: memoryOfProcesses(daemon.limits).slice(0, MAX_PROCESSES) },
    connections: daemon.cm.counts,
    devices: devices.map(device => deviceStat(daemon, device, counts.devices[device.name]?.objects)),
  }
}

/** All queue pairs, by device and number. Made in steps. */
function* queuePairsOf(daemon: DaemonState): Generator<void, ReadonlyMap<string, QpStat>> {
  const found = new Map<string, QpStat>()
  for (let cursor: QpCursor | undefined; ; ) {
    const { qps, next } = qpsOf(daemon, cursor)
    for (const qp of qps) found.set(`${qp.device}/${qp.qpn}`, qp)
    if (next === undefined) return found
    cursor = next
    yield
  }
}

/** A `StatView`, with queue pairs as a Map. Made in steps. */
export function* viewOf(daemon: DaemonState, withQps: boolean) {
  const qps = withQps ? { qps: yield* queuePairsOf(daemon), waits: yield* waitsOf(daemon) } : {}
  const { devices, ...stat } = statOf(daemon)
  return {
    time: performance.timeOrigin + nowMicroseconds() / 1000,
    daemon: stat,
    devices: Object.fromEntries(devices.map(device => [device.name, device])),
    ...qps,
  } satisfies Omit<StatView, 'qps'>
}
