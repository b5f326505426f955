// vitest with userdma: npm install && npm install userdma, then npx vitest run
import { createNetwork, type Device, FindingsError, open } from 'userdma'
import { expect, test } from 'vitest'

/** Two connected queue pairs of a device, and a WRITE from one to the other. */
const openTransfer = async (device: Device) => {
  const pd = device.pd()
  const source = pd.register(new Uint8Array(64))
  const target = pd.register(new Uint8Array(64), { remoteWrite: true })
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint, { retryCount: 2, ackTimeout: 4 }), to.connect(from.endpoint)])
  return { to, target, write: (remote = target.remote()) => from.write(source.slice(), remote) }
}

test('a lost packet is sent again', async () => {
  await using device = await open({ network: createNetwork({ clock: 'virtual' }), check: true })
  const { to, write } = await openTransfer(device)
  using fault = device.fault({ qp: to.qpn, nth: 1, count: 1, drop: '100%' })
  await write()
  expect(fault.count).toBe(1)
})

test('a link that loses all fails', async () => {
  await using device = await open({ network: createNetwork({ clock: 'virtual' }), check: true })
  const { to, write } = await openTransfer(device)
  using _fault = device.fault({ qp: to.qpn, drop: '100%' })
  await expect(write()).rejects.toMatchObject({ status: 'RETRY_EXC_ERR' })
})

const writesToForgottenMemory = async () => {
  const device = await open({ network: createNetwork({ clock: 'virtual' }), check: true })
  const { target, write } = await openTransfer(device)
  const remote = target.remote()
  target.close()
  await write(remote).catch(() => {})
  await device.close()
}

test('a mistake is a finding', async () => {
  const error = await writesToForgottenMemory().catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(FindingsError)
  expect(String(error)).toContain('stale-rkey')
})

test.runIf(process.env.MISTAKE)('fails: the finding of the check', writesToForgottenMemory)
