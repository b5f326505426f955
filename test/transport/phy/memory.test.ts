import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { emptyRun, type PortFabric, type TappedRun } from '../../../src/transport/phy/port.ts'
import { addTap } from '../../../src/transport/phy/tap.ts'
import { lidAddress } from '../../../src/transport/wire/address.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { makeFlow, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import { portContract } from './contract.ts'
import { attachPorts, flowBetween, ipv4, ipv6, psns, putSendOnly, receiveAll, sendRun, smallSwitch } from './helpers.ts'

portContract('a port on a memory link', () => {
  const link = smallSwitch(16, 64)
  return {
    address: ipv4,
    attach: n => {
      const port = link.attach()
      port.addAddress(ipv4(n))
      return port
    },
  }
})

describe('InfiniBand ports', () => {
  /** A port of LID `lid` whose packets go where `tables` say. */
  class Fabric implements PortFabric {
    readonly lost: (dlid: number, packets: number) => void = (dlid, packets) => this.losses.push([dlid, packets])
    readonly losses: [number, number][] = []
    lid: number
    tables: Record<number, readonly Fabric[]> = {}
    constructor(lid: number) {
      this.lid = lid
    }
    reached(dlid: number): readonly Fabric[] {
      return this.tables[dlid] ?? []
    }
  }
  const connected = () => {
    const link = smallSwitch()
    const fabrics = [1, 2, 3].map(lid => new Fabric(lid))
    const ports = fabrics.map(fabric => {
      const port = link.attach()
      port.setFabric!(fabric)
      return port
    })
    const flow = (dlid: number) =>
      ports[0]!.openFlow(flowBetween(lidAddress(1), lidAddress(dlid), { sourcePort: 0, hopLimit: 0 }))
    return { fabrics, ports, flow }
  }

  it('send where the tables say, and lose what these lose', () => {
    const { fabrics, ports, flow } = connected()
    const [a, b, c] = ports
    const [first, second, third] = fabrics as [Fabric, Fabric, Fabric]
    const to = flow(2)
    const send = (psn: number): void => void sendRun(a!, to, psn, 2)
    send(1)
    assert.deepEqual([first.losses, a!.counters.dropped], [[[2, 2]], 2])
    first.tables[2] = [second]
    // The link asks again only when it is told.
    send(3)
    assert.deepEqual(psns(receiveAll(b!)), [])
    a!.setFabric!(first)
    send(5)
    assert.deepEqual([psns(receiveAll(b!)), psns(receiveAll(c!))], [[5, 6], []])
    first.tables[2] = [third]
    a!.setFabric!(first)
    send(7)
    assert.deepEqual([psns(receiveAll(b!)), psns(receiveAll(c!))], [[], []], 'a port with another LID')
    third.lid = 2
    c!.setFabric!(third)
    send(7)
    assert.deepEqual([psns(receiveAll(b!)), psns(receiveAll(c!))], [[], [7, 8]])
    // A port that is not ACTIVE, or has another LID, sends nothing.
    first.lid = 0
    a!.setFabric!(first)
    send(9)
    assert.deepEqual([psns(receiveAll(c!)), first.losses.length], [[], 3])
    c!.close()
    first.lid = 1
    a!.setFabric!(first)
    send(11)
    assert.deepEqual(first.losses.at(-1), [2, 2])
  })

  it('get the packets of a group if they are members and the tables lead there', () => {
    const { fabrics, ports, flow } = connected()
    const [a, b, c] = ports
    const [first, second, third] = fabrics as [Fabric, Fabric, Fabric]
    const group = 0xc001
    for (const port of [a!, b!]) port.joinGroup(lidAddress(group))
    first.tables[group] = [second, third]
    a!.setFabric!(first)
    sendRun(a!, flow(group), 1, 1)
    assert.deepEqual(
      [a!, b!, c!].map(port => psns(receiveAll(port))),
      [[1], [1], []],
    )
    first.tables[group] = [third]
    a!.setFabric!(first)
    sendRun(a!, flow(group), 2, 1)
    assert.deepEqual(
      [a!, b!, c!].map(port => psns(receiveAll(port))),
      [[2], [], []],
    )
  })
})

