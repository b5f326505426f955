/*
 * A path to an address without a route (docs/decisions/routes.md): refused over UDP, accepted by the memory link.
 */
import assert from 'node:assert/strict'
import { describe, it, test } from 'node:test'
import { hasNative } from '../../../../src/host/native.ts'
import { createNetwork, open } from '../../../../src/library/index.ts'
import { groupAddress, loopbackText } from '../../../loopback.ts'

/** No address of loopback has a route to it (TEST-NET-1). */
const UNREACHABLE = '192.0.2.1'

describe('over UDP', { skip: !hasNative() && 'koffi is missing' }, () => {
  it('a queue pair and an address handle are refused without a route', async () => {
    const address = loopbackText(71)
    await using device = await open({ network: createNetwork({ link: 'udp' }), address })
    const pd = device.pd()
    const qp = pd.rcQp()
    const before = qp.query().state
    const refusal = {
      // EINVAL: there is a route, but not from loopback
      code: /^(ENETUNREACH|EINVAL)$/,
      message: new RegExp(`the system has no route from ${address} to ${UNREACHABLE} \\((ENETUNREACH|EINVAL)\\)`),
    }
    assert.throws(() => qp.connect({ ...qp.endpoint, gid: UNREACHABLE }), refusal)
    assert.equal(qp.query().state, before)
    assert.throws(() => pd.addressHandle({ gid: UNREACHABLE }), refusal)
    const ah = pd.addressHandle({ gid: loopbackText(72) })
    assert.throws(() => ah.modify({ gid: UNREACHABLE }), refusal)
    // a group is reached through the interface, a silent peer may exist
    pd.addressHandle({ gid: Buffer.from(groupAddress(71)).subarray(12).join('.') })
    qp.connect({ ...qp.endpoint, gid: loopbackText(72) })
  })
})

test('the memory link has no routes: a device with the address may be added later', async () => {
  await using device = await open({ network: createNetwork() })
  const qp = device.pd().rcQp()
  qp.connect({ ...qp.endpoint, gid: UNREACHABLE })
})
