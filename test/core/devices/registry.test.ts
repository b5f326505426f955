/*
 * Registration, renaming and removal of devices (R20, R23), and hooks (R24).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renameDevice, untilContextsDestroyed } from '../../../src/core/devices/registry.ts'
import {
  addHook,
  closeContext,
  createCore,
  type Device,
  driverClass,
  type Hook,
  invoke,
  invokeNow,
  openContext,
  register,
  stat,
  systemDevice,
  unregister,
} from '../../../src/core/index.ts'
import { openedContexts } from '../../../src/core/resources.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { objectClass } from '../../../src/spec/schema/schema.ts'
import { accountIn } from '../accounts.ts'
import {
  cap,
  deferJobs,
  describeDevice,
  errnoOf,
  install,
  openTestDevice,
  testCaller,
  testClasses,
  testDriver,
} from '../fixture.ts'

const { pd: Pd, cq: Cq, rc_qp: RcQp, async_fd: AsyncFd } = Classes

test('a device is registered only with a valid and unused name', () => {
  const core = createCore()
  const first = register(core, describeDevice('rxe0'))
  assert.equal(
    errnoOf(() => register(core, describeDevice('rxe0'))),
    'EEXIST',
  )
  unregister(first)
  register(core, describeDevice('rxe0'))
  for (const name of ['', 'a b', 'x'.repeat(64), '../up'])
    assert.equal(
      errnoOf(() => register(core, describeDevice(name))),
      'EINVAL',
    )
  assert.throws(() => unregister(first), /removed already/)
  assert.throws(() => register(core, describeDevice('two', testDriver(), { ports: [] })), /physPortCnt is 1, but 0/)
})

test('a device is renamed while clients use it', () => {
  const { core, device, context, caller } = openTestDevice()
  register(core, describeDevice('other'))
  const before = device.name
  renameDevice(device, before)
  for (const [name, code] of [
    ['other', 'EEXIST'],
    ['a/b', 'EINVAL'],
  ])
    assert.equal(
      errnoOf(() => renameDevice(device, name)),
      code,
    )
  assert.equal(device.name, before)
  renameDevice(device, 'mlx5_0')
  assert.equal(core.devices.get('mlx5_0'), device)
  assert.equal(core.devices.has(before), false)
  invokeNow(context, Pd, 'create', 0, {}, caller)
  register(core, describeDevice(before))
  unregister(device)
  assert.throws(() => renameDevice(device, 'again'), /device mlx5_0 is removed and cannot be renamed/)
  assert.deepEqual([...core.devices.keys()].sort(), ['other', before].sort())
})

test('devices of one driver share their tables until the last device is removed (R20)', () => {
  const core = createCore()
  const devices = ['a', 'b', 'c'].map(name => register(core, describeDevice(name)))
  assert.equal(devices[0].table, devices[2].table)
  assert.equal(devices[0].schema.classByName('cq'), devices[1].schema.classByName('cq'))
  assert.deepEqual(stat(core).tables, { classes: testClasses.length, devices: 1 }, 'one table for three devices')
  for (const device of devices) unregister(device)
  assert.deepEqual(stat(core).tables, { classes: 0, devices: 0 })
})

test('a device that cannot be registered leaves no tables', () => {
  const refuse = (): never => {
    throw new Error('no random numbers')
  }
  const core = createCore({ random: refuse })
  assert.throws(() => register(core, describeDevice('a')), /no random numbers/)
  assert.deepEqual([stat(core).tables, core.devices.size], [{ classes: 0, devices: 0 }, 0])
})

test('device removal destroys all objects in reverse order of dependency, and later calls fail with EIO', () => {
  const order: string[] = []
  const driver = {
    ...testDriver(),
    removed: () => order.push('removed'),
  }
  const setup = openTestDevice({}, driver)
  const { core, device, context, caller, log } = setup
  const contexts = [context, openContext(device, { isOpened: true })]
  for (const each of contexts) {
    invokeNow(each, Pd, 'create', 0, {}, caller)
    invokeNow(each, Cq, 'create', 0, { cqe: 1, userHandle: 1n, compVector: 0 }, caller)
    invokeNow(each, RcQp, 'create', 0, { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 0n }, caller)
  }
  const fd = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  unregister(device)
  assert.deepEqual(log, ['remove rc_qp 2', 'remove cq 1', 'remove rc_qp 2', 'remove cq 1'])
  assert.deepEqual(order, ['removed'])
  assert.equal(fd.isClosed, true)
  assert.deepEqual([stat(core).contexts, stat(core).descriptors, device.contexts.size], [0, 0, 0])
  assert.deepEqual(device.counts, { pd: 0, cq: 0, rc_qp: 0, async_fd: 0 })
  for (const each of contexts) {
    assert.equal(
      errnoOf(() => invokeNow(each, Pd, 'create', 0, {}, caller)),
      'EIO',
    )
    closeContext(each)
  }
  assert.equal(
    errnoOf(() => openContext(device)),
    'EIO',
  )
  assert.equal(order.length, 1, 'the driver is told nothing more')
})

test('a device removed during a call leaves nothing of the call', () => {
  for (const method of ['create', 'destroy'] as const) {
    const { core, device, context, caller, log } = openTestDevice()
    const cq = { cqe: 1, userHandle: 1n, compVector: 0 }
    invokeNow(context, Cq, 'create', 0, cq, caller)
    addHook(device, { pre: ({ entry, why }) => why === 'call' && entry.name === method && unregister(device) })
    const call = () =>
      method === 'create'
        ? invokeNow(context, Cq, 'create', 0, cq, caller)
        : invokeNow(context, Cq, 'destroy', 0, {}, caller)
    assert.equal(errnoOf(call), 'EIO')
    // An object whose destroy runs is destroyed only by that call.
    assert.deepEqual(log, method === 'create' ? ['remove cq 0', 'undo cq 1'] : ['call cq 0'])
    assert.deepEqual([stat(core).contexts, stat(core).faults, context.handles.count, device.counts.cq], [0, 0, 0, 0])
  }
})

test('contexts of a removed device close newest first', () => {
  const ended: number[] = []
  const { device, context } = openTestDevice()
  const others = [openContext(device), openContext(device)]
  for (const each of [context, ...others]) each.whenEnded = [() => ended.push(each.id)]
  unregister(device)
  assert.deepEqual(ended, [others[1].id, others[0].id, context.id])
})

test('the end of a context that is closed during the removal of its device is told once', () => {
  let closed = 0
  const { core, device, context } = openTestDevice()
  const { deferredJobs, runJob } = deferJobs(core)
  closeContext(context, () => closed++)
  unregister(device)
  const [closing, ...removal] = deferredJobs
  for (const job of [...removal, closing!]) runJob(job)
  assert.deepEqual([closed, stat(core).contexts, stat(core).faults], [1, 0, 0])
})

test('a context that is being closed is not listed, and only its own user waits for its end', async () => {
  const { core, device } = openTestDevice()
  const [USER, OTHER_USER] = [1, 2]
  const context = openContext(device, {
    isOpened: true,
    account: accountIn(createSharedLimits(), USER),
  })
  const { deferredJobs, runJob } = deferJobs(core)
  assert.equal([...openedContexts(device as Device)].length, 2)
  closeContext(context)
  assert.equal([...openedContexts(device as Device)].length, 1)
  assert.equal(untilContextsDestroyed(core, OTHER_USER), undefined)
  const waiting = untilContextsDestroyed(core, USER)
  assert.ok(waiting instanceof Promise)
  for (const job of deferredJobs) runJob(job)
  await waiting
  assert.equal(untilContextsDestroyed(core, USER), undefined)
})

test('a device with only private classes has no verbs and no ports (R29)', () => {
  const Odd = objectClass('odd', 0x8001, { methods: {} })
  const core = createCore()
  const device = register(core, describeDevice('odd0', testDriver([driverClass(Odd)])))
  const context = openContext(device, { isOpened: true })
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, testCaller())),
    'EOPNOTSUPP',
  )
  assert.equal(device.schema.classByName('odd')?.id, 0x8001)
  assert.deepEqual(device.ports, [])
})

// ---- hooks (R24) ----

test('hooks see each call before and after its handler, with its object and result', () => {
  const { device, context, caller } = openTestDevice()
  const seen: string[] = []
  const hook = (name: string): Hook => ({
    pre: ({ entry }, object) => seen.push(`${name} pre ${entry.class.name}.${entry.name} ${object.handle}`),
    post: ({ entry }, _object, _args, out, error) =>
      seen.push(`${name} post ${entry.name} ${error instanceof CallError ? error.code : JSON.stringify(out)}`),
  })
  const removeOuter = addHook(device, hook('outer'))
  const removeInner = addHook(device, { ...hook('inner'), class: 'cq' })
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, { cqe: 3, userHandle: 0n, compVector: 0 }, caller)
  removeInner()
  removeInner()
  invokeNow(context, Cq, 'destroy', 1, {}, caller)
  removeOuter()
  invokeNow(context, Pd, 'destroy', 0, {}, caller)
  assert.deepEqual(seen, [
    'outer pre pd.create 0',
    'outer post create {}',
    'outer pre cq.create 1',
    'inner pre cq.create 1',
    'inner post create {"cqe":3}',
    'outer post create {"cqe":3}',
    'outer pre cq.destroy 1',
    'outer post destroy {"compEvents":0,"asyncEvents":0}',
  ])
})

test('a device uses the shared table again after its last hook is removed', () => {
  const { device } = openTestDevice()
  const remove = addHook(device, { pre() {} })
  assert.notEqual(device.table, device.sharedTable)
  remove()
  assert.equal(device.table, device.sharedTable)
})

test('a hook that was added twice is removed once by each function', () => {
  const { device, context, caller } = openTestDevice()
  let calls = 0
  const hook = { post: () => void calls++ }
  const [removeFirst, removeSecond] = [addHook(device, hook), addHook(device, hook)]
  removeFirst()
  removeFirst()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  assert.equal(calls, 1)
  removeSecond()
  assert.equal(device.table, device.sharedTable)
})

test("a hook can refuse a client's calls, but not core's own destroys", () => {
  const setup = openTestDevice()
  const { core, device, context, caller, log } = setup
  invokeNow(context, Cq, 'create', 0, { cqe: 3, userHandle: 0n, compVector: 0 }, caller)
  const failed: unknown[] = []
  addHook(device, {
    pre() {
      throw new CallError('EPERM', 'by order')
    },
    post: (_call, _object, _args, _out, error) => failed.push(error),
  })
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, caller)),
    'EPERM',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'destroy', 0, {}, caller)),
    'EPERM',
  )
  assert.equal(failed.length, 2)
  assert.equal(stat(core).objects, 1)
  closeContext(context)
  assert.deepEqual([log, stat(core).faults], [['close cq 0'], 0])
})

test('a hook sees the end of an asynchronous call', async () => {
  const asyncPd = driverClass(Pd, {
    create: async () => ({}),
    destroy: async () => {
      throw new CallError('EBUSY', 'no')
    },
  })
  const { device, context, caller } = openTestDevice(
    {},
    testDriver(testClasses.map(old => (old.class.name === 'pd' ? asyncPd : old))),
  )
  const ends: unknown[] = []
  addHook(device, { post: (_call, _object, _args, _out, error) => ends.push((error as CallError | undefined)?.code) })
  await invoke(context, Pd, 'create', 0, {}, caller)
  await assert.rejects(async () => invoke(context, Pd, 'destroy', 0, {}, caller), { code: 'EBUSY' })
  assert.deepEqual(ends, [undefined, 'EBUSY'])
})

test('statistics of a device named system are not those of the system-wide device', () => {
  const core = createCore()
  const device = register(core, describeDevice('system'))
  invokeNow(openContext(device as Device, { isOpened: true }), Pd, 'create', 0, {}, testCaller())
  openContext(systemDevice(core))
  const { devices, contexts, objects } = stat(core)
  assert.deepEqual([Object.keys(devices), devices.system.objects, contexts, objects], [['system'], { pd: 1 }, 2, 1])
})

test('statistics count live objects', () => {
  const { core, context, caller, device } = openTestDevice()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  addHook(device, { pre() {} })
  assert.deepEqual(stat(core), {
    devices: { test0: { contexts: 1, objects: { pd: 1 }, regions: 0, hooks: 1 } },
    contexts: 1,
    objects: 1,
    descriptors: 0,
    waiting: 0,
    events: 0,
    faults: 0,
    tables: { classes: testClasses.length, devices: 1 },
  })
})
