/*
 * How a session finds the events of a connection.
 */

import { packetKey } from '../../src/spec/session-file.ts'
import type { Connection } from '../../src/tools/record/objects.ts'

/** By which the session finds the blocks with events of a connection; undefined: in all. */
export const keysOf = ({ left, right, rightQpn }: Connection): readonly number[] | undefined =>
  // Packets of a datagram queue pair have many destinations.
  rightQpn === undefined
    ? undefined
    : [left.object.id, ...(right ? [right.object.id] : []), packetKey(left.qpn), packetKey(rightQpn)]

/** Which events of these blocks are of the connection. */
export const choiceOf = ({ left, right, rightQpn }: Connection) => ({
  objects: new Set([left.object.id, ...(right ? [right.object.id] : [])]),
  ...(rightQpn !== undefined && { destinations: new Set([left.qpn, rightQpn]) }),
})
