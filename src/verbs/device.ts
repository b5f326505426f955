/*
 * A device as the library shows it (design.md section 8): what it is, what it makes, what happens to it.
 */
import { type DeviceAttributes, Device as DeviceClass, type GidEntry } from '../spec/classes/device.ts'
import { Interface } from '../spec/classes/interface.ts'
import { type PortAttributes, Port as PortClass } from '../spec/classes/port.ts'
import { declare } from '../spec/description.ts'
import { AsyncEventType } from '../spec/enums.ts'
import type { ObjectClass, RecordOf } from '../spec/schema.ts'
import { agreedClass } from '../spec/versions.ts'
import type { Carrier, DeviceCounters } from './carrier.ts'
import { type Chain, createChains, type Realised } from './chain.ts'
import { type ProtectionDomain, pdPlan } from './domain.ts'
import { refusing } from './error.ts'
import { type Kit, make, type PathFacts } from './plan.ts'
import { type CompletionQueue, type CqOptions, cqPlan, type WaitOptions } from './queue.ts'
import { createWaiters } from './waiters.ts'
import { type XrcDomain, type XrcDomainOptions, xrcdPlan } from './xrc.ts'

export type AsyncEventName = keyof typeof AsyncEventType.values

/** An asynchronous event: of a queue pair or queue made here, of a port, or of the device. */
export interface DeviceEvent {
  readonly type: AsyncEventName
  /** What it is about, if that was made by this library: a queue pair, a completion queue or a shared receive queue. */
  readonly source: Disposable | undefined
  readonly port: number | undefined
}

export interface Device extends AsyncDisposable {
  readonly name: string
  /** Its address in its network. */
  readonly address: string
  readonly numCompVectors: number
  query(): RecordOf<typeof DeviceAttributes>
  /** Of port 1. */
  queryPort(): RecordOf<typeof PortAttributes>
  /** All GIDs of all ports. */
  gids(): readonly RecordOf<typeof GidEntry>[]
  /** What its port and its engines have counted so far. */
  counters(): DeviceCounters
  /** Everything that it supports, as it says itself (R13). */
  interface(): readonly ObjectClass[]
  /** Whether it has a class, or a method of it. */
  supports(className: string, method?: string): boolean
  pd(): ProtectionDomain
  cq(options?: CqOptions): CompletionQueue
  xrcd(options?: XrcDomainOptions): XrcDomain
  /** Makes what `build` says with one call, all or nothing, and answers it in the same shape. Throws RdmaError. */
  chain<T>(build: (chain: Chain) => T): Realised<T>
  /** Calls `handler` for each asynchronous event, until the function returned is called. */
  onEvent(handler: (event: DeviceEvent) => void): () => void
  /** Asynchronous events as they come, until the signal or the end of the device. */
  events(options?: Pick<WaitOptions, 'signal'>): AsyncIterableIterator<DeviceEvent>
  close(): Promise<void>
}

const eventNames: AsyncEventName[] = []
for (const [name, value] of Object.entries(AsyncEventType.values)) eventNames[value] = name as AsyncEventName

/** The device behind a carrier; `path`: its own address and MTU. */
export const createDevice = (carrier: Carrier, name: string, address: string, path: PathFacts): Device => {
  const sources: Kit['sources'] = new Map()
  const waiters = createWaiters(begins => carrier.waiting(begins), sources)
  const kit: Kit = { carrier, waiters, sources, path }
  const handlers = new Set<(event: DeviceEvent) => void>()
  carrier.targets = {
    completion: number => waiters.wake(number),
    event(type, number, port) {
      const event = { type: eventNames[type], source: number === undefined ? undefined : kit.sources.get(number), port }
      // The device is in the middle of its work: handlers run when that is done.
      queueMicrotask(() => {
        for (const handler of [...handlers]) handler(event)
      })
    },
    ended: () => waiters.wakeAll(),
  }
  let described: readonly ObjectClass[] | undefined
  const describe = (): readonly ObjectClass[] => {
    described ??= declare(carrier.call(Interface, 'query', 0, {}).out)
    return described
  }
  const find = (className: string): ObjectClass | undefined => describe().find(one => one.name === className)
  const { run: chain, makeAll } = createChains(kit, (cls, method) =>
    refusing(`${cls.name}.${method}`, () => agreedClass(cls, find(cls.name), method)),
  )
  const { out: facts } = carrier.call(DeviceClass, 'query', 0, {})
  let open = true

  const onEvent = (handler: (event: DeviceEvent) => void): (() => void) => {
    const own = (event: DeviceEvent): void => handler(event)
    handlers.add(own)
    return () => {
      handlers.delete(own)
    }
  }
  const events = async function* ({ signal }: Pick<WaitOptions, 'signal'> = {}): AsyncGenerator<DeviceEvent> {
    const number = waiters.add()
    const come: DeviceEvent[] = []
    const stop = onEvent(event => {
      come.push(event)
      waiters.wake(number)
    })
    try {
      while (open) {
        while (come.length > 0) yield come.shift() as DeviceEvent
        signal?.throwIfAborted()
        // The device is gone, and has said so.
        if (waiters.over) return
        if (open) await waiters.wait(number, signal)
      }
    } finally {
      stop()
      waiters.remove(number)
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
    gids: () => carrier.call(DeviceClass, 'queryGidTable', 0, {}).out.entries,
    counters: () => carrier.counters(),
    interface: describe,
    supports(className, method) {
      const cls = find(className)
      return cls !== undefined && (method === undefined || method in cls.methods)
    },
    pd: () => make(kit, pdPlan(kit, makeAll)),
    cq: options => make(kit, cqPlan(kit, options)),
    xrcd: options => make(kit, xrcdPlan(kit, options)),
    chain,
    onEvent,
    events,
    close,
    [Symbol.asyncDispose]: close,
  }
}
