/*
 * rdma_cm calls of test/programs/connections/ucma.c (docs/reference/connection-manager.md, docs/why/threat-model.md).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Mtu } from '../../../src/spec/enums.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { isEmpty, lacking, NOBODY, noGuests, runUserdma, startDaemon, TWO_DEVICES } from '../programs.ts'
import { killInEveryState } from './killed-rdmacm.ts'
import { UCMA_PROGRAM, UcmaCommand, UcmaProgram } from './ucma.ts'

const PORT = 7471
/** No queue pair has this number. */
const QPN = 0x33
/** No memory is mapped at this address. */
const BAD_ADDRESS = 16n
const [EPERM, ENOENT, ENXIO, EFAULT, EINVAL, EADDRINUSE] = [-1, -2, -6, -14, -22, -98]

const skip = lacking(UCMA_PROGRAM)

describe("a guest's program on root's daemon", { skip: skip || noGuests() }, () => {
  it('cannot reach objects of another user', async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    const owner = await UcmaProgram.start(t, daemon)
    const guest = await UcmaProgram.start(t, daemon, NOBODY)
    const listener = await owner.create()
    await owner.bind(listener, PORT)
    assert.ok((await owner.listen(listener)) >= 0)

    const guestId = await guest.create()
    assert.equal(await guest.bind(guestId, PORT), EADDRINUSE)
    for (let id = 0; id < 64; id++) {
      if (id === guestId) continue
      assert.deepEqual(
        [
          await guest.destroy(id),
          await guest.listen(id),
          await guest.accept(id, QPN),
          await guest.disconnect(id),
          await guest.bind(id, PORT + 1),
        ],
        [ENOENT, ENOENT, ENOENT, ENOENT, ENOENT],
        `identifier ${id}`,
      )
    }
    // A REQ with the number of another user's queue pair would make the peer end that queue pair's connection as stale.
    assert.ok((await guest.resolve(guestId, PORT)) >= 0)
    assert.equal(await guest.connect(guestId, QPN), EPERM)
    assert.ok((await guest.connect(guestId, 0)) >= 0)
    const { id: request } = await owner.until('CONNECT_REQUEST')
    assert.equal(await guest.accept(request, 0), ENOENT)
    assert.ok((await owner.accept(request, QPN)) >= 0)
    await guest.until('CONNECT_RESPONSE')
    await guest.accept(guestId)
    await owner.until('ESTABLISHED')
    for (const one of [owner, guest]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('programs', { skip }, () => {
  it('exchange vendor options (ECE) by CONNECT, ACCEPT and GET_EVENT', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create()
    await server.bind(listener, PORT)
    await server.listen(listener)
    const id = await client.create()
    assert.ok((await client.resolve(id, PORT)) >= 0)
    assert.ok((await client.connect(id, QPN, { vendorId: 0x15b3, attrMod: 7 })) >= 0)
    const request = await server.until('CONNECT_REQUEST')
    assert.deepEqual(request.ece, { vendorId: 0x15b3, attrMod: 7 })
    assert.ok((await server.accept(request.id, QPN + 1, { vendorId: 0x1234, attrMod: 9 })) >= 0)
    assert.deepEqual((await client.until('CONNECT_RESPONSE')).ece, { vendorId: 0x1234, attrMod: 9 })
    for (const one of [server, client]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('an event', { skip }, () => {
  it('stays for the next read if the buffer is bad', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create(7n)
    await server.bind(listener, PORT)
    await server.listen(listener, 1)
    const ids = [await client.create(), await client.create()]
    for (const [i, id] of ids.entries()) {
      await client.resolve(id, PORT)
      assert.ok((await client.connect(id, QPN + i)) >= 0)
    }
    for (let tries = 0; tries < 3; tries++) assert.equal(await server.eventInto(BAD_ADDRESS), EFAULT)
    const request = await server.event()
    assert.deepEqual([request?.name, request?.userHandle], ['CONNECT_REQUEST', 7n])
    // Failed reads make no room in the backlog, and are not counted.
    assert.equal(await server.event(), undefined)
    assert.equal(await server.destroy(listener), 1)
    for (let tries = 0; tries < 3; tries++) assert.equal(await client.eventInto(BAD_ADDRESS), EFAULT)
    const names: unknown[] = []
    for (let i = 0; i < 4; i++) names.push((await client.event())?.name)
    assert.deepEqual(names, ['ADDR_RESOLVED', 'ROUTE_RESOLVED', 'ADDR_RESOLVED', 'ROUTE_RESOLVED'])
    for (const one of [server, client]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('a request whose peer has ended', { skip }, () => {
  it('raises no event, and cannot be accepted, as on Linux', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create(7n)
    await server.bind(listener, PORT)
    await server.listen(listener)
    const request = async (qpn: number) => {
      const id = await client.create()
      await client.resolve(id, PORT)
      assert.ok((await client.connect(id, qpn)) >= 0)
      return id
    }
    const id = await request(QPN)
    const first = await server.until('CONNECT_REQUEST')
    await client.destroy(id)
    // The second request is sent after the first one's identifier was destroyed.
    await request(QPN + 1)
    let event = await server.event()
    while (event === undefined) event = await server.event()
    assert.equal(event.name, 'CONNECT_REQUEST')
    assert.equal(await server.accept(first.id, QPN + 2), EINVAL)
    assert.equal(await server.destroy(first.id), 0)
    for (const one of [server, client]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('a channel', { skip }, () => {
  it('is readable by poll, select and epoll while an event is queued, also for a child', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    /** The sum of 1, 2 and 4 if poll, select and epoll report the client's channel as readable. */
    const readiness = async () => (await client.step('poll')).result
    const listener = await server.create()
    await server.bind(listener, PORT)
    await server.listen(listener)
    const id = await client.create()
    assert.deepEqual([await readiness(), await client.event()], [0, undefined])
    await client.resolve(id, PORT)
    assert.equal(await readiness(), 7)
    assert.equal((await client.event())?.name, 'ADDR_RESOLVED')
    assert.equal(await readiness(), 7)
    // A child takes over while a request is in flight: it reads its parent's unread events, and connects.
    assert.ok((await client.connect(id, QPN)) >= 0)
    await client.step('fork')
    assert.equal((await client.event())?.name, 'ROUTE_RESOLVED')
    const { id: request } = await server.until('CONNECT_REQUEST')
    assert.ok((await server.accept(request, QPN + 1)) >= 0)
    await client.until('CONNECT_RESPONSE')
    assert.ok((await client.accept(id)) >= 0)
    await server.until('ESTABLISHED')
    const ofChild = await client.create(5n)
    // The child's identifiers belong to the channel, which the parent still has open.
    assert.equal((await client.step('exit')).result, 0)
    assert.equal(await readiness(), 0)
    assert.ok((await client.disconnect(id)) >= 0)
    await server.until('DISCONNECTED')
    await server.disconnect(request)
    await client.until('DISCONNECTED')
    for (const one of [ofChild, id]) assert.ok((await client.destroy(one)) >= 0)
    for (const one of [server, client]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('an identifier', { skip }, () => {
  it('may be destroyed by either end after each step of a connection', async t => {
    const daemon = await startDaemon(t)
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create()
    await server.bind(listener, PORT)
    await server.listen(listener)
    let qpn = 0x4000
    for (const isClientFirst of [true, false, true])
      for (let lastStep = 0; lastStep < 6; lastStep++) {
        const id = await client.create()
        let request: number | undefined
        const steps = [
          () => client.resolve(id, PORT),
          () => client.connect(id, qpn++),
          async () => {
            request = (await server.until('CONNECT_REQUEST')).id
          },
          () => server.accept(request ?? 0, qpn++),
          async () => {
            await client.until('CONNECT_RESPONSE')
            await client.accept(id)
          },
          () => client.disconnect(id),
        ]
        for (const step of steps.slice(0, lastStep + 1)) await step()
        const destroyClient = () => client.destroy(id)
        const destroyServer = async () => request === undefined || server.destroy(request)
        const order = isClientFirst ? [destroyClient, destroyServer] : [destroyServer, destroyClient]
        for (const destroy of order) await destroy()
        // The event of an unread request stays when the client destroys its identifier, as on Linux.
        const isRequestUnread = lastStep === 1
        if (isRequestUnread) await server.destroy((await server.until('CONNECT_REQUEST')).id)
      }
    await client.close()
    const { connections } = await daemon.settled(stat => stat.sessions === 1 && stat.connections.connections === 0)
    assert.deepEqual(connections, { identifiers: 1, listeners: 1, connections: 0 })
    await server.close()
    await daemon.settled(isEmpty)
  })
})

describe('a removed device', { skip }, () => {
  it('raises DEVICE_REMOVAL on its identifiers, and its address can be used again', async t => {
    const daemon = await startDaemon(t, { devices: TWO_DEVICES })
    const changeDevice = async (...args: string[]): Promise<void> => {
      const { status, stderr } = await runUserdma(t, ['device', ...args, '--socket', daemon.socket])
      assert.equal(status, 0, stderr)
    }
    const [server, client] = [await UcmaProgram.start(t, daemon), await UcmaProgram.start(t, daemon)]
    const listener = await server.create()
    await server.bind(listener, PORT)
    await server.listen(listener)
    const id = await client.create()
    await client.resolve(id, PORT)
    await client.connect(id, QPN)
    const { id: request } = await server.until('CONNECT_REQUEST')
    await server.accept(request, QPN + 1)
    await client.until('CONNECT_RESPONSE')
    await client.accept(id)
    await server.until('ESTABLISHED')
    const idle = await client.create()
    await changeDevice('remove', 'rxe0')
    const removed: number[] = []
    while (removed.length < 2) removed.push((await server.until('DEVICE_REMOVAL')).id)
    assert.deepEqual(removed.sort(), [listener, request].sort())
    assert.equal((await client.until('DEVICE_REMOVAL')).id, id)
    assert.equal(await client.event(), undefined)
    assert.deepEqual(
      [await client.resolve(id, PORT), await client.connect(id, QPN), await client.disconnect(id)],
      [ENXIO, ENXIO, ENXIO],
    )
    for (const one of [listener, request]) assert.ok((await server.destroy(one)) >= 0)
    assert.ok((await client.destroy(id)) >= 0)
    await changeDevice('add', 'rxe0@127.0.0.1')
    const newListener = await server.create()
    assert.ok((await server.bind(newListener, PORT)) >= 0)
    assert.ok((await server.listen(newListener)) >= 0)
    await client.resolve(idle, PORT)
    assert.ok((await client.connect(idle, QPN)) >= 0)
    await server.until('CONNECT_REQUEST')
    for (const one of [server, client]) await one.close()
    await daemon.settled(isEmpty)
  })
})

describe('a program that rejects', { skip }, () => {
  it('sends the reject reasons that Linux lets programs choose', async t => {
    const daemon = await startDaemon(t)
    const program = await UcmaProgram.start(t, daemon)
    const listener = await program.create()
    await program.bind(listener, PORT)
    await program.listen(listener)
    const { CONSUMER_DEFINED, VENDOR_OPTION_NOT_SUPPORTED, INVALID_SERVICE_ID } = rejReason
    for (const [reason, reported] of [
      [0, CONSUMER_DEFINED],
      [CONSUMER_DEFINED, CONSUMER_DEFINED],
      [VENDOR_OPTION_NOT_SUPPORTED, VENDOR_OPTION_NOT_SUPPORTED],
    ] as const) {
      const id = await program.create()
      await program.resolve(id, PORT)
      await program.connect(id, QPN)
      const { id: request } = await program.until('CONNECT_REQUEST')
      assert.equal(await program.reject(request, INVALID_SERVICE_ID), EINVAL)
      assert.ok((await program.reject(request, reason)) >= 0)
      assert.equal((await program.until('REJECTED')).status, reported)
      for (const one of [request, id]) await program.destroy(one)
    }
    await program.close()
    await daemon.settled(isEmpty)
  })
})

describe('killed and stopped programs', { skip }, () => {
  it('leave nothing, and their peers are notified', async t => {
    await killInEveryState(t, await startDaemon(t), 8)
  })

  it('release their port immediately', async t => {
    const daemon = await startDaemon(t)
    for (let turn = 0; turn < 20; turn++) {
      const program = await UcmaProgram.start(t, daemon)
      const listener = await program.create()
      // A write returns the size of the command.
      assert.equal(await program.bind(listener, PORT), 144)
      assert.equal(await program.listen(listener), 16)
      program.running.child.kill('SIGKILL')
      await daemon.settled(isEmpty)
    }
  })

  it('do not block others: requests beyond a stopped program’s backlog are dropped', async t => {
    const daemon = await startDaemon(t)
    const stopped = await UcmaProgram.start(t, daemon)
    const running = await UcmaProgram.start(t, daemon)
    const client = await UcmaProgram.start(t, daemon)
    const [BACKLOG, REQUESTS] = [4, 128]
    for (const [program, port] of [
      [stopped, PORT],
      [running, PORT + 1],
    ] as const) {
      const listener = await program.create()
      await program.bind(listener, port)
      await program.listen(listener, BACKLOG)
    }
    stopped.running.child.kill('SIGSTOP')
    for (let i = 0; i < REQUESTS; i++) {
      const id = await client.create()
      await client.resolve(id, PORT)
      assert.ok((await client.connect(id, 0x100 + i)) >= 0)
    }
    const { connections } = await daemon.stat()
    // Two listeners, the client's identifiers, and the requests that the backlog allows.
    assert.equal(connections.identifiers, 2 + REQUESTS + BACKLOG)
    assert.ok(connections.connections <= REQUESTS + BACKLOG)
    const id = await client.create()
    await client.resolve(id, PORT + 1)
    await client.connect(id, 0x200)
    const { id: request } = await running.until('CONNECT_REQUEST')
    assert.ok((await running.accept(request, 0x201)) >= 0)
    await client.until('CONNECT_RESPONSE')
    for (const program of [client, stopped, running]) program.running.child.kill('SIGKILL')
    await daemon.settled(stat => isEmpty(stat) && stat.connections.connections === 0)
  })
})

/** struct rdma_ucm_query_route_resp: offsets and size. */
const Route = {
  PATH: 8,
  SOURCE: 136,
  DESTINATION: 164,
  PATH_COUNT: 192,
  PORT: 196,
  DEVICE_INDEX: 200,
  bytes: 208,
} as const
/** struct ib_user_path_rec: offsets and size. */
const Path = {
  DGID: 0,
  SGID: 16,
  REVERSIBLE: 44,
  MTU: 48,
  PKEY: 52,
  HOP_LIMIT: 54,
  MTU_SELECTOR: 58,
  RATE_SELECTOR: 59,
  LIFE_TIME_SELECTOR: 61,
  LIFE_TIME: 62,
  bytes: 64,
} as const
/** Value of a selector. */
const EXACTLY = 2
const AF_INET = 2

describe('QUERY_ROUTE', { skip }, () => {
  it('returns addresses, device and path in Linux’s struct rdma_ucm_query_route_resp', async t => {
    const daemon = await startDaemon(t)
    const program = await UcmaProgram.start(t, daemon)
    const id = await program.create()
    /** The result is the size of the command. */
    const COMMAND_BYTES = 24
    const queryRoute = async () => {
      const body = new DataView(new ArrayBuffer(16))
      body.setUint32(8, id, true)
      return program.write(UcmaCommand.QUERY_ROUTE, body, 0, Route.bytes)
    }
    const before = await queryRoute()
    assert.deepEqual([before.result, before.view.getUint32(Route.PATH_COUNT, true)], [COMMAND_BYTES, 0])
    await program.resolve(id, PORT)
    const { result, view } = await queryRoute()
    const bytes = Buffer.from(view.buffer)
    const sockaddr = (offset: number): unknown[] => [
      view.getUint16(offset, true),
      view.getUint16(offset + 2),
      bytes.subarray(offset + 4, offset + 8),
    ]
    const host = Buffer.of(127, 0, 0, 1)
    assert.equal(result, COMMAND_BYTES)
    assert.deepEqual(sockaddr(Route.DESTINATION), [AF_INET, PORT, host])
    const [sourceFamily, , sourceHost] = sockaddr(Route.SOURCE)
    assert.deepEqual([sourceFamily, sourceHost], [AF_INET, host])
    const pathCount = view.getUint32(Route.PATH_COUNT, true)
    const deviceIndex = view.getUint32(Route.DEVICE_INDEX, true)
    assert.deepEqual([pathCount, view.getUint8(Route.PORT), deviceIndex], [1, 1, 0])
    const gid = Buffer.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...host)
    const path = bytes.subarray(Route.PATH, Route.PATH + Path.bytes)
    for (const offset of [Path.DGID, Path.SGID]) assert.deepEqual(path.subarray(offset, offset + 16), gid)
    assert.equal(path.readUInt32LE(Path.REVERSIBLE), 1)
    assert.ok(path.readUInt32LE(Path.MTU) >= Mtu.values.MTU_1024)
    assert.equal(path.readUInt16BE(Path.PKEY), 0xffff)
    assert.deepEqual([path[Path.HOP_LIMIT], path[Path.LIFE_TIME]], [64, 16])
    for (const selector of [Path.MTU_SELECTOR, Path.RATE_SELECTOR, Path.LIFE_TIME_SELECTOR])
      assert.equal(path[selector], EXACTLY)
  })
})
