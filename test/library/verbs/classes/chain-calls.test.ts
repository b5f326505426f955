/*
 * A chain on a device of this process runs as direct calls; with a hook on interface.chain, the library encodes the
 * chain as messages. The results are equal.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook } from '../../../../src/core/devices/registry.ts'
import { type Chain, createNetwork, type ObjectReference, open, RdmaError } from '../../../../src/library/index.ts'
import type { LocalNetwork } from '../../../../src/library/network/contract.ts'
import { contextOf } from '../../../../src/library/verbs/device.ts'
import { DeviceClass } from '../../../../src/spec/classes/device/device.ts'
import { Interface } from '../../../../src/spec/classes/device/interface.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { RcQp } from '../../../../src/spec/classes/qp/rc_qp.ts'
import { QpState } from '../../../../src/spec/enums.ts'

const openDevice = async () => {
  const network = createNetwork()
  const device = await open({ network })
  const coreDevice = (network as LocalNetwork).core.devices.get(device.name)
  assert.ok(coreDevice !== undefined)
  const pd = device.pd()
  const cq = device.cq()
  return { device, coreDevice, pd, cq, qp: pd.rcQp({ sendCq: cq }) }
}

type Base = Awaited<ReturnType<typeof openDevice>>

/** Runs `body` with a hook on chains; `bytes` is the length of the encoded chains. */
const withHook = <T>({ coreDevice }: Base, body: () => T): { out: T; bytes: number } => {
  let bytes = 0
  const stop = addHook(coreDevice, {
    class: 'interface',
    method: 'chain',
    pre: (_call, _object, args) => {
      bytes += (args.entries as Uint8Array).length
    },
  })
  try {
    return { out: body(), bytes }
  } finally {
    stop()
  }
}

const buffer = new Uint8Array(64)
const refusedChains: Readonly<Record<string, (chain: Chain, base: Base) => unknown>> = {
  'an object of the wrong class': chain => chain.register(chain.cq(), buffer),
  'a method of another class': chain => chain.call(RcQp, 'query', {}, chain.pd()),
  'a destroyed object': chain => {
    const pd = chain.pd()
    chain.call(Pd, 'destroy', {}, pd)
    chain.register(pd, buffer)
  },
  'a reference to a call that created no object': (chain, { qp }) => {
    chain.pd()
    chain.register(chain.call(RcQp, 'query', {}, qp) as ObjectReference, buffer)
  },
  'a call that cannot be undone': (chain, { qp }) => {
    chain.pd()
    chain.call(RcQp, 'modify', { state: QpState.values.ERR }, qp)
  },
  'a chain in a chain': (chain, { qp }) => {
    chain.pd()
    chain.call(Interface, 'chain', { entries: new Uint8Array(0), onError: 1 }, chain.call(RcQp, 'query', {}, qp))
  },
  'a create call on an existing object': chain => chain.call(Pd, 'create', {}, chain.pd()),
  'a mistake after a query of the device': (chain, { pd, cq }) => {
    chain.call(DeviceClass, 'queryGidTable', {})
    chain.call(Pd, 'createAhs', { addresses: [] }, pd)
    chain.rcQp(pd, { sendCq: cq, maxSendWr: 1 << 30 })
  },
  'a value out of range': (chain, { pd, cq }) => {
    chain.pd()
    chain.rcQp(pd, { sendCq: cq, maxSendWr: 1 << 30 })
  },
  'a mistake after a call that creates a list of objects': (chain, { pd, cq }) => {
    const dgid = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1])
    const address = { dgid, sgidIndex: 1, port: 1, isGlobal: 1, hopLimit: 1, trafficClass: 0, flowLabel: 0 }
    chain.call(Pd, 'createAhs', { addresses: [{ ...address, sl: 0, staticRate: 0 }] }, chain.pd())
    chain.rcQp(pd, { sendCq: cq, maxSendWr: 1 << 30 })
  },
}

test('a refused chain has the same message with and without a hook, and leaves no objects', async () => {
  const base = await openDevice()
  const refusalOf = (wrong: (chain: Chain, base: Base) => unknown): string => {
    const before = { ...base.coreDevice.counts }
    try {
      base.device.chain(chain => wrong(chain, base))
    } catch (error) {
      assert.ok(error instanceof RdmaError)
      for (const [name, count] of Object.entries(base.coreDevice.counts)) assert.equal(count, before[name] ?? 0, name)
      return `${error.call} ${error.attribute}: ${error.message}`
    }
    return 'nothing'
  }
  for (const [name, wrong] of Object.entries(refusedChains)) {
    const direct = refusalOf(wrong)
    const { out, bytes } = withHook(base, () => refusalOf(wrong))
    assert.notEqual(direct, 'nothing', name)
    assert.ok(bytes > 0, name)
    assert.equal(direct, out, name)
  }
  await base.device.close()
})

test('a chain creates the same objects with and without a hook', async () => {
  const base = await openDevice()
  const { device, pd, cq } = base
  const build = () =>
    device.chain(chain => {
      const qp = chain.rcQp(pd, { sendCq: cq })
      return {
        attributes: chain.call(RcQp, 'query', {}, qp),
        uc: chain.ucQp(chain.pd(), { sendCq: chain.cq() }),
        passed: pd,
      }
    })
  const direct = build()
  const { out, bytes } = withHook(base, build)
  assert.ok(bytes > 0)
  assert.deepEqual(out.attributes, direct.attributes)
  assert.equal(direct.passed, pd)
  assert.notEqual(direct.uc.qpn, out.uc.qpn)
  await device.close()
})

test('a chain returns an existing object unchanged', async () => {
  const { device } = await openDevice()
  const existing = device.create(Pd)
  assert.equal(device.chain(chain => ({ created: chain.pd(), existing })).existing, existing as unknown)
  await device.close()
})

test('a chain with a result that cannot be converted destroys its objects, and forgets each registered buffer once', async () => {
  const { device, coreDevice, pd } = await openDevice()
  const { carrier } = contextOf('test', device)
  const { chain: runChain, forget } = carrier
  assert.ok(runChain !== undefined)
  const forgotten: Uint8Array[] = []
  Object.assign(carrier, {
    chain(...args: Parameters<typeof runChain>) {
      const outcome = runChain(...args)
      // The third result lacks its values.
      return {
        ...outcome,
        results: outcome?.results.map((result, i) => (i === 2 ? { object: result.object } : result)),
      }
    },
    forget(buffer: Uint8Array) {
      forgotten.push(buffer)
      forget(buffer)
    },
  })
  const buffers = Array.from({ length: 4 }, (_, i) => new Uint8Array(8).fill(i))
  assert.throws(() => device.chain(chain => buffers.map(buffer => chain.register(pd, buffer))), TypeError)
  assert.deepEqual(
    forgotten.toSorted((x, y) => x[0]! - y[0]!),
    buffers,
  )
  assert.equal(coreDevice.counts.mr, 0)
  await device.close()
})
