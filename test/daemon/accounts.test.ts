/*
 * Every limit that clients of a daemon share: what one guest, many guests and the owner may have.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { describe, it, test } from 'node:test'
import fc from 'fast-check'
import { createCore, invokeNow, noMemory, openContext } from '../../src/core/index.ts'
import type { Account } from '../../src/core/model.ts'
import { take } from '../../src/core/objects/limits.ts'
import {
  accountOf,
  createSharedLimits,
  memoryOfProcesses,
  type SharedLimits,
  takeRings,
} from '../../src/daemon/accounts.ts'
import { ContextMemory } from '../../src/daemon/context/context-file.ts'
import { createNullDevice } from '../../src/drivers/null/device.ts'
import { createGroups } from '../../src/drivers/soft/address/multicast.ts'
import { createRingPool } from '../../src/host/memory/mapping.ts'
import { PortTable } from '../../src/services/rdma-cm/ports.ts'
import { anyAddress, Family } from '../../src/services/socket-address.ts'
import { IpInterfaceClass } from '../../src/spec/classes/device/ip.ts'
import { Pd } from '../../src/spec/classes/pd.ts'
import { CmPortSpace } from '../../src/spec/enums.ts'
import { accountIn, GUEST, OWNER } from '../core/accounts.ts'
import { address } from '../services/ip-engine/link.ts'
import { twoHosts } from '../services/rdma-cm/hosts.ts'

const MIB = 2 ** 20
const caller = { memory: noMemory, copyIn: () => new Uint8Array(), copyOut: () => {}, descriptor: () => undefined }

/** Takes one unit for an account; throws if it may not. */
type Take = (account: Account) => unknown

/** Maxima for the tests. */
const max = { memory: 64 * MIB, descriptors: 1024, sessions: 1024, mappings: 1024, addresses: 2 ** 36 }
const UNITS = 1024

const groupsOf = (limits: Partial<Parameters<typeof createGroups>[1]>, hasGroupSockets = false) => {
  const port = { joinGroup: () => {}, leaveGroup: () => {}, hasGroupSockets }
  const groups = createGroups(port, { groups: 1e6, members: 1e6, memberships: 1e6, ...limits })
  return (row: number, group: number, mlid: number, account: Account) =>
    groups.attach(row, address(`239.0.${group >> 8}.${group & 255}`), mlid, account)
}

/** By limit: its maximum, and a function that takes a unit. */
const rows: Readonly<Record<string, () => { readonly units: number; readonly take: Take }>> = {
  'bytes of memory': () => ({
    units: UNITS,
    take: account => take(account.memory, account, 'a test', max.memory / UNITS),
  }),
  descriptors: () => ({ units: max.descriptors, take: account => take(account.descriptors, account, 'a test') }),
  sessions: () => ({ units: max.sessions, take: account => take(account.sessions, account, 'a test') }),
  'mappings of rings': () => ({ units: max.mappings, take: account => takeRings(account, 4096) }),
  'addresses of rings': () => ({ units: 512, take: account => takeRings(account, max.addresses / 512) }),
  'objects of a class': () => {
    const device = createNullDevice(createCore(), 'null0')
    return {
      units: device.limits.get('pd')!.max,
      take: account => invokeNow(openContext(device, { isOpened: true, account }), Pd, 'create', 0, {}, caller),
    }
  },
  'ephemeral ports': () => {
    let next = 0
    const ports = new PortTable(() => next++)
    const source = { ...anyAddress(Family.INET), port: 0 }
    const holder = { onlyDevice: undefined, reuseAddress: false, onlyIpv6: false, source: undefined }
    return {
      units: 60_999 - 32_768 + 1,
      take: account => ports.bind({ portSpace: CmPortSpace.values.TCP, ...holder }, source, account),
    }
  },
  'multicast groups': () => {
    let next = 0
    const attach = groupsOf({ groups: UNITS })
    return { units: UNITS, take: account => attach(next, next++, 0, account) }
  },
  'sockets of multicast groups': () => {
    let next = 0
    const attach = groupsOf({}, true)
    return { units: max.descriptors, take: account => attach(next, next++, 0, account) }
  },
  'queue pairs in a multicast group': () => {
    let next = 0
    const attach = groupsOf({ members: UNITS })
    return { units: UNITS, take: account => attach(next++, 1, 0, account) }
  },
  'memberships of multicast groups': () => {
    let next = 0
    const attach = groupsOf({ memberships: UNITS })
    return { units: UNITS, take: account => attach(1, 1, next++, account) }
  },
  'IP interfaces': () => {
    const { device } = twoHosts().a.devices.get('rxe1')!
    let next = 0
    return {
      units: 256,
      take: account =>
        invokeNow(
          openContext(device, { isOpened: true, account }),
          IpInterfaceClass,
          'create',
          0,
          { address: address(`10.9.${next >> 7}.${(next++ & 127) + 1}`) },
          caller,
        ),
    }
  },
}

/** Takes until a refusal; returns the number. */
const takeAll = (account: Account, takeOne: Take): number => {
  for (let taken = 0; ; taken++)
    try {
      takeOne(account)
    } catch (error) {
      assert.ok(['ENOMEM', 'EMFILE', 'ENFILE', 'EADDRNOTAVAIL'].includes((error as { code: string }).code), `${error}`)
      return taken
    }
}

