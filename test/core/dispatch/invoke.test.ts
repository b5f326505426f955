/*
 * Typed calls with `invoke` and `invokeNow` (R21, R23).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withoutOptions } from '../../../src/core/devices/driver.ts'
import {
  abortSignalOf,
  attachSink,
  closeContext,
  closeDescriptor,
  createEventQueue,
  driverClass,
  type FdObject,
  invoke,
  invokeNow,
  Lifecycle,
  openContext,
  raiseObjectEvent,
  raisePort,
  stat,
  unregister,
} from '../../../src/core/index.ts'
import { QpAddress } from '../../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { type ObjectClass, zeroRecord } from '../../../src/spec/schema/schema.ts'
import { cap, deferJobs, errnoOf, install, openTestDevice, testClasses, testDriver } from '../fixture.ts'

const {
  ah: Ah,
  pd: Pd,
  cq: Cq,
  rc_qp: RcQp,
  comp_channel: CompChannel,
  async_fd: AsyncFd,
  device: Device,
  driver_ops: DriverOps,
  port: Port,
  mr: Mr,
  interface: Interface,
} = Classes

const driverWith = (replacement: ReturnType<typeof driverClass>) =>
  testDriver(testClasses.map(cls => (cls.class.name === replacement.class.name ? replacement : cls)))

const cq = { cqe: 10, userHandle: 1n, compVector: 0 }

test('a new object of any class gets the lowest free handle of its context', () => {
  const { context, caller } = openTestDevice()
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, caller).object, 0)
  assert.equal(invokeNow(context, Cq, 'create', 0, cq, caller).object, 1)
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, caller).object, 2)
  invokeNow(context, Cq, 'destroy', 1, {}, caller)
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, caller).object, 1)
})

test('a handle of another class is EINVAL, an unused handle ENOENT, the destroy of an object in use EBUSY', () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  const qp = { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 0n }
  assert.equal(invokeNow(context, RcQp, 'create', 0, qp, caller).object, 2)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 1, {}, caller)),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 99, {}, caller)),
    'ENOENT',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'EBUSY',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'destroy', 1, {}, caller)),
    'EBUSY',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, RcQp, 'create', 0, { ...qp, pd: 1 }, caller)),
    'EINVAL',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, RcQp, 'create', 0, { ...qp, recvCq: 7 }, caller)),
    'ENOENT',
  )
  invokeNow(context, RcQp, 'destroy', 2, {}, caller)
  invokeNow(context, Cq, 'destroy', 1, {}, caller)
  invokeNow(context, Pd, 'destroy', 0, {}, caller)
  assert.equal(stat(setup.core).objects, 0)
})

test('a queue pair refers to the protection domain and CQs of its own create, not to those of the previous one', () => {
  const { context, caller } = openTestDevice()
  // Handles 0 and 1 are protection domains, 2 and 3 are CQs.
  for (let i = 0; i < 2; i++) invokeNow(context, Pd, 'create', 0, {}, caller)
  for (let i = 0; i < 2; i++) invokeNow(context, Cq, 'create', 0, cq, caller)
  const parentsOfNewQp = ([pd = -1, sendCq = -1, recvCq = -1]: readonly number[]) => {
    const { object = -1 } = invokeNow(context, RcQp, 'create', 0, { pd, sendCq, recvCq, cap, userHandle: 0n }, caller)
    return context.handles.slots[object]!.parents.map(({ handle }) => handle)
  }
  // In each row one handle differs from the row before.
  for (const handles of [
    [0, 2, 2],
    [1, 2, 2],
    [1, 3, 2],
    [1, 3, 3],
  ])
    assert.deepEqual(parentsOfNewQp(handles), handles)
})

test('handles of one context are invalid in another', () => {
  const { context, device, caller } = openTestDevice()
  const otherContext = openContext(device, { isOpened: true })
  invokeNow(context, Pd, 'create', 0, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(otherContext, Pd, 'destroy', 0, {}, caller)),
    'ENOENT',
  )
  assert.equal(invokeNow(otherContext, Pd, 'create', 0, {}, caller).object, 0)
})

test('the device has object number 0, a port its port number', () => {
  const { context, caller } = openTestDevice()
  assert.equal(invokeNow(context, Device, 'query', 0, {}, caller).out.attributes.physPortCnt, 1)
  assert.equal(invokeNow(context, Port, 'query', 1, {}, caller).out.attributes.gidTblLen, 8)
  assert.equal(
    errnoOf(() => invokeNow(context, Device, 'query', 1, {}, caller)),
    'EINVAL',
  )
  for (const number of [0, 2, -1, 0.5])
    assert.equal(
      errnoOf(() => invokeNow(context, Port, 'query', number, {}, caller)),
      'EINVAL',
    )
})

test('a method or class that the device lacks is EOPNOTSUPP', () => {
  const { context, caller } = openTestDevice()
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'query', 0, {}, caller)),
    'EOPNOTSUPP',
  )
  const withoutRcQp = openTestDevice({}, testDriver(testClasses.filter(({ class: { name } }) => name !== 'rc_qp')))
  assert.equal(
    errnoOf(() => invokeNow(withoutRcQp.context, RcQp, 'destroy', 0, {}, withoutRcQp.caller)),
    'EOPNOTSUPP',
  )
})

test('a missing, out-of-range or mistyped argument is refused', () => {
  const { context, caller } = openTestDevice()
  const messageOf = (args: object) => {
    try {
      invokeNow(context, Cq, 'create', 0, args as typeof cq, caller)
      return 'ok'
    } catch (error) {
      return (error as CallError).message
    }
  }
  assert.match(messageOf({ ...cq, cqe: 0 }), /^cq.create: attribute cqe: 0 is below 1$/)
  assert.match(messageOf({ ...cq, cqe: 1.5 }), /cqe: 1.5 is not a whole number from 0 to 4294967295$/)
  assert.match(
    messageOf({ ...cq, compVector: 2 ** 32 }),
    /compVector: 4294967296 is not a whole number from 0 to 4294967295$/,
  )
  assert.match(messageOf({ cqe: 1, compVector: 0 }), /userHandle is missing/)
  assert.equal(
    errnoOf(() =>
      invokeNow(
        context,
        Mr,
        'create',
        0,
        { pd: '0' as unknown as number, start: 0n, length: 0n, iova: 0n, access: 0 },
        caller,
      ),
    ),
    'EINVAL',
  )
})

test('an argument that the driver does not support is refused, also with value 0', () => {
  const replacement = withoutOptions(driverClass(Mr), { kind: 'only memory of the caller' })
  const { context, caller } = openTestDevice({}, driverWith(replacement))
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const region = { pd: 0, start: 0n, length: 0n, iova: 1n, access: 0 }
  assert.equal(
    errnoOf(() => invokeNow(context, Mr, 'create', 0, { ...region, kind: 0 }, caller)),
    'EOPNOTSUPP',
  )
})

test('names from Object.prototype are neither methods nor attributes', () => {
  const { core, context, caller } = openTestDevice()
  const call = (method: string, args: unknown) =>
    errnoOf(() => invokeNow(context, Pd, method as never, 0, args as never, caller))
  for (const name of ['constructor', 'toString', '__proto__', 'polish']) {
    assert.equal(call(name, {}), 'EOPNOTSUPP', name)
    assert.equal(call('create', JSON.parse(`{"${name}": 1}`)), 'EPROTONOSUPPORT', name)
  }
  for (const args of [undefined, null, 'abc', 7]) assert.equal(call('create', args), 'EINVAL', String(args))
  assert.equal(stat(core).objects, 0)
})

test('the error of a wrong value names the path to the value', () => {
  const { context, caller } = openTestDevice()
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  const messageOf = (cls: ObjectClass, method: string, args: object): unknown => {
    try {
      return invokeNow(context, cls, method, 0, args as never, caller)
    } catch (error) {
      assert.ok(error instanceof CallError, `${error}`)
      return error.message
    }
  }
  const qp = { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 0n }
  assert.equal(
    messageOf(Cq, 'create', { ...cq, userHandle: 1 }),
    'cq.create: attribute userHandle: 1 is not a 64-bit number',
  )
  assert.equal(messageOf(RcQp, 'create', { ...qp, cap: null }), 'rc_qp.create: attribute cap: must be a record')
  assert.equal(
    messageOf(RcQp, 'create', { ...qp, cap: { ...cap, maxSendWr: 'x' } }),
    'rc_qp.create: attribute cap.maxSendWr: "x" is not a whole number from 0 to 4294967295',
  )
  assert.equal(
    messageOf(Pd, 'destroyAhs', { handles: [{ handle: 1 }, { handle: -1 }] }),
    'pd.destroyAhs: attribute handles[1].handle: -1 is not a whole number from 0 to 4294967295',
  )
  assert.match(
    String(messageOf(Interface, 'chain', { entries: 'x', onError: 0 })),
    /^interface.chain: attribute entries: must be a Uint8Array/,
  )
  assert.equal(
    messageOf(Pd, 'create', { depth: 5 }),
    'pd.create: the attribute depth is unknown to the device; there are none',
  )
})

test('a call before device.open and a second device.open are refused with EINVAL', () => {
  const setup = openTestDevice()
  const context = openContext(setup.device)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, setup.caller)),
    'EINVAL',
  )
  const opened = invokeNow(context, Device, 'open', 0, { wantAsyncFd: 1 }, setup.caller)
  assert.deepEqual({ ...opened.out }, { numCompVectors: 2, coreSupport: 1n })
  assert.equal(opened.descriptors?.[0].attribute, 'asyncFd')
  assert.equal(context.asyncFd?.handle, opened.descriptors?.[0].object)
  assert.equal(
    errnoOf(() => invokeNow(context, Device, 'open', 0, {}, setup.caller)),
    'EINVAL',
  )
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, setup.caller).object, 0)
})

test('a device.open that fails in the driver leaves no descriptor, and can be repeated', () => {
  let isAllowed = false
  const replacement = driverClass(Device, {
    open(call, object, args, core) {
      const answer = core(call, object, args)
      if (!isAllowed) throw new CallError('ENOMEM', 'no rings')
      return answer
    },
  })
  const setup = openTestDevice({}, driverWith(replacement))
  const context = openContext(setup.device)
  const open = () => invokeNow(context, Device, 'open', 0, { wantAsyncFd: 1 }, setup.caller)
  assert.equal(errnoOf(open), 'ENOMEM')
  assert.deepEqual([context.isOpened, context.asyncFd, stat(setup.core).descriptors], [false, undefined, 0])
  isAllowed = true
  assert.equal(open().descriptors?.[0].object, context.asyncFd?.handle)
})

test('an object of a class with descriptors is named by its descriptor and has no handle (R37)', () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const created = invokeNow(context, CompChannel, 'create', 0, {}, caller)
  assert.equal(created.object, undefined)
  assert.equal(created.descriptors?.[0].attribute, 'object')
  const channel = install(setup, created)
  assert.equal(invokeNow(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller).object, 0)
  assert.equal(channel.uses, 1)
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'create', 0, { ...cq, channel: 4711 }, caller)),
    'EBADF',
  )
  const asyncFd = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  assert.equal(
    errnoOf(() => invokeNow(context, Cq, 'create', 0, { ...cq, channel: asyncFd.handle }, caller)),
    'EBADF',
  )
  const otherContext = openContext(setup.device, { isOpened: true })
  assert.equal(
    errnoOf(() => invokeNow(otherContext, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)),
    'EBADF',
  )
})

test('a create handler that throws leaves nothing behind', () => {
  const replacement = driverClass(Pd, {
    create: () => {
      throw new CallError('ENOMEM', 'no')
    },
  })
  const setup = openTestDevice({}, driverWith(replacement))
  assert.equal(
    errnoOf(() => invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller)),
    'ENOMEM',
  )
  assert.equal(stat(setup.core).objects, 0)
  assert.equal(setup.context.handles.count, 0)
})

test('a driver’s call of core’s method fails with EOPNOTSUPP if core has no such method', () => {
  const replacement = driverClass(Cq, {
    create: (call, object, args, core) => core(call, object, args),
  })
  const setup = openTestDevice({}, driverWith(replacement))
  assert.equal(
    errnoOf(() => invokeNow(setup.context, Cq, 'create', 0, cq, setup.caller)),
    'EOPNOTSUPP',
  )
})

test('a refused destroy leaves the object alive', () => {
  let isAllowed = false
  const replacement = driverClass(Pd, {
    destroy: () => {
      if (!isAllowed) throw new CallError('EBUSY', 'not now')
      return {}
    },
  })
  const { context, caller } = openTestDevice({}, driverWith(replacement))
  invokeNow(context, Pd, 'create', 0, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'EBUSY',
  )
  isAllowed = true
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'ok',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'ENOENT',
  )
})

test('a create beyond the device’s limit for the class is refused with ENOMEM', () => {
  const { context, device, caller } = openTestDevice({ limits: { pd: 2 } })
  const otherContext = openContext(device, { isOpened: true })
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(otherContext, Pd, 'create', 0, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, caller)),
    'ENOMEM',
  )
  closeContext(otherContext)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, caller)),
    'ok',
  )
})

test('classes may share a limit, as queue pairs of all types do (Linux: max_qp)', () => {
  const { context, device, caller } = openTestDevice({ limits: { 'pd cq': 3 } })
  const otherContext = openContext(device, { isOpened: true })
  const cq = { cqe: 1, userHandle: 0n, compVector: 0 }
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  invokeNow(otherContext, Cq, 'create', 0, cq, caller)
  for (const create of [
    () => invokeNow(context, Pd, 'create', 0, {}, caller),
    () => invokeNow(context, Cq, 'create', 0, cq, caller),
  ])
    assert.throws(create, {
      code: 'ENOMEM',
      message: /create: device test0: 3 objects of class pd or cq are in use, of 3; destroy some$/,
    })
  invokeNow(context, Cq, 'destroy', 1, {}, caller)
  assert.equal(invokeNow(context, Pd, 'create', 0, {}, caller).object, 1)
})

// ---- asynchronous handlers ----

/** `opened` resolves after a call of `release`. */
const gate = () => {
  let release = (): void => {}
  const opened = new Promise<void>(resolve => {
    release = resolve
  })
  return { opened, release }
}
/** The code of the CallError with which `promise` rejects; undefined if it resolves. */
const rejection = async (promise: unknown): Promise<string | undefined> => {
  try {
    await promise
    return undefined
  } catch (error) {
    return (error as CallError).code
  }
}

