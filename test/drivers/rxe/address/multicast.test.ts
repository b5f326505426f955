/*
 * Multicast groups and their limits. Queue pairs of core's clients have negative rows.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createGroups } from '../../../../src/drivers/rxe/address/multicast.ts'
import type { Port } from '../../../../src/phy/port.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { address } from '../../../ip/link.ts'

it('the limits of groups and memberships are those of the device, and what is detached is free again', () => {
  const joined: string[] = []
  const port: Pick<Port, 'joinGroup' | 'leaveGroup'> = {
    joinGroup: gid => joined.push(`+${gid[15]}`),
    leaveGroup: gid => joined.push(`-${gid[15]}`),
  }
  const groups = createGroups(port, { groups: 2, members: 9, memberships: 4 })
  const attach = (row: number, last: number, mlid = 0) =>
    errnoOf(() => groups.attach(row, address(`239.0.0.${last}`), mlid))
  assert.deepEqual([attach(0, 1), attach(0, 2), attach(0, 3)], ['ok', 'ok', 'ENOMEM'])
  assert.deepEqual([attach(0, 1, 7), attach(1, 1), attach(1, 2)], ['ok', 'ok', 'ENOMEM'])
  assert.equal(attach(1, 1), 'ok', 'the membership exists')
  assert.deepEqual(joined.splice(0), ['+1', '+2'])
  groups.detachAll(0)
  assert.deepEqual(joined.splice(0), ['-2'])
  assert.deepEqual([groups.count(0), groups.count(1), groups.rowsOf(address('239.0.0.1'))], [0, 1, [1]])
  assert.deepEqual([attach(0, 3), attach(2, 1), attach(2, 3), attach(3, 3)], ['ok', 'ok', 'ok', 'ENOMEM'])
  assert.deepEqual(joined, ['+3'])
})

it('the rows of a group are those of its members after each change', () => {
  const port: Pick<Port, 'joinGroup' | 'leaveGroup'> = { joinGroup: () => {}, leaveGroup: () => {} }
  const groups = createGroups(port, { groups: 8, members: 9, memberships: 9 })
  const gid = address('239.0.0.1')
  for (const rows of [[], [0], [0, 1]]) {
    assert.deepEqual(groups.rowsOf(gid), rows)
    groups.attach(rows.length, gid, 0)
  }
  groups.detach(1, gid, 0)
  assert.deepEqual(groups.rowsOf(gid), [0, 2])
})

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
