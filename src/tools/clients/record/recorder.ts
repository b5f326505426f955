/*
 * Writes what happens on a core's devices to a session file (tools/record/writer.ts): devices, objects, requests,
 * failures and packets. The daemon adds calls, findings and counters (daemon/recording.ts), and so does the library.
 */

import { registerClient } from '../../../core/devices/clients.ts'
import { addHook } from '../../../core/devices/registry.ts'
import { systemDevice } from '../../../core/devices/system.ts'
import { callerWithoutMemory } from '../../../core/dispatch/caller.ts'
import { invokeNow } from '../../../core/dispatch/invoke.ts'
import { addFailureHandler } from '../../../core/failures.ts'
import type { CallContext, Context, Core, CoreObject, Device, Entry, HandlerValues, Hook } from '../../../core/model.ts'
import { type Clock, realClock, type Timer } from '../../../host/event-loop/clock.ts'
import type { Program, Stack } from '../../../spec/check/finding.ts'
import { type RequestWatcher, SCRATCH_BYTES, type WorkRequest } from '../../../spec/check/requests.ts'
import { isQueuePairClass, isSrqClass } from '../../../spec/classes/ids.ts'
import { type PacketOutcome, packetOutcomes } from '../../../spec/faults.ts'
import type { TraceRecord } from '../../../spec/records.ts'
import type { ObjectEvent } from '../../../spec/session-events.ts'
import type { PacketFlow } from '../../../spec/wire/flow.ts'
import type { PortTap, TappedRun } from '../../../transport/phy/port.ts'
import { addressText, isLinkLocal, isMappedIpv4, lidOf } from '../../../transport/wire/address.ts'
import { plainArena } from '../../../transport/wire/arena.ts'
import { ConsumerRank } from '../../events/stream.ts'
import { recordProgramEvents } from '../../record/program/journal.ts'
import { type EndedCall, RecordedObjects, recordedRequests } from '../../record/program/objects.ts'
import type { SessionWriter } from '../../record/writer.ts'
import { streamOf } from '../check/streams.ts'
import { type RequestPoll, reportPollsBefore, watchRequests } from '../requests/watch.ts'

