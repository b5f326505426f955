/*
 * An option of a wrong type is refused with an RdmaError, not with a TypeError of V8. The option names come from the
 * library's hint for an unknown option.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import * as userdma from '../../../../src/library/index.ts'
import { type Device, open } from '../../../../src/library/index.ts'
import { untyped } from './mistakes.ts'

const { createNetwork, openSystem, RdmaError } = userdma

const WRONG = [null, -1, 1.5, 2n ** 70n, 'x', '', {}, [], () => {}, Symbol('x'), Number.NaN, new Date(0)]
/** Options that may have some values of `WRONG`. */
const ALLOWED: Readonly<Record<string, (value: unknown) => boolean>> = {
  fault: value => value === '',
  random: value => typeof value === 'function',
  onFinding: value => typeof value === 'function',
  // Milliseconds.
  ackTimeout: value => value === 1.5,
  name: value => value === 'x',
  ignore: Array.isArray,
  like: Array.isArray,
  // Null counts as absent.
  pathMtu: value => value === null,
  // The properties of these objects are checked by other calls.
  check: value => typeof value === 'object',
  access: value => typeof value === 'object',
  active: value => typeof value === 'object',
  limits: value => typeof value === 'object',
  initial: value => typeof value === 'object',
  connection: value => typeof value === 'object',
}

/** An empty peer is refused for its missing `gid`. */
const namesOption = (message: string, option: string): boolean =>
  message.includes(option) || (option === 'peer' && message.includes('gid undefined'))

interface Setup {
  readonly device: Device
  readonly pd: ReturnType<Device['pd']>
  readonly cq: ReturnType<Device['cq']>
  readonly mr: ReturnType<ReturnType<Device['pd']>['register']>
}
type Call = (setup: Setup, options: never) => unknown

/** A wait must reject within this number of turns of the event loop. */
const TURNS = 10

const pause = async (): Promise<void> => {
  for (let turn = 0; turn < TURNS; turn++) await nextTurn()
}

/** Calls with options. The second function returns the required options. */
const calls: Readonly<Record<string, readonly [Call, ((setup: Setup) => object)?]>> = {
  createNetwork: [(_, options) => createNetwork(options)],
  open: [(_, options) => open(options)],
  'open, check': [(_, check) => open({ check })],
  openSystem: [(_, options) => openSystem(options)],
  'device.cq': [({ device }, options) => device.cq(options)],
  'device.xrcd': [({ device }, options) => device.xrcd(options)],
  'pd.register': [({ pd }, access) => pd.register(new Uint8Array(8), access)],
  'pd.nullRegion': [({ pd }, access) => pd.nullRegion(8, access)],
  'pd.wholeRegion': [({ pd }, access) => pd.wholeRegion(access)],
  'mr.reregister': [({ mr }, changes) => mr.reregister(changes)],
  'pd.rcQp': [({ pd }, options) => pd.rcQp(options), ({ cq }) => ({ sendCq: cq })],
  'pd.rcQp, awaitable': [({ pd }, options) => pd.rcQp(options)],
  'pd.ucQp': [({ pd }, options) => pd.ucQp(options), ({ cq }) => ({ sendCq: cq })],
  'pd.udQp': [({ pd }, options) => pd.udQp(options), ({ cq }) => ({ sendCq: cq })],
  'pd.xrcInitiator': [({ pd }, options) => pd.xrcInitiator(options), ({ cq }) => ({ sendCq: cq })],
  'pd.srq': [({ pd }, options) => pd.srq(options)],
  'xrcd.target': [({ device }, options) => device.xrcd().target(options)],
  'qp.connect': [({ pd, cq }, options) => pd.rcQp({ sendCq: cq }).connect(pd.rcQp().endpoint, options)],
  'qp.activate': [({ pd, cq }, options) => pd.udQp({ sendCq: cq }).activate(options)],
  'qp.bind': [
    ({ pd, cq }, binding) => {
      const [qp, peer] = [pd.rcQp({ sendCq: cq }), pd.rcQp()]
      qp.connect(peer.endpoint)
      qp.bind(pd.window(), binding)
    },
    ({ mr }) => ({ region: mr }),
  ],
  'cq.moderate': [({ cq }, threshold) => cq.moderate(threshold)],
  // Accepted, it waits for ever.
  'cq.wait': [({ device }, options) => Promise.race([device.cq().wait(options), pause()])],
  'device.ip': [({ device }, options) => device.ip(options), () => ({ address: '10.9.0.7/24' })],
}

/** The error that a call throws, or with which the promise of a call rejects. */
const errorOf = async (call: () => unknown): Promise<unknown> => {
  try {
    const answer = call()
    if (!(answer instanceof Promise)) return undefined
    return await answer.then(
      value => void (value as Partial<Device> | undefined)?.close?.(),
      error => error,
    )
  } catch (error) {
    return error
  }
}

describe('an option of a wrong type is refused by an RdmaError that names it', () => {
  let setup: Setup
  before(async () => {
    const device = await open()
    const pd = device.pd()
    setup = { device, pd, cq: device.cq(), mr: pd.register(new Uint8Array(64), { mwBind: true }) }
  })
  after(() => setup.device.close())

  for (const [name, [call, required = () => ({})]] of Object.entries(calls))
    test(name, async () => {
      const errorWith = (options: object) => errorOf(() => call(setup, untyped({ ...required(setup), ...options })))
      const unknown = await errorWith({ noSuchOption: 1 })
      assert.ok(unknown instanceof RdmaError, String(unknown))
      const options = /^there are (.*)$/.exec(unknown.hint)?.[1]?.split(', ') ?? []
      assert.ok(options.length > 0, unknown.hint)
      for (const option of options)
        for (const wrong of WRONG) {
          // The path of a file, which would be made.
          if (option === 'record' && wrong === 'x') continue
          const error = await errorWith({ [option]: wrong })
          const what = `${option}: ${String(wrong)}`
          if (error === undefined) assert.ok(ALLOWED[option]?.(wrong), `${what} was accepted`)
          else assert.ok(error instanceof RdmaError && namesOption(error.message, option), `${what}: ${error}`)
        }
    })
})
