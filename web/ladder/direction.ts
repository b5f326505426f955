/*
 * What is known of the requests of one side of a connection, whose packets go to the other: which were posted, sent and
 * acknowledged, and what the sender waits for.
 */

import type { PostedEvent } from '../../src/spec/session-events.ts'
import { operations } from '../../src/spec/wire/opcodes.ts'
import { SendKind, sendOperations } from '../../src/spec/work.ts'
import { psnDifference } from '../../src/transport/wire/bth.ts'
import { plural, psnText } from '../format.ts'
import { Recent } from './recent.ts'
import { PSN_MASK, type Wait } from './row.ts'

/** PSNs whose requests are remembered for retransmissions. */
const MAX_REMEMBERED = 8192

/** By ibv_wr_opcode: the kind of the request's packets. */
const requestKinds: ReadonlyMap<number, string | undefined> = new Map(
  Object.entries(sendOperations)
    .filter(([, { kind }]) => kind !== SendKind.LOCAL)
    .map(([opcode, { only }]) => [Number(opcode), operations.find(({ code }) => code === only)?.kind]),
)

/** What is known of the requests of one side, whose packets go to the other. */
export interface Direction {
  /** The newest request PSN that was sent, and response PSN that was received. */
  highest: number | undefined
  highestResponse: number | undefined
  /** The last PSN that was acknowledged. */
  acknowledged: number | undefined
  /** Sends that were fetched, and not seen in packets yet. */
  readonly posted: PostedEvent[]
  current: PostedEvent | undefined
  /** By PSN: when it was sent for the first time, and the request. */
  readonly sent: Recent<{ readonly time: number; readonly request: PostedEvent | undefined }>
  /** An unanswered NAK: why the next retransmission comes. */
  nak: { readonly wait: Wait; readonly time: number; readonly text: string } | undefined
}

/** `acknowledged`: the PSN before the first; undefined: it is unknown. */
export const newDirection = (acknowledged: number | undefined): Direction => ({
  highest: undefined,
  highestResponse: undefined,
  acknowledged,
  posted: [],
  current: undefined,
  sent: new Recent(MAX_REMEMBERED),
  nak: undefined,
})

/** The request of the first packet of a message: the oldest that was not sent yet, if it is of this kind. */
export const takePosted = (own: Direction, kind: string): PostedEvent | undefined => {
  // Local operations have no packets.
  while (own.posted.length > 0) {
    const posted = own.posted.shift()!
    if (requestKinds.get(posted.request.opcode) === kind) return posted
  }
  return undefined
}

/** What an ACK of `psn` acknowledges beyond `before`, the last PSN that was acknowledged. */
export const acknowledgedText = (before: number | undefined, psn: number): string => {
  const count = before === undefined ? 0 : psnDifference(psn, before)
  if (before !== undefined && count <= 0) return 'acknowledged before'
  if (before === undefined || count === 1) return `acknowledges ${psnText(psn)}`
  return `acknowledges ${psnText((before + 1) & PSN_MASK)}–${psnText(psn)} · ${plural(count, 'packet')}`
}