/** What the daemon or library provides. */
export interface RecorderSources {
  /** Microseconds. */
  now(): number
  /** For looks at what programs have polled; default: the clock of this process. */
  readonly clock?: Clock
  /** The program of a context; undefined: this process. */
  program(context: Context): Program | undefined
  /** Captures the stack of the current call. Absent: stacks are unknown. */
  callStack?(): () => Stack
  /** As in `CheckerSources`. `number`: the QPN, or the handle of the SRQ. */
  postStack?(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
  /**
   * The record of a call that has ended, as tools would get it. `start`: microseconds. Absent: the caller of
   * `startRecorder` records calls.
   */
  callRecord?(
    call: CallContext,
    object: CoreObject | undefined,
    values: { readonly args: HandlerValues; readonly out: HandlerValues | undefined; readonly error: unknown },
    start: number,
  ): TraceRecord
  /** Also records what the checker needs (`--record-depth check`): the stream has a producer. */
  readonly isForCheck?: boolean
  /**
   * Adds a tap to the port of a device, which ignores ICRCs; returns a function that removes it. Undefined: no port.
   */
  addTap(device: Device, tap: PortTap): (() => void) | undefined
}

/** The last call on an object, for the record of that call. */
interface LastCall {
  readonly entry: Entry
  readonly object: number
  readonly stack: Stack
}

export interface Recorder {
  /**
   * The id of the object of the call that has ended last, with its stack, if that was this method of a class; otherwise
   * 0. `call`: the method's number.
   */
  lastCall(classId: number, call: number): { readonly object: number; readonly stack: Stack }
  /** The index of a device by its name; undefined: unknown. */
  deviceIndex(name: string): number | undefined
  /** The id of a queue pair; 0: unknown. */
  qpId(device: number, qpn: number): number
  /** The devices that exist. */
  readonly devices: Iterable<Device>
  /** Stops recording. */
  stop(): void
}

// ---- the recorder ----

/** The objects of an open context. */
const objectsOf = (context: Context): readonly CoreObject[] => [
  ...context.handles.slots.filter(object => object !== undefined),
  ...context.descriptors,
]

const idsOf = (objects: readonly CoreObject[]): number[] => objects.map(({ id }) => id)

const isQueuePair = ({ class: { name } }: CoreObject): boolean => isQueuePairClass(name)

const NO_STACK: Stack = []
const noStack = (): Stack => NO_STACK

/** The number of an object that existed before the recording. Drivers keep a queue pair's number in its state. */
const numberOf = (object: CoreObject): number => {
  const { qpn } = (object.state ?? {}) as { readonly qpn?: unknown }
  return isQueuePair(object) && typeof qpn === 'number' ? qpn : 0
}

const caller = callerWithoutMemory('the recorder')

/** The attributes of an object that existed before the recording: of a queue pair, what its query returns. */
const existingValues = (context: Context, object: CoreObject): HandlerValues => {
  if (!isQueuePair(object)) return {}
  try {
    return invokeNow(context, object.class, 'query', object.handle, {}, caller).out
  } catch {
    // It is being created or destroyed, or its driver cannot query it.
    return {}
  }
}

const outcomeNumbers = Object.fromEntries(packetOutcomes.map((outcome, i) => [outcome, i])) as Readonly<
  Record<PacketOutcome, number>
>

/** Milliseconds between looks at what programs have polled: after a completion, and if they do not poll for long. */
const SOON = 1
const RARELY = 64
/** A poll is noticed after at most this factor of the time from completion to poll. */
const SLOWER = 1.25

interface RecordedDevice {
  readonly device: Device
  readonly poll: RequestPoll
  /** Remove what the recorder has added to the device. */
  readonly removers: readonly (() => void)[]
}

/** Starts recording, also of devices that are added later. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: hooks and taps share one writer
export const startRecorder = (core: Core, writer: SessionWriter, sources: RecorderSources): Recorder => {
  const { now, clock = realClock } = sources
  const scratch = plainArena(SCRATCH_BYTES)
  /** By index. */
  const devices = new Map<number, RecordedDevice>()
  /** Queues' contexts by the id of their queue pair or SRQ, for the stacks of posts. */
  const contexts = new Map<number, Context>()
  let last: LastCall | undefined

  const objects = new RecordedObjects(writer, clock.origin)
  const placeOf = (context: Context) => ({
    deviceNumber: context.device.index,
    context: context.id,
    program: sources.program(context),
  })
  const noteContext = (change: ObjectEvent['change'], { id, context, class: { name } }: CoreObject): void => {
    if (!isQueuePairClass(name) && !isSrqClass(name)) return
    if (change === 'destroyed') contexts.delete(id)
    else if (context !== undefined) contexts.set(id, context)
  }
  /** A call, or an object without one, has ended. */
  const recordChange = (
    object: CoreObject,
    context: Context,
    of: Pick<EndedCall, 'method' | 'why' | 'stack' | 'args' | 'out'>,
  ): void => {
    const change = objects.called(now(), {
      ...placeOf(context),
      class: object.class.name,
      object,
      uses: idsOf(object.parents),
      ...of,
    })
    if (change !== undefined) noteContext(change, object)
  }

