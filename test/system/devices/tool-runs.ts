/*
 * Runs two queue pairs on a device of each kind: test/programs/pairs/tools.c on the devices of a daemon, and the same
 * in TypeScript on one of the library. What a run leaves is a recording and what the program has printed.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openToolSession, type ToolSession } from '../../../src/daemon/client/tool-session.ts'
import {
  type CheckOptions,
  createNetwork,
  type Device,
  type Network,
  open,
  RdmaError,
} from '../../../src/library/index.ts'
import type { TormentKind } from '../../../src/spec/check/torment.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { loopbackText } from '../../loopback.ts'
import { ownProgram, type Scope, start, startDaemon, type TestDaemon, temporaryFolder } from '../programs.ts'

export const PROGRAM = ownProgram('tools')

/** Drivers of the daemon's devices. */
export const DRIVERS = ['rxe', 'mlx5', 'efa'] as const
export type Column = (typeof DRIVERS)[number] | 'library'
export const COLUMNS: readonly Column[] = [...DRIVERS, 'library']

/** The options --device of a device of each driver. */
export const DEVICES = DRIVERS.map((driver, i) => `${driver}_0@${loopbackText(51 + i)},driver=${driver}`)

/** A case of tools.c. */
type Case = 'exchange' | 'hang' | 'unarmed' | 'unpolled' | 'page' | 'event' | 'leak' | 'change' | 'race' | 'relaxed'

const waits = (name: Case): boolean => ['hang', 'unarmed', 'unpolled'].includes(name)

export interface Settings {
  /** The kind that acts, at each opportunity. */
  readonly torment?: TormentKind
  /** A fault rule; it acts on the device only. */
  readonly rule?: string
  readonly case?: Case
  /** Default: all. */
  readonly drivers?: readonly (typeof DRIVERS)[number][]
  /** Options of the daemon. */
  readonly options?: readonly string[]
  /** Of the library's device. */
  readonly check?: CheckOptions
  /** Before the library's device is opened. */
  readonly begin?: (network: Network) => void
  /** When the program has done what it does: it waits, or has ended. */
  readonly meanwhile?: (at: Meanwhile) => Promise<void>
}

export interface Meanwhile {
  readonly column: Column
  readonly device: string
  readonly daemon?: TestDaemon
  readonly client?: ToolSession
  readonly network?: Network
  readonly opened?: Device
  /** The recording so far. */
  events(): Promise<readonly SessionEvent[]>
}

export interface Run {
  readonly column: Column
  /** Name of the device. */
  readonly device: string
  /** What the program has printed, and the message of its failure. */
  readonly output: string
  /** Of the device, and those of no device, since the program has started. */
  readonly events: readonly SessionEvent[]
  /** The session file. It may have the programs of other devices too. */
  readonly file: string
}

const eventsIn = async (file: string): Promise<SessionEvent[]> => {
  const events: SessionEvent[] = []
  for await (const event of (await openSession(bytesSource(readFileSync(file)))).eventsIn()) events.push(event)
  return events
}

/** The device of the process or object that the event names is `device`. */
const isOf = (device: string, number: number, objects: ReadonlySet<number>, event: SessionEvent): boolean => {
  switch (event.kind) {
    case 'call':
      return event.call.device === device
    case 'failure':
      return event.failure.device === device
    case 'torment':
      return [device, 'all'].includes(event.torment.device)
    case 'wait':
      return event.facts.device === device
    case 'object':
    case 'packets':
    case 'counters':
      return event.device === number
    case 'posted':
      return objects.has(event.request.owner)
    case 'completed':
    case 'ended':
      return objects.has(event.owner)
    case 'polled':
      return objects.has(event.cq)
    default:
      return false
  }
}

const eventsOf = (device: string, events: readonly SessionEvent[]): SessionEvent[] => {
  const found = events.find(event => event.kind === 'device' && event.name === device)
  const number = found?.kind === 'device' ? found.device : -1
  const objects = new Set(
    events.flatMap(event => (event.kind === 'object' && event.device === number ? [event.object] : [])),
  )
  return events.filter(event => isOf(device, number, objects, event))
}

