/*
 * The library on devices of other releases (R47): common methods and attributes work, other calls are refused with a
 * message.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  coreClasses,
  createCore,
  type DriverClass,
  dispatch,
  driverClass,
  openContext,
  register,
} from '../../../../src/core/index.ts'
import type { Caller } from '../../../../src/core/model.ts'
import { ProcessSpace } from '../../../../src/daemon/memory/process-space.ts'
import { ioctlDialect } from '../../../../src/daemon/session/dialects.ts'
import { SystemError } from '../../../../src/host/errno.ts'
import { closeProcess, openProcess } from '../../../../src/host/memory/process.ts'
import { hasNative } from '../../../../src/host/native.ts'
import { RdmaError } from '../../../../src/library/index.ts'
import { type Device, deviceOn } from '../../../../src/library/verbs/device.ts'
import type { Session } from '../../../../src/library/verbs/remote/daemon-session.ts'
import { createCalls } from '../../../../src/library/verbs/remote/messages.ts'
import type { OpenedCarrier } from '../../../../src/library/verbs/watch/watch.ts'
import { Interface } from '../../../../src/spec/classes/device/interface.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { Block, method, type ObjectClass, optional, u32 } from '../../../../src/spec/schema/schema.ts'
import type { Answer } from '../../../../src/uapi/call.ts'
import { declare } from '../../../../src/uapi/object/description.ts'
import {
  messageBuffer,
  newReply,
  newRequest,
  readReply,
  readRequest,
  writeCallReply,
} from '../../../../src/uapi/session-codec.ts'
import { describeDevice, testCaller, testDriver } from '../../../core/fixture.ts'

const { pd: Pd, ah: Ah, xrcd: Xrcd } = Classes

// ---- a device with changed declarations ----

/** The declaration `cls` with added or changed methods. */
const changed = (cls: ObjectClass, methods: Partial<Record<string, object>>): ObjectClass => ({
  ...cls,
  methods: Object.fromEntries(
    Object.keys({ ...cls.methods, ...methods }).map(name => [name, { ...cls.methods[name], ...methods[name] }]),
  ) as ObjectClass['methods'],
})

/** A device of the test driver with changed declarations, without the classes in `omitted`. */
const deviceOf = (classes: readonly ObjectClass[], omitted: readonly string[] = []) => {
  const driverClasses = coreClasses.map((base): DriverClass => {
    const declaration = classes.find(({ name }) => name === base.class.name)
    if (declaration === undefined) return base
    // the handlers of the declared methods: core's, and own ones for methods that core lacks
    const handlers = { create: () => ({}), modify: () => ({}), tint: () => ({ tint: 5 }), ...base.handlers }
    const declared = Object.entries(handlers).filter(([name]) => name in declaration.methods)
    return { ...base, class: declaration, handlers: Object.fromEntries(declared) }
  })
  const core = createCore({ classes: driverClasses })
  const names = ['interface', 'device', 'port', 'pd', 'ah', 'xrcd'].filter(name => !omitted.includes(name))
  const deviceClasses = driverClasses.filter(({ class: cls }) => names.includes(cls.name))
  return register(core, describeDevice('test0', testDriver(deviceClasses.map(({ class: cls }) => driverClass(cls)))))
}

/** A device of the library that calls `coreDevice` by messages. `end` releases the access to this process's memory. */
const openInLibrary = (coreDevice: ReturnType<typeof deviceOf>): { device: Device; end(): void } => {
  const context = openContext(coreDevice as never, { isOpened: true })
  const ownProcess = openProcess(process.pid)
  assert.ok(!(ownProcess instanceof SystemError))
  const space = new ProcessSpace(ownProcess, () => 0)
  const caller: Caller = {
    ...testCaller(),
    copyIn: (address, length) => space.copyIn(address, length),
    copyOut: (address, bytes) => space.copyOut(address, bytes),
  }
  const buffer = messageBuffer()
  const ask: Session['ask'] = (_call, write) => {
    const request = newRequest()
    assert.equal(readRequest(buffer, write(buffer, { serial: 1 }), request), undefined)
    const { dialect } = ioctlDialect(request.request)
    const { ret, reason } = dispatch(context, dialect, [request.request, request.argument], caller) as Answer
    const reply = newReply()
    assert.equal(readReply(buffer, writeCallReply(buffer, request, ret, [], reason), reply), undefined)
    return { reply, fds: [] }
  }
  const [contextId, fd] = [1, 3]
  const call = createCalls({ ask }, contextId, fd)
  call.setDeviceClasses(declare(call(Interface, 'query', 0, {}).out as never))
  const carrier = { isRemote: true, call, close() {}, targets: undefined } as unknown as OpenedCarrier
  const path = { gid: new Uint8Array(16), gidIndex: 0, pathMtu: 1024 }
  return {
    device: deviceOn(carrier, 'test0', '127.0.0.1', () => path),
    end() {
      space.close()
      closeProcess(ownProcess)
    },
  }
}

