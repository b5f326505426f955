/*
 * What events mean (`userdma explain`).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { explain, isExplained } from '../../../src/cli/commands/explain.ts'
import { cmEventMeanings, deviceEventMeanings } from '../../../src/spec/check/event-meanings.ts'
import { AsyncEventType, CmEventType } from '../../../src/spec/enums.ts'

test('every event of rdma_cm and of devices has a meaning, and says what to do', t => {
  assert.deepEqual(Object.keys(cmEventMeanings), Object.keys(CmEventType.values))
  const ofDevices = Object.keys(AsyncEventType.values).filter(name => !/^DEVICE_(?:ADDED|REMOVED)$/.test(name))
  assert.deepEqual(Object.keys(deviceEventMeanings), ofDevices)
  let printed = ''
  t.mock.method(process.stdout, 'write', (text: string) => {
    printed += text
    return true
  })
  const pageOf = (word: string): string => {
    printed = ''
    explain(word)
    return printed
  }
  for (const name of [...Object.keys(CmEventType.values), ...ofDevices]) {
    const page = pageOf(name)
    assert.match(page, /\n\n[A-Z][^\n]*\.\n/, name)
    assert.match(page, /\nWhat to do: .*[^.]\.\n/, name)
  }
  assert.match(pageOf('RDMA_CM_EVENT_DISCONNECTED'), /^DISCONNECTED: an event of rdma_cm\n[^\0]*-ETIMEDOUT/)
  assert.match(pageOf('unreachable'), /^UNREACHABLE: an event of rdma_cm\n/)
  assert.match(pageOf('IBV_EVENT_GID_CHANGE'), /^GID_CHANGE: [^\0]*another index/)
  assert.ok(isExplained('rdma_cm_event_addr_change') && !isExplained('RDMA_CM_EVENT_NONE'))
})
