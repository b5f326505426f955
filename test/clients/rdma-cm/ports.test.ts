/*
 * Quotas of ephemeral ports.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type PortHolder, PortTable } from '../../../src/clients/rdma-cm/ports.ts'
import { anyAddress, Family } from '../../../src/clients/rdma-cm/socket-address.ts'
import { CmPortSpace } from '../../../src/spec/enums.ts'

const { TCP, UDP } = CmPortSpace.values
/** Number of ephemeral ports: the default of Linux's net.ipv4.ip_local_port_range. */
const EPHEMERAL_PORTS = 60999 - 32768 + 1

const setUp = () => {
  // Instead of random numbers: the search for a free port begins at the next port each time.
  let next = 0
  const table = new PortTable(() => next++)
  const bind = (user: number | undefined, portSpace: number = TCP, wanted = 0): PortHolder => {
    const source = { ...anyAddress(Family.INET), port: wanted }
    const holder = { portSpace, source: undefined, onlyDevice: undefined, reuseAddress: false, onlyIpv6: false }
    return Object.assign(holder, { source: { ...source, port: table.bind(holder, source, user) } })
  }
  /** Binds ports until a refusal. */
  const bindAll = (user: number | undefined, portSpace?: number): PortHolder[] => {
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

test('each limited user gets half of the ports that no other user holds, in each port space', () => {
  const { table, bind, bindAll } = setUp()
  const first = bindAll(1)
  assert.equal(first.length, EPHEMERAL_PORTS / 2)
  assert.throws(() => bind(1), { message: /user 1 holds 14116 ephemeral ports and may hold 14116/ })
  assert.equal(bindAll(2).length, EPHEMERAL_PORTS / 4)
  assert.equal(bindAll(1, UDP).length, EPHEMERAL_PORTS / 2)
  for (const holder of first) table.release(holder)
  assert.equal(bindAll(1).length, (EPHEMERAL_PORTS - EPHEMERAL_PORTS / 4) / 2)
})

test('a user without limit can take all remaining ports', () => {
  const { bindAll } = setUp()
  const limitedUserPorts = bindAll(1).length
  assert.equal(bindAll(undefined).length, EPHEMERAL_PORTS - limitedUserPorts)
})

test('a limited user’s share includes ephemeral ports that it bound by number, but no ports outside the range', () => {
  const { bind, bindAll } = setUp()
  for (let i = 0; i < 100; i++) {
    bind(1, TCP, 60_999 - i)
    bind(1, TCP, 1000 + i)
  }
  assert.equal(bindAll(1).length, EPHEMERAL_PORTS / 2 - 100)
})
