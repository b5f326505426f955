/*
 * Commands of Linux's rdma_cm file, as a client without librdmacm writes them to its channel.
 */
import type { Client } from './client.ts'

const HEADER = 8
const RESPONSE = 8192

export interface Channel {
  readonly client: Client
  readonly fd: number
}

/** Writes a command to a channel of which `client` has a descriptor; the pointer to its response is at `at`. */
export const writeCommand = async (
  { client, fd }: Channel,
  number: number,
  size: number,
  at: number,
  words: [number, number][],
) => {
  const { view, address, u32 } = client.memory
  for (let i = 0; i < HEADER + size; i++) view.setUint8(i, 0)
  view.setUint32(0, number, true)
  view.setUint16(4, size, true)
  view.setUint16(6, 4, true)
  view.setBigUint64(HEADER + at, BigInt(address + RESPONSE), true)
  for (const [place, word] of words) view.setUint32(HEADER + place, word, true)
  const result = await client.writeOn(fd, BigInt(address), BigInt(HEADER + size))
  return { result, response: u32[RESPONSE / 4]! }
}
