/*
 * Chains of calls (R16).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type ChainedCall, runTypedChain } from '../../../src/core/dispatch/chain-calls.ts'
import {
  addHook,
  completed,
  createCore,
  createDescriptor,
  type Device,
  dispatch,
  driverClass,
  invoke,
  invokeNow,
  Lifecycle,
  openContext,
  readEvents,
  register,
  unregister,
} from '../../../src/core/index.ts'
import { nullMemory } from '../../../src/core/memory/address-space.ts'
import { Armed, type EventsRead } from '../../../src/core/model.ts'
import { onUndelivered } from '../../../src/core/undelivered.ts'
import { ChainErrors } from '../../../src/spec/classes/device/interface.ts'
import { QpAddress } from '../../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { MrKind } from '../../../src/spec/enums.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { decodeReason } from '../../../src/spec/reason.ts'
import {
  type AnyValues,
  CHAIN,
  CREATE,
  DESTROY,
  fd,
  method,
  type ObjectClass,
  objectClass,
  optional,
  zeroRecord,
} from '../../../src/spec/schema/schema.ts'
import { type ChainEntry, type ChainLink, chainEntries, encodeChain } from '../../../src/uapi/object/chain.ts'
import { decodeResult, type EncodeOptions, encodeCall } from '../../../src/uapi/object/client.ts'
import { decodeObject } from '../../../src/uapi/object/dialect.ts'
import {
  cap,
  channelWithEvent,
  describeDevice,
  errnoOf,
  install,
  openTestDevice,
  type TestSetup,
  testCaller,
  testClasses,
  testDriver,
} from '../fixture.ts'

const { interface: Interface, pd: Pd, ah: Ah, mr: Mr, cq: Cq, rc_qp: RcQp } = Classes
const { port: Port, comp_channel: Channel, async_fd: AsyncFd, event_queue: EventQueue, driver_ops: DriverOps } = Classes
const { STOP, UNDO } = ChainErrors.values

/** The method is called on the object of entry `objectOf`, or on the object with handle `handle`. */
const link = (
  cls: ObjectClass,
  methodName: string,
  args: AnyValues,
  options: { objectOf?: number; handle?: number; refs?: Record<string, number>; options?: EncodeOptions } = {},
): ChainLink => ({
  call: { class: cls, methodName, method: cls.methods[methodName], object: options.handle ?? 0, args },
  ...(options.objectOf !== undefined && { object: options.objectOf }),
  ...(options.refs !== undefined && { refs: options.refs }),
  ...(options.options !== undefined && { options: options.options }),
})
const pd = () => link(Pd, 'create', {})
const cq = (cqe = 4) => link(Cq, 'create', { cqe, userHandle: 1n, compVector: 0 })
const qp = (pdEntry: number, cqEntry: number) =>
  link(RcQp, 'create', { cap, userHandle: 2n }, { refs: { pd: pdEntry, sendCq: cqEntry, recvCq: cqEntry } })

const run = ({ context, caller }: TestSetup, links: readonly ChainLink[], onError: number = STOP) => {
  const { out } = invokeNow(context, Interface, 'chain', 0, { entries: encodeChain(links), onError }, caller)
  const reason = out.reason === undefined ? undefined : decodeReason(new TextDecoder().decode(out.reason)).text()
  return { ...out, reason, entries: chainEntries(out.results) }
}
/** Offsets of fields of a message. */
const [HANDLE_AT, FLAGS_AT] = [4, 12]
const handleOf = (entry: ChainEntry): number =>
  new DataView(entry.message.buffer, entry.message.byteOffset).getUint32(HANDLE_AT, true)
const live = ({ context }: TestSetup): string[] =>
  context.handles.slots.flatMap(object => (object === undefined ? [] : [`${object.class.name} ${object.handle}`]))

test('entries can use objects of earlier entries, and each entry has an answer', () => {
  const setup = openTestDevice()
  const { done, error, entries } = run(setup, [pd(), cq(), qp(0, 1), pd()])
  assert.deepEqual([done, error, live(setup)], [4, 0, ['pd 0', 'cq 1', 'rc_qp 2', 'pd 3']])
  assert.deepEqual(entries.map(handleOf), [0, 1, 2, 3])
  const answer = decodeResult(qp(0, 1).call, entries[2].message)
  assert.deepEqual(answer.out.cap, cap)
  assert.deepEqual(
    setup.context.handles.slots[2]?.parents.map(parent => parent.handle),
    [0, 1, 1],
  )
})

