/*
 * A CQE with an error of mlx5 in hexadecimal: four rows of big-endian words (libmlx5), or of bytes (kernel, DPDK). Only
 * the last 16 bytes say anything: the words before have indexes of queues.
 */
import { statusOfSyndrome, wqeOpcodes } from './meanings/statuses.ts'
import type { Fields } from './shape.ts'

const WORDS = /(?:^|[^0-9a-fA-F])([0-9a-fA-F]{8}) ([0-9a-fA-F]{8}) ([0-9a-fA-F]{8}) ([0-9a-fA-F]{8})(?![0-9a-fA-F])/
const BYTES = /(?:0x)?([0-9a-fA-F]{2,8}): ((?:[0-9a-fA-F]{2} ){15}[0-9a-fA-F]{2})(?![0-9a-fA-F])/

/** The last row of a dump, as its words 13 to 15. */
type Tail = readonly [synd: number, opcode: number, counter: number]

const fieldsOf = ([synd, opcode, counter]: Tail): Fields => {
  const own = counter & 0xff
  const isRequest = own >> 4 === 0xd
  const request = isRequest ? wqeOpcodes[(opcode >>> 24) & 0xff] : own >> 4 === 0xe ? 'RECV' : undefined
  const syndrome = synd & 0xff
  const status = statusOfSyndrome(syndrome)
  return {
    syndrome: syndrome.toString(16),
    vendor: ((synd >>> 8) & 0xff).toString(16),
    hwSyndrome: `${(synd >>> 20) & 0xf}/${(synd >>> 24) & 0xff}`,
    qpn: (opcode & 0xff_ffff).toString(16),
    wqe: String((counter >>> 16) & 0xffff),
    ...(request !== undefined && { request }),
    ...(status !== undefined && { status }),
  }
}

/** Whether the last byte of a CQE says that it has an error: of a request, or of a receive. */
const hasError = ([, , counter]: Tail): boolean => [0xd, 0xe].includes((counter & 0xff) >> 4)

/** What the last row of a dump says; `row` for another row; undefined for other lines. `row`: of four, from 0. */
export const dumpRow = (line: string, kind: 'words' | 'bytes', row: number): Fields | 'row' | undefined => {
  const match = (kind === 'words' ? WORDS : BYTES).exec(line)
  if (match === null) return undefined
  if (kind === 'words') {
    if (row < 3) return 'row'
    const tail: Tail = [Number.parseInt(match[2]!, 16), Number.parseInt(match[3]!, 16), Number.parseInt(match[4]!, 16)]
    return hasError(tail) ? fieldsOf(tail) : 'row'
  }
  if (Number.parseInt(match[1]!, 16) !== 0x30) return 'row'
  const bytes = match[2]!.split(' ').map(text => Number.parseInt(text, 16))
  const word = (at: number): number =>
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  const tail: Tail = [word(4), word(8), word(12)]
  return hasError(tail) ? fieldsOf(tail) : 'row'
}

/** Three or four words that somebody has copied from the end of a dump. */
export const dumpWords = (text: string): Fields | undefined => {
  const words = text.trim().split(/\s+/)
  if (words.length < 3 || words.length > 16 || !words.every(word => /^[0-9a-f]{8}$/i.test(word))) return undefined
  const [synd, opcode, counter] = words.slice(-3).map(word => Number.parseInt(word, 16))
  const tail: Tail = [synd!, opcode!, counter!]
  return hasError(tail) ? fieldsOf(tail) : undefined
}
