/*
 * Exceptions injected into the daemon. An exception ends at most one session, call or device, and is logged.
 */
import assert from 'node:assert/strict'
import { closeSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openContext, unregister } from '../../src/core/devices/registry.ts'
import { dispatch } from '../../src/core/dispatch/dispatch.ts'
import type { RegisteredDriver } from '../../src/core/driver-contract.ts'
import { createSharedLimits } from '../../src/daemon/accounts.ts'
import { createContainment } from '../../src/daemon/containment.ts'
import { Contexts } from '../../src/daemon/context/contexts.ts'
import { type Daemon, startDaemon } from '../../src/daemon/daemon.ts'
import { Loop, type Pollable } from '../../src/daemon/loop.ts'
import type { DaemonParts } from '../../src/daemon/parts.ts'
import { createSession, type SessionParts } from '../../src/daemon/session/client-session.ts'
import type { RoceSite } from '../../src/drivers/roce-site.ts'
import { type RxeDevice, rxeDriver } from '../../src/drivers/rxe/device.ts'
import { createRingPool } from '../../src/host/memory/mapping.ts'
import { close, socketPair } from '../../src/host/net/sockets.ts'
import { AsyncEventType } from '../../src/spec/enums.ts'
import { Errno } from '../../src/spec/errno.ts'
import { NlmsgFlags } from '../../src/spec/linux/nldev.ts'
import { ParkedPage } from '../../src/spec/session.ts'
import type { Entries } from '../../src/uapi/nldev/attributes.ts'
import { ownAccount } from '../core/accounts.ts'
import { machine } from '../drivers/rxe/machine.ts'
import { scratchFolder } from '../tools.ts'
import { type Client, Command, CommandBytes, dial } from './client.ts'
import { openTestSocket } from './netlink/test-socket.ts'

const folder = scratchFolder()

/** From this connection on, the start of a session takes 0.4 ms. */
const SLOW_FROM = 50
/** Offset of the type in struct ib_uverbs_async_event_desc. */
const EVENT_TYPE_AT = 8

const createLog = () => {
  const lines: string[] = []
  const log = (...words: unknown[]): void => {
    lines.push(words.map(word => (word instanceof Error ? word.stack : String(word))).join(' '))
  }
  return { lines, log }
}

/** An error that reaches the process fails the test. */
const failOnUncaught = (t: TestContext): void => {
  const onUncaught = (error: unknown): void => assert.fail(`an error reached the process: ${String(error)}`)
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, onUncaught)
    t.after(() => process.off(event, onUncaught))
  }
}

/** The soft device's driver, whose devices are what `change` makes of them. */
const changedDriver = (change: (rxe: RxeDevice, name: string) => RxeDevice): RegisteredDriver => ({
  ...rxeDriver,
  createDevice: (core, name, site: RoceSite) => change(rxeDriver.createDevice(core, name, site), name),
})

let daemons = 0
const daemonWith = async (t: TestContext, parts: Partial<DaemonParts>, driver?: RegisteredDriver): Promise<Daemon> => {
  failOnUncaught(t)
  const daemon = await startDaemon({
    socket: join(folder, `sock${daemons++}`),
    config: {
      devices: ['127.0.0.1', '127.0.0.2'].map((address, i) => ({ name: `rxe${i}`, address })),
      fault: '',
      link: 'memory',
    },
    endWithLastClient: false,
    parts,
    ...(driver && { drivers: [driver] }),
  })
  t.after(() => daemon.close())
  return daemon
}

const connect = async (t: TestContext, daemon: Daemon): Promise<Client> => {
  const client = dial(t, daemon)
  await client.hello()
  return client
}

const assertServed = async (client: Client, context: number): Promise<void> => {
  const { ret, response } = await client.command(context, Command.ALLOC_PD, [], 1)
  assert.equal(ret, CommandBytes.ALLOC_PD)
  assert.equal((await client.command(context, Command.DEALLOC_PD, [response[0]])).ret, CommandBytes.DEALLOC_PD)
}

/** The members of `rxe`, as a plain object. A test replaces some. */
const membersOf = (rxe: RxeDevice): RxeDevice => ({
  device: rxe.device,
  queues: rxe.queues,
  link: rxe.link,
  counters: () => rxe.counters(),
  poll: (now, scope) => rxe.poll(now, scope),
  isUnfinished: () => rxe.isUnfinished(),
  scanChanged: () => rxe.scanChanged(),
  onDoorbell: (context, handle) => rxe.onDoorbell(context, handle),
  hasWork: () => rxe.hasWork(),
  nextTimeout: () => rxe.nextTimeout(),
  waits: disconnected => rxe.waits(disconnected),
  visitStalls: (minRnrNaks, visit) => rxe.visitStalls(minRnrNaks, visit),
  rnrWait: qpn => rxe.rnrWait(qpn),
})

