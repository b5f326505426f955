/*
 * Connections by address and port (R17), on devices of this process and of a daemon, and over UDP.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { emitAddress, ipAddress } from '../../../src/clients/rdma-cm/socket-address.ts'
import { CmChannel } from '../../../src/spec/classes/connections/cm_channel.ts'
import { CmId } from '../../../src/spec/classes/connections/cm_id.ts'
import { EventQueue } from '../../../src/spec/classes/events/event_queue.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import {
  type Connection,
  ConnectionError,
  type ConnectionRequest,
  connect,
  createNetwork,
  type Device,
  listen,
  open,
  type Server,
} from '../../../src/verbs/index.ts'
import { parseAddress } from '../../../src/wire/address.ts'
import { parametersOf } from '../../clients/rdma-cm/hosts.ts'
import { loopbackText } from '../../loopback.ts'
import { eachCarrier, next, type OpenTwo, openTwoHere } from './endpoints.ts'

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\0+$/, '')
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const nextOf = async (server: Server): Promise<ConnectionRequest> => {
  const { value, done } = await server[Symbol.asyncIterator]().next()
  assert.ok(!done)
  return value
}

/** Both ends of a connection to `server`. */
const pair = async (server: Server, url: string, device: Device): Promise<[here: Connection, there: Connection]> => {
  const connecting = connect(url, { device, privateData: bytes('asks') })
  const there = await (await nextOf(server)).accept({ privateData: bytes('answers') })
  return [await connecting, there]
}