test('during an asynchronous create the parents are busy, and the new object does not exist', async () => {
  const { opened, release } = gate()
  const replacement = driverClass(RcQp, {
    create: async () => {
      await opened
      return { cap, qpNum: 5 }
    },
  })
  const setup = openTestDevice({}, driverWith(replacement))
  const { context, caller } = setup
  invokeNow(context, Pd, 'create', 0, {}, caller)
  invokeNow(context, Cq, 'create', 0, cq, caller)
  const qp = invoke(context, RcQp, 'create', 0, { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 0n }, caller)
  assert.equal(stat(setup.core).waiting, 1)
  const classes = [{ id: RcQp.id }]
  assert.deepEqual(invokeNow(context, Device, 'queryHandles', 0, { classes }, caller).out.handles, [])
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'EBUSY',
  )
  assert.equal(
    errnoOf(() => invokeNow(context, RcQp, 'destroy', 2, {}, caller)),
    'ENOENT',
  )
  release()
  assert.equal((await qp).object, 2)
  assert.equal(
    errnoOf(() => invokeNow(context, RcQp, 'destroy', 2, {}, caller)),
    'ok',
  )
  assert.deepEqual([stat(setup.core).waiting, context.handles.slots[1]?.uses], [0, 0])
})

test('during an asynchronous destroy the object is busy, and after a refusal alive', async () => {
  const { opened, release } = gate()
  const replacement = driverClass(Pd, {
    destroy: async () => {
      await opened
      throw new CallError('EBUSY', 'still draining')
    },
  })
  const { context, caller } = openTestDevice({}, driverWith(replacement))
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const destroyed = invoke(context, Pd, 'destroy', 0, {}, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroy', 0, {}, caller)),
    'EBUSY',
  )
  release()
  assert.equal(await rejection(destroyed), 'EBUSY')
  assert.equal(context.handles.slots[0]?.life, Lifecycle.LIVE)
})

