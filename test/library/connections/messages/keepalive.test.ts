/*
 * A peer that is gone without a word is noticed in the time of `keepalive`, over memory and over UDP, while no message
 * is sent. `reconnect` connects again.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, mock, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { hasNative } from '../../../../src/host/native.ts'
import {
  connect,
  createNetwork,
  type Device,
  listen,
  type Messages,
  open,
  type RdmaError,
  reconnect,
} from '../../../../src/library/index.ts'
import { loopbackText } from '../../../loopback.ts'
import { libraryUrl } from '../../../paths.ts'
import { startDaemon, TWO_DEVICES } from '../../../system/programs.ts'
import { openTwoInProcess } from '../../verbs/endpoints.ts'
import { messagePair } from './pairs.ts'

const noAnswer = (error: RdmaError): boolean => {
  assert.equal(error.code, 'ERR_CLOSED')
  assert.match(error.message, /the peer has not answered for 90 ms/)
  assert.equal((error.cause as RdmaError).code, 'ETIMEDOUT')
  return true
}

/** A program that accepts one connection, calls `messages()` and says so. */
const peerProgram = (link: string, address: string): string => `
  import { listen, open } from '${libraryUrl}'
  const device = await open({ link: '${link}', address: '${address}' })
  const server = await listen('rdma://${address}:7471', { device })
  console.log('ready')
  for await (const request of server) await (await request.accept()).messages()
`

