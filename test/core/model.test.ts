/*
 * Random calls in several contexts, compared with a simple model of objects.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type Context,
  closeContext,
  closeDescriptor,
  findKey,
  invokeNow,
  openContext,
  stat,
  unregister,
} from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AccessFlags } from '../../src/spec/enums.ts'
import type { ObjectClass } from '../../src/spec/schema/schema.ts'
import { cap, errnoOf, openTestDevice } from './fixture.ts'

interface ModelObject {
  readonly class: string
  readonly parents: readonly ModelObject[]
  readonly key?: number
}
interface ModelContext {
  readonly context: Context
  readonly handles: Map<number, ModelObject>
  /** Objects by descriptor number. A closed descriptor stays while an object uses it. */
  readonly descriptors: Map<number, { object: ModelObject; isClosed: boolean }>
}

const uses = (model: ModelContext, object: ModelObject): number =>
  [...model.handles.values()].reduce((n, { parents }) => n + parents.filter(parent => parent === object).length, 0)

const lowest = (handles: Map<number, unknown>): number => {
  let handle = 0
  while (handles.has(handle)) handle++
  return handle
}

/** A call or another action. Its numbers are handles or random choices. */
interface Step {
  readonly action: string
  readonly contextIndex: number
  readonly handle: number
  readonly secondHandle: number
  readonly choice: number
}
const anyAction = fc.constantFrom(
  ...['pd', 'pd', 'cq', 'cq', 'mr', 'mr', 'rc_qp', 'rc_qp', 'comp_channel', 'destroy', 'destroy', 'destroy', 'destroy'],
  ...['close descriptor', 'open', 'close'],
)
const anyStep: fc.Arbitrary<Step> = fc.record({
  action: anyAction,
  contextIndex: fc.nat(5),
  handle: fc.nat(12),
  secondHandle: fc.nat(12),
  choice: fc.nat(3),
})
/** The caller's number of the channel that a new CQ names. */
const CHANNEL_FD = 7
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = AccessFlags.values
const ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC
const classes: readonly ObjectClass[] = [Classes.pd, Classes.cq, Classes.mr, Classes.rc_qp]

