/*
 * Lends of a region's bytes to peers, which a checked device compares with what peers access
 * (docs/how-to/lent-memory.md).
 */
import { LendHash, LendRight } from '../../../spec/lends.ts'
import { crc32 } from '../../../transport/wire/crc.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import { checkText, checkU32, invalidArgument } from '../error.ts'
import type { DeviceContext } from '../plan.ts'
import { lengthOfPart } from './remote-memory.ts'

/** Options of `region.lend`: which bytes, what for, to whom and until when. At least one right must be true. */
export interface LendOptions {
  /** Peers may READ. With `read` alone the program must not change the bytes either. */
  readonly read?: boolean | undefined
  /** Peers may WRITE. */
  readonly write?: boolean | undefined
  /** Peers may execute atomics. */
  readonly atomic?: boolean | undefined
  /** The first byte in the region; default 0. */
  readonly offset?: number | undefined
  /** Length in bytes; default: to the end of the region. */
  readonly length?: number | undefined
  /** Says in findings for what, such as 'request 17'. */
  readonly label?: string | undefined
  /** Only for the peer of the queue pair with this number; default: for any. */
  readonly qpn?: number | undefined
  /** Only for this time; default: until it is taken back. */
  readonly milliseconds?: number | undefined
}

/** A lend. Disposing it takes it back. */
export interface Lend extends Disposable {
  /** Ends the lend; later calls do nothing. */
  takeBack(): void
}

const names: KnownOptions<LendOptions> = {
  read: 'flag',
  write: 'flag',
  atomic: 'flag',
  offset: true,
  length: true,
  label: true,
  qpn: true,
  milliseconds: true,
}

/** Lends bytes of a region of `buffer`, which begins at `start`. Throws RdmaError EINVAL. */
export const lendPart = (context: DeviceContext, buffer: Uint8Array, start: bigint, options: LendOptions): Lend => {
  checkOptions('mr.lend', 'options', options, names)
  const { read, write, atomic, offset = 0, label = '', qpn = 0, milliseconds = 0 } = options
  const length = lengthOfPart('mr.lend', buffer.length, offset, options.length)
  const rights = (read ? LendRight.READ : 0) | (write ? LendRight.WRITE : 0) | (atomic ? LendRight.ATOMIC : 0)
  if (rights === 0) throw invalidArgument('mr.lend', 'it lends for nothing', 'give { read: true }, write or atomic')
  checkText('mr.lend', 'label', label)
  checkU32('mr.lend', 'qpn', qpn)
  checkU32('mr.lend', 'milliseconds', milliseconds)
  const first = Number(start) + offset
  let takeBack = context.check?.lend?.({
    start: first,
    end: first + length,
    rights,
    label,
    qpn,
    milliseconds,
    ...(rights === LendRight.READ && {
      hash: crc32(buffer.subarray(offset, offset + Math.min(length, LendHash.bytes))),
    }),
  })
  const end = (): void => {
    takeBack?.()
    takeBack = undefined
  }
  return { takeBack: end, [Symbol.dispose]: end }
}
