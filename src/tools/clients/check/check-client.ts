/*
 * The producer of program events (spec/check/program-events.ts) of a core, and the checker (src/tools/check/) as a
 * consumer of them. Calls are seen by a hook of each device. Contexts that are not checked are left out
 * (`HostSources.isChecked`).
 */

import { registerClient } from '../../../core/devices/clients.ts'
import { findGid } from '../../../core/devices/gids.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import { type ContextWait, isQueuePair } from '../../../core/driver-contract.ts'
import { addFailureHandler } from '../../../core/failures.ts'
import { onRegionUnmapped } from '../../../core/memory/unmapped-regions.ts'
import type {
  CallContext,
  Context,
  Core,
  CoreObject,
  Device,
  Entry,
  HandlerValues,
  Hook,
  Port,
} from '../../../core/model.ts'
import type { Failure } from '../../../spec/check/failures.ts'
import type { Program, Stack } from '../../../spec/check/finding.ts'
import { type ProgramProbes, probeNames } from '../../../spec/check/probes.ts'
import { type CheckedWait, type ContextEnd, placeOf } from '../../../spec/check/program-events.ts'
import type { RequestNumber, WorkRequest } from '../../../spec/check/requests.ts'
import { ConsumerRank, type ProgramStream } from '../../../spec/check/stream.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError, isInjected } from '../../../spec/errno.ts'
import { because } from '../../../spec/reason.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { RecordedCheck } from '../../../spec/session-events.ts'
import { addressText, lidAddress, lidOf } from '../../../transport/wire/address.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { Checker } from '../../check/checker.ts'
import type { CheckerSources } from '../../check/detector.ts'
import { LENDS } from '../../check/lends/lends.ts'
import type { Gids } from '../../check/outages.ts'
import type { ReportFinding } from '../../check/reporting.ts'
import { SWAPS } from '../../check/swaps.ts'
import { lossesOf } from '../faults/losses.ts'
import { hashRange, readWord } from '../requests/digest.ts'
import { type RequestPoll, reportPollsBefore, watchRequests } from '../requests/watch.ts'
import { createAdvertisements } from './advertisements.ts'
import { keyMemory } from './key-memory.ts'
import { createLentWatch } from './lent-watch.ts'
import { streamOf } from './streams.ts'

/** What the daemon or library provides. `CheckerSources`, for the checker, has the ids of contexts instead. */
interface HostSources
  extends Pick<
    CheckerSources,
    | 'adapters'
    | 'buffers'
    | 'lent'
    | 'who'
    | 'tormentName'
    | 'findsWaits'
    | 'isClosed'
    | 'lockLimit'
    | 'isCopiedByFork'
    | 'privateFile'
    | 'unmapStack'
    | 'clock'
    | 'askPeer'
  > {
  /** An arena of SCRATCH_BYTES (spec/check/requests.ts). The driver reads programs' memory into it, for hashes. */
  readonly scratch: Arena
  /** Whether the calls and failures of a context are checked. */
  isChecked(context: Context): boolean
  /** The program of a context; undefined for the process that runs the checker. */
  program(context: Context): Program | undefined
  /** Captures the stack of the current call. The returned function returns the stack, also after the call. */
  callStack(): () => Stack
  /** The thread that makes the current call; undefined, or absent: unknown. */
  callThread?(): number | undefined
  /** As in `ProgramProbes`. `number`: the QPN, or the handle of the SRQ. */
  postStack(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
  /** As in `ProgramProbes`. */
  postHash?(context: Context, request: WorkRequest): { readonly hash: number; readonly isWhole: boolean } | undefined
  /** Whether a signal ended the program of a context that is being closed. Absent: never. */
  wasKilled?(context: Context): boolean
  /** A context is about to be closed: no object is destroyed yet. May be called several times. */
  closing?(context: Context): void
  /** A program has closed a channel of a context that is open, or ends. */
  channelCloses?(context: Context, channel: CoreObject): void
  /** Gives the stream what programs have declared so far of lent memory. Absent: nobody declares, or by events. */
  readLends?(): void
  /** The event logs of programs. Absent: no search for races. */
  readonly events?: Required<Pick<ProgramProbes, 'logStack' | 'readLog'>>
}

/** The index of the first device with a port that matches. */
const deviceWithPort = (core: Core, matches: (port: Port) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values()) for (const port of ports) if (matches(port)) return index
  return undefined
}

