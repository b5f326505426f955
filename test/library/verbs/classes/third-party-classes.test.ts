/*
 * Generic methods, chains and event queues of the library with classes that only third-party-driver.ts supports (R8,
 * R9).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { affiliate, driverClass, register } from '../../../../src/core/index.ts'
import { createNetwork, type Device, GSI_QKEY, type ObjectReference, open } from '../../../../src/library/index.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { FlowSpecType, FlowType, QpState, WqState } from '../../../../src/spec/enums.ts'
import {
  Block,
  CREATE,
  DESTROY,
  method,
  type ObjectClass,
  objectClass,
  u32,
  u64,
} from '../../../../src/spec/schema/schema.ts'
import { describeDevice, testClasses, testDriver } from '../../../core/fixture.ts'
import { completionText, nextCompletion, nextEvent } from '../endpoints.ts'
import { refuses, untyped } from '../mistakes/mistakes.ts'
import { createThirdPartyDevice } from './third-party-driver.ts'

/** Runs `body` with a third-party device. After its close, the device must have no objects of the tested classes. */
const withResources = async (
  body: (resources: ReturnType<typeof resourcesOn>) => Promise<void> | void,
): Promise<void> => {
  const network = createNetwork()
  network.addDevice(core => createThirdPartyDevice(core, 'third0'))
  await using device = await open({ network, device: 'third0' })
  await body(resourcesOn(device))
  await device.close()
  await using reopened = await open({ network, device: 'third0' })
  assert.deepEqual(reopened.handles(Classes.flow, Classes.wq, Classes.dm, Classes.raw_packet_qp), [])
}
const resourcesOn = (device: Device) => {
  const pd = device.pd()
  const buffer = new Uint8Array(1024)
  return { device, pd, buffer, mr: pd.register(buffer), cq: device.cq({ entries: 7 }) }
}
type Resources = ReturnType<typeof resourcesOn>

const CAP = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
const wq = ({ device, pd, cq }: Resources) =>
  device.create(Classes.wq, { pd: pd.handle, cq: cq.handle, type: 0, maxWr: 1, maxSge: 1 })

/** The spec of a rule that matches frames of an Ethernet type. */
const etherType = (value: number) => {
  const bytes = new Uint8Array(40)
  const mask = new Uint8Array(40)
  bytes.set([value >> 8, value & 0xff], 12)
  mask.set([0xff, 0xff], 12)
  return { type: FlowSpecType.values.ETH, flags: 0, size: 0, tag: 0, value: bytes, mask, action: 0 }
}

test('flow steering rules and counters: matching frames are delivered and counted', () =>
  withResources(async ({ device, pd, buffer, mr, cq }) => {
    const sender = pd.gsiQp({ sendCq: cq, active: true })
    const receiver = pd.udQp({ sendCq: cq })
    const counters = device.create(Classes.counters)
    const rule = device.create(Classes.flow, {
      udQp: receiver.handle,
      counters: counters.handle,
      type: FlowType.values.NORMAL,
      priority: 0,
      port: 1,
      flags: 0,
      specs: [etherType(0x0800)] as never,
    })
    receiver.receive(mr.slice(0, 100), 7)
    const destination = { ah: pd.addressHandle({ gid: '10.0.0.1' }), qpn: 0, qkey: GSI_QKEY }
    sender.send(Uint8Array.of(0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 8, 0, 9), destination, { id: 1 })
    assert.equal(await completionText(cq), '1 SEND')
    assert.deepEqual([(await nextCompletion(cq)).bytes, buffer[14]], [15, 9])
    assert.deepEqual(counters.query({ flags: 0 }).values, [{ value: 1n }, { value: 15n }, { value: 0n }])
    assert.equal(rule.query().specs.length, 1)
    rule.close()
    counters.close()
  }))

test('valid calls of work queues, tables, device memory and tags work, wrong calls are refused', () =>
  withResources(resources => {
    const { device, pd, cq } = resources
    const queues = [wq(resources), wq(resources)]
    queues[0].modify({ state: WqState.values.RDY, curState: WqState.values.RESET })
    assert.equal(queues[0].query().state, WqState.values.RDY)
    assert.throws(() => queues[0].modify({ state: WqState.values.RDY, curState: WqState.values.RESET }), {
      code: 'EINVAL',
      call: 'wq.modify',
      attribute: 'curState',
    })
    const table = device.create(Classes.rwq_ind_table, { queues: queues.map(({ handle }) => ({ wq: handle })) })
    assert.equal(table.createOutput.tableNum, 3)
    assert.throws(() => queues[0].close(), { code: 'EBUSY', call: 'wq.destroy' })

    const dm = device.create(Classes.dm, { length: 4096n, alignment: 6 })
    assert.deepEqual(dm.query(), { length: 4096n, alignment: 6 })
    assert.throws(() => device.create(Classes.dm, { length: 1n << 20n, alignment: 0 }), { code: 'ENOMEM', class: 'dm' })

    const srq = { pd: pd.handle, cq: cq.handle, maxWr: 4, maxSge: 1, limit: 0, maxNumTags: 8 }
    const tags = device.create(Classes.tm_srq, srq)
    const { handle } = tags.tagAdd({ wrId: 1n, flags: 0, tag: 0x1234n, mask: 0xffn, recvWrId: 2n, sgList: [] })
    tags.tagDel({ wrId: 2n, flags: 0, handle })
    assert.throws(() => tags.tagDel({ wrId: 2n, flags: 0, handle }), { code: 'ENOENT', call: 'tm_srq.tagDel' })
  }))

