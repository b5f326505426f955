/*
 * Netlink messages of RDMA_NLDEV: messages (struct nlmsghdr), acknowledgements and refusals (struct nlmsgerr), and the
 * end of a list.
 */
import { NLMSGERR_ATTR_MSG, NlmsgFlags, NlmsgType } from '../../spec/linux/nldev.ts'
import { viewOf } from '../scalar.ts'
import { padded } from './attributes.ts'

export interface Message {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  /** Port of the sender; in messages of the kernel, of the receiver. */
  readonly port: number
  readonly body: Uint8Array
}

/** Size of struct nlmsghdr. */
export const MESSAGE_HEADER = 16

/** Messages of one datagram. As on Linux, messages after one with a wrong length are ignored, and that one too. */
export const readMessages = (datagram: Uint8Array): Message[] => {
  const view = viewOf(datagram)
  const messages: Message[] = []
  for (let at = 0; datagram.length - at >= MESSAGE_HEADER; ) {
    const length = view.getUint32(at, true)
    if (length < MESSAGE_HEADER || length > datagram.length - at) break
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      port: view.getUint32(at + 12, true),
      body: datagram.subarray(at + MESSAGE_HEADER, at + length),
    })
    at += padded(length)
  }
  return messages
}

export const writeMessage = ({ type, flags, sequence, port, body }: Message): Uint8Array => {
  const bytes = new Uint8Array(MESSAGE_HEADER + body.length)
  const view = viewOf(bytes)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, type, true)
  view.setUint16(6, flags, true)
  view.setUint32(8, sequence, true)
  view.setUint32(12, port, true)
  bytes.set(body, MESSAGE_HEADER)
  return bytes
}

interface Acknowledgement {
  /** 0, or a positive errno. */
  readonly errno: number
  /** For a program that has set NETLINK_EXT_ACK. */
  readonly reason?: string | undefined
  /** Whether the program has set NETLINK_CAP_ACK: the reply repeats only the header of the request. */
  readonly isCapped: boolean
}

const reasonAttribute = (text: string): Uint8Array => {
  const encoded = new TextEncoder().encode(`${text}\0`)
  const bytes = new Uint8Array(padded(4 + encoded.length))
  viewOf(bytes).setUint16(0, 4 + encoded.length, true)
  viewOf(bytes).setUint16(2, NLMSGERR_ATTR_MSG, true)
  bytes.set(encoded, 4)
  return bytes
}

/** NLMSG_ERROR. A refusal that is not capped repeats the whole request. `port`: of the receiver. */
export const writeAcknowledgement = (
  request: Message,
  port: number,
  { errno, reason, isCapped }: Acknowledgement,
): Uint8Array => {
  const repeatsRequest = errno !== 0 && !isCapped
  const requestBytes = writeMessage(request)
  const repeated = repeatsRequest ? requestBytes : requestBytes.subarray(0, MESSAGE_HEADER)
  const attribute = reason === undefined ? new Uint8Array() : reasonAttribute(reason)
  const body = new Uint8Array(4 + padded(repeated.length) + attribute.length)
  viewOf(body).setInt32(0, -errno, true)
  body.set(repeated, 4)
  body.set(attribute, 4 + padded(repeated.length))
  const flags = (repeatsRequest ? 0 : NlmsgFlags.CAPPED) | (attribute.length > 0 ? NlmsgFlags.ACK_TLVS : 0)
  return writeMessage({ type: NlmsgType.ERROR, flags, sequence: request.sequence, port, body })
}

/** NLMSG_DONE. `port`: of the receiver. `errno`: positive if the list was refused or aborted. */
export const writeDone = ({ sequence }: Message, port: number, errno = 0): Uint8Array => {
  const body = new Uint8Array(4)
  viewOf(body).setInt32(0, -errno, true)
  return writeMessage({ type: NlmsgType.DONE, flags: NlmsgFlags.MULTI, sequence, port, body })
}