const deviceWithGid =
  (core: Core): ProgramProbes['deviceWithGid'] =>
  gid => {
    const lid = lidOf(gid)
    return deviceWithPort(core, ({ gids, attributes }) =>
      lid < 0 ? findGid(gids, gid) >= 0 : lid !== 0 && attributes.lid === lid,
    )
  }

const gidsOf = ({ ports }: Device): Gids =>
  ports.slice(0, 1).flatMap(({ gids: { entries, end } }) => entries.slice(0, end).map(entry => entry?.gid))

const NO_STACK: Stack = []
const noStack = (): Stack => NO_STACK

/** Offsets of `qp` in struct rdma_cm_id (rdma_cma.h), and of `qp_num` in struct ibv_qp (verbs.h), 64 bits. */
const CM_ID_QP = 24n
const QP_NUMBER = 52n

/** The number of the queue pair of an identifier (rdma_create_qp); undefined: none, or unknown. */
const queuePairOf = ({ caller }: CallContext, { events }: CoreObject): number | undefined => {
  const wordAt = (address: bigint, bytes: number): DataView => {
    const copy = caller.copyIn(address, bytes)
    return new DataView(copy.buffer, copy.byteOffset, bytes)
  }
  try {
    const qp = wordAt((events?.userHandle ?? 0n) + CM_ID_QP, 8).getBigUint64(0, true)
    return qp === 0n ? undefined : wordAt(qp + QP_NUMBER, 4).getUint32(0, true)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

const { RESET, ERR } = QpState.values

/** Whether a call ends the sends of a queue pair. */
const endsSends = ({ class: cls, name }: Entry, { state }: HandlerValues): boolean =>
  isQueuePairClass(cls.name) && (name === 'destroy' || (name === 'modify' && (state === RESET || state === ERR)))

interface HookActions {
  /** A queue or its CQ ends: what its program has logged of it is read before, if nobody else reads the logs. */
  queueEnds(): void
  /** Called at a call on queue pairs by a context that is not checked. */
  onUnchecked(): void
  /** Reports the receives and polls of all contexts of the program of a context. */
  scanProgram(of: Context): void
  contextEnds(context: Context, how: ContextEnd['how']): void
}

/**
 * The hook that gives the calls of a device to the stream. `poll`: undefined for the system-wide device.
 */
const hookOf = (
  device: Device,
  stream: ProgramStream,
  sources: HostSources,
  poll: RequestPoll | undefined,
  whileClosing: WhileClosing,
  { queueEnds, onUnchecked, scanProgram, contextEnds }: HookActions,
): Hook => {
  const stacks = new WeakMap<CallContext, () => Stack>()
  const threads = new WeakMap<CallContext, number>()
  const closed = new WeakSet<Context>()
  /** Contexts that were open when the GID table was read: a device gets its addresses without an event. */
  const opened = new WeakSet<Context>()
  /** At the destroy or disconnect of an identifier: the number of its queue pair. */
  const queuePairs = new WeakMap<CallContext, number | undefined>()
  return {
    pre(call, object, args) {
      const { context, entry, why } = call
      if (!sources.isChecked(context)) {
        if (isQueuePairClass(entry.class.name)) onUnchecked()
        return
      }
      if (!opened.has(context)) {
        opened.add(context)
        stream.event({ event: 'gids', device: device.index, gids: gidsOf(device) })
      }
      // First the driver reports what the program has polled before the call.
      if (poll !== undefined) reportPollsBefore(poll, call, object)
      // A program closes a channel while its context is open; one that a signal ends loses its channels first. The
      // identifiers of a channel end before it.
      if (why === 'close' && !context.isClosed) sources.channelCloses?.(context, object.events?.route.channel ?? object)
      if (why === 'close' && context.isClosed && !closed.has(context)) {
        closed.add(context)
        whileClosing(context, () => {
          sources.closing?.(context)
          contextEnds(context, sources.wasKilled?.(context) ? 'kill' : 'close')
        })
      }
      if (why !== 'call') return
      if (entry.class.name === 'cm_id' && (entry.name === 'destroy' || entry.name === 'disconnect'))
        queuePairs.set(call, queuePairOf(call, object))
      // Captured now: when an asynchronous handler ends, another call may run.
      const stack = sources.callStack()
      stacks.set(call, stack)
      const thread = sources.callThread?.()
      if (thread !== undefined) threads.set(call, thread)
      if (entry.name === 'create') return
      if (entry.name === 'destroy' || endsSends(entry, args)) queueEnds()
      const pendingSends = endsSends(entry, args) ? poll?.settleSends(object) : undefined
      const endsReceives = entry.name === 'destroy' && isQueuePairClass(entry.class.name)
      const pendingReceives = endsReceives ? device.driver.requests?.receives?.(object, 0).length : undefined
      // The receives of before its end, which nothing reports afterwards.
      if (endsReceives) poll?.reportContext(context)
      stream.event({
        event: 'calling',
        object: object.id,
        class: entry.class.name,
        method: entry.name,
        program: sources.program(context),
        args,
        ...(pendingSends !== undefined && { pendingSends }),
        ...(pendingReceives !== undefined && { pendingReceives }),
        get stack() {
          return stack()
        },
      })
    },
    post(call, object, args, out, error) {
      const { context, entry, why } = call
      if (!sources.isChecked(context) || isInjected(error)) return
      const stack = why === 'call' ? (stacks.get(call) ?? sources.callStack()) : noStack
      // Whether a queue pair has receives is known from now on.
      if (entry.class.name === 'cm_id' && entry.name === 'accept' && error === undefined) scanProgram(context)
      stream.event({
        event: 'called',
        time: stream.next(),
        device: device.name,
        deviceNumber: device.index,
        context: context.id,
        program: sources.program(context),
        // On a daemon's device only the library accepts packed rings.
        isLibrary: context.mapped === undefined || context.mapped.packed !== undefined,
        class: entry.class.name,
        method: entry.name,
        object,
        args,
        out: out ?? {},
        ...(error !== undefined && {
          refused:
            error instanceof CallError ? { errno: error.errno, reason: error.reason } : { errno: 0, reason: because`` },
        }),
        why,
        ...(queuePairs.get(call) !== undefined && { queuePair: queuePairs.get(call)! }),
        ...(why === 'close' && sources.wasKilled?.(context) && { wasKilled: true }),
        ...(threads.has(call) && { thread: threads.get(call)! }),
        get stack() {
          return stack()
        },
      })
    },
  }
}

/** Calls `body` about a context that is about to be closed. */
type WhileClosing = (context: Context, body: () => void) => void

const contextOf = (devices: Iterable<Pick<Device, 'contexts'>>, id: number): Context | undefined => {
  for (const { contexts } of devices) for (const context of contexts) if (context.id === id) return context
  return undefined
}

/** `contextWithId`: also finds a context that is about to be closed. */
const probesOf = (
  core: Core,
  devices: ReadonlyMap<number, Device>,
  contextWithId: (id: number) => Context | undefined,
  { isChecked, postStack, postHash, lockLimit, isCopiedByFork, privateFile, unmapStack, events, scratch }: HostSources,
  polls: ReadonlyMap<number, RequestPoll>,
  unchecked: ReadonlySet<number>,
): ProgramProbes => ({
  deviceName: index => devices.get(index)?.name ?? '',
  deviceWithGid: deviceWithGid(core),
  ...(lockLimit && { lockLimit }),
  hasMember(group) {
    let isKnown = true
    for (const device of devices.values()) {
      const { hasMember } = device.driver.requests ?? {}
      if (hasMember === undefined) isKnown = false
      else if (device.isAlive && hasMember(device, group)) return true
    }
    return isKnown ? false : undefined
  },
  whyLost(index, qpn, to, destQpn) {
    const device = devices.get(index)
    return device?.driver.requests?.whyLost?.(device, qpn, to, destQpn)
  },
  ...(isCopiedByFork && { isCopiedByFork }),
  ...(privateFile && { privateFile }),
  ...(unmapStack && { unmapStack }),
  hasUnchecked(index) {
    if (unchecked.has(index)) return true
    for (const context of devices.get(index)?.contexts ?? []) if (!isChecked(context)) return true
    return false
  },
  postStack(id, queue, number, wrId, index) {
    const context = contextWithId(id)
    return context === undefined ? NO_STACK : postStack(context, queue, number, wrId, index)
  },
  ...(postHash && {
    postHash(id: number, request: WorkRequest) {
      const context = contextWithId(id)
      return context && postHash(context, request)
    },
  }),
  unreadEvents(id, channel) {
    const fd = channel === undefined ? contextWithId(id)?.asyncFd : core.descriptors.get(channel)
    return fd?.isClosed === false ? fd.sink.unread() : undefined
  },
  digest: (device, request, isWhole) => polls.get(device)?.digest(request, isWhole),
  rangeHash(index, lkey, address, length) {
    const device = devices.get(index)
    return device && hashRange(device.memory, scratch, device.driver.requests, { address, length, lkey })
  },
  lossTo: (qpns, time) => lossesOf.get(core)?.(qpns, time),
  memoryOf: keyMemory(index => devices.get(index)),
  ...(events && {
    logStack: (process: number, stack: number) => events.logStack(process, stack),
    readLog: () => events.readLog(),
  }),
})

/** The request that has failed; undefined: none has, or it is unknown. */
const requestBehind = ({ kind, qpn, wrId }: Failure, poll: RequestPoll | undefined): WorkRequest | undefined =>
  qpn === undefined || wrId === undefined || kind === 'post'
    ? undefined
    : poll?.requestOf(qpn, kind === 'receive' || kind === 'drop', wrId)

/** A failure with the program's own wr_id, if the device knows the request by another. */
const inOwnWords = (
  failure: Failure,
  request: WorkRequest | undefined,
  numbered: RequestNumber | undefined,
): Failure => {
  const { kind, qpn, wrId } = failure
  if (request !== undefined && request.numbered === undefined)
    return wrId === request.wrId ? failure : { ...failure, wrId: request.wrId }
  return numbered === undefined || kind === 'post' || qpn === undefined || wrId === undefined
    ? failure
    : { ...failure, numbered }
}

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
  /** The objects of a context are about to end. May be repeated: only the first counts. */
  contextEnds(context: Context, how: ContextEnd['how']): void
  /** Compare-and-swaps that programs repeat without effect. */
  swapWaits(): readonly ContextWait[]
  /** A program waits for a completion, an event or a message that does not come. */
  waits(context: Context, wait: Omit<CheckedWait, 'posted'>): void
}

/** Creates a checker and feeds it until the core ends. */
export const createChecker = (core: Core, report: ReportFinding, sources: HostSources): CheckedCore => {
  /** By device index. A removed device stays until another has its index: its objects are destroyed later. */
  const devices = new Map<number, Device>()
  const polls = new Map<number, RequestPoll>()
  /** Indexes of the devices with queue pairs of contexts that are not checked, also of closed contexts. */
  const unchecked = new Set<number>()
  /** About to be closed: it is not in its device's list any more. */
  let closingContext: Context | undefined
  const whileClosing: WhileClosing = (context, body) => {
    const before = closingContext
    closingContext = context
    try {
      body()
    } finally {
      closingContext = before
    }
  }
  const contextWithId = (id: number): Context | undefined =>
    closingContext?.id === id ? closingContext : contextOf(devices.values(), id)
  const stream = streamOf(core)
  const { adapters, buffers, lent, who, tormentName, findsWaits, isClosed } = sources
  const probes = stream.probed(probesOf(core, devices, contextWithId, sources, polls, unchecked))
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
  const queuePair = (index: number, qpn: number): number | undefined => {
    const { contexts = [], driver } = devices.get(index) ?? {}
    for (const context of contexts)
      for (const queue of driver?.requests?.queuesOf?.(context) ?? [])
        if (isQueuePair(queue) && queue.state.qpn === qpn) return queue.id
    return undefined
  }
  const advertisements =
    lent === 'learnt'
      ? createAdvertisements(stream, sources.scratch, context => sources.program(context), queuePair)
      : undefined
  const watchMessages = (poll: RequestPoll): void =>
    poll.watchMessages(advertisements?.isOfUse ? advertisements.watch : undefined)
  if (advertisements !== undefined)
    stream.add(ConsumerRank.CHECK, {
      event(event) {
        if (event.event !== 'called' || (event.class !== 'mr' && event.class !== 'cm_id')) return
        advertisements.called(event)
        for (const poll of polls.values()) watchMessages(poll)
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
      memoryOf: keyMemory(index => devices.get(index)),
      watchPosts(watcherOf) {
        const all = [...devices].map(([index, device]) => watchRequests(device, watcherOf(index), sources.scratch))
        return () => {
          for (const poll of all) poll.end()
        }
      },
    })
  // What was lent before a post is known when its request is told.
  if (sources.readLends) stream.beforePosted = () => sources.readLends?.()
  const scan = (context?: Context): void => {
    if (context !== undefined) polls.get(context.device.index)?.reportContext(context)
    else
      for (const [index, { contexts }] of devices)
        for (const one of contexts) if (sources.isChecked(one)) polls.get(index)?.reportContext(one)
  }
  let recordsLogs = false
  const queueEnds = (): void => {
    if (recordsLogs) probes.readLog?.()
  }
  const contextEnds = (context: Context, how: ContextEnd['how']): void => {
    queueEnds()
    const pendingSends = polls.get(context.device.index)?.settleContext(context, how === 'kill')
    stream.event({ event: 'contextEnds', context: context.id, how, pendingSends })
  }
  const actionsOf = (index: number): HookActions => ({
    queueEnds,
    onUnchecked: () => unchecked.add(index),
    scanProgram(of) {
      const pid = sources.program(of)?.pid
      for (const [at, { contexts }] of devices)
        for (const one of contexts)
          if (sources.isChecked(one) && sources.program(one)?.pid === pid) polls.get(at)?.reportContext(one)
    },
    contextEnds,
  })
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
      devices.set(index, device)
      unchecked.delete(index)
      stream.event({ event: 'deviceAdded', device: index })
      stream.event({ event: 'gids', device: index, gids: gidsOf(device) })
      const poll = watchRequests(device, checker.requests, sources.scratch)
      polls.set(index, poll)
      watchMessages(poll)
      if (advertisements !== undefined)
        device.memory.windowWatch = row => advertisements.windowChanged(index, device.memory, row)
      if (areAccessesWatched) watchAccessesOf(device)
      device.memory.lentWatch = lentWatch?.(index)
      addHook(device, hookOf(device, stream, sources, poll, whileClosing, actionsOf(index)))
      return true
    },
    // The hook stays, because the checker needs the later destroys of the device's objects.
    remove() {},
  })
  // rdma_cm, whose identifiers belong to no device.
  const system = systemDevice(core)
  addHook(system, hookOf(system, stream, sources, undefined, whileClosing, { ...actionsOf(-1), onUnchecked() {} }))
  addFailureHandler(core, (found, device, context) => {
    const { index } = device
    if (found.event !== undefined && (found.cause.id === 'PORT_EVENT' || found.cause.id === 'SUBNET_EVENT'))
      stream.event({ event: 'portEvent', device: index, type: found.event, gids: gidsOf(device) })
    if (found.event !== undefined && found.cause.id === 'DEVICE_REMOVED')
      stream.event({ event: 'deviceEvent', device: index, type: found.event })
    const request = requestBehind(found, polls.get(index))
    const failure = inOwnWords(
      found,
      request,
      context?.mapped?.packed === undefined ? device.driver.requests?.numbered : undefined,
    )
    if (context === undefined || !sources.isChecked(context)) return
    // Its memory ends before the context: what the program has waited for is the first finding.
    if (failure.cause.id === 'LOCAL_ENDED') sources.closing?.(context)
    const { peer } = failure
    whileClosing(context, () =>
      stream.event({
        event: 'failed',
        time: stream.next(),
        deviceNumber: index,
        context: context.id,
        program: sources.program(context),
        failure,
        ...(request && { request: placeOf(request) }),
        peerDevice:
          peer &&
          deviceWithPort(
            core,
            ({ gids: { entries }, attributes: { lid } }) =>
              entries.some(entry => entry && addressText(entry.gid) === peer.address) ||
              (lid !== 0 && addressText(lidAddress(lid)) === peer.address),
          ),
      }),
    )
  })
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
      for (const device of devices.values()) watchAccessesOf(device)
    },
    scan,
    contextEnds,
    swapWaits: () =>
      checker
        .need(SWAPS)
        .waits(({ device: index, element }) => {
          const device = devices.get(index)
          return device && readWord(device.memory, sources.scratch, device.driver.requests, element)
        })
        .flatMap(({ context, wait }) => {
          const found = contextWithId(context)
          return found === undefined ? [] : [{ context: found, wait }]
        }),
    waits(context, { wait, ...at }) {
      const { request } = wait
      const posted =
        request &&
        polls.get(context.device.index)?.requestOf(request.number, request.queue !== PostQueue.SEND, request.wrId)
      const name = posted && `${posted.numbered ?? 'wr_id'} ${posted.wrId}`
      const text = (name && request?.around?.join(name)) ?? wait.text
      stream.event({ event: 'waits', ...at, wait: { ...wait, text }, ...(posted && { posted: placeOf(posted) }) })
    },
  }
}
