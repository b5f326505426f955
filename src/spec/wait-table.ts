/*
 * The wait table of a program under `userdma check`: what each of its threads waits for now. The preload library writes
 * it (shim/check/waiting.c) into a memory file that it passes with the message WAITS; the daemon reads it
 * (daemon/check/waits/tables.ts), also after the end of the program. Offsets and sizes in bytes. shim/protocol.h is
 * generated from this file too.
 */

/**
 * The file: a `waitTable` struct, `samples` structs `waitSample`, of which the next one written is `waitTable.samples`
 * modulo their number, `signals` structs `waitSignal` (a hash table by the address of the object), `modules` structs
 * `waitModule`, and `slots` structs `waitSlot`, one for each thread that has waited or polled. The file is sealed
 * against shrinking and growing.
 */
export const WaitTable = {
  samples: 8,
  firstSample: 64,
  sampleCode: 16,
  sampleRegisters: 32,
  signals: 1024,
  firstSignal: 4096,
  modules: 256,
  firstModule: 4096 + 1024 * 24,
  slots: 16384,
  firstSlot: 4096 + 1024 * 24 + 256 * 256,
  bytes: 4096 + 1024 * 24 + 256 * 256 + 16384 * 392,
  /** Frames of a `waitSlot`, and elements of its `polls`, `found` and `descriptors`. */
  frames: 16,
  polls: 4,
  found: 4,
  descriptors: 4,
} as const

/**
 * `waitSlot.kind`. CHANNEL, ASYNC, CM: a thread waits in ibv_get_cq_event, ibv_get_async_event, rdma_get_cm_event;
 * `object` is the descriptor. MUTEX, RWLOCK: `object` is the address, `owner` the thread that has it; 0: unknown. JOIN:
 * `object` is the thread that is joined; 0: unknown. CONDITION, SEMAPHORE, BARRIER: `object` is the address. CHILD: for
 * the end of the process `object`; 0: of any child. DESCRIPTOR: for `descriptors`; of EPOLL, those of the set of
 * descriptor `object`. SEMAPHORE_SET, MESSAGE_QUEUE: of System V; `object` is the identifier. SLEEP: for time; `object`
 * counts the sleeps since its last other wait. A loop that polls may sleep, so a sleep leaves `sequence` alone.
 */
export const WaitKind = {
  NONE: 0,
  CHANNEL: 1,
  ASYNC: 2,
  CM: 3,
  MUTEX: 4,
  RWLOCK: 5,
  JOIN: 6,
  CONDITION: 7,
  SEMAPHORE: 8,
  BARRIER: 9,
  CHILD: 10,
  DESCRIPTOR: 11,
  EPOLL: 12,
  SLEEP: 13,
  SIGNAL: 14,
  SEMAPHORE_SET: 15,
  MESSAGE_QUEUE: 16,
} as const

/**
 * Bits of `waitSlot.flags`. TIMED: the wait ends by itself. SHARED: threads of other processes may end it. SLEPT: the
 * last wait was a sleep, whose frames are left.
 */
export const WaitFlag = { TIMED: 1, SHARED: 2, SLEPT: 4 } as const
