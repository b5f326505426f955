/*
 * The current state of the daemon, for `userdma stat` and for tests that check for leaks.
 */

import { countersOf } from '../assembly/counters.ts'
import type { ContextWait, NetworkDevice } from '../core/driver-contract.ts'
import type { Context, Core, CoreObject } from '../core/model.ts'
import { stat as coreStat } from '../core/stat.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { processorWait, type WaitCount, waits, waitsForUsers } from '../host/event-loop/waits.ts'
import type { RingPool } from '../host/memory/mapping.ts'
import type { RdmaCm } from '../services/rdma-cm/rdma-cm.ts'
import { failureText } from '../spec/check/failures.ts'
import { findings } from '../spec/check/findings.ts'
import type { GraphProcess } from '../spec/check/thread-waits.ts'
import type { WaitStat } from '../spec/check/waits.ts'
import { inReportOrder, type Wait } from '../spec/check/waits.ts'
import { nameIn, PortState } from '../spec/enums.ts'
import type { HealthRow } from '../spec/health.ts'
import { deadlockText } from '../tools/check/waits/wait-lines.ts'
import type { DeviceStat, QpCursor, QpStat, Stat, StatView, ToolReply } from '../uapi/tool.ts'
import { memoryOfProcesses, type SharedLimits } from './accounts.ts'
import { waitsOfChannels } from './check/waits/channels.ts'
import { waitsOfCm } from './check/waits/cm.ts'
import type { DestroyWaits } from './check/waits/destroys.ts'
import { idleWaits } from './check/waits/idle.ts'
import { type ThreadWaits, threadCount } from './check/waits/threads.ts'
import type { Contexts } from './context/contexts.ts'
import type { EventSockets } from './context/event-sockets.ts'
import { cqsOf } from './context/queues.ts'
import type { Devices } from './devices/devices.ts'
import type { Network } from './devices/network.ts'
import type { FailureReports } from './failures.ts'
import type { Netlink } from './netlink/netlink.ts'

const QPS_PER_MESSAGE = 50
/** Maximum waits in a reply, which must fit into one message. */
const MAX_WAITS = 100
/** Maximum number of processes in a stat. */
const MAX_PROCESSES = 10

/** Maximum number of users in a stat. */
const MAX_USERS = 10

/** Whole microseconds. */
const waitStat = ({ count, microseconds, longest }: WaitCount) => ({
  count,
  microseconds: Math.round(microseconds),
  longest: Math.round(longest),
})

const waited = (): Stat['waited'] => {
  const { movers, memory, yields, naps } = waits
  return {
    events: { microseconds: Math.round(performance.eventLoopUtilization().idle * 1000) },
    movers: waitStat(movers),
    memory: waitStat(memory),
    yields: waitStat(yields),
    naps: waitStat(naps),
    processor: { microseconds: Math.round(processorWait() ?? 0) },
  }
}

/** Where an InfiniBand port is in its subnet. */
const subnetOf = (network: NetworkDevice | undefined): Pick<DeviceStat, 'subnet'> => {
  if (network?.subnetPort === undefined) return {}
  const { state, lid, smLid } = network.subnetPort.settings
  return { subnet: { state: nameIn(PortState.values, state), lid, smLid } }
}

/** The longest first. */
const waitedFor = (): Stat['waitedFor'] =>
  [...waitsForUsers()]
    .map(([user, { movers, memory }]) => ({
      user,
      ...waitStat({
        count: movers.count,
        microseconds: movers.microseconds + memory.microseconds,
        longest: Math.max(movers.longest, memory.longest),
      }),
    }))
    .sort((a, b) => b.microseconds - a.microseconds || a.user - b.user)

/** What is counted. */
interface StatSources {
  readonly core: Core
  readonly devices: Devices
  readonly network: Network
  readonly failures: FailureReports
  readonly destroyWaits: DestroyWaits
  readonly ringPool: RingPool
  readonly contexts: Contexts
  readonly events: EventSockets
  readonly netlink: Netlink
  readonly limits: SharedLimits
  readonly cm: RdmaCm
  readonly sessions: { readonly count: number }
}

/** The waits of programs for queues of devices and for connections; undefined between steps. */
function* waitsOfQueues(
  sources: Pick<StatSources, 'devices' | 'failures' | 'cm'>,
): Generator<ContextWait | undefined, void> {
  const ofDrivers: ContextWait[] = []
  for (const { device, network } of [...sources.devices.all])
    for (const found of network?.waits?.(sources.cm.disconnectedQps(device)) ?? []) {
      if (found !== undefined) ofDrivers.push(found)
      yield found
    }
  const others: ContextWait[] = []
  for (const found of waitsOfChannels(sources, ofDrivers)) {
    if (found !== undefined) others.push(found)
    yield found
  }
  for (const found of waitsOfCm(sources.cm, sources.failures.ownerOf)) {
    others.push(found)
    yield found
  }
}

