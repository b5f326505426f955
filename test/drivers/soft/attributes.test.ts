/*
 * The reported attributes of device and port.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deviceAttributes, Limits, portAttributes } from '../../../src/drivers/soft/attributes.ts'
import { LinkLayer, Mtu, PortFlags, PortState } from '../../../src/spec/enums.ts'
import type { Counters } from '../../../src/transport/engine/types.ts'

const { MTU_1024, MTU_4096 } = Mtu.values

const noViolations = { pkeyViolations: 0, qkeyViolations: 0 } as Counters

test('the reported limits are those of `Limits`, which creation enforces', () => {
  const device = deviceAttributes(new Uint8Array(8))
  assert.equal(device.maxQpWr, Limits.maxQpWr)
  assert.equal(device.maxSge, Limits.maxSge)
  assert.equal(device.maxSgeRd, Limits.maxSge)
  assert.equal(device.maxCqe, Limits.maxCqe)
  assert.equal(device.maxQpRdAtom, Limits.maxRdAtomic)
  assert.equal(device.maxQpInitRdAtom, Limits.maxRdAtomic)
})

test('the device has one port, and one GUID for node and system image', () => {
  const guid = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
  const device = deviceAttributes(guid)
  assert.equal(device.physPortCnt, 1)
  assert.deepEqual(device.nodeGuid, guid)
  assert.deepEqual(device.sysImageGuid, guid)
})

test('the port is active, Ethernet, and needs a GRH; its MTU is the link’s', () => {
  const { activeMtu, maxMtu, gidTblLen, flags, linkLayer, state } = portAttributes(MTU_1024, () => noViolations)
  assert.deepEqual(
    { activeMtu, maxMtu, gidTblLen, flags, linkLayer, state },
    {
      activeMtu: MTU_1024,
      maxMtu: MTU_4096,
      gidTblLen: Limits.gidTable,
      flags: PortFlags.values.GRH_REQUIRED,
      linkLayer: LinkLayer.values.ETHERNET,
      state: PortState.values.ACTIVE,
    },
  )
})

test('the reported counters of key violations stop at 65535', () => {
  const counters = { ...noViolations }
  const port = portAttributes(MTU_1024, () => counters)
  assert.deepEqual([port.badPkeyCntr, port.qkeyViolCntr], [0, 0])
  Object.assign(counters, { pkeyViolations: 3, qkeyViolations: 70_000 })
  assert.deepEqual([port.badPkeyCntr, port.qkeyViolCntr], [3, 0xffff])
})
