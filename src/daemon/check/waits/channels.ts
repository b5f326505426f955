/*
 * Threads that wait for an event of a completion channel for which no event can come: no CQ uses the channel, or its
 * CQs were never armed. Waits for CQs with completions are those of the driver.
 */

import type { ContextWait } from '../../../core/driver-contract.ts'
import { armedFor } from '../../../core/events/events.ts'
import { Armed, type Context, type CoreObject, type FdObject } from '../../../core/model.ts'
import { readDescriptors } from '../../../host/process-status.ts'
import { EventSocket } from '../../context/event-socket.ts'
import { cqsOfChannel } from '../../context/queues.ts'
import type { Devices } from '../../devices/devices.ts'
import type { FailureReports } from '../../failures.ts'

/** Whether no completion of a CQ has raised an event, and none will. */
const isNeverArmed = ({ events }: CoreObject): boolean =>
  events !== undefined && armedFor(events) === Armed.NO && (events.state?.completions ?? 0) === 0

const waitOf = (context: Context, channel: FdObject, fd: number, cqs: readonly CoreObject[]): ContextWait => ({
  context,
  wait:
    cqs.length === 0
      ? {
          id: 'lost-wakeup',
          text: `a thread waits for an event of a completion channel (descriptor ${fd}) that no CQ has`,
          channel: channel.handle,
        }
      : {
          id: 'lost-wakeup',
          text: `a thread waits for an event of CQ ${cqs.map(({ handle }) => handle).join(', ')} (channel: descriptor ${fd}), which was never armed (ibv_req_notify_cq)`,
          cq: cqs[0]!.handle,
        },
})

/** The channels of a context in which no event is unread. */
const emptyChannels = ({ descriptors }: Context): { readonly channel: FdObject; readonly target: string }[] =>
  [...descriptors].flatMap(channel => {
    const { class: cls, sink, isClosed } = channel
    const isEmpty = cls.name === 'comp_channel' && !isClosed && sink instanceof EventSocket && sink.unread() === 0
    return isEmpty ? [{ channel, target: sink.target }] : []
  })

const waitsOfContext = (context: Context, pid: number): ContextWait[] => {
  const channels = emptyChannels(context)
  const reads = channels.length === 0 ? [] : [...readDescriptors(pid)]
  return channels.flatMap(({ channel, target }) => {
    const [fd] = reads.find(read => read[1] === target) ?? []
    if (fd === undefined) return []
    const cqs = cqsOfChannel(context, channel)
    return cqs.every(isNeverArmed) ? [waitOf(context, channel, fd, cqs)] : []
  })
}

/** `known`: the waits that the drivers have found. Undefined between steps. */
export function* waitsOfChannels(
  { devices, failures }: { readonly devices: Devices; readonly failures: FailureReports },
  known: readonly ContextWait[],
): Generator<ContextWait | undefined, void> {
  const isKnown = (one: ContextWait): boolean =>
    known.some(({ wait, context }) => context === one.context && wait.cq !== undefined && wait.cq === one.wait.cq)
  for (const { device } of [...devices.all])
    for (const context of [...device.contexts]) {
      const pid = failures.ownerOf(context)?.pid
      if (pid !== undefined) yield* waitsOfContext(context, pid).filter(one => !isKnown(one))
      yield undefined
    }
}
