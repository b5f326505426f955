/*
 * Feeds the checker (src/tools/check/) with the calls, failures and requests of a core. Calls are seen by a hook of each
 * device. Contexts that are not checked are left out (`HostSources.isChecked`).
 */

import { registerClient } from '../../../core/devices/clients.ts'
import { findGid, type GidTable } from '../../../core/devices/gids.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import { addFailureHandler } from '../../../core/failures.ts'
import { onRegionUnmapped } from '../../../core/memory/unmapped-regions.ts'
import type { CallContext, Context, Core, CoreObject, Device, Entry, HandlerValues, Hook } from '../../../core/model.ts'
import type { Failure } from '../../../spec/check/failures.ts'
import type { Program, Stack } from '../../../spec/check/finding.ts'
import type { RequestNumber, WorkRequest } from '../../../spec/check/requests.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError, InjectedError, UnknownLimitError } from '../../../spec/errno.ts'
import { PostQueue } from '../../../spec/session.ts'
import { addressText } from '../../../transport/wire/address.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { Checker } from '../../check/checker.ts'
import type { DeviceWithGid } from '../../check/connection.ts'
import type { BeginningCall, CheckerSources } from '../../check/detector.ts'
import type { Gids } from '../../check/outages.ts'
import type { RaceSources } from '../../check/races/sources.ts'
import type { ReportFinding } from '../../check/reporting.ts'
import { lossesOf } from '../faults/losses.ts'
import { type RequestPoll, watchRequests } from '../requests/watch.ts'
import { keyMemory } from './key-memory.ts'

