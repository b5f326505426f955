/*
 * The carrier (library/verbs/carrier.ts) of devices in this process: calls are functions, rings are ordinary memory,
 * buffers get virtual addresses.
 */

import { noDeviceText } from '../../base/suggest.ts'
import { addEventHandler } from '../../core/devices/clients.ts'
import { closeContext, openContext } from '../../core/devices/registry.ts'
import { runTypedChain } from '../../core/dispatch/chain-calls.ts'
import { invoke } from '../../core/dispatch/invoke.ts'
import { findEntry } from '../../core/dispatch/lookup.ts'
import { undoWhenDone } from '../../core/dispatch/undo.ts'
import { DEVICE_FATAL } from '../../core/events/events.ts'
import { explainRequest } from '../../core/failures.ts'
import { createLocalSpace } from '../../core/memory/local-space.ts'
import { type FindableMemory, findableMemory } from '../../core/memory/mappable-memory.ts'
import type { Caller, Context, Device as CoreDevice } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { openLocalRings, type SlabRings } from '../../drivers/registered.ts'
import { loadNativeCopier } from '../../host/memory/copy.ts'
import { mappedLayout, type RingLayout } from '../../spec/drivers/ring-layout.ts'
import { coded } from '../../spec/reason.ts'
import type { AnyValues, ObjectClass } from '../../spec/schema/schema.ts'
import type { Result } from '../../uapi/call.ts'
import { copyOfValue } from '../verbs/arguments/options.ts'
import {
  type AnyCall,
  type AnyCallAsync,
  type CallResult,
  type Carrier,
  isInlineData,
  lengthOfData,
} from '../verbs/carrier.ts'
import { closedError, deviceClosedError, refused, rethrow, toRdmaError, USE_ASYNC_HINT } from '../verbs/error.ts'
import { CLOSED } from '../verbs/plan.ts'
import type { DeviceCheck, OpenedCarrier } from '../verbs/watch/watch.ts'
import type { AttachedDevice, DevicePlace, LocalNetwork } from './contract.ts'
import { localCopies, localDescriptors } from './descriptors.ts'
import { openOwnFile, ownFile } from './file.ts'
import { ownProcess } from './rules.ts'
import { stallWatch } from './stalls.ts'

/** Starts the check of a context (library/self-check/device-check.ts). */
export type StartCheck = (context: Context, lossTo: LocalNetwork['lossTo']) => DeviceCheck

/** Arguments of a call whose method is known only at run time. */
type AnyArguments = Parameters<typeof invoke<ObjectClass, string>>[4]

/** Rings in the memory of a context (`Context.mapped`): layout 'mapped', one range for each. */
const ringsIn = (mapped: FindableMemory): Pick<SlabRings, 'layout' | 'at'> => ({
  layout: mappedLayout,
  at(offset) {
    const area = mapped.at(offset)
    return { area, headerAt: area.at, elementsAt: area.at + mappedLayout.header.DATA }
  },
})

const callResult = ({ object, descriptors, out }: Result): CallResult<AnyValues> => ({
  object: object ?? descriptors?.[0]?.object ?? 0,
  out,
})

/**
 * Settles as `call`. If the signal is aborted first, rejects with the signal's reason, and undoes the call: an object
 * that the call creates later is destroyed.
 */
const untilAborted = (context: Context, call: Promise<Result>, signal: AbortSignal | undefined): Promise<Result> => {
  if (signal === undefined) return call
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      undoWhenDone(context, call)
      reject(signal.reason)
    }
    // The handler may have aborted the signal before its first `await`.
    if (signal.aborted) {
      onAbort()
      return
    }
    signal.addEventListener('abort', onAbort, { once: true })
    // After the program has the result, an abort must not undo the call.
    const stopListening = (): void => signal.removeEventListener('abort', onAbort)
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

/** Registered buffers, with their addresses and the number of registrations of each. */
class Registrations {
  readonly #memory: ReturnType<typeof createLocalSpace>
  readonly #buffers = new Map<Uint8Array, { readonly address: number; count: number }>()

  constructor(memory: ReturnType<typeof createLocalSpace>) {
    this.#memory = memory
  }

