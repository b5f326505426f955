/*
 * Clients and devices of different releases (R47), in the object dialect.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type Context,
  coreClasses,
  createCore,
  dispatch,
  driverClass,
  openContext,
  register,
} from '../../src/core/index.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CallError, errnoName } from '../../src/spec/errno.ts'
import {
  type AnyValues,
  at,
  Block,
  DESTROY,
  method,
  type ObjectClass,
  objectClass,
  optional,
  QUERY,
  record,
  u8,
  u32,
} from '../../src/spec/schema/schema.ts'
import type { Answer, CallerView } from '../../src/uapi/call.ts'
import { decodeResult, type EncodeOptions, encodeCall } from '../../src/uapi/object/client.ts'
import { decodeMessage } from '../../src/uapi/object/dialect.ts'
import { agreedClass } from '../../src/uapi/object/versions.ts'
import { describeDevice, testCaller, testDriver } from './fixture.ts'

// ---- releases of a class, and a class that was removed ----

const sizes = { length: at(0, u32(0)), width: at(4, u32(0)) }
const methods = {
  create: method(0, { in: { size: record(1, sizes) }, out: { area: u32(64), size: record(65, sizes) } }),
  query: method(QUERY, { in: {}, out: { area: u32(64) } }),
  destroy: method(DESTROY, { in: {}, out: {} }),
}
const oldClass = objectClass('sheet', 0x7000, { methods })

const FOLD = Block.MANAGEMENT
const newSizes = { ...sizes, height: at(8, u32(0)) }
const newClass = objectClass('sheet', 0x7000, {
  methods: {
    ...methods,
    create: method(0, {
      in: { size: record(1, newSizes), colour: optional(u8(2)) },
      out: { area: u32(64), size: record(65, newSizes), folds: u32(66) },
    }),
    fold: method(FOLD, { in: {}, out: {} }),
  },
})
/** The class of a later release, in which `query` has a mandatory attribute. */
const strict = objectClass('sheet', 0x7000, {
  methods: { ...newClass.methods, query: method(QUERY, { in: { unit: u8(1) }, out: { area: u32(64) } }) },
})
const removedClass = objectClass('ruler', 0x7001, {
  methods: { query: method(QUERY, { in: {}, out: { length: u32(64) } }) },
})

interface Size {
  readonly length: number
  readonly width: number
  readonly height?: number
}
const handlers = {
  create: (_call: unknown, _object: unknown, args: AnyValues) => {
    const size = args.size as unknown as Size
    const { length, width, height = 1 } = size
    return { area: length * width * Math.max(height, 1) + Number(args.colour ?? 0), size: { ...size }, folds: 3 }
  },
  query: () => ({ area: 7 }),
  fold: () => ({}),
  destroy: () => ({}),
}

/** A context of a device with these classes. */
const deviceOf = (...classes: ObjectClass[]): Context => {
  const implementedByCore = classes.map(cls => {
    const implemented = Object.entries(handlers).filter(([name]) => name in cls.methods)
    return driverClass(cls, Object.fromEntries(implemented) as never)
  })
  const core = createCore({ classes: [...coreClasses, ...implementedByCore] })
  const fixedClasses = [driverClass(Classes.interface), driverClass(Classes.device)]
  const driver = testDriver([...fixedClasses, ...classes.map(cls => driverClass(cls))])
  return openContext(register(core, describeDevice('test0', driver)) as never, { isOpened: true })
}

/** A dialect for one message, `bytes`; `answer` gets the answered message. */
const decodeBytes = (view: CallerView, call: number, bytes: Uint8Array, answer: (message: Uint8Array) => void) => {
  const decoded = decodeMessage(view, call, bytes)
  const refused = (error: CallError): Answer => ({ ret: -error.errno, installs: [], reason: error.reason })
  if (decoded.roomError !== undefined) return refused(decoded.roomError)
  return {
    call: decoded.call,
    legacy: () => undefined,
    answer(outcome: Parameters<typeof decoded.answer>[0] | CallError): Answer {
      if (outcome instanceof CallError) return refused(outcome)
      answer(decoded.answer(outcome).message)
      return { ret: 0, installs: [] }
    },
  }
}

/** The results of a call by a client that knows `cls`, or the errno and message. */
const callAs = (context: Context, cls: ObjectClass, name: string, args: AnyValues, options: EncodeOptions = {}) => {
  const call = { class: cls, methodName: name, method: cls.methods[name], object: 0, args }
  let answered: Uint8Array | undefined
  try {
    const bytes = encodeCall(call, options)
    const dialect = (view: CallerView) =>
      decodeBytes(view, call.method.call, bytes, message => {
        answered = message
      })
    const { ret, reason } = dispatch(context, dialect, [], testCaller()) as Answer
    return ret < 0 ? `${errnoName(-ret)} ${reason}` : decodeResult(call, answered as Uint8Array).out
  } catch (error) {
    assert.ok(error instanceof CallError, String(error))
    return `${errnoName(error.errno)} ${error.message}`
  }
}