/** What the daemon or library provides. `CheckerSources`, for the checker, has the ids of contexts instead. */
export interface HostSources
  extends Pick<
    CheckerSources,
    'adapters' | 'buffers' | 'findsWaits' | 'isClosed' | 'lockLimit' | 'isCopiedByFork' | 'unmapStack'
  > {
  /** An arena of SCRATCH_BYTES (spec/check/requests.ts). The driver reads programs' memory into it, for hashes. */
  readonly scratch: Arena
  /** Microseconds. */
  now(): number
  /** Whether the calls and failures of a context are checked. */
  isChecked(context: Context): boolean
  /** The program of a context; undefined for the process that runs the checker. */
  program(context: Context): Program | undefined
  /** Captures the stack of the current call. The returned function returns the stack, also after the call. */
  callStack(): () => Stack
  /** As in `CheckerSources`. `number`: the QPN, or the handle of the SRQ. */
  postStack(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
  /** As in `CheckerSources`. */
  postHash?(context: Context, request: WorkRequest): { readonly hash: number; readonly isWhole: boolean } | undefined
  /** Whether a signal ended the program of a context that is being closed. Absent: never. */
  wasKilled?(context: Context): boolean
  /** A context is about to be closed: no object is destroyed yet. May be called several times. */
  closing?(context: Context): void
  /** A program has closed a channel of a context that is open, or ends. */
  channelCloses?(context: Context, channel: CoreObject): void
  /** The event logs of programs. Absent: no search for races. */
  readonly events?: Omit<RaceSources, 'memoryOf'>
}

/** The index of the first device with a port whose GID table matches. */
const deviceWithPort = (core: Core, matches: (gids: GidTable) => boolean): number | undefined => {
  for (const { index, ports } of core.devices.values()) for (const { gids } of ports) if (matches(gids)) return index
  return undefined
}

const deviceWithGid =
  (core: Core): DeviceWithGid =>
  gid =>
    deviceWithPort(core, gids => findGid(gids, gid) >= 0)

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
  cls.name.endsWith('_qp') && (name === 'destroy' || (name === 'modify' && (state === RESET || state === ERR)))

/**
 * The hook that reports the calls of a device to the checker. `poll`: undefined for the system-wide device;
 * `onUnchecked`: called at a call on queue pairs by a context that is not checked.
 */
const hookOf = (
  device: Device,
  checker: Checker,
  sources: HostSources,
  poll: RequestPoll | undefined,
  whileClosing: WhileClosing,
  onUnchecked: () => void,
): Hook => {
  const stacks = new WeakMap<CallContext, () => Stack>()
  const closed = new WeakSet<Context>()
  /** Contexts that were open when the GID table was read: a device gets its addresses without an event. */
  const opened = new WeakSet<Context>()
  /** At the destroy or disconnect of an identifier: the number of its queue pair. */
  const queuePairs = new WeakMap<CallContext, number | undefined>()
  return {
    pre(call, object, args) {
      const { context, entry, why } = call
      if (!sources.isChecked(context)) {
        if (entry.class.name.endsWith('_qp')) onUnchecked()
        return
      }
      if (!opened.has(context)) {
        opened.add(context)
        checker.outages.gidsOf(device.index, gidsOf(device))
      }
      // First the driver reports what the program has polled before the call.
      if (entry.class.name === 'cq' && entry.name !== 'create') poll?.reportCq(object)
      // A program closes a channel while its context is open; one that a signal ends loses its channels first. The
      // identifiers of a channel end before it.
      if (why === 'close' && !context.isClosed) sources.channelCloses?.(context, object.events?.route.channel ?? object)
      if (why === 'close' && context.isClosed && !closed.has(context)) {
        closed.add(context)
        whileClosing(context, () => {
          sources.closing?.(context)
          checker.contextEnds(device.index, context.id, sources.wasKilled?.(context) ? 'kill' : 'close')
        })
      }
      if (why !== 'call') return
      if (entry.class.name === 'cm_id' && (entry.name === 'destroy' || entry.name === 'disconnect'))
        queuePairs.set(call, queuePairOf(call, object))
      // Captured now: when an asynchronous handler ends, another call may run.
      const stack = sources.callStack()
      stacks.set(call, stack)
      if (entry.name === 'create') return
      if (entry.class.name === 'mr' || entry.class.name === 'ah') poll?.reportContext(context)
      const pendingSends = endsSends(entry, args) ? poll?.settleSends(object) : undefined
      const endsReceives = entry.name === 'destroy' && entry.class.name.endsWith('_qp')
      const pendingReceives = endsReceives ? device.driver.requests?.receives?.(object, 0).length : undefined
      const beginning: BeginningCall = {
        class: entry.class.name,
        method: entry.name,
        program: sources.program(context),
        args,
        ...(pendingSends !== undefined && { pendingSends }),
        ...(pendingReceives !== undefined && { pendingReceives }),
        get stack() {
          return stack()
        },
      }
      checker.calling(beginning, object.id)
    },
    post(call, object, args, out, error) {
      const { context, entry, why } = call
      if (!sources.isChecked(context) || error instanceof InjectedError) return
      const stack = why === 'call' ? (stacks.get(call) ?? sources.callStack()) : noStack
      checker.called({
        time: sources.now(),
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
            error instanceof CallError
              ? { errno: error.errno, reason: error.message, isTrial: error instanceof UnknownLimitError }
              : { errno: 0, reason: '' },
        }),
        why,
        ...(queuePairs.get(call) !== undefined && { queuePair: queuePairs.get(call)! }),
        ...(why === 'close' && sources.wasKilled?.(context) && { wasKilled: true }),
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
const checkerSources = (
  devices: ReadonlyMap<number, Device>,
  contextWithId: (id: number) => Context | undefined,
  {
    now,
    isChecked,
    postStack,
    postHash,
    adapters,
    buffers,
    findsWaits,
    isClosed,
    lockLimit,
    isCopiedByFork,
    unmapStack,
  }: HostSources,
  polls: ReadonlyMap<number, RequestPoll>,
  unchecked: ReadonlySet<number>,
): CheckerSources => ({
  now,
  ...(adapters && { adapters }),
  ...(buffers && { buffers }),
  ...(lockLimit && { lockLimit }),
  ...(findsWaits && { findsWaits }),
  ...(isClosed && { isClosed }),
  hasMember(group) {
    let isKnown = true
    for (const device of devices.values()) {
      const { hasMember } = device.driver.requests ?? {}
      if (hasMember === undefined) isKnown = false
      else if (device.isAlive && hasMember(device, group)) return true
    }
    return isKnown ? false : undefined
  },
  ...(isCopiedByFork && { isCopiedByFork }),
  ...(unmapStack && { unmapStack }),
  hasUnchecked(index) {
    if (unchecked.has(index)) return true
    for (const context of devices.get(index)?.contexts ?? []) if (!isChecked(context)) return true
    return false
  },
  deviceName: index => devices.get(index)?.name ?? '',
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
  scanContext(device, id) {
    const context = contextWithId(id)
    if (context !== undefined) polls.get(device)?.reportContext(context)
  },
  settleContext(device, id, isDead) {
    const context = contextWithId(id)
    return context && polls.get(device)?.settleContext(context, isDead)
  },
  unreadEvents(id) {
    const fd = contextWithId(id)?.asyncFd
    return fd?.isClosed === false ? fd.sink.unread() : undefined
  },
  requestOf: (device, qpn, isReceive, number) => polls.get(device)?.requestOf(qpn, isReceive, number),
  digest: (device, request, isWhole) => polls.get(device)?.digest(request, isWhole),
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
  if (request?.numbered === undefined && request !== undefined)
    return wrId === request.wrId ? failure : { ...failure, wrId: request.wrId }
  return numbered === undefined || kind === 'post' || qpn === undefined || wrId === undefined
    ? failure
    : { ...failure, numbered }
}

/** Creates a checker and feeds it until the core ends. */
export const createChecker = (core: Core, report: ReportFinding, sources: HostSources): Checker => {
  /** By device index. A removed device stays until another has its index: its objects are destroyed later. */
  const devices = new Map<number, Device>()
  const polls = new Map<number, RequestPoll>()
  /** Indexes of the devices with queue pairs of contexts that are not checked, also of closed contexts. */
  const unchecked = new Set<number>()
  const races = sources.events && { ...sources.events, memoryOf: keyMemory(index => devices.get(index)) }
  /** About to be closed: it is not in its device's list any more. */
  let closingContext: Context | undefined
  const whileClosing: WhileClosing = (context, body) => {
    closingContext = context
    try {
      body()
    } finally {
      closingContext = undefined
    }
  }
  const contextWithId = (id: number): Context | undefined =>
    closingContext?.id === id ? closingContext : contextOf(devices.values(), id)
  const commonSources = checkerSources(devices, contextWithId, sources, polls, unchecked)
  const checker = new Checker(deviceWithGid(core), report, {
    ...commonSources,
    lossTo: (qpns, time) => lossesOf.get(core)?.(qpns, time),
    ...(races && { races }),
  })
  onRegionUnmapped(core, region => {
    if (region.context !== undefined && sources.isChecked(region.context)) checker.unmapped(region.id)
  })
  registerClient(core, {
    name: 'check',
    add(device) {
      devices.set(device.index, device)
      unchecked.delete(device.index)
      checker.outages.forget(device.index)
      checker.ignoredEvents.forget(device.index)
      checker.outages.gidsOf(device.index, gidsOf(device))
      const poll = watchRequests(device, checker.requests, sources.scratch)
      polls.set(device.index, poll)
      if (checker.watchesAccesses)
        device.memory.accessWatch = (key, hi, lo, length, access, qpn) =>
          checker.accessed(device.index, key, hi, lo, length, access, qpn)
      addHook(
        device,
        hookOf(device, checker, sources, poll, whileClosing, () => unchecked.add(device.index)),
      )
      return true
    },
    // The hook stays, because the checker needs the later destroys of the device's objects.
    remove() {},
  })
  // rdma_cm, whose identifiers belong to no device.
  const system = systemDevice(core)
  addHook(
    system,
    hookOf(system, checker, sources, undefined, whileClosing, () => {}),
  )
  addFailureHandler(core, (found, device, context) => {
    if (found.cause.id === 'PORT_EVENT' && found.event !== undefined)
      checker.outages.portEvent(device.index, found.event, gidsOf(device))
    if (found.cause.id === 'DEVICE_REMOVED' && found.event !== undefined)
      checker.ignoredEvents.deviceEvent(device.index, found.event)
    const request = requestBehind(found, polls.get(device.index))
    const failure = inOwnWords(
      found,
      request,
      context?.mapped?.packed === undefined ? device.driver.requests?.numbered : undefined,
    )
    if (context === undefined || !sources.isChecked(context)) return
    // Its memory ends before the context: what the program has waited for is the first finding.
    if (failure.cause.id === 'LOCAL_ENDED') sources.closing?.(context)
    const { peer, wrId = 0n } = failure
    checker.failed({
      time: sources.now(),
      deviceNumber: device.index,
      context: context.id,
      program: sources.program(context),
      failure,
      peerDevice:
        peer &&
        deviceWithPort(core, ({ entries }) => entries.some(entry => entry && addressText(entry.gid) === peer.address)),
      postStack: (queue, number) =>
        request === undefined || queue === PostQueue.BATCH
          ? sources.postStack(context, queue, number, wrId)
          : sources.postStack(context, request.queue, request.number, wrId, request.postIndex),
    })
  })
  return checker
}
