/*
 * Hostile peers of the wire driver (examples/drivers/wire.mjs), and its connections in unusual orders: the driver's
 * protocol in this process, with streams of this test as its peers.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type {
  Connection,
  ConnectionEnd,
  ConnectionProtocol,
  Driver,
  PeerRequest,
} from '../../../src/core/driver-contract.ts'
import { addRegion, createMemoryTable } from '../../../src/core/memory/region-table.ts'
import { AccessFlags, CmEventType, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { repoRoot } from '../../paths.ts'
import { parametersOf } from '../../services/rdma-cm/hosts.ts'
import type { Scope } from '../programs.ts'

const PORT = 4790
const MAX_MESSAGE = 1 << 20
const QPN = 17
const [CONNECT, ACCEPT, REJECT, SEND, READ, CONFIRM] = [1, 2, 3, 4, 6, 8]
const { CONNECT_REQUEST, CONNECT_RESPONSE, REJECTED, UNREACHABLE, DISCONNECTED } = CmEventType.values
const { RESET, INIT, RTS } = QpState.values

const frame = (type: number, { length = 0, lo = 0, word = 0, bytes = 0 } = {}): Buffer => {
  const header = Buffer.alloc(24)
  header[4] = type
  for (const [value, at] of [
    [length, 0],
    [lo, 8],
    [word, 16],
    [bytes, 20],
  ] as const)
    header.writeUInt32LE(value, at)
  return header
}

interface WireProtocol extends ConnectionProtocol {
  readonly connections: Set<Connection>
}

const { driver } = (await import(join(repoRoot, 'examples/drivers/wire.mjs'))) as {
  driver: Omit<Driver, 'openConnections'> & { openConnections(device: object, listeners: object): WireProtocol }
}

/** A queue pair of the driver in state INIT, with only what streams need. */
const queuePair = (device: object) => ({
  context: { device },
  state: {
    qpn: QPN,
    pd: 1,
    state: INIT as number,
    attributes: {},
    memory: { free() {} },
    send: { ring: {}, sent: undefined as object | undefined },
    receive: { ring: {} },
  },
})

/** The protocol of a device with one queue pair. An end's events are collected as `type:status`. */
const openWire = (t: Scope, host: number) => {
  const events: (() => void)[] = []
  const reported: string[] = []
  let onReport: (type: number) => void = () => {}
  const memory = createMemoryTable(() => 7)
  const row = addRegion(memory, 1, 0n, 0n, MAX_MESSAGE, AccessFlags.values.REMOTE_READ, {
    read: () => 0,
  } as never)
  const qps = new Map<number, ReturnType<typeof queuePair>>()
  const state = {
    ...{ events, qps, address: ipv4(127, 0, 0, host), wake },
    scratch: { bytes: new Uint8Array(MAX_MESSAGE) },
    counts: { sends: 0, receives: 0 },
  }
  const device = { name: 'wire0', taps: {}, state, memory }
  const qp = queuePair(device)
  qps.set(QPN, qp)
  const end = {
    ...{ localGid: ipv4(127, 0, 0, host), remoteGid: ipv4(127, 0, 0, host + 1) },
    ...{ source: { port: 1 }, destination: { port: 2 } },
    report(type: number, { status = 0 } = {}) {
      reported.push(`${type}:${status}`)
      onReport(type)
      return true
    },
  } as unknown as ConnectionEnd
  let passive: Connection | undefined
  const protocol = driver.openConnections(device, {
    request(_request: PeerRequest, connection: Connection) {
      passive = connection
      return end
    },
  })
  function wake(): void {
    for (const event of events.splice(0)) event()
    for (const connection of protocol.connections as Set<Connection & { poll(): boolean }>) connection.poll()
  }
  t.after(() => protocol.close())
  return {
    ...{ device, qp, end, protocol, reported, rkey: memory.key[row]!, wake },
    passive: () => passive ?? assert.fail('no request'),
    onReport(handler: (type: number) => void) {
      onReport = handler
    },
    /** The next event of this type. */
    event: (wanted: number) =>
      new Promise<void>(resolve => {
        onReport = type => type === wanted && resolve()
      }),
    stranger(): Socket {
      const socket = connect({ host: `127.0.0.${host}`, port: PORT })
      socket.on('error', () => {})
      t.after(() => socket.destroy())
      return socket
    },
  }
}

