/*
 * R8 in the library: every method of every class has a method in the library, besides the generic `device.create` and
 * `device.call`, or a reason why not. A row of `rows` uses this method.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook } from '../../../../src/core/index.ts'
import { createCtxDevice } from '../../../../src/drivers/ctx/device.ts'
import {
  createNetwork,
  type Device,
  type GsiQueuePair,
  open,
  openSystem,
  RdmaError,
} from '../../../../src/library/index.ts'
import type { LocalNetwork } from '../../../../src/library/network/contract.ts'
import { Classes, classes } from '../../../../src/spec/classes.ts'
import { CtxContext } from '../../../../src/spec/drivers/ctx.ts'
import { QpState } from '../../../../src/spec/enums.ts'
import { resourcesOn } from '../endpoints.ts'
import { createThirdPartyDevice } from './third-party-driver.ts'

type LibraryCall = (device: Device) => unknown
/** The library call, or the reason why there is none. */
type Row = LibraryCall | string

const DOORBELL = 'qp.send, qp.write, … write to the ring of the queue pair and ring its doorbell'
const CHANNEL = 'cq.wait, device.events and device.eventQueue replace it'
const EVENT_READER = 'one reader per device reads all events: device.events, cq.wait'

const rcQp = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.rcQp({ sendCq: cq })
}
const ucQp = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.ucQp({ sendCq: cq })
}
const udQp = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.udQp({ sendCq: cq, active: true })
}
const initiator = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.xrcInitiator({ sendCq: cq })
}
const srq = (device: Device) => resourcesOn(device).pd.srq()
const xrcSrq = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.xrcSrq({ xrcd: device.xrcd(), cq })
}
let hostCount = 0
/** An IP interface with a new address. */
const ip = (device: Device) => device.ip({ address: `10.9.0.${++hostCount}` })
const udp = (device: Device) => ip(device).udp()
const RESET = { state: QpState.values.RESET }
const GROUP = '224.0.0.9'
const DESTINATION = { gid: '127.0.0.1' }

const queuePairRows = (make: (device: Device) => ReturnType<typeof rcQp> | ReturnType<typeof initiator>) => ({
  create: make as LibraryCall,
  query: (device: Device) => make(device).query(),
  modify: (device: Device) => make(device).modify(RESET),
  destroy: (device: Device) => make(device).close(),
})
/** Closes the GSI queue pair: a port has only one. */
const gsi =
  (use: (qp: GsiQueuePair) => unknown): LibraryCall =>
  device => {
    const { pd, cq } = resourcesOn(device)
    using qp = pd.gsiQp({ sendCq: cq })
    use(qp)
  }
const smiQp = (device: Device) => {
  const { pd, cq } = resourcesOn(device)
  return pd.smiQp({ sendCq: cq })
}
/** Classes that no device of the project has. */
const UNSUPPORTED = ['tm_srq', 'raw_packet_qp', 'rd_qp', 'flow', 'counters', 'dm', 'dmah', 'wq', 'rwq_ind_table']
const NO_DRIVER = 'no device of the project supports it: device.create, device.call'
const CM_CLASSES = ['cm_channel', 'cm_id', 'cm_multicast']
const MAD_CLASSES = ['mad_channel', 'mad_agent']
const GENERIC_METHODS = 'the generic methods: device.create, device.call'
const RDMA_CM = 'programs of librdmacm use it, on the system-wide device'

/** Rows of classes with one reason for all methods. */
const reasonRows = (names: readonly string[], reason: string) =>
  Object.fromEntries(
    classes
      .filter(({ name }) => names.includes(name))
      .map(({ name, methods }) => [name, Object.fromEntries(Object.keys(methods).map(method => [method, reason]))]),
  )