test('during an asynchronous create a descriptor is ENOENT, during an asynchronous destroy EBUSY', async () => {
  const { opened, release } = gate()
  const wait = async () => {
    await opened
    return {}
  }
  const { context, caller, core } = openTestDevice(
    {},
    driverWith(driverClass(DriverOps, { create: wait, destroy: wait })),
  )
  const creating = invoke(context, DriverOps, 'create', 0, {}, caller)
  const [descriptor = -1] = core.descriptors.keys()
  const query = () => invokeNow(context, DriverOps, 'query', descriptor, {}, caller)
  assert.equal(errnoOf(query), 'ENOENT')
  release()
  await creating
  const destroying = invoke(context, DriverOps, 'destroy', descriptor, {}, caller)
  assert.equal(errnoOf(query), 'EBUSY')
  await destroying
  assert.equal(errnoOf(query), 'EBADF')
})

for (const [name, why, end] of [
  ['the context is closed', 'close', ({ context }: ReturnType<typeof openTestDevice>) => closeContext(context)],
  ['the device is removed', 'remove', ({ device }: ReturnType<typeof openTestDevice>) => unregister(device)],
] as const)
  test(`after ${name}, the refusal of an asynchronous destroy runs the handler again`, async () => {
    const { opened, release } = gate()
    const destroyed: string[] = []
    const replacement = driverClass(Pd, {
      destroy(call, { handle }) {
        destroyed.push(`${call.why} ${handle}`)
        if (call.why !== 'call') return {}
        return opened.then(() => {
          throw new CallError('EBUSY', 'still draining')
        })
      },
    })
    const setup = openTestDevice({}, driverWith(replacement))
    invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller)
    const pd = setup.context.handles.slots[0]!
    const destroying = invoke(setup.context, Pd, 'destroy', 0, {}, setup.caller)
    end(setup)
    release()
    assert.equal(await rejection(destroying), 'EBUSY')
    assert.equal(pd.life, Lifecycle.DESTROYED)
    assert.deepEqual(destroyed, ['call 0', `${why} 0`])
    assert.deepEqual([stat(setup.core).objects, stat(setup.core).faults], [0, 0])
  })

