/*
 * Recordings of a network in this process: `open({ record })` and `createNetwork({ record })` (record/). Imported with
 * the first recording.
 */
import { closeSync, fstatSync } from 'node:fs'
import type { Device, HandlerValues } from '../../core/model.ts'
import type { Clock } from '../../host/event-loop/clock.ts'
import { openOutputFile } from '../../host/output-file.ts'
import { inReportOrder } from '../../spec/check/waits.ts'
import { CallError, knownErrno } from '../../spec/errno.ts'
import type { AnyValues } from '../../spec/schema/schema.ts'
import type { LinkClassEvent } from '../../spec/session-events.ts'
import { type FoundWait, objectsOfWait, recordWaits } from '../../tools/clients/record/recorded-waits.ts'
import { type Recorder, type RecorderSources, startRecorder } from '../../tools/clients/record/recorder.ts'
import { startRecording } from '../../tools/clients/record/recording.ts'
import { MIN_RECORD_LIMIT, type SessionWriter } from '../../tools/record/writer.ts'
import { messagesOf } from '../../tools/trace/call-messages.ts'
import { addTap } from '../../transport/phy/tap.ts'
import type { Call, CallerView } from '../../uapi/call.ts'
import { findingListeners } from '../self-check/listeners.ts'
import { checkInteger, formatValue, invalidArgument, refused, warn } from '../verbs/error.ts'
import { captureStack } from '../verbs/watch/stacks.ts'
import type { ClassStats, LocalNetwork, RecordOptions } from './contract.ts'

/** The largest `payload`: that of the largest packet. */
const MAX_PAYLOAD = 4096

/** The file of a recording. Throws RdmaError. */
const openFile = (call: string, file: string): number => {
  let fd: number
  try {
    fd = openOutputFile(file)
  } catch (error) {
    const { code = 'EINVAL', message } = error as NodeJS.ErrnoException
    throw refused(knownErrno(code, 'EINVAL'), call, message)
  }
  if (fstatSync(fd).isFile()) return fd
  closeSync(fd)
  throw invalidArgument(call, `record ${formatValue(file)} is not a regular file`)
}

/** Values with handles in place of objects, as a dialect has them. */
const withHandles = (values: HandlerValues | undefined): AnyValues =>
  Object.fromEntries(
    Object.entries(values ?? {}).flatMap(([name, value]) => {
      if (value === undefined) return []
      const isObject = typeof value === 'object' && 'handle' in value && 'class' in value
      return [[name, isObject ? (value as unknown as { handle: number }).handle : value]]
    }),
  ) as AnyValues

/** The view of a caller whose messages are never in its memory. */
const viewOf = ({ schema }: Device): CallerView => ({
  schema,
  copyIn: () => new Uint8Array(),
  copyOut: () => {},
  classOf: () => undefined,
  hasContext: true,
})

/** A process in virtual time, where every run is the same. */
const VIRTUAL_PROCESS = 1
const COMMAND = 'node'

const pidOn = ({ isVirtual }: Clock): number => (isVirtual ? VIRTUAL_PROCESS : process.pid)

/** Waits that a look finds at most. */
const MAX_WAITS = 100

/** What the program waits for at the devices of a network. */
const waitsOf = (network: LocalNetwork, recorder: Recorder): FoundWait[] => {
  const found = [...network.core.devices.keys()].flatMap(name => {
    const waits = [...(network.softDevice(name)?.network.waits() ?? [])]
    return waits.flatMap(one => (one === undefined ? [] : { ...one, device: name, id: one.wait.id }))
  })
  return inReportOrder(found)
    .slice(0, MAX_WAITS)
    .map(({ context, wait, device, id }) => {
      const objects = objectsOfWait(recorder, context, wait)
      return { device, pid: pidOn(network.clock), command: COMMAND, id, text: wait.text, context, objects }
    })
}

/** The record of a call of the library, as the daemon's trace would have it. */
const callRecordOn =
  (clock: Clock): NonNullable<RecorderSources['callRecord']> =>
  ({ device, entry }, object, { args, out, error }, start) => {
    const refusal = error === undefined || error instanceof CallError ? error : new CallError('EIO', String(error))
    const isCreate = entry.kind === 'create'
    const pid = pidOn(clock)
    const call: Call = {
      class: entry.class,
      methodName: entry.name,
      method: entry.method,
      object: isCreate || entry.class.identity === 'fixed' ? 0 : (object?.handle ?? 0),
      args: withHandles(args),
    }
    const result = { ...(isCreate && object && { object: object.handle }), out: withHandles(out) }
    return {
      time: clock.origin + start / 1000,
      duration: Math.round((clock.now() - start) * 1000) / 1000,
      pid,
      tid: pid,
      fd: -1,
      command: COMMAND,
      device: device.name,
      dialect: 'object',
      call: messagesOf(viewOf(device), call, refusal ?? result),
      ret: refusal === undefined ? 0 : -refusal.errno,
      ...(refusal !== undefined && { reason: refusal.reason.toJSON() }),
    }
  }

