/*
 * Creation enforces the limits that the device reports.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deviceAttributes, Limits, portAttributes } from '../../../../src/drivers/rxe/attributes.ts'
import type { Counters } from '../../../../src/transport/types.ts'

const counted = { pkeyViolations: 0, qkeyViolations: 0 } as Counters

test('reported limits are enforced', () => {
  const guid = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
  const device = deviceAttributes(guid)
  assert.equal(device.maxQpWr, Limits.maxQpWr)
  assert.equal(device.maxSge, Limits.maxSge)
  assert.equal(device.maxSgeRd, Limits.maxSge)
  assert.equal(device.maxCqe, Limits.maxCqe)
  assert.equal(device.maxQpRdAtom, Limits.maxRdAtomic)
  assert.equal(device.maxQpInitRdAtom, Limits.maxRdAtomic)
  assert.equal(device.physPortCnt, 1)
  assert.deepEqual(device.nodeGuid, guid)
  assert.deepEqual(device.sysImageGuid, guid)
})

test('the port is active, Ethernet, and needs a GRH; its MTU is the link’s', () => {
  const { activeMtu, maxMtu, gidTblLen, flags, linkLayer, state } = portAttributes(3, () => counted)
  assert.deepEqual(
    { activeMtu, maxMtu, gidTblLen, flags, linkLayer, state },
    {
      activeMtu: 3,
      maxMtu: 5,
      gidTblLen: Limits.gidTable,
      flags: 1,
      linkLayer: 2,
      state: 4,
    },
  )
})

test('key violations are counted in 16 bits', () => {
  const counters = { ...counted }
  const port = portAttributes(3, () => counters)
  assert.deepEqual([port.badPkeyCntr, port.qkeyViolCntr], [0, 0])
  Object.assign(counters, { pkeyViolations: 3, qkeyViolations: 70_000 })
  assert.deepEqual([port.badPkeyCntr, port.qkeyViolCntr], [3, 0xffff])
})