test('the result of a chain names the created objects that still exist', () => {
  const { context, caller } = openTestDevice()
  const entries = encodeChain([pd(), link(Pd, 'destroy', {}, { objectOf: 0 }), pd(), cq()])
  const { createdObjects } = invokeNow(context, Interface, 'chain', 0, { entries, onError: STOP }, caller)
  assert.deepEqual(createdObjects, [0, 1])
})

test('an entry can register a file of the caller', () => {
  const setup = openTestDevice()
  const caller = { ...setup.caller, openFile: () => ({ space: nullMemory, close() {} }) }
  const range = { start: 0n, length: 4096n, iova: 0n, access: 0 }
  const mr = link(Mr, 'create', { ...range, kind: MrKind.values.FILE, file: 5 }, { refs: { pd: 0 } })
  assert.equal(run({ ...setup, caller }, [pd(), mr]).done, 2)
})

test('a method can be called on an object that the chain created', () => {
  const setup = openTestDevice()
  const { done, error } = run(setup, [cq(), link(Cq, 'reqNotify', { solicitedOnly: 0 }, { objectOf: 0 })])
  assert.deepEqual([done, error, setup.context.handles.slots[0]?.events?.armed], [2, 0, Armed.NEXT])
  assert.equal(run(setup, [cq(), link(Cq, 'destroy', {}, { objectOf: 0 }), pd()]).done, 3)
  assert.deepEqual(live(setup), ['cq 0', 'pd 1'])
})

test('a destroy in a chain reports how many of the object’s events the caller has read', () => {
  const setup = openTestDevice()
  const { caller } = setup
  const { channel, cq: handle } = channelWithEvent(setup)
  readEvents(channel)
  const reported: [number, EventsRead][] = []
  const watching = {
    ...caller,
    eventsRead: ({ handle }: { handle: number }, read: EventsRead) => reported.push([handle, read]),
  }
  assert.equal(run({ ...setup, caller: watching }, [link(Cq, 'destroy', {}, { handle })]).done, 1)
  assert.deepEqual(reported, [[handle, { compEvents: 1, asyncEvents: 0 }]])
})

test('events taken by an entry whose answer does not fit are put back', () => {
  const setup = openTestDevice()
  const { context, caller } = setup
  const queue = install(setup, invokeNow(context, EventQueue, 'create', 0, {}, caller))
  const { object: cq = -1 } = invokeNow(context, Cq, 'create', 0, { cqe: 4, userHandle: 1n, compVector: 0 }, caller)
  invokeNow(context, EventQueue, 'attach', queue.handle, { cookie: 7n, cq }, caller)
  invokeNow(context, Cq, 'reqNotify', cq, { solicitedOnly: 0 }, caller)
  completed(context.handles.slots[cq]!.events!, false)
  const getEvents = (bytes: number) =>
    link(EventQueue, 'getEvents', { max: 1 }, { handle: queue.handle, options: { outputBuffers: { events: bytes } } })
  assert.deepEqual([run(setup, [getEvents(8)]).error, queue.sink.unread()], [Errno.ENOSPC, 1])
  assert.deepEqual([run(setup, [getEvents(24)]).error, queue.sink.unread()], [0, 0])
})

test('objects created by an entry whose answer does not fit are destroyed', () => {
  const ah = driverClass(Ah, { create: () => ({}) })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class === Ah ? ah : cls))))
  const address = zeroRecord(QpAddress)
  const createAhs = (bytes: number) =>
    link(
      Pd,
      'createAhs',
      { addresses: [address, address] },
      { objectOf: 0, options: { outputBuffers: { handles: bytes } } },
    )
  const { done, error } = run(setup, [pd(), createAhs(8), createAhs(4)])
  assert.deepEqual([done, error, live(setup)], [2, Errno.ENOSPC, ['pd 0', 'ah 1', 'ah 2']])
})

test('the first failure stops the chain: earlier results stay, later entries do not run', () => {
  const setup = openTestDevice()
  const { done, error, reason, entries } = run(setup, [pd(), link(Pd, 'destroy', {}, { handle: 77 }), pd()])
  assert.deepEqual([done, error, live(setup)], [1, Errno.ENOENT, ['pd 0']])
  assert.match(reason ?? '', /pd\.destroy: there is no object with handle 77/)
  assert.equal(entries[2].message[FLAGS_AT], 0, 'not answered')
})

