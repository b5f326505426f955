/*
 * R8 from the library: whatever class and method is declared, the library has words for it. Each row says them, and the
 * test looks whether they make that very call (answered, or refused as that call); rows without words say why.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook } from '../../src/core/index.ts'
import { createCtxDevice } from '../../src/drivers/ctx/device.ts'
import { Classes, classes } from '../../src/spec/classes.ts'
import { CtxContext } from '../../src/spec/drivers/ctx.ts'
import { FlowType, QpState, WqType } from '../../src/spec/enums.ts'
import type { ObjectClass } from '../../src/spec/schema.ts'
import { createNetwork, type Device, type ObjectOf, open, openSystem, RdmaError } from '../../src/verbs/index.ts'
import type { LocalNetwork } from '../../src/verbs/network.ts'
import { place } from './ends.ts'

type Words = (device: Device) => unknown
/** What is said of a method: the words for it, or why there are none. */
type Row = Words | string

const DOORBELL = 'the ring of the queue pair and its doorbell do it: qp.send, qp.write, …'
const ELSEWHERE = 'events are read as they come, by one reader: device.events, cq.wait'

const rcQp = (device: Device) => {
  const { pd, cq } = place(device)
  return pd.rcQp({ sendCq: cq })
}
const ucQp = (device: Device) => {
  const { pd, cq } = place(device)
  return pd.ucQp({ sendCq: cq })
}
const udQp = (device: Device) => {
  const { pd, cq } = place(device)
  return pd.udQp({ sendCq: cq, active: true })
}
const initiator = (device: Device) => {
  const { pd, cq } = place(device)
  return pd.xrcInitiator({ sendCq: cq })
}
const srq = (device: Device) => place(device).pd.srq()
const xrcSrq = (device: Device) => {
  const { pd, cq } = place(device)
  return pd.xrcSrq({ xrcd: device.xrcd(), cq })
}
const RESET = { state: QpState.values.RESET }
const GROUP = '224.0.0.9'
const to = { gid: '127.0.0.1' }

/** A queue pair of a type that has an own class, or another object, made with the words for any class. */
const anyOf =
  (cls: ObjectClass, args: object): Words =>
  device =>
    device.create(cls, args as never)
/** Methods of an object that cannot be made here: asked of a handle that nobody has. */
const ask =
  (cls: ObjectClass, method: string, args: object = {}): Words =>
  device =>
    device.call(cls, method, args as never, 77)

const queuePairRows = (make: (device: Device) => ReturnType<typeof rcQp> | ReturnType<typeof initiator>) => ({
  create: make as Words,
  query: (device: Device) => make(device).query(),
  modify: (device: Device) => make(device).modify(RESET),
  destroy: (device: Device) => make(device).close(),
})
const strangeQp = (cls: ObjectClass): Record<string, Row> => ({
  create: device => {
    const { pd, cq } = place(device)
    const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
    device.create(cls, { pd: pd.handle, sendCq: cq.handle, recvCq: cq.handle, cap } as never)
  },
  query: ask(cls, 'query'),
  modify: ask(cls, 'modify', RESET),
  destroy: ask(cls, 'destroy'),
  postSend: DOORBELL,
})
const { counters, dm, flow, raw_packet_qp, gsi_qp, rwq_ind_table, smi_qp, rd_qp, tm_srq, wq } = Classes

