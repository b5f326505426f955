/*
 * Observation of a network in this process: packets as pcapng, calls as records, and failures as messages on Node's
 * diagnostics channels, which cost nothing without subscribers.
 *
 *   userdma:failure         a request that failed or was flushed, or an asynchronous event: FailureJson (spec/check/failures.ts)
 *   userdma:rnr             the peer had no receive posted, and the sender waits: { device, count }
 *   userdma:retransmission  a send queue has gone back to resend: { device, count }
 */

import { channel } from 'node:diagnostics_channel'
import { closeSync, writeSync } from 'node:fs'
import { registerClient } from '../../core/devices/clients.ts'
import { addHook } from '../../core/devices/registry.ts'
import { addFailureHandler } from '../../core/failures.ts'
import type { CallContext, Core, Device as CoreDevice, Hook } from '../../core/model.ts'
import type { RxeDevice } from '../../drivers/rxe/device.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { createOutputFile } from '../../host/output-file.ts'
import type { FaultPort } from '../../phy/faults/layer.ts'
import { addTap, forEachPacket } from '../../phy/tap.ts'
import { failureJson } from '../../spec/check/failures.ts'
import { CallError, errnoName } from '../../spec/errno.ts'
import { createPcapng, type PcapngPacket } from '../../trace/pcapng.ts'
import { checkFunction, checkText, formatValue, invalidArgument } from '../error.ts'
import { jsonSafe, showAs } from '../objects/show.ts'

/** The observed parts of a soft device. */
interface ObservedDevice {
  readonly rxe: RxeDevice
  readonly port: FaultPort
}

/** A completed call on a device of the network. */
export interface TracedCall {
  /** Name of the device. */
  readonly device: string
  /** Class and method as declared: 'rc_qp', 'modify'. */
  readonly class: string
  /** Name of the method. */
  readonly method: string
  /** The object's handle; for a creation the new one; undefined for calls on the device itself. */
  readonly object: number | undefined
  /** Arguments by name, objects by their handles. */
  readonly args: Readonly<Record<string, unknown>>
  /** The results, if it succeeded. */
  readonly result: Readonly<Record<string, unknown>> | undefined
  /** Errno and sentence if it was refused. */
  readonly error: { readonly code: string; readonly message: string } | undefined
  /** Microseconds in its handler; 0 if it was refused before. */
  readonly microseconds: number
}

const failures = channel('userdma:failure')
const rnrWaits = channel('userdma:rnr')
const retransmissions = channel('userdma:retransmission')

interface Waits {
  rnr: number
  resent: number
}
const known = new WeakMap<RxeDevice, Waits>()

/** Publishes the RNR waits and retransmissions since the last call, if the channels have subscribers. */
export const publishWaits = (devices: readonly RxeDevice[]): void => {
  if (!rnrWaits.hasSubscribers && !retransmissions.hasSubscribers) return
  for (const rxe of devices) {
    const { receivedRnr, retransmissions: resent } = rxe.state.engine().counters
    const before = known.get(rxe) ?? { rnr: 0, resent: 0 }
    known.set(rxe, { rnr: receivedRnr, resent })
    const device = rxe.device.name
    if (receivedRnr > before.rnr) rnrWaits.publish({ device, count: receivedRnr - before.rnr })
    if (resent > before.resent) retransmissions.publish({ device, count: resent - before.resent })
  }
}

/** Core objects become their handles; lists and records are unchanged. */
const plain = (values: object | undefined): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(values ?? {}).map(([name, value]) => {
      const isObject = typeof value === 'object' && value !== null && 'handle' in value && 'class' in value
      return [name, isObject ? (value as { handle: unknown }).handle : value]
    }),
  )

const argumentsText = (values: Readonly<Record<string, unknown>>): string =>
  Object.entries(values)
    .map(([name, value]) => `${name} ${formatValue(value)}`)
    .join(', ')

