/*
 * A public method that is called without its object, or with a wrong argument, throws an RdmaError or no error: never a
 * TypeError of V8.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCtxDevice } from '../../../../src/drivers/ctx/device.ts'
import * as userdma from '../../../../src/library/index.ts'
import { CtxContext } from '../../../../src/spec/drivers/ctx.ts'

const { createNetwork, open, openSystem, RdmaError } = userdma

type Method = (this: unknown, ...args: unknown[]) => unknown
const WRONG = [undefined, null, 5, -1, 1.5, 'x', {}, [], true, 2n ** 70n, () => {}, Symbol('x')]

/** Objects of the library, except objects of connections and IP. */
const createAll = async () => {
  const network = createNetwork()
  network.addDevice(core => createCtxDevice(core, 'ctx0'))
  const device = await open({ network })
  const otherDevice = await open({ network })
  const ctx = await open({ network, device: 'ctx0' })
  const system = openSystem({ network })
  const pd = device.pd()
  const buffer = new Uint8Array(4096)
  const mr = pd.register(buffer, { remoteWrite: true, mwBind: true })
  const cq = device.cq()
  const xrcd = device.xrcd()
  const rc = pd.rcQp({ sendCq: cq })
  const peer = otherDevice.pd().rcQp({ sendCq: otherDevice.cq() })
  rc.connect(peer.endpoint)
  peer.connect(rc.endpoint)
  const objects: Record<string, object> = {
    network,
    device,
    system,
    pd,
    mr,
    cq,
    completion: cq.completion,
    counting: device.cq({ kind: 'counting' }),
    remote: mr.remote(),
    window: pd.window(),
    wholeRegion: pd.wholeRegion(),
    nullRegion: pd.nullRegion(100),
    rc,
    awaitable: pd.rcQp(),
    awaitableUd: pd.udQp(),
    requestWindow: userdma.requestWindow(2),
    uc: pd.ucQp({ sendCq: cq }),
    ud: pd.udQp({ sendCq: cq, active: true }),
    gsi: pd.gsiQp({ sendCq: cq }),
    ah: pd.addressHandle({ gid: '127.0.0.1' }),
    srq: pd.srq(),
    xrcd,
    target: xrcd.target(),
    initiator: pd.xrcInitiator({ sendCq: cq }),
    xrcSrq: pd.xrcSrq({ xrcd, cq }),
    events: device.eventQueue(),
    ops: ctx.driverOps(),
    object: ctx.create(CtxContext, { eagerCount: 16, eagerBytes: 64, expectedCount: 0, expectedBytes: 64, jobKey: 7 }),
    library: { ...userdma },
  }
  return { objects, close: () => Promise.all([device, otherDevice, ctx].map(one => one.close())) }
}

/** Private methods of networks (`LocalNetwork`), and `capture`, which would create files. */
const NOT_CALLED = /^network\.(?!(?:addDevice|setFaults|trace)$)/

/** The properties of an object and of its prototypes, by name. */
const membersOf = (object: object): Map<string, PropertyDescriptor> => {
  const members = new Map<string, PropertyDescriptor>()
  for (let at = object; at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at))
    for (const [name, member] of Object.entries(Object.getOwnPropertyDescriptors(at)))
      if (name !== 'constructor' && !members.has(name)) members.set(name, member)
  return members
}

/** The error that a call throws, or with which the promise of a call rejects within one turn of the event loop. */
const errorOf = async (call: () => unknown): Promise<unknown> => {
  try {
    const answer = call()
    if (!(answer instanceof Promise)) return undefined
    return await Promise.race([
      answer.then(
        () => undefined,
        error => error,
      ),
      new Promise(resolve => setImmediate(resolve)),
    ])
  } catch (error) {
    return error
  }
}
/**
 * The methods that the tests call. Methods that close an object are last, because closed objects refuse all methods.
 */
const methodsOf = (objects: Record<string, object>) => {
  const methods: { readonly name: string; readonly object: object; readonly method: Method }[] = []
  for (const [name, object] of Object.entries(objects))
    for (const [member, { value }] of membersOf(object))
      if (typeof value === 'function' && !isClass(value) && !NOT_CALLED.test(`${name}.${member}`))
        methods.push({ name: `${name}.${member}`, object, method: value as Method })
  assert.ok(methods.length > 200, `${methods.length} methods`)
  const closes = ({ name }: { readonly name: string }): boolean => /\.close\w*$/.test(name)
  return [...methods.filter(one => !closes(one)), ...methods.filter(closes)]
}

const isForeignError = (error: unknown): boolean => error instanceof Error && !(error instanceof RdmaError)

const isClass = (value: unknown): boolean => typeof value === 'function' && /^class\b/.test(String(value))

test('a method that is called without its object throws no error other than an RdmaError', async () => {
  const { objects, close } = await createAll()
  const foreign: string[] = []
  for (const { name, method } of methodsOf(objects))
    for (const self of [undefined, {}]) {
      const error = await errorOf(() => method.call(self))
      if (isForeignError(error)) foreign.push(`${name} of ${typeof self}: ${error}`)
    }
  await close()
  assert.equal(foreign.join('\n'), '')
})

test('arguments of any type cause no error other than an RdmaError', async () => {
  const foreign = new Set<string>()
  for (const wrong of WRONG)
    for (const count of [1, 2, 3]) {
      const { objects, close } = await createAll()
      const args = Array.from({ length: count }, () => wrong)
      for (const { name, object, method } of methodsOf(objects)) {
        const error = await errorOf(() => method.apply(object, args))
        if (isForeignError(error)) foreign.add(`${name}(${args.map(arg => typeof arg)}): ${error}`)
      }
      await close()
    }
  assert.equal([...foreign].join('\n'), '')
})