describe('a dead peer', () => {
  test('is noticed over memory', async () => {
    const network = createNetwork()
    const { near, cleanup } = await messagePair(await openTwoInProcess(network)(), { keepalive: 90 })
    const waiting = assert.rejects(near.receive(), noAnswer)
    network.setFaults('drop=100%')
    // A device in memory does not keep the process alive.
    const alive = setInterval(() => {}, 1000)
    await waiting
    clearInterval(alive)
    network.setFaults('')
    await cleanup()
  })

  for (const link of ['dgram', 'udp'] as const)
    test(`is noticed over ${link}`, { skip: link === 'udp' && !hasNative() && 'koffi is missing' }, async () => {
      const [address, own] = link === 'udp' ? [loopbackText(1), loopbackText(2)] : [loopbackText(3), loopbackText(4)]
      const child = spawn(process.execPath, ['--input-type=module', '-e', peerProgram(link, address)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(child.stdout, 'data')
      const device = await open({ link, address: own })
      const connection = await connect(`rdma://${address}:7471`, { device })
      const messages = await connection.messages({ keepalive: 90 })
      child.kill('SIGKILL')
      await once(child, 'exit')
      await assert.rejects(messages.receive(), noAnswer)
      await device.close()
    })
})

const CONNECTIONS = 4
test('the end of a process on a daemon closes its connections as the peer', {
  skip: !hasNative() && 'koffi is missing',
}, async t => {
  const { socket } = await startDaemon(t, { devices: TWO_DEVICES })
  const device = await open({ socket })
  const server = await listen('rdma://0.0.0.0:0', { device })
  const program = `
    import { connect, open } from '${libraryUrl}'
    const device = await open({ socket: '${socket}', device: 'rxe1' })
    const flood = async () => {
      const messages = await (await connect('rdma://${device.address}:${server.port}', { device })).messages()
      for (;;) await Promise.all(Array.from({ length: 8 }, () => messages.send(new Uint8Array(300_000))))
    }
    for (let i = 0; i < ${CONNECTIONS}; i++) flood()
  `
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit' })
  const all: Messages[] = []
  for await (const request of server) if (all.push(await (await request.accept()).messages()) === CONNECTIONS) break
  const taken = Promise.all(all.map(messages => messages.receive()))
  const ends = all.map(async messages => {
    try {
      for (;;) await messages.receive()
    } catch (error) {
      return [((error as RdmaError).cause as RdmaError).code, await messages.closed]
    }
  })
  await taken
  child.kill('SIGKILL')
  assert.deepEqual(await Promise.all(ends), Array(CONNECTIONS).fill(['ECONNRESET', 'peer']))
  await device.close()
})

test('a silent peer is not given up before the time of `keepalive`, also by the transport', async () => {
  const network = createNetwork({ path: 'packets' })
  mock.timers.enable({ apis: ['setInterval'] })
  try {
    const { client, near, cleanup } = await messagePair(await openTwoInProcess(network)(), { keepalive: 10_000 })
    const { retryCount, ackTimeoutExponent } = client.qp.query()
    assert.ok((retryCount + 1) * 0.004096 * 2 ** ackTimeoutExponent > 10_000)
    let isOver = false
    const waiting = near.receive().catch(error => {
      isOver = true
      return error
    })
    network.setFaults('drop=100%')
    const pass = async (): Promise<void> => {
      mock.timers.tick(3333)
      for (let i = 0; i < 5; i++) await nextTurn()
    }
    await pass() // the first third had signs of the peer: HELLO
    for (let i = 0; i < 2; i++) await pass()
    assert.equal(isOver, false, 'silent for two thirds')
    await pass()
    assert.match((await waiting).message, /the peer has not answered for 10000 ms/)
    network.setFaults('')
    await cleanup()
  } finally {
    mock.timers.reset()
  }
})

test('an idle connection lives on while its peer answers', async () => {
  const network = createNetwork({ path: 'packets' })
  const { client, near, far, cleanup } = await messagePair(await openTwoInProcess(network)(), { keepalive: 30 })
  const packets = (): number => client.device.counters().hw_counters.sent_pkts
  const before = packets()
  while (packets() < before + 8) await nextTurn()
  await near.send(Uint8Array.of(1))
  assert.deepEqual(await far.receive(), Uint8Array.of(1))
  await cleanup()
})

describe('reconnect', () => {
  const serve = async (device: Device) => {
    const server = await listen('rdma://0.0.0.0:7471', { device })
    const serving = (async () => {
      for await (const request of server) {
        const messages = await (await request.accept()).messages()
        await messages.send(await messages.receive())
        await messages.close()
      }
    })()
    return async () => {
      await server.close()
      await serving
    }
  }

  test('connects when the listener is there, and again after each connection', async () => {
    const [serverDevice, device] = await openTwoInProcess()()
    const controller = new AbortController()
    const url = `rdma://${serverDevice.address}:7471`
    let stop = async (): Promise<void> => {}
    const starting = (async () => {
      await assert.rejects(connect(url, { device }), { code: 'ECONNREFUSED' })
      stop = await serve(serverDevice)
    })()
    let connections = 0
    const loop = (async () => {
      for await (const connection of reconnect(url, { device, pause: 1, signal: controller.signal })) {
        const messages = await connection.messages()
        await messages.send(Uint8Array.of(++connections))
        assert.deepEqual(await messages.receive(), Uint8Array.of(connections))
        if (connections === 3) controller.abort('enough')
      }
    })()
    await assert.rejects(loop, error => error === 'enough')
    await starting
    await stop()
    await device.close()
    await serverDevice.close()
  })

  test('ends with a break, which closes the connection; mistakes are refused at once', async () => {
    const [serverDevice, device] = await openTwoInProcess()()
    const stop = await serve(serverDevice)
    const url = `rdma://${serverDevice.address}:7471`
    for await (const connection of reconnect(url, { device })) {
      const messages = await connection.messages()
      await messages.send(Uint8Array.of(1))
      await messages.receive()
      break
    }
    assert.throws(() => reconnect(url, { pause: 0 }), { code: 'EINVAL', reason: /pause 0/ })
    assert.throws(() => reconnect(url, { pause: 50, maxPause: 20 }), { code: 'EINVAL', reason: /from 50 to/ })
    await assert.rejects(reconnect('nowhere', { device }).next(), { code: 'EINVAL' })
    await stop()
    await device.close()
    await serverDevice.close()
  })
})