const callText = ({ class: cls, method, object, args, result, error }: TracedCall): string => {
  const given = [object === undefined ? '' : `object ${object}`, argumentsText(args)].filter(Boolean).join(', ')
  const answer = error === undefined ? `{${argumentsText(result ?? {})}}` : `${error.code} (${error.message})`
  return `${cls}.${method}(${given}) = ${answer}`
}

const traceHook = (device: CoreDevice, handler: (call: TracedCall) => void): Hook => {
  const started = new WeakMap<CallContext, number>()
  return {
    pre: call => {
      started.set(call, nowMicroseconds())
    },
    post(call, object, args, out, error) {
      const start = started.get(call)
      const { class: cls, name: method } = call.entry
      const record: TracedCall = {
        device: device.name,
        class: cls.name,
        method,
        object: object?.handle,
        args: plain(args),
        result: error === undefined ? plain(out) : undefined,
        error: error instanceof CallError ? { code: errnoName(error.errno), message: error.message } : undefined,
        microseconds: start === undefined ? 0 : nowMicroseconds() - start,
      }
      showAs(record, 'Call', () => jsonSafe({ ...record, text: callText(record) }) as Readonly<Record<string, unknown>>)
      handler(record)
    },
  }
}

/** Observation of a network. `attached`: its soft devices. */
export const observe = (core: Core, attached: ReadonlyMap<string, ObservedDevice>) => {
  addFailureHandler(core, failure => {
    if (failures.hasSubscribers) failures.publish(failureJson(failure))
  })
  const captures = new Set<Capture>()

  interface Capture {
    readonly write: (packet: PcapngPacket) => void
    readonly taps: Map<string, () => void>
    stop(): void
  }

  const tap = ({ write, taps, stop }: Capture, name: string, { port }: ObservedDevice): void => {
    const remove = addTap(port, run => {
      // A packet between two devices of the network is captured when it is sent, one from outside when it arrives.
      if (run.direction !== 'sent' && !isForeign(run.flow.source)) return
      const time = performance.timeOrigin * 1000 + nowMicroseconds()
      try {
        forEachPacket(run, (offset, length, identification) => {
          const payload = run.arena.bytes.subarray(offset, offset + length)
          write({ interface: 0, time, flow: run.flow, identification, payload, direction: run.direction })
        })
      } catch (error) {
        // A full disk stops the capture, and the traffic continues.
        process.emitWarning(`a capture was stopped: ${String(error)}`, { type: 'userdma' })
        stop()
      }
    })
    taps.set(name, remove)
  }
  /** Whether no device of the network has the address. */
  const isForeign = (source: Uint8Array): boolean => {
    for (const { rxe } of attached.values())
      if (rxe.state.identity.gids.some(gid => String(gid) === String(source))) return false
    return true
  }

  return {
    added(name: string, device: ObservedDevice): void {
      for (const capture of captures) tap(capture, name, device)
    },
    removed(name: string): void {
      for (const { taps } of captures) taps.delete(name)
    },
    capture(path: string): () => void {
      checkText('network.capture', 'path', path)
      let fd: number
      try {
        fd = createOutputFile(path)
      } catch (error) {
        throw invalidArgument('network.capture', (error as Error).message)
      }
      const write = createPcapng(
        bytes => {
          for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
        },
        { interfaces: ['userdma'] },
      )
      const capture: Capture = {
        write,
        taps: new Map(),
        stop() {
          if (!captures.delete(capture)) return
          for (const remove of capture.taps.values()) remove()
          closeSync(fd)
        },
      }
      captures.add(capture)
      for (const [name, device] of attached) tap(capture, name, device)
      return capture.stop
    },
    trace(handler: (call: TracedCall) => void): () => void {
      checkFunction('network.trace', 'handler', handler)
      const removers = new Map<CoreDevice, () => void>()
      const unregister = registerClient(core, {
        name: 'trace',
        add(device) {
          removers.set(device, addHook(device, traceHook(device, handler)))
          return true
        },
        remove(device) {
          removers.get(device)?.()
          removers.delete(device)
        },
      })
      return unregister
    },
  }
}
