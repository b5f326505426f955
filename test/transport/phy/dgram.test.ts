/*
 * The port on node:dgram.
 */
import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { after, describe, it, type TestContext } from 'node:test'
import { EMSGSIZE } from '../../../src/host/errno.ts'
import { hasNative } from '../../../src/host/native.ts'
import { ICRC_BYTES, ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { createDgramPort, type DgramPort, ICRC_MARK } from '../../../src/transport/phy/dgram.ts'
import { emptyRun, type Port } from '../../../src/transport/phy/port.ts'
import { createUdpPort } from '../../../src/transport/phy/udp/port.ts'
import { addressText, parseAddress } from '../../../src/transport/wire/address.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { bthPsn } from '../../../src/transport/wire/bth.ts'
import { findIdentification, makeFlow, sealIcrc } from '../../../src/transport/wire/icrc.ts'
import { until } from '../../limits.ts'
import { groupAddress, loopback } from '../../loopback.ts'
import { portContract } from './contract.ts'
import { collect, flowBetween, psns, putSendOnly, receiveAll, sendRun } from './helpers.ts'

const IPV6_LOOPBACK = parseAddress('::1')!
/** A packet with a payload of 4096 bytes: BTH, payload, ICRC. */
const FULL_PACKET_BYTES = 12 + 4096 + 4
/** Sends runs of 64 full packets until the port has no room. Returns their number. */
const fillSendArea = (port: Port, flow: number): number => {
  let runs = 0
  while (sendRun(port, flow, 0, 64, FULL_PACKET_BYTES)) runs++
  return runs
}
const foreignAddresses: string[] = []
const attach = (n: number): DgramPort => {
  const port = createDgramPort({
    mtu: 65536,
    interfaceName: 'lo',
    onForeign: address => foreignAddresses.push(addressText(address)),
  })
  port.addAddress(loopback(n))
  return port
}

portContract('a port on node:dgram', () => ({ address: loopback, attach, hidesIpHeader: true }))

describe('node:dgram', () => {
  const open: Port[] = []
  const close = (): void => {
    for (const port of open.splice(0)) port.close()
  }
  after(close)
  const pair = (): readonly [DgramPort, DgramPort] => {
    close()
    foreignAddresses.length = 0
    const [a, b] = [attach(1), attach(2)]
    open.push(a, b)
    return [a, b]
  }
  /** A port at ::1. If the address is not available, skips the test and returns undefined. */
  const attachIpv6Loopback = (t: TestContext): DgramPort | undefined => {
    close()
    const port = createDgramPort({ mtu: 65536, interfaceName: 'lo' })
    open.push(port)
    try {
      port.addAddress(IPV6_LOOPBACK)
      return port
    } catch (error) {
      t.skip(`no IPv6 here: ${error}`)
      return undefined
    }
  }

  it('refuses packets with a standard ICRC, and reports the source once', async () => {
    const [a, b] = pair()
    const foreignSocket = createSocket('udp4')
    await new Promise<void>(resolve => foreignSocket.bind(ROCE_UDP_PORT, addressText(loopback(3)), resolve))
    const arena = plainArena(64)
    const flow = makeFlow({
      source: loopback(3),
      destination: loopback(2),
      sourcePort: ROCE_UDP_PORT,
      destinationPort: ROCE_UDP_PORT,
    })
    for (const identification of [0, 0x1234]) {
      putSendOnly(arena.view, 0, 1)
      sealIcrc(arena, 0, 64, flow, identification)
      await new Promise(resolve =>
        foreignSocket.send(arena.bytes.slice(), ROCE_UDP_PORT, addressText(loopback(2)), resolve),
      )
    }
    await new Promise<void>(resolve => foreignSocket.close(resolve))
    const flowToB = a.openFlow(flowBetween(loopback(1), loopback(2)))
    sendRun(a, flowToB, 7, 1)
    assert.deepEqual(psns(await collect(b, 1)), [7])
    assert.deepEqual([b.counters.foreignPackets, b.counters.icrcErrors], [2, 0])
    assert.deepEqual(foreignAddresses, [addressText(loopback(3))])
  })

  it('exchanges no packets with a port on UDP', { skip: !hasNative() }, async () => {
    const [a] = pair()
    const udpPort = createUdpPort({ mtu: 65536, interfaceIndex: 1 })
    open.push(udpPort)
    udpPort.addAddress(loopback(4))
    const flow = a.openFlow(flowBetween(loopback(1), loopback(4)))
    const flowBack = udpPort.openFlow(flowBetween(loopback(4), loopback(1)))
    sendRun(a, flow, 0, 5)
    sendRun(udpPort, flowBack, 0, 5)
    const counted = (): number[] => {
      assert.deepEqual([...receiveAll(udpPort), ...receiveAll(a)], [])
      return [udpPort.counters.icrcErrors, a.counters.foreignPackets]
    }
    await until(
      () => counted().every(count => count === 5),
      () => `${counted()}`,
    )
  })

  it('marks its ICRCs, and no marked ICRC is the standard ICRC for an identification', () => {
    const arena = plainArena(4300)
    const flow = makeFlow({
      source: loopback(1),
      destination: loopback(2),
      sourcePort: ROCE_UDP_PORT,
      destinationPort: ROCE_UDP_PORT,
    })
    for (let length = 16; length <= 4300; length += 4) {
      sealIcrc(arena, 0, length, flow, 0)
      const icrcAt = length - ICRC_BYTES
      arena.view.setUint32(icrcAt, arena.view.getUint32(icrcAt) ^ ICRC_MARK)
      assert.equal(findIdentification(arena, 0, length, flow, 0), -1, `${length} bytes`)
    }
  })

  it('has the largest path MTU that fits into the MTU of its interface', () => {
    close()
    const port = createDgramPort({ mtu: 1500, interfaceName: 'lo' })
    open.push(port)
    assert.equal(port.pathMtu, 1024)
  })

  it('refuses addresses in use and of other hosts, and ignores link-local addresses that the host lacks', () => {
    pair()
    const second = createDgramPort({ mtu: 65536, interfaceName: 'lo' })
    open.push(second)
    assert.throws(() => second.addAddress(loopback(1)), /EADDRINUSE/)
    assert.throws(() => second.addAddress(parseAddress('203.0.113.9')!), { code: 'EADDRNOTAVAIL' })
    second.addAddress(parseAddress('fe80::9')!)
  })

  it('refuses a flow from an address that it lacks', () => {
    const [a] = pair()
    assert.throws(() => a.openFlow(flowBetween(loopback(9), loopback(2))), /has no address 127\./)
  })

  it('continues after datagrams that cannot be sent and datagrams that are not packets', async () => {
    const [a, b] = pair()
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    // longer than 65,507 bytes
    sendRun(a, flow, 0, 1, 66000)
    const foreignSocket = createSocket('udp4')
    for (const length of [0, 1, 15, 16, 5000])
      await new Promise(resolve =>
        foreignSocket.send(new Uint8Array(length), ROCE_UDP_PORT, addressText(loopback(2)), resolve),
      )
    foreignSocket.close()
    sendRun(a, flow, 1, 1)
    assert.deepEqual(psns(await collect(b, 1)), [1])
    assert.deepEqual([a.counters.sendErrors, a.counters.lastSendError], [1, EMSGSIZE])
    assert.deepEqual([a.counters.sentPackets, a.counters.sentBytes], [1, 64])
    assert.deepEqual([b.counters.dropped, b.counters.icrcErrors], [0, 5])
  })

  it('releases its memory once, when it is closed', () => {
    let released = 0
    const makeArena = (bytes: number) => ({ arena: plainArena(bytes), release: () => released++ })
    const port = createDgramPort({ mtu: 65536, interfaceName: 'lo', makeArena })
    assert.equal(released, 0)
    port.close()
    port.close()
    assert.equal(released, 1)
  })

  it('joins a group with its current address, and refuses to join without an address', () => {
    const [port] = pair()
    port.joinGroup(groupAddress(1))
    port.removeAddress(loopback(1))
    port.addAddress(loopback(5))
    port.joinGroup(groupAddress(2))
    port.removeAddress(loopback(5))
    assert.throws(() => port.joinGroup(groupAddress(3)), /no address of its family/)
  })

  it('joins IPv6 groups of any scope: interface, link and site', t => {
    const port = attachIpv6Loopback(t)
    if (port === undefined) return
    for (const text of ['ff11::4791', 'ff02::4791', 'ff12:601b:ffff::1', 'ff05::4791']) {
      const group = parseAddress(text)!
      port.joinGroup(group)
      port.leaveGroup(group)
    }
  })

  it('sends to itself over IPv6', async t => {
    const port = attachIpv6Loopback(t)
    if (port === undefined) return
    sendRun(port, port.openFlow(flowBetween(IPV6_LOOPBACK, IPV6_LOOPBACK)), 0, 30, 1040, 52)
    assert.equal((await collect(port, 30)).length, 30)
  })

  it('keeps a delivered packet until it is released, while others arrive', async () => {
    const [a, b] = pair()
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    const run = emptyRun()
    let hasArrived = false
    b.wake = () => {
      hasArrived = true
    }
    const sendAndAwait = async (psn: number): Promise<void> => {
      hasArrived = false
      sendRun(a, flow, psn, 1)
      await until(
        () => hasArrived,
        () => 'the packet does not arrive',
      )
    }
    await sendAndAwait(1)
    assert.ok(b.receive(run))
    await sendAndAwait(2)
    assert.equal(bthPsn(b.arena.view, run.offset), 1)
    b.release()
    assert.deepEqual(psns(receiveAll(b)), [2])
  })

  it('has no reservation while its send area is full, and calls `wake` when the datagrams have been sent', async () => {
    const [a, b] = pair()
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    assert.ok(fillSendArea(a, flow) > 1)
    await new Promise<void>(resolve => {
      a.wake = resolve
    })
    assert.ok(sendRun(a, flow, 0, 1))
    await collect(b, 1)
  })

  it('continues with its other address when an address with unsent datagrams is removed', async () => {
    const [a, b] = pair()
    a.addAddress(loopback(5))
    // Nothing receives there.
    const flow = a.openFlow(flowBetween(loopback(1), loopback(6)))
    const otherFlow = a.openFlow(flowBetween(loopback(5), loopback(2)))
    fillSendArea(a, flow)
    let isWoken = false
    a.wake = () => {
      isWoken = true
    }
    a.removeAddress(loopback(1))
    for (let turn = 0; turn < 100 && !isWoken; turn++) await new Promise(setImmediate)
    assert.equal(isWoken, true)
    assert.ok(sendRun(a, otherFlow, 9, 1))
    assert.deepEqual(psns(await collect(b, 1)), [9])
  })

  it('counts received packets without room as overflows, not as packets that could not be sent', async () => {
    const [a, b] = pair()
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    // b does not read. Its memory for received packets has room for about 1000 full packets.
    for (let turn = 0; turn < 2000 && b.counters.receiveOverflows + b.counters.dropped === 0; turn++) {
      fillSendArea(a, flow)
      await new Promise(setImmediate)
    }
    assert.ok(b.counters.receiveOverflows > 0)
    assert.equal(b.counters.dropped, 0)
  })

  it('is never full of packets of an address that was removed', () => {
    const [a] = pair()
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    a.removeAddress(loopback(1))
    const PACKETS = 64
    // More than the send area has room for.
    for (let run = 0; run < 100; run++) {
      const at = a.reserve(PACKETS * FULL_PACKET_BYTES)
      assert.ok(at >= 0, `run ${run}`)
      a.commit(at, FULL_PACKET_BYTES, PACKETS, FULL_PACKET_BYTES, flow)
    }
    a.flush()
    assert.equal(a.counters.dropped, 100 * PACKETS)
  })
})
