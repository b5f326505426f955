/*
 * Devices in this process: soft devices on a memory link, joined by one network, driven by the program's own turns
 * (design.md sections 7 and 8). No daemon, no native code.
 *
 * Work moves when the program posts (once per turn of the event loop, for all that was posted in it), when it polls a
 * queue that is empty, and when a timer of a device comes.
 */

import { addEventHandler } from '../core/clients.ts'
import { invokeNow } from '../core/invoke.ts'
import { createLocalSpace } from '../core/local-space.ts'
import type { Caller, Core } from '../core/model.ts'
import { closeContext, createCore, openContext, unregister } from '../core/registry.ts'
import type { RxeContext } from '../drivers/rxe/context.ts'
import { createRxeDevice, type RxeDevice } from '../drivers/rxe/device.ts'
import { identify } from '../drivers/rxe/identity.ts'
import { Where } from '../drivers/rxe/posts.ts'
import type { RingPiece } from '../drivers/rxe/rings.ts'
import { nowMicroseconds } from '../host/clock.ts'
import { parseFaults } from '../phy/fault-spec.ts'
import { type FaultPort, withFaults } from '../phy/faults.ts'
import { createMemorySwitch, memorySwitchBytes } from '../phy/memory.ts'
import { CallError } from '../spec/errno.ts'
import { wholePages } from '../spec/memory.ts'
import type { ObjectClass } from '../spec/schema.ts'
import { parseAddress } from '../wire/address.ts'
import { plainArena } from '../wire/arena.ts'
import type { Carrier, EventTargets } from './carrier.ts'
import { RdmaError, rdmaError } from './error.ts'

/** Joins the devices of this process that are opened on it. */
export interface Network {
  /** Faults from now on, as `--fault` of the command line has them; the empty text ends them. */
  setFaults(text: string): void
}

interface LocalNetwork extends Network {
  readonly core: Core
  add(name: string, address: string): { readonly rxe: RxeDevice; remove(): void }
  /** Work may have been posted: it is looked at when this turn of the program is over. */
  kick(): void
  drive(): boolean
}

/** Turns of devices that keep each other busy before the event loop has its turn. */
const TURNS = 64
const LONGEST_TIMER = 2 ** 31 - 1
const ERRNO_EINVAL = 22

export interface NetworkOptions {
  /** Faults of every packet, see `Network.setFaults`. */
  readonly fault?: string
}

const faultRules = (text: string) => {
  try {
    return parseFaults(text)
  } catch (error) {
    throw new RdmaError('EINVAL', ERRNO_EINVAL, 'network.setFaults', (error as Error).message)
  }
}

export const createNetwork = ({ fault = '' }: NetworkOptions = {}): Network => {
  const core = createCore()
  const link = createMemorySwitch({ arena: plainArena(memorySwitchBytes()), sealing: 'demand' })
  const devices: RxeDevice[] = []
  const ports = new Set<FaultPort>()
  let rules = faultRules(fault)
  let driving = false
  let scheduled = false
  let timer: NodeJS.Timeout | undefined
  let timerDue = Number.POSITIVE_INFINITY

  const pollAll = (where: Where): boolean => {
    const now = nowMicroseconds()
    let progress = false
    for (const device of devices) progress = device.poll(now, where) || progress
    return progress
  }
  const armTimer = (): void => {
    let due = Number.POSITIVE_INFINITY
    for (const device of devices) due = Math.min(due, device.nextTimeout())
    if (due >= timerDue) return
    clearTimeout(timer)
    timerDue = due
    timer = setTimeout(onTimer, Math.min(Math.max(Math.ceil((due - nowMicroseconds()) / 1000), 1), LONGEST_TIMER))
  }
  const onTimer = (): void => {
    timerDue = Number.POSITIVE_INFINITY
    drive()
  }
  const drive = (): boolean => {
    if (driving) return false
    driving = true
    let worked = false
    let busy = true
    for (let turn = 0; turn < TURNS && busy; turn++) {
      busy = pollAll(Where.USED)
      worked = busy || worked
    }
    driving = false
    if (busy) kick()
    armTimer()
    return worked
  }
  const kick = (): void => {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      drive()
    })
  }

  const network: LocalNetwork = {
    core,
    drive,
    kick,
    add(name, address) {
      const bytes = parseAddress(address)
      if (bytes === undefined)
        throw new RdmaError('EINVAL', ERRNO_EINVAL, 'open', `address "${address}" is no IPv4 or IPv6 address`)
      const port = withFaults(link.attach(), name, rules)
      const identity = identify(bytes, { name: 'local', index: 0 })
      const rxe = createRxeDevice(core, { name, identity, port, now: nowMicroseconds })
      devices.push(rxe)
      ports.add(port)
      return {
        rxe,
        remove() {
          devices.splice(devices.indexOf(rxe), 1)
          ports.delete(port)
          unregister(rxe.device)
          if (devices.length > 0) return
          clearTimeout(timer)
          timerDue = Number.POSITIVE_INFINITY
        },
      }
    },
    setFaults(text) {
      rules = faultRules(text)
      for (const port of ports) port.setFaults(rules)
    },
  }
  return network
}

