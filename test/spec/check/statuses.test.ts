/*
 * Completion statuses and the order of their likely causes (`userdma explain`).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wcStatusOf } from '../../../src/drivers/efa/completions.ts'
import { findings } from '../../../src/spec/check/findings.ts'
import { findingsOf, type StatusName, statuses } from '../../../src/spec/check/statuses.ts'
import { EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { syndromes } from '../../../src/spec/drivers/mlx5-queues.ts'
import { WcStatus } from '../../../src/spec/work.ts'

const names = Object.keys(WcStatus.values) as StatusName[]

test('every status has a meaning, and an order of all findings that lead to the status', () => {
  assert.deepEqual(Object.keys(statuses), names)
  for (const name of names) {
    assert.match(statuses[name], /^[A-Z].*\.$/, name)
    const places = findingsOf(name).map(id => findings[id].statuses?.[name])
    assert.deepEqual(
      places,
      places.map((_, i) => i + 1),
      `src/spec/check/findings: ${name}`,
    )
  }
})

test('the least specific findings come last', () => {
  const unspecific = ['slow-memory', 'program-ended', 'peer-ended', 'peer-refused', 'no-answer']
  for (const name of names) {
    const order = findingsOf(name)
    const first = order.findIndex(id => unspecific.includes(id))
    if (first >= 0)
      assert.deepEqual(
        order.slice(first).filter(id => !unspecific.includes(id)),
        [],
        name,
      )
  }
})

test('errors come before notes', () => {
  for (const name of names) {
    const isNote = findingsOf(name).map(id => findings[id].severity === 'note')
    assert.deepEqual(isNote, [...isNote].sort(), name)
  }
})

test('the meaning of REM_INV_REQ_ERR says which receives have it', () => {
  // The cause NOT_INVALIDATED.
  assert.match(statuses.REM_INV_REQ_ERR, /A receive has this status if it took a SEND with invalidate/)
})

test('the meaning of WR_FLUSH_ERR says what flushes requests without an earlier failure', () => {
  // The causes MODIFIED and DEVICE_REMOVED.
  const meaning = statuses.WR_FLUSH_ERR
  assert.match(meaning, /the program moved the queue pair to ERR, its connection ended, or the device was removed/)
})

test('no status that an adapter has is only for the service that no adapter has', () => {
  const ofAdapters = [...Object.values(EfaStatus).map(wcStatusOf), ...Object.keys(syndromes).map(Number)]
  for (const name of names)
    if (/^Only for/.test(statuses[name])) assert.ok(!ofAdapters.includes(WcStatus.values[name]), name)
  assert.match(statuses.REM_INV_RD_REQ_ERR, /EFA: .* the peer's queue pair was destroyed/)
  const { UNRESPONSIVE, UNREACHABLE } = EfaStatus
  assert.match(statuses.RESP_TIMEOUT_ERR, new RegExp(`EFA: .*vendor_err ${UNRESPONSIVE}\\).*\\(${UNREACHABLE}\\)`))
})
