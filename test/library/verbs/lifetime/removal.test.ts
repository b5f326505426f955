/*
 * A daemon removes a device that a program of the library uses (R23).
 */
import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { hasNative } from '../../../../src/host/native.ts'
import { open, RdmaError } from '../../../../src/library/index.ts'
import {
  isEmpty,
  removeDevice,
  runUserdma,
  startDaemon,
  suiteScope,
  type TestDaemon,
  TWO_DEVICES,
} from '../../../system/programs.ts'
import { closeAll, completionText, endpointOn } from '../endpoints.ts'

const RECEIVES = 16

describe('a removed device', { skip: !hasNative() && 'koffi is missing' }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  test('flushes receives, ends waits, refuses calls, and no longer answers its peer', async t => {
    const { socket } = daemon
    const a = endpointOn(await open({ socket }))
    const b = endpointOn(await open({ socket, device: 'rxe1' }))
    a.qp.connect(b.qp.endpoint, { retryCount: 2 })
    b.qp.connect(a.qp.endpoint)
    for (let id = 0; id < RECEIVES; id++) b.qp.receive(b.mr.slice(), id)

    /** The statuses of completions until the iteration ends, and its error. */
    const iterate = async (): Promise<{ names: string[]; error: unknown }> => {
      const names: string[] = []
      try {
        for await (const { statusName } of b.cq.completions()) names.push(statusName)
      } catch (error) {
        return { names, error }
      }
      return { names, error: undefined }
    }
    const listen = async (): Promise<string[]> => {
      const types: string[] = []
      for await (const { type } of b.device.events()) types.push(type)
      return types
    }
    const iterating = iterate()
    const events = listen()
    a.qp.send(a.mr.slice(0, 8), { id: 1 })
    await a.cq.wait()
    await removeDevice(t, daemon, 'rxe1')

    const { names, error } = await iterating
    assert.deepEqual(names, ['SUCCESS', ...Array(RECEIVES - 1).fill('WR_FLUSH_ERR')])
    assert.ok(error instanceof RdmaError && error.code === 'EIO', String(error))
    assert.deepEqual(await events, ['DEVICE_FATAL'])
    assert.throws(() => b.device.pd(), { code: 'EIO' })
    assert.throws(() => b.cq.query(), { code: 'EIO' })
    const added = await runUserdma(t, ['device', 'add', 'rxe2@127.0.0.3', '--socket', socket])
    assert.equal(added.status, 0, added.stderr)
    assert.throws(() => b.device.counters(), { code: 'EIO' }, 'rxe2 has the node that rxe1 had')

    assert.equal(await completionText(a.cq), '1 SEND')
    a.qp.send(a.mr.slice(0, 8), { id: 2 })
    assert.equal(await completionText(a.cq), '2 RETRY_EXC_ERR')
    await closeAll(a, b)
    await daemon.settled(isEmpty)
  })
})
