/*
 * Events of connection management: each open device has one event channel (class `cm_channel`, rdma_event_channel of
 * librdmacm) for all its identifiers. An event goes to the handler of its identifier's user handle.
 */
import { MAX_TIMER_DELAY } from '../../host/event-loop/clock.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { Errno } from '../../spec/errno.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { RdmaError } from '../verbs/error.ts'
import type { DeviceContext } from '../verbs/plan.ts'

/** What ended a connection: `close` on this side, the peer, or the close or removal of the device. */
export type CloseReason = 'local' | 'peer' | 'device'

export type ConnectionEvent = Out<typeof CmChannel.methods.getEvent>

type Handler = (event: ConnectionEvent) => void

export class ConnectionEvents {
  /** Handle of the channel. */
  readonly channel: number
  readonly #context: DeviceContext
  readonly #handlers = new Map<number, Handler>()
  #waits = 0
  #keepAlive: NodeJS.Timeout | undefined

  constructor(context: DeviceContext) {
    const { carrier } = context
    this.#context = context
    this.channel = carrier.call(CmChannel, 'create', 0, {}).object
    carrier.descriptors.watch(this.channel, () => this.#drain())
  }

  /** Sets the handler for the events of identifiers with this user handle. */
  setHandler(userHandle: number, handler: Handler): void {
    this.#handlers.set(userHandle, handler)
  }

  removeHandler(userHandle: number): void {
    this.#handlers.delete(userHandle)
  }

  /** Keeps the process alive until `endWait`: timers of a connection manager in this process do not. */
  beginWait(): void {
    const { clock } = this.#context.carrier
    // In virtual time the program's wait lets time pass, which keeps the process alive.
    if (this.#waits++ === 0 && !clock.isVirtual) this.#keepAlive = setInterval(() => {}, MAX_TIMER_DELAY)
  }

  endWait(): void {
    if (--this.#waits === 0) clearInterval(this.#keepAlive)
  }

  /** Reads all events and calls their handlers. */
  #drain(): void {
    const { carrier } = this.#context
    try {
      for (let unread = 1; unread > 0; ) {
        const event = carrier.call(CmChannel, 'getEvent', this.channel, {}).out
        unread = event.unread
        this.#handlers.get(Number(event.userHandle))?.(event)
      }
    } catch (error) {
      // EAGAIN of getEvent: an earlier drain has read all events.
      if (error instanceof RdmaError && error.code === 'EAGAIN') return
      if (!(error instanceof RdmaError && error.errno === Errno.EIO)) throw error
      // The device was closed or removed, which wakes all waiters (`WaiterList.wakeAll`).
      carrier.descriptors.close(this.channel)
    }
  }
}

const channels = new WeakMap<DeviceContext, ConnectionEvents>()

/** The channel of a device, created at the first call. Throws RdmaError EOPNOTSUPP without connection management. */
export const connectionEvents = (context: DeviceContext): ConnectionEvents => {
  const events = channels.get(context) ?? new ConnectionEvents(context)
  channels.set(context, events)
  return events
}
