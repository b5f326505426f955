/*
 * Observation of a network in this process: packets as pcapng, calls as records, failures and retries as messages on
 * Node's diagnostics channels.
 *
 *   userdma:failure         FailureMessage: one failure (spec/check/failures.ts), or a send that waits for a receive
 *   userdma:rnr             CountMessage: RNR NAKs received: the peer had no receive posted
 *   userdma:retransmission  CountMessage: how often send queues went back to resend
 */
import { channel } from 'node:diagnostics_channel'
import { closeSync } from 'node:fs'
import { startCapture } from '../../assembly/capture.ts'
import { registerClient } from '../../core/devices/clients.ts'
import { addHook } from '../../core/devices/registry.ts'
import { addFailureHandler } from '../../core/failures.ts'
import type { CallContext, Core, Device as CoreDevice, Hook } from '../../core/model.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import type { Clock } from '../../host/event-loop/clock.ts'
import { appendBlock, createOutputFile } from '../../host/output-file.ts'
import { createCause } from '../../spec/check/causes.ts'
import { type FailureJson, failureJson } from '../../spec/check/failures.ts'
import { CallError, errnoName, knownErrno } from '../../spec/errno.ts'
import { packetText } from '../../tools/trace/packets.ts'
import { createPcapng, type PcapngPacket } from '../../tools/trace/pcapng.ts'
import type { FaultPort } from '../../transport/phy/faults/layer.ts'
import { addTap, forEachPacket } from '../../transport/phy/tap.ts'
import { isSameAddress } from '../../transport/wire/address.ts'
import { checkFunction, checkText, formatValue, refused, warn } from '../verbs/error.ts'
import { jsonSafe, showAs } from '../verbs/objects/show.ts'

/** A message of the diagnostics channel `userdma:failure`. */
export interface FailureMessage extends FailureJson {}

/** A message of the diagnostics channels `userdma:rnr` and `userdma:retransmission`. */
export interface CountMessage {
  /** Name of the device. */
  readonly device: string
  /** Number since the last message, at first since the device was added. */
  readonly count: number
}

interface ObservedDevice {
  readonly network: SoftDevice
  readonly port: FaultPort
}

/** A packet that a soft device of the network has sent, before faults and links. */
export interface SeenPacket {
  /** Name of the device. */
  readonly device: string
  /** From the BTH to the ICRC, a copy. */
  readonly bytes: Uint8Array
  /** One line: opcode, destination queue pair, PSN, the fields of further headers, bytes of payload. */
  readonly text: string
}

/** A completed call on a device of the network. */
export interface TracedCall {
  /** Name of the device. */
  readonly device: string
  /** Name of the class: 'rc_qp' … */
  readonly class: string
  /** Name of the method: 'modify' … */
  readonly method: string
  /**
   * Handle of the object (`create`: of the new object); the number of a port; 0 for the device. Undefined for most
   * calls that were refused before their handler.
   */
  readonly object: number | undefined
  /** Arguments by name, objects by their handles. */
  readonly args: Readonly<Record<string, unknown>>
  /** The results, if the call succeeded. */
  readonly result: Readonly<Record<string, unknown>> | undefined
  /** Errno ('EINVAL' …) and message, if the call failed. EIO for an exception that is not a refusal. */
  readonly error: { readonly code: string; readonly message: string } | undefined
  /** Microseconds until the result; 0 if the call was refused before its handler. */
  readonly microseconds: number
}

const failures = channel('userdma:failure')
const rnrWaits = channel('userdma:rnr')
const retransmissions = channel('userdma:retransmission')

/** The counters of a device when they were last published; 0: never. */
interface PublishedCounters {
  receivedRnr: number
  retransmissions: number
  /** `receivedRnr` when `publishStalls` last looked. */
  lookedAtRnr: number
  /** By QPN: the PSN of the send whose wait was published. */
  readonly stalled: Map<number, number>
}
const published = new WeakMap<SoftDevice, PublishedCounters>()

/** RNR NAKs for one send after which its wait is published: 41 ms with the default `minRnrTimer`. */
const STALLED_RNR_NAKS = 64

