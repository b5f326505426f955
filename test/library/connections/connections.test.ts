/*
 * Connections by address and port (R17), on devices of this process and of a daemon, and over UDP.
 */
import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { hasNative } from '../../../src/host/native.ts'
import {
  type Connection,
  ConnectionError,
  type ConnectionRequest,
  connect,
  createNetwork,
  type Device,
  listen,
  open,
  type RcQueuePair,
  type RcQueuePairOptions,
  type RdmaError,
  type Server,
} from '../../../src/library/index.ts'
import { emitAddress, ipAddress } from '../../../src/services/socket-address.ts'
import { CmChannel } from '../../../src/spec/classes/connections/cm_channel.ts'
import { CmId } from '../../../src/spec/classes/connections/cm_id.ts'
import { EventQueueClass } from '../../../src/spec/classes/events/event_queue.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { inLongRun } from '../../long-run.ts'
import { loopbackText } from '../../loopback.ts'
import { parametersOf } from '../../services/rdma-cm/hosts.ts'
import { isEmpty, startDaemon, suiteScope } from '../../system/programs.ts'
import { eachCarrier, nextCompletion, type OpenTwo, openTwoInProcess } from '../verbs/endpoints.ts'
import { untyped } from '../verbs/mistakes/mistakes.ts'

/** The text of private data, which is padded with zeros. */
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/\0+$/, '')
const bytes = (content: string): Uint8Array => new TextEncoder().encode(content)

const nextRequest = async (server: Server): Promise<ConnectionRequest> => {
  const { value, done } = await server[Symbol.asyncIterator]().next()
  assert.ok(!done)
  return value
}

/** Both ends of a connection to `server`. */
const pair = async (
  server: Server,
  url: string,
  device: Device,
): Promise<[clientEnd: Connection, serverEnd: Connection]> => {
  const connecting = connect(url, { device, privateData: bytes('asks') })
  const serverEnd = await (await nextRequest(server)).accept({ privateData: bytes('answers') })
  return [await connecting, serverEnd]
}