  /** Returns the buffer's address. Throws CallError. */
  add(buffer: Uint8Array): bigint {
    let registration = this.#buffers.get(buffer)
    if (registration === undefined) {
      registration = { address: this.#memory.add(buffer), count: 0 }
      this.#buffers.set(buffer, registration)
    }
    registration.count++
    return BigInt(registration.address)
  }

  remove(buffer: Uint8Array): void {
    const registration = this.#buffers.get(buffer)
    if (registration === undefined || --registration.count > 0) return
    this.#buffers.delete(buffer)
    this.#memory.remove(registration.address)
  }
}

/**
 * A context on a device of this process. `soft`: the device if it is a soft device, otherwise undefined. `onClosed`:
 * called when everything in the context is destroyed.
 */
const carrierOn = (
  network: LocalNetwork,
  device: CoreDevice,
  soft: AttachedDevice | undefined,
  layout: RingLayout['name'],
  startCheck: StartCheck | undefined,
  onClosed: () => Promise<void> | undefined,
): OpenedCarrier => {
  const mapped = layout === 'mapped' ? findableMemory() : undefined
  const context = openContext(device, { isOpened: true, ...(mapped && { mapped }) })
  const check = startCheck?.(context, network.lossTo)
  const ownRings = soft && openLocalRings(context)
  const watch = soft && check && stallWatch(soft.network, context, network.core.now, check)
  if (watch !== undefined) network.stallWatches.add(watch)
  const rings = mapped === undefined ? (ownRings as SlabRings) : ringsIn(mapped)
  // Only ports with sockets have packet memory that native code can access.
  const memory = createLocalSpace(network.link === 'memory' ? undefined : loadNativeCopier())
  const registrations = new Registrations(memory)
  const caller: Caller = {
    memory,
    process: ownProcess,
    ...localCopies(memory),
    descriptor: number => number,
    file: ownFile,
    openFile: openOwnFile,
    handlers: {
      completion: userHandle => carrier.targets?.completion(Number(userHandle)),
      event: (userHandle, type) => carrier.targets?.event(type, Number(userHandle), undefined),
    },
  }
  const unsubscribe = addEventHandler(
    device,
    ({ type, port }) => {
      carrier.targets?.event(type, undefined, port)
      if (type === DEVICE_FATAL) carrier.targets?.ended()
    },
    context,
  )

  let isClosed = false
  /** Throws RdmaError EIO if the program has closed the device. */
  const requireOpen = (callName: string): void => {
    if (isClosed) throw deviceClosedError(callName)
  }

  /** For drivers other than rxe the doorbell is a call of `postSend`, if the driver implements that method. */
  const ringDoorbell = (handle: number): void => {
    const object = findHandle(context.handles, handle)
    const call = object?.class.methods.postSend?.call
    if (object === undefined || call === undefined || findEntry(device.table, object.class.id, call) === undefined)
      return
    callNow(object.class, 'postSend', handle, {})
  }

  /**
   * Runs a call. If the handler is asynchronous, throws RdmaError EOPNOTSUPP and undoes the call: an object that the
   * call creates later is destroyed.
   */
  const callNow: AnyCall = (cls, method, object, args) => {
    let result: ReturnType<typeof invoke>
    try {
      result = invoke(context, cls, method, object, args as AnyArguments, caller)
    } catch (error) {
      throw toRdmaError(error, `${cls.name}.${method}`)
    }
    if (!(result instanceof Promise)) return callResult(result)
    undoWhenDone(context, result as Promise<Result>)
    throw refused(
      'EOPNOTSUPP',
      `${cls.name}.${method}`,
      'its handler is asynchronous, and this call does not wait',
      USE_ASYNC_HINT,
    )
  }

  const call: AnyCall = (cls, method, object, args) => {
    if (object === CLOSED) throw closedError(`${cls.name}.${method}`)
    requireOpen(`${cls.name}.${method}`)
    // `reqNotify` gives the device no work.
    if (method !== 'reqNotify') network.touch(soft?.network)
    try {
      return callNow(cls, method, object, args)
    } finally {
      network.scheduleTimers()
    }
  }
  const callAsync: AnyCallAsync = async (cls, method, object, args, signal) => {
    const name = `${cls.name}.${method}`
    signal?.throwIfAborted()
    if (object === CLOSED) throw closedError(name)
    requireOpen(name)
    network.touch(soft?.network)
    try {
      // The handler may read the arguments later, when the program has changed its records.
      const result = invoke(context, cls, method, object, copyOfValue(args) as AnyArguments, caller)
      if (!(result instanceof Promise)) return callResult(result)
      return callResult(await untilAborted(context, result as Promise<Result>, signal))
    } catch (error) {
      throw toRdmaError(error, name)
    } finally {
      network.touch(soft?.network)
      network.scheduleTimers()
    }
  }

  const carrier: OpenedCarrier = {
    clock: network.clock,
    check,
    isRemote: false,
    call: call as Carrier['call'],
    callAsync: callAsync as Carrier['callAsync'],
    chain(calls) {
      requireOpen('interface.chain')
      network.touch(soft?.network)
      const outcome = rethrow('interface.chain', () => runTypedChain(context, calls, caller))
      network.scheduleTimers()
      return outcome && { ...outcome, results: outcome.results.map(callResult) }
    },
    descriptors: localDescriptors(network.core, memory, caller),
    layout: rings.layout,
    ring({ offset }) {
      const { headerAt, elementsAt, area } = rings.at(offset)
      return { headerAt, elementsAt, bytes: area.bytes, view: area.view, words: area.words }
    },
    release: mmapInfo => check?.posts.forget(mmapInfo),
    channel: {},
    counters() {
      requireOpen('device.counters')
      if (!device.isAlive) throw refused('EIO', 'device.counters', coded('gone')`device ${device.name} was removed`)
      if (soft === undefined)
        throw refused(
          'EOPNOTSUPP',
          'device.counters',
          `device ${device.name} has no counters`,
          'only soft devices have counters',
        )
      return soft.counters()
    },
    isUsed: handle => !isClosed && (findHandle(context.handles, handle)?.uses ?? 0) > 0,
    explain: (qpn, id) => explainRequest(device, qpn, BigInt(id)),
    setWaiting() {},
    refusesPost(handle, qpn, isSend, opcode, id, data) {
      if (!network.hasPostFaults) return undefined
      const object = findHandle(context.handles, handle)
      const details = { length: lengthOfData(data), ...(isSend && { isInline: isInlineData(data) }) }
      const posting = { context, qpn, isSend, opcode, wrId: BigInt(id), ...details }
      return object && network.faults.onPost({ ...posting, object }, ownProcess)
    },
    setFault(text) {
      requireOpen('device.fault')
      return network.addFault(device.name, text)
    },
    posted(handle) {
      if (soft === undefined) ringDoorbell(handle)
      else soft.network.onDoorbell(context, handle)
      network.kick(soft?.network)
    },
    drive: network.clock.isVirtual
      ? callName => {
          const hasWorked = network.drive()
          if (!hasWorked && callName.endsWith('.poll')) network.clock.polled(callName)
          return hasWorked
        }
      : () => network.drive(),
    overdueTurn: () => network.overdueTurn(),
    awaitsNextTurn: () => network.awaitsNextTurn(),
    addressOf: (buffer, callName) => rethrow(callName, () => registrations.add(buffer)),
    forget: buffer => registrations.remove(buffer),
    targets: undefined,
    close() {
      isClosed = true
      unsubscribe()
      if (watch !== undefined) network.stallWatches.delete(watch)
      return new Promise(resolve => closeContext(context, () => resolve(onClosed())))
    },
  }
  return carrier
}

/**
 * Creates a soft device on the network, and a context on it. `close` removes the device, and then calls `removed`.
 * Throws RdmaError.
 */
export const localCarrier = (
  network: LocalNetwork,
  name: string,
  address: string,
  layout: RingLayout['name'] = 'compact',
  startCheck?: StartCheck,
  removed?: () => Promise<void> | undefined,
  place: DevicePlace = {},
): OpenedCarrier => {
  const soft = rethrow('open', () => network.add(name, address, place))
  const remove = async (): Promise<void> => {
    await soft.remove()
    await removed?.()
  }
  return carrierOn(network, soft.network.device, soft, layout, startCheck, remove)
}

/** A context on a device that the network has; `close` does not remove the device. Throws RdmaError ENODEV. */
export const contextCarrier = (network: LocalNetwork, name: string, startCheck?: StartCheck): OpenedCarrier => {
  const { devices } = network.core
  const device = devices.get(name)
  if (device === undefined) throw refused('ENODEV', 'open', noDeviceText(name, [...devices.keys()]))
  const soft = network.softDevice(name)
  return carrierOn(network, device, soft, soft === undefined ? 'mapped' : 'compact', startCheck, () => undefined)
}
