/*
 * The end of devices and programs.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { createNetwork, open } from '../../../../src/library/index.ts'
import { libraryUrl } from '../../../paths.ts'
import { closeAll, eachCarrier, openTwoInProcess, pair } from '../endpoints.ts'

/** Runs a program that imports the library as `userdma`. */
const run = (program: string, options: readonly string[] = []) => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const text = `const userdma = await import('${libraryUrl}')\n${program}`
  return spawnSync(process.execPath, [...options, '--input-type=module', '-e', text], { env, encoding: 'utf8' })
}

eachCarrier(openTwo => {
  test('closing with `drain` waits for posted sends', async () => {
    const { a, b } = await pair(openTwo)
    a.buffer.fill(9, 0, 10)
    for (let i = 0; i < 10; i++) a.qp.write(a.mr.slice(i, 1), b.mr.remote(i, 1), { signaled: false })
    await a.device.close({ drain: true })
    assert.deepEqual([...b.buffer.subarray(0, 10)], Array(10).fill(9))
    await closeAll(a, b)
  })
})

test('a second close resolves when the first has destroyed all objects', async () => {
  const network = createNetwork()
  const device = await open({ network })
  // Too many to be destroyed in one turn of the event loop.
  for (let i = 0; i < 20_000; i++) device.pd()
  const closing = device.close()
  await device.close()
  const next = await open({ network, name: device.name, address: device.address })
  await Promise.all([closing, next.close()])
})

test('a signal ends an endless drain, and the device stays open, as after an unknown option', async () => {
  const network = createNetwork()
  const { a, b } = await pair(openTwoInProcess(network))
  network.setFaults('drop=100%')
  a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1))
  const abort = new AbortController()
  const closing = a.device.close({ drain: true, signal: abort.signal })
  abort.abort(new Error('enough'))
  await assert.rejects(closing, /enough/)
  assert.equal(a.qp.state, 'RTS')
  await assert.rejects(a.device.close({ dran: true } as never), /"dran" is unknown/)
  assert.equal(a.qp.state, 'RTS')
  await closeAll(a, b)
})

test('a device dropped without close causes a warning, a closed device does not', () => {
  const drop = (name: string, close: string) => `{ await (async () => {
    const device = await userdma.open({ network, name: '${name}' })
    device.cq()
    ${close}
  })() }`
  const { stderr } = run(
    `const network = userdma.createNetwork()
    ${drop('kept', 'await device.close()')}
    ${drop('dropped', '')}
    for (let i = 0; i < 10; i++) { gc(); await new Promise(resolve => setImmediate(resolve)) }`,
    ['--expose-gc'],
  )
  assert.match(stderr, /UserdmaWarning: device dropped was dropped without close/)
  assert.doesNotMatch(stderr, /device kept/)
})

test('a program that exits because it awaits an endless wait prints the reason', () => {
  const waits = [
    'device.cq().wait()',
    'device.pd().udQp({ active: true }).receive()',
    "(await userdma.listen('rdma://0.0.0.0:0', { device })).wait()",
  ]
  for (const wait of waits) {
    const { status, stderr } = run(`const device = await userdma.open()\nawait ${wait}`)
    // Node's status for a top-level await that never settles.
    assert.equal(status, 13, wait)
    assert.match(stderr, /^userdma: the program waits for device rxe0, where no event can follow: .* start the peer/m)
  }
  const notAwaiting = run('const device = await userdma.open()\nvoid device.cq().wait()')
  assert.deepEqual([notAwaiting.status, notAwaiting.stderr], [0, ''])
})
