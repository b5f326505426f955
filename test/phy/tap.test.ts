import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addTap, forEachPacket } from '../../src/phy/tap.ts'
import { makeFlow, verifyIcrc } from '../../src/wire/icrc.ts'
import { flowBetween, ipv4, ports, receiveAll, sendRun, smallSwitch } from './helpers.ts'

describe('tap', () => {
  it('sees every run sent and received, sealed, with its flow', () => {
    const [a, b] = ports(smallSwitch(8, 16, 'demand'), 2)
    const address = flowBetween(ipv4(1), ipv4(2), { trafficClass: 9 })
    const flow = a.openFlow(address)
    const icrcFlow = makeFlow({ ...address, destinationPort: 4791 })
    const lines: string[] = []
    for (const port of [a, b])
      addTap(port, run =>
        forEachPacket(run, (offset, length, identification) => {
          const right = verifyIcrc(run.arena, offset, length, icrcFlow, identification)
          lines.push(`${run.direction} ${run.outcome} ${length} ${identification} ${run.flow.trafficClass} ${right}`)
        }),
      )
    sendRun(a, flow, 0, 2, 64, 20)
    receiveAll(b)
    assert.deepEqual(lines, [
      'sent passed 64 0 9 true',
      'sent passed 20 1 9 true',
      'received passed 64 0 9 true',
      'received passed 20 1 9 true',
    ])
  })

  it('several taps share a port, and each may be removed at any time', () => {
    const [a] = ports(smallSwitch(8, 16, 'demand'), 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(99)))
    const seen = [0, 0]
    const removes = seen.map((_, i) => addTap(a, () => seen[i]++))
    sendRun(a, flow, 0, 1)
    removes[0]()
    removes[0]()
    sendRun(a, flow, 0, 1)
    removes[1]()
    sendRun(a, flow, 0, 1)
    assert.deepEqual(seen, [1, 2])
    assert.equal(a.tap, null)
  })

  it('the same tap added twice is called twice, and may remove itself', () => {
    const [a] = ports(smallSwitch(), 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(99)))
    let calls = 0
    const tap = (): void => {
      calls++
      first()
    }
    const first = addTap(a, tap)
    addTap(a, tap)
    sendRun(a, flow, 0, 1)
    assert.equal(calls, 2)
    sendRun(a, flow, 0, 1)
    assert.equal(calls, 3)
  })
})