const connectionTests = (openTwo: OpenTwo): void => {
  let serverDevice: Device
  let clientDevice: Device
  let server: Server
  let url: string
  beforeEach(async () => {
    ;[serverDevice, clientDevice] = await openTwo()
    server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
    url = `rdma://${serverDevice.address}:${server.port}`
  })
  afterEach(async () => {
    await server?.close()
    await serverDevice?.close()
    await clientDevice?.close()
  })

  it('a message arrives, and the peer is notified of the close', async () => {
    const [clientEnd, serverEnd] = await pair(server, url, clientDevice)
    assert.equal(text(serverEnd.privateData), 'asks')
    assert.equal(text(clientEnd.privateData), 'answers')
    assert.deepEqual([clientEnd.remoteAddress, clientEnd.remotePort], [serverDevice.address, server.port])
    assert.deepEqual([clientEnd.localAddress, clientEnd.localPort], [serverEnd.remoteAddress, serverEnd.remotePort])
    const buffer = new Uint8Array(8)
    const received = serverEnd.qp.receive(serverEnd.pd.register(buffer).slice())
    await clientEnd.qp.send(clientEnd.pd.register(bytes('hello')).slice())
    assert.equal((await received).bytes, 5)
    assert.equal(text(buffer), 'hello')
    const { closed } = serverEnd
    const unanswered = serverEnd.qp.receive()
    await clientEnd.close()
    assert.equal(await closed, 'peer')
    await assert.rejects(unanswered, /its connection has ended .* close the connection and make a new one$/)
    assert.equal(await clientEnd.closed, 'local')
    await serverEnd.close()
    assert.equal(await serverEnd.closed, 'peer')
  })

  it('a program may use the buffer of private data again at once', async () => {
    const data = bytes('asks')
    const connecting = connect(url, { device: clientDevice, privateData: data })
    data.fill(0)
    const request = await nextRequest(server)
    assert.equal(text(request.privateData), 'asks')
    data.set(bytes('says'))
    const accepting = request.accept({ privateData: data, prepare: () => void data.fill(0) })
    const clientEnd = await connecting
    assert.equal(text(clientEnd.privateData), 'says')
    const serverEnd = await accepting
    await clientEnd.close()
    await serverEnd.close()
  })

  it('a receive that `prepare` posts gets the first message', async () => {
    let received: Promise<{ readonly bytes: number }> | undefined
    const connecting = connect(url, {
      device: clientDevice,
      prepare: qp => {
        received = qp.receive()
      },
    })
    const serverEnd = await (await nextRequest(server)).accept()
    await serverEnd.qp.send([])
    const clientEnd = await connecting
    assert.equal((await received)?.bytes, 0)
    await clientEnd.close()
    await serverEnd.close()
  })

  it('with a `sendCq`, the types of `accept` have requests without promises', async () => {
    const cq = serverDevice.cq()
    const options: RcQueuePairOptions = { sendCq: cq }
    const accepted: Connection<RcQueuePair>[] = []
    for (const accept of [
      (request: ConnectionRequest) => request.accept({ qp: options }),
      // The compiler infers the type of `qp`.
      (request: ConnectionRequest) => request.accept({ qp: { sendCq: cq }, prepare: qp => qp.receive([], 1) }),
    ]) {
      const connecting = connect(url, { device: clientDevice })
      accepted.push(await accept(await nextRequest(server)))
      await (await connecting).close()
    }
    for (const connection of accepted) await connection.close()
    cq.close()
  })

  it('a queue pair uses the program’s completion queue', async () => {
    const cq = clientDevice.cq()
    const connecting = connect(url, { device: clientDevice, qp: { sendCq: cq } })
    const serverEnd = await (await nextRequest(server)).accept()
    const clientEnd = await connecting
    const received = serverEnd.qp.receive()
    clientEnd.qp.send([], { id: 7 })
    assert.equal((await nextCompletion(cq)).id, 7)
    assert.equal((await received).bytes, 0)
    await clientEnd.close()
    await serverEnd.close()
    cq.close()
  })

  it('a rejection carries its reason and private data', async () => {
    const connecting = connect(url, { device: clientDevice })
    const request = await nextRequest(server)
    request.reject({ privateData: bytes('full') })
    assert.throws(() => request.reject(), { code: 'EINVAL' })
    await assert.rejects(connecting, error => {
      assert.ok(error instanceof ConnectionError)
      assert.deepEqual(
        [error.code, error.reject, text(error.privateData)],
        ['ECONNREFUSED', rejReason.CONSUMER_DEFINED, 'full'],
      )
      assert.match(error.hint, /^usually the application there has called request\.reject\(\)/)
      return true
    })
  })

  it('an error of `accept` has no hint: the active side rejects a REP without a call of its program', async () => {
    let clientQp: { modify(changes: { state: 'ERR' }): void } | undefined
    const prepare = (qp: NonNullable<typeof clientQp>): void => {
      clientQp = qp
    }
    const unconnected = assert.rejects(connect(url, { device: clientDevice, prepare }), { code: 'EINVAL' })
    const request = await nextRequest(server)
    // The active side's connection manager cannot connect this queue pair when the REP arrives, so it rejects the REP.
    clientQp?.modify({ state: 'ERR' })
    await assert.rejects(request.accept(), { reject: rejReason.CONSUMER_DEFINED, hint: '' })
    await unconnected
  })

  it('a connection without a listener is rejected', async () => {
    const unusedUrl = `rdma://${serverDevice.address}:${server.port === 65535 ? 1 : server.port + 1}`
    await assert.rejects(connect(unusedUrl, { device: clientDevice }), {
      code: 'ECONNREFUSED',
      reject: rejReason.INVALID_SERVICE_ID,
    })
  })

  it('both ends retry 7 times, and READs are limited by the end that allows fewer', async () => {
    const connecting = connect(url, { device: clientDevice, maxRdAtomic: 5 })
    const serverEnd = await (await nextRequest(server)).accept({ maxRdAtomic: 3 })
    const clientEnd = await connecting
    for (const { qp } of [clientEnd, serverEnd]) {
      const { retryCount, rnrRetryCount, ackTimeoutExponent, maxRdAtomic, maxDestRdAtomic } = qp.query()
      assert.deepEqual([retryCount, rnrRetryCount, ackTimeoutExponent, maxRdAtomic, maxDestRdAtomic], [7, 7, 19, 3, 3])
    }
    await clientEnd.close()
    await serverEnd.close()
  })

  it('each side chooses the timeouts and retries of its queue pair, as for `qp.connect`', async () => {
    const options = { ackTimeoutExponent: 8, retryCount: 3, rnrRetryCount: 2, minRnrTimer: 5 }
    const accepted = nextRequest(server).then(request => request.accept(options))
    const connected = [await connect(url, { device: clientDevice, ackTimeout: 2 }), await accepted]
    const attributes = connected.map(({ qp }) => {
      const { ackTimeoutExponent, retryCount, rnrRetryCount, minRnrTimer } = qp.query()
      return [ackTimeoutExponent, retryCount, rnrRetryCount, minRnrTimer]
    })
    assert.deepEqual(attributes, [
      [9, 7, 7, 12],
      [8, 3, 2, 5],
    ])
    for (const end of connected) await end.close()
    for (const [name, value] of Object.entries({
      ackTimeoutExponent: 32,
      retryCount: 8,
      rnrRetryCount: -1,
      minRnrTimer: 1.5,
    }))
      await assert.rejects(connect(url, { device: clientDevice, [name]: value }), {
        code: 'EINVAL',
        message: new RegExp(`^connect: ${name} ${value} is not an integer from 0 to`),
      })
  })

  it('`close` of a server waits until its connections have ended, also of requests answered meanwhile', async () => {
    const closing = await listen('rdma://0.0.0.0:0', { device: serverDevice })
    const closingUrl = `rdma://${serverDevice.address}:${closing.port}`
    const [clientEnd, serverEnd] = await pair(closing, closingUrl, clientDevice)
    const connecting = connect(closingUrl, { device: clientDevice })
    const request = await nextRequest(closing)
    const order: string[] = []
    const closed = closing.close().then(() => order.push('server'))
    await assert.rejects(connect(closingUrl, { device: clientDevice }), { code: 'ECONNREFUSED' })
    await clientEnd.qp.ping()
    const later = await request.accept()
    order.push('accepted')
    await (await connecting).close()
    await later.closed
    order.push('first')
    await clientEnd.close()
    await closed
    assert.deepEqual(order, ['accepted', 'first', 'server'])
    assert.equal(await serverEnd.closed, 'peer')
    for (const end of [serverEnd, later]) await end.close()
  })

  it('the signal of `close` ends what is left of a server; so does the end of a block', async () => {
    for (const kind of ['signal', 'later signal', 'second close', 'block'] as const) {
      const ending = await listen('rdma://0.0.0.0:0', { device: serverDevice })
      const endingUrl = `rdma://${serverDevice.address}:${ending.port}`
      const [clientEnd, serverEnd] = await pair(ending, endingUrl, clientDevice)
      const refused = assert.rejects(connect(endingUrl, { device: clientDevice }), { code: 'ECONNREFUSED' })
      await nextRequest(ending)
      const controller = new AbortController()
      const { signal } = controller
      if (kind === 'block') {
        await using _ = ending
      } else if (kind === 'signal') {
        controller.abort()
        await ending.close({ signal })
      } else {
        const first = ending.close(kind === 'later signal' ? { signal } : {})
        controller.abort()
        if (kind === 'second close') await ending.close({ signal })
        await first
      }
      assert.equal(await serverEnd.closed, 'local', kind)
      assert.equal(await clientEnd.closed, 'peer', kind)
      await refused
      await clientEnd.close()
    }
    await assert.rejects(server.close(untyped({ timeout: 1 })), { code: 'EINVAL', reason: /"timeout" is unknown/ })
  })

  it('a request that a loop drops by an exception is rejected; after `break` it can still be accepted at once', async () => {
    const dropped = connect(url, { device: clientDevice })
    const loop = (async () => {
      for await (const request of server) throw new Error(`no ${request.remotePort}`)
    })()
    await assert.rejects(loop, /no \d/)
    await assert.rejects(dropped, { code: 'ECONNREFUSED', reject: rejReason.CONSUMER_DEFINED })
    const connecting = connect(url, { device: clientDevice })
    let last: ConnectionRequest | undefined
    for await (const request of server) {
      last = request
      break
    }
    const ends = [await last?.accept(), await connecting]
    for (const end of ends) await end?.close()
  })

  it('an address is text, a URL, or host and port; listeners of a connection are called at its end', async () => {
    const { address, port } = { ...server, address: serverDevice.address }
    const bracketed = address.includes(':') ? `[${address}]` : address
    for (const at of [new URL(url), { host: address, port }, { host: bracketed, port }]) {
      const connecting = connect(at, { device: clientDevice })
      const serverEnd = await (await nextRequest(server)).accept()
      const clientEnd = await connecting
      const reasons: string[] = []
      const listener = () => reasons.push('removed')
      serverEnd.addEventListener('closed', listener)
      serverEnd.removeEventListener('closed', listener)
      serverEnd.addEventListener('closed', event => reasons.push(`${event.type} ${event.reason}`), { once: true })
      await clientEnd.close()
      await serverEnd.closed
      await nextTurn()
      assert.deepEqual(reasons, ['closed peer'])
      await serverEnd.close()
    }
    for (const [wrong, message] of [
      [{ host: address }, /port undefined is not an integer from 0 to 65535/],
      [{ host: 5, port: 1 }, /host 5 is not a string/],
      [{ host: 'a/b', port: 1 }, /url "rdma:\/\/a\/b:1" is not an address/],
      [new URL('http://localhost:1/'), /url "http:\/\/localhost:1\/" is not an address/],
      [5, /url 5 is not a string/],
    ] as const)
      await assert.rejects(connect(untyped(wrong), { device: clientDevice }), { code: 'EINVAL', message })
  })

  it('port 0 is refused at once', async () => {
    await assert.rejects(connect(`rdma://${serverDevice.address}:0`, { device: clientDevice }), {
      code: 'EINVAL',
      message: /^connect: url "rdma:.*:0": port 0 is no listener's port/,
    })
  })

  it('a port has one listener, and a refused one leaves no object', async () => {
    const identifiers = serverDevice.handles(CmId)
    await assert.rejects(listen(`rdma://0.0.0.0:${server.port}`, { device: serverDevice }), {
      code: 'EADDRINUSE',
      call: 'listen',
      reason: `url "rdma://0.0.0.0:${server.port}": port ${server.port} is in use`,
    })
    assert.deepEqual(serverDevice.handles(CmId), identifiers)
  })

  it('`timeout` ends `connect` and `accept`, also beside a signal', async () => {
    const timedOut = { name: 'ConnectionError', code: 'ETIMEDOUT', reason: /not established after 20 ms/ }
    const { signal } = new AbortController()
    const silent = await listen('rdma://0.0.0.0:0', { device: serverDevice })
    const silentUrl = `rdma://${serverDevice.address}:${silent.port}`
    await assert.rejects(connect(silentUrl, { device: clientDevice, timeout: 20, signal }), timedOut)
    await silent.close()
    await assert.rejects(connect(url, { device: clientDevice, timeout: 0 }), { code: 'EINVAL', reason: /timeout 0 is/ })
    const refused = assert.rejects(connect(url, { device: clientDevice }), { code: 'ECONNREFUSED' })
    let resume = (): void => {}
    const prepare = () => new Promise<void>(resolve => (resume = resolve))
    const unaccepted = (await nextRequest(server)).accept({ timeout: 20, prepare })
    setTimeout(() => resume(), 21)
    await assert.rejects(unaccepted, { ...timedOut, call: 'request.accept' })
    await refused
  })

  it('`connect` rejects with the reason of its signal, and the peer cannot accept the request', async () => {
    const controller = new AbortController()
    const connecting = connect(url, { device: clientDevice, signal: controller.signal })
    const request = await nextRequest(server)
    controller.abort(new Error('enough'))
    await assert.rejects(connecting, /enough/)
    await assert.rejects(request.accept(), { code: 'ECONNREFUSED' })
  })

  it('a server with a request that the peer has canceled can be closed, and rejects the other requests', async () => {
    const other = await listen(`rdma://${serverDevice.address}:0`, { device: serverDevice })
    const otherUrl = `rdma://${serverDevice.address}:${other.port}`
    const identifiers = serverDevice.handles(CmId).length
    const arrived = async (count: number): Promise<void> => {
      while (serverDevice.handles(CmId).length < identifiers + count) await nextTurn()
    }
    const refused = () => assert.rejects(connect(otherUrl, { device: clientDevice }), { code: 'ECONNREFUSED' })
    const first = refused()
    await arrived(1)
    const controller = new AbortController()
    const canceled = assert.rejects(connect(otherUrl, { device: clientDevice, signal: controller.signal }), /enough/)
    await arrived(2)
    controller.abort(new Error('enough'))
    await canceled
    const last = refused()
    await arrived(3)
    const request = await nextRequest(other)
    await other.close()
    request.reject()
    await Promise.all([first, last])
    assert.equal(serverDevice.handles(CmId).length, identifiers - 1)
  })

  it('programs may move the queue pair of a connection only to the error state', async () => {
    const [clientEnd, serverEnd] = await pair(server, url, clientDevice)
    assert.throws(() => clientEnd.qp.modify({ state: 'RESET' }), { code: 'EBUSY', call: 'qp.modify' })
    assert.throws(() => serverEnd.qp.modify({ minRnrTimer: 1 }), { code: 'EBUSY' })
    clientEnd.qp.modify({ state: 'ERR' })
    await clientEnd.close()
    await serverEnd.close()
  })

  it('an event queue delivers events of identifiers', async () => {
    const queue = clientDevice.eventQueue()
    const channel = clientDevice.create(CmChannel)
    const id = clientDevice.create(CmId, { channel: channel.handle, portSpace: CmPortSpace.values.TCP })
    clientDevice.call(EventQueueClass, 'attach', { cookie: 0n, cm_id: id.handle }, queue.handle)
    id.resolveAddress({ destination: emitAddress(ipAddress(parseAddress(serverDevice.address)!, 7471)) })
    await queue.wait()
    assert.equal(queue.poll()?.type, 'CONNECTION')
    const { type, object } = channel.getEvent()
    assert.deepEqual([type, object], [CmEventType.values.ADDR_RESOLVED, id.handle])
    assert.throws(() => channel.getEvent(), { code: 'EAGAIN' })
    // Events of the event queue are not counted as events of the channel.
    assert.equal(clientDevice.call(CmId, 'destroy', {}, id.handle).events, 1)
    queue.close()
  })

  it('resolving an address refuses a source of an unknown family', () => {
    const channel = clientDevice.create(CmChannel)
    const id = clientDevice.create(CmId, { channel: channel.handle, portSpace: CmPortSpace.values.TCP })
    const destination = emitAddress(ipAddress(parseAddress(serverDevice.address)!, 7471))
    const source = emitAddress({ ...ipAddress(parseAddress(clientDevice.address)!, 0), family: 99 })
    assert.throws(() => id.resolveAddress({ destination, source }), {
      code: 'EINVAL',
      message: /attribute source: the family/,
    })
    clientDevice.call(CmId, 'destroy', {}, id.handle)
  })

  it('closing a device disconnects its peers', async () => {
    const [clientEnd, serverEnd] = await pair(server, url, clientDevice)
    const { closed } = serverEnd
    await clientDevice.close()
    assert.equal(await closed, 'peer')
    assert.equal(await clientEnd.closed, 'device')
    await clientEnd.close()
    assert.equal(await clientEnd.closed, 'device')
    await serverEnd.close()
  })

  it('connections and requests of a closed device can be shown', async () => {
    const [clientEnd] = await pair(server, url, clientDevice)
    const refused = assert.rejects(connect(url, { device: clientDevice }), { code: 'ERR_CLOSED' })
    const request = await nextRequest(server)
    await clientDevice.close()
    await serverDevice.close()
    await refused
    assert.equal(inspect(clientEnd), `Connection { qpn: ${clientEnd.qp.qpn} }`)
    assert.equal(inspect(request), 'ConnectionRequest { privateBytes: 56 }')
    assert.deepEqual([clientEnd.remoteAddress, clientEnd.remotePort, request.remoteAddress], ['', 0, ''])
  })

  it('closing a server rejects its pending requests', async () => {
    const otherServer = await listen(`rdma://${serverDevice.address}:0`, { device: serverDevice })
    const connecting = connect(`rdma://${serverDevice.address}:${otherServer.port}`, { device: clientDevice })
    const refused = assert.rejects(connecting, { code: 'ECONNREFUSED' })
    const { value: request } = await otherServer[Symbol.asyncIterator]().next()
    const secondRefused = assert.rejects(
      connect(`rdma://${serverDevice.address}:${otherServer.port}`, { device: clientDevice }),
      {
        code: 'ECONNREFUSED',
      },
    )
    request.reject()
    await refused
    await otherServer.close()
    await secondRefused
  })

  it('a signal aborts a wait for requests, which also have `poll` and `wait`', async () => {
    assert.equal(server.poll(), undefined)
    const ended = new Error('ended')
    const controller = new AbortController()
    const waiting = server.arrivals({ signal: controller.signal }).next()
    controller.abort(ended)
    await assert.rejects(waiting, ended)
    const refused = assert.rejects(connect(url, { device: clientDevice }), { code: 'ECONNREFUSED' })
    await server.wait()
    server.poll()?.reject()
    await refused
  })

  it('a signal aborts `connect` at its start and during `prepare`', async () => {
    const ended = new Error('ended')
    const controller = new AbortController()
    const connecting = connect(url, { device: clientDevice, signal: controller.signal })
    controller.abort(ended)
    await assert.rejects(connecting, ended)
    const duringPrepare = new AbortController()
    const prepare = (): void => duringPrepare.abort(ended)
    await assert.rejects(connect(url, { device: clientDevice, signal: duringPrepare.signal, prepare }), ended)
  })

  it('`accept` with an aborted signal rejects, and the request can still be accepted', async () => {
    const connecting = connect(url, { device: clientDevice })
    const request = await nextRequest(server)
    await assert.rejects(request.accept({ signal: AbortSignal.abort(new Error('ended')) }), /ended/)
    const [clientEnd, serverEnd] = await Promise.all([connecting, request.accept()])
    await clientEnd.close()
    await serverEnd.close()
  })

  it('`connect` with a failing `prepare` or a wrong pd rejects, and later connections work', async () => {
    const wrong = (options: object): Promise<unknown> => connect(url, { device: clientDevice, ...options })
    await assert.rejects(wrong({ prepare: async () => Promise.reject(new Error('mine')) }), /mine/)
    await assert.rejects(
      wrong({ prepare: (qp: Disposable) => qp[Symbol.dispose]() }),
      /prepare has closed the queue pair/,
    )
    await assert.rejects(wrong({ pd: serverDevice.pd() }), {
      code: 'EINVAL',
      message: /pd is of another device/,
    })
    await assert.rejects(wrong({ pd: null }), { code: 'EINVAL' })
    const object = clientDevice.create(Pd)
    await assert.rejects(wrong({ pd: object }), { code: 'EINVAL', message: /pd is not an object of device\.pd\(\)/ })
    object.close()
    const [clientEnd, serverEnd] = await pair(server, url, clientDevice)
    const { pd } = clientEnd
    await clientEnd.close()
    await serverEnd.close()
    pd.close()
    const [laterClientEnd, laterServerEnd] = await pair(server, url, clientDevice)
    assert.notEqual(laterClientEnd.pd, pd)
    await laterClientEnd.close()
    await laterServerEnd.close()
  })

  it('`accept` distinguishes a canceled request from a queue pair that `prepare` has moved to ERR', async () => {
    const ended = new Error('ended')
    const controller = new AbortController()
    const canceled = assert.rejects(connect(url, { device: clientDevice, signal: controller.signal }), ended)
    const canceledRequest = await nextRequest(server)
    controller.abort(ended)
    await canceled
    // The peer's REJ (TIMEOUT) may arrive before or after the REP.
    const message = /the peer has canceled|the peer refused: TIMEOUT/
    await assert.rejects(canceledRequest.accept(), { code: 'ECONNREFUSED', message })
    const refused = assert.rejects(connect(url, { device: clientDevice }), {
      code: 'ECONNREFUSED',
      reject: rejReason.CONSUMER_DEFINED,
    })
    const request = await nextRequest(server)
    await assert.rejects(request.accept({ prepare: qp => qp.modify({ state: 'ERR' }) }), {
      code: 'EINVAL',
      message: /request\.accept: rc_qp\.modify: .* from ERR to INIT/,
    })
    await refused
  })

  it('a reason too large for a REJ is refused before anything is sent', async () => {
    const connecting = connect(url, { device: clientDevice })
    const request = await nextRequest(server)
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
    await refuses(connect('tcp://1.2.3.4:5', { device: clientDevice }), /url "tcp:.*write rdma:/)
    await refuses(connect('rdma://1.2.3.4:99999', { device: clientDevice }), /99999/)
    await refuses(connect('rdma://[1.2.3]:1', { device: clientDevice }), /not an IPv6 address/)
    await refuses(connect('rdma://[1.2.3.4]:1', { device: clientDevice }), /1\.2\.3\.4 is not an IPv6 address/)
    await refuses(connect(url, { device: clientDevice, privateData: new Uint8Array(57) }), /57 bytes, at most 56/)
    await refuses(connect(url, { device: clientDevice, maxRdAtomic: 129 }), /maxRdAtomic 129/)
    await refuses(connect(url, { device: {} as Device }), /device is not an open device/)
    await refuses(connect(url, { device: null } as never), /device is not an open device/)
    await refuses(connect(url, { device: clientDevice, signl: 1 } as never), /signl/)
    await refuses(listen(url, { device: serverDevice, backlog: -1 }), /backlog -1/)
  })

  it('`listen` accepts a backlog of more than 32 bits', async () => {
    const other = await listen(`rdma://${serverDevice.address}:0`, { device: serverDevice, backlog: 2 ** 40 })
    await other.close()
  })

  it('`close` tells the peer, even if the program has destroyed the queue pair by its handle', async () => {
    const [clientEnd, serverEnd] = await pair(server, url, clientDevice)
    clientDevice.call(RcQp, 'destroy', {}, clientEnd.qp.handle)
    await assert.rejects(clientEnd.close(), { code: 'ENOENT', call: 'qp.close' })
    assert.deepEqual(clientDevice.handles(CmId), [])
    assert.equal(await serverEnd.closed, 'peer')
    await serverEnd.close()
  })

  const manyClients = inLongRun(200, 60)
  it(`${manyClients} clients connect at the same time`, async () => {
    const accepting = (async () => {
      for (let i = 0; i < manyClients; i++) await (await (await nextRequest(server)).accept()).close()
    })()
    await Promise.all(
      Array.from({ length: manyClients }, async () => {
        const connection = await connect(url, { device: clientDevice })
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
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const channel = serverDevice.create(CmChannel)
  const listener = serverDevice.create(CmId, { channel: channel.handle, portSpace: CmPortSpace.values.TCP })
  listener.bind({ address: emitAddress(ipAddress(parseAddress(serverDevice.address)!, 7471)) })
  listener.listen({ backlog: 1 })
  const connecting = connect(`rdma://${serverDevice.address}:7471`, { device: clientDevice })
  const queue = serverDevice.eventQueue()
  serverDevice.call(EventQueueClass, 'attach', { cookie: 0n, cm_id: listener.handle }, queue.handle)
  await queue.wait()
  const { object: request } = channel.getEvent()
  // The RTU is lost: the server may still reject.
  network.setFaults(`device=${clientDevice.name},dir=sent,qp=1,drop=100%`)
  serverDevice.call(CmId, 'accept', { parameters: parametersOf(0x1234), userHandle: 0n }, request)
  const connection = await connecting
  const received = connection.qp.receive(connection.pd.register(new Uint8Array(8)).slice())
  network.setFaults('')
  serverDevice.call(CmId, 'reject', { privateData: new Uint8Array(0), reason: rejReason.CONSUMER_DEFINED }, request)
  await assert.rejects(received, { status: 'WR_FLUSH_ERR' })
  assert.equal(await connection.closed, 'peer')
  await connection.close()
  await serverDevice.close()
  await clientDevice.close()
})

it('a thousand connections are open together in one process, and leave no objects (R44)', async () => {
  const COUNT = 1000
  const AT_ONCE = 100
  const [serverDevice, clientDevice] = await openTwoInProcess()()
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const accepted: Connection[] = []
  const accepting = (async () => {
    for await (const request of server) accepted.push(await request.accept())
  })()
  const connections: Connection[] = []
  for (let i = 0; i < COUNT; i += AT_ONCE)
    connections.push(
      ...(await Promise.all(
        Array.from({ length: AT_ONCE }, () =>
          connect(`rdma://${serverDevice.address}:${server.port}`, { device: clientDevice }),
        ),
      )),
    )
  for (const connection of connections) await connection.qp.ping()
  assert.equal(clientDevice.handles(RcQp).length, COUNT)
  await Promise.all(connections.map(connection => connection.close()))
  await Promise.all(accepted.map(connection => connection.closed))
  await Promise.all(accepted.map(connection => connection.close()))
  await server.close()
  await accepting
  assert.deepEqual(
    [accepted.length, serverDevice.handles(RcQp, CmId), clientDevice.handles(RcQp, CmId)],
    [COUNT, [], []],
  )
  await serverDevice.close()
  await clientDevice.close()
})

it('`reject` says that the peer has canceled the request', async () => {
  const [owner, client] = await openTwoInProcess()()
  const server = await listen('rdma://0.0.0.0:0', { device: owner })
  const controller = new AbortController()
  const connecting = connect(`rdma://${owner.address}:${server.port}`, { device: client, signal: controller.signal })
  const request = await nextRequest(server)
  controller.abort(new Error('enough'))
  await assert.rejects(connecting, /enough/)
  // The client's REJ arrives.
  for (let turn = 0; turn < 10; turn++) await nextTurn()
  assert.throws(() => request.reject(), {
    code: 'EINVAL',
    call: 'request.reject',
    reason: 'the peer has canceled the request',
  })
  // The listener only.
  assert.equal(owner.handles(CmId).length, 1)
  await server.close()
  for (const device of [owner, client]) await device.close()
})

it('`accept` rejects if the RTU is lost and the peer closes the connection', async () => {
  const network = createNetwork()
  const [client, owner] = [await open({ network, name: 'client' }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: owner })
  const connecting = connect(`rdma://${owner.address}:${server.port}`, { device: client })
  const request = await nextRequest(server)
  network.setFaults('device=client,dir=sent,drop=1')
  const rejected = assert.rejects(request.accept(), {
    code: 'ECONNREFUSED',
    message: /the peer has ended the connection/,
  })
  const connection = await connecting
  network.setFaults('')
  await connection.close()
  await rejected
  await server.close()
  for (const device of [client, owner]) await device.close()
})

describe('`listen` and `connect` without the option `device`', { skip: !hasNative() && 'koffi is missing' }, () => {
  const scope = suiteScope()
  const { USERDMA_SOCKET } = process.env
  let daemon: Awaited<ReturnType<typeof startDaemon>>
  before(async () => {
    daemon = await startDaemon(scope, { descriptors: 256 })
    process.env.USERDMA_SOCKET = daemon.socket
  })
  afterEach(async () => void (await daemon.settled(isEmpty)))
  after(() => {
    if (USERDMA_SOCKET === undefined) delete process.env.USERDMA_SOCKET
    else process.env.USERDMA_SOCKET = USERDMA_SOCKET
  })

  it('a request can be accepted or rejected after `server.close()`; then the device is closed', async () => {
    const server = await listen('rdma://0.0.0.0:0')
    const url = `rdma://${server.device.address}:${server.port}`
    const connecting = [connect(url), connect(url)] as const
    const requests = [await nextRequest(server), await nextRequest(server)] as const
    const closing = server.close()
    const accepted = await requests[0].accept()
    requests[1].reject()
    const [clientEnd, rejected] = await Promise.allSettled(connecting)
    assert.equal(rejected.status, 'rejected')
    assert.ok(clientEnd.status === 'fulfilled')
    await clientEnd.value.close()
    await closing
    await accepted.close()
  })

  it('a second `close` of a connection or server waits until its device is closed', async () => {
    const server = await listen('rdma://0.0.0.0:0')
    const connecting = connect(`rdma://${server.device.address}:${server.port}`)
    const serverEnd = await (await nextRequest(server)).accept()
    const closed: string[] = []
    for (const [name, object] of Object.entries({ client: await connecting, serverEnd, server })) {
      const first = object.close().then(() => closed.push(`${name} 1`))
      await object.close().then(() => closed.push(`${name} 2`))
      await first
    }
    assert.deepEqual(closed, ['client 1', 'client 2', 'serverEnd 1', 'serverEnd 2', 'server 1', 'server 2'])
  })

  it('`connect` closes its device if the daemon has no descriptor for connection events', async () => {
    const filler = await open({ socket: true })
    const channels: { close(): void }[] = []
    assert.throws(
      () => {
        for (;;) channels.push(filler.create(CmChannel))
      },
      { code: 'EMFILE' },
    )
    let call = ''
    while (call !== 'cm_channel.create') {
      const channel = channels.pop()
      assert.ok(channel, '`connect` never failed in cm_channel.create')
      channel.close()
      await assert.rejects(connect('rdma://127.0.0.1:7471'), (error: RdmaError) => {
        call = error.call
        return error.code === 'EMFILE'
      })
    }
    for (const channel of channels) channel.close()
    await daemon.settled(({ contexts }) => contexts === 1)
    await filler.close()
  })
})

describe('a device that is closed while the devices work', () => {
  it('sends the messages that end its connections', async () => {
    const [serverDevice, clientDevice] = await openTwoInProcess()()
    const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
    const [clientEnd, serverEnd] = await pair(server, `rdma://${serverDevice.address}:${server.port}`, clientDevice)
    // Subscribers are called in the middle of a drive.
    const close = (): void => void clientDevice.close()
    subscribe('userdma:failure', close)
    try {
      const slice = clientEnd.pd.register(new Uint8Array(8)).slice()
      await assert.rejects(clientEnd.qp.write(slice, { address: 0n, rkey: 1, length: 8 }))
      assert.equal(await serverEnd.closed, 'peer')
    } finally {
      unsubscribe('userdma:failure', close)
    }
    await serverDevice.close()
  })
})

describe('over UDP', () =>
  connectionTests(async () => {
    const network = createNetwork({ link: 'udp' })
    const openAt = (n: number) => open({ network, address: loopbackText(n) })
    return [await openAt(73), await openAt(74)]
  }))
