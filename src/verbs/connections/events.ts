/*
 * Events of connection management: one channel per device, whose events go to the owner of the identifier.
 */
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { RdmaError } from '../error.ts'
import type { DeviceContext } from '../plan.ts'

export type ConnectionEvent = Out<typeof CmChannel.methods.getEvent>
/** Milliseconds. */
const LONGEST_TIMER = 2 ** 31 - 1

type Handler = (event: ConnectionEvent) => void

export class ConnectionEvents {
  /** The channel's number in calls. */
  readonly channel: number
  readonly #kit: DeviceContext
  readonly #handlers = new Map<number, Handler>()
  #awaited = 0
  #keepAlive: NodeJS.Timeout | undefined

  constructor(kit: DeviceContext) {
    const { carrier } = kit
    this.#kit = kit
    this.channel = carrier.call(CmChannel, 'create', 0, {}).object
    carrier.descriptors.watch(this.channel, () => this.#drain())
  }

  /** `number`: the user handle of the identifiers. */
  on(number: number, handler: Handler): void {
    this.#handlers.set(number, handler)
  }

  off(number: number): void {
    this.#handlers.delete(number)
  }

  /** Keeps the process alive while an event is awaited: the timers of a device in this process do not. */
  hold(): void {
    if (this.#awaited++ === 0) this.#keepAlive = setInterval(() => {}, LONGEST_TIMER)
  }

  release(): void {
    if (--this.#awaited === 0) clearInterval(this.#keepAlive)
  }

  #drain(): void {
    const { carrier } = this.#kit
    try {
      for (let unread = 1; unread > 0; ) {
        const event = carrier.call(CmChannel, 'getEvent', this.channel, {}).out
        unread = event.unread
        this.#handlers.get(Number(event.userHandle))?.(event)
      }
    } catch (error) {
      // The events of this wake were read after an earlier one.
      if (error instanceof RdmaError && error.code === 'EAGAIN') return
      if (!(error instanceof RdmaError && error.code === 'EIO')) throw error
      // The device was closed or removed, which wakes all waiters.
      carrier.descriptors.close(this.channel)
    }
  }
}

const channels = new WeakMap<DeviceContext, ConnectionEvents>()

/** The events of a device. Throws RdmaError EOPNOTSUPP if the device has no connection management. */
export const connectionEvents = (kit: DeviceContext): ConnectionEvents => {
  const known = channels.get(kit) ?? new ConnectionEvents(kit)
  channels.set(kit, known)
  return known
}