test('an override that fails after core’s createAhs keeps no address handles', () => {
  const replacement = driverClass(Pd, {
    createAhs(call, object, args, core) {
      core(call, object, args)
      throw new CallError('ENOMEM', 'no numbers')
    },
  })
  const ahClass = driverClass(Ah, { create: () => ({}) })
  const { classes } = driverWith(replacement)
  const setup = openTestDevice({}, testDriver(classes.map(cls => (cls.class.name === 'ah' ? ahClass : cls))))
  const { context, caller, core } = setup
  invokeNow(context, Pd, 'create', 0, {}, caller)
  const addresses = [{ ...zeroRecord(QpAddress), port: 1 }]
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'createAhs', 0, { addresses }, caller)),
    'ENOMEM',
  )
  assert.deepEqual([stat(core).objects, context.handles.slots[0]?.uses], [1, 0])
})

test('an override that fails after core’s getEvent leaves the event on the descriptor', async () => {
  for (const isAsynchronous of [false, true]) {
    const replacement = driverClass(AsyncFd, {
      getEvent(call, object, args, core) {
        core(call, object, args)
        const error = new CallError('ENOMEM', 'no numbers')
        if (isAsynchronous) return Promise.reject(error)
        throw error
      },
    })
    const { context, device, caller } = openTestDevice({}, driverWith(replacement))
    invokeNow(context, AsyncFd, 'create', 0, {}, caller)
    const { handle, sink } = context.asyncFd!
    raisePort(device, 1, AsyncEventType.values.PORT_ERR)
    const reading = (async () => invoke(context, AsyncFd, 'getEvent', handle, {}, caller))()
    assert.equal(await rejection(reading), 'ENOMEM')
    assert.equal(sink.unread(), 1)
  }
})

