/*
 * Methods and Q_Keys that need CAP_NET_RAW, as in Linux.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { affiliate, type Caller, driverClass, invokeNow } from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { Errno } from '../../src/spec/errno.ts'
import { encodeChain } from '../../src/uapi/object/chain.ts'
import { cap, errnoOf, openTestDevice, testClasses, testDriver } from './fixture.ts'

const { flow: Flow, ud_qp: UdQp, raw_packet_qp: RawPacketQp, pd: Pd, cq: Cq, interface: Interface } = Classes

const privilegedClasses = [
  driverClass(Flow, { create: () => ({}), destroy: (call, object, args, core) => core(call, object, args) }),
  ...[UdQp, RawPacketQp].map(cls =>
    driverClass(cls as typeof UdQp, {
      create(_call, object, { userHandle }) {
        affiliate(object, userHandle)
        return { cap, qpNum: 20 }
      },
      modify: () => ({}),
    }),
  ),
]
const otherClasses = testClasses.filter(({ class: { id } }) => !privilegedClasses.some(other => other.class.id === id))

const setUp = (driverClasses: readonly (typeof testClasses)[number][] = [...otherClasses, ...privilegedClasses]) => {
  const setup = openTestDevice({}, testDriver(driverClasses))
  const pd = invokeNow(setup.context, Pd, 'create', 0, {}, setup.caller).object!
  const cq = invokeNow(setup.context, Cq, 'create', 0, { cqe: 1, userHandle: 0n, compVector: 0 }, setup.caller).object!
  return { ...setup, qp: { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n } }
}
const rule = { type: 0, priority: 0, port: 1, flags: 0, specs: [] }

/** The caller with or without CAP_NET_RAW; if `isCapable` is undefined, capabilities are not checked. */
const withCapability = (caller: Caller, isCapable: boolean | undefined): Caller => ({
  ...caller,
  ...(isCapable !== undefined && { allows: () => isCapable }),
})

test('flow steering and raw packet queue pairs need CAP_NET_RAW', () => {
  const { context, caller, qp, device } = setUp()
  const udQp = invokeNow(context, UdQp, 'create', 0, qp, withCapability(caller, false)).object!
  for (const [isCapable, errno] of [
    [false, 'EPERM'],
    [true, 'ok'],
    [undefined, 'ok'],
  ] as const) {
    const callerWithCapability = withCapability(caller, isCapable)
    assert.equal(
      errnoOf(() => invokeNow(context, Flow, 'create', 0, { ...rule, udQp }, callerWithCapability)),
      errno,
    )
    assert.equal(
      errnoOf(() => invokeNow(context, RawPacketQp, 'create', 0, qp, callerWithCapability)),
      errno,
    )
  }
  assert.equal(device.counts.flow, 2, 'refused calls leave no flow')
  assert.throws(() => invokeNow(context, Flow, 'create', 0, { ...rule, udQp }, withCapability(caller, false)), {
    code: 'EPERM',
    message: /flow\.create: the process lacks CAP_NET_RAW; run it as root/,
  })
})

test('flow steering in a chain needs CAP_NET_RAW', () => {
  const { context, caller, qp } = setUp()
  const udQp = invokeNow(context, UdQp, 'create', 0, qp, caller).object!
  const method = context.device.schema.classByName('flow')!.methods.create
  const call = { class: Flow, methodName: 'create', method, object: 0, args: { ...rule, udQp } }
  const entries = encodeChain([{ call }])
  const errorOf = (isCapable: boolean) =>
    invokeNow(context, Interface, 'chain', 0, { entries, onError: 0 }, withCapability(caller, isCapable)).out.error
  assert.deepEqual([errorOf(false), errorOf(true)], [Errno.EPERM, 0])
})

test('a class that the device lacks is refused with EOPNOTSUPP, with and without CAP_NET_RAW', () => {
  const { context, caller, qp } = setUp(
    otherClasses.filter(({ class: { name } }) => name !== 'flow' && name !== 'raw_packet_qp'),
  )
  for (const isCapable of [false, true]) {
    const callerWithCapability = withCapability(caller, isCapable)
    assert.equal(
      errnoOf(() => invokeNow(context, Flow, 'create', 0, rule, callerWithCapability)),
      'EOPNOTSUPP',
    )
    assert.equal(
      errnoOf(() => invokeNow(context, RawPacketQp, 'create', 0, qp, callerWithCapability)),
      'EOPNOTSUPP',
    )
  }
})

/** A Q_Key is controlled if its most significant bit is 1 (IBA 10.2.5). */
const [UNCONTROLLED_QKEY, CONTROLLED_QKEY] = [0x7fff_ffff, 0x8000_0000]

test('controlled Q_Keys need CAP_NET_RAW, unless the system permits them to every user', () => {
  const { context, caller, qp, device } = setUp()
  const { object } = invokeNow(context, UdQp, 'create', 0, qp, caller)
  const set = (qkey: number, isCapable: boolean | undefined): string =>
    errnoOf(() => invokeNow(context, UdQp, 'modify', object!, { qkey }, withCapability(caller, isCapable)))
  assert.deepEqual([set(UNCONTROLLED_QKEY, false), set(CONTROLLED_QKEY, false)], ['ok', 'EPERM'])
  assert.deepEqual([set(CONTROLLED_QKEY, true), set(CONTROLLED_QKEY, undefined)], ['ok', 'ok'])
  device.core.allowsPrivilegedQkeys = true
  assert.equal(set(CONTROLLED_QKEY, false), 'ok')
})
