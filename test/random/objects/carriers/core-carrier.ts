/*
 * Carrier of the model test for core and soft devices in this process.
 */
import assert from 'node:assert/strict'
import { identify } from '../../../../src/core/devices/identity.ts'
import {
  bindWindow,
  type Context,
  closeContext,
  closeDescriptor,
  completed,
  createCore,
  createLocalSpace,
  type Device,
  type EventQueue,
  findKey,
  invokeNow,
  type MrState,
  openContext,
  raiseObjectEvent,
  raisePort,
  stat,
  unregister,
} from '../../../../src/core/index.ts'
import type { Caller, CoreObject } from '../../../../src/core/model.ts'
import { createRxeDevice, type RxeDevice } from '../../../../src/drivers/rxe/device.ts'
import { Interface } from '../../../../src/spec/classes/device/interface.ts'
import { CallError, errnoName } from '../../../../src/spec/errno.ts'
import type { AnyRecord, AnyValues, ObjectClass } from '../../../../src/spec/schema/schema.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { chainEntries, encodeChain } from '../../../../src/uapi/object/chain.ts'
import { decodeResult } from '../../../../src/uapi/object/client.ts'
import { assertNothingLeft, ipv4, type Program } from '../../../drivers/rxe/machine.ts'
import { type TestRings, testRings } from '../../../drivers/rxe/provider.ts'
import type { Entry } from '../chain.ts'
import { onErrorOf } from '../random-calls.ts'
import { COMPLETION, countsOf, type ModelDevice, type ModelObject, type Opening, uses } from '../reference.ts'
import { type Answer, type Facts, OK, type Op, type Process } from './carrier.ts'

interface ProcessState {
  readonly caller: Caller
  /** Core's descriptor by the process's number. */
  readonly fds: Map<number, number>
  readonly address: bigint
}

/** Descriptors of three files that `Caller.file` knows. */
const FILES = [0x100, 0x101, 0x102]
const gidOf = (name: string): Uint8Array => ipv4(127, 0, 0, 1 + Number(name.at(-1)))

export const chainBytes = (entries: readonly Entry[]): Uint8Array =>
  encodeChain(
    entries.map(({ cls, methodName, object, targetEntry, args, refs }) => ({
      call: {
        class: cls,
        methodName,
        method: cls.methods[methodName],
        object: targetEntry === undefined ? object : 0,
        args,
      },
      ...(targetEntry !== undefined && { object: targetEntry }),
      refs,
    })),
  )

/** The results of a chain, with the decoded results of its entries in `entries`. */
export const chainAnswer = (entries: readonly Entry[], results: Uint8Array, out: AnyValues): AnyValues => ({
  ...out,
  entries: chainEntries(results)
    .slice(0, out.done as number)
    .map(({ message }, i) => {
      const { cls, methodName } = entries[i]
      const call = { class: cls, methodName, method: cls.methods[methodName], object: 0, args: {} }
      return { ...decodeResult(call, message) }
    }) as unknown as AnyRecord[],
})

