/*
 * The carrier of devices in this process (network.ts): calls are functions, rings are ordinary memory, buffers get
 * virtual addresses. No daemon, no native code.
 */

import { addEventHandler } from '../../core/devices/clients.ts'
import { closeContext, openContext } from '../../core/devices/registry.ts'
import { runTypedChain } from '../../core/dispatch/chain-calls.ts'
import { invoke } from '../../core/dispatch/invoke.ts'
import { findEntry } from '../../core/dispatch/lookup.ts'
import { undoWhenDone } from '../../core/dispatch/undo.ts'
import { DEVICE_FATAL } from '../../core/events/events.ts'
import { createLocalSpace } from '../../core/memory/local-space.ts'
import { type FindableMemory, findableMemory } from '../../core/memory/mappable-memory.ts'
import type { Caller, Context, Device as CoreDevice } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import type { RxeContext } from '../../drivers/rxe/context.ts'
import { countersOf } from '../../drivers/rxe/counts.ts'
import type { RxeDevice } from '../../drivers/rxe/device.ts'
import { mappedRings, slabRings } from '../../drivers/rxe/rings/ring-memory.ts'
import type { RingMemory } from '../../drivers/rxe/rings/rings.ts'
import { loadNativeCopier } from '../../host/memory/copy.ts'
import { failureReason } from '../../spec/check/failures.ts'
import type { RingLayout } from '../../spec/drivers/ring-layout.ts'
import type { AnyValues, ObjectClass } from '../../spec/schema/schema.ts'
import type { Result } from '../../uapi/call.ts'
import type { Answered, AnyCall, AnyCallAsync, Carrier } from '../carrier.ts'
import type { Checked } from '../check/checked.ts'
import { refused, rethrow, toRdmaError, USE_ASYNC_HINT } from '../error.ts'
import { CLOSED, isClosed } from '../plan.ts'
import { localCopies, localDescriptors } from './descriptors.ts'
import { openOwnFile } from './file.ts'
import type { AttachedDevice, LocalNetwork, Network } from './network.ts'

/** Begins to check a context (verbs/check/device-check.ts). */
export type StartCheck = (context: Context) => Checked

interface LocalCarrier extends Carrier {
  readonly checked: Checked | undefined
}

interface Rings {
  readonly memory: RingMemory
  readonly ring: Carrier['ring']
  /** Memory that can be looked up by offset: drivers of all kinds may place rings of rxe's layout there. */
  readonly mapped?: FindableMemory
}

/** Arguments of a call whose method is known only at run time. */
type AnyArguments = Parameters<typeof invoke<ObjectClass, string>>[4]

/** Memory for rings of one layout, and their lookup. */
const ringsWith = (layout: RingLayout['name']): Rings => {
  if (layout === 'compact') {
    const memory = slabRings()
    return {
      memory,
      ring({ offset }) {
        const { headerAt, elementsAt, area } = memory.at(offset)
        return { head: headerAt, data: elementsAt, bytes: area.bytes, view: area.view, words: area.words }
      },
    }
  }
  const pieces = findableMemory()
  const memory = mappedRings(pieces)
  return {
    memory,
    mapped: pieces,
    ring({ offset }) {
      const { at, bytes, view, words } = pieces.at(offset)
      return { head: at, data: at + memory.layout.header.DATA, bytes, view, words }
    },
  }
}

const answered = ({ object, descriptors, out }: Result): Answered<AnyValues> => ({
  object: object ?? descriptors?.[0]?.object ?? 0,
  out,
})

/** The result; or the signal's reason if it is aborted first, and then the result is discarded. */
const untilAborted = (context: Context, call: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> => {
  if (signal === undefined) return call
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      undoWhenDone(context, call)
      reject(signal.reason)
    }
    signal.addEventListener('abort', aborted, { once: true })
    // The result has been returned, so it must not be undone.
    const stopListening = (): void => signal.removeEventListener('abort', aborted)
    call.then(
      result => {
        stopListening()
        resolve(result)
      },
      error => {
        stopListening()
        reject(error)
      },
    )
  })
}

/**
 * A context on a device of this process. `soft`: set for a soft device. `closed`: called when the context is closed.
 */
