/*
 * Records of the observation file, as the preload library writes them.
 */
import { ObserveStructs } from '../../../src/tools/observe/file-layout.ts'

type StructName = keyof typeof ObserveStructs

/** The bytes of a struct. Fields without a value are 0. `text`: that of its only field of bytes. */
export const structBytes = (
  name: StructName,
  values: Readonly<Record<string, number | bigint>>,
  text = '',
): Uint8Array => {
  const { fields, size } = ObserveStructs[name]
  const bytes = Buffer.alloc(size)
  for (const { name: field, offset, type } of fields) {
    const value = values[field] ?? 0
    if (type === 'bytes') bytes.write(text, offset)
    else if (type === 'u64') bytes.writeBigUInt64LE(BigInt(value), offset)
    else if (type === 's64') bytes.writeBigInt64LE(BigInt(value), offset)
    else if (type === 's32') bytes.writeInt32LE(Number(value), offset)
    else bytes.writeUInt32LE(Number(value), offset)
  }
  return Uint8Array.from(bytes)
}

/** A record: its header with its size, and what follows. */
export const recordBytes = (
  kind: number,
  values: Readonly<Record<string, number | bigint>>,
  ...parts: readonly Uint8Array[]
): Uint8Array => {
  const body = Buffer.concat(parts)
  const size = (ObserveStructs.record.size + body.length + 7) & ~7
  return Uint8Array.from(Buffer.concat([structBytes('record', { kind, size, ...values }), body], size))
}
