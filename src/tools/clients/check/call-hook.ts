/*
 * The hook by which the stream of program events learns of the calls on a device.
 */
import type { CallContext, Context, CoreObject, Device, Entry, HandlerValues, Hook } from '../../../core/model.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import type { ContextEnd } from '../../../spec/check/program-events.ts'
import { isQueuePairClass } from '../../../spec/classes/ids.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError, isInjected } from '../../../spec/errno.ts'
import { because } from '../../../spec/reason.ts'
import type { Gids } from '../../check/findings/outages.ts'
import type { ProgramStream } from '../../events/stream.ts'
import { reportPollsBefore } from '../requests/watch.ts'
import type { HostSources } from './sources.ts'
import type { WatchedDevices } from './watched-devices.ts'

export const gidsOf = ({ ports }: Device): Gids =>
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
  contextEnds(context: Context, how: ContextEnd['how']): void
}

/** The hook that gives the calls of a device, or of the system-wide device, to the stream. */
export const hookOf = (
  device: Device,
  stream: ProgramStream,
  sources: HostSources,
  watched: WatchedDevices,
  { queueEnds, contextEnds }: HookActions,
): Hook => {
  const poll = watched.poll(device.index)
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
        if (isQueuePairClass(entry.class.name)) watched.noteUnchecked(device.index)
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
        watched.whileClosing(context, () => {
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
      if (entry.class.name === 'cm_id' && entry.name === 'accept' && error === undefined) watched.scanProgram(context)
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
