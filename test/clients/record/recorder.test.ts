/*
 * A recorder leaves nothing behind: when it stops, a device has its own functions again, also beside the checker.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startRecorder } from '../../../src/clients/record/recorder.ts'
import { watchRequests as watchDevice } from '../../../src/clients/watched-requests.ts'
import { systemDevice } from '../../../src/core/devices/system.ts'
import { hasFailureHandlers } from '../../../src/core/failures.ts'
import { watchRequests } from '../../../src/drivers/rxe/requests/request-feed.ts'
import { addTap } from '../../../src/phy/tap.ts'
import { SessionWriter } from '../../../src/record/writer.ts'
import { SCRATCH_BYTES } from '../../../src/spec/check/requests.ts'
import type { Completions, WorkSource } from '../../../src/transport/types.ts'
import { plainArena } from '../../../src/wire/arena.ts'
import { machine } from '../../drivers/rxe/machine.ts'
import { createMemorySink } from '../../record/memory-sink.ts'

const nothing = () => {}

/** A device whose functions for requests can be seen, and a function that starts to record it. */
const start = () => {
  const m = machine(1, { path: 'direct' })
  const { device } = m.devices[0]
  const work: WorkSource = {
    loadSend: () => false,
    retireSend: nothing,
    copyInline: nothing,
    takeReceive: () => false,
    selectShared: () => false,
  }
  const completions: Completions = { push: nothing }
  Object.assign(device.state, {
    watch: (...[watched, watcher, scratch]: Parameters<typeof device.state.watch>) =>
      watchRequests(watched, work, completions, watcher, scratch),
  })
  const about = { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 }
  const functions = () => ({
    ...work,
    ...completions,
    dropped: device.state.failures.dropped,
    feed: device.state.feed,
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
  return { device, functions, record }
}

test('when a recorder stops, the functions of devices are the original ones', () => {
  const { functions, record } = start()
  const original = functions()
  const recorder = record()
  const replaced = functions()
  for (const name of [
    'loadSend',
    'retireSend',
    'takeReceive',
    'selectShared',
    'push',
    'dropped',
    'table',
    'tap',
  ] as const)
    assert.notEqual(replaced[name], original[name], name)
  recorder.stop()
  const after = functions()
  for (const [name, value] of Object.entries(original)) assert.equal(after[name as keyof typeof after], value, name)
})

test('a checker that watches longer than the recorder keeps its reports, and then leaves the original functions', () => {
  const { device, functions, record } = start()
  const original = functions()
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
  const poll = watchDevice(device, watcher, plainArena(SCRATCH_BYTES))
  recorder.stop()
  assert.notEqual(functions().loadSend, original.loadSend)
  assert.equal(functions().tap, original.tap)
  poll?.end()
  assert.equal(functions().loadSend, original.loadSend)
  assert.equal(functions().push, original.push)
})