/** A protection domain whose address handles are created and destroyed asynchronously. */
const asyncAhs = (beforeCreate: () => void = () => {}) => {
  const replacement = driverClass(Ah, {
    create: async () => {
      await undefined
      beforeCreate()
      return {}
    },
    destroy: async () => {
      await undefined
      return {}
    },
  })
  const { context, caller, core } = openTestDevice({}, driverWith(replacement))
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object as number
  const addresses = Array.from({ length: 3 }, () => ({ ...zeroRecord(QpAddress), port: 1 }))
  const create = () => invoke(context, Pd, 'createAhs', pd, { addresses }, caller)
  const assertOnlyPd = () => assert.deepEqual([stat(core).objects, context.handles.slots[pd]?.uses], [1, 0])
  return { context, caller, pd, create, assertOnlyPd }
}

test('an asynchronous createAhs that fails at one address handle leaves none', async () => {
  let creates = 0
  const { create, assertOnlyPd } = asyncAhs(() => {
    if (++creates === 3) throw new CallError('ENOMEM', 'no room')
  })
  await assert.rejects(async () => create(), { code: 'ENOMEM', message: /^entry 2: / })
  assertOnlyPd()
})

test('an asynchronous destroyAhs destroys no address handle if the create of one has not ended', async () => {
  const { context, caller, pd, create } = asyncAhs()
  const [existing] = (await create()).out.handles
  const creating = create()
  const { handle } = context.handles.slots.find(object => object?.life === Lifecycle.CREATING)!
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'destroyAhs', pd, { handles: [existing!, { handle }] }, caller)),
    'ENOENT',
  )
  assert.equal(context.handles.slots[existing!.handle]?.life, Lifecycle.LIVE)
  await creating
})

