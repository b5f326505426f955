/*
 * Multicast groups and their limits. Queue pairs of core's clients have negative rows.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Account } from '../../../../src/core/model.ts'
import { createSharedLimits } from '../../../../src/daemon/accounts.ts'
import { createGroups } from '../../../../src/drivers/soft/address/multicast.ts'
import { accountIn, GUEST, OWNER } from '../../../core/accounts.ts'
import { errnoOf } from '../../../core/fixture.ts'
import { address } from '../../../services/ip-engine/link.ts'

/** `joined` lists the groups that the port joins (+) and leaves (-), by the last byte of the GID. */
const createTestGroups = (limits: Parameters<typeof createGroups>[1], hasGroupSockets = false) => {
  const joined: string[] = []
  const groups = createGroups(
    { joinGroup: gid => joined.push(`+${gid[15]}`), leaveGroup: gid => joined.push(`-${gid[15]}`), hasGroupSockets },
    limits,
  )
  /** Attaches the queue pair of a row to group 239.0.0.`group`; returns the errno, or 'ok'. */
  const attach = (row: number, group: number, mlid = 0, account?: Account) =>
    errnoOf(() => groups.attach(row, address(`239.0.0.${group}`), mlid, account))
  return { groups, joined, attach }
}

it('the number of groups is limited; a group ends with its last membership', () => {
  const { groups, joined, attach } = createTestGroups({ groups: 2, members: 9, memberships: 9 })
  assert.deepEqual([attach(0, 1), attach(0, 2), attach(0, 3)], ['ok', 'ok', 'ENOMEM'])
  assert.equal(attach(1, 1), 'ok')
  assert.deepEqual(joined.splice(0), ['+1', '+2'])
  groups.detachAll(0)
  assert.deepEqual(joined.splice(0), ['-2'])
  assert.deepEqual([groups.count(0), groups.count(1), groups.rowsOf(address('239.0.0.1'))], [0, 1, [1]])
  assert.equal(attach(0, 3), 'ok')
  assert.deepEqual(joined, ['+3'])
})

it('a group keeps its GID if the program writes to the Buffer of the GID', () => {
  const { groups, joined } = createTestGroups({ groups: 2, members: 9, memberships: 9 })
  const gid = Buffer.from(address('239.0.0.1'))
  groups.attach(0, gid, 0)
  gid.fill(0)
  groups.detachAll(0)
  assert.deepEqual(joined, ['+1', '-1'])
})

it('the number of memberships, which differ by queue pair, group or MLID, is limited', () => {
  const { groups, attach } = createTestGroups({ groups: 9, members: 9, memberships: 3 })
  assert.deepEqual([attach(0, 1), attach(0, 1, 7), attach(1, 1), attach(1, 2)], ['ok', 'ok', 'ok', 'ENOMEM'])
  assert.equal(attach(1, 1), 'ok', 'the membership exists')
  groups.detachAll(0)
  assert.deepEqual([attach(1, 2), attach(2, 1), attach(2, 2)], ['ok', 'ok', 'ENOMEM'])
})

it('the rows of a group are those of its members after each change', () => {
  const { groups } = createTestGroups({ groups: 8, members: 9, memberships: 9 })
  const gid = address('239.0.0.1')
  for (const rows of [[], [0], [0, 1]]) {
    assert.deepEqual(groups.rowsOf(gid), rows)
    groups.attach(rows.length, gid, 0)
  }
  groups.detach(1, gid, 0)
  assert.deepEqual(groups.rowsOf(gid), [0, 2])
})

it("queue pairs of core's clients do not count towards the limit of members", () => {
  const { groups } = createTestGroups({ groups: 8, members: 2, memberships: 100 })
  const gid = address('239.255.255.255')
  for (const row of [-17, -18, -19, 0, 1]) groups.attach(row, gid, 0)
  assert.equal(
    errnoOf(() => groups.attach(2, gid, 0)),
    'ENOMEM',
  )
  groups.attach(-20, gid, 0)
  assert.deepEqual(groups.rowsOf(gid), [-17, -18, -19, 0, 1, -20])
})

it('a group, and its socket on a port with sockets, is of the first member; after that, of the next one', () => {
  const limits = createSharedLimits({ descriptors: 64 })
  const [owner, guest] = [accountIn(limits), accountIn(limits, GUEST, 2)]
  const { groups, attach } = createTestGroups({ groups: 8, members: 99, memberships: 99 }, true)
  const held = () => [`user ${OWNER}`, 'user 7'].map(name => limits.descriptors.held.get(name))
  // Three of the seven that the owner does not keep.
  assert.deepEqual(
    [1, 2, 3, 4].map(group => attach(0, group, 0, guest)),
    ['ok', 'ok', 'ok', 'ENOMEM'],
  )
  assert.equal(attach(1, 1, 0, owner), 'ok')
  assert.deepEqual(held(), [undefined, 3])
  groups.detach(0, address('239.0.0.1'), 0)
  assert.deepEqual(held(), [1, 2])
  assert.equal(attach(0, 4, 0, guest), 'ok')
  for (const row of [0, 1]) groups.detachAll(row)
  assert.equal(limits.descriptors.used, 0)
})
