/*
 * Address handles in the library.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook, type Device as CoreDevice } from '../../../../src/core/index.ts'
import { createNetwork, open, senderOf } from '../../../../src/library/index.ts'
import type { LocalNetwork } from '../../../../src/library/network/contract.ts'
import { CallError } from '../../../../src/spec/errno.ts'
import { Classes } from '../../../../src/spec/index.ts'
import { addressText } from '../../../../src/transport/wire/address.ts'

test('each address handle has its own address and attributes', async () => {
  await using device = await open({ network: createNetwork() })
  const pd = device.pd()
  const texts = ['10.0.0.7', '10.0.0.7', '10.0.0.8', '10.0.0.7']
  const handles = texts.map((gid, trafficClass) => pd.addressHandle({ gid, trafficClass }))
  const destinations = () => handles.map(ah => addressText(ah.query().address.dgid))
  assert.deepEqual(destinations(), texts)
  handles[0].query().address.dgid.fill(9)
  handles[3].query().address.sl = 9
  assert.deepEqual(
    handles.map(ah => ah.query().address.trafficClass),
    [0, 1, 2, 3],
  )
  assert.deepEqual(destinations(), texts)
  assert.equal(handles[3].query().address.sl, 0)
  const { address } = pd.addressHandle({ gid: '10.0.0.7', trafficClass: 3 }).query()
  assert.deepEqual(address, handles[3].query().address)
  handles[1].modify({ gid: '10.0.0.9' })
  assert.deepEqual(destinations().slice(1), ['10.0.0.9', '10.0.0.8', '10.0.0.7'])
  assert.throws(() => pd.addressHandle({ gid: '10.0.0' }), { code: 'EINVAL', reason: 'gid "10.0.0" is not an address' })
  assert.equal(addressText(pd.addressHandle({ gid: '10.0.0.7' }).query().address.dgid), '10.0.0.7')
})

test('an address handle, alone or in a list, is destroyed once', async () => {
  await using device = await open({ network: createNetwork() })
  const pd = device.pd()
  const [first, second, third] = pd.addressHandles(['10.0.0.1', '10.0.0.2', '10.0.0.3'].map(gid => ({ gid })))
  first.close()
  first.close()
  pd.closeAddressHandles([second])
  // The released number belongs to another handle.
  const [fourth, fifth] = pd.addressHandles([{ gid: '10.0.0.4' }, { gid: '10.0.0.5' }])
  first[Symbol.dispose]()
  second.close()
  for (const [ah, gid] of [
    [third, '10.0.0.3'],
    [fourth, '10.0.0.4'],
    [fifth, '10.0.0.5'],
  ] as const)
    assert.equal(addressText(ah.query().address.dgid), gid)
  for (const ah of [third, fourth, fifth]) ah.close()
  pd.close()
})

test('on a device without `createAhs` and `destroyAhs`, lists are created and destroyed one by one', async () => {
  const network = createNetwork() as LocalNetwork
  await using device = await open({ network })
  addHook(network.core.devices.get(device.name) as CoreDevice, {
    class: 'pd',
    pre({ entry: { name } }) {
      if (name.endsWith('Ahs')) throw new CallError('EOPNOTSUPP', `this device has no pd.${name}`)
    },
  })
  const pd = device.pd()
  const handles = pd.addressHandles(['10.0.0.1', '10.0.0.2'].map(gid => ({ gid })))
  assert.equal(device.handles(Classes.ah).length, 2)
  pd.closeAddressHandles(handles)
  assert.equal(device.handles(Classes.ah).length, 0)
  pd.close()
})

test('the sender of a datagram is read from a Uint8Array or an Int8Array', () => {
  const four = new Uint8Array(40)
  four.set([0x45, 0xb8], 20)
  four.set([198, 51, 100, 200], 32)
  const six = new Uint8Array(40)
  six.set([0x6b, 0x80, 0, 1])
  six.set([0xfd, 0x80], 8)
  six[23] = 0xff
  for (const headerOf of [(bytes: Uint8Array) => bytes, (bytes: Uint8Array) => new Int8Array(bytes)] as const) {
    const sender = (bytes: Uint8Array) => senderOf(headerOf(bytes) as Uint8Array)
    assert.deepEqual(sender(four), { gid: '198.51.100.200', trafficClass: 0xb8 })
    assert.deepEqual(sender(six), { gid: 'fd80:0:0:0:0:0:0:ff', trafficClass: 0xb8, flowLabel: 1 })
  }
})
