/*
 * A fault layer around a port of the memory link or of UDP obeys the port contract, and its faults appear on the wire.
 */
import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { parseFaults } from '../../../src/faults/rules.ts'
import { hasNative } from '../../../src/host/native.ts'
import { type FaultPort, withFaults } from '../../../src/transport/phy/faults/layer.ts'
import { createUdpPort } from '../../../src/transport/phy/udp/port.ts'
import { loopback } from '../../loopback.ts'
import { portContract } from './contract.ts'
import { collect, flowBetween, ipv4, psns, receiveAll, sendRun, smallSwitch } from './helpers.ts'

/**
 * No packet has the opcode of the first rule, and the probabilities of the second rule are too low for a hit. `corrupt`
 * makes the layer need ICRCs.
 */
const rulesWithoutHits = 'dir=both,opcode=0xff,drop=1;dir=both,drop=0.00001%,corrupt=0.00001%'

const udpPort = (n: number, rules: string): FaultPort => {
  const port = createUdpPort({ mtu: 65536, interfaceIndex: 1 })
  port.addAddress(loopback(n))
  return withFaults(port, `rxe${n}`, parseFaults(rules))
}

for (const rules of ['', rulesWithoutHits]) {
  const name = rules === '' ? 'no rules' : 'rules that hit no packet'
  portContract(`a port on a memory link with ${name}`, () => {
    const link = smallSwitch(16, 64)
    return {
      address: ipv4,
      attach: n => {
        const port = withFaults(link.attach(), `rxe${n}`, parseFaults(rules))
        port.addAddress(ipv4(n))
        return port
      },
    }
  })
}

describe('faults over UDP', { skip: !hasNative() && 'koffi is missing' }, () => {
  portContract('a port on UDP with rules that hit no packet', () => ({
    address: loopback,
    attach: n => udpPort(n, rulesWithoutHits),
  }))

  const open: FaultPort[] = []
  after(() => {
    for (const port of open) port.close()
  })

  it('reach the receiver if they apply to sent packets', async () => {
    const a = udpPort(1, '')
    const b = udpPort(2, '')
    open.push(a, b)
    const flow = a.openFlow(flowBetween(loopback(1), loopback(2)))
    const COUNT = 40
    const LAST = 99
    /** Sends COUNT packets with faults, then packet LAST without faults. Returns the other PSNs that arrive. */
    const transfer = async (rules: string): Promise<number[]> => {
      a.setFaults(parseFaults(rules))
      for (let psn = 0; psn < COUNT; psn += COUNT / 4) assert.ok(sendRun(a, flow, psn, COUNT / 4))
      a.setFaults([])
      assert.ok(sendRun(a, flow, LAST, 1))
      const arrived: number[] = []
      while (!arrived.includes(LAST)) arrived.push(...psns(await collect(b, 1)))
      return [...arrived, ...psns(receiveAll(b))].filter(psn => psn !== LAST)
    }
    assert.deepEqual(await transfer('dir=sent,opcode=RC_SEND_ONLY,drop=1'), [])
    const duplicated = await transfer('dir=sent,dup=1')
    assert.equal(duplicated.length, 2 * COUNT)
    const reordered = await transfer('dir=sent,reorder=0.3,seed=2')
    assert.notDeepEqual(
      reordered,
      reordered.toSorted((a, b) => a - b),
    )
    assert.equal(new Set(reordered).size, COUNT)
    const icrcErrorsBefore = b.counters.icrcErrors
    const intact = await transfer('dir=sent,corrupt=0.5,seed=2')
    assert.ok(intact.length > 5 && intact.length < COUNT - 5)
    assert.equal(b.counters.icrcErrors - icrcErrorsBefore, COUNT - intact.length)
  })
})
