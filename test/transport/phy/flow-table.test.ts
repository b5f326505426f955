/*
 * The flow table: equal records of a port are one flow, which is open until closed as often as opened.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { createFlowTable } from '../../../src/transport/phy/flow-table.ts'
import { addressWords } from '../../../src/transport/phy/key-table.ts'
import type { FlowAddress } from '../../../src/transport/phy/port.ts'
import { isSameAddress, lidAddress } from '../../../src/transport/wire/address.ts'
import { makeFlow } from '../../../src/transport/wire/icrc.ts'

const address = fc
  .integer({ min: 1, max: 3 })
  .map(last => new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, last]))
/** Few values, so that many records are equal. */
const small = fc.integer({ min: 0, max: 2 })
const flowAddress: fc.Arbitrary<FlowAddress> = fc.record({
  source: address,
  destination: address,
  sourcePort: small,
  trafficClass: small,
  hopLimit: small,
  flowLabel: small,
})
const steps = fc.array(fc.record({ record: flowAddress, closes: fc.boolean(), changesRecord: fc.boolean() }), {
  maxLength: 40,
  size: 'max',
})
const PORT = 1
const textOf = ({ source, destination, ...fields }: FlowAddress): string =>
  JSON.stringify([[...source], [...destination], fields])

test('records open the same flow if and only if they are equal, and the flow keeps the record', () => {
  fc.assert(
    fc.property(steps, allSteps => {
      const table = createFlowTable()
      const open: { flow: number; text: string; icrcBase: number }[] = []
      for (const { record, closes, changesRecord } of allSteps) {
        if (closes) for (const { flow } of open.splice(0, 2)) table.close(PORT, flow)
        const text = textOf(record)
        const { base: icrcBase } = makeFlow({ ...record, destinationPort: ROCE_UDP_PORT })
        open.push({ flow: table.open(PORT, record), text, icrcBase })
        if (changesRecord) record.destination.fill(9)
        for (const openFlow of open) {
          assert.equal(textOf(table.recordOf(openFlow.flow)), openFlow.text)
          assert.equal(table.icrcFlowOf(openFlow.flow).base, openFlow.icrcBase)
        }
        assert.equal(
          new Set(open.map(openFlow => openFlow.text)).size,
          new Set(open.map(openFlow => openFlow.flow)).size,
        )
      }
    }),
  )
})

test('a flow is open until closed as often as opened; a run in flight keeps its record; an open flow has a peer', () => {
  const PORTS = [1, 2]
  const record = fc.record({
    source: address,
    destination: address,
    sourcePort: fc.constant(0xc000),
    trafficClass: fc.constant(0),
    hopLimit: fc.constant(64),
    flowLabel: small,
  })
  const operation = fc.constantFrom('open', 'open', 'reopen', 'close', 'closeAll', 'retain', 'release')
  const step = fc.record({ operation, port: fc.constantFrom(...PORTS), record })
  const wordsOf = (bytes: Uint8Array): Uint32Array => {
    const words = new Uint32Array(4)
    addressWords(bytes, words, 0)
    return words
  }
  const destinations = [1, 2, 3].map(last => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, last))
  const ends = PORTS.flatMap(port => destinations.map(destination => ({ port, destination })))
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), allSteps => {
      const table = createFlowTable()
      /** Open flows, and flows with runs in flight. */
      const model = new Map<string, { port: number; flow: number; record: FlowAddress; opened: number; runs: number }>()
      let peers: number[] = []
      let version = -1
      for (const { operation, port, record } of allSteps) {
        const key = `${port} ${textOf(record)}`
        const known = model.get(key)
        const isOpen = known !== undefined && known.opened > 0
        if (operation === 'open') {
          const flow = table.open(port, record)
          if (known) assert.equal(flow, known.flow)
          model.set(key, {
            port,
            flow,
            record: { ...record },
            opened: (known?.opened ?? 0) + 1,
            runs: known?.runs ?? 0,
          })
        } else if (operation === 'closeAll') {
          table.closeAll(port)
          for (const other of model.values()) if (other.port === port) other.opened = 0
        } else if (operation === 'reopen' || operation === 'close') {
          const call = () => table[operation](port, known?.flow ?? 1000)
          if (isOpen) {
            call()
            known.opened += operation === 'reopen' ? 1 : -1
          } else assert.throws(call, /is not open/)
        } else if (operation === 'retain' && isOpen) {
          table.retain(known.flow)
          known.runs++
        } else if (operation === 'release' && known !== undefined && known.runs > 0) {
          table.release(known.flow)
          known.runs--
        }
        for (const [key, { opened, runs }] of model) if (opened + runs === 0) model.delete(key)

        assert.equal(table.size(), model.size)
        for (const { port, flow, record, opened } of model.values()) {
          for (const each of PORTS) assert.equal(table.isOpen(each, flow), each === port && opened > 0)
          assert.deepEqual(table.recordOf(flow), record)
          const [source, destination] = [table.sourceAt(flow), table.destinationAt(flow)]
          assert.deepEqual(table.words().slice(source, source + 4), wordsOf(record.source))
          assert.deepEqual(table.words().slice(destination, destination + 4), wordsOf(record.destination))
        }
        const newPeers = ends.map(({ port, destination }) => table.peerOf(port, wordsOf(destination), 0))
        for (const [i, { port, destination }] of ends.entries()) {
          const hasFlow = [...model.values()].some(
            ({ record, ...flow }) =>
              flow.port === port && flow.opened > 0 && isSameAddress(record.destination, destination),
          )
          assert.equal(newPeers[i] >= 0, hasFlow)
        }
        const numbers = newPeers.filter(peer => peer >= 0)
        assert.equal(new Set(numbers).size, numbers.length)
        if (newPeers.join() !== peers.join()) assert.notEqual(table.version(), version)
        peers = newPeers
        version = table.version()
      }
    }),
  )
})

