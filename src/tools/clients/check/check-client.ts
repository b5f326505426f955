/*
 * The producer of program events (spec/check/program-events.ts) of a core, and the checker (src/tools/check/) as a
 * consumer of them. Calls are seen by a hook of each device. Contexts that are not checked are left out
 * (`HostSources.isChecked`).
 */
import { registerClient } from '../../../core/devices/clients.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import type { ContextWait } from '../../../core/driver-contract.ts'
import { onRegionUnmapped } from '../../../core/memory/unmapped-regions.ts'
import type { Context, Core, CoreObject, Device } from '../../../core/model.ts'
import { probeNames } from '../../../spec/check/probes.ts'
import { type CheckedWait, type ContextEnd, placeOf } from '../../../spec/check/program-events.ts'
import type { Wait } from '../../../spec/check/waits.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { RecordedCheck } from '../../../spec/session-events.ts'
import { Checker } from '../../check/checker.ts'
import { SWAPS } from '../../check/findings/swap-repeated.ts'
import { LENDS } from '../../check/lends/lends.ts'
import type { ReportFinding } from '../../check/reporting.ts'
import { ConsumerRank, type ProgramStream } from '../../events/stream.ts'
import { readWord } from '../requests/digest.ts'
import { type RequestPoll, watchRequests } from '../requests/watch.ts'
import { createAdvertisements } from './advertisements.ts'
import { gidsOf, hookOf } from './call-hook.ts'
import { reportFailures } from './failures.ts'
import { keyMemory } from './key-memory.ts'
import { createLentWatch } from './lent-watch.ts'
import { probesOf } from './probes.ts'
import type { HostSources } from './sources.ts'
import { streamOf } from './streams.ts'
import { WatchedDevices } from './watched-devices.ts'

/** A core whose programs are checked. */
export interface CheckedCore {
  readonly checker: Checker
  readonly stream: ProgramStream
  /** For recordings. */
  readonly recorded: RecordedCheck
  /** Reads the event logs now, and when queues end, for recordings: nobody else does. False: somebody else does. */
  recordLogs(isWanted: boolean): void
  /** Tells the stream of the accesses of peers from now on: the program lends memory. */
  watchAccesses(): void
  /** Reports the receives and polls so far of a context, or of all that are checked. */
  scan(context?: Context): void
  /** As `scan`, of a queue pair, SRQ or CQ. */
  scanQueue(queue: CoreObject): void
  /** The objects of a context are about to end. May be repeated: only the first counts. */
  contextEnds(context: Context, how: ContextEnd['how']): void
  /** Compare-and-swaps that programs repeat without effect. */
  swapWaits(): readonly ContextWait[]
  /** What an event of a context that happens now has. */
  originOf(context: Context): Omit<CheckedWait, 'wait' | 'posted'>
  /** A program waits for a completion, an event or a message that does not come. */
  waits(context: Context, wait: Wait): void
}