/** What `body` answers; a refusal of core's becomes one of the library. */
const refusing = <T>(call: string, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw error instanceof CallError ? rdmaError(error, call) : error
  }
}

const noMemoryOf = (): never => {
  throw new CallError('EFAULT', 'calls in this process point to no memory')
}

/** A ring's memory in this process: named by an offset, found again by it. */
const createRings = (): { readonly rings: RxeContext['rings']; at(offset: bigint): RingPiece } => {
  const pieces = new Map<number, RingPiece>()
  let next = 0
  return {
    rings: {
      allocate(bytes) {
        const length = wholePages(bytes)
        const buffer = new ArrayBuffer(length)
        const piece: RingPiece = {
          offset: next,
          length,
          at: 0,
          bytes: new Uint8Array(buffer),
          view: new DataView(buffer),
          words: new Int32Array(buffer),
        }
        pieces.set(next, piece)
        next += length
        return piece
      },
      free({ offset }) {
        pieces.delete(offset)
      },
    },
    at(offset) {
      const piece = pieces.get(Number(offset))
      if (piece === undefined) throw new Error(`no ring lies at ${offset}`)
      return piece
    },
  }
}

/** A device made in this process, and a context on it. `close` removes the device. */
export const localCarrier = (on: Network, name: string, address: string): Carrier & { readonly rxe: RxeDevice } => {
  const network = on as LocalNetwork
  const { rxe, remove } = refusing('open', () => network.add(name, address))
  const context = openContext(rxe.device, { opened: true })
  const { rings, at } = createRings()
  context.state = { rings } satisfies RxeContext
  const memory = createLocalSpace()
  /** Registered buffers, their addresses, and how often each is registered. */
  const known = new Map<Uint8Array, { readonly address: number; uses: number }>()
  let targets: EventTargets | undefined
  const caller: Caller = {
    memory,
    copyIn: noMemoryOf,
    copyOut: noMemoryOf,
    descriptor: number => number,
    handlers: {
      completion: userHandle => targets?.completion(Number(userHandle)),
      event: (userHandle, type) => targets?.event(type, Number(userHandle), undefined),
    },
  }
  addEventHandler(rxe.device, ({ type, port }) => targets?.event(type, undefined, port))

  return {
    rxe,
    call(cls, method, object, args) {
      const name = `${(cls as ObjectClass).name}.${method}`
      const result = refusing(name, () => invokeNow(context, cls, method, object, args, caller))
      return { object: result.object ?? result.descriptors?.[0]?.object ?? 0, out: result.out as never }
    },
    ring: ({ offset }) => at(offset),
    posted(handle) {
      rxe.posted(context, handle)
      network.kick()
    },
    drive: () => network.drive(),
    addressOf(buffer) {
      let area = known.get(buffer)
      if (area === undefined) {
        area = { address: refusing('pd.register', () => memory.add(buffer)), uses: 0 }
        known.set(buffer, area)
      }
      area.uses++
      return BigInt(area.address)
    },
    forget(buffer) {
      const area = known.get(buffer)
      if (area === undefined || --area.uses > 0) return
      known.delete(buffer)
      memory.remove(area.address)
    },
    get targets() {
      return targets
    },
    set targets(to) {
      targets = to
    },
    close() {
      closeContext(context)
      remove()
    },
  }
}
