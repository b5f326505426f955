/*
 * Ranges of the program's memory that a traced call read or wrote (`userdma trace --abi`), and their text. raw.ts and
 * layout.ts interpret the bytes.
 */
import type { RawPiece } from '../../uapi/tool.ts'
import { bytesText } from '../bytes.ts'
import { fromBase64 } from '../decode.ts'
import type { Style } from '../values.ts'

export interface Piece {
  readonly address: bigint
  readonly bytes: Uint8Array
  /** The actual length; `bytes` may be fewer. */
  readonly length: number
}

export const pieceOf = ([address, bytes, length]: RawPiece): Piece => ({
  address: BigInt(address),
  bytes: fromBase64(bytes),
  length,
})

export const hex = (number: bigint | number): string => `0x${number.toString(16)}`

/** The bytes as text, limited by `style`; there were `length`. */
export const someBytes = (bytes: Uint8Array, length: number, style: Style): string =>
  `${bytesText(bytes, Math.min(style.bytes, bytes.length))}${
    length > bytes.length && bytes.length <= style.bytes ? '…' : ''
  }`

export const placeText = ({ address, bytes, length }: Piece, style: Style): string =>
  `at ${hex(address)}, ${length} bytes: ${someBytes(bytes, length, style)}`
