/*
 * What observed programs do, as the events of a session file (`run --host --record`): calls, objects, posts,
 * completions that polls have returned. Times are microseconds of CLOCK_MONOTONIC.
 *
 * There is no device to ask: a send ends when a poll has returned its completion, or a later one's, and packets are not
 * seen.
 */

import type { CheckedCall } from '../../spec/check/program-events.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'
import type { ProgramStream } from '../events/stream.ts'
import { recordProgramEvents } from '../record/program/journal.ts'
import { RecordedObjects, recordedRequests } from '../record/program/objects.ts'
import type { SessionWriter } from '../record/writer.ts'
import { gidTableOf } from './adapters.ts'
import { MONOTONIC_START, type ObservedEvents } from './observation.ts'

/** The address of an adapter for people: its first IPv4 GID, or its first. */
const addressOf = (device: string): Uint8Array | undefined => {
  const gids = gidTableOf(device).filter(gid => gid !== undefined)
  return gids.find(isMappedIpv4) ?? gids[0]
}

/** Milliseconds since the epoch at time 0 of the recordings of observed programs. */
export const RECORDING_ORIGIN = MONOTONIC_START

/** What a checker of observed programs may ask. */
export const OBSERVED_CHECK = {
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
  const objects = new RecordedObjects(writer, RECORDING_ORIGIN)
  const note = ({ deviceNumber: index, device: name }: CheckedCall): void => {
    if (devices.get(index) === name) return
    const gid = addressOf(name)
    const change = devices.has(index) ? 'renamed' : 'exists'
    devices.set(index, name)
    writer.device(now, { change, device: index, name, address: gid === undefined ? '' : addressText(gid) })
  }
  return {
    requests: recordedRequests(
      writer,
      () => now,
      () => stack,
    ),
    ...(isForCheck && { programs: (stream: ProgramStream) => void recordProgramEvents(stream, writer) }),
    at(time) {
      now = time
    },
    posting(frames) {
      stack = frames.join('\n')
    },
    call: (call, object, frames) => writer.call(now, { object, stack: frames, call }),
    event(event) {
      if (event.event === 'called') {
        note(event)
        objects.called(now, event)
      } else if (event.event === 'failed') objects.failed(now, event)
    },
    exists(call) {
      note(call)
      objects.exists(now, call)
    },
    lost: count => writer.lose(count),
    end: (time, reason) => writer.end(time, reason),
  }
}