test('UNDO destroys all objects of a failed chain, in reverse order', () => {
  const setup = openTestDevice()
  const before = live(setup)
  const { done, error } = run(setup, [pd(), cq(), qp(0, 1), link(Channel, 'create', {}), pd(), qp(3, 1)], UNDO)
  assert.deepEqual([done, error, live(setup)], [5, Errno.EINVAL, before])
  assert.deepEqual(setup.log, ['undo rc_qp 2', 'undo cq 1'])
  assert.equal(setup.context.descriptors.size, 0)
})

test('UNDO destroys a region before the newer protection domain to which the region was moved', () => {
  const setup = openTestDevice()
  const start = BigInt(setup.caller.memory.add(new Uint8Array(64)))
  const destroyed: string[] = []
  addHook(setup.device as Device, {
    method: 'destroy',
    post(_call, object, _args, _out, error) {
      if (object === undefined || error !== undefined) return
      const { class: cls, handle, parents } = object
      destroyed.push(`${cls.name} ${handle} of ${parents.map(parent => parent.life)}`)
    },
  })
  const mr = link(Mr, 'create', { start, length: 64n, iova: start, access: 1 }, { refs: { pd: 0 } })
  const modify = link(Mr, 'modify', {}, { objectOf: 1, refs: { pd: 2 } })
  const destroyBusyPd = link(Pd, 'destroy', {}, { objectOf: 2 })
  const { done } = run(setup, [pd(), mr, pd(), modify, destroyBusyPd], UNDO)
  assert.deepEqual([done, live(setup)], [4, []])
  // the region's parent is live when the region is destroyed
  assert.deepEqual(destroyed, [`mr 1 of ${Lifecycle.LIVE}`, 'pd 0 of ', 'pd 2 of '])
})

test('UNDO also destroys descriptors that a handler created in addition', () => {
  const create = method(CREATE, { in: {}, out: { events: optional(fd(64, 'async_fd')) } })
  const withEvents = objectClass('with_events', 0x8001, {
    methods: { create, destroy: method(DESTROY, { in: {}, out: {} }) },
  })
  const handlers = driverClass(withEvents, {
    create: call => ({ events: createDescriptor(call, 'async_fd') }),
    destroy: () => ({}),
  })
  const setup = openTestDevice({}, testDriver([...testClasses, handlers]))
  const { error } = run(setup, [link(withEvents, 'create', {}), link(Pd, 'destroy', {}, { objectOf: 0 })], UNDO)
  assert.deepEqual([error, live(setup), setup.context.descriptors.size], [Errno.EINVAL, [], 0])
})

test('after an exception that is no refusal, the chain leaves no objects and takes no events', () => {
  const failing = driverClass(RcQp, {
    create: () => {
      throw new TypeError('a bug')
    },
  })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class === RcQp ? failing : cls))))
  const { channel } = channelWithEvent(setup)
  const before = live(setup)
  const getEvent = link(Channel, 'getEvent', {}, { handle: channel.handle })
  assert.throws(() => run(setup, [pd(), cq(), getEvent, qp(0, 1)]), /a bug/)
  assert.deepEqual([live(setup), channel.sink.unread()], [before, 1])
})

test('what very many entries took is put back, the newest first', () => {
  const setup = openTestDevice()
  const taken: number[] = []
  addHook(setup.device as Device, {
    class: 'pd',
    post: (call, object) => onUndelivered(call, () => void taken.push(object!.handle)),
  })
  const entries = encodeChain(Array.from({ length: 20_000 }, pd))
  const { putBack } = invokeNow(setup.context, Interface, 'chain', 0, { entries, onError: STOP }, setup.caller)
  putBack!()
  assert.deepEqual(
    taken,
    Array.from({ length: 20_000 }, (_, i) => 19_999 - i),
  )
})