test('during an asynchronous destroyAhs all its address handles are busy', async () => {
  const { context, caller, pd, create, assertOnlyPd } = asyncAhs()
  const { handles } = (await create()).out
  assert.equal(handles.length, 3)
  const destroyed = invoke(context, Pd, 'destroyAhs', pd, { handles }, caller)
  assert.equal(
    errnoOf(() => invokeNow(context, Ah, 'destroy', handles[2]!.handle, {}, caller)),
    'EBUSY',
  )
  await destroyed
  assertOnlyPd()
})

test('a destroy waits until every sink with events of the object is prepared, at most three times', async () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const asyncFd = install(setup, invokeNow(context, AsyncFd, 'create', 0, {}, caller))
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  const prepared: string[] = []
  /** The descriptor's sink has something to prepare `times` times. */
  const attach = (fd: FdObject, times: number): void => {
    let left = times
    const prepareWithdraw = () => {
      if (left-- <= 0) return undefined
      return Promise.resolve().then(() => void prepared.push(fd.class.name))
    }
    attachSink(fd, { ...createEventQueue(), prepareWithdraw })
  }
  const destroyWithEvent = async () => {
    const { object = -1 } = invokeNow(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)
    raiseObjectEvent(context.handles.slots[object]!, AsyncEventType.values.CQ_ERR)
    prepared.length = 0
    const destroying = invoke(context, Cq, 'destroy', object, {}, caller)
    assert.equal(context.handles.count, 1)
    assert.deepEqual({ ...(await destroying).out }, { compEvents: 0, asyncEvents: 0 })
    return prepared.join(' ')
  }
  attach(channel, 1)
  attach(asyncFd, 1)
  assert.equal(await destroyWithEvent(), 'comp_channel async_fd')
  attach(channel, 9)
  assert.equal(await destroyWithEvent(), 'comp_channel comp_channel comp_channel')
})

