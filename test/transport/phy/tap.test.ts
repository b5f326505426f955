/*
 * Taps, which see the runs that a port sends and receives.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { addTap, forEachPacket } from '../../../src/transport/phy/tap.ts'
import { makeFlow, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import { attachPorts, flowBetween, ipv4, receiveAll, sendRun, smallSwitch } from './helpers.ts'

describe('tap', () => {
  it('sees every sent or received run, with correct ICRCs and the flow record', () => {
    const [a, b] = attachPorts(smallSwitch(8, 16, 'demand'), 2)
    const address = flowBetween(ipv4(1), ipv4(2), { trafficClass: 9 })
    const flow = a.openFlow(address)
    const icrcFlow = makeFlow({ ...address, destinationPort: ROCE_UDP_PORT })
    const lines: string[] = []
    for (const port of [a, b])
      addTap(port, run =>
        forEachPacket(run, (offset, length, identification) => {
          const isSealed = verifyIcrc(run.arena, offset, length, icrcFlow, identification)
          const fields = { length, identification, trafficClass: run.flow.trafficClass, isSealed }
          lines.push(`${run.direction} ${run.outcome} ${JSON.stringify(fields)}`)
        }),
      )
    sendRun(a, flow, 0, 2, 64, 20)
    receiveAll(b)
    assert.deepEqual(lines, [
      'sent passed {"length":64,"identification":0,"trafficClass":9,"isSealed":true}',
      'sent passed {"length":20,"identification":1,"trafficClass":9,"isSealed":true}',
      'received passed {"length":64,"identification":0,"trafficClass":9,"isSealed":true}',
      'received passed {"length":20,"identification":1,"trafficClass":9,"isSealed":true}',
    ])
  })

  it('several taps share a port, and each may be removed at any time', () => {
    const [a] = attachPorts(smallSwitch(8, 16, 'demand'), 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(99)))
    const callCounts = [0, 0]
    const removeTaps = callCounts.map((_, i) => addTap(a, () => callCounts[i]++))
    sendRun(a, flow, 0, 1)
    removeTaps[0]()
    removeTaps[0]()
    sendRun(a, flow, 0, 1)
    removeTaps[1]()
    sendRun(a, flow, 0, 1)
    assert.deepEqual(callCounts, [1, 2])
    assert.equal(a.tap, null)
  })

  it('a tap added twice is called twice, and may remove itself', () => {
    const [a] = attachPorts(smallSwitch(), 1)
    const flow = a.openFlow(flowBetween(ipv4(1), ipv4(99)))
    let calls = 0
    const tap = (): void => {
      calls++
      removeFirst()
    }
    const removeFirst = addTap(a, tap)
    addTap(a, tap)
    sendRun(a, flow, 0, 1)
    assert.equal(calls, 2)
    sendRun(a, flow, 0, 1)
    assert.equal(calls, 3)
  })
})
