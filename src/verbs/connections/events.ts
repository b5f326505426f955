/*
 * Events of connection management, each for who has made its identifier: one channel for a device, read as they come.
 */
import { CmChannel } from '../../spec/classes/cm_channel.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { RdmaError } from '../error.ts'
import type { DeviceContext } from '../plan.ts'

export type ConnectionEvent = Out<typeof CmChannel.methods.getEvent>
type Handler = (event: ConnectionEvent) => void

export class ConnectionEvents {
  /** The channel, as calls name it. */
  readonly channel: number
  readonly #kit: DeviceContext
  readonly #handlers = new Map<number, Handler>()

  constructor(kit: DeviceContext) {
    const { carrier } = kit
    this.#kit = kit
    this.channel = carrier.call(CmChannel, 'create', 0, {}).object
    carrier.descriptors.watch(this.channel, () => this.#drain())
  }

  /** `number`: the user handle of the identifiers whose events these are. */
  on(number: number, handler: Handler): void {
    this.#handlers.set(number, handler)
  }

  off(number: number): void {
    this.#handlers.delete(number)
  }

  #drain(): void {
    const { carrier } = this.#kit
    try {
      for (let unread = carrier.call(CmChannel, 'query', this.channel, {}).out.unread; unread > 0; unread--) {
        const event = carrier.call(CmChannel, 'getEvent', this.channel, {}).out
        this.#handlers.get(Number(event.userHandle))?.(event)
      }
    } catch (error) {
      if (!(error instanceof RdmaError && error.code === 'EIO')) throw error
      // The device is gone, and those who wait are woken by that.
      carrier.descriptors.close(this.channel)
    }
  }
}

const channels = new WeakMap<DeviceContext, ConnectionEvents>()

/** Those of a device. Throws RdmaError EOPNOTSUPP for a device that makes no connections. */
export const connectionEvents = (kit: DeviceContext): ConnectionEvents => {
  const known = channels.get(kit) ?? new ConnectionEvents(kit)
  channels.set(kit, known)
  return known
}