test('a chain that takes longer than `maxCallTime` continues in steps', async () => {
  const jobs: Iterator<unknown>[] = []
  let time = 0
  const core = createCore({ now: () => time, maxCallTime: 250, run: job => void jobs.push(job) })
  const device = register(core, describeDevice('slow'))
  const context = openContext(device as Device, { isOpened: true })
  addHook(device as Device, {
    class: 'pd',
    pre() {
      time += 100
    },
  })
  const start = (links: readonly ChainLink[], onError: number) => {
    const entries = encodeChain(links)
    const result = invoke(context, Interface, 'chain', 0, { entries, onError }, testCaller())
    assert.ok(result instanceof Promise)
    return result
  }
  const creates = Array.from({ length: 6 }, pd)
  const runJobs = (): number => {
    let steps = 0
    for (const job of jobs.splice(0)) while (job.next().done !== true) steps++
    return steps
  }

  const result = start(creates, STOP)
  assert.equal(context.handles.count, 3)
  // each of the other three entries takes 100 µs, which count as 4 steps of 30 µs (STEP_TIME)
  assert.equal(runJobs(), 12)
  const { out, createdObjects } = await result
  assert.deepEqual([out.done, out.error, createdObjects], [6, 0, [0, 1, 2, 3, 4, 5]])

  invokeNow(context, Pd, 'create', 0, {}, testCaller())
  const ofUndone = start([...creates, link(Pd, 'destroy', {}, { objectOf: 9 })], UNDO)
  // another call destroys one of the chain's objects during the undo
  addHook(device as Device, {
    class: 'pd',
    method: 'destroy',
    post({ why }) {
      if (why === 'undo' && context.handles.count === 12) invokeNow(context, Pd, 'destroy', 8, {}, testCaller())
    },
  })
  // three creates and five destroys; one of the destroys takes 200 µs, which count as 7 steps
  assert.equal(runJobs(), 7 * 4 + 7)
  const undone = (await ofUndone).out
  assert.deepEqual([undone.done, undone.error, context.handles.count], [6, Errno.EINVAL, 7])

  const ofRemoved = start(creates, STOP)
  unregister(device)
  runJobs()
  await assert.rejects(ofRemoved, { code: 'EIO' })
  assert.equal(context.handles.count, 0)
})

test('UNDO refuses entries that cannot be undone, before the first entry runs', () => {
  const setup = openTestDevice()
  run(setup, [cq()])
  assert.throws(
    () => run(setup, [pd(), link(Cq, 'reqNotify', { solicitedOnly: 0 }, { handle: 0 })], UNDO),
    /entry 1 of the chain: cq\.reqNotify of an object that the chain does not create cannot be undone/,
  )
  assert.deepEqual(live(setup), ['cq 0'])
})

test('UNDO accepts queries', () => {
  const setup = openTestDevice()
  // ENOSPC and ENODATA are errors of the queries themselves
  assert.equal(run(setup, [link(Interface, 'query', {}, { options: { outputBuffers: {} } })], UNDO).error, Errno.ENOSPC)
  const { device: Device } = Classes
  const cases = [
    link(Device, 'queryGidTable', {}),
    link(Device, 'queryHandles', { classes: [{ id: Cq.id }] }),
    link(Device, 'queryDriverOps', {}),
    link(Device, 'queryClock', {}),
  ]
  assert.equal(run(setup, cases, UNDO).done, 4)
  assert.equal(run(setup, [link(Port, 'queryGidEntry', { index: 0 }, { handle: 1 })], UNDO).error, Errno.ENODATA)
})

test('an invalid reference to an entry is refused with the reason', () => {
  /** The number of entries that succeeded, the errno (2: ENOENT, 22: EINVAL) and the reason. */
  const outcomeOf = (links: ChainLink[]) => {
    const { done, error, reason } = run(openTestDevice(), links)
    return `${done} ${error} ${reason}`
  }
  assert.match(outcomeOf([qp(1, 1), pd()]), /^0 22 .*attribute pd: entry 1 of the chain did not create an object/)
  assert.match(
    outcomeOf([pd(), cq(), link(Cq, 'destroy', {}, { objectOf: 1 }), qp(0, 2)]),
    /^3 22 .*attribute sendCq: entry 2 of the chain did not create an object/,
  )
  assert.match(
    outcomeOf([pd(), cq(), link(Cq, 'destroy', {}, { objectOf: 1 }), qp(0, 1)]),
    /^3 2 .*sendCq: the object that entry 1 created was destroyed/,
  )
  assert.match(outcomeOf([pd(), qp(0, 0)]), /^1 22 .*sendCq: entry 0 of the chain created a pd, not a cq/)
  assert.match(outcomeOf([cq(), link(Pd, 'destroy', {}, { objectOf: 0 })]), /^1 22 .*entry 0 .* a cq, not a pd/)
  // the handle of the cq, 1, is a port's number too
  assert.match(outcomeOf([pd(), cq(), link(Port, 'query', {}, { objectOf: 1 })]), /^2 22 .*entry 1 .* a cq, not a port/)
  assert.match(outcomeOf([pd(), { ...pd(), object: 0 }]), /^1 22 .*creates an object/)
})

