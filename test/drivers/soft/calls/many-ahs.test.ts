/*
 * One call creates or destroys many address handles, all or none (R25).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addHook, invokeNow } from '../../../../src/core/index.ts'
import { Ah } from '../../../../src/spec/classes/ah.ts'
import { ChainErrors, Interface } from '../../../../src/spec/classes/device/interface.ts'
import { Pd } from '../../../../src/spec/classes/pd.ts'
import { Errno } from '../../../../src/spec/errno.ts'
import type { AnyValues, ObjectClass } from '../../../../src/spec/schema/schema.ts'
import { type ChainLink, encodeChain } from '../../../../src/uapi/object/chain.ts'
import { assertNothingLeft, ipv4, machine, path, program } from '../../rxe/machine.ts'

const setUp = () => {
  const m = machine()
  const p = program(m)
  const create = (addresses: ReturnType<typeof path>[], pd = p.pd) =>
    invokeNow(p.context, Pd, 'createAhs', pd, { addresses }, p.caller)
  const destroy = (handles: { handle: number }[], pd = p.pd) =>
    invokeNow(p.context, Pd, 'destroyAhs', pd, { handles }, p.caller)
  return { m, p, create, destroy }
}
const peers = (count: number) => Array.from({ length: count }, (_, i) => path(ipv4(10, 0, i >> 8, i & 0xff)))

test('one call creates 10,000 address handles with distinct handles and numbers, and one call destroys them', () => {
  const { m, p, create, destroy } = setUp()
  const { out } = create(peers(10_000))
  const { numbers } = out as unknown as { numbers: { number: number }[] }
  assert.equal(new Set(out.handles.map(({ handle }) => handle)).size, 10_000)
  assert.equal(new Set(numbers.map(({ number }) => number)).size, 10_000)
  const last = 9_999
  const { handle } = out.handles[last]
  const { dgid } = invokeNow(p.context, Ah, 'query', handle, {}, p.caller).out.address
  assert.deepEqual(dgid, ipv4(10, 0, last >> 8, last & 0xff))
  // byte 14 of the GID is the third byte of the IPv4 address
  assert.equal(m.devices[0].device.state.ahs.get(numbers[last].number)?.address.dgid[14], last >> 8)
  assert.equal(m.devices[0].device.state.ahs.size, 10_000)
  destroy(out.handles)
  assert.equal(m.devices[0].device.state.ahs.size, 0)
  p.close()
  assertNothingLeft(m, [p])
})

test('all address handles of a call are created or none, and all are destroyed or none', () => {
  const { m, p, create, destroy } = setUp()
  const { ahs } = m.devices[0].device.state
  assert.throws(() => create([...peers(5), path(ipv4(10, 0, 0, 1), { port: 9 })]), {
    code: 'EINVAL',
    message: /^entry 5: ah.create: .*port 9/,
  })
  assert.equal(ahs.size, 0)
  const { handles } = create(peers(3)).out
  const other = invokeNow(p.context, Pd, 'create', 0, {}, p.caller).object!
  assert.throws(() => destroy([...handles, { handle: 999 }]), { code: 'ENOENT', message: /entry 3: handle 999/ })
  assert.throws(() => destroy([...handles, handles[0]]), { code: 'ENOENT', message: /entry 3: .* named twice/ })
  assert.throws(() => destroy([{ handle: p.pd }]), { code: 'EINVAL', message: /is of class pd, not ah/ })
  assert.throws(() => destroy(handles, other), { code: 'EINVAL', message: /another protection domain/ })
  assert.equal(ahs.size, 3)
  destroy(handles.slice(0, 2))
  assert.equal(ahs.size, 1)
  assert.deepEqual(create([]).out.handles, [])
})

test('a hook is called for each address handle; if it throws once, none is created', () => {
  const { m, p, create } = setUp()
  let calls = 0
  const remove = addHook(p.rxe.device, {
    class: 'ah',
    method: 'create',
    pre() {
      if (++calls > 2) throw new Error('the hook is broken')
    },
  })
  assert.throws(() => create(peers(4)), /the hook is broken/)
  assert.equal(m.devices[0].device.state.ahs.size, 0)
  remove()
  assert.equal(create(peers(4)).out.handles.length, 4)
})

test("a call's address handles are destroyed again if its chain fails, or if the output is too short for the handles", () => {
  const { m, p } = setUp()
  const { UNDO, STOP } = ChainErrors.values
  /** `fields.object` is the number of the entry that creates the object of the call. */
  const entry = (
    cls: ObjectClass,
    methodName: string,
    args: AnyValues,
    fields: Partial<ChainLink> = {},
  ): ChainLink => ({
    call: { class: cls, methodName, method: cls.methods[methodName], object: 0, args },
    ...fields,
  })
  const createPd = entry(Pd, 'create', {})
  const createAhs = entry(Pd, 'createAhs', { addresses: peers(3) }, { object: 0 })
  const run = (entries: ChainLink[], onError: number) =>
    invokeNow(p.context, Interface, 'chain', 0, { entries: encodeChain(entries), onError }, p.caller).out
  const destroyBusyPd = entry(Pd, 'destroy', {}, { object: 0 })
  const { ahs } = m.devices[0].device.state
  assert.deepEqual([run([createPd, createAhs, destroyBusyPd], UNDO).error, ahs.size], [Errno.EBUSY, 0])
  // 8 bytes of output: less than 3 handles need
  const shortOutput = entry(
    Pd,
    'createAhs',
    { addresses: peers(3) },
    { object: 0, options: { outputBuffers: { handles: 8 } } },
  )
  assert.deepEqual([run([createPd, shortOutput], STOP).error, ahs.size], [Errno.ENOSPC, 0])
  assert.deepEqual([run([createPd, createAhs], UNDO).error, ahs.size], [0, 3])
  // In a PD that exists before the chain. The second call fails, because entry 9 does not exist; the three address
  // handles of the chain above remain.
  const { call } = entry(Pd, 'createAhs', { addresses: peers(3) })
  assert.equal(run([{ call: { ...call, object: p.pd } }, entry(Pd, 'destroy', {}, { object: 9 })], UNDO).done, 1)
  assert.equal(ahs.size, 3)
  p.close()
  assertNothingLeft(m, [p])
})
