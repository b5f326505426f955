/*
 * Runs of packets (docs/decisions/engines-without-io.md): back-to-back packets of one flow (a path to a peer) and equal
 * length, except the last, which may be shorter. Packets of any queue pair are added to the open run if flow and length
 * are the same. Otherwise the run is committed (sent), and a new one begins.
 *
 * A packet is added in three steps: `openRun` finds space, the caller fills it, `acceptRun` adds it to the run. If
 * reading client memory fails, the last step is left out, and the run is unchanged.
 *
 * A message's first packet may be longer than the others, and is then in another run. `openRunWithFirst` and
 * `continueRun` put the two runs into the port's buffer without a gap, so that one DMA can still read or write the
 * message.
 */
import type { EngineState } from './state.ts'

const minOf = (a: number, b: number, c: number): number => {
  const ab = a < b ? a : b
  return ab < c ? ab : c
}

/**
 * Finds space for up to `want` back-to-back packets of `size` bytes to `flow`; the last one may be shorter. A single
 * packet joins the open run only if the run has fewer than `s.maxSinglePacketRun` packets, so that a port which sends
 * each run as a message can send early. Returns how many packets fit (0: the port is full), and in `s.result.runAt`
 * their offset.
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
 * `size` bytes after it. Returns how many of the shorter packets fit; -1 if not even the first packet fits.
 *
 * Only ports that limit runs of single packets send each run as a message to the kernel. There the first packet joins
 * the open run if the length is the same, which saves a message.
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
    const isRunMessage = s.maxSinglePacketRun < s.sink!.maxPackets
    if (
      isRunMessage &&
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
 * `reserveRun` begins a run at 4 modulo 16 if there is space. The payload after a BTH (12 bytes), or after a BTH and a
 * RETH (28 bytes), then begins at 0 modulo 16, so that process_vm_readv and process_vm_writev copy 15 % faster.
 */
const PHASE = 4
const aligned = (offset: number): number => ((offset + (15 - PHASE)) & ~15) + PHASE

/** Packets up to this size, such as ACKs, get a reservation of SMALL_RESERVATION_BYTES. */
const SMALL_PACKET_BYTES = 64
const SMALL_RESERVATION_BYTES = 2048

/**
 * Whether a message is split to use the rest of a reservation: if the rest is at least half of a full reservation.
 * Otherwise a new reservation is made.
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
  const isNew = !usesRest && reserve(s, size)
  // If there is no new reservation, a smaller rest is used too.
  if (!isNew && freeBytes >= size) s.reservedAt = at
  return s.reservedEnd - s.reservedAt >= size
}

/** Makes a new reservation for at least one packet of `size` bytes. False, without any change, if the port is full. */
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

/** The offset of `bytes` bytes in the sink's arena, until the next run begins or goes on; -1: the port is full. */
export const scratchFor = (s: EngineState, bytes: number): number => {
  if (s.reservedEnd - s.reservedAt < bytes) {
    commitRun(s)
    if (!reserve(s, bytes)) return -1
  }
  return s.reservedAt
}

/** Adds `count` packets to the run: the last is `lastSize` bytes long, the others `size` bytes. */
export const acceptRun = (s: EngineState, count: number, size: number, lastSize: number): void => {
  if (s.runCount === 0 && count === 1) s.runPacketBytes = lastSize
  s.reservedAt += (count - 1) * size + lastSize
  s.runCount += count
  s.runLastBytes = lastSize
  if (lastSize < s.runPacketBytes) s.isRunClosed = true
  s.paceLeft -= (count - 1) * size + lastSize
  s.counters.sentPackets += count
}

/** Commits the run, and begins a run of packets of `size` bytes in the space that `openRunWithFirst` has found. */
export const continueRun = (s: EngineState, size: number): void => {
  commitRun(s)
  beginRun(s, size, s.runFlow)
}

const commitRun = (s: EngineState): void => {
  if (s.runCount === 0) return
  s.sink!.commit(s.runOffset, s.runPacketBytes, s.runCount, s.runLastBytes, s.runFlow)
  s.runCount = 0
}

/** Commits the run and forgets the reservation, both of which end with the poll. */
export const endRun = (s: EngineState): void => {
  commitRun(s)
  s.reservedAt = 0
  s.reservedEnd = 0
  s.sink = undefined
}
