/*
 * The devices whose requests the producer of program events (check-client.ts) watches, and their contexts.
 */
import { isQueuePair } from '../../../core/driver-contract.ts'
import type { Context, CoreObject, Device } from '../../../core/model.ts'
import type { RequestPoll } from '../requests/watch.ts'
import type { HostSources } from './sources.ts'

interface Watched {
  readonly device: Device
  readonly poll: RequestPoll
  /** Whether it has queue pairs of contexts that are not checked, also of closed contexts. */
  hasUnchecked: boolean
}

export class WatchedDevices {
  readonly #sources: Pick<HostSources, 'isChecked' | 'program'>
  /** By index. A removed device stays until another has its index: its objects are destroyed later. */
  readonly #watched = new Map<number, Watched>()
  /** About to be closed: it is not in its device's list any more. */
  #closing: Context | undefined

  constructor(sources: Pick<HostSources, 'isChecked' | 'program'>) {
    this.#sources = sources
  }

  add(device: Device, poll: RequestPoll): void {
    this.#watched.set(device.index, { device, poll, hasUnchecked: false })
  }

  get all(): readonly Device[] {
    return [...this.#watched.values()].map(({ device }) => device)
  }

  get polls(): readonly RequestPoll[] {
    return [...this.#watched.values()].map(({ poll }) => poll)
  }

  device(index: number): Device | undefined {
    return this.#watched.get(index)?.device
  }

  poll(index: number): RequestPoll | undefined {
    return this.#watched.get(index)?.poll
  }

  /** A context that is not checked uses queue pairs of the device. */
  noteUnchecked(index: number): void {
    const watched = this.#watched.get(index)
    if (watched !== undefined) watched.hasUnchecked = true
  }

  hasUnchecked(index: number): boolean {
    const { device, hasUnchecked = false } = this.#watched.get(index) ?? {}
    for (const context of device?.contexts ?? []) if (!this.#sources.isChecked(context)) return true
    return hasUnchecked
  }

  /** Calls `body` about a context that is about to be closed. */
  whileClosing(context: Context, body: () => void): void {
    const before = this.#closing
    this.#closing = context
    try {
      body()
    } finally {
      this.#closing = before
    }
  }

  /** Also one that is about to be closed. */
  context(id: number): Context | undefined {
    if (this.#closing?.id === id) return this.#closing
    for (const { device } of this.#watched.values())
      for (const context of device.contexts) if (context.id === id) return context
    return undefined
  }

  /** Reports the receives and polls so far of a context, or of all that are checked. */
  scan(context?: Context): void {
    if (context !== undefined) this.poll(context.device.index)?.reportContext(context)
    else this.#scanWhere(() => true)
  }

  /** As `scan`, of a queue pair, SRQ or CQ. */
  scanQueue(queue: CoreObject): void {
    if (queue.context !== undefined) this.poll(queue.context.device.index)?.reportQueue(queue)
  }

  /** Of all contexts of the program of a context. */
  scanProgram(of: Context): void {
    const pid = this.#sources.program(of)?.pid
    this.#scanWhere(context => this.#sources.program(context)?.pid === pid)
  }

  #scanWhere(isMeant: (context: Context) => boolean): void {
    for (const { device, poll } of this.#watched.values())
      for (const context of device.contexts)
        if (this.#sources.isChecked(context) && isMeant(context)) poll.reportContext(context)
  }

  /** The id of the queue pair with this number. */
  queuePair(index: number, qpn: number): number | undefined {
    const { contexts = [], driver } = this.device(index) ?? {}
    for (const context of contexts)
      for (const queue of driver?.requests?.queuesOf?.(context) ?? [])
        if (isQueuePair(queue) && queue.state.qpn === qpn) return queue.id
    return undefined
  }
}