  const hookOf = (): Hook => {
    const stacks = new WeakMap<CallContext, () => Stack>()
    const starts = new WeakMap<CallContext, number>()
    return {
      pre(call, object) {
        const { entry, context, why } = call
        const poll = devices.get(context.device.index)?.poll
        if (poll !== undefined) reportPollsBefore(poll, call, object)
        // Its receives of before its end, which nothing reports afterwards.
        if (why === 'call' && entry.name === 'destroy' && isQueuePair(object)) poll?.reportContext(context)
        if (sources.callRecord) starts.set(call, now())
        if (why === 'call' && sources.callStack) stacks.set(call, sources.callStack())
      },
      post(call, object, args, out, error) {
        const { entry, context, why } = call
        const stack = (stacks.get(call) ?? noStack)()
        if (why === 'call') {
          last = { entry, object: object?.id ?? 0, stack }
          const record = sources.callRecord?.(call, object, { args, out, error }, starts.get(call) ?? now())
          if (record !== undefined) writer.call(now(), { object: last.object, stack, call: record })
        }
        if (error === undefined && object !== undefined && entry.class.identity !== 'fixed')
          recordChange(object, context, { method: entry.name, why, stack, args, out: out ?? {} })
      },
    }
  }

  const onDescriptorEnd: Parameters<Core['descriptorEnds']['add']>[0] = (object, context, why) =>
    recordChange(object, context, { method: 'destroy', why, stack: NO_STACK, args: {}, out: {} })
  core.descriptorEnds.add(onDescriptorEnd)

  const recordExisting = (device: Device): void => {
    for (const context of device.contexts)
      for (const object of objectsOf(context)) {
        noteContext('exists', object)
        const facts = { ...placeOf(context), object, uses: idsOf(object.parents), args: {} }
        objects.exists(now(), { ...facts, out: existingValues(context, object) }, numberOf(object))
      }
  }

  // ---- requests ----

  const stackOf = ({ owner, queue, number, wrId, postIndex }: WorkRequest): string => {
    const context = contexts.get(owner)
    return context === undefined ? '' : (sources.postStack?.(context, queue, number, wrId, postIndex).join('\n') ?? '')
  }
  const hasStacks = sources.postStack !== undefined
  /** The last recorded windows by the ids of their queue pairs. */
  const windows = new Map<number, number>()
  const recordWindow = (device: number, { owner }: WorkRequest, window: number | undefined): void => {
    if (window === undefined || windows.get(owner) === window) return
    windows.set(owner, window)
    writer.counters(now(), device, owner, { window })
  }
  let look: Timer | undefined
  let pause = SOON
  /**
   * Looks after `wait` ms, and then less and less often, which completions programs have polled, until they have all.
   */
  const lookAtPolls = (wait: number): void => {
    // Completions that nobody polls must not delay this look.
    if (look !== undefined && pause > wait) {
      clock.clear(look)
      look = undefined
    }
    pause = wait
    look ??= clock.after(pause, 'passive', () => {
      look = undefined
      const hasUnpolled = [...devices.values()].map(({ poll }) => poll.reportUnpolled())
      if (hasUnpolled.includes(true)) lookAtPolls(Math.min(SLOWER * pause, RARELY))
    })
  }
  const stream = streamOf(core)
  const requests = recordedRequests(
    writer,
    () => stream.time,
    request => (hasStacks ? stackOf(request) : ''),
  )
  const watcherOf = ({ index }: Device, windowOf: (request: WorkRequest) => number | undefined): RequestWatcher => ({
    ...requests,
    posted(request) {
      requests.posted(request)
      if (request.opcode >= 0) recordWindow(index, request, windowOf(request))
    },
    ended(request) {
      requests.ended(request)
      recordWindow(index, request, windowOf(request))
    },
    completed(request, completion) {
      requests.completed(request, completion)
      lookAtPolls(SOON)
    },
    queueReset(owner) {
      windows.delete(owner)
      requests.queueReset(owner)
    },
  })

  // ---- packets ----

  /** Whether the source of a flow is one of our devices, which has recorded the packets when it sent them. */
  let ownFlows = new WeakMap<PacketFlow, boolean>()
  const isOwn = (flow: PacketFlow): boolean => {
    let isOwnFlow = ownFlows.get(flow)
    if (isOwnFlow === undefined) {
      const source = addressText(flow.source)
      const lid = lidOf(flow.source)
      isOwnFlow = [...devices.values()].some(({ device }) =>
        device.ports.some(({ attributes, gids }) =>
          lid >= 0 ? attributes.lid === lid : gids.entries.some(entry => entry && addressText(entry.gid) === source),
        ),
      )
      ownFlows.set(flow, isOwnFlow)
    }
    return isOwnFlow
  }

