/*
 * What a frame of the peer does, and which frames break the rules (docs/reference/messages.md).
 */
import { remoteMemory } from '../../verbs/mr/remote-memory.ts'
import { abortedEnd, type End } from './end.ts'
import {
  doneAt,
  FrameType,
  grantedAt,
  HEADER_BYTES,
  HELLO_BYTES,
  type Hello,
  helloAt,
  lengthAt,
  OFFER_BYTES,
  offerAt,
  typeAt,
  VERSION,
} from './frame.ts'
import type { Whole } from './parts.ts'
import type { ReceivedFrame, Receiving } from './receiving.ts'
import type { Sending } from './sending.ts'

const { HELLO, DATA, OFFER, ACK, END, ABORT, UNUSED } = FrameType

interface Reader extends Pick<Whole, 'limits'> {
  readonly receiving: Receiving
  readonly sending: Sending
  /** The peer's HELLO has arrived. */
  opened(hello: Hello): void
  abortedByPeer(end: End): void
}

/** A text of the peer, without control characters: it is part of error messages. */
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\p{Cc}/gu, ' ')

const tooLong = (length: number, agreed: number): string =>
  `a message of ${length} bytes, although ${agreed} were agreed`

const readHello = (reader: Reader, hello: Hello | undefined): string | undefined => {
  if (hello === undefined) return 'HELLO without the magic bytes'
  const { version, slotBytes } = hello
  if (version !== VERSION) return `it speaks version ${version} of messages, and this library version ${VERSION}`
  if (slotBytes < HELLO_BYTES || !reader.sending.hasGrants) return 'HELLO without room for messages'
  reader.opened(hello)
  return undefined
}

/** See `ExecuteFrame`. */
export const readFrame = (reader: Reader, frame: ReceivedFrame, bytes: number, opcode: string): string | undefined => {
  const { limits, receiving, sending } = reader
  if (opcode !== 'RECV') return `${opcode} instead of a SEND`
  if (bytes < HEADER_BYTES) return `a frame of ${bytes} bytes is shorter than a header`
  const { view, at } = frame.buffer
  const type = typeAt(view, at)
  const length = lengthAt(view, at)
  const isHello = type === HELLO
  if (isHello === receiving.hasHello)
    return isHello ? 'a second HELLO' : 'the first frame is not HELLO: does the peer call connection.messages()?'
  const problem = sending.readCounters(grantedAt(view, at), doneAt(view, at))
  if (problem !== undefined) return problem
  if (type === DATA) {
    if (bytes !== HEADER_BYTES + length) return `DATA of ${length} bytes in a frame of ${bytes}`
    if (length > limits.maxMessageBytes) return tooLong(length, limits.maxMessageBytes)
    return receiving.addMessage(frame, length)
  }
  if (type === OFFER) {
    if (bytes !== OFFER_BYTES) return `OFFER in a frame of ${bytes} bytes`
    if (length > limits.maxMessageBytes) return tooLong(length, limits.maxMessageBytes)
    if (length === 0) return 'OFFER of 0 bytes'
    const offer = offerAt(view, at)
    if (offer.address + BigInt(length) > 2n ** 64n) return 'OFFER beyond the address space'
    const tooMany = receiving.addOffer(remoteMemory({ ...offer, length }), length)
    if (tooMany !== undefined) return tooMany
  } else if (type === HELLO) {
    if (bytes !== HELLO_BYTES || length !== 0) return `HELLO in a frame of ${bytes} bytes`
    const wrong = readHello(reader, helloAt(view, at))
    if (wrong !== undefined) return wrong
  } else if (type === ACK || type === END || type === UNUSED) {
    if (bytes !== HEADER_BYTES || length !== 0) return `a frame without a message has ${bytes} bytes`
    if (type === END) receiving.endOfPeer()
    else if (type === UNUSED) {
      const noCredit = receiving.giveUpGrant()
      if (noCredit !== undefined) return noCredit
    }
  } else if (type === ABORT) {
    if (bytes !== HEADER_BYTES + length) return `ABORT of ${length} bytes in a frame of ${bytes}`
    reader.abortedByPeer(abortedEnd('the peer', textOf(frame.buffer.bytes.subarray(at + HEADER_BYTES, at + bytes))))
    frame.buffer.giveBack()
    return undefined
  } else return type === undefined ? 'reserved bytes are not 0' : `unknown frame type ${type}`
  receiving.reuse(frame)
  return undefined
}
