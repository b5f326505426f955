/*
 * Commands of Linux's rdma_cm file, as a client without librdmacm writes them to its channel.
 */
import type { Client } from './client.ts'

/** Bytes of struct rdma_ucm_cmd_hdr. */
const HEADER = 8
/** Offset of responses in the client's memory. */
const RESPONSE = 8192

export interface Channel {
  readonly client: Client
  readonly fd: number
}

/**
 * Writes rdma_cm command `number` with a body of `size` bytes to a channel. `at`: offset in the body of the pointer to
 * the response. `words`: u32 values by offset in the body. Returns the return value and the first word of the response.
 */
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
  for (const [offset, word] of words) view.setUint32(HEADER + offset, word, true)
  const result = await client.writeOn(fd, BigInt(address), BigInt(HEADER + size))
  return { result, response: u32[RESPONSE / 4]! }
}
