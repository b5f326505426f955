/*
 * Tests of every kind of port.
 */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { emptyRun, type Port, type TappedRun } from '../../../src/transport/phy/port.ts'
import { forEachPacket } from '../../../src/transport/phy/tap.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { bthPsn } from '../../../src/transport/wire/bth.ts'
import { makeFlow, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import { until } from '../../limits.ts'
import { groupAddress } from '../../loopback.ts'
import { collect, flowBetween, ipv6, psns, putSendOnly, receiveAll, sendRun } from './helpers.ts'

interface LinkUnderTest {
  /** Creates a port that has the nth address. */
  attach(n: number): Port
  /** The nth address, from 1. */
  address(n: number): Uint8Array
  /** Whether the port cannot report hop limit and traffic class of received packets. */
  readonly hidesIpHeader?: boolean
}

export const portContract = (name: string, makeLink: () => LinkUnderTest): void => {
  void describe(name, () => {
    let link: LinkUnderTest
    let attached: Port[] = []
    const openPorts = (count: number): Port[] => {
      attached = Array.from({ length: count }, (_, i) => link.attach(i + 1))
      return attached
    }
    /** A flow record between two addresses, by number. */
    const flowTo = (source: number, destination: number, fields = {}) =>
      flowBetween(link.address(source), link.address(destination), fields)
    beforeEach(() => {
      link = makeLink()
    })
    afterEach(() => {
      for (const port of attached) port.close()
    })

    it('delivers a run to the port that has the destination address, and to no other', async () => {
      const [a, b, c] = openPorts(3)
      // PSNs from 7 on, 3 packets: 64, 64 and 32 bytes.
      assert.ok(sendRun(a, a.openFlow(flowTo(1, 2)), 7, 3, 64, 32))
      const packets = await collect(b, 3)
      assert.deepEqual(psns(packets), [7, 8, 9])
      assert.deepEqual(
        packets.map(packet => packet.length),
        [64, 64, 32],
      )
      assert.deepEqual(receiveAll(a), [])
      assert.deepEqual(receiveAll(c), [])
      assert.deepEqual([a.counters.sentPackets, a.counters.sentBytes], [3, 160])
      assert.deepEqual([b.counters.receivedPackets, b.counters.receivedBytes], [3, 160])
    })

    it('delivers a run for a group to all members, also to the sender, and to no other port', async () => {
      const [a, b, c] = openPorts(3)
      const group = groupAddress(9)
      const flow = a.openFlow(flowBetween(link.address(1), group))
      for (const port of [a, b]) port.joinGroup(group)
      b.joinGroup(group) // no effect
      c.joinGroup(groupAddress(10))
      sendRun(a, flow, 7, 3, 64, 32)
      const run = emptyRun()
      assert.deepEqual(psns(await collect(b, 3, run)), [7, 8, 9])
      assert.deepEqual(run.flowAddress.destination, group)
      assert.deepEqual(run.flowAddress.source, link.address(1))
      assert.equal(run.peer, -1)
      assert.deepEqual(psns(await collect(a, 3)), [7, 8, 9])
      b.leaveGroup(group)
      b.leaveGroup(group) // no effect
      sendRun(a, flow, 10, 1)
      assert.deepEqual(psns(await collect(a, 1)), [10])
      assert.deepEqual(receiveAll(b), [])
      assert.deepEqual(receiveAll(c), [])
      b.joinGroup(groupAddress(11))
      sendRun(a, a.openFlow(flowBetween(link.address(1), groupAddress(11))), 20, 1)
      assert.deepEqual(psns(await collect(b, 1, run)), [20])
      assert.deepEqual(run.flowAddress.destination, groupAddress(11))
    })

    it('delivers a run from a port to itself', async () => {
      const [a] = openPorts(1)
      sendRun(a, a.openFlow(flowTo(1, 1)), 5, 2)
      assert.deepEqual(psns(await collect(a, 2)), [5, 6])
    })

    it('seals every packet, and reports the identification of the ICRC', async () => {
      const [a, b] = openPorts(2)
      b.requireSeal(1)
      const address = flowTo(1, 2, { trafficClass: 0x68, hopLimit: 7 })
      const flow = a.openFlow(address)
      const icrcFlow = makeFlow({ ...address, destinationPort: ROCE_UDP_PORT })
      for (const count of [1, 5, 70, 200]) {
        sendRun(a, flow, 100, count, 276, 52)
        for (const packet of await collect(b, count)) {
          const arena = plainArena(packet.length)
          arena.bytes.set(packet.bytes)
          assert.ok(verifyIcrc(arena, 0, packet.length, icrcFlow, packet.identification))
        }
      }
    })

    it("shows the receiver the sender's address record and peer number", async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2, { trafficClass: 8, hopLimit: 9 }))
      const run = emptyRun()
      sendRun(a, flow, 0, 1)
      assert.deepEqual(
        (await collect(b, 1)).map(packet => packet.peer),
        [-1],
        'no flow from b yet',
      )
      const flowBack = b.openFlow(flowTo(2, 1))
      sendRun(a, flow, 1, 1)
      await collect(b, 1, run)
      assert.equal(run.peer, b.peerOf(link.address(1)))
      assert.ok(run.peer >= 0)
      const { source, destination, sourcePort, trafficClass, hopLimit } = run.flowAddress
      assert.deepEqual(
        [...source, ...destination, sourcePort, trafficClass, hopLimit],
        [...link.address(1), ...link.address(2), ROCE_UDP_PORT, ...(link.hidesIpHeader ? [0, 0] : [8, 9])],
      )
      b.closeFlow(flowBack)
      assert.equal(b.peerOf(link.address(1)), -1)
    })

    it('drops and counts packets with a wrong ICRC, and delivers the other packets of the run', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      let wrongPsns: readonly number[] = []
      // The tap is called after the ICRCs were written. It changes a byte of the payload.
      a.tap = run => {
        for (let i = 0; i < run.count; i++) {
          const at = run.offset + i * run.packetBytes
          if (wrongPsns.includes(bthPsn(run.arena.view, at))) run.arena.bytes[at + 20] ^= 4
        }
      }
      let tapped: [psn: number, outcome: TappedRun['outcome'], isCorrect: boolean][] = []
      b.requireSeal(1)
      b.tap = run =>
        forEachPacket(run, (offset, length, identification) => {
          const icrcFlow = makeFlow({ ...run.flow, destinationPort: ROCE_UDP_PORT })
          const isCorrect = verifyIcrc(run.arena, offset, length, icrcFlow, identification)
          tapped.push([bthPsn(run.arena.view, offset), run.outcome, isCorrect])
        })
      let errors = 0
      for (wrongPsns of [[0], [11], [3, 4, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]) {
        sendRun(a, flow, 0, 12)
        const correctPsns = Array.from({ length: 12 }, (_, i) => i).filter(i => !wrongPsns.includes(i))
        assert.deepEqual(psns(await collect(b, correctPsns.length)), correctPsns)
        errors += wrongPsns.length
        assert.equal(b.counters.icrcErrors, errors)
        // A tap gets every packet with its own flow and identification.
        assert.deepEqual(
          tapped.sort(([a], [b]) => a - b),
          Array.from({ length: 12 }, (_, i) =>
            wrongPsns.includes(i) ? [i, 'wrong icrc', false] : [i, 'passed', true],
          ),
        )
        tapped = []
      }
    })

    it('sends packets that were changed after sealing; the receiver drops them', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      a.requireSeal(1)
      for (const count of [1, 3]) {
        const at = a.reserve(64 * count)
        for (let i = 0; i < count; i++) putSendOnly(a.arena.view, at + 64 * i, 20 + i)
        a.commit(at, 64, count, 64, flow)
        a.arena.bytes[at + 30] ^= 1 // the payload of PSN 20
        a.flush()
        sendRun(a, flow, 7, 1)
        const unchangedPsns = Array.from({ length: count - 1 }, (_, i) => 21 + i)
        assert.deepEqual(psns(await collect(b, count)), [...unchangedPsns, 7])
      }
      assert.equal(b.counters.icrcErrors, 2)
    })

    it('opens equal flow records as one flow, which needs as many closes', () => {
      const [a] = openPorts(1)
      const flow = a.openFlow(flowTo(1, 2))
      assert.equal(a.openFlow(flowTo(1, 2)), flow)
      assert.notEqual(a.openFlow(flowTo(1, 2, { hopLimit: 1 })), flow)
      a.closeFlow(flow)
      assert.ok(sendRun(a, flow, 3, 1))
      a.closeFlow(flow)
      assert.throws(() => a.closeFlow(flow), /not open/)
      assert.throws(() => sendRun(a, flow, 3, 1), /not open/)
    })

    it('keeps a reopened flow until its last close', () => {
      const [a] = openPorts(1)
      const flow = a.openFlow(flowTo(1, 2))
      a.reopenFlow(flow)
      a.closeFlow(flow)
      assert.notEqual(a.openFlow(flowTo(1, 3)), flow)
      assert.ok(a.peerOf(link.address(2)) >= 0)
      assert.ok(sendRun(a, flow, 3, 1))
      a.closeFlow(flow)
      assert.throws(() => sendRun(a, flow, 3, 1), /not open/)
      assert.throws(() => a.reopenFlow(flow), /not open/)
    })

    it('refuses flow records that do not fit a header', () => {
      const [a] = openPorts(1)
      assert.throws(() => a.openFlow(flowTo(1, 2, { sourcePort: 65536 })), /sourcePort.*65536/)
      assert.throws(() => a.openFlow(flowTo(1, 2, { flowLabel: -1 })), /flowLabel.*-1/)
      assert.throws(() => a.openFlow(flowBetween(link.address(1), ipv6(2))), /IPv4.*IPv6/)
      assert.throws(() => a.openFlow(flowBetween(link.address(1), new Uint8Array(4))), /16 bytes/)
    })

    it('refuses to commit a run outside the reservation', () => {
      const [a] = openPorts(1)
      const flow = a.openFlow(flowTo(1, 1))
      // Offset, bytes of a packet, number of packets, bytes of the last.
      assert.throws(() => a.commit(0, 64, 1, 64, flow), /without reserve/)
      const at = a.reserve(64)
      assert.equal(at % 64, 0)
      assert.throws(() => a.commit(at, 1024, 3, 1024, flow), /is not inside the unused part of the reservation/)
      assert.throws(() => a.commit(at - 64, 64, 1, 64, flow), /is not inside the unused part of the reservation/)
      assert.throws(() => a.commit(at, 64, 1, 65, flow), /but not more than the others/)
      assert.throws(() => a.commit(at, 15, 1, 15, flow), /the last must have 16 bytes or more/)
      assert.throws(() => a.reserve(a.maxBytes + 1), new RegExp(`at most ${a.maxBytes}`))
      a.commit(at, 64, 1, 64, flow)
    })

    it('may deliver several runs before the first is released', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      for (let i = 0; i < 3; i++) sendRun(a, flow, 10 * i, 1)
      const offsets: number[] = []
      const run = emptyRun()
      const haveArrived = (): boolean => {
        while (offsets.length < 3 && b.receive(run)) offsets.push(run.offset)
        return offsets.length === 3
      }
      await until(haveArrived, () => `only ${offsets.length} runs arrived`)
      // A poll that finds no run releases nothing. A UDP port receives the fourth run only after `release`.
      assert.equal(b.receive(run), false)
      sendRun(a, flow, 30, 1)
      const hasFourth = b.receive(run)
      if (hasFourth) offsets.push(run.offset)
      assert.equal(new Set(offsets).size, offsets.length)
      assert.deepEqual(
        offsets.map(at => bthPsn(b.arena.view, at)),
        [0, 10, 20, 30].slice(0, offsets.length),
      )
      b.release()
      sendRun(a, flow, 40, 1)
      const rest = hasFourth ? [40] : [30, 40]
      assert.deepEqual(psns(await collect(b, rest.length)), rest)
    })

    it('removes an address, and accepts it again', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      const flowBack = b.openFlow(flowTo(2, 1))
      b.removeAddress(link.address(2))
      // No effect: the port has neither address.
      for (const n of [2, 9]) b.removeAddress(link.address(n))
      sendRun(a, flow, 1, 1)
      b.addAddress(link.address(2))
      sendRun(a, flow, 2, 1)
      assert.deepEqual(psns(await collect(b, 1)), [2])
      sendRun(b, flowBack, 3, 1)
      assert.deepEqual(psns(await collect(a, 1)), [3], 'flows from the address work again')
    })

    it('calls `wake` when packets arrive', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      for (let i = 0; i < 2; i++) {
        const wake = new Promise<void>(resolve => {
          b.wake = resolve
        })
        sendRun(a, flow, i, 1)
        await wake
        assert.deepEqual(psns(await collect(b, 1)), [i])
      }
    })

    it('transfers every packet of runs of 1 to 1024 packets of different lengths', async () => {
      const [a, b] = openPorts(2)
      const flow = a.openFlow(flowTo(1, 2))
      let psn = 0
      for (const [count, bytes, last] of [
        [1, 16, 16],
        [64, 4112, 4112],
        [65, 4112, 20],
        [990, 272, 100],
        [62, 1040, 1040],
        [63, 1040, 1036],
        [1024, 16, 16],
      ]) {
        assert.ok(sendRun(a, flow, psn, count, bytes, last))
        const packets = await collect(b, count)
        assert.deepEqual(
          psns(packets),
          Array.from({ length: count }, (_, i) => psn + i),
        )
        assert.ok(packets.every((packet, i) => packet.length === (i === count - 1 ? last : bytes)))
        psn += count
      }
      assert.equal(b.counters.icrcErrors, 0)
      assert.equal(a.counters.dropped, 0)
    })

    it('reserves and frees layer buffers', () => {
      const [a] = openPorts(1)
      const buffers: number[] = []
      for (let at = a.takeLayerBuffer(a.maxBytes); at >= 0; at = a.takeLayerBuffer(a.maxBytes)) buffers.push(at)
      assert.ok(buffers.length >= 2)
      assert.equal(new Set(buffers).size, buffers.length)
      for (const at of buffers) a.releaseLayerBuffer(at)
      const again = a.takeLayerBuffer(1)
      assert.ok(again >= 0)
      a.releaseLayerBuffer(again)
    })

    it('reserves and receives nothing after close', () => {
      const [a] = openPorts(1)
      a.close()
      a.close()
      assert.equal(a.reserve(64), -1)
      assert.equal(a.receive(emptyRun()), false)
      a.removeAddress(link.address(1))
    })
  })
}
