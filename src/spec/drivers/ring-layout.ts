/*
 * A ring layout as data (docs/decisions/rings.md): where program and device find the indices of a ring and the fields
 * of its elements. There are two, with the same field names: that of rxe's user library (rxe-rings.ts), which
 * unmodified programs use, and a compact one for programs in this process (compact-rings.ts). All readers and writers
 * of rings use the layout. Byte offsets, little-endian.
 */
import { RecvWqe, RingHeader, SendWqe, Wc } from './rxe-rings.ts'

type Offsets<T> = { readonly [K in keyof T]: number }

/** Mask of a stored index that only counts up; it is never negative. */
const COUNTING = 0x7fff_ffff

/** Mask of a stored index of a ring with `mask` + 1 slots. */
export const wrapOf = ({ counting }: RingLayout, mask: number): number => (counting ? COUNTING : mask)

/** Loads the index in word `at`, with acquire ordering: another process publishes it after the elements. */
export const loadIndex = ({ oneThread }: RingLayout, words: Int32Array, at: number): number =>
  oneThread ? words[at]! : Atomics.load(words, at)

/** Publishes `index` in word `at`, with release ordering. */
export const storeIndex = ({ oneThread }: RingLayout, words: Int32Array, at: number, index: number): void => {
  if (oneThread) words[at] = index
  else Atomics.store(words, at, index)
}

export interface RingLayout {
  readonly name: 'rxe' | 'compact'
  /** Offsets from the start of the header; DATA is its size. */
  readonly header: Offsets<typeof RingHeader>
  /**
   * True: indices only count up, so that a ring holds as many elements as it has slots. False: indices are stored
   * masked, and a full ring has one free slot.
   */
  readonly counting: boolean
  /** True: program and device share one thread, so that no ordering is needed. */
  readonly oneThread: boolean
  /** Size of the smallest element, in bytes. */
  readonly minElement: number
  readonly wc: Offsets<typeof Wc>
  readonly send: Offsets<typeof SendWqe>
  readonly receive: Offsets<typeof RecvWqe>
}

/** The layout of rxe's user library. */
export const rxeLayout: RingLayout = {
  name: 'rxe',
  header: RingHeader,
  counting: false,
  oneThread: false,
  /** A cache line. */
  minElement: 64,
  wc: Wc,
  send: SendWqe,
  receive: RecvWqe,
}
