/*
 * IP over a device (RFC 4391), on devices of this process and of a daemon, and over UDP.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { createCtxDevice } from '../../../../src/drivers/ctx/device.ts'
import {
  createNetwork,
  type Device,
  type IpInterface,
  open,
  RdmaError,
  type UdpSocket,
} from '../../../../src/library/index.ts'
import { loopbackText } from '../../../loopback.ts'
import { eachCarrier, type OpenTwo } from '../endpoints.ts'

/** Bytes of the IPv4 and UDP headers. */
const HEADER_BYTES = 20 + 8

const bytes = (...values: number[]) => Uint8Array.from(values)

/** The errno of a call, or 'ok'. */
const codeOf = (body: () => unknown): string => {
  try {
    body()
    return 'ok'
  } catch (error) {
    assert.ok(error instanceof RdmaError, String(error))
    return error.code
  }
}

const nextDatagram = async (socket: UdpSocket) => {
  for await (const datagram of socket) return datagram
  return assert.fail('the socket has ended')
}

const ipTests = (openTwo: OpenTwo): void => {
  let one: Device
  let two: Device
  let firstIp: IpInterface
  let secondIp: IpInterface
  beforeEach(async () => {
    ;[one, two] = await openTwo()
    firstIp = one.ip({ address: '10.9.0.1/24' })
    secondIp = two.ip({ address: '10.9.0.2' })
  })
  afterEach(async () => {
    await one?.close()
    await two?.close()
  })

  it('two stacks ping each other, and a stack pings itself', async () => {
    for (const [ip, address] of [
      [firstIp, '10.9.0.2'],
      [secondIp, '10.9.0.1'],
      [firstIp, '10.9.0.1'],
    ] as const) {
      assert.ok((await ip.ping(address)) >= 0)
      assert.ok((await ip.ping(address, { size: 1000 })) >= 0)
    }
    assert.equal(firstIp.query().neighbours, 1)
  })

  it('a ping of an unused address, with an aborted signal, or to another network is rejected, and leaves nothing open', async () => {
    await assert.rejects(firstIp.ping('10.9.0.77', { timeout: 20 }), { code: 'ETIMEDOUT' })
    await assert.rejects(firstIp.ping('10.9.0.77', { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' })
    await assert.rejects(firstIp.ping('10.9.0.2', { signal: AbortSignal.abort() }), { name: 'AbortError' })
    await assert.rejects(firstIp.ping('10.10.0.1'), { code: 'ENETUNREACH' })
    firstIp.close()
  })

  it('datagrams travel in both directions', async () => {
    using client = firstIp.udp()
    using server = secondIp.udp({ port: 7 })
    const serving = (async () => {
      for await (const { payload, address, port } of server) server.send(payload, { address, port })
    })()
    for (let i = 0; i < 20; i++) {
      const payload = new Uint8Array(i * 40).fill(i)
      client.send(payload, { address: '10.9.0.2', port: 7 })
      const answer = await nextDatagram(client)
      assert.deepEqual([answer.address, answer.port, Buffer.compare(answer.payload, payload)], ['10.9.0.2', 7, 0])
    }
    server.close()
    await serving
  })

  it('a socket receives datagrams of its groups', async () => {
    using sender = firstIp.udp()
    using member = secondIp.udp({ port: 5000 })
    member.join('239.1.2.3')
    sender.send(bytes(1), { address: '239.1.2.3', port: 5000 })
    assert.deepEqual((await nextDatagram(member)).payload, bytes(1))
    member.leave('239.1.2.3')
    sender.send(bytes(2), { address: '239.1.2.3', port: 5000 })
    sender.send(bytes(3), { address: '10.9.0.2', port: 5000 })
    assert.deepEqual((await nextDatagram(member)).payload, bytes(3))
  })

  it('invalid arguments, and addresses and ports in use, are refused with their errno', () => {
    assert.equal(
      codeOf(() => one.ip({ address: '10.9.0.1' })),
      'EADDRINUSE',
    )
    for (const address of ['10.9.0.1/24/1', '10.9.0.x', '10.9.0.3/', '10.9.0.3/64', '127.0.0.1', 'ff02::1'])
      assert.equal(
        codeOf(() => one.ip({ address })),
        'EINVAL',
        address,
      )
    using socket = firstIp.udp({ port: 9 })
    assert.equal(
      codeOf(() => firstIp.udp({ port: 9 })),
      'EADDRINUSE',
    )
    assert.equal(
      codeOf(() => firstIp.udp({ port: 65536 })),
      'EINVAL',
    )
    const receiver = { address: '10.9.0.2', port: 9 }
    assert.equal(
      codeOf(() => socket.send(new Uint8Array(5000), receiver)),
      'EMSGSIZE',
    )
    assert.equal(
      codeOf(() => socket.send(new Uint8Array(firstIp.mtu - HEADER_BYTES + 1), receiver)),
      'EMSGSIZE',
    )
    socket.send(new Uint8Array(firstIp.mtu - HEADER_BYTES), receiver)
    assert.equal(
      codeOf(() => socket.send(bytes(1), { ...receiver, port: 0 })),
      'EINVAL',
    )
    assert.equal(
      codeOf(() => socket.leave('239.1.1.1')),
      'EADDRNOTAVAIL',
    )
    assert.equal(
      codeOf(() => firstIp.close()),
      'EBUSY',
    )
    socket.close()
    assert.equal(
      codeOf(() => socket.poll()),
      'ERR_CLOSED',
    )
    firstIp.close()
  })

  it('closing a device closes its sockets', async () => {
    const socket = firstIp.udp()
    const waiting = (async () => {
      const datagrams = []
      for await (const datagram of socket) datagrams.push(datagram)
      return datagrams
    })()
    await one.close()
    assert.deepEqual(await waiting, [])
    // A daemon closes the interface after `close` returns, and answers pings until then.
    const pings = async (): Promise<never> => {
      for (;;) await secondIp.ping('10.9.0.1', { timeout: 20 })
    }
    await assert.rejects(pings, { code: 'ETIMEDOUT' })
    secondIp.close()
  })
}

describe('IP over a device', () => {
  eachCarrier(ipTests)
})

describe('IP over UDP, from one network to another', () => {
  ipTests(async () => {
    const openOn = (n: number) => open({ network: createNetwork({ link: 'udp' }), address: loopbackText(n) })
    return [await openOn(83), await openOn(84)]
  })
})

describe('IP over devices of this process', () => {
  it('works with IPv6, and after a loss of all packets', async () => {
    const network = createNetwork()
    const [one, two] = [await open({ network, address: 'fd00::1' }), await open({ network, address: 'fd00::2' })]
    const firstIp = one.ip({ address: 'fd00:9::1' })
    two.ip({ address: 'fd00:9::2' })
    assert.ok((await firstIp.ping('fd00:9::2')) >= 0)
    network.setFaults('drop=100%')
    await assert.rejects(firstIp.ping('fd00:9::2', { timeout: 20 }), { code: 'ETIMEDOUT' })
    network.setFaults('')
    assert.ok((await firstIp.ping('fd00:9::2')) >= 0)
    await one.close()
    await two.close()
  })

  it('a device without datagrams for clients refuses interfaces with EOPNOTSUPP', async () => {
    const network = createNetwork()
    network.addDevice(core => createCtxDevice(core, 'ctx0'))
    const device = await open({ network, device: 'ctx0' })
    assert.equal(
      codeOf(() => device.ip({ address: '10.9.0.1' })),
      'EOPNOTSUPP',
    )
    await device.close()
  })
})
