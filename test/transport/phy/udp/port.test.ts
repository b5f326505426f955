/*
 * The UDP port on loopback addresses: segmentation by the kernel, identifications, addresses, groups, flows.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { fstatSync, readdirSync } from 'node:fs'
import { after, describe, it } from 'node:test'
import { EADDRNOTAVAIL, EMSGSIZE, SystemError } from '../../../../src/host/errno.ts'
import { hasNative } from '../../../../src/host/native.ts'
import { closeUdpSocket, createUdpBatches, openUdpSocket } from '../../../../src/host/net/udp.ts'
import { descriptorLimit } from '../../../../src/host/process-status.ts'
import { ROCE_UDP_PORT } from '../../../../src/spec/wire/headers.ts'
import { emptyRun, type Port } from '../../../../src/transport/phy/port.ts'
import { forEachPacket } from '../../../../src/transport/phy/tap.ts'
import { createUdpPort, type UdpPort, type UdpPortOptions } from '../../../../src/transport/phy/udp/port.ts'
import { pathMtuOf } from '../../../../src/transport/phy/udp/window.ts'
import { makeFlow, sealIcrc } from '../../../../src/transport/wire/icrc.ts'
import { groupAddress, loopback } from '../../../loopback.ts'
import { portContract } from '../contract.ts'
import { collect, flowBetween, psns, putSendOnly, receiveAll, sendRun } from '../helpers.ts'

const attach = (n: number, options: Partial<UdpPortOptions> = {}): UdpPort => {
  const port = createUdpPort({ mtu: 65536, interfaceIndex: 1, ...options })
  port.addAddress(loopback(n))
  return port
}

const skip = hasNative() ? false : 'koffi is missing'

describe('UDP', { skip }, () => {
  portContract('a port on UDP', () => ({ address: loopback, attach: n => attach(n) }))
  portContract('a port on UDP without segmentation', () => ({
    address: loopback,
    attach: n => attach(n, { segmentation: 'never' }),
  }))

  const open: Port[] = []
  after(() => {
    for (const port of open) port.close()
  })
  /** Two ports, and their flows to each other. Closes the ports of the previous test. */
  const pair = (options: Partial<UdpPortOptions> = {}): readonly [UdpPort, UdpPort, number, number] => {
    for (const port of open.splice(0)) port.close()
    const a = attach(1, options)
    const b = attach(2, options)
    open.push(a, b)
    return [a, b, a.openFlow(flowBetween(loopback(1), loopback(2))), b.openFlow(flowBetween(loopback(2), loopback(1)))]
  }

  it('segments runs to a peer only once the peer has sent identification 0', async () => {
    const [a, b, toB, toA] = pair()
    sendRun(a, toB, 0, 10, 1040)
    assert.equal(a.counters.segmentedMessages, 0)
    await collect(b, 10)
    sendRun(b, toA, 0, 1)
    await collect(a, 1)
    sendRun(a, toB, 10, 64, 4112)
    assert.equal(a.counters.segmentedMessages, 5, 'a message has at most 65,000 bytes: 15 packets of 4112')
    await collect(b, 64)
    sendRun(a, toB, 74, 60, 272)
    assert.equal(a.counters.segmentedMessages, 6, '60 packets in a message')
    const run = emptyRun()
    await collect(b, 60, run)
    assert.equal(run.count, 60, 'the packets arrive as one run')
    b.requireSeal(1) // as a tap does: the identifications in a received run then count up
    sendRun(a, toB, 134, 20, 4112)
    assert.deepEqual(
      (await collect(b, 20)).map(packet => packet.identification),
      Array.from({ length: 20 }, (_, i) => i % 15),
      'ICRCs match the identifications of datagrams that the kernel segments',
    )
    assert.deepEqual([a.counters.sendErrors, b.counters.unexpectedIdentifications], [0, 0])
    const tapped: number[] = []
    b.tap = run => {
      if (run.outcome === 'passed')
        forEachPacket(run, (_offset, _length, identification) => tapped.push(identification))
    }
    a.tap = run => {
      run.arena.bytes[run.offset + 7 * 4112 + 20] ^= 4 // after sealing: a wrong ICRC
    }
    sendRun(a, toB, 154, 15, 4112)
    await collect(b, 14)
    assert.deepEqual(tapped, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14])
  })

  it('receives into the same buffers again after each release', async () => {
    const [a, b, toB, toA] = pair()
    sendRun(b, toA, 0, 1)
    await collect(a, 1)
    for (let i = 0; i < 8; i++) sendRun(a, toB, 15 * i, 15, 4112)
    const offsets = new Set<number>()
    const run = emptyRun()
    for (let turn = 0; turn < 4; turn++) {
      while (b.receive(run)) offsets.add(run.offset)
      b.release()
      for (let i = 0; i < 3; i++) sendRun(a, toB, 120 + 45 * turn + 15 * i, 15, 4112)
    }
    assert.equal(offsets.size, 8, 'the buffers of one poll, which two system calls fill')
  })

  it("sends a flow's packets from its source address", async () => {
    const [a, b] = pair()
    a.addAddress(loopback(3))
    const run = emptyRun()
    for (const source of [loopback(3), loopback(1)]) {
      sendRun(a, a.openFlow(flowBetween(source, loopback(2), { hopLimit: 9 })), 0, 1)
      await collect(b, 1, run)
      assert.deepEqual(run.flowAddress.source, source)
    }
  })

  it('sends each flow from its source port, at most 64 beside 4791, which is also for ports in use', async () => {
    const [a, b] = pair()
    const other = openUdpSocket(loopback(1), 0xc005, 1)
    const openFrom = (sourcePort: number) => a.openFlow(flowBetween(loopback(1), loopback(2), { sourcePort }))
    const arrivedFrom = async (flow: number): Promise<number> => {
      const run = emptyRun()
      sendRun(a, flow, 0, 1)
      await collect(b, 1, run)
      return run.flowAddress.sourcePort
    }
    try {
      const flow = openFrom(0xc001)
      assert.deepEqual([await arrivedFrom(flow), a.recordOf(flow).sourcePort], [0xc001, 0xc001])
      assert.equal(await arrivedFrom(openFrom(0xc005)), ROCE_UDP_PORT)
      const flows = Array.from({ length: 64 }, (_, i) => openFrom(0xd000 + i))
      assert.equal(await arrivedFrom(flows[61]!), 0xd000 + 61)
      assert.equal(a.recordOf(flows[63]!).sourcePort, ROCE_UDP_PORT)
      // an address that leaves takes its sockets along, and brings them back
      a.removeAddress(loopback(1))
      closeUdpSocket(openUdpSocket(loopback(1), 0xc001, 1))
      a.addAddress(loopback(1))
      assert.equal(await arrivedFrom(flow), 0xc001)
      a.closeFlow(flow)
      closeUdpSocket(openUdpSocket(loopback(1), 0xc001, 1))
      assert.equal(await arrivedFrom(openFrom(0xe000)), 0xe000, 'a closed flow has freed its socket')
    } finally {
      closeUdpSocket(other)
    }
  })

  it('leaves three quarters of the descriptors to programs', () => {
    const [a] = pair()
    const setLimit = (limit: number) => execFileSync('prlimit', [`--pid=${process.pid}`, `--nofile=${limit}:`])
    const before = descriptorLimit()
    const open = readdirSync('/proc/self/fd')
    try {
      setLimit(4 * 60)
      for (let i = 0; i < 64; i++) a.openFlow(flowBetween(loopback(1), loopback(2), { sourcePort: 0xd000 + i }))
      const opened = readdirSync('/proc/self/fd').filter(fd => !open.includes(fd))
      assert.ok(opened.length > 0 && opened.every(fd => Number(fd) <= 60), opened.join())
    } finally {
      setLimit(before)
    }
  })

  it('never segments with `segmentation: never`', async () => {
    const [a, b, toB, toA] = pair({ segmentation: 'never' })
    sendRun(b, toA, 0, 1)
    await collect(a, 1)
    sendRun(a, toB, 0, 64, 4112)
    await collect(b, 64)
    assert.equal(a.counters.segmentedMessages, 0)
  })

  it('forgets that a peer has sent identification 0 when the last flow to it is closed', async () => {
    const [a, b, toB, toA] = pair()
    sendRun(b, toA, 0, 1)
    await collect(a, 1)
    a.closeFlow(toB)
    const newFlow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    sendRun(a, newFlow, 0, 2)
    assert.equal(a.counters.segmentedMessages, 0)
    await collect(b, 2)
  })

  it('accepts packets with unpredictable identifications, and counts those out of sequence', async () => {
    const [, b] = pair()
    const foreignSocket = openUdpSocket(loopback(3), ROCE_UDP_PORT)
    const batches = createUdpBatches({ staging: 4096, messages: 8, destinations: 1, receives: 1 })
    batches.setDestination(0, loopback(2), ROCE_UDP_PORT, 0, 0)
    const flow = makeFlow({
      source: loopback(3),
      destination: loopback(2),
      sourcePort: ROCE_UDP_PORT,
      destinationPort: ROCE_UDP_PORT,
    })
    // rdma_rxe takes identifications from counters that other traffic uses too. Here only the ICRCs have them, because
    // a receiving socket does not see the IP header.
    const identifications = [0x1234, 0x1235, 0x1236, 0x8000, 0x8001]
    for (const [i, identification] of identifications.entries()) {
      putSendOnly(batches.arena.view, 64 * i, i)
      sealIcrc(batches.arena, 64 * i, 64, flow, identification)
      batches.putMessage(i, 64 * i, 64, 0, 0, 0, 0)
    }
    assert.equal(batches.send(foreignSocket, 0, identifications.length), identifications.length)
    const packets = await collect(b, identifications.length)
    closeUdpSocket(foreignSocket)
    assert.deepEqual(
      packets.map(packet => packet.identification),
      identifications,
    )
    assert.equal(b.counters.unexpectedIdentifications, 2, '0x1234 and 0x8000')
    assert.equal(b.counters.icrcErrors, 0)
  })

  it('continues after datagrams that are not packets', async () => {
    const [a, b, toB] = pair()
    const foreignSocket = openUdpSocket(loopback(3), 0)
    const batches = createUdpBatches({ staging: 70000, messages: 8, destinations: 1, receives: 1 })
    batches.setDestination(0, loopback(2), ROCE_UDP_PORT, 0, 0)
    for (const [i, length] of [0, 1, 15, 16, 65507].entries()) batches.putMessage(i, 0, length, 0, 0, 0, 0)
    assert.equal(batches.send(foreignSocket, 0, 5), 5)
    closeUdpSocket(foreignSocket)
    sendRun(a, toB, 9, 1)
    assert.deepEqual(psns(await collect(b, 1)), [9])
    assert.deepEqual([b.counters.icrcErrors, b.counters.dropped], [5, 0])
  })

  it('drops and counts packets that are too long to be sent', async () => {
    const [a, b, toB, toA] = pair()
    sendRun(b, toA, 0, 1)
    await collect(a, 1)
    // longer than 65,507 bytes, the maximum of a datagram
    sendRun(a, toB, 0, 2, 66000)
    assert.equal(a.counters.dropped, 2)
    assert.equal(a.counters.lastSendError, EMSGSIZE)
    sendRun(a, toB, 5, 1)
    assert.deepEqual(psns(await collect(b, 1)), [5])
  })

  it('refuses addresses in use or of other hosts, and ignores link-local addresses that the interface lacks', () => {
    const [a] = pair()
    const second = createUdpPort({ mtu: 1500, interfaceIndex: 1 })
    open.push(second)
    assert.throws(() => second.addAddress(loopback(1)), /EADDRINUSE/)
    // 203.0.113.9
    assert.throws(() => second.addAddress(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 9)), {
      code: 'EADDRNOTAVAIL',
    })
    second.addAddress(Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9))
    assert.throws(() => a.openFlow(flowBetween(loopback(9), loopback(2))), /has no address 127\..*; it has 127\./)
    a.addAddress(loopback(1)) // its own: no effect
  })

  it('drops packets to be sent from a removed address', async () => {
    const [a, b, toB] = pair()
    a.removeAddress(loopback(1))
    sendRun(a, toB, 0, 5)
    assert.deepEqual([a.counters.dropped, a.counters.lastSendError, a.counters.sentPackets], [5, EADDRNOTAVAIL, 0])
    assert.throws(() => a.openFlow(flowBetween(loopback(1), loopback(2))), /has no address .*; it has none/)
    a.addAddress(loopback(1))
    sendRun(a, toB, 5, 1)
    assert.deepEqual(psns(await collect(b, 1)), [5])
  })

  it('does not close the descriptors of others after it was closed', () => {
    const port = attach(6)
    port.close()
    const laterSockets = [7, 8].map(n => openUdpSocket(loopback(n), 0))
    port.removeAddress(loopback(6))
    for (const { fd } of laterSockets) fstatSync(fd)
    for (const socket of laterSockets) closeUdpSocket(socket)
  })

  it('leaves its memory to the next port when it is closed', () => {
    const arenas = Array.from({ length: 20 }, () => {
      const port = attach(6)
      port.close()
      return port.arena
    })
    assert.ok(new Set(arenas).size < 10, 'the arenas of earlier tests, then the same again')
  })

  it('joins its groups on a new interface, even if that failed on the interface before', async () => {
    const [a, b] = pair()
    const groups = [1, 2].map(groupAddress)
    for (const group of groups) b.joinGroup(group)
    const missingInterface = 0x7fff_ffff
    assert.throws(() => b.setInterface?.(missingInterface), SystemError)
    b.leaveGroup(groups[1]!)
    b.setInterface?.(1)
    for (const [i, group] of groups.entries()) sendRun(a, a.openFlow(flowBetween(loopback(1), group)), i, 1)
    assert.deepEqual(psns(await collect(b, 1)), [0])
  })

  it('releases a spare address to its owner, and takes it again later', async () => {
    const [a, b] = pair()
    const [spareHolder, owner, other] = [0, 1, 2].map(() => createUdpPort({ mtu: 65536, interfaceIndex: 1 }))
    open.push(spareHolder, owner, other)
    spareHolder.addAddress(loopback(5), 'spare')
    assert.throws(() => owner.addAddress(loopback(5), 'spare'), /EADDRINUSE/)
    owner.addAddress(loopback(5))
    for (const claim of ['own', 'spare'] as const)
      assert.throws(() => other.addAddress(loopback(5), claim), /EADDRINUSE/)
    const flow = a.openFlow(flowBetween(loopback(1), loopback(5)))
    sendRun(a, flow, 1, 1)
    assert.deepEqual(psns(await collect(owner, 1)), [1])
    owner.close()
    sendRun(a, flow, 2, 1)
    assert.deepEqual(psns(await collect(spareHolder, 1)), [2])
    assert.deepEqual(receiveAll(b), [])
  })

  it('sends to itself over IPv6, and receives traffic class and hop limit', async t => {
    const address = new Uint8Array(16)
    address[15] = 1
    const port = createUdpPort({ mtu: 65536, interfaceIndex: 1 })
    open.push(port)
    try {
      port.addAddress(address)
    } catch (error) {
      t.skip(`no IPv6 here: ${error}`)
      return
    }
    const flow = port.openFlow(flowBetween(address, address, { trafficClass: 12, hopLimit: 3 }))
    for (const count of [1, 30, 200]) {
      sendRun(port, flow, 0, count, 1040, 52)
      const run = emptyRun()
      assert.equal((await collect(port, count, run)).length, count)
      assert.deepEqual([run.flowAddress.trafficClass, run.flowAddress.hopLimit], [12, 3])
    }
    assert.deepEqual([port.counters.icrcErrors, port.counters.unexpectedIdentifications], [0, 0])
    assert.ok(port.counters.segmentedMessages > 0, 'segments without knowing the peer: IPv6 has no identifications')
  })

  it('receives from more senders than its table can hold', async () => {
    const [, b] = pair()
    const batches = createUdpBatches({ staging: 4096, messages: 256, destinations: 1, receives: 1 })
    batches.setDestination(0, loopback(2), ROCE_UDP_PORT, 0, 0)
    const foreignSocket = openUdpSocket(loopback(3), ROCE_UDP_PORT)
    const flow = makeFlow({
      source: loopback(3),
      destination: loopback(2),
      sourcePort: ROCE_UDP_PORT,
      destinationPort: ROCE_UDP_PORT,
    })
    putSendOnly(batches.arena.view, 0, 1)
    sealIcrc(batches.arena, 0, 64, flow, 0)
    let received = 0
    // each of the 5,000 pairs of hop limit and traffic class counts as a sender
    for (let hopLimit = 1; hopLimit <= 20; hopLimit++) {
      for (let trafficClass = 0; trafficClass < 250; trafficClass++)
        batches.putMessage(trafficClass, 0, 64, 0, 0, hopLimit, trafficClass)
      assert.equal(batches.send(foreignSocket, 0, 250), 250)
      received += (await collect(b, 250)).length
    }
    closeUdpSocket(foreignSocket)
    assert.equal(received, 5000)
  })

  it('has a window of 16 KiB to 1 MiB', () => {
    const [a] = pair()
    assert.ok((a.windowBytes ?? 0) >= 16384)
    assert.ok((a.windowBytes ?? 0) <= 0x10_0000)
  })

  it('derives the path MTU from the MTU of the interface, like Linux', () => {
    assert.deepEqual(
      [65536, 9000, 4192, 4191, 1500, 1119, 576, 68].map(pathMtuOf),
      [4096, 4096, 4096, 2048, 1024, 512, 256, 256],
    )
  })
})
