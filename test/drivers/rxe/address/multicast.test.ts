/*
 * The limit of queue pairs in a multicast group. Queue pairs of core's clients have negative rows.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createGroups } from '../../../../src/drivers/rxe/address/multicast.ts'
import type { Port } from '../../../../src/phy/port.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { address } from '../../../ip/link.ts'

it("queue pairs of core's clients do not count towards the limit", () => {
  const port: Pick<Port, 'joinGroup' | 'leaveGroup'> = { joinGroup: () => {}, leaveGroup: () => {} }
  const groups = createGroups(port, { groups: 8, members: 2, memberships: 100 })
  const gid = address('239.255.255.255')
  for (const row of [-17, -18, -19, 0, 1]) groups.attach(row, gid, 0)
  assert.equal(
    errnoOf(() => groups.attach(2, gid, 0)),
    'ENOMEM',
  )
  groups.attach(-20, gid, 0)
  assert.deepEqual(groups.rowsOf(gid), [-17, -18, -19, 0, 1, -20])
})
