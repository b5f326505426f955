/*
 * The devices of InfiniBand's connection manager.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCore, type Device, register } from '../../../src/core/index.ts'
import { IbCm } from '../../../src/services/cm-client/ib-cm.ts'
import { DeviceAttributes } from '../../../src/spec/classes/device/device.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import { describeDevice } from '../../core/fixture.ts'

test('the CA GUID is the node GUID, also if the driver has it in a Buffer', () => {
  const nodeGuid = Buffer.from('0011223344556677', 'hex')
  assert.notEqual(nodeGuid.buffer.byteLength, nodeGuid.length, 'the Buffer is part of a larger memory')
  const attributes = { ...zeroRecord(DeviceAttributes), physPortCnt: 1, nodeGuid }
  const device = register(createCore(), describeDevice('test0', undefined, { attributes }))
  const createAgent = () => assert.fail('only on InfiniBand')
  const mads = { register: () => () => {}, send: () => true, hasQueuePair: () => true, createAgent }
  const cm = new IbCm(mads, { now: () => 0, random: () => 1 })
  cm.open(device as Device, { request: () => 'NO_LISTENER' })
  assert.equal(cm.portOf(1)?.caGuid, 0x0011223344556677n)
})
