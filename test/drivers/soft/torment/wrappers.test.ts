/*
 * A wrapper of a record has all its members (src/base/wrapper.ts): torment of the engine's environment, torment and
 * faults of ports. The compiler finds a wrapper that does not name a member; this test finds one that names it wrongly.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { AllMembers } from '../../../../src/base/wrapper.ts'
import { createTorment } from '../../../../src/drivers/soft/torment/torment.ts'
import type {
  Causes,
  Choices,
  Environment,
  Events,
  FrameSink,
  Memory,
  WorkSource,
  WorkTaps,
} from '../../../../src/transport/engine/types.ts'
import { withFaults } from '../../../../src/transport/phy/faults/layer.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../../src/transport/phy/memory.ts'
import type { Port } from '../../../../src/transport/phy/port.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { machine } from '../../rxe/machine.ts'
import { seedWith } from '../../torment-seeds.ts'

/** The names of all members; `names` is complete, or it does not compile. */
const namesOf = <T>(names: Record<keyof T, true>): (keyof T)[] => Object.keys(names) as (keyof T)[]

/** A record whose members are functions; they write their names to `calls`. */
const spies = <T>(names: readonly (keyof T)[], calls: (keyof T)[]): T =>
  Object.fromEntries(names.map(name => [name, () => calls.push(name)])) as T

/** A call of each member reaches the wrapped member, except members that the wrapper implements itself or lacks. */
const assertForwards = <T>(
  names: readonly (keyof T)[],
  wrap: (inner: T) => T,
  { own = [], lacks = [] }: { readonly own?: readonly (keyof T)[]; readonly lacks?: readonly (keyof T)[] } = {},
): void => {
  const calls: (keyof T)[] = []
  const outer = wrap(spies(names, calls))
  for (const name of names) {
    const member = outer[name]
    assert.equal(member === undefined, lacks.includes(name), String(name))
    if (typeof member !== 'function' || own.includes(name)) continue
    calls.length = 0
    member(0, 0, 0, 0, 0, 0, 0, 0)
    assert.ok(calls.includes(name), `${String(name)} does not reach the wrapped member`)
  }
}

const memoryNames = namesOf<Memory>({
  resolve: true,
  explain: true,
  grants: true,
  read: true,
  isScattered: true,
  rangeAccesses: true,
  hasProcessEnded: true,
  hasTimedOut: true,
  injectedFault: true,
  write: true,
  completeWrites: true,
  locate: true,
  canLocate: true,
  resolveAndLocate: true,
  copyLocated: true,
  compareSwap: true,
  fetchAdd: true,
  bindWindow: true,
  explainBind: true,
  invalidate: true,
})
const eventNames = namesOf<Events>({ raise: true })
const workNames = namesOf<WorkSource>({
  loadSend: true,
  retireSend: true,
  copyInline: true,
  takeReceive: true,
  selectShared: true,
})

const scratch = plainArena(4096)
const torment = createTorment({ seed: seedWith('packet', 0.5), maxDecisions: Number.POSITIVE_INFINITY }, scratch)
const { device } = machine(1).devices[0]
const attach = (memory: Memory) => torment.attach(device, memory, () => ({ push: () => {} }))

/** Only what `environment` reads. */
const environmentOf = (parts: Partial<Environment>) => ({ work: {}, events: {}, ...parts }) as Environment

it('torment of an environment', () => {
  const plain: AllMembers<Environment> = {
    localDevice: { state: undefined } as Environment['localDevice'],
    pkeys: new Uint16Array(1),
    grh: { path: 0, header: () => 0 },
    frames: {} as FrameSink,
    work: spies(workNames, []),
    memory: spies(memoryNames, []),
    completions: { push: () => {} },
    events: spies(eventNames, []),
    causes: {} as Causes,
    choices: {} as Choices,
    taps: {} as WorkTaps,
    now: () => 0,
    refusesLongDatagrams: true,
  }
  const attached = attach(plain.memory)
  const wrapped = attached.environment(plain as Environment)
  for (const name of Object.keys(plain) as (keyof Environment)[]) {
    const isReplaced = ['memory', 'completions', 'events', 'choices', 'work'].includes(name)
    assert.equal(wrapped[name] !== plain[name], isReplaced, name)
    assert.notEqual(wrapped[name], undefined, name)
  }
  attached.close()
})

it('torment of events', () => {
  const attached = attach(spies(memoryNames, []))
  const environment = (events: Events) => attached.environment(environmentOf({ events }))
  assertForwards<Events>(eventNames, events => environment(events).events)
  attached.close()
})

it('torment of memory', () => {
  assertForwards<Memory>(memoryNames, memory => attach(memory).environment(environmentOf({})).memory, {
    own: ['completeWrites', 'write'],
    lacks: ['locate', 'canLocate', 'resolveAndLocate', 'copyLocated'],
  })
})

it('torment of work requests', () => {
  const attached = attach(spies(memoryNames, []))
  assertForwards<WorkSource>(workNames, work => attached.environment(environmentOf({ work })).work)
  attached.close()
})

const bytes = memorySwitchBytes(2, 2)
const memoryPort = (): AllMembers<Port> => {
  const port = createMemorySwitch({
    arena: plainArena(bytes),
    runs: 2,
    smallRuns: 2,
    path: 'direct',
    icrc: 'demand',
  }).attach()
  const others = {
    windowBytes: 1,
    sharedWindowBytes: 1,
    pathBytes: 1,
    maxSinglePacketRun: 1,
    maxFlows: 1,
    setInterface: () => {},
    hopLimitOf: () => undefined,
    routerTo: () => undefined,
    links: {
      crosses: () => false,
      lostAt: () => {},
      heldClass: () => undefined,
      lossOf: () => undefined,
    },
  }
  return { ...port, ...others, wake: () => {}, receiver: {}, tap: () => {} } as AllMembers<Port>
}
/** What an owner may set after the port was wrapped. */
const settable = ['wake', 'receiver', 'tap'] as const

for (const [name, wrap] of [
  ['faults', (port: Port) => withFaults(port, 'rxe0')],
  ['torment', (port: Port) => torment.port(port, 'rxe0')],
  ['faults under torment', (port: Port) => torment.port(withFaults(port, 'rxe0'), 'rxe0')],
] as const)
  it(`${name} of a port`, () => {
    const inner = memoryPort()
    const outer = wrap(inner as Port)
    assert.notEqual(outer, inner)
    for (const member of Object.keys(inner) as (keyof Port)[])
      if (member !== 'tap') assert.notEqual(outer[member], undefined, member)
    for (const member of settable) {
      const value = () => {}
      outer[member] = value
      assert.equal(outer[member], value, member)
    }
    assert.equal(inner.wake, outer.wake)
    Object.assign(inner, { windowBytes: 2, sharedWindowBytes: 3 })
    assert.deepEqual([outer.windowBytes, outer.sharedWindowBytes], [2, 3])
  })
