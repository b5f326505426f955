/*
 * Copies a session file that is being written, and of which the oldest part may be overwritten meanwhile, so that the
 * copy is a whole session file: it has whole blocks only, one segment after another without gaps, and no limit.
 */

import { BlockHeader, BlockType, FileHeader } from '../../spec/session-file.ts'
import { isWhole, readBlockHeader } from '../record/decode.ts'
import { openSession, type SessionSource } from '../record/reader.ts'
import { headerBytes } from '../record/writer.ts'

/** Bytes of the whole blocks at the start of a segment; all bytes if it has its index. */
const wholeBytes = (segment: Uint8Array, sequence: number): number => {
  let at = 0
  while (at < segment.length) {
    const facts = readBlockHeader(segment.subarray(at), sequence)
    if (facts === undefined || !isWhole(segment.subarray(at), facts)) return at
    if (facts.type === BlockType.INDEX) return segment.length
    at += facts.length
  }
  return at
}

/**
 * Writes the copy with `write`. Returns its bytes. Needs the memory of one segment. Throws the errors of the source, of
 * `write`, and a SessionFileError if the source is no session file.
 */
export const copySession = async (
  source: SessionSource,
  write: (position: number, bytes: Uint8Array) => Promise<void>,
): Promise<number> => {
  const { header, blocks } = await openSession(source)
  const { segmentBytes, segments } = header
  const slotOf = (sequence: number): number =>
    FileHeader.bytes + (segments === 0 ? sequence - 1 : (sequence - 1) % segments) * segmentBytes
  await write(0, headerBytes({ ...header, segments: 0 }))
  let end: number = FileHeader.bytes
  // The oldest is the next to be overwritten: it comes first.
  for (const sequence of [...new Set(blocks.map(block => block.sequence))].sort((a, b) => a - b)) {
    const slot = slotOf(sequence)
    const bytes = await source.read(slot, segmentBytes)
    const now = readBlockHeader(await source.read(slot, BlockHeader.size), 0)
    // It was overwritten while it was read; so were the older ones, or will be: the copy begins after it.
    if (now?.sequence !== sequence) {
      end = FileHeader.bytes
      continue
    }
    const length = wholeBytes(bytes, sequence)
    await write(end, bytes.subarray(0, length))
    end += length
    // The next segment was begun after this one was read: it would follow a gap.
    if (length < segmentBytes) break
  }
  return end
}