/** There is one for a port, so each goes again. */
const gsi =
  (use: (qp: ObjectOf<typeof gsi_qp>) => unknown): Words =>
  device => {
    const { pd, cq } = place(device)
    const cap = { maxSendWr: 1, maxRecvWr: 1, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
    using qp = device.create(gsi_qp, { pd: pd.handle, sendCq: cq.handle, recvCq: cq.handle, cap })
    use(qp)
  }

const rows: Readonly<Record<string, Readonly<Record<string, Row>>>> = {
  interface: {
    query: device => device.interface(),
    chain: device => device.chain(chain => chain.pd()),
  },
  device: {
    open: 'the library opens a device that is a daemon’s; in this process core does',
    query: device => device.query(),
    queryHandles: device => device.handles(Classes.pd),
    queryGidTable: device => device.gids(),
    queryDriverOps: device => device.driverInterfaces(),
  },
  port: { query: device => device.queryPort(), queryGidEntry: device => device.gid(1) },
  pd: {
    create: device => device.pd(),
    destroy: device => device.pd().close(),
    createAhs: device => device.pd().addressHandles([to]),
    destroyAhs(device) {
      const pd = device.pd()
      pd.closeAddressHandles(pd.addressHandles([to]))
    },
  },
  cq: {
    create: device => device.cq(),
    query: device => device.cq().query(),
    modify: device => device.cq().moderate({ completions: 2 }),
    destroy: device => device.cq().close(),
    reqNotify: device => device.cq().arm(),
  },
  mr: {
    create: device => place(device).mr,
    query: device => place(device).mr.query(),
    modify: device => place(device).mr.reregister({ access: {} }),
    destroy: device => place(device).mr.close(),
  },
  comp_channel: {
    create: device => device.create(Classes.comp_channel),
    getEvent: device => device.create(Classes.comp_channel).getEvent(),
  },
  async_fd: {
    create: device => device.create(Classes.async_fd),
    getEvent: device => device.create(Classes.async_fd).getEvent(),
  },
  srq: {
    create: srq,
    query: device => srq(device).query(),
    modify: device => srq(device).setLimit(0),
    destroy: device => srq(device).close(),
  },
  xrc_srq: {
    create: xrcSrq,
    query: device => xrcSrq(device).query(),
    modify: device => xrcSrq(device).setLimit(0),
    destroy: device => xrcSrq(device).close(),
  },
  tm_srq: {
    create(device) {
      const { pd, cq } = place(device)
      device.create(tm_srq, { pd: pd.handle, cq: cq.handle, maxWr: 1, maxSge: 1, limit: 0, maxNumTags: 1 })
    },
    query: ask(tm_srq, 'query'),
    modify: ask(tm_srq, 'modify'),
    destroy: ask(tm_srq, 'destroy'),
  },
  ah: {
    create: device => device.pd().addressHandle(to),
    query: device => device.pd().addressHandle(to).query(),
    modify: device => device.pd().addressHandle(to).modify(to),
    destroy: device => device.pd().addressHandle(to).close(),
  },
  mw: {
    create: device => device.pd().window(),
    query: device => device.pd().window().query(),
    destroy: device => device.pd().window().close(),
  },
  xrcd: { create: device => device.xrcd(), destroy: device => device.xrcd().close() },
  rc_qp: { ...queuePairRows(rcQp), postSend: DOORBELL },
  uc_qp: { ...queuePairRows(ucQp as never), postSend: DOORBELL },
  ud_qp: {
    ...queuePairRows(udQp as never),
    postSend: DOORBELL,
    attachMcast: device => udQp(device).attach(GROUP),
    detachMcast(device) {
      const qp = udQp(device)
      qp.attach(GROUP)
      qp.detach(GROUP)
    },
  },
  xrc_ini_qp: { ...queuePairRows(initiator), postSend: DOORBELL },
  xrc_tgt_qp: queuePairRows(((device: Device) => device.xrcd().target()) as never),
  raw_packet_qp: strangeQp(raw_packet_qp),
  gsi_qp: {
    create: gsi(() => {}),
    query: gsi(qp => qp.query()),
    modify: gsi(qp => qp.modify(RESET)),
    destroy: gsi(() => {}),
    postSend: DOORBELL,
  },
  smi_qp: strangeQp(smi_qp),
  rd_qp: strangeQp(rd_qp),
  flow: {
    create: anyOf(flow, { type: FlowType.values.NORMAL, priority: 0, port: 1, flags: 0, specs: [] }),
    query: ask(flow, 'query'),
    destroy: ask(flow, 'destroy'),
  },
  counters: {
    create: anyOf(counters, {}),
    query: ask(counters, 'query'),
    destroy: ask(counters, 'destroy'),
  },
  dm: {
    create: anyOf(dm, { length: 4096n, alignment: 12 }),
    query: ask(dm, 'query'),
    destroy: ask(dm, 'destroy'),
  },
  wq: {
    create(device) {
      const { pd, cq } = place(device)
      device.create(wq, { pd: pd.handle, cq: cq.handle, type: WqType.values.RQ, maxWr: 1, maxSge: 1 })
    },
    query: ask(wq, 'query'),
    modify: ask(wq, 'modify'),
    destroy: ask(wq, 'destroy'),
  },
  rwq_ind_table: {
    create: anyOf(rwq_ind_table, { queues: [] }),
    query: ask(rwq_ind_table, 'query'),
    destroy: ask(rwq_ind_table, 'destroy'),
  },
  event_queue: {
    create: device => device.eventQueue(),
    query: device => device.eventQueue().attached(),
    attach: device => device.eventQueue().attach('device'),
    detach(device) {
      const queue = device.eventQueue()
      queue.attach('device')
      queue.detach('device')
    },
    getEvents: ELSEWHERE,
  },
  system: { query: 'of the system-wide device: openSystem({ network }).devices()' },
  driver_ops: {
    create: device => device.driverOps(),
    query: device => device.driverOps().name,
    destroy: device => device.driverOps().close(),
  },
}

/** Classes of which a soft device has nothing: they are called on a device that does. */
const OF_CTX = ['driver_ops']

test('every method of every class has words in the library, or a reason', async () => {
  const network = createNetwork() as LocalNetwork
  network.addDevice(core => createCtxDevice(core, 'ctx0'))
  const soft = await open({ network })
  const other = await open({ network, device: 'ctx0' })
  const called = new Set<string>()
  for (const device of network.core.devices.values())
    addHook(device, { pre: ({ entry }) => called.add(`${entry.class.name}.${entry.name}`) })

  assert.deepEqual(Object.keys(rows).sort(), classes.map(({ name }) => name).sort())
  for (const { name, methods } of classes) {
    assert.deepEqual(Object.keys(rows[name]).sort(), Object.keys(methods).sort(), name)
    for (const [method, row] of Object.entries(rows[name])) {
      if (typeof row === 'string') continue
      const call = `${name}.${method}`
      called.clear()
      try {
        await row(OF_CTX.includes(name) ? other : soft)
      } catch (error) {
        assert.ok(error instanceof RdmaError, `${call}: ${error}`)
        assert.deepEqual([error.class, error.method], [name, method])
        if (called.has(call)) continue
        // The device has no such class: it is said so, and what to do.
        assert.equal(error.code, 'EOPNOTSUPP', error.message)
        assert.match(error.hint, /supports/)
        assert.ok(!soft.supports(name, method))
        continue
      }
      assert.ok(called.has(call), `${call} is not what the library has called, but ${[...called].join(', ')}`)
    }
  }
  using system = openSystem({ network })
  assert.equal(system.devices().length, 2)
  assert.ok(other.supports(CtxContext.name, 'send'))
  await other.close()
  await soft.close()
})
