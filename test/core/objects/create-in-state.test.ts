/*
 * Creation of a queue pair directly in a state (R7), with a driver whose modify may be asynchronous.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { affiliate, closeContext, driverClass, invoke, invokeNow, stat, unregister } from '../../../src/core/index.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { callError } from '../../../src/spec/errno.ts'
import { the } from '../../../src/spec/reason.ts'
import { cap, openTestDevice, testClasses, testDriver } from '../fixture.ts'

const { pd: Pd, cq: Cq, ud_qp: UdQp } = Classes
const { INIT, RTR, RTS } = QpState.values

/**
 * A device whose UD queue pairs call `modify` with the state of each transition, and `createHandler` when they are
 * created. `log` has these states, and why queue pairs were destroyed. A handler is asynchronous if its function
 * returns a promise.
 */
const setUp = (
  modify: (state: number | undefined) => void | Promise<void> = () => {},
  createHandler: () => void | Promise<void> = () => {},
) => {
  const log: unknown[] = []
  const udQp = driverClass(UdQp, {
    create(_call, object, { userHandle }) {
      affiliate(object, userHandle)
      const result = { cap, qpNum: 20 }
      return createHandler()?.then(() => result) ?? result
    },
    modify(_call, _object, { state }) {
      log.push(state)
      return modify(state)?.then(() => ({})) ?? {}
    },
    destroy(call, object, args, core) {
      log.push(call.why)
      return core(call, object, args)
    },
  })
  const setup = openTestDevice({}, testDriver(testClasses.map(cls => (cls.class.id === UdQp.id ? udQp : cls))))
  const { context, caller } = setup
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const cq = invokeNow(context, Cq, 'create', 0, { cqe: 1, userHandle: 0n, compVector: 0 }, caller).object!
  const create = (args: object) =>
    invoke(context, UdQp, 'create', 0, { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n, ...args }, caller)
  return { ...setup, create, log }
}

/** Attributes of the transition to INIT. */
const initial = { pkeyIndex: 0, port: 1, qkey: 1 }

test('a create runs the transitions to its state and checks their attributes, whatever an earlier create passed', () => {
  const { create, log } = setUp()
  create({ state: INIT, ...initial })
  assert.deepEqual(log.splice(0), [INIT])
  create({ state: RTR, ...initial })
  assert.deepEqual(log.splice(0), [INIT, RTR])
  assert.throws(() => create({ state: RTR, pkeyIndex: 0, port: 1 }), { code: 'EINVAL', message: /qkey/ })
  create({ state: RTR, ...initial })
  // As many attributes as the create before, but others.
  assert.throws(() => create({ state: RTR, pkeyIndex: 0, port: 1, sqPsn: 0 }), { code: 'EINVAL', message: /qkey/ })
  log.length = 0
  // without a state
  assert.throws(() => create(initial), {
    code: 'EINVAL',
    message: /attribute state is missing; attributes pkeyIndex, port, qkey require it/,
  })
  create({})
  assert.deepEqual(log, [])
})

test('the transitions of an asynchronous modify run one after another, and a failed one destroys the queue pair', async () => {
  let refused: number | undefined
  const { core, create, log } = setUp(async state => {
    await undefined
    if (state === refused) throw callError.EAGAIN`${the.method('ud_qp.modify')}: not now`
  })
  const args = { state: RTS, ...initial, sqPsn: 0 }
  await create(args)
  assert.deepEqual(log.splice(0), [INIT, RTR, RTS])
  refused = RTR
  await assert.rejects(async () => create(args), { code: 'EAGAIN', message: 'ud_qp.create: not now' })
  assert.deepEqual(log, [INIT, RTR, 'undo'])
  assert.deepEqual(stat(core).devices.test0?.objects, { pd: 1, cq: 1, ud_qp: 1 })
})

test('no transition follows if the context is closed during the create, or the device removed during a modify', async () => {
  const args = { state: RTS, ...initial, sqPsn: 0 }
  const slowCreate = setUp(undefined, () => Promise.resolve())
  const creating = slowCreate.create(args)
  closeContext(slowCreate.context)
  await assert.rejects(async () => creating, { code: 'EIO' })
  assert.deepEqual(slowCreate.log, ['undo'])
  const slowModify = setUp(() => Promise.resolve())
  const modifying = slowModify.create(args)
  unregister(slowModify.device)
  await assert.rejects(async () => modifying, { code: 'EIO' })
  assert.deepEqual(slowModify.log, [INIT, 'undo'])
  for (const { core } of [slowCreate, slowModify]) assert.equal(stat(core).faults, 0)
})
