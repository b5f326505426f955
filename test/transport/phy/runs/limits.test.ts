import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  RUN_BYTES,
  RUN_PACKETS,
  requireRun,
  requireRunBytes,
  SHORTEST_PACKET,
} from '../../../../src/transport/phy/runs/limits.ts'

/** `reservationEnd` while nothing is reserved. */
const NO_RESERVATION = -1

test('a run must be inside the reservation, and its lengths consistent', () => {
  // Arguments: offset, packetBytes, count, lastBytes, unusedBegin, reservationEnd. The result is the end of the run.
  assert.equal(requireRun(100, 64, 3, 32, 100, 260), 100 + 2 * 64 + 32)
  assert.equal(requireRun(100, 64, 1, SHORTEST_PACKET, 90, 260), 100 + SHORTEST_PACKET)
  const OUTSIDE = /is not inside the unused part of the reservation, \[100, 260\)/
  const WRONG_COUNT_OR_LENGTH = /there must be 1 to 1024 packets, and the last must have 16 bytes or more/
  const wrong: readonly (readonly [string, RegExp, Parameters<typeof requireRun>])[] = [
    ['ends after the reservation', OUTSIDE, [100, 64, 3, 33, 100, 260]],
    ['begins before the reservation', OUTSIDE, [99, 64, 3, 32, 100, 260]],
    ['has no packet', WRONG_COUNT_OR_LENGTH, [100, 64, 0, 64, 100, 260]],
    ['has too many packets', WRONG_COUNT_OR_LENGTH, [0, 16, RUN_PACKETS + 1, 16, 0, RUN_BYTES]],
    ['has a last packet shorter than BTH and ICRC', WRONG_COUNT_OR_LENGTH, [100, 64, 2, SHORTEST_PACKET - 1, 100, 260]],
    ['has a last packet longer than the others', WRONG_COUNT_OR_LENGTH, [100, 64, 2, 65, 100, 260]],
  ]
  for (const [mistake, message, args] of wrong) assert.throws(() => requireRun(...args), message, mistake)
  assert.throws(() => requireRun(100, 64, 1, 64, 100, NO_RESERVATION), /commit without reserve/)
  assert.throws(() => requireRunBytes(RUN_BYTES + 1), /a run has at most 270336 bytes, not 270337/)
})
