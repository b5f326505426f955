/*
 * Runs of packets (docs/decisions/engines-without-io.md): back-to-back packets of one flow and of equal length, except
 * the last, which may be shorter. A run stays open while packets of its flow and length are added, from any queue pair;
 * another packet commits it and begins a new run. Space is first found (`openRun`), then filled by the caller, then
 * accepted (`acceptRun`): if reading client memory fails in between, the run is unchanged.
 *
 * A message may have a first packet that is longer than the others, and thus in another run. `openRunWithFirst` and
 * `continueRun` put both runs into the port's buffer without a gap, so that the message is still read from and written
 * to client memory with one DMA.
 */
import type { EngineState } from './state.ts'

/** Minimum of three numbers. */
const minOf = (a: number, b: number, c: number): number => {
  const ab = a < b ? a : b
  return ab < c ? ab : c
}

/**
 * Finds space for up to `want` packets of `size` bytes to `flow`, back to back at `s.result.runAt`; the last one may be
 * shorter. A single packet joins the open run only while that has fewer than `s.maxSinglePacketRun` packets. Returns
 * how many packets fit; 0 if the port is full.
 */
export const openRun = (s: EngineState, size: number, flow: number, want: number): number => {
  const maxPackets = want === 1 ? s.maxSinglePacketRun : s.sink!.maxPackets
  if (s.runCount > 0) {
    const freeBytes = s.reservedEnd - s.reservedAt
    if (
      s.runFlow === flow &&
      !s.isRunClosed &&
      size <= s.runPacketBytes &&
      s.runCount < maxPackets &&
      size <= freeBytes
    ) {
      const count = size < s.runPacketBytes ? 1 : minOf(want, maxPackets - s.runCount, (freeBytes / size) | 0)
      if (count === want || isWorthFilling(s, freeBytes)) {
        s.result.runAt = s.reservedAt
        return count
      }
    }
    commitRun(s)
  }
  if (!reserveRun(s, size, want * size)) return 0
  beginRun(s, size, flow)
  return minOf(want, maxPackets, ((s.reservedEnd - s.reservedAt) / size) | 0)
}

/**
 * Finds space for a first packet of `firstSize` bytes at `s.result.runAt`, and for up to `want` shorter packets of
 * `size` bytes after it. Returns how many of the latter fit; -1 if not even the first packet fits.
 *
 * On a port that sets `maxSinglePacketRun` each run costs a message to the kernel, so fewer runs are cheaper: the first
 * packet joins the open run if that has packets of the same length.
 */
export const openRunWithFirst = (
  s: EngineState,
  firstSize: number,
  size: number,
  flow: number,
  want: number,
): number => {
  if (
    s.runCount > 0 &&
    s.runPacketBytes === firstSize &&
    s.runFlow === flow &&
    !s.isRunClosed &&
    s.runCount < s.maxSinglePacketRun
  ) {
    const freeBytes = s.reservedEnd - s.reservedAt
    if (
      s.maxSinglePacketRun < s.sink!.maxPackets &&
      (freeBytes >= firstSize + want * size || (freeBytes >= firstSize && isWorthFilling(s, freeBytes)))
    ) {
      s.result.runAt = s.reservedAt
      return minOf(want, s.sink!.maxPackets, ((freeBytes - firstSize) / size) | 0)
    }
  }
  commitRun(s)
  if (!reserveRun(s, firstSize, firstSize + want * size)) return -1
  beginRun(s, firstSize, flow)
  return minOf(want, s.sink!.maxPackets, ((s.reservedEnd - s.reservedAt - firstSize) / size) | 0)
}

const beginRun = (s: EngineState, size: number, flow: number): void => {
  s.runFlow = flow
  s.runPacketBytes = size
  s.runOffset = s.reservedAt
  s.result.runAt = s.reservedAt
  s.isRunClosed = false
}

/**
 * A run that does not continue another begins at 4 modulo 16 if there is space, so that the payload after a BTH (12
 * bytes), or after a BTH and a RETH (28 bytes), begins at 0 modulo 16: copies are 15 % faster (measured with
 * process_vm_readv and writev of 16 × 4096 bytes, 4112 apart). After packets with the payload of a full path MTU the
 * next packet has the same alignment.
 */
const PHASE = 4
const aligned = (offset: number): number => ((offset + (15 - PHASE)) & ~15) + PHASE

/** Packets up to this size, such as ACKs and requests without data, get a reservation of SMALL_RESERVATION_BYTES. */
const SMALL_PACKET_BYTES = 64
const SMALL_RESERVATION_BYTES = 2048

/**
 * Whether the free bytes of a reservation are used for a part of a message: if they are at least half of a full
 * reservation. Otherwise a new one is made, so that the message is not split.
 */
const isWorthFilling = (s: EngineState, freeBytes: number): boolean => freeBytes * 2 >= s.sink!.maxBytes

/**
 * Sets `s.reservedAt` to the space for a run of at least one packet of `size` bytes, and of `total` bytes if possible.
 * False if the port is full.
 */
const reserveRun = (s: EngineState, size: number, total: number): boolean => {
  const at = aligned(s.reservedAt)
  const freeBytes = s.reservedEnd - at
  const usesRest = freeBytes >= total || (freeBytes >= size && isWorthFilling(s, freeBytes))
  if ((usesRest || !reserve(s, size)) && freeBytes >= size) s.reservedAt = at
  return s.reservedEnd - s.reservedAt >= size
}

/** Makes a new reservation, for at least one packet of `size` bytes; false, without any change, if the port is full. */
const reserve = (s: EngineState, size: number): boolean => {
  const sink = s.sink!
  let bytes =
    size <= SMALL_PACKET_BYTES && sink.maxBytes > SMALL_RESERVATION_BYTES ? SMALL_RESERVATION_BYTES : sink.maxBytes
  let offset = sink.reserve(bytes)
  if (offset < 0 && size + PHASE < bytes) {
    bytes = size + PHASE
    offset = sink.reserve(bytes)
  }
  if (offset < 0) return false
  s.reservedAt = size + PHASE <= bytes ? offset + PHASE : offset
  s.reservedEnd = offset + bytes
  return true
}

/** Adds `count` packets to the run: the last is `lastSize` bytes long, the others `size` bytes. */
export const acceptRun = (s: EngineState, count: number, size: number, lastSize: number): void => {
  if (s.runCount === 0 && count === 1) s.runPacketBytes = lastSize
  s.reservedAt += (count - 1) * size + lastSize
  s.runCount += count
  s.runLastBytes = lastSize
  if (lastSize < s.runPacketBytes) s.isRunClosed = true
  s.counters.sentPackets += count
}

/**
 * Commits the run and begins the next one, with packets of `size` bytes, in the space that `openRunWithFirst` has
 * found.
 */
export const continueRun = (s: EngineState, size: number): void => {
  commitRun(s)
  beginRun(s, size, s.runFlow)
}

/** Sends the accepted packets. */
const commitRun = (s: EngineState): void => {
  if (s.runCount === 0) return
  s.sink!.commit(s.runOffset, s.runPacketBytes, s.runCount, s.runLastBytes, s.runFlow)
  s.runCount = 0
}

/** End of a poll: commits the run, and forgets the rest of the reservation, which ends with the poll. */
export const endRun = (s: EngineState): void => {
  commitRun(s)
  s.reservedAt = 0
  s.reservedEnd = 0
  s.sink = undefined
}