const rows: Readonly<Record<string, Readonly<Record<string, Row>>>> = {
  ...reasonRows(UNSUPPORTED, NO_DRIVER),
  ...reasonRows(MAD_CLASSES, GENERIC_METHODS),
  ...reasonRows(['driver_qp', 'dci_qp', 'dct_qp'], 'the queues of its drivers are not those that the library posts to'),
  ...reasonRows(CM_CLASSES, RDMA_CM),
  interface: {
    query: device => device.interface(),
    chain: device => device.chain(chain => chain.pd()),
  },
  device: {
    open: 'the library opens a device of a daemon; in this process core does it',
    query: device => device.query(),
    queryHandles: device => device.handles(Classes.pd),
    queryGidTable: device => device.gids(),
    queryClock: device => device.clock(),
    queryDriverOps: device => device.driverInterfaces(),
  },
  port: {
    query: device => device.queryPort(),
    queryGidEntry: device => device.gid(1),
    querySpeed: 'queryPort() has speed and width of the link',
  },
  pd: {
    create: device => device.pd(),
    destroy: device => device.pd().close(),
    createAhs: device => device.pd().addressHandles([DESTINATION]),
    destroyAhs(device) {
      const pd = device.pd()
      pd.closeAddressHandles(pd.addressHandles([DESTINATION]))
    },
    advise: "buffers are this process's own memory; the first touch brings them into memory",
  },
  cq: {
    create: device => device.cq(),
    query: device => device.cq().query(),
    modify: device => device.cq().moderate({ completions: 2 }),
    destroy: device => device.cq().close(),
    reqNotify: device => device.cq().arm(),
  },
  mr: {
    create: device => resourcesOn(device).mr,
    query: device => resourcesOn(device).mr.query(),
    modify: device => resourcesOn(device).mr.reregister({ access: {} }),
    destroy: device => resourcesOn(device).mr.close(),
  },
  comp_channel: { create: CHANNEL, query: CHANNEL, getEvent: CHANNEL },
  async_fd: { create: CHANNEL, query: CHANNEL, getEvent: CHANNEL },
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
  ah: {
    create: device => device.pd().addressHandle(DESTINATION),
    query: device => device.pd().addressHandle(DESTINATION).query(),
    modify: device => device.pd().addressHandle(DESTINATION).modify(DESTINATION),
    destroy: device => device.pd().addressHandle(DESTINATION).close(),
  },
  mw: {
    create: device => device.pd().window(),
    query: device => device.pd().window().query(),
    destroy: device => device.pd().window().close(),
  },
  xrcd: {
    create: device => device.xrcd(),
    query: device => device.xrcd().query(),
    destroy: device => device.xrcd().close(),
  },
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
  gsi_qp: {
    create: gsi(() => {}),
    query: gsi(qp => qp.query()),
    modify: gsi(qp => qp.modify(RESET)),
    destroy: gsi(qp => qp.close()),
    postSend: DOORBELL,
  },
  smi_qp: { ...queuePairRows(smiQp as never), postSend: DOORBELL },
  event_queue: {
    create: device => device.eventQueue(),
    query: device => device.eventQueue().attached(),
    attach: device => device.eventQueue().attach('device'),
    detach(device) {
      const queue = device.eventQueue()
      queue.attach('device')
      queue.detach('device')
    },
    getEvents: EVENT_READER,
  },
  ip_interface: {
    create: ip,
    query: device => ip(device).query(),
    destroy: device => ip(device).close(),
  },
  ip_socket: {
    create: udp,
    query: device =>
      udp(device)
        .wait({ signal: AbortSignal.abort() })
        .catch(() => {}),
    destroy: 'its descriptor is closed: socket.close',
    send: device => udp(device).send(new Uint8Array(1), { address: '10.9.0.2', port: 7 }),
    receive: device => udp(device).poll(),
    join: device => udp(device).join(GROUP),
    leave(device) {
      const socket = udp(device)
      socket.join(GROUP)
      socket.leave(GROUP)
    },
  },
  system: { query: 'of the system-wide device: openSystem({ network }).devices()' },
  driver_ops: {
    create: device => device.driverOps(),
    query: device => device.driverOps().name,
    destroy: device => device.driverOps().close(),
  },
}

/** Classes that the soft device lacks, by the device that has them. */
const CTX_CLASSES = ['driver_ops']
const THIRD_PARTY_CLASSES = ['smi_qp']

/** The device without its generic methods. */
const withoutGenericMethods = (device: Device): Device => {
  const generic = (): never => assert.fail('the row uses a generic method')
  return { ...device, create: generic, call: generic }
}

test('every method of every class has a method in the library, or a reason', async () => {
  const network = createNetwork() as LocalNetwork
  network.addDevice(core => createCtxDevice(core, 'ctx0'))
  network.addDevice(core => createThirdPartyDevice(core, 'third0'))
  const soft = await open({ network })
  const ctx = await open({ network, device: 'ctx0' })
  const thirdParty = await open({ network, device: 'third0' })
  const called = new Set<string>()
  for (const device of network.core.devices.values())
    addHook(device, { pre: ({ entry }) => called.add(`${entry.class.name}.${entry.name}`) })

  const deviceWith = (className: string): Device => {
    if (CTX_CLASSES.includes(className)) return ctx
    return THIRD_PARTY_CLASSES.includes(className) ? thirdParty : soft
  }
  assert.deepEqual(Object.keys(rows).sort(), classes.map(({ name }) => name).sort())
  for (const { name, methods } of classes) {
    assert.deepEqual(Object.keys(rows[name]).sort(), Object.keys(methods).sort(), name)
    const device = withoutGenericMethods(deviceWith(name))
    for (const [method, row] of Object.entries(rows[name])) {
      if (typeof row === 'string') continue
      const call = `${name}.${method}`
      called.clear()
      try {
        await row(device)
      } catch (error) {
        // The device may refuse the call; the error then names it.
        assert.ok(error instanceof RdmaError && called.has(call), `${call}: ${error}`)
        assert.deepEqual([error.class, error.method], [name, method])
      }
      assert.ok(called.has(call), `the row says ${call}, but the library made ${[...called].join(', ')}`)
    }
  }
  using system = openSystem({ network })
  assert.equal(system.devices().length, 3)
  assert.ok(ctx.supports(CtxContext.name, 'send'))
  for (const device of [soft, ctx, thirdParty]) await device.close()
})

test('a class that the soft device lacks is refused with its name, and `supports` returns false', async () => {
  await using soft = await open()
  for (const name of THIRD_PARTY_CLASSES) {
    assert.ok(!soft.supports(name))
    const make = rows[name].create as LibraryCall
    assert.throws(
      () => make(soft),
      (error: unknown) => {
        assert.ok(error instanceof RdmaError, String(error))
        assert.deepEqual([error.code, error.class, error.method], ['EOPNOTSUPP', name, 'create'])
        assert.match(error.reason, new RegExp(`this device has no ${name}\\.create`))
        assert.match(error.hint, /supports/)
        return true
      },
    )
  }
})
