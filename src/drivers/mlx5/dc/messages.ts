/*
 * Packets of DC connections (spec/wire/headers.ts, DCETH and DCAETH). They wait here until the port has room: they are
 * few, and a lost one is repeated by its initiator.
 */

import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { opcodeHeaderBytes, opcodeNumber } from '../../../spec/wire/opcodes.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import {
  BTH_BYTES,
  bthDestQp,
  bthOpcode,
  bthPkey,
  bthPsn,
  bthVersion,
  isOfPartitions,
  putBth,
} from '../../../transport/wire/bth.ts'
import { checkPacket } from '../../../transport/wire/packet.ts'
import type { PathBack } from '../../soft/address/path.ts'
import type { SoftState } from '../../soft/state.ts'
import { DC_MAX_CONNECTIONS } from './answers.ts'

export const DcOpcode = {
  CONNECT: opcodeNumber.DC_CONNECT,
  KEEP: opcodeNumber.DC_KEEP,
  DISCONNECT: opcodeNumber.DC_DISCONNECT,
  ANSWER: opcodeNumber.DC_ANSWER,
} as const

interface Message {
  readonly opcode: number
  readonly destQpn: number
  /** The number of the connection, of the initiator. */
  readonly connection: number
  readonly psn: number
}

/** From an initiator. `key`: two halves of the access key. */
export interface Request extends Message {
  readonly initiatorQpn: number
  readonly replyQpn: number
  readonly keyHi: number
  readonly keyLo: number
}

/** From a target. `status`: `DcStatus`. `responderQpn`: 0 unless accepted. */
export interface Answer extends Message {
  readonly initiatorQpn: number
  readonly status: number
  readonly responderQpn: number
}

/** Words of headers after the BTH. */
const At = { first: BTH_BYTES, connection: BTH_BYTES + 4, third: BTH_BYTES + 8, key: BTH_BYTES + 12 } as const
const QPN_MASK = 0xff_ffff

/** The packet of `length` bytes at `at` as a message; undefined if it is none, or of none of the port's partitions. */
export const readMessage = (
  { pkeys }: SoftState,
  { view }: Arena,
  at: number,
  length: number,
): Request | Answer | undefined => {
  if (checkPacket(view, at, length) !== 0 || bthVersion(view, at) !== 0) return undefined
  if (!isOfPartitions(pkeys, bthPkey(view, at))) return undefined
  const opcode = bthOpcode(view, at)
  const first = view.getUint32(at + At.first)
  const third = view.getUint32(at + At.third) & QPN_MASK
  const destQpn = bthDestQp(view, at)
  const connection = view.getUint32(at + At.connection)
  const psn = bthPsn(view, at)
  const initiatorQpn = first & QPN_MASK
  if (opcode === DcOpcode.ANSWER)
    return { opcode, destQpn, connection, psn, initiatorQpn, status: first >>> 24, responderQpn: third }
  if (opcode !== DcOpcode.CONNECT && opcode !== DcOpcode.KEEP && opcode !== DcOpcode.DISCONNECT) return undefined
  const keyHi = view.getUint32(at + At.key)
  const keyLo = view.getUint32(at + At.key + 4)
  return { opcode, destQpn, connection, psn, initiatorQpn, replyQpn: third, keyHi, keyLo }
}

const isAnswer = (message: Request | Answer): message is Answer => message.opcode === DcOpcode.ANSWER

/** Messages that wait, at most: others are not sent. */
const MAX_WAITING = DC_MAX_CONNECTIONS.device

/** The path of a message. */
export type Path = PathBack

export class Outbox {
  readonly #soft: SoftState
  readonly #waiting: { message: Request | Answer; flow: number }[] = []

  constructor(soft: SoftState) {
    this.#soft = soft
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0
  }

  /** Sends the message on `flow`, which stays open until then, when the port has room. */
  add(message: Request | Answer, flow: number): void {
    if (this.#waiting.length >= MAX_WAITING) return
    this.#soft.port.reopenFlow(flow)
    this.#waiting.push({ message, flow })
  }

  /** Sends what the port has room for. True if there was anything. */
  transmit(): boolean {
    const { port, pkeys, releasedFlows } = this.#soft
    const { counters } = this.#soft.engine()
    let sent = 0
    for (const { message, flow } of this.#waiting) {
      const bytes = opcodeHeaderBytes[message.opcode]! + ICRC_BYTES
      const at = port.reserve(bytes)
      if (at < 0) break
      const { view } = port.arena
      const { opcode, destQpn, connection, psn, initiatorQpn } = message
      putBth(view, at, opcode, 0, pkeys[0]!, destQpn, psn)
      view.setUint32(at + At.connection, connection)
      if (isAnswer(message)) {
        view.setUint32(at + At.first, ((message.status << 24) | initiatorQpn) >>> 0)
        view.setUint32(at + At.third, message.responderQpn)
      } else {
        view.setUint32(at + At.first, initiatorQpn)
        view.setUint32(at + At.third, message.replyQpn)
        view.setUint32(at + At.key, message.keyHi)
        view.setUint32(at + At.key + 4, message.keyLo)
      }
      port.commit(at, bytes, 1, bytes, flow)
      counters.sentPackets++
      releasedFlows.push(flow)
      sent++
    }
    if (sent > 0) port.flush()
    this.#waiting.splice(0, sent)
    return sent > 0
  }
}
