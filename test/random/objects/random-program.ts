/*
 * Random programs of several processes (R23). A carrier and the reference execute each step, and their errnos, handles,
 * results and events must be equal.
 *
 * A step is a seed that determines all its random choices: fast-check can then remove steps from a failing program.
 * `run` is a generator because some carriers are asynchronous.
 */
import assert from 'node:assert/strict'
import { Armed } from '../../../src/core/model.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { createRandomSource } from '../model/random.ts'
import type { Answer, Facts, Op, Process } from './carriers/carrier.ts'
import { type Entry, performChain } from './chain.ts'
import { type CallSite, drawCall, drawChain, drawOnDescriptor } from './random-calls.ts'
import {
  closeFd,
  complete,
  endDevice,
  endOpening,
  type ModelDevice,
  type ModelObject,
  NO_HANDLE,
  newDevice,
  newOpening,
  type Opening,
  raise,
  raisePort,
} from './reference.ts'
import { type Outcome, perform, readRecord } from './rules.ts'

type Run = Generator<Op, void, Answer>

const { DEVICE_FATAL, PORT_ACTIVE, PORT_ERR, CQ_ERR, QP_FATAL, COMM_EST } = AsyncEventType.values
const DEVICES = ['rxe0', 'rxe1']
const MAX_PROCESSES = 4
const MAX_OPENINGS = 3

interface State {
  readonly facts: Facts
  readonly devices: (ModelDevice | undefined)[]
  readonly processes: Process[]
}

// ---- calls ----

/** Compares the results that the reference knows. A key in a chain is not known yet, and undefined in `expected`. */
const assertResults = (expected: Answer['out'], actual: Answer['out'], title: string): void => {
  for (const [name, value] of Object.entries(expected))
    if (value !== undefined) assert.deepEqual(actual[name], value, `${title}: ${name}`)
}

/** Records the key or QPN that the real subsystem chose. */
const recordNumbers = (modelObject: ModelObject, out: Answer['out'], title: string): void => {
  const key = out.lkey ?? out.rkey
  if (typeof key === 'number') {
    assert.ok(!modelObject.home.device.staleKeys.has(key), `${title}: key ${key} was used twice`)
    modelObject.key = key
  }
  if (modelObject.qp !== undefined && modelObject.qp.qpn === 0) {
    modelObject.qp.qpn = out.qpNum as number
    modelObject.domain?.targets.set(modelObject.qp.qpn, modelObject.qp)
  }
}

const compareCall = (process: Process, expected: Outcome, actual: Answer, title: string): void => {
  assert.equal(actual.code, expected.code, title)
  if (expected.code !== 'ok') return
  assertResults(expected.out, actual.out, title)
  const { modelObject } = expected
  if (modelObject === undefined) return
  recordNumbers(modelObject, actual.out, title)
  if (modelObject.handle >= 0) assert.equal(actual.object, modelObject.handle, `${title}: handle`)
  else {
    assert.equal(actual.fds.length, 1, `${title}: descriptors`)
    process.fds.set(actual.fds[0], modelObject)
  }
}

function* call(site: CallSite, onDescriptor: boolean): Run {
  const { process, opening } = site
  const drawn = onDescriptor ? drawOnDescriptor(site) : drawCall(site)
  if (drawn === undefined) return
  const { cls, method, object, args, fd } = drawn
  const modelObject = fd === undefined ? undefined : process.fds.get(fd)
  const home = modelObject?.home ?? opening
  const scope = { opening: home, fds: process.fds }
  const expected = perform(scope, cls, method, modelObject ?? object, args)
  const actual = yield {
    do: 'call',
    process,
    opening: home,
    ...(fd !== undefined && { fd }),
    cls,
    methodName: method,
    object,
    args,
  }
  compareCall(process, expected, actual, `${cls.name}.${method} ${fd === undefined ? object : `on ${fd}`}`)
}

function* chain(site: CallSite): Run {
  const { process, opening } = site
  const { entries, undo } = drawChain(site)
  const expected = performChain({ opening, fds: process.fds }, entries, undo)
  const actual = yield { do: 'chain', process, opening, entries, undo }
  const title = `chain${undo ? ' (undo)' : ''} ${entries.map(nameOf).join(', ')}`
  assert.equal(actual.code, expected.code, title)
  if (expected.code !== 'ok') return
  assertResults({ done: expected.done, error: expected.error }, actual.out, title)
  if (undo && expected.error !== 0) return
  const fds = [...actual.fds]
  const results = actual.out.entries as unknown as readonly Answer[]
  expected.outcomes.forEach(({ modelObject, out }, i) => {
    assertResults(out, results[i].out, `${title}: entry ${i}`)
    if (modelObject === undefined) return
    if (modelObject.handle === NO_HANDLE) process.fds.set(fds.shift() as number, modelObject)
    else assert.equal(results[i].object, modelObject.handle, `${title}: handle of entry ${i}`)
    recordNumbers(modelObject, results[i].out, title)
  })
  assert.equal(fds.length, 0, `${title}: descriptors`)
}

