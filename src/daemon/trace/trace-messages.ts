/*
 * The program's memory that a call reads and writes, for trace records.
 */
import type { Caller } from '../../core/model.ts'
import type { RawAccess, TraceRecord } from '../../spec/records.ts'
import { type Access, base64, hexAddress } from '../../tools/trace/call-messages.ts'
import type { CallerView } from '../../uapi/call.ts'

/** Maximum bytes of one access in `raw` of the record. */
const MAX_RAW = 16384

/** Maximum bytes recorded per call: entries of a chain may read the same memory repeatedly. */
export const MAX_RECORDED_BYTES = 1 << 23

/** `copyIn` and `copyOut` of `caller`, which also record up to MAX_RECORDED_BYTES. */
const recordAccesses = (caller: Pick<CallerView, 'copyIn' | 'copyOut'>, accesses: Access[]) => {
  let remainingBytes = MAX_RECORDED_BYTES
  const record = (direction: Access['direction'], address: bigint, bytes: Uint8Array): void => {
    remainingBytes -= bytes.length
    // After an omitted access, later accesses would be attributed to the wrong chain entry.
    if (remainingBytes < 0) return
    // Copy: the answer of the call may be written into these bytes.
    accesses.push({ direction, address, bytes: bytes.slice() })
  }
  return {
    copyIn: (address: bigint, length: number): Uint8Array => {
      const bytes = caller.copyIn(address, length)
      record('in', address, bytes)
      return bytes
    },
    copyOut: (address: bigint, bytes: Uint8Array): void => {
      caller.copyOut(address, bytes)
      record('out', address, bytes)
    },
  }
}

/** Records all reads and writes of a call, also by entries of a chain. */
export const recordingCaller = (caller: Caller, accesses: Access[]): Caller => ({
  ...caller,
  ...recordAccesses(caller, accesses),
})

const rawAccesses = (memory: ReadonlyMap<bigint, Uint8Array>): RawAccess[] =>
  [...memory].map(([address, bytes]) => [hexAddress(address), base64(bytes.subarray(0, MAX_RAW)), bytes.length])

export interface RecordingView {
  readonly view: CallerView
  readonly accesses: readonly Access[]
  /** The recorded bytes, by address. */
  raw(): NonNullable<TraceRecord['raw']>
}

/** `accesses`: the list of a `recordingCaller`. Without it, accesses through the view are recorded. */
export const recordingView = (view: CallerView, accesses?: Access[]): RecordingView => {
  const all = accesses ?? []
  const recordingOfView: CallerView = {
    schema: view.schema,
    classOf: handle => view.classOf(handle),
    chained: view.chained,
    get hasContext() {
      return view.hasContext
    },
    ...recordAccesses(view, all),
  }
  return {
    view: accesses === undefined ? recordingOfView : view,
    accesses: all,
    raw() {
      const read = new Map<bigint, Uint8Array>()
      const written = new Map<bigint, Uint8Array>()
      for (const { direction, address, bytes } of all) {
        if (direction === 'out') written.set(address, bytes)
        // A message is read twice, first only its header. Keep the longer access.
        else if ((read.get(address)?.length ?? 0) <= bytes.length) read.set(address, bytes)
      }
      return { in: rawAccesses(read), out: rawAccesses(written) }
    },
  }
}