test('a reference to an entry is refused outside a chain, and for an attribute that is no reference', () => {
  const setup = openTestDevice()
  const entries = encodeChain([pd(), cq(), qp(0, 1)])
  const message = chainEntries(entries)[2].message
  const memory = new Map([[4096n, message]])
  const caller = { ...setup.caller, copyIn: (address: bigint, length: number) => memory.get(address)!.slice(0, length) }
  const answer = dispatch(setup.context, decodeObject, [CREATE, 4096n], caller)
  assert.ok(!(answer instanceof Promise))
  assert.equal(answer.ret, -Errno.EINVAL)
  assert.match(String(answer.reason), /this is not a chain/)
  const { error, reason } = run(setup, [
    pd(),
    link(Cq, 'create', { userHandle: 0n, compVector: 0 }, { refs: { cqe: 1 } }),
  ])
  assert.equal(error, Errno.EINVAL, reason)
})

test('a chain in a chain is refused', () => {
  const inner = link(Interface, 'chain', { entries: encodeChain([pd()]), onError: STOP })
  const { done, error, reason } = run(openTestDevice(), [pd(), inner])
  assert.deepEqual([done, error], [1, Errno.EINVAL])
  assert.match(reason ?? '', /a chain in a chain/)
})

/** Runs a chain from memory. The answers overwrite the message and the entries. */
const runFromMemory = (setup: TestSetup, links: readonly ChainLink[]) => {
  const entries = encodeChain(links)
  const at = 0x10000n
  const call = { class: Interface, methodName: 'chain', method: Interface.methods.chain, object: 0 }
  const message = encodeCall(
    { ...call, args: { entries, onError: STOP } },
    { inputAddresses: { entries: at }, outputBuffers: { results: { address: at, length: entries.length } } },
  )
  const memory = new Map([
    [0x1000n, message],
    [at, entries],
  ])
  const caller = {
    ...setup.caller,
    copyIn: (address: bigint, length: number) => memory.get(address)!.slice(0, length),
    copyOut: (address: bigint, data: Uint8Array) => memory.get(address)!.set(data),
  }
  const answer = dispatch(setup.context, decodeObject, [CHAIN, 0x1000n], caller)
  assert.ok(!(answer instanceof Promise))
  return { answer, entries: chainEntries(memory.get(at)!), at }
}

test('entries can use descriptors of earlier entries, and each descriptor’s number is written to its entry’s answer', () => {
  const setup = openTestDevice()
  const withChannel = link(
    Cq,
    'create',
    { cqe: 4, userHandle: 9n, compVector: 0 },
    { refs: { channel: 1, asyncFd: 2 } },
  )
  const { answer, entries, at } = runFromMemory(setup, [
    pd(),
    link(Channel, 'create', {}),
    link(AsyncFd, 'create', {}),
    withChannel,
  ])
  assert.equal(answer.ret, 0)
  const numbers = [...setup.context.descriptors].map(fd => fd.handle)
  assert.deepEqual(
    answer.installs.map(({ descriptor, address, width }) => [descriptor.object, address, width]),
    [1, 2].map((entry, i) => [numbers[i], at + BigInt(entries[entry].at + HANDLE_AT), 4]),
  )
  const events = setup.context.handles.slots[1]?.events
  assert.deepEqual([events?.route.channel?.handle, events?.route.asyncFd?.handle], numbers)
})

test('a descriptor that the chain creates and destroys is not passed to the caller', () => {
  const setup = openTestDevice({}, { ...testDriver(), interfaces: { test: {} } })
  const { answer, entries, at } = runFromMemory(setup, [
    link(DriverOps, 'create', {}),
    link(Channel, 'create', {}),
    link(DriverOps, 'destroy', {}, { objectOf: 0 }),
  ])
  assert.equal(answer.ret, 0)
  const [channel] = setup.context.descriptors
  assert.deepEqual(
    answer.installs.map(({ descriptor, address }) => [descriptor.object, address]),
    [[channel?.handle, at + BigInt(entries[1].at + HANDLE_AT)]],
  )
})

