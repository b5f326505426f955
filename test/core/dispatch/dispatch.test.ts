/*
 * Dispatch of a call from its message to its answer.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEventsFor } from '../../../src/core/events/events.ts'
import {
  affiliate,
  arm,
  type Caller,
  callerView,
  closeContext,
  completed,
  type Dialect,
  dispatch,
  driverClass,
  type FdObject,
  openContext,
  stat,
  unregister,
} from '../../../src/core/index.ts'
import { findHandle } from '../../../src/core/objects/handles.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import type { AnyValues } from '../../../src/spec/schema/schema.ts'
import type { Answer, Result } from '../../../src/uapi/call.ts'
import { openTestDevice, testClasses, testDriver } from '../fixture.ts'

interface Message {
  readonly class: string
  readonly method: string
  readonly object?: number
  readonly args?: AnyValues
  /** Whether writing the answer fails with EFAULT. */
  readonly isUndeliverable?: boolean
}

const outcomes: (Result | CallError)[] = []
/** A dialect without encoding. */
const objectDialect: Dialect<[Message]> = (view, { class: name, method, object, args, isUndeliverable }) => {
  const cls = view.schema.classByName(name)
  if (cls?.methods[method] === undefined)
    return { ret: -Errno.EOPNOTSUPP, installs: [], reason: because`no ${name}.${method}` }
  return {
    call: { class: cls, methodName: method, method: cls.methods[method], object: object ?? 0, args: args ?? {} },
    legacy: () => undefined,
    answer(outcome): Answer {
      outcomes.push(outcome)
      if (outcome instanceof CallError) return { ret: -outcome.errno, installs: [], reason: outcome.reason }
      return isUndeliverable ? { ret: -Errno.EFAULT, installs: [] } : { ret: outcome.object ?? 0, installs: [] }
    },
  }
}

const setUp = (driver = testDriver()) => {
  const setup = openTestDevice({}, driver)
  const call = (message: Message, descriptor?: number) =>
    dispatch(setup.context, objectDialect, [message], setup.caller, descriptor)
  const ret = (message: Message) => (call(message) as Answer).ret
  return { ...setup, call, ret }
}

test('a message is decoded, run and answered', () => {
  const { ret, call } = setUp()
  assert.equal(ret({ class: 'pd', method: 'create' }), 0)
  assert.equal(ret({ class: 'pd', method: 'create' }), 1)
  assert.equal(ret({ class: 'pd', method: 'destroy', object: 5 }), -Errno.ENOENT)
  const { ret: refused, reason } = call({ class: 'pd', method: 'fly' }) as Answer
  assert.deepEqual([refused, String(reason)], [-Errno.EOPNOTSUPP, 'no pd.fly'])
  assert.match(
    String((call({ class: 'pd', method: 'destroy', object: 5 }) as Answer).reason),
    /no object with handle 5/,
  )
})

test('a number outside the range of the device’s method is EINVAL, also if the codec accepts it', () => {
  const { ret } = setUp()
  const create = (cqe: number) => ret({ class: 'cq', method: 'create', args: { cqe, userHandle: 1n, compVector: 0 } })
  assert.equal(create(0), -Errno.EINVAL)
  assert.equal(create(1), 0)
})

test('a call on a descriptor must be a method of a descriptor’s class, with object 0 (R37)', () => {
  const { core, call, ret } = setUp()
  assert.ok(ret({ class: 'comp_channel', method: 'create' }) >= 0)
  assert.equal(ret({ class: 'pd', method: 'create' }), 0)
  const [channel] = core.descriptors.keys()
  const retOn = (message: Message) => (call(message, channel) as Answer).ret
  assert.equal(retOn({ class: 'comp_channel', method: 'query' }), 0)
  assert.equal(retOn({ class: 'comp_channel', method: 'query', object: 1 }), -Errno.EINVAL)
  assert.equal(retOn({ class: 'comp_channel', method: 'create' }), -Errno.EINVAL)
  assert.equal(retOn({ class: 'pd', method: 'destroy' }), -Errno.EINVAL)
})

test('codecs see the device’s classes, the classes of handles, and whether the context is open', () => {
  const { device, context, caller, ret } = setUp()
  const view = callerView(context, caller)
  assert.equal(callerView(context, caller), view)
  ret({ class: 'pd', method: 'create' })
  assert.equal(view.classOf(0)?.name, 'pd')
  assert.equal(view.classOf(1), undefined)
  assert.equal(view.schema.driverId, 14)
  assert.equal(view.schema.classById(Classes.cq.id), view.schema.classByName('cq'))
  // the test driver has no cq.query
  assert.deepEqual(Object.keys(view.schema.classByName('cq')!.methods).sort(), [
    'create',
    'destroy',
    'modify',
    'reqNotify',
  ])
  assert.deepEqual([view.hasContext, callerView(openContext(device), caller).hasContext], [true, false])
})