/** Code, call and reason of the error that `body` throws, or 'done'. */
const refusal = (body: () => unknown): string => {
  try {
    body()
    return 'done'
  } catch (error) {
    assert.ok(error instanceof RdmaError, String(error))
    return `${error.code} ${error.call}: ${error.reason}`
  }
}

const native = { skip: !hasNative() && 'koffi is missing' }

test('an old library on a newer device uses known attributes', native, () => {
  const tint = method(Block.MANAGEMENT + 5, { in: {}, out: { tint: u32(64) } })
  const { create } = Pd.methods
  const newer = changed(Pd, {
    tint,
    create: method(create.call, { in: { shade: optional(u32(1)) }, out: { depth: optional(u32(64)) } }),
  })
  const { device, end } = openInLibrary(deviceOf([newer]))
  const pd = device.pd()
  assert.ok(device.supports('pd', 'tint'))
  assert.deepEqual(Object.keys(device.interface().find(({ name }) => name === 'pd')!.methods.create.in), ['shade'])
  const chainedPd = device.chain(chain => chain.pd())
  chainedPd[Symbol.dispose]()
  pd[Symbol.dispose]()
  end()
})

test('a required attribute that the library lacks, or a class that the device lacks, is reported', native, () => {
  const { create } = Pd.methods
  const strict = changed(Pd, { create: method(create.call, { in: { shade: u32(1) }, out: {} }) })
  const { device, end } = openInLibrary(deviceOf([strict], ['xrcd']))
  assert.equal(
    refusal(() => device.pd()),
    'EINVAL device.pd: attribute shade is missing',
  )
  assert.equal(
    refusal(() => device.chain(chain => chain.pd())),
    'EINVAL pd.create: attribute shade is missing (entry 0 of a chain)',
  )
  assert.equal(
    refusal(() => device.xrcd()),
    'EOPNOTSUPP device.xrcd: this device has no xrcd.create',
  )
  assert.ok(!device.supports('xrcd'))
  end()
})

test('a new library on an older device reports missing methods and attributes', native, () => {
  const { flags, ...withoutFlags } = Xrcd.methods.create.in
  const older = [
    changed(Xrcd, { create: method(Xrcd.methods.create.call, { in: withoutFlags, out: {} }) }),
    { ...Ah, methods: { create: Ah.methods.create } },
  ]
  const { device, end } = openInLibrary(deviceOf(older))
  assert.match(
    refusal(() => device.xrcd()),
    new RegExp(`^EPROTONOSUPPORT device\\.xrcd: the mandatory attribute 0x${flags.id.toString(16)} is unknown`),
  )
  assert.ok(device.supports('ah', 'create') && !device.supports('ah', 'destroy'))
  assert.equal(
    refusal(() => device.chain(chain => chain.call(Ah, 'query', {}, { handle: 0 }))),
    'EOPNOTSUPP ah.query: this device has no ah.query',
  )
  end()
})

test('names inherited from Object.prototype are not methods or attributes of a device', native, () => {
  const { device, end } = openInLibrary(deviceOf([]))
  for (const name of ['constructor', 'toString']) {
    assert.equal(
      refusal(() => device.call(Pd, name as never, {} as never)),
      `EOPNOTSUPP pd.${name}: this device has no pd.${name}`,
    )
    assert.equal(
      refusal(() => device.call(Pd, 'create', { [name]: 1 } as never)),
      `EPROTONOSUPPORT pd.create: the attribute ${name} is unknown to the device; there are none`,
    )
  }
  end()
})

test('an output that the device lacks is reported', native, () => {
  const { create } = Pd.methods
  const newer = changed(Pd, { create: method(create.call, { in: {}, out: { depth: u32(64) } }) })
  const { device, end } = openInLibrary(deviceOf([]))
  assert.equal(
    refusal(() => device.chain(chain => chain.call(newer, 'create', {} as never))),
    'EOPNOTSUPP pd.create: the device does not return depth; its release is too old',
  )
  end()
})