const classEvent = ({ name, lossless, packets, bytes, marked, lost, queue, pauses }: ClassStats): LinkClassEvent => ({
  ...{ name, lossless, packets, bytes, marked },
  lost: lost.overflow + lost.buffer,
  maxQueue: queue.max,
  pausesSent: pauses.sent,
  pausesReceived: pauses.received,
  pausedTime: pauses.time,
})

/** Writes the links of a network: those whose counts have changed since the last time, or all. */
const recordLinks = ({ clock, topology, stats }: LocalNetwork, writer: SessionWriter): ((all?: boolean) => void) => {
  const recorded = new Map<number, string>()
  return (all = false) => {
    if (topology === undefined) return
    for (const [link, { lost, queue, classes, ...counts }] of stats().links.entries()) {
      const paused = classes.map(({ pauses }) => `${pauses.received} ${pauses.sent} ${pauses.time}`)
      const state = `${counts.packets} ${Object.values(lost)} ${queue.now} ${paused}`
      if (!all && recorded.get(link) === state) continue
      recorded.set(link, state)
      const { rate, delay, queue: capacity } = topology.links[link >> 1]!
      writer.link(clock.now(), {
        link,
        ...counts,
        rate,
        delay,
        capacity,
        overflowed: lost.overflow,
        lost: lost.chance,
        tooLong: lost.mtu,
        queue: queue.now,
        maxQueue: queue.max,
        meanQueue: queue.mean,
        ...(classes.length > 0 && { classes: classes.map(classEvent) }),
      })
    }
  }
}

/**
 * Starts to record a network, until the returned function is called or the process ends. `call`: the function of the
 * library, for errors. Throws RdmaError: EINVAL for an invalid option, and the system's errno for the file.
 */
export const recordNetwork = (
  call: string,
  network: LocalNetwork,
  record: string | RecordOptions,
): (() => Promise<void>) => {
  const { file, payload = 0, limit } = typeof record === 'string' ? { file: record } : record
  checkInteger(call, 'record.payload', payload, 0, MAX_PAYLOAD)
  if (limit !== undefined) checkInteger(call, 'record.limit', limit, MIN_RECORD_LIMIT, Number.MAX_SAFE_INTEGER)
  const { core, clock } = network
  const recorded = new Map<string, number>()
  const sample = (): void => {
    sampleLinks()
    for (const device of core.devices.values()) {
      const layers = network.softDevice(device.name)?.network.counters()
      const values: Record<string, number> = {}
      for (const [layer, table] of Object.entries(layers ?? {}))
        for (const [name, value] of Object.entries(table as Readonly<Record<string, number>>)) {
          const key = `${device.index} ${layer}.${name}`
          if ((recorded.get(key) ?? 0) === value) continue
          recorded.set(key, value)
          values[`${layer}.${name}`] = value
        }
      if (Object.keys(values).length > 0) recording.writer.counters(clock.now(), device.index, 0, values)
    }
  }
  const options = { application: 'userdma (library)', payload, limit }
  const recording = startRecording(openFile(call, file), clock.now, options, sample, clock)
  const { writer } = recording
  const sampleLinks = recordLinks(network, writer)
  const recorder = startRecorder(core, writer, {
    now: clock.now,
    clock,
    program: () => undefined,
    callStack: captureStack,
    callRecord: callRecordOn(clock),
    addTap(device, tap) {
      const port = network.portOf(device.name)
      return port && addTap(port, tap, false)
    },
  })
  findingListeners.set(core, finding => writer.finding(clock.now(), finding))
  const endTorment = network.decisions?.listen((torment, device) =>
    writer.torment(clock.now(), { time: clock.origin + clock.now() / 1000, device, torment }),
  )
  const waits = recordWaits(
    () => waitsOf(network, recorder),
    clock,
    event => writer.wait(clock.now(), event),
  )
  const onExit = (): void => {
    waits.end()
    sampleLinks(true)
    recording.endNow('the process has ended')
  }
  process.once('exit', onExit)
  return async () => {
    process.off('exit', onExit)
    waits.end()
    sampleLinks(true)
    recorder.stop()
    endTorment?.()
    findingListeners.delete(core)
    const { error } = await recording.end('the device was closed')
    if (error !== null) warn(`the recording in ${file} is not complete: ${error}`)
  }
}