/**
 * Publishes each send that has got STALLED_RNR_NAKS RNR NAKs, once. With the default `rnrRetryCount` such a send never
 * fails: without a message, a program that forgot a receive waits for ever.
 */
const publishStalls = (device: SoftDevice, receivedRnr: number, last: PublishedCounters): void => {
  if (receivedRnr === last.lookedAtRnr) return
  last.lookedAtRnr = receivedRnr
  device.visitStalls(STALLED_RNR_NAKS, ({ qpn, psn, rnrNaks, rnrRetry }) => {
    if (last.stalled.get(qpn) === psn) return
    last.stalled.set(qpn, psn)
    const cause = createCause('RNR_EXCEEDED', { rnrNaks, rnrRetry })
    failures.publish(failureJson({ kind: 'wait', device: device.device.name, qpn, cause }))
  })
}

/** Publishes the RNR NAKs and retransmissions since `published`, each if its channel has subscribers. */
export const publishWaits = (devices: readonly SoftDevice[]): void => {
  if (!rnrWaits.hasSubscribers && !retransmissions.hasSubscribers && !failures.hasSubscribers) return
  for (const network of devices) {
    const { receivedRnr = 0, retransmissions: resent = 0 } = network.counters().engine
    const last = published.get(network) ?? { receivedRnr: 0, retransmissions: 0, lookedAtRnr: 0, stalled: new Map() }
    published.set(network, last)
    if (failures.hasSubscribers) publishStalls(network, receivedRnr, last)
    const device = network.device.name
    const newRnr = receivedRnr - last.receivedRnr
    if (newRnr > 0 && rnrWaits.hasSubscribers) {
      last.receivedRnr = receivedRnr
      rnrWaits.publish({ device, count: newRnr } satisfies CountMessage)
    }
    const newlyResent = resent - last.retransmissions
    if (newlyResent > 0 && retransmissions.hasSubscribers) {
      last.retransmissions = resent
      retransmissions.publish({ device, count: newlyResent } satisfies CountMessage)
    }
  }
}

/** `values` with the handles of core objects in place of the objects; lists and records are unchanged. */
const withHandles = (values: object | undefined): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(values ?? {}).map(([name, value]) => {
      const isObject = typeof value === 'object' && value !== null && 'handle' in value && 'class' in value
      return [name, isObject ? (value as { handle: unknown }).handle : value]
    }),
  )

const valuesText = (values: Readonly<Record<string, unknown>>): string =>
  Object.entries(values)
    .map(([name, value]) => `${name} ${formatValue(value)}`)
    .join(', ')

const callText = ({ class: cls, method, object, args, result, error }: TracedCall): string => {
  const inputs = [object === undefined ? '' : `object ${object}`, valuesText(args)].filter(Boolean).join(', ')
  const outcome = error === undefined ? `{${valuesText(result ?? {})}}` : `${error.code} (${error.message})`
  return `${cls}.${method}(${inputs}) = ${outcome}`
}

const errorOf = (error: unknown): TracedCall['error'] =>
  error instanceof CallError
    ? { code: errnoName(error.errno), message: error.message }
    : { code: 'EIO', message: String(error) }

const traceHook = (device: CoreDevice, now: Clock['now'], handler: (call: TracedCall) => void): Hook => {
  const started = new WeakMap<CallContext, number>()
  return {
    pre: call => {
      started.set(call, now())
    },
    post(call, object, args, out, error) {
      const start = started.get(call)
      const { class: cls, name: method } = call.entry
      const record: TracedCall = {
        device: device.name,
        class: cls.name,
        method,
        object: object?.handle,
        args: withHandles(args),
        result: error === undefined ? withHandles(out) : undefined,
        error: error === undefined ? undefined : errorOf(error),
        microseconds: start === undefined ? 0 : now() - start,
      }
      showAs(record, 'Call', () => jsonSafe({ ...record, text: callText(record) }) as Readonly<Record<string, unknown>>)
      handler(record)
    },
  }
}

/** Creates a capture file and writes its header. Throws RdmaError with the system's errno. */
const openCapture = (path: string): { fd: number; write: (packet: PcapngPacket) => void } => {
  let fd = -1
  try {
    fd = createOutputFile(path)
    const write = createPcapng(bytes => appendBlock(fd, bytes), { interfaces: ['userdma'] })
    return { fd, write }
  } catch (error) {
    if (fd >= 0) closeSync(fd)
    const { code = 'EINVAL', message } = error as NodeJS.ErrnoException
    throw refused(knownErrno(code, 'EINVAL'), 'network.capture', message)
  }
}