const size = { length: 2, width: 3 }
/** The client does not want the output `size`. */
const withoutSize = { outputBuffers: { size: 0 } }

// ---- without querying the device first ----

test('an old client can call a newer device, but has no room for a longer record in the answer', () => {
  const device = deviceOf(newClass)
  assert.deepEqual(callAs(device, oldClass, 'create', { size }, withoutSize), { area: 6 })
  assert.equal(
    callAs(device, oldClass, 'create', { size }),
    'ENOSPC sheet.create: attribute size: it needs 12 bytes, there is room for 8',
  )
})

test('a newer device refuses a call without a new mandatory attribute or of a removed class', () => {
  const device = deviceOf(strict)
  // the object of the query
  callAs(device, oldClass, 'create', { size }, withoutSize)
  assert.equal(callAs(device, oldClass, 'query', {}), 'EINVAL sheet.query: attribute unit is missing')
  assert.equal(callAs(device, removedClass, 'query', {}), `EOPNOTSUPP this device has no class ${removedClass.id}`)
})

test('an older device refuses new features, but ignores new attributes that the client marks as ignorable', () => {
  const device = deviceOf(oldClass)
  const tall = { ...size, height: 4 }
  const flat = { ...size, height: 0 }
  assert.deepEqual(callAs(device, newClass, 'create', { size: flat }), { area: 6, size: flat })
  assert.match(
    String(callAs(device, newClass, 'create', { size: tall })),
    /^E2BIG sheet\.create: attribute size: it has 12/,
  )
  assert.equal(
    callAs(device, newClass, 'create', { size: flat, colour: 1 }),
    'EPROTONOSUPPORT sheet.create: the mandatory attribute 0x2 is unknown',
  )
  assert.deepEqual(callAs(device, newClass, 'create', { size: flat, colour: 1 }, { ignorable: ['colour'] }), {
    area: 6,
    size: flat,
  })
  assert.equal(callAs(device, newClass, 'fold', {}), `EOPNOTSUPP class sheet of this device has no method ${FOLD}`)
  assert.equal(
    callAs(device, strict, 'query', { unit: 1 }),
    'EPROTONOSUPPORT sheet.query: the mandatory attribute 0x1 is unknown',
  )
})

// ---- with the device's description of itself ----

/** The class with which a client that knows `cls` calls method `name` of the device. */
const agreed = (device: Context, cls: ObjectClass, name: string): ObjectClass =>
  agreedClass(cls, device.device.schema.classByName(cls.name), name)

test('a client that queries the device first gets longer and shorter answers', () => {
  const newer = deviceOf(newClass)
  // the device gets its new attribute `colour`, but the client sends `size` without `height`
  assert.deepEqual(
    callAs(newer, agreed(newer, oldClass, 'create'), 'create', { size: { ...size, height: 5 }, colour: 1 }),
    {
      area: 7,
      size: { ...size, height: 0 },
      folds: 3,
    },
  )
  const older = deviceOf(oldClass)
  // a client that can do without the output `folds`
  const lenient = objectClass('sheet', 0x7000, {
    methods: {
      create: method(0, {
        in: newClass.methods.create.in,
        out: { ...newClass.methods.create.out, folds: optional(u32(66)) },
      }),
    },
  })
  assert.deepEqual(callAs(older, agreed(older, lenient, 'create'), 'create', { size: { ...size, height: 0 } }), {
    area: 6,
    size: { ...size, height: 0 },
  })
})

test('a client that queries the device first knows before a call which methods and required outputs the device lacks', () => {
  const older = deviceOf(oldClass)
  const message = (cls: ObjectClass, name: string): string => {
    try {
      agreed(older, cls, name)
      return 'agreed'
    } catch (error) {
      return `${(error as CallError).code} ${(error as CallError).message}`
    }
  }
  assert.equal(message(oldClass, 'create'), 'agreed')
  assert.equal(
    message(newClass, 'create'),
    'EOPNOTSUPP sheet.create: the device does not return folds; its release is too old',
  )
  assert.equal(message(newClass, 'fold'), 'EOPNOTSUPP this device has no sheet.fold')
  assert.equal(message(removedClass, 'query'), 'EOPNOTSUPP this device has no ruler.query')
  // only the device notices that the input `unit` is unknown
  assert.equal(message(strict, 'query'), 'agreed')
})

test('an agreed class is cached', () => {
  const device = deviceOf(oldClass)
  const first = agreed(device, newClass, 'query')
  assert.equal(agreed(device, newClass, 'query'), first)
})
