/*
 * `using`: an object that other objects use stays at the end of its block, without an error, and is closed after them
 * or with its device. `close()` of such an object is refused.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, type Device, type Finding, type ObjectReference, open } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { eachCarrier } from '../endpoints.ts'

/** By the used object: makes it, and what uses it. */
const makers = {
  'pd, by a queue pair with a completion queue of its own': device => {
    const pd = device.pd()
    return [pd, pd.rcQp()]
  },
  'pd, by a region': device => {
    const pd = device.pd()
    return [pd, pd.register(new Uint8Array(8))]
  },
  'pd, by address handles that are closed with one call': device => {
    const pd = device.pd()
    const handles = pd.addressHandles([pd.rcQp().endpoint])
    return [pd, { close: () => pd.closeAddressHandles(handles) }, 2]
  },
  'cq, by a queue pair': device => {
    const cq = device.cq()
    return [cq, device.pd().polledRcQp({ sendCq: cq })]
  },
  'srq, by a queue pair': device => {
    const pd = device.pd()
    const srq = pd.srq()
    return [srq, pd.polledRcQp({ sendCq: device.cq(), srq })]
  },
  'xrcd, by a target': device => {
    const xrcd = device.xrcd()
    return [xrcd, xrcd.target()]
  },
  'ip_interface, by a socket': device => {
    const ip = device.ip({ address: '10.9.0.1/24' })
    return [ip as typeof ip & ObjectReference, ip.udp()]
  },
  'an object of a class, by another': device => {
    const pd = device.create(Classes.pd)
    const args = { pd: pd.handle, maxWr: 1, maxSge: 1, limit: 0 }
    return [pd, device.create(Classes.srq, args)]
  },
} satisfies Record<
  string,
  (device: Device) => [Disposable & { close(): void; handle: number }, { close(): void }, number?]
>

/** How many objects of the device have the handle's class. */
const isThere = (device: Device, name: string, handle: number): boolean => {
  const cls = Object.values(Classes).find(({ name: className }) => name.startsWith(className)) ?? Classes.pd
  return device.handles(cls).includes(handle)
}

eachCarrier(openTwo => {
  for (const [name, make] of Object.entries(makers))
    test(`${name}: the end of its block is no error, and it is closed with the last of them`, async () => {
      const [device, other] = await openTwo()
      const [used, user] = make(device)
      const { handle } = used
      assert.throws(() => used.close(), { code: 'EBUSY' })
      {
        using _ = used
      }
      assert.ok(isThere(device, name, handle), 'it stays')
      user.close()
      if (!name.includes('handles')) assert.ok(!isThere(device, name, handle), 'it was closed')
      await device.close()
      await other.close()
    })
})

test('`await using device; using pd` with objects that are only dropped: the device closes them, and only they are leaks', async () => {
  const found: Finding[] = []
  const network = createNetwork()
  {
    await using device = await open({ network, check: { onFinding: finding => found.push(finding), notes: true } })
    using pd = device.pd()
    using cq = device.cq()
    using srq = pd.srq()
    pd.register(new Uint8Array(8))
    pd.polledRcQp({ sendCq: cq, srq })
    pd.rcQp()
  }
  const told = found.map(({ id, text }) => `${id}: ${text.replace(/ 0x\w+/, '')}`)
  assert.deepEqual(told.sort(), [
    'leak: MR of 8 bytes was never deregistered',
    'leak: QP was never destroyed',
    'leak: QP was never destroyed',
  ])
})

test('objects that are disposed of in any order are closed in the order of their uses', async () => {
  await using device = await open()
  const [pd, cq] = [device.pd(), device.cq()]
  const [srq, mr] = [pd.srq(), pd.register(new Uint8Array(8))]
  const qp = pd.polledRcQp({ sendCq: cq, srq })
  for (const object of [pd, cq, srq, mr]) object[Symbol.dispose]()
  assert.deepEqual(device.handles(Classes.mr), [])
  assert.equal(device.handles(Classes.pd, Classes.cq, Classes.srq).length, 3)
  qp[Symbol.dispose]()
  assert.deepEqual(device.handles(Classes.pd, Classes.cq, Classes.srq, Classes.rc_qp), [])
  assert.throws(() => pd.rcQp(), { code: 'ERR_CLOSED' })
})
