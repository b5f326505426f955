/*
 * Ring layouts (docs/decisions/rings.md): the offsets of the indices of a ring and of the fields of its elements. The
 * layout of rxe's user library (mapped-rings.ts) is for programs in other processes, the compact layout
 * (compact-rings.ts) for programs in this process. Offsets are in bytes; fields are little-endian.
 */
import { RecvWqe, RingHeader, SendWqe, Wc } from './mapped-rings.ts'

type Offsets<T> = { readonly [K in keyof T]: number }

/** Free-running indices wrap at 2^31, so that they are never negative as i32. */
const FREE_RUNNING_MASK = 0x7fff_ffff

/** The mask of stored indices of a ring with `mask` + 1 slots. */
export const indexMask = ({ hasFreeRunningIndices }: RingLayout, mask: number): number =>
  hasFreeRunningIndices ? FREE_RUNNING_MASK : mask

/** Loads an index with acquire ordering: the other process stores the index after the elements. */
export const loadIndex = ({ isSingleThreaded }: RingLayout, words: Int32Array, word: number): number =>
  isSingleThreaded ? words[word]! : Atomics.load(words, word)

/** Stores an index with release ordering. */
export const storeIndex = ({ isSingleThreaded }: RingLayout, words: Int32Array, word: number, index: number): void => {
  if (isSingleThreaded) words[word] = index
  else Atomics.store(words, word, index)
}

export interface RingLayout {
  readonly name: 'mapped' | 'compact'
  /** Offsets from the start of the header. DATA: of the elements; packed rings store it at ELEMENTS_OFFSET instead. */
  readonly header: Offsets<typeof RingHeader>
  /**
   * True: stored indices are not masked by the ring's size, and all slots can be used. False: stored indices are
   * masked, and a full ring has one free slot, because equal indices mean that the ring is empty.
   */
  readonly hasFreeRunningIndices: boolean
  /** Program and device run in one thread: loads and stores need no ordering. */
  readonly isSingleThreaded: boolean
  /** Minimum bytes of an element. */
  readonly minElement: number
  readonly wc: Offsets<typeof Wc>
  /** UD_VECTOR 0: no address vectors; each datagram names an address handle. */
  readonly send: Offsets<typeof SendWqe>
  readonly receive: Offsets<typeof RecvWqe>
}

/** As rxe's user library has it. */
export const mappedLayout: RingLayout = {
  name: 'mapped',
  header: RingHeader,
  hasFreeRunningIndices: false,
  isSingleThreaded: false,
  /** A cache line. */
  minElement: 64,
  wc: Wc,
  send: SendWqe,
  receive: RecvWqe,
}