test('a chain creates objects that refer to each other', () =>
  withResources(({ device, cq }) => {
    const created = device.chain(chain => {
      const chainedPd = chain.pd()
      const queue = chain.create(Classes.wq, { pd: chainedPd.handle, cq: cq.handle, type: 0, maxWr: 1, maxSge: 1 })
      const qp = { sendCq: cq.handle, recvCq: cq.handle, cap: CAP, flags: 0 }
      return { queue, raw: chain.create(Classes.raw_packet_qp, { pd: chainedPd.handle, ...qp } as never) }
    })
    assert.equal(created.queue.query().state, WqState.values.RESET)
    created.raw.modify({ state: QpState.values.INIT, port: 1 })
    assert.equal(created.raw.query().state, QpState.values.INIT)
  }))

test('an event queue accepts a work queue; closing the device ends a wait for events', () =>
  withResources(async resources => {
    const events = resources.device.eventQueue()
    const queue = wq(resources)
    events.attach(queue)
    assert.deepEqual(events.attached(), [queue])
    events.close()
    const event = nextEvent(resources.device)
    queue.close()
    await resources.device.close()
    assert.equal(await event, undefined)
  }))

test('a completion event at its time limit is raised although the soft devices of the network were closed', async () => {
  const network = createNetwork()
  network.addDevice(core => createThirdPartyDevice(core, 'third0'))
  const soft = await open({ network })
  await using device = await open({ network, device: 'third0' })
  const { pd, cq } = resourcesOn(device)
  const qp = pd.gsiQp({ sendCq: cq, active: true })
  const waiting = cq.wait({ completions: 2, microseconds: 20_000 })
  await new Promise(setImmediate)
  qp.send(Uint8Array.of(1), { ah: pd.addressHandle({ gid: '10.0.0.1' }), qpn: 0, qkey: GSI_QKEY })
  await new Promise(setImmediate)
  await soft.close()
  await waiting
  assert.ok(cq.poll())
})

test('queue pairs of subnet management and of general services reach RTS', () =>
  withResources(async ({ pd, cq }) => {
    const ah = pd.addressHandle({ gid: '10.0.0.1' })
    for (const qp of [pd.smiQp({ sendCq: cq, active: true }), pd.gsiQp({ sendCq: cq })]) {
      qp.activate({ pkeyIndex: 1 })
      assert.equal(qp.state, 'RTS')
      qp.send(Uint8Array.of(1), { ah, qpn: 0, qkey: GSI_QKEY }, { id: 4 })
      assert.equal(await completionText(cq), '4 SEND')
      refuses('qp.send', /the receiver is missing/, () => qp.send(Uint8Array.of(1), untyped(undefined)))
    }
  }))

test('methods of a class may have the names of properties that the library uses internally', async () => {
  const names = ['context', 'isOpen', 'cls', 'userHandle'] as const
  type Methods = Record<(typeof names)[number], () => unknown>
  const methods = Object.fromEntries(
    names.map((name, i) => [name, method(Block.DRIVER_FAST + i, { in: {}, out: { number: u32(1) } })]),
  )
  const destroy = method(DESTROY, { in: {}, out: {} })
  const Plain = objectClass('plain', 0x8000, {
    methods: { create: method(CREATE, { in: {}, out: {} }), ...methods, destroy },
  })
  const Source = objectClass('source', 0x8001, {
    methods: { create: method(CREATE, { in: { userHandle: u64(1) }, out: {} }), ...methods, destroy },
  })
  const handlers = Object.fromEntries(names.map((name, i) => [name, () => ({ number: i })]))
  const network = createNetwork()
  network.addDevice(core => {
    const classes = [
      ...testClasses,
      driverClass(Plain, { create: () => ({}), destroy: () => ({}), ...handlers }),
      driverClass(Source, {
        create(_call, object, { userHandle }) {
          affiliate(object, userHandle)
          return {}
        },
        destroy: () => ({}),
        ...handlers,
      }),
    ]
    return register(core, describeDevice('test0', testDriver(classes))) as never
  })
  await using device = await open({ network, device: 'test0' })
  const stranger = await open({ network, device: 'test0' })
  for (const cls of [Plain, Source] as readonly ObjectClass[]) {
    const object = device.create(cls) as unknown as ObjectReference & Disposable & Methods
    for (const [i, name] of names.entries()) {
      assert.deepEqual(object[name](), { number: i })
      assert.deepEqual(device.call(cls, name, {}, object), { number: i })
      const elsewhere = () => stranger.call(cls, name, {}, object)
      assert.throws(elsewhere, { code: 'EINVAL', reason: 'object is closed or of another device' })
    }
    object[Symbol.dispose]()
    assert.throws(() => device.call(cls, 'cls', {}, object), { code: 'ERR_CLOSED' })
  }
  await stranger.close()
})