test('a chain with changed or missing bytes runs or is refused with EINVAL', () => {
  const good = encodeChain([pd(), cq(), qp(0, 1), link(Cq, 'reqNotify', { solicitedOnly: 1 }, { objectOf: 1 })])
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 }),
      fc.nat(good.length),
      fc.constantFrom(STOP, UNDO),
      (changes, length, onError) => {
        const setup = openTestDevice()
        const entries = good.slice(0, length)
        for (const [at, value] of changes) if (at < length) entries[at] = value
        const code = errnoOf(() => {
          const { out } = invokeNow(setup.context, Interface, 'chain', 0, { entries, onError }, setup.caller)
          assert.equal(out.results.length, entries.length)
          if (out.error !== 0 && onError === UNDO) assert.deepEqual(live(setup), [])
          else assert.ok(live(setup).length <= out.done)
        })
        assert.match(code, /^(ok|EINVAL)$/)
      },
    ),
    { numRuns: 500 },
  )
})

// ---- chains of typed calls ----

/** `object`: a handle, or -1, -2, … for the object of entry 0, 1, … */
const typed = (
  cls: ObjectClass,
  name: string,
  args: AnyValues,
  { object = 0, refs }: { object?: number; refs?: Record<string, number> } = {},
): ChainedCall => ({ chainedMethod: { class: cls, name, method: cls.methods[name]! }, args, object, refs })
const typedPd = typed(Pd, 'create', {})
const typedCq = (cqe = 4) => typed(Cq, 'create', { cqe, userHandle: 1n, compVector: 0 })
const typedQp = typed(RcQp, 'create', { cap, userHandle: 2n }, { refs: { pd: 0, sendCq: 1, recvCq: 1 } })

test('a chain of typed calls runs completely, or leaves no objects', () => {
  const ah = driverClass(Ah, { create: () => ({}) })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class === Ah ? ah : cls))))
  const { context, caller } = setup
  const runTyped = (...calls: ChainedCall[]) => {
    const { results, error } = runTypedChain(context, calls, caller)!
    return [results.length, error?.code]
  }
  const createAhs = typed(
    Pd,
    'createAhs',
    { addresses: [0, 1].map(() => ({ ...zeroRecord(QpAddress), port: 1 })) },
    {
      object: -1,
    },
  )
  assert.deepEqual(runTyped(typedPd, createAhs, typedCq(0)), [2, 'EINVAL'])
  assert.deepEqual(runTyped(typedPd, typedCq(), typedQp, typed(Cq, 'destroy', {}, { object: -2 })), [3, 'EBUSY'])
  assert.deepEqual(runTyped(typedPd, typed(Pd, 'create', {}, { object: -1 })), [1, 'EINVAL'])
  assert.deepEqual(live(setup), [])
  assert.deepEqual(runTyped(typedPd, typedCq(), typedQp), [3, undefined])
  assert.deepEqual(live(setup), ['pd 0', 'cq 1', 'rc_qp 2'])
  assert.throws(() => runTyped(typedPd, typed(RcQp, 'destroy', {}, { object: 2 })), {
    code: 'EINVAL',
    message: /^entry 1 of the chain: rc_qp\.destroy .* cannot be undone$/,
  })
  assert.equal(live(setup).length, 3)
  addHook(setup.device as Device, { class: 'interface', method: 'chain', pre() {} })
  assert.equal(runTypedChain(context, [typedPd], caller), undefined)
})

test('an asynchronous call in a chain of typed calls is refused, and leaves no objects when it ends', async () => {
  for (const isRefused of [false, true]) {
    const ends: (() => void)[] = []
    const slowQp = driverClass(RcQp, {
      async create() {
        await new Promise<void>(end => ends.push(end))
        if (isRefused) throw new CallError('ENOMEM', 'no room')
        return { cap, qpNum: 5 }
      },
    })
    const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class === RcQp ? slowQp : cls))))
    const outcome = runTypedChain(setup.context, [typedPd, typedCq(), typedQp], setup.caller)!
    assert.deepEqual([outcome.error?.code, outcome.isAsynchronous], ['EOPNOTSUPP', true])
    assert.deepEqual(live(setup), ['pd 0', 'cq 1', 'rc_qp 2'])
    for (const end of ends) end()
    await new Promise(setImmediate)
    assert.deepEqual(live(setup), [])
  }
})
