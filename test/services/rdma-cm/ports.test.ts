/*
 * Shares of ephemeral ports.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { type PortHolder, PortTable } from '../../../src/services/rdma-cm/ports.ts'
import { anyAddress, Family } from '../../../src/services/socket-address.ts'
import { CmPortSpace } from '../../../src/spec/enums.ts'
import { accountIn, OWNER } from '../../core/accounts.ts'

const { TCP, UDP } = CmPortSpace.values
/** Number of ephemeral ports: the default of Linux's net.ipv4.ip_local_port_range. */
const EPHEMERAL_PORTS = 60999 - 32768 + 1

/** What the owner does not keep. */
const FOR_GUESTS = Math.floor((EPHEMERAL_PORTS * 7) / 8)

const setUp = () => {
  // Instead of random numbers: the search for a free port begins at the next port each time.
  let next = 0
  const table = new PortTable(() => next++)
  const limits = createSharedLimits()
  const bind = (user: number, portSpace: number = TCP, wanted = 0): PortHolder => {
    const source = { ...anyAddress(Family.INET), port: wanted }
    const holder = { portSpace, source: undefined, onlyDevice: undefined, reuseAddress: false, onlyIpv6: false }
    return Object.assign(holder, { source: { ...source, port: table.bind(holder, source, accountIn(limits, user)) } })
  }
  /** Binds ports until a refusal. */
  const bindAll = (user: number, portSpace?: number): PortHolder[] => {
    const taken: PortHolder[] = []
    try {
      for (;;) taken.push(bind(user, portSpace))
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'EADDRNOTAVAIL', String(error))
      return taken
    }
  }
  return { table, bind, bindAll }
}

test('each guest gets half of the ports that no other guest and the owner’s reserve holds, in each port space', () => {
  const { table, bind, bindAll } = setUp()
  const first = bindAll(1)
  const half = Math.floor(FOR_GUESTS / 2)
  assert.equal(first.length, half)
  assert.throws(() => bind(1), {
    message: `cm_id: user 1 has ${half} ephemeral ports and may have ${half}, half of what no other user has and the owner does not keep; destroy some identifiers`,
  })
  const second = bindAll(2).length
  assert.equal(second, Math.floor((FOR_GUESTS - half) / 2))
  assert.equal(bindAll(1, UDP).length, half)
  for (const holder of first) table.release(holder)
  assert.equal(bindAll(1).length, Math.floor((FOR_GUESTS - second) / 2))
  assert.equal(bindAll(OWNER, UDP).length, EPHEMERAL_PORTS - half)
})

test('a guest’s share includes ephemeral ports that it bound by number, but no ports outside the range', () => {
  const { bind, bindAll } = setUp()
  for (let i = 0; i < 100; i++) {
    bind(1, TCP, 60_999 - i)
    bind(1, TCP, 1000 + i)
  }
  assert.equal(bindAll(1).length, Math.floor(FOR_GUESTS / 2) - 100)
})
