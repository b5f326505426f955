/*
 * Encoding of chains (R16, docs/reference/object-dialect.md). An entry is {u8 call, u8 flags, u16 ref, u32 size} and a
 * message of the object dialect; `size` is the bytes of the message, a multiple of 8. With flag OBJECT, the call's
 * object is the one that entry `ref` created. With flag CHAINED, the value of an attribute is an entry's number. In the
 * results of a chain, an entry has the answered message.
 */
import { ChainEntryFlag } from '../../spec/classes/ids.ts'
import { callError } from '../../spec/errno.ts'
import type { Call } from '../call.ts'
import { viewOf } from '../scalar.ts'
import { type ChainedRefs, type EncodeOptions, messageLength, writeMessage } from './client.ts'
import { HEADER } from './dialect.ts'

/** Bytes of {call, flags, ref, size}. */
export const ENTRY_HEADER = 8
/** Maximum entries of a chain: their number has 16 bits, as `ref`. */
const MAX_ENTRIES = 0xffff

export interface ChainEntry {
  /** The method's call number. */
  readonly call: number
  /** Class id in the message. */
  readonly classId: number
  /** Number of the entry that created the call's object; undefined: the message has the object. */
  readonly ref: number | undefined
  /** Offset of the message in the chain. */
  readonly at: number
  readonly message: Uint8Array
}

/** The entries of a chain up to the first unreadable one, which begins at `end`. `reason`: why it is unreadable. */
export const readableEntries = (bytes: Uint8Array): { entries: ChainEntry[]; end: number; reason?: string } => {
  const view = viewOf(bytes)
  const entries: ChainEntry[] = []
  let at = 0
  const unreadable = (reason: string) => ({ entries, end: at, reason })
  while (at < bytes.length) {
    if (entries.length === MAX_ENTRIES) return unreadable(`a chain has at most ${MAX_ENTRIES} entries`)
    if (at + ENTRY_HEADER + HEADER > bytes.length)
      return unreadable(`${bytes.length - at} bytes are left, an entry has at least ${ENTRY_HEADER + HEADER}`)
    const flags = view.getUint8(at + 1)
    const ref = view.getUint16(at + 2, true)
    const size = view.getUint32(at + 4, true)
    if ((flags & ~ChainEntryFlag.OBJECT) !== 0) return unreadable(`its flags 0x${flags.toString(16)} are unknown`)
    if (size < HEADER || size % 8 !== 0 || size > bytes.length - at - ENTRY_HEADER)
      return unreadable(
        `its size is ${size}; a multiple of 8 from ${HEADER} to ${bytes.length - at - ENTRY_HEADER} is right`,
      )
    const message = bytes.subarray(at + ENTRY_HEADER, at + ENTRY_HEADER + size)
    const refersToEntry = (flags & ChainEntryFlag.OBJECT) !== 0
    const classId = view.getUint16(at + ENTRY_HEADER + 2, true)
    entries.push({
      call: view.getUint8(at),
      classId,
      ref: refersToEntry ? ref : undefined,
      at: at + ENTRY_HEADER,
      message,
    })
    at += ENTRY_HEADER + size
  }
  return { entries, end: at }
}

/** The entries of a chain. Throws CallError EINVAL with the number of the first unreadable one. */
export const chainEntries = (bytes: Uint8Array): ChainEntry[] => {
  const { entries, end, reason } = readableEntries(bytes)
  if (reason !== undefined) throw callError.EINVAL`entry ${entries.length} of the chain, at ${end}: ${reason}`
  return entries
}

/** One call of a chain to send. */
export interface ChainLink {
  readonly call: Call
  readonly options?: EncodeOptions
  /** Number of the entry that creates the call's object; undefined: the object of `call`. */
  readonly object?: number | undefined
  /** By attribute: number of the entry that creates its object. The attribute's argument in `call` is ignored. */
  readonly refs?: ChainedRefs | undefined
}

/** The encoded chain. Throws CallError as `messageLength`. */
export const encodeChain = (links: readonly ChainLink[]): Uint8Array => {
  const lengths = links.map(({ call, options, refs }) => messageLength(call, options, refs))
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + ENTRY_HEADER + length, 0))
  const view = viewOf(bytes)
  let at = 0
  for (let i = 0; i < links.length; i++) {
    const { call, options, refs, object } = links[i]!
    view.setUint8(at, call.method.call)
    view.setUint8(at + 1, object === undefined ? 0 : ChainEntryFlag.OBJECT)
    view.setUint16(at + 2, object ?? 0, true)
    view.setUint32(at + 4, lengths[i]!, true)
    writeMessage(view, at + ENTRY_HEADER, lengths[i]!, call, options, refs)
    at += ENTRY_HEADER + lengths[i]!
  }
  return bytes
}
