/*
 * Clients of devices (R31) and handlers of events (R32, R33).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  addEventHandler,
  arm,
  type Client,
  type Context,
  closeContext,
  completed,
  createCore,
  type Device,
  invokeNow,
  openContext,
  raiseDevice,
  raiseObjectEvent,
  raisePort,
  register,
  registerClient,
  systemDevice,
  unregister,
} from '../../../src/core/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { describeDevice, errnoOf, openTestDevice, testCaller } from '../fixture.ts'

const { CQ_ERR, DEVICE_FATAL, PORT_ACTIVE, PORT_ERR, DEVICE_REMOVED } = AsyncEventType.values

/** Arguments of `completed` and `arm`. */
const [SOLICITED, UNSOLICITED, ONLY_SOLICITED] = [true, false, true]

const subsystem = () => {
  const core = createCore()
  const log: string[] = []
  const addDevice = (name: string): Device => register(core, describeDevice(name)) as Device
  const client = (name: string, wants: (device: Device) => boolean = () => true): Client => ({
    name,
    add: device => {
      log.push(`${name}+${device.name}`)
      return wants(device)
    },
    remove: device => {
      log.push(`${name}-${device.name}`)
    },
  })
  /** Accepts all devices; `onAdd` is called in `add`. */
  const actingClient = (name: string, onAdd: (device: Device) => void): Client => ({
    ...client(name),
    add(device) {
      client(name).add(device)
      onAdd(device)
      return true
    },
  })
  /** The callbacks since the last call of `seen`. */
  const seen = () => log.splice(0).join(' ')
  return { core, log, addDevice, client, actingClient, seen }
}

test('a client gets `add` for existing devices when it registers, `remove` for remaining devices when it unregisters', () => {
  const { core, addDevice, client, seen } = subsystem()
  const first = addDevice('d1')
  addDevice('d2')
  const unregisterClient = registerClient(core, client('a'))
  assert.equal(seen(), 'a+d1 a+d2')
  unregister(first)
  assert.equal(seen(), 'a-d1')
  unregisterClient()
  assert.equal(seen(), 'a-d2')
  unregisterClient()
  addDevice('d3')
  assert.equal(seen(), '')
})

test('clients get `add` in order of registration, and `remove` in reverse order', () => {
  const { core, addDevice, client, seen } = subsystem()
  for (const name of ['mad', 'cm', 'ipoib']) registerClient(core, client(name))
  const device = addDevice('d1')
  assert.equal(seen(), 'mad+d1 cm+d1 ipoib+d1')
  unregister(device)
  assert.equal(seen(), 'ipoib-d1 cm-d1 mad-d1')
})

test('a client that declines a device gets no `remove` for that device', () => {
  const { core, addDevice, client, seen } = subsystem()
  registerClient(
    core,
    client('a', device => device.name !== 'd1'),
  )
  const device = addDevice('d1')
  const second = addDevice('d2')
  unregister(device)
  unregister(second)
  assert.equal(seen(), 'a+d1 a+d2 a-d2')
})

test('during `remove` calls fail with EIO, and the client can close its context', () => {
  const { core, addDevice } = subsystem()
  const caller = testCaller()
  let context: Context | undefined
  const createPd = () => invokeNow(context!, Classes.pd, 'create', 0, {}, caller)
  const codes: string[] = []
  registerClient(core, {
    name: 'a',
    add(device) {
      context = openContext(device, { isOpened: true })
      createPd()
      return true
    },
    remove() {
      codes.push(errnoOf(createPd))
      closeContext(context!)
    },
  })
  const device = addDevice('d1')
  assert.equal(device.counts.pd, 1)
  unregister(device)
  assert.deepEqual([codes, device.counts.pd], [['EIO'], 0])
})

test('a client that throws does not affect the other clients', () => {
  const { core, addDevice, client, seen } = subsystem()
  const device = addDevice('d1')
  const broken = { ...client('b'), add: () => assert.fail('no room') }
  assert.throws(() => registerClient(core, broken), /no room/)
  registerClient(core, client('a'))
  const unregisterClient = registerClient(core, { ...client('c'), remove: () => assert.fail('lost') })
  registerClient(core, { ...client('d'), add: ({ name }) => name === 'd1' || assert.fail('no more') })
  registerClient(core, client('e'))
  const second = addDevice('d2')
  assert.equal(core.faults, 1)
  assert.equal(seen(), 'a+d1 c+d1 e+d1 a+d2 c+d2 e+d2')
  unregister(device)
  assert.equal(seen(), 'e-d1 d-d1 a-d1')
  unregister(second)
  assert.equal(seen(), 'e-d2 a-d2')
  addDevice('d3')
  addDevice('d4')
  seen()
  unregisterClient()
  assert.equal(core.faults, 7, 'client d at d2 to d4, client c at all four devices')
})

test("a client's `add` may remove another device", () => {
  const { core, addDevice, actingClient, seen } = subsystem()
  const [firstDevice, secondDevice] = [addDevice('d1'), addDevice('d2')]
  registerClient(
    core,
    actingClient('a', device => device === firstDevice && unregister(secondDevice)),
  )
  assert.equal(seen(), 'a+d1', 'd2 was removed before client a got it')
})