export const coreCarrier = (): { facts: Facts; perform(op: Op): Answer } => {
  const core = createCore()
  const link = createMemorySwitch({ arena: plainArena(memorySwitchBytes(8, 64)), runs: 8, smallRuns: 64 })
  const devices = new Map<ModelDevice, RxeDevice>()
  const processes = new Map<Process, ProcessState>()
  const contexts = new Map<Opening, Context>()
  const rings = new Map<Opening, TestRings>()
  /** Event queues by core's number of their descriptor; kept when core releases the descriptor. */
  const sinks = new Map<number, EventQueue>()
  let now = 0
  let nextFd = 3

  const settle = (): void => {
    for (let turn = 0; turn < 1000; turn++) {
      let progress = false
      for (const device of devices.values()) progress = device.poll(now) || progress
      if (!progress) return
    }
    assert.fail('the devices still have work after many polls')
  }

  const createProcess = (process: Process): ProcessState => {
    const memory = createLocalSpace()
    const fds = new Map<number, number>()
    const caller: Caller = {
      memory,
      copyIn: (_address, length) => new Uint8Array(length),
      copyOut: () => {},
      descriptor: fd => fds.get(fd),
      file: fd => (FILES.includes(fd) ? `file ${fd}` : undefined),
    }
    const state = { caller, fds, address: BigInt(memory.add(new Uint8Array(4096))) }
    processes.set(process, state)
    return state
  }

  const stateOf = (process: Process): ProcessState => processes.get(process) as ProcessState

  /** Adds new descriptors to a process and returns their numbers, which no earlier descriptor had. */
  const install = ({ fds }: ProcessState, created: readonly { object: number }[] = []): number[] =>
    created.map(({ object }) => {
      fds.set(nextFd, object)
      sinks.set(object, core.descriptors.get(object)!.sink as EventQueue)
      return nextFd++
    })

  const invoke = (
    process: Process,
    context: Context,
    cls: ObjectClass,
    methodName: string,
    object: number,
    args: AnyValues,
  ) => {
    const processState = stateOf(process)
    try {
      const result = invokeNow(context, cls, methodName, object, args as never, processState.caller)
      return { code: 'ok', ...result, out: result.out as AnyValues, fds: install(processState, result.descriptors) }
    } catch (error) {
      // A refusal without a sentence fails the test.
      if (error instanceof CallError && error.message.length > 20)
        return { code: errnoName(error.errno), out: {}, fds: [] }
      throw error
    }
  }

  const objectOf = (modelObject: ModelObject): CoreObject => {
    const object = contexts.get(modelObject.home)!.handles.slots[modelObject.handle]
    assert.ok(object)
    return object
  }

  const compareOpening = (opening: Opening): void => {
    const { handles, descriptors } = contexts.get(opening) as Context
    assert.equal(handles.count, opening.handles.size, 'handles')
    assert.equal(descriptors.size, opening.descriptors.size, 'descriptors')
    const unread = [...opening.descriptors].flatMap(fd => fd.unread)
    for (const [handle, modelObject] of opening.handles) {
      const object = handles.slots[handle]
      assert.equal(object?.class.name, modelObject.class)
      assert.equal(object?.uses, uses(modelObject), `uses of ${modelObject.class} ${handle}`)
      if (object?.events === undefined) continue
      const eventsOfObject = unread.filter(({ source }) => source === modelObject)
      const completions = eventsOfObject.filter(({ type }) => type === COMPLETION).length
      const { events } = object
      assert.deepEqual(
        [events.state?.completions ?? 0, events.state?.asyncs ?? 0, events.armed],
        [
          modelObject.read.completions + completions,
          modelObject.read.asyncs + eventsOfObject.length - completions,
          modelObject.armed,
        ],
        `events of ${modelObject.class} ${handle}`,
      )
    }
  }

  const compare = (present: readonly ModelDevice[]): void => {
    const { devices: counted, contexts: openContexts, descriptors, faults, waiting } = stat(core)
    assert.deepEqual([faults, waiting], [0, 0])
    assert.deepEqual(Object.keys(counted).sort(), present.map(({ name }) => name).sort())
    const openings = present.flatMap(device => [...device.openings])
    assert.equal(openContexts, openings.length)
    assert.equal(
      descriptors,
      openings.reduce((n, opening) => n + opening.descriptors.size, 0),
    )
    for (const device of present) {
      const counts = countsOf(device)
      assert.deepEqual(counted[device.name].objects, counts)
      const { memory } = (devices.get(device) as RxeDevice).device
      assert.equal(memory.liveKeys, (counts.mr ?? 0) + (counts.mw ?? 0), 'keys')
      for (const key of device.staleKeys) assert.equal(findKey(memory, key), -1, 'a key of a destroyed object')
      assert.equal((devices.get(device) as RxeDevice).device.state.domains.size, device.domains.size, 'domains')
    }
    for (const opening of openings) compareOpening(opening)
    if (openings.length > 0) return
    const all = present.map(device => devices.get(device) as RxeDevice)
    const programs = [...rings.values()].map(testRing => ({ rings: testRing }) as Program)
    assertNothingLeft({ core, link, devices: all, ports: [], now, settle, tick: () => false }, programs)
    rings.clear()
  }

  const perform = (op: Op): Answer => {
    switch (op.do) {
      case 'start':
        createProcess(op.process)
        return OK
      case 'fork': {
        const child = createProcess(op.child)
        for (const [fd, number] of stateOf(op.parent).fds) child.fds.set(fd, number)
        return { ...OK, fds: [...op.parent.fds.keys()] }
      }
      case 'end':
        assert.equal(stateOf(op.process).fds.size, 0)
        processes.delete(op.process)
        return OK
      case 'open': {
        const context = openContext((devices.get(op.opening.device) as RxeDevice).device as Device, { isOpened: true })
        const mapped = testRings()
        context.state = { rings: mapped }
        rings.set(op.opening, mapped)
        contexts.set(op.opening, context)
        return OK
      }
      case 'close':
        if (op.opening.holders === 0) closeContext(contexts.get(op.opening) as Context)
        settle()
        return OK
      case 'copy': {
        stateOf(op.to).fds.set(nextFd, stateOf(op.from).fds.get(op.fd) as number)
        return { ...OK, fds: [nextFd++] }
      }
      case 'closeFd': {
        const { fds } = stateOf(op.process)
        const number = fds.get(op.fd) as number
        fds.delete(op.fd)
        if (op.isLast) closeDescriptor(core, number)
        return OK
      }
      case 'call': {
        const { fd, process, opening, cls, methodName, args } = op
        const object = fd === undefined ? op.object : (stateOf(process).fds.get(fd) as number)
        const answer = invoke(process, contexts.get(opening) as Context, cls, methodName, object, args)
        settle()
        return answer
      }
      case 'chain': {
        const args = { entries: chainBytes(op.entries), onError: onErrorOf(op.undo) }
        const answer = invoke(op.process, contexts.get(op.opening) as Context, Interface, 'chain', 0, args)
        settle()
        if (answer.code !== 'ok') return answer
        return { ...answer, out: chainAnswer(op.entries, answer.out.results as Uint8Array, answer.out) }
      }
      case 'read': {
        const sink = sinks.get(stateOf(op.process).fds.get(op.fd) as number) as EventQueue
        const [event] = sink.take(1)
        if (event === undefined) return { ...OK, code: sink.hasEnded ? 'EIO' : 'EAGAIN' }
        return { ...OK, out: { bytes: event.bytes } }
      }
      case 'add': {
        const { name } = op.device
        const identity = identify(gidOf(name), { name: 'lo', index: 1 })
        const rxe = createRxeDevice(core, { name, identity, port: link.attach(), now: () => now })
        devices.set(op.device, rxe)
        return OK
      }
      case 'remove':
        unregister((devices.get(op.device) as RxeDevice).device as Device)
        devices.delete(op.device)
        settle()
        return OK
      case 'complete':
        completed(objectOf(op.modelObject).events!, op.solicited)
        return OK
      case 'raise':
        raiseObjectEvent(objectOf(op.modelObject), op.type)
        return OK
      case 'port':
        raisePort((devices.get(op.device) as RxeDevice).device as Device, 1, op.type)
        return OK
      case 'bind': {
        const { memory } = (devices.get(op.window.home.device) as RxeDevice).device
        const [pd] = objectOf(op.window).parents
        const { row } = (objectOf(op.region) as CoreObject<MrState>).state
        const first8Bytes = { hi: memory.startHi[row], lo: memory.startLo[row], lengthHi: 0, lengthLo: 8 }
        // `key`: the new low byte of the window's rkey.
        const keys = { window: op.window.key as number, key: 1, lkey: op.region.key as number }
        const bind = { ...keys, access: 0, ...first8Bytes }
        assert.ok(bindWindow(memory, pd.id, 0, bind))
        op.window.key = memory.key[(objectOf(op.window) as CoreObject<MrState>).state.row]
        return OK
      }
      case 'compare':
        now++
        compare(op.devices)
        return OK
    }
  }
  const facts: Facts = {
    raisesEvents: true,
    files: FILES,
    address: process => stateOf(process).address,
    gid: ({ name }) => gidOf(name),
  }
  return { facts, perform }
}
