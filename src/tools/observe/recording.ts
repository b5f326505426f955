/*
 * What observed programs do, as the events of a session file (`run --host --record`): calls, objects, posts, completions
 * that polls have returned. Times are microseconds of CLOCK_MONOTONIC.
 *
 * There is no device to ask: a send ends when a poll has returned its completion, or a later one's, and packets are not
 * seen.
 */

import type { Program } from '../../spec/check/finding.ts'
import type { ProgramStream } from '../../spec/check/stream.ts'
import { hexBytes } from '../../spec/text.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'
import { recordProgramEvents } from '../record/program/journal.ts'
import type { SessionWriter } from '../record/writer.ts'
import { gidTableOf } from './adapters.ts'
import type { ObservedContext, ObservedObject } from './objects.ts'
import { MONOTONIC_START, type ObservedEvents } from './observation.ts'

/** Maximum bytes of a value in hexadecimal. */
const MAX_BYTES = 64

const hexOf = (bytes: Uint8Array): string =>
  `${hexBytes(bytes.subarray(0, MAX_BYTES))}${bytes.length > MAX_BYTES ? '…' : ''}`

const isObject = (value: object): value is ObservedObject => 'handle' in value && 'class' in value && 'id' in value

/** A value of a call for `JSON.stringify`. An object is its handle. */
const jsonValue = (value: unknown): unknown => {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`
  if (value instanceof Uint8Array) return hexOf(value)
  if (Array.isArray(value)) return value.slice(0, MAX_BYTES).map(jsonValue)
  if (typeof value !== 'object' || value === null) return value
  if (isObject(value)) return value.handle
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, jsonValue(field)]))
}

const usesOf = (values: object): number[] =>
  Object.values(values).flatMap(value =>
    typeof value === 'object' && value !== null && !(value instanceof Uint8Array) && isObject(value) ? [value.id] : [],
  )

/** The address of an adapter for people: its first IPv4 GID, or its first. */
const addressOf = (device: string): Uint8Array | undefined => {
  const gids = gidTableOf(device).filter(gid => gid !== undefined)
  return gids.find(isMappedIpv4) ?? gids[0]
}

/** Milliseconds since the epoch at time 0 of the recordings of observed programs. */
export const RECORDING_ORIGIN = MONOTONIC_START

/** What a checker of observed programs may ask. */
export const OBSERVED_CHECK = {
  hasDevice: false,
  probes: ['deviceName', 'deviceWithGid', 'postStack', 'hasUnchecked'],
} as const

/** Writes what happens to `writer`. `addressText`: an address for people. `isForCheck`: all that the checker needs. */
export const observedRecorder = (
  writer: SessionWriter,
  addressText: (gid: Uint8Array) => string,
  isForCheck = false,
): ObservedEvents & { end(time: number, reason: string): Promise<void> } => {
  const devices = new Map<number, string>()
  let now = 0
  let stack = ''
  const note = ({ index, name }: ObservedContext['device']): void => {
    if (devices.get(index) === name) return
    const gid = addressOf(name)
    const change = devices.has(index) ? 'renamed' : 'exists'
    devices.set(index, name)
    writer.device(now, { change, device: index, name, address: gid === undefined ? '' : addressText(gid) })
  }
  const programOf = ({ process }: ObservedContext): Program => process.program
  return {
    requests: {
      posted: request => writer.posted(now, request, stack),
      ended: request => writer.ended(now, request),
      completed: (request, completion) => writer.completed(now, request, completion),
      receiveLost: request => writer.receiveLost(now, request),
      receiverNotReady: qp => writer.receiverNotReady(now, qp),
      polled: (cq, count) => writer.polled(now, cq, count),
      queueReset: owner => writer.queueReset(now, owner),
    },
    ...(isForCheck && { programs: (stream: ProgramStream) => void recordProgramEvents(stream, writer) }),
    at(time) {
      now = time
    },
    posting(frames) {
      stack = frames.join('\n')
    },
    call: (call, object, frames) => writer.call(now, { object, stack: frames, call }),
    object(change, context, object, { method, why, stack: frames, values }) {
      note(context.device)
      const { out } = object
      const number = object.qpn ?? (object.class.name === 'mr' && typeof out.lkey === 'number' ? out.lkey : 0)
      writer.object(now, {
        change,
        object: object.id,
        device: context.device.index,
        context: context.id,
        program: programOf(context),
        class: object.class.name,
        handle: object.handle,
        number,
        method,
        why,
        stack: frames,
        details: {
          ...(change !== 'destroyed' && { uses: usesOf(values) }),
          values: jsonValue(values) as Record<string, unknown>,
        },
      })
    },
    failure: (object, record) => writer.failure(now, object, record),
    lost: count => writer.lose(count),
    end: (time, reason) => writer.end(time, reason),
  }
}
