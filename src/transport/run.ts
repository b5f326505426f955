/*
 * Runs of packets (design.md section 5): packets of one flow that lie back to back, all equally long but the last, which may be
 * shorter. A run stays open while packets that fit its shape come, from whichever queue pair; anything else commits it. Room is
 * taken first, filled, and only then accepted, so that a failed read of client memory leaves no trace.
 */
import type { EngineState } from './state.ts'

/** Smallest of three, without an array. */
const least = (a: number, b: number, c: number): number => {
  const ab = a < b ? a : b
  return ab < c ? ab : c
}

/**
 * Room for up to `want` packets of `size` bytes to `flow`, back to back from `s.runAt` on; the last one accepted may be shorter.
 * Answers how many fit, 0 if the port can take none now.
 */
export const openRun = (s: EngineState, size: number, flow: number, want: number): number => {
  const sink = s.sink!
  if (s.runCount > 0) {
    const left = s.runRoom - s.runUsed
    if (s.runFlow === flow && !s.runClosed && size <= s.runPacket && s.runCount < sink.maxPackets && size <= left) {
      s.runAt = s.runOffset + s.runUsed
      return size < s.runPacket ? 1 : least(want, sink.maxPackets - s.runCount, (left / size) | 0)
    }
    commitRun(s)
  }
  if (s.runRoom < size && !reserve(s, size)) return 0
  s.runFlow = flow
  s.runPacket = size
  s.runUsed = 0
  s.runAt = s.runOffset
  s.runClosed = false
  return least(want, sink.maxPackets, (s.runRoom / size) | 0)
}

/** Acknowledgements and requests without data are at most so long: their runs take a small room. */
const SMALL_PACKET = 64
const SMALL_ROOM = 2048

/** Room for a run of packets of `size` bytes; at least for one of them. False if the port is full. */
const reserve = (s: EngineState, size: number): boolean => {
  const sink = s.sink!
  let room = size <= SMALL_PACKET && sink.maxBytes > SMALL_ROOM ? SMALL_ROOM : sink.maxBytes
  let offset = sink.reserve(room)
  if (offset < 0 && size < room) {
    room = size
    offset = sink.reserve(room)
  }
  s.runRoom = offset < 0 ? 0 : room
  s.runOffset = offset
  return offset >= 0
}

/** Adds `count` packets to the run, the last one `last` bytes long, the others as `openRun` was asked. */
export const acceptRun = (s: EngineState, count: number, size: number, last: number): void => {
  if (s.runCount === 0 && count === 1) s.runPacket = last
  s.runUsed += (count - 1) * size + last
  s.runCount += count
  s.runLast = last
  if (last < s.runPacket) s.runClosed = true
  s.counters.sentPackets += count
}

/** No packet may follow in this run. */
export const closeRun = (s: EngineState): void => {
  s.runClosed = true
}

/** Sends what was accepted. */
export const commitRun = (s: EngineState): void => {
  if (s.runCount === 0) return
  s.sink!.commit(s.runOffset, s.runPacket, s.runCount, s.runLast, s.runFlow)
  s.runCount = 0
  s.runRoom = 0
}

/** The room that was reserved belongs to the port again; called at the end of a turn. */
export const endRun = (s: EngineState): void => {
  commitRun(s)
  s.runRoom = 0
  s.sink = undefined
}
