/*
 * Commands of Linux's rdma_cm file, without librdmacm.
 */
import type { Client } from './client.ts'

/** Bytes of struct rdma_ucm_cmd_hdr. */
export const CM_HEADER_BYTES = 8
/** The response is a u32. */
const RESPONSE_BYTES = 4
/** Offset of responses in the client's memory. */
const RESPONSE_AT = 8192

export interface Channel {
  readonly client: Client
  readonly fd: number
}

/**
 * Writes a command with a body of `size` bytes. `responseAt`: offset in the body of the pointer to the response.
 * `words`: u32 values by offset in the body. `result`: length of header and body, or -errno. `response`: the first word
 * of the response.
 */
export const writeCommand = async (
  { client, fd }: Channel,
  number: number,
  size: number,
  responseAt: number,
  words: [number, number][],
) => {
  const { view, address, u32 } = client.memory
  for (let i = 0; i < CM_HEADER_BYTES + size; i++) view.setUint8(i, 0)
  view.setUint32(0, number, true)
  view.setUint16(4, size, true)
  view.setUint16(6, RESPONSE_BYTES, true)
  view.setBigUint64(CM_HEADER_BYTES + responseAt, BigInt(address + RESPONSE_AT), true)
  for (const [offset, word] of words) view.setUint32(CM_HEADER_BYTES + offset, word, true)
  const result = await client.writeOn(fd, BigInt(address), BigInt(CM_HEADER_BYTES + size))
  return { result, response: u32[RESPONSE_AT / 4]! }
}