/** A server of another device, in place of its driver. */
const peerServer = async (t: Scope, host: number, serve: (socket: Socket) => void): Promise<void> => {
  const server = createServer(socket => {
    socket.on('error', () => {})
    t.after(() => socket.destroy())
    serve(socket)
  })
  t.after(() => server.close())
  server.listen({ host: `127.0.0.${host}`, port: PORT })
  await once(server, 'listening')
}

describe('streams of the wire driver', () => {
  it('end at a frame that is not expected, or too long', async t => {
    const wire = openWire(t, 10)
    for (const bytes of [
      Buffer.alloc(24, 0xff),
      frame(SEND),
      frame(CONFIRM),
      frame(CONNECT, { length: MAX_MESSAGE }),
      Buffer.concat([frame(CONNECT), frame(CONNECT)]),
      Buffer.concat([frame(CONNECT), frame(SEND)]),
    ]) {
      const stranger = wire.stranger()
      stranger.write(bytes)
      await once(stranger, 'close')
    }
    assert.equal(wire.protocol.connections.size, 0)
  })

  it('end without a CONNECT, an answer or a confirmation', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const wire = openWire(t, 12)
    const silent = wire.stranger()
    const requested = wire.event(CONNECT_REQUEST)
    const asking = wire.stranger()
    asking.write(frame(CONNECT))
    await requested
    await peerServer(t, 13, () => {})
    wire.passive().accept(parametersOf(QPN))
    const active = wire.protocol.create(wire.end)
    wire.device.state.qps.set(QPN + 1, queuePair(wire.device))
    const unreachable = wire.event(UNREACHABLE)
    active.connect(parametersOf(QPN + 1))
    const closed = [silent, asking].map(socket => once(socket.resume(), 'close'))
    t.mock.timers.tick(120_000)
    await Promise.all([unreachable, ...closed])
    assert.ok(active.isIdle)
  })

  it('connect again after a rejection, whose stream then ends', async t => {
    const wire = openWire(t, 14)
    await peerServer(t, 15, socket => socket.end(frame(REJECT, { word: 28 })))
    const active = wire.protocol.create(wire.end)
    let left = 3
    const done = new Promise<void>(resolve =>
      wire.onReport(type => {
        if (type !== REJECTED || --left === 0) resolve()
        else active.connect(parametersOf(QPN))
      }),
    )
    active.connect(parametersOf(QPN))
    await done
    assert.deepEqual(wire.reported, Array(3).fill(`${REJECTED}:28`))
  })

  it('take no request from the peer of a rejected connection', async t => {
    const wire = openWire(t, 16)
    const closed = new Promise(resolve =>
      peerServer(t, 17, socket => {
        socket.resume().on('close', resolve)
        socket.write(Buffer.concat([frame(REJECT, { word: 28 }), frame(CONNECT)]))
      }).then(() => wire.protocol.create(wire.end).connect(parametersOf(QPN))),
    )
    await closed
    assert.deepEqual(wire.reported, [`${REJECTED}:28`])
  })

  it('keep requests until this end has confirmed', async t => {
    const wire = openWire(t, 18)
    const answers = new Promise<Buffer>(resolve =>
      peerServer(t, 19, socket => {
        const received: Buffer[] = []
        socket.on('data', bytes => {
          received.push(bytes)
          // CONNECT, CONFIRM and STATUS.
          if (Buffer.concat(received).length === 3 * 24) resolve(Buffer.concat(received))
        })
        socket.write(Buffer.concat([frame(ACCEPT, { word: 99 }), frame(READ, { bytes: 8, word: 0xbad })]))
      }).then(() => active.connect(parametersOf(QPN))),
    )
    const active = wire.protocol.create(wire.end)
    await wire.event(CONNECT_RESPONSE)
    active.confirm?.()
    wire.wake()
    assert.equal((await answers).readUInt32LE(2 * 24 + 16), WcStatus.values.REM_ACCESS_ERR)
  })

  const establish = async (wire: ReturnType<typeof openWire>): Promise<Socket> => {
    const stranger = wire.stranger()
    const requested = wire.event(CONNECT_REQUEST)
    stranger.write(frame(CONNECT))
    await requested
    wire.passive().accept(parametersOf(QPN))
    await once(stranger, 'readable')
    stranger.read()
    const established = wire.event(CmEventType.values.ESTABLISHED)
    stranger.write(frame(CONFIRM))
    await established
    return stranger
  }

  it('answer READs only as fast as the peer takes the data', async t => {
    const wire = openWire(t, 20)
    const stranger = await establish(wire)
    let copies = 0
    const bytes = new Uint8Array(MAX_MESSAGE)
    wire.device.state.scratch = {
      get bytes() {
        copies++
        return bytes
      },
    }
    // The peer does not read: only the system's buffers take answers.
    for (let i = 0; i < 1000; i++) stranger.write(frame(READ, { word: wire.rkey, bytes: MAX_MESSAGE }))
    while (stranger.bytesWritten < 1000 * 24) await new Promise(setImmediate)
    for (let turns = 0; turns < 100; turns += copies > 0 ? 1 : 0) {
      wire.wake()
      await new Promise(setImmediate)
    }
    assert.ok(copies < 50, `${copies} answers`)
  })

  it('leave a queue pair that is destroyed', async t => {
    const wire = openWire(t, 22)
    const stranger = await establish(wire)
    const { qp, device } = wire
    qp.state.send.sent = {}
    const rcQp = driver.classes.find(cls => cls.class.name === 'rc_qp') ?? assert.fail()
    rcQp.handlers.destroy?.({ device } as never, qp as never, {} as never, (() => ({})) as never)
    assert.deepEqual([qp.state.state, qp.state.send.sent], [RESET, undefined])
    stranger.write(frame(SEND))
    await once(stranger, 'readable')
    assert.equal(stranger.read().readUInt32LE(16), WcStatus.values.RETRY_EXC_ERR)
    wire.passive().destroy()
    await once(stranger.resume(), 'close')
  })

  it('end though the peer neither reads nor closes', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const wire = openWire(t, 24)
    const stranger = await establish(wire)
    const disconnected = wire.event(DISCONNECTED)
    stranger.allowHalfOpen = true
    wire.passive().disconnect()
    assert.equal(wire.qp.state.state, RTS)
    t.mock.timers.tick(10_000)
    await disconnected
    assert.equal(wire.reported.at(-1), `${DISCONNECTED}:${-Errno.ETIMEDOUT}`)
  })

  it('are limited in number', async t => {
    const wire = openWire(t, 26)
    let refused = ''
    for (let i = 0; i < 2000 && refused === ''; i++)
      try {
        wire.protocol.create(wire.end).connect(parametersOf(QPN))
      } catch (error) {
        refused = (error as { code: string }).code
      }
    assert.equal(refused, 'ENOMEM')
  })

  it('refuse listeners if the port is in use', async t => {
    await peerServer(t, 28, () => {})
    t.mock.method(console, 'error', () => {})
    const wire = openWire(t, 28)
    for (let tries = 0; tries < 1000; tries++)
      try {
        wire.protocol.listen(wire.end)
        await new Promise(setImmediate)
      } catch (error) {
        assert.equal((error as { code: string }).code, 'EADDRINUSE')
        return
      }
    assert.fail('the port is in use')
  })
})
