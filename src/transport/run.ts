/*
 * Runs of packets (docs/decisions/engines-without-io.md): back-to-back packets of one flow and of equal length, except
 * the last, which may be shorter. A run stays open while packets of its flow and length are added, from any queue pair;
 * anything else commits it. Space is first reserved, then filled, then accepted, so that a failed read of client memory
 * leaves nothing behind.
 *
 * Runs follow each other in the port's buffer with no gaps other than for alignment. So a message whose first packet is
 * longer than the others (a run of its own) is still read from and written to client memory with one DMA.
 */
import type { EngineState } from './state.ts'

/** Minimum of three numbers. */
const minOf = (a: number, b: number, c: number): number => {
  const ab = a < b ? a : b
  return ab < c ? ab : c
}

/**
 * Finds space for up to `want` packets of `size` bytes to `flow`, back to back at `s.result.runAt`; the last one may be
 * shorter. A single packet joins a run of up to `s.soonPackets`. Returns how many packets fit; 0 if the port is full.
 */
export const openRun = (s: EngineState, size: number, flow: number, want: number): number => {
  const maxPackets = want === 1 ? s.soonPackets : s.sink!.maxPackets
  if (s.runCount > 0) {
    const left = s.roomEnd - s.roomAt
    if (s.runFlow === flow && !s.runClosed && size <= s.runPacket && s.runCount < maxPackets && size <= left) {
      const fit = size < s.runPacket ? 1 : minOf(want, maxPackets - s.runCount, (left / size) | 0)
      if (fit === want || isWorthFilling(s, left)) {
        s.result.runAt = s.roomAt
        return fit
      }
    }
    commitRun(s)
  }
  if (!makeRoom(s, size, want * size)) return 0
  beginRun(s, size, flow)
  return minOf(want, maxPackets, ((s.roomEnd - s.roomAt) / size) | 0)
}

/**
 * Finds space for a packet of `lead` bytes at `s.result.runAt`, which may end a run, and for up to `want` shorter
 * packets of `size` bytes after it. Returns how many of the latter fit; -1 if not even the first packet fits.
 *
 * If the port sends each run with a message of its own (`soonPackets` is set), fewer runs are cheaper: the first packet
 * joins a run of packets of its length, such as the first response to a READ that of the previous READ.
 */
export const openRunWithFirst = (s: EngineState, lead: number, size: number, flow: number, want: number): number => {
  if (s.runCount > 0 && s.runPacket === lead && s.runFlow === flow && !s.runClosed && s.runCount < s.soonPackets) {
    const left = s.roomEnd - s.roomAt
    if (
      s.soonPackets < s.sink!.maxPackets &&
      (left >= lead + want * size || (left >= lead && isWorthFilling(s, left)))
    ) {
      s.result.runAt = s.roomAt
      return minOf(want, s.sink!.maxPackets, ((left - lead) / size) | 0)
    }
  }
  commitRun(s)
  if (!makeRoom(s, lead, lead + want * size)) return -1
  beginRun(s, lead, flow)
  return minOf(want, s.sink!.maxPackets, ((s.roomEnd - s.roomAt - lead) / size) | 0)
}

const beginRun = (s: EngineState, size: number, flow: number): void => {
  s.runFlow = flow
  s.runPacket = size
  s.runOffset = s.roomAt
  s.result.runAt = s.roomAt
  s.runClosed = false
}

/**
 * Packets begin at 4 modulo 16, so that the payload after a BTH, or after a BTH and a RETH, begins at 0 modulo 16:
 * copies are 15 % faster (measured with process_vm_readv and writev of 16 × 4096 bytes, 4112 apart). Packets with the
 * payload of a full path MTU keep this alignment.
 */
const PHASE = 4
const aligned = (offset: number): number => ((offset + (15 - PHASE)) & ~15) + PHASE

/** Maximum length of ACKs and requests without data, for whose runs a small reservation suffices. */
const SMALL_PACKET = 64
const SMALL_ROOM = 2048

/** The rest of a reservation is not used if that would split a message, unless it is at least half of the maximum. */
const isWorthFilling = (s: EngineState, left: number): boolean => left * 2 >= s.sink!.maxBytes

/**
 * Sets `roomAt` for a run of at least one packet of `size` bytes, and of `total` bytes if possible. False if the port
 * is full.
 */
const makeRoom = (s: EngineState, size: number, total: number): boolean => {
  const at = aligned(s.roomAt)
  const left = s.roomEnd - at
  if (left >= total || (left >= size && isWorthFilling(s, left)) || (!reserve(s, size) && left >= size)) {
    s.roomAt = at
    return true
  }
  return s.roomEnd - s.roomAt >= size
}

/** Makes a new reservation, for at least one packet of `size` bytes; false, without any change, if the port is full. */
const reserve = (s: EngineState, size: number): boolean => {
  const sink = s.sink!
  let room = size <= SMALL_PACKET && sink.maxBytes > SMALL_ROOM ? SMALL_ROOM : sink.maxBytes
  let offset = sink.reserve(room)
  if (offset < 0 && size + PHASE < room) {
    room = size + PHASE
    offset = sink.reserve(room)
  }
  if (offset < 0) return false
  s.roomAt = size + PHASE <= room ? offset + PHASE : offset
  s.roomEnd = offset + room
  return true
}

/** Adds `count` packets to the run: the last is `last` bytes long, the others `size` bytes. */
export const acceptRun = (s: EngineState, count: number, size: number, last: number): void => {
  if (s.runCount === 0 && count === 1) s.runPacket = last
  s.roomAt += (count - 1) * size + last
  s.runCount += count
  s.runLast = last
  if (last < s.runPacket) s.runClosed = true
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
  s.sink!.commit(s.runOffset, s.runPacket, s.runCount, s.runLast, s.runFlow)
  s.runCount = 0
}

/** End of a poll: commits the run and returns the rest of the reservation to the port. */
export const endRun = (s: EngineState): void => {
  commitRun(s)
  s.roomAt = 0
  s.roomEnd = 0
  s.sink = undefined
}
