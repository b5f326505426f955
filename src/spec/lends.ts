/*
 * The ring of lends: what a program says of its memory by `userdma.h` (shim/include/userdma.h), in the order in which
 * it says so. The preload library writes it (shim/check/lends.c) into the file of the wait table (wait-table.ts), which
 * each process has for itself; the daemon reads it (daemon/check/lends.ts) before it judges an access. So an entry of
 * before a post is known when the request is executed. Offsets and sizes in bytes. shim/protocol.h is generated from
 * this file too.
 */

/**
 * A `lendRing` struct and `entries` structs `lend`, a ring, at `offset` of the file, which is a multiple of every page
 * size. `labelBytes`: of `lend.label`.
 */
export const LendRing = {
  offset: 82 * 65_536,
  firstEntry: 128,
  entries: 2 ** 15,
  bytes: 128 + 2 ** 15 * 128,
  labelBytes: 56,
} as const

/**
 * `lend.kind`. LEND: the bytes are lent from now on, as `id`. TAKE_BACK: the lend `id` is over. UNCHECKED: accesses to
 * the bytes are of no interest. NAME: `label` is the name of the bytes.
 */
export const LendKind = { LEND: 1, TAKE_BACK: 2, UNCHECKED: 3, NAME: 4 } as const

/** Bits of the rights of a lend, as in userdma.h. */
export const LendRight = { READ: 1, WRITE: 2, ATOMIC: 4 } as const

/** The hash of bytes that are lent for reading covers at most the first `bytes`. CRC-32 as zlib's. */
export const LendHash = { bytes: 4096 } as const

/** `userdma check --lent`: what is known of lent memory, with the text of `--help`. The first is the default. */
export const lentChecks = {
  learnt: 'what programs say by userdma.h and tell their peers in messages',
  declared: 'only what they say by userdma.h',
  off: 'nothing',
} as const
export type LentCheck = keyof typeof lentChecks

/** Words for the bits of LendRight. */
export const lendRightNames = { read: LendRight.READ, write: LendRight.WRITE, atomic: LendRight.ATOMIC } as const

/** A program in a row of `userdma stat --lent`. */
interface LentProgram {
  readonly pid: number
  readonly command: string
}

/** Bytes that a process lends now: a row of `userdma stat --lent`. */
export interface LentBytes extends LentProgram {
  /** Of the first byte, hexadecimal with 0x. */
  readonly address: string
  readonly length: number
  /** How long they have been lent, in microseconds. */
  readonly age: number
  /** What peers may do. Absent: what the region allows. */
  readonly rights?: readonly (keyof typeof lendRightNames)[]
  /** What for. */
  readonly label?: string
  /** The queue pair of the process by whose peer they may be accessed; with `to`, the one that has told. */
  readonly qpn?: number
  /** The program of the peer, if it is known. */
  readonly to?: LentProgram
  /** Microseconds until the lend is over. */
  readonly left?: number
  /** What told the peer of them: `SEND wr_id 5`. Absent: they are declared. */
  readonly told?: string
  /** Of the lend or the message, innermost first, the first LENT_FRAMES; absent: unknown. */
  readonly stack?: readonly string[]
}

/** Frames of a row of `userdma stat --lent`. */
export const LENT_FRAMES = 4
