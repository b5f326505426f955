/*
 * A device as the library shows it, and protection domains on it (design.md section 8).
 */
import { type DeviceAttributes, Device as DeviceClass } from '../spec/classes/device.ts'
import { Interface } from '../spec/classes/interface.ts'
import { Pd } from '../spec/classes/pd.ts'
import { type PortAttributes, Port as PortClass } from '../spec/classes/port.ts'
import { declare } from '../spec/description.ts'
import { AsyncEventType } from '../spec/enums.ts'
import type { ObjectClass, RecordOf } from '../spec/schema.ts'
import type { Carrier } from './carrier.ts'
import { createRcQp, createUcQp, type PathFacts, type RcQueuePair, type UcQueuePair } from './connected.ts'
import { type Access, type MemoryRegion, registerMemory } from './memory.ts'
import { type CompletionQueue, type CqOptions, createCompletionQueue } from './queue.ts'
import type { QueuePairOptions } from './queue-pair.ts'
import { createWaiters } from './waiters.ts'

export type AsyncEventName = keyof typeof AsyncEventType.values

/** An asynchronous event: of a queue pair or queue made here, of a port, or of the device. */
export interface DeviceEvent {
  readonly type: AsyncEventName
  /** What it is about, if that was made by this library. */
  readonly source: RcQueuePair | UcQueuePair | CompletionQueue | undefined
  readonly port: number | undefined
}

export interface ProtectionDomain extends Disposable {
  readonly handle: number
  /** Registers a buffer. It must not be resized or transferred while it is. Throws RdmaError. */
  register(buffer: Uint8Array, access?: Access): MemoryRegion
  /** Reliable connected. */
  rcQp(options: QueuePairOptions): RcQueuePair
  /** Unreliable connected. */
  ucQp(options: QueuePairOptions): UcQueuePair
  close(): void
}

export interface Device extends AsyncDisposable {
  readonly name: string
  /** Its address in its network. */
  readonly address: string
  readonly numCompVectors: number
  query(): RecordOf<typeof DeviceAttributes>
  /** Of port 1. */
  queryPort(): RecordOf<typeof PortAttributes>
  /** Everything that it supports, as it says itself (R13). */
  interface(): readonly ObjectClass[]
  /** Whether it has a class, or a method of it. */
  supports(className: string, method?: string): boolean
  pd(): ProtectionDomain
  cq(options?: CqOptions): CompletionQueue
  /** Calls `handler` for each asynchronous event, until the function returned is called. */
  onEvent(handler: (event: DeviceEvent) => void): () => void
  close(): Promise<void>
}

const eventNames: AsyncEventName[] = []
for (const [name, value] of Object.entries(AsyncEventType.values)) eventNames[value] = name as AsyncEventName

/** The device behind a carrier; `path`: its own address and MTU. */
export const createDevice = (carrier: Carrier, name: string, address: string, path: PathFacts): Device => {
  const waiters = createWaiters()
  const sources = new Map<number, DeviceEvent['source']>()
  const handlers = new Set<(event: DeviceEvent) => void>()
  carrier.targets = {
    completion: number => waiters.wake(number),
    event(type, number, port) {
      const event = { type: eventNames[type], source: number === undefined ? undefined : sources.get(number), port }
      // The device is in the middle of its work: handlers run when that is done.
      queueMicrotask(() => {
        for (const handler of [...handlers]) handler(event)
      })
    },
  }
  let described: readonly ObjectClass[] | undefined
  const describe = (): readonly ObjectClass[] => {
    described ??= declare(carrier.call(Interface, 'query', 0, {}).out)
    return described
  }
  const { out: facts } = carrier.call(DeviceClass, 'query', 0, {})
  let open = true

  const pd = (): ProtectionDomain => {
    const { object: handle } = carrier.call(Pd, 'create', 0, {})
    let alive = true
    const close = (): void => {
      if (!alive) return
      carrier.call(Pd, 'destroy', handle, {})
      alive = false
    }
    /** Makes an object with events, which is their source from then on. */
    const withEvents = <T extends DeviceEvent['source']>(make: (number: number, closed: () => void) => T): T => {
      const number = waiters.add()
      const forget = (): void => {
        waiters.remove(number)
        sources.delete(number)
      }
      try {
        const made = make(number, forget)
        sources.set(number, made)
        return made
      } catch (error) {
        forget()
        throw error
      }
    }
    return {
      handle,
      register: (buffer, access = {}) => registerMemory(carrier, handle, buffer, access),
      rcQp: options => withEvents((number, closed) => createRcQp(carrier, handle, number, path, options, closed)),
      ucQp: options => withEvents((number, closed) => createUcQp(carrier, handle, number, path, options, closed)),
      close,
      [Symbol.dispose]: close,
    }
  }
  const close = async (): Promise<void> => {
    if (!open) return
    open = false
    carrier.close()
    waiters.wakeAll()
  }
  return {
    name,
    address,
    numCompVectors: facts.numCompVectors,
    query: () => carrier.call(DeviceClass, 'query', 0, {}).out.attributes,
    queryPort: () => carrier.call(PortClass, 'query', 1, {}).out.attributes,
    interface: describe,
    supports(className, method) {
      const cls = describe().find(one => one.name === className)
      return cls !== undefined && (method === undefined || method in cls.methods)
    },
    pd,
    cq: options => createCompletionQueue(carrier, waiters, options),
    onEvent(handler) {
      const own = (event: DeviceEvent): void => handler(event)
      handlers.add(own)
      return () => {
        handlers.delete(own)
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  }
}