/** Creates a checker and feeds it until the core ends. */
export const createChecker = (core: Core, report: ReportFinding, sources: HostSources): CheckedCore => {
  const watched = new WatchedDevices(sources)
  const stream = streamOf(core)
  const originOf: CheckedCore['originOf'] = context => ({
    time: stream.next(),
    device: context.device.name,
    deviceNumber: context.device.index,
    context: context.id,
    program: sources.program(context),
  })
  const { adapters, buffers, lent, who, tormentName, findsWaits, isClosed } = sources
  const probes = stream.probed(probesOf(core, watched, sources))
  const facts = {
    ...(adapters && { adapters }),
    ...(buffers && { buffers }),
    ...(lent && { lent }),
    ...(who && { who }),
    ...(tormentName && { tormentName }),
    ...(findsWaits && { findsWaits }),
    ...(isClosed && { isClosed }),
  }
  const { clock = 0, askPeer } = sources
  const checker = new Checker(report, {
    ...{ now: () => stream.time, clock, ...probes, ...facts },
    ...(askPeer && { askPeer }),
  })
  stream.add(ConsumerRank.CHECK, checker)
  const advertisements =
    lent === 'learnt'
      ? createAdvertisements(stream, sources.scratch, context => sources.program(context), watched)
      : undefined
  const watchMessages = (poll: RequestPoll): void =>
    poll.watchMessages(advertisements?.isOfUse ? advertisements.watch : undefined)
  if (advertisements !== undefined)
    stream.add(ConsumerRank.CHECK, {
      event(event) {
        if (event.event !== 'called' || (event.class !== 'mr' && event.class !== 'cm_id')) return
        advertisements.called(event)
        for (const poll of watched.polls) watchMessages(poll)
      },
    })
  const lends = checker.ask(LENDS)
  const lentWatch =
    lends &&
    createLentWatch({
      stream,
      checker,
      lends,
      readLends: sources.readLends,
      memoryOf: keyMemory(index => watched.device(index)),
      watchPosts(watcherOf) {
        const all = watched.all.map(device => watchRequests(device, watcherOf(device.index), sources.scratch))
        return () => {
          for (const poll of all) poll.end()
        }
      },
    })
  // What was lent before a post is known when its request is told.
  if (sources.readLends) stream.beforePosted = () => sources.readLends?.()
  let recordsLogs = false
  const queueEnds = (): void => {
    if (recordsLogs) probes.readLog?.()
  }
  const contextEnds = (context: Context, how: ContextEnd['how']): void => {
    queueEnds()
    const pendingSends = watched.poll(context.device.index)?.settleContext(context, how === 'kill')
    stream.event({ event: 'contextEnds', context: context.id, how, pendingSends })
  }
  const actions = { queueEnds, contextEnds }
  /** Accesses of peers take longer while they are watched. */
  let areAccessesWatched = checker.watchesAccesses
  const watchAccessesOf = (device: Device): void => {
    const { index, memory, driver } = device
    const named = driver.requests?.namedQpn
    memory.accessWatch = (key, hi, lo, length, access, qpn) => {
      sources.readLends?.()
      stream.accessed(index, key, hi, lo, length, access, named?.(device, qpn) ?? qpn)
    }
  }
  onRegionUnmapped(core, region => {
    if (region.context !== undefined && sources.isChecked(region.context))
      stream.event({ event: 'unmapped', object: region.id })
  })
  registerClient(core, {
    name: 'check',
    add(device) {
      const { index } = device
      const poll = watchRequests(device, checker.requests, sources.scratch)
      watched.add(device, poll)
      stream.event({ event: 'deviceAdded', device: index })
      stream.event({ event: 'gids', device: index, gids: gidsOf(device) })
      watchMessages(poll)
      if (advertisements !== undefined)
        device.memory.windowWatch = row => advertisements.windowChanged(index, device.memory, row)
      if (areAccessesWatched) watchAccessesOf(device)
      device.memory.lentWatch = lentWatch?.(index)
      addHook(device, hookOf(device, stream, sources, watched, actions))
      return true
    },
    // The hook stays, because the checker needs the later destroys of the device's objects.
    remove() {},
  })
  // rdma_cm, whose identifiers belong to no device.
  const system = systemDevice(core)
  addHook(system, hookOf(system, stream, sources, watched, actions))
  reportFailures(core, stream, sources, watched)
  return {
    checker,
    stream,
    recorded: { ...facts, probes: probeNames.filter(name => probes[name] !== undefined) },
    recordLogs(isWanted) {
      recordsLogs = isWanted
      if (isWanted) probes.readLog?.()
    },
    watchAccesses() {
      if (areAccessesWatched) return
      areAccessesWatched = true
      for (const device of watched.all) watchAccessesOf(device)
    },
    scan: context => watched.scan(context),
    scanQueue: queue => watched.scanQueue(queue),
    contextEnds,
    originOf,
    swapWaits: () =>
      checker
        .need(SWAPS)
        .waits(({ device: index, element }) => {
          const device = watched.device(index)
          return device && readWord(device.memory, sources.scratch, device.driver.requests, element)
        })
        .flatMap(({ context, wait }) => {
          const found = watched.context(context)
          return found === undefined ? [] : [{ context: found, wait }]
        }),
    waits(context, wait) {
      const { request } = wait
      const posted =
        request &&
        watched.poll(context.device.index)?.requestOf(request.number, request.queue !== PostQueue.SEND, request.wrId)
      const name = posted && `${posted.numbered ?? 'wr_id'} ${posted.wrId}`
      const text = (name && request?.around?.join(name)) ?? wait.text
      const place = posted && { posted: placeOf(posted) }
      stream.event({ event: 'waits', ...originOf(context), wait: { ...wait, text }, ...place })
    },
  }
}