describe('memory link', () => {
  it('counts the runs that wait to be received', () => {
    const link = smallSwitch()
    const [a, b] = attachPorts(link, 2)
    sendRun(a, a.openFlow(flowBetween(ipv4(1), ipv4(2))), 7, 3)
    assert.equal(link.waitingRuns, 1)
    receiveAll(b)
    assert.equal(link.waitingRuns, 0)
  })

  it('a port may have several addresses, IPv4 and IPv6, but no address of another port', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    a.addAddress(ipv6(1))
    b.addAddress(ipv6(2))
    // has no effect: the port has the address
    b.addAddress(ipv6(2))
    sendRun(a, a.openFlow(flowBetween(ipv6(1), ipv6(2), { flowLabel: 0xabcde, trafficClass: 3 })), 1, 4, 1040, 100)
    sendRun(a, a.openFlow(flowBetween(ipv4(1), ipv4(2))), 9, 1)
    assert.deepEqual(psns(receiveAll(b)), [1, 2, 3, 4, 9])
    assert.throws(() => a.addAddress(ipv6(2)), /fd00:0:0:0:0:0:0:2/)
    assert.throws(() => a.addAddress(ipv4(2)), /10\.0\.0\.2/)
  })

  it('a received run has the number of its source at this port, also if its destination has moved or is a group', () => {
    const [a, b, c] = attachPorts(smallSwitch(), 3)
    // At port c, the source has another number than at port b.
    c.openFlow(flowBetween(ipv4(3), ipv4(8)))
    c.openFlow(flowBetween(ipv4(3), ipv4(1)))
    b.openFlow(flowBetween(ipv4(2), ipv4(9)))
    b.openFlow(flowBetween(ipv4(2), ipv4(1)))
    assert.notEqual(b.peerOf(ipv4(1)), c.peerOf(ipv4(1)))
    const group = Uint8Array.of(0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 224, 0, 0, 1)
    b.joinGroup(group)
    b.openFlow(flowBetween(ipv6(2), ipv6(1)))
    sendRun(a, a.openFlow(flowBetween(ipv4(1), ipv4(2))), 1, 1)
    sendRun(a, a.openFlow(flowBetween(ipv6(1), group)), 2, 1)
    b.removeAddress(ipv4(2))
    c.addAddress(ipv4(2))
    const run = emptyRun()
    assert.ok(b.receive(run))
    assert.equal(run.peer, b.peerOf(ipv4(1)))
    assert.ok(b.receive(run))
    assert.equal(run.peer, b.peerOf(ipv6(1)))
    b.release()
  })

  it('packets to a link-local address of two ports go to the first port', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    const linkLocal = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    for (const port of [a, b]) port.addAddress(linkLocal)
    sendRun(b, b.openFlow(flowBetween(ipv6(2), linkLocal)), 5, 1)
    assert.deepEqual([psns(receiveAll(a)), psns(receiveAll(b))], [[5], []])
  })

  it('drops and counts packets without a receiver, and frees their buffer', () => {
    const link = smallSwitch()
    const [a] = attachPorts(link, 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(99)))
    for (let i = 0; i < 100; i++) assert.ok(sendRun(a, flow, i, 3, 4112))
    assert.deepEqual([a.counters.dropped, a.counters.sentPackets, a.counters.sentBytes], [300, 0, 0])
    assert.equal(link.stat().runs, 0)
  })

  it('seals the packets of a run with identifications 0, 1, 2 …, and reports them', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    const address = flowBetween(ipv4(1), ipv4(2), { sourcePort: 50000, trafficClass: 0x68 })
    sendRun(a, a.openFlow(address), 100, 5, 276, 52)
    const packets = receiveAll(b)
    assert.deepEqual(
      packets.map(packet => packet.identification),
      [0, 1, 2, 3, 4],
    )
    const flow = makeFlow({ ...address, destinationPort: ROCE_UDP_PORT })
    for (const packet of packets) {
      const arena = plainArena(packet.length)
      arena.bytes.set(packet.bytes)
      assert.ok(verifyIcrc(arena, 0, packet.length, flow, packet.identification))
      assert.ok(!verifyIcrc(arena, 0, packet.length, flow, packet.identification + 1))
    }
  })

  it('drops and counts packets with a wrong ICRC, and delivers the other packets of the run', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 12 }), wrong => {
        const link = smallSwitch()
        const [a, b] = attachPorts(link, 2)
        const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
        // the tap is called after the ICRCs were written
        a.tap = run =>
          wrong.forEach((isWrong, i) => {
            if (isWrong) run.arena.bytes[run.offset + i * run.packetBytes + 20] ^= 4
          })
        const outcomes: TappedRun['outcome'][] = []
        b.tap = run => outcomes.push(...Array.from({ length: run.count }, () => run.outcome))
        sendRun(a, flow, 0, wrong.length)
        const expected = wrong.flatMap((isWrong, i) => (isWrong ? [] : [i]))
        const packets = receiveAll(b)
        assert.deepEqual(psns(packets), expected)
        assert.deepEqual(
          packets.map(packet => packet.identification),
          expected,
        )
        assert.equal(b.counters.icrcErrors, wrong.length - expected.length)
        assert.equal(b.counters.receivedPackets, expected.length)
        assert.deepEqual(
          outcomes,
          wrong.map(isWrong => (isWrong ? 'wrong icrc' : 'passed')),
        )
        assert.equal(link.stat().smallRuns, 0)
      }),
    )
  })

  it('with ICRCs on demand computes them for a tap also after a tap of a closed port was removed', () => {
    const [a, b, closed] = attachPorts(smallSwitch(8, 16, 'demand'), 3)
    const removeTap = addTap(closed, () => {})
    closed.close()
    removeTap()
    addTap(a, () => {})
    const flow = flowBetween(ipv4(1), ipv4(2))
    sendRun(a, a.openFlow(flow), 0, 1)
    const [{ bytes }] = receiveAll(b)
    const arena = plainArena(64)
    arena.bytes.set(bytes)
    assert.ok(verifyIcrc(arena, 0, 64, makeFlow({ ...flow, destinationPort: ROCE_UDP_PORT }), 0))
  })

  it('with ICRCs on demand computes them only while a reader needs them, also of waiting runs', () => {
    const [a, b] = attachPorts(smallSwitch(8, 16, 'demand'), 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    /** Transfers a packet; returns the last byte of its ICRC. */
    const lastByte = (): number => {
      sendRun(a, flow, 0, 1)
      return receiveAll(b)[0].bytes[63]
    }
    assert.equal(lastByte(), 0, 'as `sendRun` wrote it')
    sendRun(a, flow, 0, 1)
    // from now on a reader needs ICRCs
    b.requireSeal(1)
    const bytes = receiveAll(b)[0].bytes
    const sealed = plainArena(64)
    sealed.bytes.set(bytes)
    assert.ok(
      verifyIcrc(sealed, 0, 64, makeFlow({ ...flowBetween(ipv4(1), ipv4(2)), destinationPort: ROCE_UDP_PORT }), 0),
    )
    assert.equal(lastByte(), bytes[63])
    b.requireSeal(-1)
    assert.equal(lastByte(), 0)
  })

  it('keeps a closed flow until its runs have arrived', () => {
    const link = smallSwitch()
    const [a, b] = attachPorts(link, 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    sendRun(a, flow, 3, 1)
    a.closeFlow(flow)
    assert.throws(() => sendRun(a, flow, 3, 1), /not open/)
    assert.notEqual(a.openFlow(flowBetween(ipv4(1), ipv4(3))), flow)
    assert.deepEqual(psns(receiveAll(b)), [3])
    assert.equal(link.stat().flows, 1)
  })

  it('an unused reservation is freed by the next reservation, and by close', () => {
    const link = smallSwitch()
    const [a] = attachPorts(link, 1)
    for (let i = 0; i < 50; i++) a.reserve(i % 2 === 0 ? 64 : 60000)
    assert.equal(link.stat().runs + link.stat().smallRuns, 1)
    a.close()
    assert.equal(link.stat().runs + link.stat().smallRuns, 0)
  })

  it('refuses to reserve when all buffers are in use, and reserves again after a release', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    let sent = 0
    while (sendRun(a, flow, sent, 1, 4096)) sent++
    assert.equal(sent, 6, 'eight buffers, two of them guaranteed to b')
    assert.ok(a.reserve(64) >= 0, 'small runs have buffers of their own')
    const run = emptyRun()
    assert.ok(b.receive(run))
    assert.equal(sendRun(a, flow, sent, 1, 4096), false, 'a received run keeps its buffer')
    b.release()
    assert.equal(sendRun(a, flow, sent, 1, 4096), true)
    assert.deepEqual(psns(receiveAll(b)), [1, 2, 3, 4, 5, 6])
  })

  it('the guaranteed buffers of a closed port are free for others', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    b.close()
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(1)))
    let sent = 0
    while (sendRun(a, flow, sent, 1, 4096)) sent++
    assert.equal(sent, 8, 'all buffers')
  })

  it('a sender to a port that does not receive cannot starve other senders', () => {
    const link = smallSwitch(16, 64)
    const allPorts = attachPorts(link, 4)
    const [a, b, c, d] = allPorts
    const flowToB = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    while (sendRun(a, flowToB, 0, 1, 4096));
    while (sendRun(a, flowToB, 0, 1, 64));
    for (const [port, n] of [
      [b, 2],
      [c, 3],
      [d, 4],
    ] as const) {
      const flow = port.openFlow(flowBetween(ipv4(n), ipv4(4)))
      for (let i = 0; i < 2; i++) {
        assert.ok(sendRun(port, flow, n, 1, 4096), `port ${n} has run buffers`)
        assert.ok(sendRun(port, flow, n, 1, 64), `port ${n} has small run buffers`)
      }
    }
    // Three ports have sent two runs and two small runs each.
    assert.equal(psns(receiveAll(d)).length, 3 * 4)
  })

  it('one release frees all received runs', () => {
    const link = smallSwitch()
    const [a, b] = attachPorts(link, 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    for (let i = 0; i < 3; i++) sendRun(a, flow, i, 1)
    const run = emptyRun()
    const offsets = [0, 1].map(() => {
      assert.ok(b.receive(run))
      return run.offset
    })
    assert.notEqual(offsets[0], offsets[1])
    assert.equal(link.stat().smallRuns, 3)
    b.release()
    assert.equal(link.stat().smallRuns, 1)
    assert.deepEqual(psns(receiveAll(b)), [2])
    assert.equal(link.stat().smallRuns, 0)
  })

  it('sends several runs from one reservation, which is freed when all are released and the sender has flushed', () => {
    const link = smallSwitch()
    const [a, b] = attachPorts(link, 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    const at = a.reserve(6000)
    const sizes = [2000, 1040, 1040]
    let end = at
    for (const [psn, size] of sizes.entries()) {
      putSendOnly(a.arena.view, end, psn)
      a.commit(end, size, 1, size, flow)
      end += size
    }
    assert.throws(
      () => a.commit(end - 4, 64, 1, 64, flow),
      /is not inside the unused part of the reservation/,
      'bytes that were sent already',
    )
    assert.equal(link.waitingRuns, 3)
    const run = emptyRun()
    const offsets = sizes.map(() => {
      assert.ok(b.receive(run))
      return run.offset
    })
    assert.deepEqual(offsets, [at, at + 2000, at + 3040])
    b.release()
    assert.equal(link.stat().runs, 1, 'the sender may use the rest of the reservation')
    a.flush()
    assert.equal(link.stat().runs, 0)
    assert.throws(() => a.commit(end, 64, 1, 64, flow), /without reserve/)
  })

  it('keeps a reservation when the next one is refused', () => {
    const link = smallSwitch(2, 1)
    const [a] = attachPorts(link, 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(1)))
    const first = a.reserve(5000)
    a.commit(first, 1000, 1, 1000, flow)
    const second = a.reserve(5000)
    a.commit(second, 1000, 1, 1000, flow)
    assert.equal(a.reserve(5000), -1)
    a.commit(second + 1000, 1000, 1, 1000, flow)
    a.flush()
    assert.equal(receiveAll(a).length, 3)
    assert.equal(link.stat().runs, 0)
  })

  it('delivers any number of runs in one reservation', () => {
    const link = smallSwitch(2, 4)
    const [a, b] = attachPorts(link, 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    const at = a.reserve(3000 * 20)
    for (let i = 0; i < 3000; i++) {
      putSendOnly(a.arena.view, at + i * 20, i)
      a.commit(at + i * 20, 20, 1, 20, flow)
    }
    a.flush()
    assert.deepEqual(
      psns(receiveAll(b)),
      Array.from({ length: 3000 }, (_, i) => i),
    )
    assert.equal(link.stat().runs, 0)
  })

  it('calls `wake` only when a run arrives at an empty port', () => {
    const [a, b] = attachPorts(smallSwitch(), 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    let wakeUps = 0
    b.wake = () => wakeUps++
    sendRun(a, flow, 0, 1)
    sendRun(a, flow, 1, 1)
    assert.equal(wakeUps, 1)
    receiveAll(b)
    sendRun(a, flow, 2, 1)
    assert.equal(wakeUps, 2)
  })

  it('closing a port drops queued runs and leaks no buffer', () => {
    const link = smallSwitch()
    const [a, b] = attachPorts(link, 2)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(2)))
    b.openFlow(flowBetween(ipv4(2), ipv4(1)))
    sendRun(a, flow, 0, 2)
    sendRun(a, flow, 2, 2, 4096)
    b.close()
    b.close()
    sendRun(a, flow, 3, 1)
    assert.equal(a.counters.dropped, 1)
    assert.equal(link.waitingRuns, 0)
    assert.equal(b.reserve(64), -1)
    a.close()
    assert.deepEqual(link.stat(), { ports: 0, runs: 0, smallRuns: 0, flows: 0 })
    const [newPort] = attachPorts(link, 1)
    sendRun(newPort, newPort.openFlow(flowBetween(ipv4(1), ipv4(1))), 8, 1)
    assert.deepEqual(psns(receiveAll(newPort)), [8])
  })

  it('refuses an arena that is too small, and more ports than run buffers', () => {
    const needed = new RegExp(`needs an arena of ${memorySwitchBytes()} bytes, not 1000`)
    assert.throws(() => createMemorySwitch({ arena: plainArena(1000) }), needed)
    // 64 run buffers with the scratch memory of a port, 256 small buffers, and 64 KiB of staging.
    assert.equal(memorySwitchBytes(), 18157568)
    const link = smallSwitch(2, 4)
    attachPorts(link, 2)
    assert.throws(() => link.attach(), /has 2 ports, which is its maximum/)
  })

  it('drops, duplicates and reorders nothing of random traffic', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            sender: fc.integer({ min: 0, max: 2 }),
            destination: fc.integer({ min: 0, max: 2 }),
            count: fc.integer({ min: 1, max: 16 }),
            bytes: fc.constantFrom(20, 64, 272, 1040, 4112),
            receives: fc.boolean(),
          }),
          { maxLength: 40, size: 'max' },
        ),
        steps => {
          const link = smallSwitch(6, 12)
          const allPorts = attachPorts(link, 3)
          const expected: number[][] = [[], [], []]
          const received: number[][] = [[], [], []]
          let psn = 0
          for (const { sender, destination, count, bytes, receives } of steps) {
            const flow = allPorts[sender].openFlow(flowBetween(ipv4(sender + 1), ipv4(destination + 1)))
            if (sendRun(allPorts[sender], flow, psn, count, bytes))
              for (let i = 0; i < count; i++) expected[destination].push(psn + i)
            psn += count
            allPorts[sender].closeFlow(flow)
            if (receives) received[destination].push(...psns(receiveAll(allPorts[destination])))
          }
          for (const [i, port] of allPorts.entries()) received[i].push(...psns(receiveAll(port)))
          assert.deepEqual(received, expected)
          assert.deepEqual(link.stat(), { ports: 3, runs: 0, smallRuns: 0, flows: 0 })
        },
      ),
    )
  })
})