test('a record whose values do not fit in headers, or whose addresses are of two families, is refused', () => {
  const table = createFlowTable()
  const ipv4 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1)
  const largest = {
    source: ipv4,
    destination: ipv4,
    sourcePort: 0xffff,
    trafficClass: 0xff,
    hopLimit: 0xff,
    flowLabel: 0xfffff,
  }
  table.close(PORT, table.open(PORT, largest))
  for (const name of ['sourcePort', 'trafficClass', 'hopLimit', 'flowLabel'] as const)
    for (const value of [-1, 0.5, largest[name] + 1])
      assert.throws(() => table.open(PORT, { ...largest, [name]: value }), RangeError)
  for (const at of [0, 4, 8]) {
    const ipv6 = ipv4.slice()
    ipv6[at] = 0xfd
    assert.throws(() => table.open(PORT, { ...largest, destination: ipv6 }), RangeError)
    assert.throws(() => table.open(PORT, { ...largest, source: ipv6 }), RangeError)
    table.close(PORT, table.open(PORT, { ...largest, source: ipv6, destination: ipv6 }))
  }
  assert.equal(table.size(), 0)
})

test('service level and GRH are of the flow; its peer is the LID alone', () => {
  const table = createFlowTable()
  const local = {
    source: lidAddress(1),
    destination: lidAddress(2),
    sourcePort: 0,
    trafficClass: 0,
    hopLimit: 0,
    flowLabel: 0,
    sl: 3,
  }
  const gid = (last: number): Uint8Array => Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last)
  const global = { ...local, grh: { source: gid(1), destination: gid(2) } }
  const flows = [
    local,
    { ...local, sl: 4 },
    global,
    { ...global, grh: { source: gid(1), destination: gid(3) } },
    global,
  ].map(record => table.open(PORT, record))
  assert.equal(new Set(flows).size, 4)
  assert.deepEqual(flows.map(table.recordOf)[2], global)
  const words = new Uint32Array(4)
  addressWords(local.destination, words, 0)
  assert.ok(table.peerOf(PORT, words, 0) >= 0)
  for (const flow of flows) table.close(PORT, flow)
  assert.deepEqual([table.size(), table.peerOf(PORT, words, 0)], [0, -1])
  assert.throws(() => table.open(PORT, { ...local, destination: gid(1) }), RangeError)
  assert.throws(() => table.open(PORT, { ...local, sl: 16 }), RangeError)
})