for (const method of ['poll', 'nextTimeout'] as const)
  test(`a device whose ${method} throws is removed with DEVICE_FATAL; other devices continue`, async t => {
    const { lines, log } = createLog()
    let isBroken = false
    const driver = changedDriver((rxe, name) => {
      if (name !== 'rxe1') return rxe
      const fault = (): void => {
        if (isBroken) throw new Error('injected into the device')
      }
      const device: RxeDevice = {
        ...membersOf(rxe),
        poll: (now, scope) => {
          if (method === 'poll') fault()
          return rxe.poll(now, scope)
        },
        nextTimeout: () => {
          if (method === 'nextTimeout') fault()
          return rxe.nextTimeout()
        },
      }
      return device
    })
    const daemon = await daemonWith(t, { log }, driver)
    const client = await connect(t, daemon)
    const healthy = await client.context(0)
    const { context, descriptors } = await client.open(1)
    client.keep(descriptors)
    const { fds } = await client.command(context, Command.GET_CONTEXT, [], 2)
    client.keep(fds)
    await assertServed(client, context)

    isBroken = true
    // After a call the loop polls all devices.
    await assertServed(client, healthy)
    assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, -Errno.EIO)
    // readFileSync returns at the end of the events. The first event is DEVICE_FATAL.
    assert.equal(readFileSync(fds[0]).readUInt32LE(EVENT_TYPE_AT), AsyncEventType.values.DEVICE_FATAL)
    assert.equal(lines.length, 1)
    assert.match(lines[0], /device rxe1.*injected into the device\n\s+at /s)
    assert.equal(existsSync(`${daemon.socket}.tree/sys/class/infiniband/rxe1`), false)
    assert.deepEqual(
      (await client.stat()).devices.map(({ name }) => name),
      ['rxe0'],
    )
    await assertServed(client, healthy)
    // The name can be used again.
    isBroken = false
    await client.tool({ kind: 'device', add: { name: 'rxe1', address: '127.0.0.2' } })
    await assertServed(client, await client.context(1))
  })

test('a call that throws, immediately or later, is answered with EIO; all sessions continue', async t => {
  const { lines, log } = createLog()
  let fault: 'none' | 'throws' | 'rejects' = 'none'
  const daemon = await daemonWith(t, {
    log,
    dispatch: (...args) => {
      if (fault === 'throws') throw new Error('injected into a call')
      return fault === 'rejects' ? Promise.reject(new Error('injected into a promise')) : dispatch(...args)
    },
  })
  const client = await connect(t, daemon)
  const other = await connect(t, daemon)
  const context = await client.context(0)
  const otherContext = await other.context(0)
  for (const kind of ['throws', 'rejects'] as const) {
    fault = kind
    assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, -Errno.EIO)
    fault = 'none'
    await assertServed(client, context)
    await assertServed(other, otherContext)
  }
  assert.match(lines[0], /injected into a call\n\s+at /)
  assert.match(lines[1], /injected into a promise\n\s+at /)
})

/** A daemon whose devices throw `reason` when they are asked for `counters` or `link` while `fault.isActive`. */
const daemonWithFaultyState = async (t: TestContext, log: (...words: unknown[]) => void, reason: string) => {
  const fault = { isActive: false }
  const driver = changedDriver(rxe => ({
    ...membersOf(rxe),
    counters() {
      if (fault.isActive) throw new Error(reason)
      return rxe.counters()
    },
    get link() {
      if (fault.isActive) throw new Error(reason)
      return rxe.link
    },
  }))
  const daemon = await daemonWith(t, { log }, driver)
  return { daemon, fault }
}

test('an exception while a message is handled ends only the session', async t => {
  const { lines, log } = createLog()
  const { daemon, fault } = await daemonWithFaultyState(t, log, 'injected into the statistics')
  const other = await connect(t, daemon)
  const otherContext = await other.context(0)
  const client = await connect(t, daemon)
  fault.isActive = true
  await assert.rejects(client.stat(), /the session ended before the answer/)
  fault.isActive = false
  assert.match(lines[0], /a session: Error: injected into the statistics\n\s+at /)
  await assertServed(other, otherContext)
  assert.equal((await other.stat()).sessions, 0, 'without the session that sends the request')
})

test('connections whose sessions cannot start because of an exception are hung up, at most 16 or 1 ms in a turn', async t => {
  const { lines, log } = createLog()
  const daemon = await daemonWith(t, { log })
  const clients = Array.from({ length: 100 }, () => dial(t, daemon))
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  const fault = t.mock.method(process as { geteuid(): number }, 'geteuid', () => {
    if (fault.mock.callCount() >= SLOW_FROM) milliseconds += 0.4
    throw new Error('injected into the start of a session')
  })
  const startsByTurn: number[] = []
  const slowStarts: number[] = []
  while (fault.mock.callCount() < clients.length) {
    const before = fault.mock.callCount()
    await new Promise(resolve => setImmediate(resolve))
    startsByTurn.push(fault.mock.callCount() - before)
    if (before >= SLOW_FROM) slowStarts.push(fault.mock.callCount() - before)
  }
  assert.ok(Math.max(...startsByTurn) <= 16, `new sessions in each turn: ${startsByTurn}`)
  assert.equal(Math.max(...slowStarts), 3, `new sessions in each turn: ${slowStarts}`)
  for (const client of clients) assert.equal(await client.next(), undefined)
  fault.mock.restore()
  assert.match(lines[0], /a new session: Error: injected into the start of a session\n\s+at /)
  await connect(t, daemon)
})

