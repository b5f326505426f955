/*
 * Ring layouts (docs/decisions/rings.md): the offsets of the indices of a ring and of the fields of its elements. There
 * are two layouts with the same field names: that of rxe's user library (rxe-rings.ts), which unmodified programs use,
 * and a compact one for programs in this process (compact-rings.ts). Driver and library take the layout as an argument.
 * Offsets are in bytes; fields are little-endian.
 */
import { RecvWqe, RingHeader, SendWqe, Wc } from './rxe-rings.ts'

type Offsets<T> = { readonly [K in keyof T]: number }

/** Free-running indices wrap at 2^31, so that the i32 in which they are stored is never negative. */
const FREE_RUNNING_MASK = 0x7fff_ffff

/** The mask with which an index is stored in a ring of `mask` + 1 slots. */
export const indexMask = ({ hasFreeRunningIndices }: RingLayout, mask: number): number =>
  hasFreeRunningIndices ? FREE_RUNNING_MASK : mask

/** Loads the index in word `word`, with acquire ordering: the other process stores it after the elements. */
export const loadIndex = ({ isSingleThreaded }: RingLayout, words: Int32Array, word: number): number =>
  isSingleThreaded ? words[word]! : Atomics.load(words, word)

/** Stores `index` in word `word`, with release ordering. */
export const storeIndex = ({ isSingleThreaded }: RingLayout, words: Int32Array, word: number, index: number): void => {
  if (isSingleThreaded) words[word] = index
  else Atomics.store(words, word, index)
}

export interface RingLayout {
  readonly name: 'rxe' | 'compact'
  /** Offsets from the start of the header; DATA: offset of the elements, that is the size of the header. */
  readonly header: Offsets<typeof RingHeader>
  /**
   * True: stored indices are not masked by the ring's size, so that a ring can have as many elements as slots. False:
   * they are masked, and a full ring has one free slot, because equal indices mean empty.
   */
  readonly hasFreeRunningIndices: boolean
  /** True: program and device run in one thread, so that loads and stores need no ordering. */
  readonly isSingleThreaded: boolean
  /** Minimum size of an element, in bytes. */
  readonly minElement: number
  readonly wc: Offsets<typeof Wc>
  readonly send: Offsets<typeof SendWqe>
  readonly receive: Offsets<typeof RecvWqe>
}

/** The layout of rxe's user library. */
export const rxeLayout: RingLayout = {
  name: 'rxe',
  header: RingHeader,
  hasFreeRunningIndices: false,
  isSingleThreaded: false,
  /** A cache line. */
  minElement: 64,
  wc: Wc,
  send: SendWqe,
  receive: RecvWqe,
}