/** An exception of `handle` becomes an uncaught one: it must not change what is observed. */
const withoutEffect = (handle: () => void): void => {
  try {
    handle()
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

/** `attached`: the soft devices of the network by name. */
export const observe = (
  core: Core,
  attached: ReadonlyMap<string, ObservedDevice>,
  clock: Clock,
  longestStay: (() => number) | undefined,
) => {
  addFailureHandler(core, failure => {
    if (failures.hasSubscribers) failures.publish(failureJson(failure))
  })
  const watches = new Set<PacketWatch>()

  /** Taps of all soft devices. */
  interface PacketWatch {
    /** Returns the removal of the tap. */
    readonly add: (name: string, port: FaultPort) => () => void
    readonly tapRemovers: Map<string, () => void>
  }

  const tap = ({ add, tapRemovers }: PacketWatch, name: string, { port }: ObservedDevice): void => {
    tapRemovers.set(name, add(name, port))
  }
  /** Returns a function that ends the watch, and is false at a second call. */
  const watchPackets = (add: PacketWatch['add']): (() => boolean) => {
    const watch: PacketWatch = { add, tapRemovers: new Map() }
    watches.add(watch)
    for (const [name, device] of attached) tap(watch, name, device)
    return () => {
      for (const remove of watch.tapRemovers.values()) remove()
      watch.tapRemovers.clear()
      return watches.delete(watch)
    }
  }
  /** Whether an address (16 bytes) belongs to a device of the network. */
  const isOwn = (address: Uint8Array): boolean =>
    [...attached.values()].some(({ network }) => network.link.identity.gids.some(gid => isSameAddress(gid, address)))

  return {
    deviceAdded(name: string, device: ObservedDevice): void {
      for (const watch of watches) tap(watch, name, device)
    },
    deviceRemoved(name: string): void {
      for (const { tapRemovers } of watches) {
        // Removed now: the port stays open until the device's objects are destroyed, and the capture may end earlier.
        tapRemovers.get(name)?.()
        tapRemovers.delete(name)
      }
    },
    capture(path: string): () => void {
      checkText('network.capture', 'path', path)
      const { fd, write } = openCapture(path)
      const packets = startCapture(
        isOwn,
        write,
        error => {
          // The traffic continues.
          warn(`a capture was stopped: ${String(error)}`)
          stop()
        },
        () => longestStay !== undefined || [...attached.values()].some(({ port }) => port.ruleCounts().length > 0),
        clock,
        longestStay?.(),
      )
      const endWatch = watchPackets((_, port) => packets.add(port, 0))
      const stop = (): void => {
        if (!endWatch()) return
        packets.end()
        closeSync(fd)
      }
      return stop
    },
    packets(handler: (packet: SeenPacket) => void): () => void {
      checkFunction('network.packets', 'handler', handler)
      const endWatch = watchPackets((device, port) =>
        addTap(port, run => {
          if (run.direction !== 'sent') return
          forEachPacket(run, (offset, length) => {
            const bytes = run.arena.bytes.slice(offset, offset + length)
            withoutEffect(() => handler({ device, bytes, text: packetText(bytes) }))
          })
        }),
      )
      return () => void endWatch()
    },
    trace(handler: (call: TracedCall) => void): () => void {
      checkFunction('network.trace', 'handler', handler)
      let isStopped = false
      // A call that was running at the stop still calls its hooks.
      const onCall = (call: TracedCall): void => {
        if (!isStopped) withoutEffect(() => handler(call))
      }
      const removers = new Map<CoreDevice, () => void>()
      const unregister = registerClient(core, {
        name: 'trace',
        add(device) {
          removers.set(device, addHook(device, traceHook(device, clock.now, onCall)))
          return true
        },
        remove(device) {
          removers.get(device)?.()
          removers.delete(device)
        },
      })
      return () => {
        isStopped = true
        unregister()
      }
    },
  }
}