/** Threads of programs that wait for each other, or for what nobody ends, and the contexts of these programs. */
const deadlocksOf = (
  { devices, failures }: Pick<StatSources, 'devices' | 'failures'>,
  threads: ThreadWaits,
  known: readonly ContextWait[],
): readonly { readonly found: ContextWait; readonly contexts: readonly Context[] }[] =>
  threads.look(known).flatMap(graph => {
    if (graph.shape === 'open') return []
    const chain = graph.first.map(i => graph.threads[i]!)
    const own = chain.filter(({ host }) => host === undefined)
    const pids = new Set(own.map(({ pid }) => pid))
    const contexts = devices.all
      .flatMap(({ device }) => [...device.contexts])
      .filter(context => pids.has(failures.ownerOf(context)?.pid ?? -1))
    const [context] = contexts
    const isExplained = known.some(one => findings[one.wait.id].tells === 'reason' && contexts.includes(one.context))
    const wait: Wait = { id: 'deadlock', text: deadlockText(graph), graph, ...(isExplained && { severity: 'note' }) }
    const since = Math.max(...own.map(thread => thread.since))
    return context === undefined ? [] : [{ found: { context, wait, since }, contexts }]
  })

/** As `waitsOfQueues`, and for programs of which it finds none, what their queues wait for (check/waits/idle.ts). */
export function* explainedWaits(
  sources: Pick<StatSources, 'devices' | 'failures' | 'cm' | 'destroyWaits'>,
  threads?: ThreadWaits,
): Generator<ContextWait | undefined, void> {
  const known: ContextWait[] = []
  for (const found of waitsOfQueues(sources)) {
    if (found !== undefined) known.push(found)
    yield found
  }
  const deadlocks = threads === undefined ? [] : deadlocksOf(sources, threads, known)
  for (const { found } of deadlocks) yield found
  const unheard = threads?.unheard ?? []
  yield* unheard
  const destroying = sources.destroyWaits.current().flatMap(({ object: { context } }) => context ?? [])
  const explained = [
    ...known.map(({ context }) => context),
    ...destroying,
    ...deadlocks.flatMap(({ contexts }) => contexts),
    ...unheard.map(({ context }) => context),
  ]
  yield* idleWaits(sources.devices, explained)
}

/** A wait of a program. */
export interface FoundWait extends WaitStat {
  /** Undefined: of rdma_cm. */
  readonly context: Context | undefined
  readonly wait: Wait
  /** The object whose destroy waits. */
  readonly object: CoreObject | undefined
}

export class DaemonStat {
  readonly #sources: StatSources
  /** What the last look for `health` found, and when the first one did, in microseconds. */
  #since: ReadonlyMap<string, number> = new Map()

  constructor(sources: StatSources) {
    this.#sources = sources
  }