const nameOf = ({ cls, methodName, targetEntry, refs }: Entry): string =>
  `${cls.name}.${methodName}${targetEntry === undefined ? '' : `@${targetEntry}`}(${JSON.stringify(refs)})`

// ---- processes ----

/** Number of descriptors, in all processes, that refer to the object. */
const countCopies = ({ processes }: State, modelObject: ModelObject): number =>
  processes.reduce((n, { fds }) => n + [...fds.values()].filter(object => object === modelObject).length, 0)

function* closeDescriptor(state: State, process: Process, fd: number): Run {
  const modelObject = process.fds.get(fd) as ModelObject
  const isLast = countCopies(state, modelObject) === 1
  process.fds.delete(fd)
  if (isLast) closeFd(modelObject)
  yield { do: 'closeFd', process, fd, isLast }
}

function* closeOpening(process: Process, opening: Opening): Run {
  process.openings.delete(opening)
  opening.holders--
  if (opening.holders === 0 && !opening.hasEnded) endOpening(opening)
  yield { do: 'close', process, opening }
}

function* end(state: State, process: Process): Run {
  for (const fd of [...process.fds.keys()]) yield* closeDescriptor(state, process, fd)
  for (const opening of [...process.openings]) yield* closeOpening(process, opening)
  state.processes.splice(state.processes.indexOf(process), 1)
  yield { do: 'end', process }
}

function* readDescriptor({ random, facts, process }: CallSite): Run {
  // A daemon (raisesEvents is false) leaves records in the sockets of a removed device's descriptors: they are not
  // read.
  const fds = [...process.fds].filter(([, { isGone }]) => facts.raisesEvents || !isGone)
  const withEvents = fds.filter(([, { unread }]) => unread.length > 0)
  if (fds.length === 0) return
  const [fd, modelObject] = random.pick(withEvents.length > 0 && random.hits(0.8) ? withEvents : fds)
  const expected = readRecord(modelObject)
  const { code, out } = yield { do: 'read', process, fd }
  assert.deepEqual([code, out.bytes], [expected.code, expected.bytes], `read of ${modelObject.class} ${fd}`)
}

function* fork(state: State, parent: Process): Run {
  const child: Process = { fds: new Map(), openings: new Set(parent.openings) }
  const { fds } = yield { do: 'fork', parent, child }
  ;[...parent.fds.values()].forEach((modelObject, i) => {
    child.fds.set(fds[i], modelObject)
  })
  for (const opening of child.openings) opening.holders++
  state.processes.push(child)
}

function* open(process: Process, device: ModelDevice): Run {
  const opening = newOpening(device)
  process.openings.add(opening)
  yield { do: 'open', process, opening }
}

function* start(state: State): Run {
  const process: Process = { fds: new Map(), openings: new Set() }
  state.processes.push(process)
  yield { do: 'start', process }
}

// ---- what devices do without a call: complete requests, raise events, bind windows ----

const objectsOf = ({ devices }: State, classes: readonly string[]): ModelObject[] =>
  devices.flatMap(device =>
    [...(device?.openings ?? [])].flatMap(({ handles }) =>
      [...handles.values()].filter(modelObject => classes.includes(modelObject.class)),
    ),
  )

