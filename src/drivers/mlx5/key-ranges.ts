/*
 * The ranges of a key over other keys, as work requests (UMR) and CREATE_MKEY bring them: octowords of four big-endian
 * words. A list has a range in each (KLM; or KSM, whose ranges all have the length of the key's entities). Or a block
 * of ranges repeats, each time a stride further (mlx5_wqe_umr_repeat_block_seg). Programs pad both with zeros to four
 * octowords.
 */
import type { IndirectEntry } from '../../core/memory/indirect.ts'
import { REPEAT_BLOCK } from '../../spec/drivers/mlx5.ts'

const WORDS = 4

interface KeyRanges {
  readonly entries: readonly IndirectEntry[]
  /** How often the entries follow one behind the other, from 1. */
  readonly repeats: number
  /** Octowords without the padding: of a block with its header. */
  readonly octowords: number
}

const addressAt = (words: Uint32Array, at: number): bigint => (BigInt(words[at]!) << 32n) | BigInt(words[at + 1]!)

/** A list up to the padding, which begins with the first range without bytes. */
const listOfRanges = (words: Uint32Array): IndirectEntry[] => {
  const entries: IndirectEntry[] = []
  for (let at = 0; at < words.length && words[at] !== 0; at += WORDS)
    entries.push({ length: words[at]!, key: words[at + 1]!, address: addressAt(words, at + 2) })
  return entries
}

/** Ranges of `length` bytes each, up to the padding: there is no key 0. */
const listOfEntities = (words: Uint32Array, length: number): IndirectEntry[] => {
  const entries: IndirectEntry[] = []
  for (let at = 0; at < words.length && words[at + 1] !== 0; at += WORDS)
    entries.push({ length, key: words[at + 1]!, address: addressAt(words, at + 2) })
  return entries
}

/** Undefined: it is malformed. */
const blockOfRanges = (words: Uint32Array): KeyRanges | undefined => {
  const count = words[3]! & 0xffff
  if (count === 0 || (count + 1) * WORDS > words.length || words[2] === 0) return undefined
  const entries = Array.from({ length: count }, (_, i) => {
    const at = (i + 1) * WORDS
    const sizes = words[at]!
    return { stride: sizes >>> 16, length: sizes & 0xffff, key: words[at + 1]!, address: addressAt(words, at + 2) }
  })
  if (entries.some(({ length }) => length === 0)) return undefined
  return { entries, repeats: words[2]!, octowords: count + 1 }
}

/**
 * The ranges of these words, a multiple of four. `entityBytes`: of KSM; undefined: KLM. Undefined: a block is
 * malformed. A list may be empty.
 */
export const rangesOf = (words: Uint32Array, entityBytes: number | undefined): KeyRanges | undefined => {
  if (entityBytes === undefined && words[1] === REPEAT_BLOCK) return blockOfRanges(words)
  const entries = entityBytes === undefined ? listOfRanges(words) : listOfEntities(words, entityBytes)
  return { entries, repeats: 1, octowords: entries.length }
}
