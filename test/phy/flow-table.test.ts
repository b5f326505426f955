/*
 * The flow table: equal records are one flow, and a reused number has the record that it was opened with, even if the
 * caller has changed its record since.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createFlowTable } from '../../src/phy/flow-table.ts'
import type { FlowAddress } from '../../src/phy/port.ts'
import { ROCE_UDP_PORT } from '../../src/spec/wire/headers.ts'
import { makeFlow } from '../../src/wire/icrc.ts'

const address = fc
  .integer({ min: 1, max: 3 })
  .map(last => new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, last]))
const small = fc.integer({ min: 0, max: 2 })
const record: fc.Arbitrary<FlowAddress> = fc.record({
  source: address,
  destination: address,
  sourcePort: small,
  trafficClass: small,
  hopLimit: small,
  flowLabel: small,
})
const steps = fc.array(fc.record({ record, close: fc.boolean(), changeRecord: fc.boolean() }), { maxLength: 40 })
const textOf = ({ source, destination, ...more }: FlowAddress): string =>
  JSON.stringify([[...source], [...destination], more])

test('a flow has the record that it was opened with', () => {
  fc.assert(
    fc.property(steps, all => {
      const table = createFlowTable()
      const open: { flow: number; text: string; base: number }[] = []
      for (const { record: given, close, changeRecord } of all) {
        if (close) for (const { flow } of open.splice(0, 2)) table.close(1, flow)
        const text = textOf(given)
        const { base } = makeFlow({ ...given, destinationPort: ROCE_UDP_PORT })
        open.push({ flow: table.open(1, given), text, base })
        if (changeRecord) given.destination.fill(9)
        for (const one of open) {
          assert.equal(textOf(table.recordOf(one.flow)), one.text)
          assert.equal(table.icrcFlowOf(one.flow).base, one.base)
        }
        assert.equal(new Set(open.map(one => one.text)).size, new Set(open.map(one => one.flow)).size)
      }
    }),
  )
})