/** One program for each device of a daemon, one after the other. */
export const runPrograms = async (
  scope: Scope,
  { torment, rule, case: name = 'exchange', drivers = DRIVERS, options = [], meanwhile }: Settings,
): Promise<Run[]> => {
  const file = join(temporaryFolder(scope), 'session.udr')
  const daemon = await startDaemon(scope, {
    devices: DEVICES.filter((_, i) => drivers.includes(DRIVERS[i]!)),
    options: [
      ...['--record', file],
      ...(torment === undefined ? [] : ['--torment', '1', '--torment-kinds', torment]),
      ...options,
    ],
  })
  const client = await openToolSession(daemon.socket)
  const outputs: string[] = []
  for (const driver of drivers) {
    const device = `${driver}_0`
    if (rule !== undefined) await client.faults(`device=${device},${rule}`)
    const program = start(scope, PROGRAM, [device, name], { env: daemon.env })
    await (waits(name) ? program.printed(/waits/) : program.ended)
    await meanwhile?.({ column: driver, device, daemon, client, events: () => eventsIn(file) })
    if (waits(name)) program.child.kill('SIGKILL')
    const { stdout, stderr } = await program.ended
    outputs.push(stdout + stderr)
  }
  await daemon.settled(({ contexts }) => contexts === 0)
  client.close()
  daemon.running.child.kill('SIGTERM')
  await daemon.running.ended
  const events = await eventsIn(file)
  return drivers.map((driver, i) => {
    const device = `${driver}_0`
    return { column: driver, device, output: outputs[i] ?? '', events: eventsOf(device, events), file }
  })
}

const LENGTH = 3000
const ROUNDS = 12

/** What tools.c does. */
const useDevice = async (
  network: Network,
  device: Device,
  { case: name = 'exchange', meanwhile }: Settings,
  file: string,
): Promise<string> => {
  const lines: string[] = []
  const at: Meanwhile = {
    column: 'library',
    device: device.name,
    network,
    opened: device,
    events: () => eventsIn(file),
  }
  const pd = device.pd()
  const bytes = new Uint8Array(LENGTH)
  const source = pd.register(bytes, { remoteRead: true })
  const target = pd.register(new Uint8Array(LENGTH), { remoteWrite: true, remoteRead: true })
  const into = pd.register(new Uint8Array(LENGTH))
  device.cq({ entries: 5 }).close()
  for (const event of ['QP_FATAL', 'PORT_ERR'] as const)
    device.addEventListener(event, () => lines.push(`event: ${event}`))
  const [from, to] = [await pd.rcQp(), await pd.rcQp()]
  await Promise.all([from.connect(to.endpoint), to.connect(from.endpoint)])
  if (name === 'exchange') {
    for (let round = 0; round < ROUNDS; round++) {
      const sent = from.send(source.slice())
      sent.catch(() => {})
      await network.sleep(0.05)
      await Promise.all([to.receive(target.slice()), sent])
      await from.write(source.slice(), target.remote())
      await from.read(into.slice(), target.remote())
    }
    const remote = target.remote()
    await from
      .write(source.slice(), { ...remote, rkey: (remote.rkey ^ 0x5500) >>> 0 })
      .catch((error: Error) => lines.push(`refused: ${error.message}`))
  }
  if (name === 'hang') {
    const waiting = from.send(source.slice()).catch(() => {})
    await network.sleep(3000)
    await meanwhile?.(at)
    await device.close()
    await waiting
    return lines.join('\n')
  }
  if (name === 'change') {
    const sent = from.send(source.slice())
    await network.sleep(0.05)
    bytes.fill(1)
    await Promise.all([to.receive(target.slice()), sent])
  }
  if (name === 'relaxed') {
    const relaxed = pd.register(new Uint8Array(LENGTH), { remoteWrite: true, relaxedOrdering: true })
    await Promise.all([source, into].map(region => from.write(region.slice(), relaxed.remote())))
    relaxed.close()
  }
  if (name === 'race') await Promise.all([from, to].map(one => one.read(into.slice(), target.remote())))
  if (name === 'event') await network.sleep(10)
  await meanwhile?.(at)
  if (name !== 'leak') {
    for (const one of [from, to, source, target, into]) one.close()
    pd.close()
  }
  return lines.join('\n')
}

/** The same with a device of the library, in virtual time. */
export const runLibrary = async (scope: Scope, settings: Settings): Promise<Run> => {
  const file = join(temporaryFolder(scope), 'session.udr')
  const { torment, rule, check } = settings
  const refused: Run = { column: 'library', device: '', output: '', events: [], file }
  if (rule !== undefined && /^call=.*delay=/.test(rule)) {
    assert.throws(() => createNetwork({ fault: rule }), {
      code: 'EINVAL',
      message: /synchronous and cannot be delayed/,
    })
    return refused
  }
  const network = createNetwork({
    clock: 'virtual',
    record: file,
    torment: torment && { seed: 1, kinds: [torment] },
    ...(check && { check: { failOn: 'never', ...check } }),
    fault: rule,
  })
  settings.begin?.(network)
  const device = await open({ network })
  const output = await useDevice(network, device, settings, file).catch((error: unknown) => {
    if (error instanceof RdmaError) return `${error.code} ${error.message}`
    throw error
  })
  await device.close()
  // The recording is written ten times a second of the network's time.
  await network.sleep(1000)
  return { column: 'library', device: device.name, output, events: eventsOf(device.name, await eventsIn(file)), file }
}

export const runAll = async (scope: Scope, settings: Settings): Promise<Run[]> => [
  ...(await runPrograms(scope, settings)),
  await runLibrary(scope, settings),
]
