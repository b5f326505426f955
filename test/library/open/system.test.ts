/*
 * The system-wide device in the library (R13, R18), of a network of this process and of a daemon.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import {
  createNetwork,
  type DeviceChange,
  open,
  openSystem,
  RdmaError,
  type System,
} from '../../../src/library/index.ts'
import { ClassId } from '../../../src/spec/classes/ids.ts'
import { classes } from '../../../src/spec/classes.ts'
import { isEmpty, runUserdma, startDaemon, suiteScope, TWO_DEVICES } from '../../system/programs.ts'

const globalClassNames = classes.filter(cls => cls.global).map(({ name }) => name)
const interfaceOf = (system: System): string[] => system.interface().map(({ name }) => name)

/** The attributes of the listed devices that do not depend on the machine. */
const portableEntries = (system: System) =>
  system.devices().map(({ nodeGuid, classes: ids, ...attributes }) => {
    assert.match(nodeGuid, /^([0-9a-f]{4}:){3}[0-9a-f]{4}$/)
    assert.notEqual(nodeGuid, '0000:0000:0000:0000')
    assert.ok(ids.length > 10 && ids.includes(ClassId.interface))
    return attributes
  })
const rxeEntry = { driver: 'rxe', driverId: 14, nodeType: 'CA', ports: 1, uverbsAbi: 6, driverAbi: 2 }

test('devices of this process are listed; additions and removals cause events', async () => {
  const network = createNetwork()
  const first = await open({ network })
  using system = openSystem({ network })
  assert.deepEqual(interfaceOf(system), globalClassNames)
  assert.deepEqual(portableEntries(system), [{ name: 'rxe0', index: 0, ...rxeEntry }])
  assert.deepEqual(system.interface('rxe0'), first.interface())
  const changes: DeviceChange[] = []
  const stop = system.onChange(change => changes.push(change))
  const second = await open({ network, name: 'rxe7' })
  await first.close()
  assert.deepEqual(portableEntries(system), [{ name: 'rxe7', index: 1, ...rxeEntry }])
  await second.close()
  // Events are delivered in a later microtask.
  await Promise.resolve()
  assert.deepEqual(changes, [
    { type: 'added', index: 1 },
    { type: 'removed', index: 0 },
    { type: 'removed', index: 1 },
  ])
  stop()
  await (await open({ network })).close()
  assert.equal(changes.length, 3)
})

test('invalid options, an unknown device and a closed system-wide device are refused', () => {
  const refused = (call: string, body: () => unknown, code: string, reason: RegExp): void =>
    assert.throws(body, error => {
      assert.ok(error instanceof RdmaError)
      assert.deepEqual([error.call, error.code], [call, code])
      assert.match(error.reason, reason)
      return true
    })
  refused('openSystem', () => openSystem({}), 'EINVAL', /pass either network or socket/)
  const networkAndSocket = { network: createNetwork(), socket: '/x' }
  refused('openSystem', () => openSystem(networkAndSocket), 'EINVAL', /pass either network or socket/)
  const system = openSystem({ network: createNetwork() })
  refused('system.interface', () => system.interface('rxe5'), 'ENODEV', /there is no device rxe5; there are none/)
  system.close()
  refused('system.devices', () => system.devices(), 'ERR_CLOSED', /closed/)
})

describe('in a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
  const scope = suiteScope()
  test('openSystem fails without a daemon', () => {
    assert.throws(() => openSystem({ socket: '/absent/sock' }), { code: 'ECONNREFUSED', call: 'openSystem' })
  })

  test('the devices of a daemon are listed', async () => {
    const daemon = await startDaemon(scope, { devices: TWO_DEVICES })
    {
      using system = openSystem({ socket: daemon.socket })
      assert.deepEqual(interfaceOf(system), globalClassNames)
      assert.deepEqual(portableEntries(system), [
        { name: 'rxe0', index: 0, ...rxeEntry },
        { name: 'rxe1', index: 1, ...rxeEntry },
      ])
      const device = await open({ socket: daemon.socket, device: 'rxe1' })
      assert.deepEqual(system.interface('rxe1'), device.interface())
      await device.close()
    }
    assert.ok(isEmpty(await daemon.settled(isEmpty)))
  })

  test('additions and removals of devices cause events', async t => {
    const daemon = await startDaemon(scope, { devices: TWO_DEVICES })
    using system = openSystem({ socket: daemon.socket })
    const changes: DeviceChange[] = []
    /** Resolves once `changes` has `count` elements. */
    const changesReach = (count: number) =>
      new Promise<void>(done => {
        const stop = system.onChange(() => {
          if (changes.length < count) return
          stop()
          done()
        })
      })
    system.onChange(change => changes.push(change))
    const command = async (...args: string[]): Promise<void> => {
      const { status, stderr } = await runUserdma(t, ['device', ...args, '--socket', daemon.socket])
      assert.deepEqual([status, stderr], [0, ''])
    }
    const bothChanged = changesReach(2)
    await command('add', 'ctx0')
    assert.deepEqual(
      system
        .devices()
        .map(({ name, index, driver, nodeType }) => [name, index, driver, nodeType])
        .at(-1),
      ['ctx0', 2, 'ctx', 'UNSPECIFIED'],
    )
    assert.ok(system.interface('ctx0').some(({ name }) => name === 'ctx_context'))
    await command('remove', 'rxe0')
    await bothChanged
    assert.deepEqual(changes, [
      { type: 'added', index: 2 },
      { type: 'removed', index: 0 },
    ])
    assert.deepEqual(
      system.devices().map(({ name }) => name),
      ['rxe1', 'ctx0'],
    )
  })
})
