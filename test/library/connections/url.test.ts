/*
 * The URLs of connections (R17): names, network interfaces, ports and brackets.
 */
import assert from 'node:assert/strict'
import { syncBuiltinESMExports } from 'node:module'
import os from 'node:os'
import { it } from 'node:test'
import { resolveUrl, shownAddress } from '../../../src/library/connections/url.ts'
import { ipAddress } from '../../../src/services/socket-address.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'

it('the name of an interface stands for its index, also if it has other IPv6 addresses', async t => {
  const address = (text: string, scopeid: number) => ({ address: text, family: 'IPv6', scopeid })
  // Linux gives global addresses the scope id 0.
  const interfaces = {
    lo: [address('::1', 0)],
    eth0: [{ address: '192.0.2.2', family: 'IPv4' }, address('fd00::2', 0), address('fe80::2', 4)],
  }
  t.mock.method(os, 'networkInterfaces', () => interfaces as never)
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  assert.equal((await resolveUrl('connect', 'rdma://[fe80::1%eth0]:7471')).scope, 4)
  for (const index of [7, 2 ** 31 - 1])
    assert.equal((await resolveUrl('connect', `rdma://[fe80::1%${index}]:7471`)).scope, index)
  for (const name of ['lo', 'eth1', String(2 ** 31)])
    await assert.rejects(resolveUrl('connect', `rdma://[fe80::1%${name}]:7471`), {
      code: 'EINVAL',
      reason: `there is no interface ${name} with a link-local IPv6 address`,
    })
})

it('a port has 16 bits, and only an IPv6 address has brackets', async () => {
  assert.equal((await resolveUrl('connect', 'rdma://10.0.0.2:65535')).port, 65535)
  for (const url of ['rdma://10.0.0.2:65536', 'rdma://[10.0.0.2]:7471', 'rdma://[fe80::g]:7471', 'rdma://fe80::1:7471'])
    await assert.rejects(resolveUrl('connect', url), { code: 'EINVAL', call: 'connect' })
})

it('a host may be a name', async () => {
  const { address } = shownAddress(await resolveUrl('connect', 'rdma://localhost:7471'))
  assert.ok(['127.0.0.1', '::1'].includes(address), address)
})

it('an address is shown as a URL writes it', () => {
  for (const text of ['10.0.0.2', 'fd00::2'])
    assert.deepEqual(shownAddress(ipAddress(parseAddress(text)!, 7471)), { address: text, port: 7471 })
  assert.deepEqual(shownAddress(undefined), { address: '', port: 0 })
})
