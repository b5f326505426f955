/*
 * The LEGACY attribute of the object dialect: the bytes of a translated Linux call that its arguments do not restore
 * (R41, docs/reference/object-dialect.md).
 *
 * LEGACY has the caller's buffers, with zeros for bytes that the arguments restore. Headers, pointers, lengths, the
 * order of attributes, and bytes that the kernel ignores remain. Encoding: {u8 entryPoint, u8 0, u16 number of parts},
 * then each part as {u32 length, bytes}.
 */
import { type CallError, callError } from '../../spec/errno.ts'
import { viewOf } from '../scalar.ts'

export const EntryPoint = { WRITE: 1, IOCTL: 2 } as const
export type EntryPoint = (typeof EntryPoint)[keyof typeof EntryPoint]

/** `parts`: the buffer of write(); or an ioctl's header with attributes, then the memory that attributes point to. */
interface Legacy {
  readonly entryPoint: EntryPoint
  readonly parts: readonly Uint8Array[]
}

export const packLegacy = ({ entryPoint, parts }: Legacy): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((size, part) => size + 4 + part.length, 4))
  const view = viewOf(bytes)
  bytes[0] = entryPoint
  view.setUint16(2, parts.length, true)
  let at = 4
  for (const part of parts) {
    view.setUint32(at, part.length, true)
    bytes.set(part, at + 4)
    at += 4 + part.length
  }
  return bytes
}

/** The error for an invalid LEGACY attribute. `defect` follows "the legacy attribute". */
export const badLegacy = (defect: string): CallError => callError.EINVAL`the legacy attribute ${defect}`

/** Throws CallError EINVAL for malformed bytes. */
export const unpackLegacy = (bytes: Uint8Array): Legacy => {
  if (bytes.length < 4) throw badLegacy(`has at least 4 bytes, not ${bytes.length}`)
  const view = viewOf(bytes)
  const entryPoint = bytes[0]
  if (entryPoint !== EntryPoint.WRITE && entryPoint !== EntryPoint.IOCTL)
    throw badLegacy(`names entryPoint ${entryPoint}: 1 is write, 2 is ioctl`)
  if (bytes[1] !== 0) throw badLegacy(`has ${bytes[1]} as its second byte, which is reserved: write 0`)
  const parts: Uint8Array[] = []
  let at = 4
  for (let i = view.getUint16(2, true); i > 0; i--) {
    const start = at + 4
    if (start > bytes.length) throw badLegacy('ends within a part')
    const end = start + view.getUint32(at, true)
    if (end > bytes.length) throw badLegacy('ends within a part')
    parts.push(bytes.slice(start, end))
    at = end
  }
  if (at !== bytes.length) throw badLegacy('continues after its last part')
  return { entryPoint, parts }
}
