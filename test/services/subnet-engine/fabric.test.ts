/*
 * Links of a fabric in virtual time: what their rate, delay and loss do to packets of management and data.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MadMethod } from '../../../src/spec/wire/management.ts'
import { FIRST_MULTICAST_LID, PERMISSIVE_LID, PortState, smAttributes } from '../../../src/spec/wire/subnet.ts'
import { chainLab, Lab } from './lab.ts'

const LIDS = { first: 1, last: 2 }
/** µs */
const DELAY = 500

/** Two switches with a link between them, whose tables lead to a host at each, all ACTIVE. */
const configuredChain = () => {
  const made = chainLab(2)
  const { lab, first, last, chain } = made
  first.port.info.lid = LIDS.first
  last.port.info.lid = LIDS.last
  for (const { ports, tables } of chain) {
    tables!.info.linearFdbTop = 2
    tables!.linear[LIDS.first] = 1
    tables!.linear[LIDS.last] = 2
    for (const port of ports) if (port.isUp) port.info.portState = PortState.ACTIVE
  }
  for (const { port } of [first, last]) port.info.portState = PortState.ACTIVE
  const link = lab.fabric.linkOf(chain[0]!.port(2)!)!
  const get = () => lab.smp(MadMethod.GET, smAttributes.NodeInfo.id, { path: [1, 2, 2] })
  return { ...made, link, get }
}

test('data packets ask for a carrier only if a link on their way takes time or loses some', () => {
  const { lab, first, link } = configuredChain()
  assert.equal(lab.fabric.reached(first, LIDS.last).length, 1)
  assert.equal(lab.fabric.isCarried(first, LIDS.last), false)
  const before = lab.rerouted
  for (const options of [{ delay: 1 }, { rate: 1e9 }, { loses: () => false }]) {
    lab.fabric.setOptions(link, options)
    assert.equal(lab.fabric.isCarried(first, LIDS.last), true)
  }
  assert.equal(lab.rerouted, before + 3)
  lab.fabric.setOptions(link, {})
  assert.equal(lab.fabric.isCarried(first, LIDS.last), false)
})

test('packets wait for the rate one after the other, subnet management before them, and do not overtake each other', () => {
  const { lab, first, link, get } = configuredChain()
  const carry = (): void => lab.fabric.carry(first, { dlid: LIDS.last, bytes: 1000 }, lab.now)
  // 8 bits in a microsecond.
  lab.fabric.setOptions(link, { rate: 8e6, delay: DELAY })
  for (let i = 0; i < 3; i++) carry()
  const asked = lab.now
  lab.send(first, get(), PERMISSIVE_LID)
  lab.run(10_000)
  assert.deepEqual(
    lab.arrived,
    [1, 2, 3].map(i => i * 1000 + DELAY),
  )
  // There and back, 290 bytes each.
  assert.ok(lab.receivedAt[0]! - asked < 2 * (DELAY + 300), `the answer came after ${lab.receivedAt[0]} µs`)
  lab.arrived.length = 0
  carry()
  lab.run(1100)
  lab.fabric.setOptions(link, {})
  carry()
  lab.run(10_000)
  assert.equal(lab.arrived.length, 2)
  assert.equal(lab.arrived[0], lab.arrived[1])
})

test('a packet that would wait for a rate for more than two seconds is lost, and counted', () => {
  const { lab, first, chain, link } = configuredChain()
  lab.fabric.setOptions(link, { rate: 8e6 })
  for (let i = 0; i < 2500; i++) lab.fabric.carry(first, { dlid: LIDS.last, bytes: 1000 }, lab.now)
  lab.run(10_000_000)
  assert.deepEqual([lab.arrived.length, chain[0]!.port(2)!.counters.port_xmit_discards], [2001, 499])
})

test('a lost packet is counted as an error of the port where it would have arrived; a cut link loses what is on it', () => {
  const { lab, first, chain, link } = configuredChain()
  let sent = 0
  lab.fabric.setOptions(link, { loses: () => ++sent % 2 === 0 })
  for (let i = 0; i < 6; i++) lab.fabric.carry(first, { dlid: LIDS.last, bytes: 100 }, lab.now)
  lab.run(10)
  assert.equal(lab.arrived.length, 3)
  assert.equal(chain[1]!.port(1)!.counters.port_rcv_errors, 3)
  lab.fabric.setOptions(link, { delay: DELAY })
  lab.fabric.carry(first, { dlid: LIDS.last, bytes: 100 }, lab.now)
  lab.run(100)
  lab.fabric.setPlugged(link, false)
  lab.run(DELAY)
  assert.equal(lab.arrived.length, 3)
})

test('a loop of tables ends after 64 links, counted, and that of a group where a packet has been', () => {
  const lab = new Lab()
  const host = lab.addAdapter('host')
  const ring = [0, 1, 2].map(i => lab.addSwitch(`s${i}`, 3))
  const at = (index: number, number: number) => ({ node: ring[index]!, port: ring[index]!.port(number)! })
  lab.connect(host, at(0, 1))
  for (const i of [0, 1, 2]) lab.fabric.connect(at(i, 2), at((i + 1) % 3, 3), { delay: 1 })
  for (const { ports, tables } of ring) {
    for (const port of ports) if (port.isUp) port.info.portState = PortState.ACTIVE
    tables!.info.linearFdbTop = 5
    tables!.linear[5] = 2
    // Ports 2 and 3.
    tables!.multicast[0] = 0b1100
  }
  host.port.info.portState = PortState.ACTIVE
  lab.fabric.carry(host, { dlid: 5, bytes: 100 }, lab.now)
  lab.run(1000)
  const discards = ring
    .flatMap(({ ports }) => ports)
    .reduce((sum, { counters }) => sum + (counters.port_xmit_discards ?? 0), 0)
  assert.equal(discards, 1)
  lab.fabric.carry(host, { dlid: FIRST_MULTICAST_LID, bytes: 100 }, lab.now)
  lab.run(100)
  assert.deepEqual([lab.fabric.inFlight, lab.arrived], [0, []])
})