const connectionTests = (openTwo: OpenTwo): void => {
  let one: Device
  let two: Device
  let server: Server
  let url: string
  beforeEach(async () => {
    ;[one, two] = await openTwo()
    server = await listen('rdma://0.0.0.0:0', { device: one })
    url = `rdma://${one.address}:${server.port}`
  })
  afterEach(async () => {
    await server?.close()
    await one?.close()
    await two?.close()
  })

  it('a message arrives, and the peer is notified of the close', async () => {
    const [here, there] = await pair(server, url, two)
    assert.equal(text(there.privateData), 'asks')
    assert.equal(text(here.privateData), 'answers')
    assert.deepEqual([here.remoteAddress, here.remotePort], [one.address, server.port])
    assert.deepEqual([here.localAddress, here.localPort], [there.remoteAddress, there.remotePort])
    const into = new Uint8Array(8)
    const received = there.qp.receive(there.pd.register(into).slice())
    await here.qp.send(here.pd.register(bytes('hello')).slice())
    assert.equal((await received).bytes, 5)
    assert.equal(text(into), 'hello')
    const { closed } = there
    await here.close()
    assert.equal(await closed, 'peer')
    assert.equal(await here.closed, 'closed')
    await there.close()
  })

  it('a receive that `prepare` posts gets the first message', async () => {
    let received: Promise<{ readonly bytes: number }> | undefined
    const connecting = connect(url, {
      device: two,
      prepare: qp => {
        received = qp.receive()
      },
    })
    const there = await (await nextOf(server)).accept()
    await there.qp.send([])
    const here = await connecting
    assert.equal((await received)?.bytes, 0)
    await here.close()
    await there.close()
  })

  it('a queue pair uses the program’s completion queue', async () => {
    const cq = two.cq()
    const connecting = connect(url, { device: two, qp: { sendCq: cq } })
    const there = await (await nextOf(server)).accept()
    const here = await connecting
    const received = there.qp.receive()
    here.qp.send([], { id: 7 })
    assert.equal((await next(cq)).id, 7)
    assert.equal((await received).bytes, 0)
    await here.close()
    await there.close()
    cq.close()
  })

  it('a rejection carries its reason and private data', async () => {
    const connecting = connect(url, { device: two })
    const request = await nextOf(server)
    request.reject({ privateData: bytes('full') })
    assert.throws(() => request.reject(), { code: 'EINVAL' })
    await assert.rejects(connecting, error => {
      assert.ok(error instanceof ConnectionError)
      assert.deepEqual(
        [error.code, error.reject, text(error.privateData)],
        ['ECONNREFUSED', rejReason.CONSUMER_DEFINED, 'full'],
      )
      return true
    })
  })

  it('a connection without a listener is rejected', async () => {
    const unusedUrl = `rdma://${one.address}:${server.port === 65535 ? 1 : server.port + 1}`
    await assert.rejects(connect(unusedUrl, { device: two }), {
      code: 'ECONNREFUSED',
      reject: rejReason.INVALID_SERVICE_ID,
    })
  })

  it('a port has one listener', async () => {
    await assert.rejects(listen(`rdma://0.0.0.0:${server.port}`, { device: one }), { code: /^EADDR/ })
  })

  it('`connect` rejects with the reason of its signal, and the peer cannot accept any more', async () => {
    const controller = new AbortController()
    const connecting = connect(url, { device: two, signal: controller.signal })
    const request = await nextOf(server)
    controller.abort(new Error('enough'))
    await assert.rejects(connecting, /enough/)
    await assert.rejects(request.accept(), { code: 'ECONNREFUSED' })
  })

  it('the connection controls its queue pair: programs may only move it to the error state', async () => {
    const [here, there] = await pair(server, url, two)
    assert.throws(() => here.qp.modify({ state: 0 }), { code: 'EBUSY', call: 'rc_qp.modify' })
    assert.throws(() => there.qp.modify({ minRnrTimer: 1 }), { code: 'EBUSY' })
    here.qp.modify({ state: 6 })
    await here.close()
    await there.close()
  })

  it('an event queue delivers events of identifiers besides those of other objects', async () => {
    const queue = two.eventQueue()
    const channel = two.create(CmChannel)
    const id = two.create(CmId, { channel: channel.handle, portSpace: CmPortSpace.values.TCP })
    two.call(EventQueue, 'attach', { cookie: 0n, cm_id: id.handle }, queue.handle)
    id.resolveAddress({ destination: emitAddress(ipAddress(parseAddress(one.address)!, 7471)) })
    await queue.wait()
    assert.equal(queue.poll()?.type, 'CONNECTION')
    const { type, object } = channel.getEvent()
    assert.deepEqual([type, object], [CmEventType.values.ADDR_RESOLVED, id.handle])
    assert.throws(() => channel.getEvent(), { code: 'EAGAIN' })
    // The queue's events are not counted as events of the channel.
    assert.equal(two.call(CmId, 'destroy', {}, id.handle).events, 1)
    queue.close()
  })

  it('closing a device disconnects its peers', async () => {
    const [here, there] = await pair(server, url, two)
    const { closed } = there
    await two.close()
    assert.equal(await closed, 'peer')
    assert.equal(await here.closed, 'device')
    await here.close()
    await there.close()
  })

  it('closing a server rejects its pending requests', async () => {
    const other = await listen(`rdma://${one.address}:0`, { device: one })
    const connecting = connect(`rdma://${one.address}:${other.port}`, { device: two })
    const refused = assert.rejects(connecting, { code: 'ECONNREFUSED' })
    const { value: request } = await other[Symbol.asyncIterator]().next()
    const secondRefused = assert.rejects(connect(`rdma://${one.address}:${other.port}`, { device: two }), {
      code: 'ECONNREFUSED',
    })
    request.reject()
    await refused
    await other.close()
    await secondRefused
  })

  it('a signal aborts `connect` at its start and during `prepare`', async () => {
    const ended = new Error('ended')
    const controller = new AbortController()
    const connecting = connect(url, { device: two, signal: controller.signal })
    controller.abort(ended)
    await assert.rejects(connecting, ended)
    const during = new AbortController()
    const prepare = (): void => during.abort(ended)
    await assert.rejects(connect(url, { device: two, signal: during.signal, prepare }), ended)
  })

  it('`connect` with a failing `prepare` or a wrong pd rejects, and later connections work', async () => {
    const wrong = (options: object): Promise<unknown> => connect(url, { device: two, ...options })
    await assert.rejects(wrong({ prepare: async () => Promise.reject(new Error('mine')) }), /mine/)
    await assert.rejects(
      wrong({ prepare: (qp: Disposable) => qp[Symbol.dispose]() }),
      /prepare has closed the queue pair/,
    )
    await assert.rejects(wrong({ pd: one.pd() }), { code: 'EINVAL', message: /pd is closed or of another device/ })
    await assert.rejects(wrong({ pd: null }), { code: 'EINVAL' })
    const [here, there] = await pair(server, url, two)
    const { pd } = here
    await here.close()
    await there.close()
    pd.close()
    const [again, answered] = await pair(server, url, two)
    assert.notEqual(again.pd, pd)
    await again.close()
    await answered.close()
  })

  it('a reason too long for a REJ is refused before anything is sent', async () => {
    const connecting = connect(url, { device: two })
    const request = await nextOf(server)
    assert.throws(() => request.reject({ reason: 70_000 }), {
      code: 'EINVAL',
      message: /reason 70000 is not an integer from 1 to 255/,
    })
    request.reject({ reason: 42 })
    await assert.rejects(connecting, { reject: 42 })
  })

  it('invalid arguments are refused with a message', async () => {
    const refuses = (call: Promise<unknown>, message: RegExp): Promise<void> =>
      assert.rejects(call, error => {
        assert.match((error as Error).message, message)
        return (error as { code: string }).code === 'EINVAL'
      })
    await refuses(connect('tcp://1.2.3.4:5', { device: two }), /url "tcp:.*write rdma:/)
    await refuses(connect('rdma://1.2.3.4:99999', { device: two }), /99999/)
    await refuses(connect('rdma://[1.2.3]:1', { device: two }), /not an IPv6 address/)
    await refuses(connect(url, { device: two, privateData: new Uint8Array(57) }), /57 bytes, at most 56/)
    await refuses(connect(url, { device: two, maxRdAtomic: 129 }), /maxRdAtomic 129/)
    await refuses(connect(url, { device: {} as Device }), /device is not an open device/)
    await refuses(connect(url, { device: two, signl: 1 } as never), /signl/)
    await refuses(listen(url, { device: one, backlog: -1 }), /backlog -1/)
  })

  it('200 clients connect at the same time', async () => {
    const accepting = (async () => {
      for (let i = 0; i < 200; i++) await (await (await nextOf(server)).accept()).close()
    })()
    await Promise.all(
      Array.from({ length: 200 }, async () => {
        const connection = await connect(url, { device: two })
        await connection.closed
        await connection.close()
      }),
    )
    await accepting
  })
}

eachCarrier(connectionTests)

it('a REJ of the peer ends an established connection', async () => {
  const network = createNetwork()
  const [one, two] = [await open({ network }), await open({ network })]
  const channel = one.create(CmChannel)
  const listener = one.create(CmId, { channel: channel.handle, portSpace: CmPortSpace.values.TCP })
  listener.bind({ address: emitAddress(ipAddress(parseAddress(one.address)!, 7471)) })
  listener.listen({ backlog: 1 })
  const connecting = connect(`rdma://${one.address}:7471`, { device: two })
  const queue = one.eventQueue()
  one.call(EventQueue, 'attach', { cookie: 0n, cm_id: listener.handle }, queue.handle)
  await queue.wait()
  const { object: request } = channel.getEvent()
  // The RTU is lost, so this side may still reject.
  network.setFaults(`device=${two.name},dir=sent,qp=1,drop=100%`)
  one.call(CmId, 'accept', { parameters: parametersOf(0x1234), userHandle: 0n }, request)
  const connection = await connecting
  const received = connection.qp.receive(connection.pd.register(new Uint8Array(8)).slice())
  network.setFaults('')
  one.call(CmId, 'reject', { privateData: new Uint8Array(0), reason: rejReason.CONSUMER_DEFINED }, request)
  await assert.rejects(received, { status: 'WR_FLUSH_ERR' })
  assert.equal(await connection.closed, 'peer')
  await connection.close()
  await one.close()
  await two.close()
})

it('a thousand connections are open together in one process, and leave no objects (R44)', async () => {
  const COUNT = 1000
  const AT_ONCE = 100
  const [one, two] = await openTwoHere()()
  const server = await listen('rdma://0.0.0.0:0', { device: one })
  const accepted: Connection[] = []
  const accepting = (async () => {
    for await (const request of server) accepted.push(await request.accept())
  })()
  const connections: Connection[] = []
  for (let i = 0; i < COUNT; i += AT_ONCE)
    connections.push(
      ...(await Promise.all(
        Array.from({ length: AT_ONCE }, () => connect(`rdma://${one.address}:${server.port}`, { device: two })),
      )),
    )
  for (const connection of connections) await connection.qp.ping()
  assert.equal(two.handles(RcQp).length, COUNT)
  await Promise.all(connections.map(connection => connection.close()))
  await Promise.all(accepted.map(connection => connection.closed))
  await Promise.all(accepted.map(connection => connection.close()))
  await server.close()
  await accepting
  assert.deepEqual([accepted.length, one.handles(RcQp, CmId), two.handles(RcQp, CmId)], [COUNT, [], []])
  await one.close()
  await two.close()
})

describe('over UDP', () =>
  connectionTests(async () => {
    const network = createNetwork({ link: 'udp' })
    const at = (n: number) => open({ network, address: loopbackText(n) })
    return [await at(73), await at(74)]
  }))