const carrierOn = (
  network: LocalNetwork,
  device: CoreDevice,
  soft: AttachedDevice | undefined,
  layout: RingLayout['name'],
  check: StartCheck | undefined,
  closed: () => Promise<void> | undefined,
): LocalCarrier => {
  const { memory: ringMemory, ring, mapped } = ringsWith(layout)
  const context = openContext(device, { opened: true, ...(mapped && { mapped }) })
  const checked = check?.(context)
  if (soft !== undefined) context.state = { rings: ringMemory, isInProcess: true } satisfies RxeContext
  // only ports with sockets have memory that native code can access
  const memory = createLocalSpace(network.link === 'memory' ? undefined : loadNativeCopier())
  /** Registered buffers, their addresses, and the number of registrations of each. */
  const known = new Map<Uint8Array, { readonly address: number; uses: number }>()
  const caller: Caller = {
    memory,
    ...localCopies(memory),
    descriptor: number => number,
    file: number => String(number),
    openFile: openOwnFile,
    handlers: {
      completion: userHandle => carrier.targets?.completion(Number(userHandle)),
      event: (userHandle, type) => carrier.targets?.event(type, Number(userHandle), undefined),
    },
  }
  const unsubscribe = addEventHandler(device, ({ type, port }) => {
    carrier.targets?.event(type, undefined, port)
    if (type === DEVICE_FATAL) carrier.targets?.ended()
  })

  /** Drivers of other devices get the doorbell as a call of `postSend`, if they implement it. */
  const ringDoorbell = (handle: number): void => {
    const object = findHandle(context.handles, handle)
    const call = object?.class.methods.postSend?.call
    if (object === undefined || call === undefined || findEntry(device.table, object.class.id, call) === undefined)
      return
    callNow(object.class, 'postSend', handle, {})
  }

  /**
   * Runs a call and returns its answer. EOPNOTSUPP if its handler takes time; the object that it creates is then
   * destroyed.
   */
  const callNow: AnyCall = (cls, method, object, args) => {
    let result: ReturnType<typeof invoke>
    try {
      result = invoke(context, cls, method, object, args as AnyArguments, caller)
    } catch (error) {
      throw toRdmaError(error, `${cls.name}.${method}`)
    }
    if (!(result instanceof Promise)) return answered(result)
    undoWhenDone(context, result as Promise<Result>)
    throw refused(
      'EOPNOTSUPP',
      `${cls.name}.${method}`,
      'its handler is asynchronous, and this call does not wait',
      USE_ASYNC_HINT,
    )
  }

  const call: AnyCall = (cls, method, object, args) => {
    if (object === CLOSED) throw isClosed(`${cls.name}.${method}`)
    // Arming does not change the queues, and every wait arms.
    if (method !== 'reqNotify') network.touch()
    try {
      return callNow(cls, method, object, args)
    } finally {
      network.scheduleTimers()
    }
  }
  const callAsync: AnyCallAsync = async (cls, method, object, args, signal) => {
    const name = `${cls.name}.${method}`
    signal?.throwIfAborted()
    if (object === CLOSED) throw isClosed(name)
    network.touch()
    try {
      const result = invoke(context, cls, method, object, args as AnyArguments, caller)
      if (!(result instanceof Promise)) return answered(result)
      return answered(await untilAborted(context, result as Promise<Result>, signal))
    } catch (error) {
      throw toRdmaError(error, name)
    } finally {
      network.touch()
      network.scheduleTimers()
      network.kick()
    }
  }

  const carrier: LocalCarrier = {
    checked,
    remote: false,
    call: call as Carrier['call'],
    callAsync: callAsync as Carrier['callAsync'],
    chain(calls) {
      network.touch()
      const outcome = rethrow('interface.chain', () => runTypedChain(context, calls, caller))
      network.scheduleTimers()
      return outcome && { ...outcome, answers: outcome.results.map(answered) }
    },
    descriptors: localDescriptors(network.core, memory, caller),
    layout: ringMemory.layout,
    ring,
    release: place => checked?.posts.forget(place),
    channel: {},
    counters() {
      if (soft === undefined) throw refused('EOPNOTSUPP', 'device.counters', `device ${device.name} has no counters`)
      return { ...countersOf(soft.rxe), faults: { ...soft.port.faults } }
    },
    explain(qpn, id) {
      if (soft === undefined) return undefined
      const { failures, qpns } = soft.rxe.state
      const failure = failures.last(qpns.rowOf(qpn))
      return failure?.wrId === BigInt(id) ? failureReason(failure) : undefined
    },
    waiting() {},
    posted(handle) {
      if (soft === undefined) ringDoorbell(handle)
      else soft.rxe.posted(context, handle)
      network.kick()
    },
    drive: () => network.drive(),
    pause: () => network.pause(),
    awaitsNextTurn: () => network.awaitsNextTurn(),
    addressOf(buffer) {
      let area = known.get(buffer)
      if (area === undefined) {
        area = { address: rethrow('pd.register', () => memory.add(buffer)), uses: 0 }
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
    targets: undefined,
    close() {
      unsubscribe()
      return new Promise(ended => closeContext(context, () => ended(closed())))
    },
  }
  return carrier
}

/** Creates a soft device in this process and a context on it. `close` removes the device. */
export const localCarrier = (
  on: Network,
  name: string,
  address: string,
  layout: RingLayout['name'] = 'compact',
  check?: StartCheck,
): LocalCarrier & { readonly rxe: RxeDevice } => {
  const network = on as LocalNetwork
  const soft = rethrow('open', () => network.add(name, address))
  return Object.assign(carrierOn(network, soft.rxe.device, soft, layout, check, soft.remove), { rxe: soft.rxe })
}

/** A context on a device of the network; `close` leaves the device. */
export const contextCarrier = (on: Network, name: string, check?: StartCheck): LocalCarrier => {
  const network = on as LocalNetwork
  const { devices } = network.core
  const device = devices.get(name)
  if (device === undefined)
    throw refused('ENODEV', 'open', `no device ${name}; there are ${[...devices.keys()].join(', ') || 'none'}`)
  const soft = network.softDevice(name)
  return carrierOn(network, device, soft, soft === undefined ? 'rxe' : 'compact', check, () => undefined)
}