function* actOfDevice(state: State, { random }: CallSite): Run {
  const choice = random.int(10)
  if (choice < 6) {
    const cqs = objectsOf(state, ['cq']).filter(
      ({ armed, channel, attached }) => random.hits(0.1) || (armed !== Armed.NO && (channel ?? attached) !== undefined),
    )
    if (cqs.length === 0) return
    const modelObject = random.pick(cqs)
    const solicited = random.hits(0.5)
    complete(modelObject, solicited)
    yield { do: 'complete', modelObject, solicited }
  } else if (choice < 8) {
    const sources = objectsOf(state, ['cq', 'rc_qp', 'srq', 'xrc_tgt_qp', 'ud_qp'])
    if (sources.length === 0) return
    const modelObject = random.pick(sources)
    const type = random.pick([CQ_ERR, QP_FATAL, COMM_EST])
    raise(modelObject, type)
    yield { do: 'raise', modelObject, type }
  } else if (choice < 9) {
    const device = random.pick(state.devices.filter(device => device !== undefined))
    const type = random.pick([PORT_ACTIVE, PORT_ERR])
    raisePort(device, 1, type)
    yield { do: 'port', device, type }
  } else {
    const windows = objectsOf(state, ['mw'])
    if (windows.length === 0) return
    const window = random.pick(windows)
    const [pd] = window.parents
    const regions = objectsOf(state, ['mr']).filter(({ parents }) => parents[0] === pd)
    if (regions.length === 0) return
    const region = random.pick(regions)
    window.bound = region
    yield { do: 'bind', window, region }
  }
}

function* addOrRemove(state: State, index: number): Run {
  const present = state.devices[index]
  if (present === undefined) {
    const device = newDevice(DEVICES[index])
    state.devices[index] = device
    yield { do: 'add', device }
  } else {
    endDevice(present, DEVICE_FATAL)
    state.devices[index] = undefined
    yield { do: 'remove', device: present }
  }
}

// ---- steps ----

const weights: readonly { readonly action: string; readonly weight: number }[] = [
  { action: 'call', weight: 60 },
  { action: 'chain', weight: 10 },
  { action: 'on descriptor', weight: 14 },
  { action: 'read', weight: 6 },
  { action: 'act of device', weight: 14 },
  { action: 'close descriptor', weight: 3 },
  { action: 'copy', weight: 2 },
  { action: 'open', weight: 1 },
  { action: 'close', weight: 0.6 },
  { action: 'fork', weight: 1 },
  { action: 'end', weight: 0.5 },
  { action: 'add or remove device', weight: 0.6 },
]

function* step(state: State, seed: number): Run {
  const { processes, facts, devices } = state
  const random = createRandomSource(seed)
  if (processes.length === 0) yield* start(state)
  const process = random.pick(processes)
  const present = devices.filter(device => device !== undefined)
  const { action } = random.weighted(weights)
  if (action === 'add or remove device') {
    const index = random.int(DEVICES.length)
    if (devices[index] === undefined || present.length > 1) yield* addOrRemove(state, index)
    return
  }
  // after device removal nearly every call fails: a process without a usable opening usually opens another device
  const usable = [...process.openings].filter(opening => !opening.hasEnded)
  const shouldOpen = usable.length === 0 || action === 'open'
  if (process.openings.size === 0 || (shouldOpen && process.openings.size < MAX_OPENINGS)) {
    yield* open(process, random.pick(present))
    return
  }
  const opening = random.pick(usable.length > 0 && random.hits(0.95) ? usable : [...process.openings])
  const site: CallSite = { random, facts, process, opening }
  if (action === 'call') yield* call(site, false)
  else if (action === 'chain') yield* chain(site)
  else if (action === 'on descriptor') yield* call(site, true)
  else if (action === 'read') yield* readDescriptor(site)
  else if (action === 'act of device' && facts.raisesEvents) yield* actOfDevice(state, site)
  else if (action === 'close') yield* closeOpening(process, opening)
  else if (action === 'fork' && processes.length < MAX_PROCESSES) yield* fork(state, process)
  else if (action === 'end' && processes.length > 1) yield* end(state, process)
  else if (process.fds.size > 0 && action === 'close descriptor')
    yield* closeDescriptor(state, process, random.pick([...process.fds.keys()]))
  else if (process.fds.size > 0 && action === 'copy') {
    const [fd, modelObject] = random.pick([...process.fds])
    const to = random.pick(processes)
    const { fds } = yield { do: 'copy', from: process, fd, to }
    to.fds.set(fds[0], modelObject)
  }
}

/** Runs one step per seed, compares the state every `compareEvery` steps, and ends all processes. */
export function* run(facts: Facts, seeds: readonly number[], compareEvery = 1): Run {
  const state: State = { facts, devices: DEVICES.map(() => undefined), processes: [] }
  const present = (): ModelDevice[] => state.devices.filter(device => device !== undefined)
  yield* addOrRemove(state, 0)
  yield* addOrRemove(state, 1)
  for (const [i, seed] of seeds.entries()) {
    yield* step(state, seed)
    if (i % compareEvery === 0) yield { do: 'compare', devices: present() }
  }
  for (const process of [...state.processes]) yield* end(state, process)
  yield { do: 'compare', devices: present() }
}
