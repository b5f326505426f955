/*
 * Devices are added and removed while programs use them (R23, R28, R29).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { runCase } from '../pairs/pingpong.ts'
import {
  isEmpty,
  lacking,
  ONE_DEVICE,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  type TestDaemon,
} from '../programs.ts'

const contexts = ownProgram('contexts')

/** Returns the output of `userdma device`, or its message if it is refused. */
const changeDevice = async (t: Scope, { socket }: TestDaemon, ...args: string[]): Promise<string> => {
  const { status, stdout, stderr } = await runUserdma(t, ['device', ...args, '--socket', socket])
  return status === 0 ? stdout : stderr.trim()
}

describe('a ctx device', { skip: lacking(contexts) }, () => {
  it('moves messages between two processes', async t => {
    const daemon = await startDaemon(t, { devices: [...ONE_DEVICE, 'ctx0'] })
    const { status, stdout } = await run(t, contexts, ['messages', '200'], { env: daemon.env })
    assert.equal(stdout, '200 messages each way and an expected one\nthe descriptor behaves as a file\n')
    assert.equal(status, 0)
    await daemon.settled(isEmpty)
  })

  it('is removed while a program uses it, and added again', async t => {
    const daemon = await startDaemon(t)
    assert.equal(await changeDevice(t, daemon, 'add', 'ctx0'), '')
    const program = start(t, contexts, ['wait'], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
    await program.printed(/ready/)
    assert.equal(await changeDevice(t, daemon, 'remove', 'ctx0'), '')
    await program.printed(/removed/)
    const without = await run(t, contexts, [], { env: daemon.env })
    assert.match(without.stdout, /there is no ctx device/)
    assert.equal(await changeDevice(t, daemon, 'add', 'ctx0'), '')
    // The program waits for a "g" before it looks for the device again.
    program.child.stdin?.end('g')
    const { status, stdout } = await program.ended
    assert.match(stdout, /again/)
    assert.equal(status, 0)
    await daemon.settled(isEmpty)
  })
})

describe('devices', { skip: lacking('ibv_rc_pingpong', 'ibv_asyncwatch') }, () => {
  const pingpong = { waitsForEvents: false, checksData: true, size: 4096, mtu: 1024, usesTwoDevices: true }

  it('are added, removed while programs use them, and added again', async t => {
    const daemon = await startDaemon(t)
    assert.equal(await changeDevice(t, daemon, 'add', 'rxe1@127.0.0.2'), '')
    await runCase(t, daemon, pingpong, 50)

    const watch = start(t, 'stdbuf', ['-oL', 'ibv_asyncwatch', '-d', 'rxe1'], { env: daemon.env })
    await watch.printed(/async event FD/)
    const otherWatch = start(t, 'stdbuf', ['-oL', 'ibv_asyncwatch', '-d', 'rxe0'], { env: daemon.env })
    await otherWatch.printed(/async event FD/)
    assert.equal(await changeDevice(t, daemon, 'remove', 'rxe1'), '')
    // IBV_EVENT_DEVICE_FATAL
    await watch.printed(/event_type .*\(8\)/)
    await watch.ended
    const listed = await run(t, 'ibv_devices', [], { env: daemon.env })
    assert.match(listed.stdout, /rxe0/)
    assert.doesNotMatch(listed.stdout, /rxe1/)
    assert.equal(otherWatch.output().includes('event_type'), false, 'a program of another device gets no event')

    assert.equal(await changeDevice(t, daemon, 'add', 'rxe1@127.0.0.2'), '')
    await runCase(t, daemon, pingpong, 50)
    otherWatch.child.kill()
    await otherWatch.ended
    await daemon.settled(isEmpty)
  })

  it('that cannot be added or removed are refused with a message', async t => {
    const daemon = await startDaemon(t)
    for (const [args, message] of [
      [['add', 'rxe0@127.0.0.3'], /there is a device rxe0 already/],
      [['add', 'rxe1@127.0.0.1'], /devices rxe0 and rxe1 have the same address 127.0.0.1/],
      [['add', 'ctx0@127.0.0.3'], /a device of driver ctx has no network; omit the address/],
      [['add', 'mlx5_0'], /device "mlx5_0": the address is missing/],
      [['remove', 'rxe7'], /there is no device rxe7; there are rxe0, did you mean "rxe0"\?/],
    ] as const)
      assert.match(await changeDevice(t, daemon, ...args), message)
  })
})