  const tapOf = ({ index }: Device): PortTap => {
    const facts = {
      device: index,
      direction: 0,
      outcome: 0,
      flow: undefined as unknown as PacketFlow,
      identification: 0,
    }
    return (run: TappedRun) => {
      const isReceived = run.direction === 'received'
      // Packets that arrive as they were sent are recorded once.
      if (isReceived && run.outcome === 'passed' && isOwn(run.flow)) return
      facts.direction = isReceived ? 1 : 0
      facts.outcome = outcomeNumbers[run.outcome]
      facts.flow = run.flow
      facts.identification = run.identification
      const { arena, offset, packetBytes, count, lastBytes } = run
      writer.packets(now(), facts, arena.bytes, arena.view, offset, packetBytes, count, lastBytes)
    }
  }

  // ---- devices ----

  const addressOf = ({ ports }: Device): string => {
    // 0: a port of Ethernet, or no subnet manager has come yet.
    const lid = ports[0]?.attributes.lid ?? 0
    if (lid !== 0) return `LID ${lid}`
    const gids = (ports[0]?.gids.entries ?? []).flatMap(entry => entry?.gid ?? [])
    // GID 0 is the link-local address, which says nothing.
    const gid = gids.find(isMappedIpv4) ?? gids.find(one => !isLinkLocal(one)) ?? gids[0]
    return gid === undefined ? '' : addressText(gid)
  }

  const removeFrom = (index: number): void => {
    for (const remove of devices.get(index)?.removers ?? []) remove()
  }
  const addDevice = (device: Device, change: 'exists' | 'added'): void => {
    const { index, name } = device
    // A removed device stays until another has its index: its objects are destroyed later.
    removeFrom(index)
    ownFlows = new WeakMap()
    writer.device(now(), { change, device: index, name, address: addressOf(device) })
    recordExisting(device)
    const removeHook = addHook(device, hookOf())
    const poll: RequestPoll = watchRequests(
      device,
      watcherOf(device, request => poll.window(request)),
      scratch,
      ConsumerRank.RECORD,
    )
    const removeTap = sources.addTap(device, tapOf(device))
    devices.set(index, { device, poll, removers: [removeHook, () => poll.end(), () => removeTap?.()] })
  }

  const endProgramEvents = sources.isForCheck ? recordProgramEvents(stream, writer) : undefined
  let isStopped = false
  let isStarting = true
  const unregister = registerClient(core, {
    name: 'record',
    add(device) {
      addDevice(device, isStarting ? 'exists' : 'added')
      return true
    },
    remove({ index, name }) {
      if (!isStopped) writer.device(now(), { change: 'removed', device: index, name, address: '' })
    },
  })
  isStarting = false
  const removeSystemHook = addHook(systemDevice(core), hookOf())
  const removeFailureHandler = addFailureHandler(core, (failure, { index }, context) =>
    objects.failed(now(), { failure, deviceNumber: index, program: context && sources.program(context) }),
  )

  return {
    lastCall(classId, call) {
      const isSame = last?.entry.class.id === classId && last.entry.method.call === call
      return last !== undefined && isSame ? last : { object: 0, stack: NO_STACK }
    },
    deviceIndex(name) {
      for (const { device } of devices.values()) if (device.name === name) return device.index
      return undefined
    },
    qpId: (device, qpn) => objects.qpId(device, qpn),
    get devices() {
      return [...devices.values()].map(({ device }) => device).filter(({ isAlive }) => isAlive)
    },
    stop() {
      if (isStopped) return
      isStopped = true
      unregister()
      removeSystemHook()
      removeFailureHandler()
      endProgramEvents?.()
      core.descriptorEnds.delete(onDescriptorEnd)
      for (const index of devices.keys()) removeFrom(index)
      clock.clear(look)
    },
  }
}
