/*
 * A recorder leaves nothing behind: when it stops, nobody listens to a device, also beside the checker.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startRecorder } from '../../../src/clients/record/recorder.ts'
import { watchRequests } from '../../../src/clients/requests/watch.ts'
import { systemDevice } from '../../../src/core/devices/system.ts'
import { hasFailureHandlers } from '../../../src/core/failures.ts'
import { addTap } from '../../../src/phy/tap.ts'
import { SessionWriter } from '../../../src/record/writer.ts'
import { SCRATCH_BYTES } from '../../../src/spec/check/requests.ts'
import { plainArena } from '../../../src/wire/arena.ts'
import { machine } from '../../drivers/rxe/machine.ts'
import { createMemorySink } from '../../record/memory-sink.ts'

const nothing = () => {}

/** A device whose listeners can be seen, and a function that starts to record it. */
const start = () => {
  const m = machine(1, { path: 'direct' })
  const { device } = m.devices[0]
  const about = { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 }
  const listeners = () => ({
    ...device.taps,
    table: device.table,
    systemTable: systemDevice(m.core).table,
    tap: m.ports[0].tap,
    watchesFailures: hasFailureHandlers(m.core),
  })
  const record = () =>
    startRecorder(m.core, new SessionWriter(createMemorySink(), about), {
      now: () => m.now,
      program: () => undefined,
      addTap: (_, tap) => addTap(m.ports[0], tap, false),
    })
  return { device, listeners, record }
}

test('when a recorder stops, nobody listens', () => {
  const { listeners, record } = start()
  const original = listeners()
  const recorder = record()
  const recording = listeners()
  for (const name of ['requests', 'table', 'systemTable', 'tap', 'watchesFailures'] as const)
    assert.notEqual(recording[name], original[name], name)
  recorder.stop()
  assert.deepEqual(listeners(), original)
})

test('a checker that watches longer than the recorder keeps its reports', () => {
  const { device, listeners, record } = start()
  const original = listeners()
  const recorder = record()
  const watcher = {
    posted: nothing,
    ended: nothing,
    completed: nothing,
    receiveLost: nothing,
    receiverNotReady: nothing,
    polled: nothing,
    queueReset: nothing,
  }
  const poll = watchRequests(device, watcher, plainArena(SCRATCH_BYTES))
  recorder.stop()
  assert.notEqual(listeners().requests, undefined)
  assert.equal(listeners().tap, original.tap)
  poll.end()
  assert.equal(listeners().requests, undefined)
})
