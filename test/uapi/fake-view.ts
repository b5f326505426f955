/*
 * A caller's view for codec tests: classes of an rxe device, memory of a simulated process, chosen handles.
 */
import { classes } from '../../src/spec/classes.ts'
import { RXE_DRIVER_ID, RxeAbi, RxeAttributes } from '../../src/spec/drivers/rxe.ts'
import type { Attributes, Method, ObjectClass } from '../../src/spec/schema/schema.ts'
import type { CallerView, Schema } from '../../src/uapi/call.ts'
import { type FakeMemory, fakeMemory } from './abilog.ts'

type Additions = Readonly<Record<string, Readonly<Record<string, { in?: Attributes; out?: Attributes }>>>>

const extend = (cls: ObjectClass): ObjectClass => {
  const additions = (RxeAttributes as Additions)[cls.name] ?? {}
  const methods = Object.entries(cls.methods).map(([name, method]): [string, Method] => {
    const { in: inputs, out: outputs } = additions[name] ?? {}
    return [name, { ...method, in: { ...method.in, ...inputs }, out: { ...method.out, ...outputs } }]
  })
  return { ...cls, methods: Object.fromEntries(methods) }
}

/** The classes of an rxe device. */
export const rxeClasses: readonly ObjectClass[] = classes.map(extend)
const byId = new Map(rxeClasses.map(cls => [cls.id, cls]))
const byName = new Map(rxeClasses.map(cls => [cls.name, cls]))

export const rxeSchema: Schema = {
  driverId: RXE_DRIVER_ID,
  linux: RxeAbi,
  classById: id => byId.get(id),
  classByName: name => byName.get(name),
}

export interface FakeView extends CallerView {
  memory: FakeMemory
  hasContext: boolean
  /** Class names of live handles. */
  readonly handles: Map<number, string>
}

export const fakeView = (memory: FakeMemory = fakeMemory(), handles = new Map<number, string>()): FakeView => {
  const view: FakeView = {
    schema: rxeSchema,
    memory,
    handles,
    hasContext: true,
    copyIn: (address, length) => view.memory.copyIn(address, length),
    copyOut: (address, bytes) => view.memory.copyOut(address, bytes),
    classOf: handle => {
      const name = handles.get(handle)
      return name === undefined ? undefined : byName.get(name)
    },
  }
  return view
}

/** The addresses of a call, and of memory to which the call may point. */
export const AT = 0x100000n
export const ARENA = 0x200000n

/** A byte of ARENA that no call has written. */
export const UNWRITTEN = 0xcc

/** Memory with 4096 bytes at ARENA. */
export const arena = (): FakeMemory => {
  const memory = fakeMemory()
  memory.map(ARENA, new Uint8Array(4096).fill(UNWRITTEN))
  return memory
}
