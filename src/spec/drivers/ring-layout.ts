/*
 * What a ring layout is (docs/decisions/rings.md: ring layout is data): where program and device find the indices of a
 * ring and the parts of its elements. There are two, with the same names for the same parts: that of rxe's user library
 * (rxe-rings.ts), which programs bring along, and a small one for programs of this process (compact-rings.ts). Whoever
 * reads or writes a ring goes by its layout. Byte offsets, little-endian.
 */
import { RecvWqe, RingHeader, SendWqe, Wc } from './rxe-rings.ts'

type Offsets<T> = { readonly [K in keyof T]: number }

/** What is stored of an index that only counts up: they are never negative. */
const COUNTING = 0x7fff_ffff

/** What of an index is stored in a ring with `mask` + 1 slots. */
export const wrapOf = ({ counting }: RingLayout, mask: number): number => (counting ? COUNTING : mask)

/** The index in word `at`: where another process stores it, after what it tells of and before what comes later. */
export const loadIndex = ({ oneThread }: RingLayout, words: Int32Array, at: number): number =>
  oneThread ? words[at]! : Atomics.load(words, at)

/** Tells `index` in word `at`. */
export const storeIndex = ({ oneThread }: RingLayout, words: Int32Array, at: number, index: number): void => {
  if (oneThread) words[at] = index
  else Atomics.store(words, at, index)
}

export interface RingLayout {
  readonly name: 'rxe' | 'compact'
  /** From the beginning of the header; DATA is its size. */
  readonly header: Offsets<typeof RingHeader>
  /**
   * Indices only count up, so that a ring holds as many elements as it has slots; otherwise they are stored masked, and
   * a full ring has one free slot.
   */
  readonly counting: boolean
  /** Program and device are one thread, so that nobody sees an index before the element that it tells of. */
  readonly oneThread: boolean
  /** Bytes of the smallest element. */
  readonly minElement: number
  readonly wc: Offsets<typeof Wc>
  readonly send: Offsets<typeof SendWqe>
  readonly receive: Offsets<typeof RecvWqe>
}

/** Of rxe's user library. */
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