test('a call on a descriptor of another context is refused without preparing the descriptor’s sink', () => {
  const setup = openTestDevice()
  const fd = install(setup, invokeNow(setup.context, AsyncFd, 'create', 0, {}, setup.caller))
  let preparations = 0
  const prepareWithdraw = (): undefined => {
    preparations++
  }
  attachSink(fd, { post() {}, prepareWithdraw, withdraw: () => [], unread: () => 0, take: () => [], end() {} })
  const otherContext = openContext(setup.device, { isOpened: true })
  assert.equal(
    errnoOf(() => invokeNow(otherContext, AsyncFd, 'query', fd.handle, {}, setup.caller)),
    'EBADF',
  )
  assert.equal(preparations, 0)
})

for (const [name, end] of [
  ['the context is closed', ({ context }: ReturnType<typeof openTestDevice>) => closeContext(context)],
  ['the device is removed', ({ device }: ReturnType<typeof openTestDevice>) => unregister(device)],
] as const)
  test(`an asynchronous create fails with EIO and leaves nothing if ${name}`, async () => {
    const calls: string[] = []
    const replacement = driverClass(Pd, {
      create({ context }) {
        calls.push('create')
        return new Promise(resolve =>
          abortSignalOf(context).addEventListener('abort', () => resolve({}), { once: true }),
        )
      },
      destroy: ({ why }) => {
        calls.push(why)
        return {}
      },
    })
    const setup = openTestDevice({}, driverWith(replacement))
    const created = invoke(setup.context, Pd, 'create', 0, {}, setup.caller)
    end(setup)
    assert.equal(await rejection(created), 'EIO')
    assert.deepEqual([stat(setup.core).objects, stat(setup.core).waiting, setup.context.handles.count], [0, 0, 0])
    assert.equal(
      errnoOf(() => invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller)),
      'EIO',
    )
    assert.deepEqual(calls, ['create', 'undo'])
  })

test('during the removal of a device no handler starts, and an asynchronous create that ends fails with EIO', async () => {
  const { opened, release } = gate()
  let creates = 0
  const replacement = driverClass(Pd, {
    async create() {
      creates++
      await opened
      return {}
    },
  })
  const { context, caller, core, device } = openTestDevice({}, driverWith(replacement))
  const { deferredJobs, runJob } = deferJobs(core)
  const created = invoke(context, Pd, 'create', 0, {}, caller)
  unregister(device)
  assert.equal(
    errnoOf(() => invokeNow(context, Pd, 'create', 0, {}, caller)),
    'EIO',
  )
  release()
  assert.equal(await rejection(created), 'EIO')
  assert.deepEqual([creates, context.handles.count], [1, 0])
  for (const job of deferredJobs) runJob(job)
  assert.equal(stat(core).faults, 0)
})

test('a descriptor that is closed during an asynchronous call is destroyed at the end of the call', async () => {
  const { opened, release } = gate()
  const replacement = driverClass(Cq, {
    async create() {
      await opened
      throw new CallError('ENOMEM', 'no room')
    },
  })
  const setup = openTestDevice({}, driverWith(replacement))
  const { context, caller, core } = setup
  const channel = install(setup, invokeNow(context, CompChannel, 'create', 0, {}, caller))
  const creating = invoke(context, Cq, 'create', 0, { ...cq, channel: channel.handle }, caller)
  closeDescriptor(core, channel.handle)
  assert.equal(stat(core).descriptors, 1)
  release()
  assert.equal(await rejection(creating), 'ENOMEM')
  assert.deepEqual([stat(core).descriptors, stat(core).objects], [0, 0])
})
