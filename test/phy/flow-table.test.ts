/*
 * The flow table opens equal records as one flow, and copies the record.
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
/** Number of the port that opens all flows. */
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