test('a session that cannot start because of an exception takes no descriptors of its account', t => {
  const limits = createSharedLimits({ descriptors: 100 })
  const state = {
    serves: () => true,
    limits,
    sessions: { countOf: () => 0 },
    // read after the charge
    get toolTime() {
      throw new Error('injected into the start of a session')
    },
  }
  const [fd, programEnd] = socketPair()
  t.after(() => [fd, programEnd].map(close))
  assert.throws(() => createSession(state as unknown as SessionParts, fd, () => {}), /injected/)
  assert.equal(limits.descriptors.used, 0)
})

test('a netlink request or list that throws is answered with EIO, and the socket continues', async t => {
  const { lines, log } = createLog()
  const { daemon, fault } = await daemonWithFaultyState(t, log, 'injected into netlink')
  const socket = await openTestSocket(await connect(t, daemon))
  const device: Entries = [['DEV_INDEX', 0]]
  const port: Entries = [...device, ['PORT_INDEX', 1]]
  const errnos = async () => [
    (await socket.request('PORT_GET', port)).errno,
    (await socket.request('PORT_GET', device, NlmsgFlags.DUMP)).errno,
  ]
  fault.isActive = true
  assert.deepEqual(await errnos(), [Errno.EIO, Errno.EIO])
  fault.isActive = false
  assert.match(lines[0], /a request of netlink: Error: injected into netlink\n\s+at /)
  assert.match(lines[1], /a list of netlink: Error: injected into netlink\n\s+at /)
  assert.deepEqual(await errnos(), [0, 0])
})

test('the loop continues after an exception of a device, with and without `onFailure`', async () => {
  const words = new Int32Array(ParkedPage.bytes / 4)
  const reported: unknown[] = []
  let polls = 0
  let isBroken = true
  const healthy: Pollable = {
    poll: () => {
      polls++
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  }
  const broken: Pollable = {
    poll: () => {
      if (isBroken) throw new Error('injected')
      return false
    },
    nextTimeout: () => Number.POSITIVE_INFINITY,
  }
  const devices = [broken, healthy]
  const onTurn = (): void => {}
  const loop = new Loop(words, devices, onTurn, device => {
    reported.push(device)
    devices.splice(devices.indexOf(device), 1)
    // Removing a device calls the loop.
    loop.kick()
  })
  loop.kick()
  assert.deepEqual(reported, [broken])
  assert.equal(words[ParkedPage.PARKED], 1)
  const before = polls
  loop.kick()
  assert.ok(polls > before)
  loop.stop()

  // Without `onFailure` the loop throws the exception, and continues in the next turn of the event loop.
  const again = new Loop(words, [broken], onTurn)
  assert.throws(() => again.kick(), /injected/)
  isBroken = false
  while (words[ParkedPage.PARKED] === 0) await new Promise(setImmediate)
  again.stop()
})

test('errors in the handling of a doorbell and in a timer are logged, and the context ends', async t => {
  failOnUncaught(t)
  const { lines, log } = createLog()
  const m = machine(1)
  let rungCount = 0
  let resolveRung = (): void => {}
  const onPosted = (): void => {}
  const onRung = (): void => {
    rungCount++
    resolveRung()
    throw new Error('injected into onRung')
  }
  const contexts = new Contexts(createRingPool(), onPosted, onRung, createContainment(log))
  /** Resolves at the next call of `onRung`. */
  const nextRung = (): Promise<void> =>
    new Promise(done => {
      resolveRung = done
    })
  const node = 0
  const { open, doorbell } = contexts.open(m.devices[0].device, node, ownAccount())
  const held = open.memory.share()
  const doorbellRung = nextRung()
  closeSync(doorbell)
  await doorbellRung
  const timerRung = nextRung()
  await timerRung
  closeSync(held)
  while (contexts.count > 0) await nextRung()
  assert.match(lines[0], /a doorbell: Error: injected into onRung/)
  assert.match(lines[1], /without doorbells: Error: injected into onRung/)
  assert.ok(rungCount >= 3)
})

test('a device is removed completely although its driver throws', () => {
  const m = machine(1)
  const { device } = m.devices[0]
  const context = openContext(device)
  m.devices[0].device.state.port.close = () => {
    throw new Error('injected into the port')
  }
  unregister(device)
  assert.deepEqual([m.core.faults, m.core.devices.size, context.isClosed, device.contexts.size], [1, 0, true, 0])
})

test('a repeated error is logged at its 1st, 2nd, 4th … occurrence', () => {
  const { lines, log } = createLog()
  const containment = createContainment(log)
  const guarded = containment.guard('a test', () => {
    throw new Error('again')
  })
  for (let i = 0; i < 100; i++) guarded()
  assert.equal(containment.count, 100)
  assert.equal(lines.length, 7, '1, 2, 4, 8, 16, 32, 64')
  assert.match(lines[6], /a test, 64 times so far: Error: again/)
})
