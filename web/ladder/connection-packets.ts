/*
 * Which events and packets are of a connection, and who has sent them.
 */

import type { PacketsEvent } from '../../src/spec/session-events.ts'
import { sourceQpnAt } from '../../src/spec/wire/opcodes.ts'
import type { WantedEvents } from '../../src/tools/record/decode.ts'
import type { Connection } from '../../src/tools/record/objects.ts'
import { choiceOf } from '../data/keys.ts'
import type { Side } from './row.ts'

/** The side of a connection that has sent these packets; undefined: they are not of the connection. */
export const senderOf = (
  { left, right, rightQpn }: Connection,
  { bytes, device, direction }: Pick<PacketsEvent, 'bytes' | 'device' | 'direction'>,
  destQpn: number,
): Side | undefined => {
  const isToLeft = destQpn === left.qpn
  if (rightQpn === undefined) {
    if (isToLeft && (direction === 'received' || left.object.device !== device || srcQpnOf(bytes) !== left.qpn))
      return 1
    return srcQpnOf(bytes) === left.qpn && left.object.device === device ? 0 : isToLeft ? 1 : undefined
  }
  const isToRight = destQpn === rightQpn
  // Queue pairs of different devices may have the same number.
  if (isToLeft && isToRight) return (direction === 'sent') === (device === left.object.device) ? 0 : 1
  if (isToLeft) return right === undefined || direction === 'received' || device === right.object.device ? 1 : undefined
  return isToRight && (direction === 'received' || device === left.object.device) ? 0 : undefined
}

/** The source queue pair of a datagram or packet of SRD. */
export const srcQpnOf = (bytes: Uint8Array): number | undefined => {
  const at = sourceQpnAt(bytes[0]!)
  if (at === 0 || bytes.length < at + 4) return undefined
  return (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
}

const ROW_KINDS = new Set([
  'packets',
  'posted',
  'completed',
  'object',
  'call',
  'failure',
  'receiverNotReady',
  'finding',
  'lost',
] as const)

/** The events that a ladder has rows of, or needs for them. */
export const wantedOf = (connection: Connection): WantedEvents => ({ kinds: ROW_KINDS, ...choiceOf(connection) })
