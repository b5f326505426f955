/*
 * What clients and the daemon write into a context's memory file beside its rings (`ContextFile` in session.ts): logs
 * of posts and polls for `userdma check`, and the words by which programs arm CQs. Offsets and sizes in bytes. The
 * generated shim/protocol.h has the same numbers.
 */

import { offsetsOf } from './message-layout.ts'
import { ContextFile, Messages } from './session.ts'

/**
 * The post log, with the stacks of posted requests: a hash table of `post` structs at `offset` of the context's memory
 * file. A later post replaces an earlier post in the same slot (`postSlot`). Only clients that record stacks write the
 * log.
 */
export const PostLog = { offset: ContextFile.bytes - 2 ** 20, entries: 2 ** 14 } as const

/**
 * The position log, with what programs have posted at each position of a queue: some devices know no wr_id, or another;
 * and programs may post one wr_id often. A table of `sets` sets of `ways` `position` structs at `offset` of the
 * context's memory file. A request's entry is in the set `positionSet`; a new one replaces the oldest one there. Only
 * the preload library writes the log, in the order of the queue (shim/recorder/locks.h).
 */
export const PositionLog = { offset: ContextFile.bytes - 2 ** 19, sets: 2 ** 12, ways: 4 } as const

/**
 * The event log, with a program's posts and polls in their order: an `eventLog` struct at `offset` of the context's
 * memory file, and a ring of `event` structs at `offset` + `firstEntry`. If the ring is full, the program waits
 * briefly, then overwrites entries. Only clients that record events write the log. `bytes`: the size of the event log,
 * the hash log, the taken counts, the post log and the position log, which clients map together.
 */
export const EventLog = {
  offset: ContextFile.bytes - 2 ** 22,
  firstEntry: 4096,
  entries: 2 ** 14,
  bytes: 2 ** 22,
} as const

/**
 * The arm words, at `offset` of the context's memory file: for each CQ handle below `entries` a u32 (`ArmWord`), by
 * which a program arms the CQ without a call (docs/decisions/events-without-calls.md).
 */
export const ArmWords = { offset: EventLog.offset - 2 ** 18, entries: 2 ** 16 } as const

/**
 * NONE: there is no such CQ, or only a call arms it. IDLE: it can be armed by the word. SOLICITED, NEXT: the program
 * has armed it for the next solicited or failed completion, or for the next one. The program replaces IDLE or SOLICITED
 * by SOLICITED or NEXT in one atomic operation, and after a full fence looks at the CQ. The device stores the producer
 * index of a completion, and after a full fence replaces SOLICITED or NEXT by IDLE.
 */
export const ArmWord = { NONE: 0, IDLE: 1, SOLICITED: 2, NEXT: 3 } as const

/**
 * The taken counts, at `offset` of the context's memory file: for each CQ handle below `entries` a u32, the number of
 * completions, modulo 2^32, that ibv_poll_cq, ibv_start_poll and ibv_next_poll have returned. A later CQ with the same
 * handle continues the count. The CQ's consumer index includes the completions of a batch only after ibv_end_poll. Only
 * clients that record stacks write the counts.
 */
export const TakenCounts = { offset: ContextFile.bytes - 2 ** 21, entries: 2 ** 18 } as const

/**
 * The hash log, with hashes of the buffers of sends when they are posted: a hash table of `hash` structs at `offset` of
 * the context's memory file (`hashSlot`). Hashed are the first `firstSends` sends of a queue, then one of every
 * `interval`. Of a message above `wholeBytes` three samples of `sampleBytes` are hashed: at the start, at `index` ·
 * `sampleStep` modulo the rest, and at the end. With SessionEnv.buffers all bytes of all sends are hashed.
 */
export const HashLog = {
  offset: ContextFile.bytes - 2 ** 22 + 3 * 2 ** 19,
  entries: 2 ** 14,
  firstSends: 16,
  interval: 16,
  wholeBytes: 4096,
  sampleBytes: 1024,
  sampleStep: 64,
} as const

/** 2^32 divided by the golden ratio. */
const HASH_FACTOR = 0x9e3779b1

/** The slot of a send in the hash log. `index`: from 0. The shim computes the same number. */
export const hashSlot = (qpn: number, index: number): number => ((Math.imul(qpn, 31) + index) >>> 0) % HashLog.entries

/** The slot of a post, a multiplicative hash. The shim computes the same number. */
export const postSlot = (queue: number, number: number, wrId: bigint): number => {
  const low = Number(wrId & 0xffffffffn)
  const high = Number(wrId >> 32n)
  const hash = Math.imul(low ^ high ^ Math.imul(number, 31) ^ queue, HASH_FACTOR)
  return (hash >>> 0) >>> (32 - Math.log2(PostLog.entries))
}

const POSITION = offsetsOf(Messages.position)

/** Offset of a request's set in the position log, in bytes. The shim computes the same one. */
export const positionSet = (queue: number, number: number, index: number): number => {
  const hash = Math.imul(Math.imul(number, 31) ^ queue, HASH_FACTOR) >>> 20
  return ((hash + index) % PositionLog.sets) * PositionLog.ways * Messages.position.size
}

/** The offset of a request's entry, if its set of the position log begins at `at` of `view`; -1: there is none. */
export const findPosition = (view: DataView, at: number, queue: number, number: number, index: number): number => {
  for (let way = 0, entry = at; way < PositionLog.ways; way++, entry += Messages.position.size)
    if (
      view.getUint32(entry + POSITION.index, true) === index &&
      view.getUint32(entry + POSITION.queue, true) === queue &&
      view.getUint32(entry + POSITION.number, true) === number
    )
      return entry
  return -1
}