  /**
   * Up to QPS_PER_MESSAGE queue pairs from `cursor` on, in the order of nodes (N of uverbsN); default: from the first
   * device's first queue pair.
   */
  qps(cursor?: QpCursor): Extract<ToolReply, { readonly qps: unknown }> {
    const { failures } = this.#sources
    const qps: QpStat[] = []
    // A device can have the node of a removed one, so the order of creation is not the order of nodes.
    const devices = [...this.#sources.devices.all].sort((a, b) => a.device.index - b.device.index)
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
        const { pid = 0, command = '' } = (context && failures.ownerOf(context)) ?? {}
        qps.push({ device, pid, command, ...facts })
      }
      if (found.next !== undefined) return { qps, next: { node, row: found.next } }
    }
    return { qps }
  }

  /** What programs wait for: destroys, then queues, in the order of reports. Made in steps. */
  *foundWaits(): Generator<void, readonly FoundWait[]> {
    const { destroyWaits, failures } = this.#sources
    const destroys = destroyWaits.current().map(({ object, failure }) => ({
      context: object.context,
      device: failure.device,
      wait: { id: 'events-unacknowledged' as const, text: failureText(failure) },
      object,
    }))
    const ofQueues: { context: Context; device: string; wait: Wait; object: undefined }[] = []
    for (const found of waitsOfQueues(this.#sources)) {
      if (found === undefined) yield
      else ofQueues.push({ ...found, device: found.context.device.name, object: undefined })
    }
    return inReportOrder([...destroys, ...ofQueues].map(one => ({ ...one, id: one.wait.id })))
      .slice(0, MAX_WAITS)
      .map(({ context, device, id, wait, object }) => {
        const { pid = 0, command = '' } = (context && failures.ownerOf(context)) ?? {}
        return { device, pid, command, id, text: wait.text, context, wait, object }
      })
  }

  /** As `foundWaits`, for tools. */
  *waits(): Generator<void, readonly WaitStat[]> {
    const found = yield* this.foundWaits()
    return found.map(({ device, pid, command, id, text }) => ({ device, pid, command, id, text }))
  }

  /** What programs have not done with what came to them. Made in steps. */
  *health(): Generator<void, readonly HealthRow[]> {
    const now = nowMicroseconds()
    const since = new Map<string, number>()
    const age = (key: string): number => {
      since.set(key, this.#since.get(key) ?? now)
      return Math.round(now - since.get(key)!)
    }
    const { devices, failures } = this.#sources
    const waits = yield* this.waits()
    const rows: HealthRow[] = waits.map(wait => ({ kind: 'wait', ...wait, age: age(`${wait.pid} ${wait.text}`) }))
    for (const { device } of [...devices.all])
      for (const context of [...device.contexts]) {
        yield
        const owner = failures.ownerOf(context)
        if (owner === undefined) continue
        const program = { device: device.name, pid: owner.pid, command: owner.command }
        const unread = context.asyncFd?.isClosed === false ? context.asyncFd.sink.unread() : 0
        if (unread > 0) rows.push({ kind: 'events', ...program, unread, age: age(`events ${context.id}`) })
        // The TypeScript library polls its CQs on an event.
        if (context.mapped?.packed !== undefined) continue
        for (const cq of cqsOf(context)) {
          const counts = device.driver.requests?.completions?.(cq)
          if (counts === undefined || counts.written === counts.polled) continue
          const { written, polled, lastError } = counts
          rows.push({
            kind: 'completions',
            ...program,
            cq: cq.handle,
            unpolled: written - polled,
            ...(lastError > polled && { isError: true }),
            age: age(`cq ${context.id} ${cq.handle} ${polled}`),
          })
        }
      }
    this.#since = since
    return rows
  }

  /** The processes with open devices; what their threads do is unknown. */
  programs(): readonly GraphProcess[] {
    const { devices, failures } = this.#sources
    const owners = devices.all.flatMap(({ device }) =>
      [...device.contexts].flatMap(context => failures.ownerOf(context) ?? []),
    )
    return [...new Map(owners.map(owner => [owner.pid, owner])).values()].map(({ pid, command }) => ({
      pid,
      command,
      threads: [],
      others: threadCount(pid) ?? 0,
    }))
  }

  /** `objects`: live objects by class name. */
  device({ name, address }: Pick<DeviceStat, 'name' | 'address'>, objects: DeviceStat['objects'] = {}): DeviceStat {
    const { devices, network } = this.#sources
    return {
      name,
      address,
      ...subnetOf(devices.find(name)?.network),
      objects,
      ...countersOf(devices.find(name)?.network),
      faults: { ...network.faultsOf(name) },
    }
  }

  /** `names`: the devices in the result, default all. */
  of(names?: readonly string[]): Stat {
    const { core, ringPool, sessions, contexts, events, netlink, limits, cm, ...sources } = this.#sources
    const counts = coreStat(core)
    const memory = process.memoryUsage()
    const { mapped, mappedBytes } = ringPool.counters
    const { listed } = sources.devices
    const devices = names === undefined ? listed : listed.filter(({ name }) => names.includes(name))
    return {
      pid: process.pid,
      // The session of the requesting tool is not counted.
      sessions: sessions.count - 1,
      contexts: contexts.count,
      rings: contexts.rings,
      mappings: { count: mapped, bytes: mappedBytes },
      descriptors: events.count + netlink.count,
      memory: { resident: memory.rss, heap: memory.heapUsed },
      charged: { bytes: limits.memory.used, processes: memoryOfProcesses(limits).slice(0, MAX_PROCESSES) },
      waited: waited(),
      waitedFor: waitedFor().slice(0, MAX_USERS),
      connections: cm.counts,
      devices: devices.map(device => this.device(device, counts.devices[device.name]?.objects)),
    }
  }

  /** All queue pairs, by device and number. Made in steps. */
  *#queuePairs(): Generator<void, ReadonlyMap<string, QpStat>> {
    const found = new Map<string, QpStat>()
    for (let cursor: QpCursor | undefined; ; ) {
      const { qps, next } = this.qps(cursor)
      for (const qp of qps) found.set(`${qp.device}/${qp.qpn}`, qp)
      if (next === undefined) return found
      cursor = next
      yield
    }
  }

  /** A `StatView`, with queue pairs as a Map. Made in steps. */
  *view(withQps: boolean) {
    const qps = withQps ? { qps: yield* this.#queuePairs(), waits: yield* this.waits() } : {}
    const { devices, ...stat } = this.of()
    return {
      time: performance.timeOrigin + nowMicroseconds() / 1000,
      daemon: stat,
      devices: Object.fromEntries(devices.map(device => [device.name, device])),
      ...qps,
    } satisfies Omit<StatView, 'qps'>
  }
}