test("a client's `add` may unregister another client", () => {
  const { core, addDevice, client, actingClient, seen } = subsystem()
  let unregisterClient = () => {}
  registerClient(
    core,
    actingClient('a', () => unregisterClient()),
  )
  unregisterClient = registerClient(core, client('b'))
  unregister(addDevice('d1'))
  assert.equal(seen(), 'a+d1 a-d1', 'client b was unregistered before it got d1')
})

test("a client's `add` may remove its device", () => {
  const { core, addDevice, client, actingClient, seen } = subsystem()
  registerClient(core, client('a'))
  const system = openContext(systemDevice(core))
  const notified: number[] = []
  addEventHandler(system.device, ({ type }) => void notified.push(type))
  registerClient(
    core,
    actingClient('b', device => unregister(device)),
  )
  assert.equal(addDevice('d1').isAlive, false)
  assert.equal(seen(), 'a+d1 b+d1 b-d1 a-d1')
  assert.deepEqual(notified, [DEVICE_REMOVED], 'not DEVICE_ADDED')
})

test('a client cannot unregister in its own callback', () => {
  const { core, addDevice } = subsystem()
  let unregisterClient: () => void = () => {}
  const refused: string[] = []
  unregisterClient = registerClient(core, {
    name: 'a',
    add: ({ name }) => {
      if (name === 'd1') addDevice('d2')
      try {
        unregisterClient()
      } catch (error) {
        refused.push(`${name}: ${(error as Error).message}`)
      }
      return true
    },
    remove: () => {},
  })
  addDevice('d1')
  const message = 'client a was unregistered in its own callback'
  // d2 is added first: in the callback for d1.
  assert.deepEqual(refused, [`d2: ${message}`, `d1: ${message}`])
})

test('a handler of a device gets events of the device and its ports until the handler is removed', () => {
  const { addDevice, log, seen } = subsystem()
  const device = addDevice('d1')
  const handler = ({ type, port }: { type: number; port: number | undefined }) => void log.push(`${type}@${port}`)
  const removeFirst = addEventHandler(device, handler)
  const removeSecond = addEventHandler(device, handler)
  raisePort(device, 1, PORT_ERR)
  assert.equal(seen(), `${PORT_ERR}@1 ${PORT_ERR}@1`)
  removeSecond()
  raiseDevice(device, DEVICE_FATAL)
  assert.equal(seen(), `${DEVICE_FATAL}@undefined`)
  removeFirst()
  raisePort(device, 1, PORT_ACTIVE)
  assert.equal(seen(), '')
})

test('a handler that another handler removes during an event is not called', () => {
  const { device } = openTestDevice()
  const log: string[] = []
  addEventHandler(device, () => {
    log.push('first')
    removeSecond()
    addEventHandler(device, () => log.push('added'))
  })
  const removeSecond = addEventHandler(device, () => log.push('second'))
  raisePort(device, 1, PORT_ACTIVE)
  assert.deepEqual(log, ['first'])
})

test('a handler that throws is counted as a fault, and the other handlers are called', () => {
  const { core, addDevice, log, seen } = subsystem()
  const device = addDevice('d1')
  addEventHandler(device, () => assert.fail())
  addEventHandler(device, ({ type }) => void log.push(String(type)))
  raisePort(device, 1, PORT_ACTIVE)
  assert.deepEqual([seen(), core.faults], [`${PORT_ACTIVE}`, 1])
})

test("handlers passed to an object's create get the object's events and user handle (R33)", () => {
  const { context, caller } = openTestDevice()
  const events: string[] = []
  const handlers = {
    completion: (userHandle: bigint) => void events.push(`completion ${userHandle}`),
    event: (userHandle: bigint, type: number) => void events.push(`event ${userHandle} ${type}`),
  }
  const args = { cqe: 4, userHandle: 77n, compVector: 1 }
  invokeNow(context, Classes.cq, 'create', 0, args, { ...caller, handlers })
  const cq = context.handles.slots[0]!
  completed(cq.events!, SOLICITED)
  assert.deepEqual(events, [], 'not armed')
  arm(cq, ONLY_SOLICITED)
  completed(cq.events!, UNSOLICITED)
  // Only the first solicited completion causes an event.
  completed(cq.events!, SOLICITED)
  completed(cq.events!, SOLICITED)
  raiseObjectEvent(cq, CQ_ERR)
  assert.deepEqual(events, ['completion 77', `event 77 ${CQ_ERR}`])
})

test("an object's handler that throws is counted as a fault (R33)", () => {
  const { context, caller } = openTestDevice()
  const handlers = { completion: () => assert.fail(), event: () => assert.fail() }
  invokeNow(context, Classes.cq, 'create', 0, { cqe: 4, userHandle: 1n, compVector: 0 }, { ...caller, handlers })
  const cq = context.handles.slots[0]!
  arm(cq, ONLY_SOLICITED)
  completed(cq.events!, SOLICITED)
  raiseObjectEvent(cq, CQ_ERR)
  assert.equal(context.device.core.faults, 2)
})