const run = (steps: readonly Step[]): void => {
  const setup = openTestDevice()
  const { core, device, caller } = setup
  const address = BigInt(caller.memory.add(new Uint8Array(4096)))
  const staleKeys = new Set<number>()
  const models: ModelContext[] = []
  const open = (): void => {
    models.push({ context: openContext(device, { isOpened: true }), handles: new Map(), descriptors: new Map() })
  }
  closeContext(setup.context)
  open()

  const removeObject = (model: ModelContext, handle: number): void => {
    const { key } = model.handles.get(handle)!
    if (key !== undefined) staleKeys.add(key)
    model.handles.delete(handle)
    // a closed channel is destroyed with the last CQ that uses it
    for (const [number, { object, isClosed }] of model.descriptors)
      if (isClosed && uses(model, object) === 0) model.descriptors.delete(number)
  }

  /** The object of class `cls` with this handle, or the expected errno. */
  const lookUp = (model: ModelContext, handle: number, cls: string): string | ModelObject => {
    const found = model.handles.get(handle)
    if (found === undefined) return 'ENOENT'
    return found.class === cls ? found : 'EINVAL'
  }

  const expectedOfDestroy = (model: ModelContext, found: string | ModelObject): string => {
    if (typeof found === 'string') return found
    return uses(model, found) > 0 ? 'EBUSY' : 'ok'
  }

  /** `named` has the result of `lookUp` for each reference in `args`. */
  const create = (model: ModelContext, cls: ObjectClass, args: object, named: (string | ModelObject)[]): void => {
    const refused = named.find(found => typeof found === 'string')
    let handle: number | undefined
    let key: number | undefined
    const errno = errnoOf(() => {
      const result = invokeNow(model.context, cls, 'create', 0, args as never, caller)
      handle = result.object
      key = (result.out as { lkey?: number }).lkey
    })
    assert.equal(errno, refused ?? 'ok', `${cls.name}.create`)
    if (refused !== undefined) return
    assert.equal(handle, lowest(model.handles))
    if (key !== undefined) assert.ok(!staleKeys.has(key), 'a key was used twice')
    const parents = named as ModelObject[]
    model.handles.set(handle!, { class: cls.name, parents, ...(key === undefined ? {} : { key }) })
  }

  const runStep = (model: ModelContext, { action, handle, secondHandle, choice }: Step): void => {
    if (action === 'pd') create(model, Classes.pd, {}, [])
    else if (action === 'cq') {
      const all = [...model.descriptors]
      const pick = all.length === 0 ? undefined : all[choice % all.length]
      if (pick !== undefined) caller.fds.set(CHANNEL_FD, pick[0])
      const named = pick === undefined ? [] : [pick[1].isClosed ? 'EBADF' : pick[1].object]
      create(model, Classes.cq, { cqe: 1, userHandle: 1n, compVector: 0, ...(pick && { channel: CHANNEL_FD }) }, named)
    } else if (action === 'mr') {
      const args = { pd: handle, start: address, length: 9n, iova: address, access: ACCESS }
      create(model, Classes.mr, args, [lookUp(model, handle, 'pd')])
    } else if (action === 'rc_qp') {
      const [sendCq, recvCq] = [secondHandle, choice]
      const named = [lookUp(model, handle, 'pd'), lookUp(model, sendCq, 'cq'), lookUp(model, recvCq, 'cq')]
      create(model, Classes.rc_qp, { pd: handle, sendCq, recvCq, cap, userHandle: 0n }, named)
    } else if (action === 'comp_channel') {
      const result = invokeNow(model.context, Classes.comp_channel, 'create', 0, {}, caller)
      model.descriptors.set(result.descriptors![0].object, { object: { class: action, parents: [] }, isClosed: false })
    } else if (action === 'destroy') {
      // usually the handle's class, sometimes another class
      const actual = classes.find(cls => cls.name === model.handles.get(handle)?.class)
      const cls = choice > 0 && actual !== undefined ? actual : classes[secondHandle % classes.length]
      const expected = expectedOfDestroy(model, lookUp(model, handle, cls.name))
      assert.equal(
        errnoOf(() => invokeNow(model.context, cls, 'destroy', handle, {} as never, caller)),
        expected,
        `destroy ${handle}`,
      )
      if (expected === 'ok') removeObject(model, handle)
    } else if (action === 'close descriptor') {
      const number = [...model.descriptors.keys()][choice]
      if (number === undefined) return
      closeDescriptor(core, number)
      const entry = model.descriptors.get(number)!
      entry.isClosed = true
      if (uses(model, entry.object) === 0) model.descriptors.delete(number)
    } else if (action === 'close' && models.length > 1) {
      closeContext(model.context)
      for (const { key } of model.handles.values()) if (key !== undefined) staleKeys.add(key)
      models.splice(models.indexOf(model), 1)
    } else if (action === 'open' && models.length < 4) open()
  }

  const compare = (): void => {
    const counts: Record<string, number> = {}
    let descriptors = 0
    for (const { context, handles, descriptors: fds } of models) {
      for (const { class: name } of handles.values()) counts[name] = (counts[name] ?? 0) + 1
      if (fds.size > 0) counts.comp_channel = (counts.comp_channel ?? 0) + fds.size
      descriptors += fds.size
      for (const [handle, expected] of handles) {
        const object = context.handles.slots[handle]
        assert.equal(object?.class.name, expected.class)
        assert.equal(object?.uses, uses({ context, handles, descriptors: fds }, expected))
      }
    }
    const now = stat(core)
    assert.deepEqual(now.devices.test0.objects, counts)
    assert.equal(now.devices.test0.regions, counts.mr ?? 0)
    assert.equal(now.descriptors, descriptors)
    assert.equal(now.contexts, models.length)
    for (const key of staleKeys) assert.equal(findKey(device.memory, key), -1)
  }

  for (const step of steps) {
    runStep(models[step.contextIndex % models.length], step)
    compare()
  }
  unregister(device)
  assert.deepEqual([stat(core).descriptors, stat(core).faults, device.memory.liveKeys], [0, 0, 0])
  assert.ok(Object.values(device.counts).every(count => count === 0))
  // The driver removes queue pairs and CQs.
  const remaining = models.flatMap(({ handles }) => [...handles.values()])
  assert.equal(
    setup.log.filter(line => line.startsWith('remove')).length,
    remaining.filter(object => object.class === 'cq' || object.class === 'rc_qp').length,
  )
}

test('random creates, destroys and closes agree with the model, and removal leaves nothing', () => {
  fc.assert(fc.property(fc.array(anyStep, { maxLength: 120, size: 'max' }), run), { numRuns: 300 })
})