test('a create is undone when its answer cannot be written', () => {
  const setup = setUp()
  const { context, core, device, caller, ret, log } = setup
  assert.equal(
    ret({ class: 'cq', method: 'create', args: { cqe: 1, userHandle: 1n, compVector: 0 }, isUndeliverable: true }),
    -Errno.EFAULT,
  )
  assert.deepEqual(log, ['undo cq 0'])
  assert.equal(ret({ class: 'async_fd', method: 'create', isUndeliverable: true }), -Errno.EFAULT)
  assert.deepEqual([stat(core).objects, stat(core).descriptors, context.asyncFd], [0, 0, undefined])
  const fresh = openContext(device)
  const open = (isUndeliverable: boolean) =>
    (
      dispatch(
        fresh,
        objectDialect,
        [{ class: 'device', method: 'open', args: { wantAsyncFd: 1 }, isUndeliverable }],
        caller,
      ) as Answer
    ).ret
  assert.equal(open(true), -Errno.EFAULT)
  assert.deepEqual([fresh.isOpened, fresh.asyncFd, stat(core).descriptors], [false, undefined, 0])
  assert.equal(open(false), 0)
  assert.equal(open(false), -Errno.EINVAL)
})

test('a destroy takes effect even if its answer cannot be written', () => {
  const { ret } = setUp()
  ret({ class: 'pd', method: 'create' })
  assert.equal(ret({ class: 'pd', method: 'destroy', isUndeliverable: true }), -Errno.EFAULT)
  assert.equal(ret({ class: 'pd', method: 'destroy' }), -Errno.ENOENT)
})

test('after the context is closed or the device removed, every message is answered with EIO', () => {
  const { context, device, ret, caller } = setUp()
  const otherContext = openContext(device, { isOpened: true })
  closeContext(context)
  // 'fly' does not exist
  for (const method of ['create', 'fly']) assert.equal(ret({ class: 'pd', method }), -Errno.EIO, method)
  unregister(device)
  assert.equal(
    (dispatch(otherContext, objectDialect, [{ class: 'pd', method: 'create' }], caller) as Answer).ret,
    -Errno.EIO,
  )
})

test('an asynchronous handler’s answer is a promise, and a bug in a handler is thrown', async () => {
  const pdClass = driverClass(Classes.pd, {
    create: async () => ({}),
    destroy: () => {
      throw new TypeError('a bug')
    },
  })
  const { call, core } = setUp(testDriver(testClasses.map(old => (old.class.name === 'pd' ? pdClass : old))))
  const waited = call({ class: 'pd', method: 'create' })
  assert.ok(waited instanceof Promise)
  assert.deepEqual(await waited, { ret: 0, installs: [] })
  const undelivered = call({ class: 'pd', method: 'create', isUndeliverable: true })
  assert.deepEqual(await undelivered, { ret: -Errno.EFAULT, installs: [] })
  assert.deepEqual([stat(core).objects, stat(core).faults], [1, 1], 'the undo of the second create met the bug')
  assert.throws(() => call({ class: 'pd', method: 'destroy' }), TypeError)
  assert.equal(stat(core).objects, 1)
})

test('another process with the same context has its own view', () => {
  const { context, caller } = setUp()
  const child: Caller = { ...caller, copyIn: () => new Uint8Array([7]) }
  assert.notEqual(callerView(context, child), callerView(context, caller))
  assert.deepEqual(callerView(context, child).copyIn(0n, 1), new Uint8Array([7]))
})

test('events taken for an answer that cannot be written are put back before later events', () => {
  const { context, core, caller, call, ret } = setUp()
  assert.ok(ret({ class: 'comp_channel', method: 'create' }) >= 0)
  const [channel] = core.descriptors.keys()
  caller.fds.set(3, channel!)
  const complete = (userHandle: bigint): void => {
    const cq = ret({ class: 'cq', method: 'create', args: { cqe: 1, userHandle, compVector: 0, channel: 3 } })
    const object = findHandle(context.handles, cq)!
    arm(object, false)
    completed(object.events!, false)
  }
  const read = (isUndeliverable = false): unknown => {
    const { ret } = call({ class: 'comp_channel', method: 'getEvent', isUndeliverable }, channel) as Answer
    return ret < 0 ? ret : (outcomes.at(-1) as Result).out.userHandle
  }
  complete(7n)
  complete(8n)
  assert.equal(read(true), -Errno.EFAULT)
  complete(9n)
  assert.deepEqual([read(), read(), read(), read()], [7n, 8n, 9n, -Errno.EAGAIN])
})

test('a create that is undone leaves no event of its object on the channel', () => {
  const cqClass = driverClass(Classes.cq, {
    create(call, object, { cqe, userHandle, channel }) {
      affiliate(object, userHandle, { channel })
      arm(object, false)
      completed(object.events!, false)
      readEventsFor(call, channel as FdObject)
      return { cqe }
    },
  })
  const { core, caller, ret } = setUp(testDriver(testClasses.map(old => (old.class.name === 'cq' ? cqClass : old))))
  ret({ class: 'comp_channel', method: 'create' })
  const [entry] = core.descriptors
  const [number, channel] = entry!
  caller.fds.set(3, number)
  const args = { cqe: 1, userHandle: 7n, compVector: 0, channel: 3 }
  assert.equal(ret({ class: 'cq', method: 'create', args, isUndeliverable: true }), -Errno.EFAULT)
  assert.equal(channel.sink.unread(), 0)
})