describe('in each limit', () => {
  for (const [name, setUp] of Object.entries(rows))
    it(`one guest leaves half, and many guests leave the owner an eighth: ${name}`, () => {
      const { units, take: takeOne } = setUp()
      const limits = createSharedLimits(max)
      let pid = 1
      /** What some processes of a user take together. */
      const takeAsUser = (user: number): number => {
        let taken = 0
        for (let i = 0; i < 6; i++) taken += takeAll(accountIn(limits, user, pid++), takeOne)
        return taken
      }
      const guests = [takeAsUser(GUEST)]
      assert.ok(guests[0]! <= units / 2 && guests[0]! > units / 4, `the first guest: ${guests[0]} of ${units}`)
      for (let user = 1; user <= 20; user++) guests.push(takeAsUser(OWNER + user))
      assert.ok(guests[1]! >= units / 8 && guests[2]! >= units / 16, `the next guests: ${guests.slice(1, 3)}`)
      const sum = guests.reduce((total, taken) => total + taken, 0)
      const own = takeAsUser(OWNER)
      // A process of the owner may have half of what its other processes have left.
      assert.ok(sum <= (units * 7) / 8 && own >= units / 9, `guests ${sum}, owner ${own} of ${units}`)
    })
})

test('a process may have half of what its user may have', () => {
  const limits = createSharedLimits(max)
  const takeOne: Take = account => take(account.descriptors, account, 'a session')
  assert.deepEqual(
    [1, 2, 3].map(pid => takeAll(accountIn(limits, OWNER, pid), takeOne)),
    [512, 256, 128],
  )
  assert.throws(() => takeOne(accountIn(limits, OWNER, 2)), {
    code: 'EMFILE',
    message:
      'a session: process 2 has 256 descriptors of the daemon and may have 192, half of what no other process of its user has; close some, or start the daemon with a higher RLIMIT_NOFILE',
  })
  assert.throws(() => take(limits.memory, accountIn(limits), 'a test', 33 * MIB), {
    code: 'ENOMEM',
    message:
      "a test: process 1 has 0.0 MiB of the daemon's memory and may have 32 MiB, half of what no other process of its user has; 33 MiB more are needed; destroy objects, or read what waits",
  })
})

test('random takes and releases never exceed the limit or the guests’ part, and all is released', () => {
  const steps = fc.array(
    fc.record({ pid: fc.nat(5), user: fc.constantFrom(OWNER, GUEST, 8), count: fc.nat(30), releases: fc.nat(9) }),
  )
  fc.assert(
    fc.property(fc.nat(300), steps, (descriptors, all) => {
      const limits = createSharedLimits({ descriptors })
      const { descriptors: limit } = limits
      const taken: (() => void)[] = []
      for (const { pid, user, count, releases } of all) {
        try {
          taken.push(take(limit, accountIn(limits, user, pid), 'a test', count))
          const guests = limit.held.get(`all users but ${OWNER} together`) ?? 0
          if (user !== OWNER) assert.ok(guests <= (7 / 8) * (descriptors - (limit.used - guests)))
        } catch (error) {
          assert.ok((error as { code?: string }).code?.endsWith('FILE'), `${error}`)
          for (const release of taken.splice(0, releases)) release()
        }
        assert.ok(limit.used <= descriptors)
      }
      // A second release has no effect.
      for (const release of [...taken, ...taken]) release()
      assert.deepEqual([limit.used, limit.held.size], [0, 0])
    }),
  )
})

test('a context is charged for the parts of its file that the daemon maps, until they are unmapped', () => {
  const limits = createSharedLimits({ mappings: 200, addresses: 2 ** 32 })
  const charged = () => [limits.mappings.used, limits.addresses.used]
  const memory = new ContextMemory(createRingPool(), false, accountIn(limits, GUEST))
  const [small, other, large] = [1, 5000, 5 * MIB].map(bytes => memory.allocate(bytes))
  assert.deepEqual(charged(), [2, 9 * MIB])
  assert.throws(() => memory.allocate(3 * 2 ** 30), { code: 'ENOMEM' })
  memory.free(large!)
  memory.free(small!)
  assert.deepEqual(charged(), [1, MIB])
  memory.free(other!)
  memory.allocate(1)
  memory.close()
  assert.deepEqual(charged(), [0, 0])
})

test('processes are listed by their memory, largest first', () => {
  const limits = createSharedLimits()
  for (const [pid, bytes] of [
    [3, 10],
    [2, 30],
    [1, 10],
  ] as const)
    take(limits.memory, accountIn(limits, pid === 2 ? GUEST : OWNER, pid), 'a test', bytes)
  assert.deepEqual(memoryOfProcesses(limits), [
    { pid: 2, bytes: 30 },
    { pid: 1, bytes: 10 },
    { pid: 3, bytes: 10 },
  ])
})

test('the owner is the effective user of the daemon', t => {
  t.mock.method(process as { geteuid(): number }, 'geteuid', () => GUEST)
  const limits = createSharedLimits(max)
  const takeOne: Take = account => take(account.descriptors, account, 'a test')
  const users = [GUEST, GUEST, OWNER].map((user, i) => takeAll(accountOf(limits, i, user, user), takeOne))
  assert.deepEqual(users.slice(0, 2), [512, 256])
  assert.ok(users[2]! < 128)
})

test('by default programs may have all descriptors of the daemon but the open ones and 32', () => {
  const limit = Number(spawnSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).stdout)
  // The list contains its own descriptor, here and in createSharedLimits.
  const open = readdirSync('/proc/self/fd').length
  const { descriptors }: SharedLimits = createSharedLimits()
  assert.equal(descriptors.max, limit - open - 32)
})
