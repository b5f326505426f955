/*
 * The rows of docs/reference/tools.md: what a tool shows or does, and how a run on each device proves it.
 * test/system/devices/tools.test.ts runs them.
 */
import { createReadStream, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Health, ProcessHealth } from '../../../src/cli/waits/health.ts'
import { type CapturedPacket, readCapture } from '../../../src/library/index.ts'
import { type TormentKind, tormentKinds } from '../../../src/spec/check/torment.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { bytesSource } from '../../../src/tools/record/reader.ts'
import { Memory } from '../../../web/data/memory.ts'
import { type Facts, Store } from '../../../web/data/store.ts'
import { becomes } from '../../limits.ts'
import { assertGood, cleanEnvironment, runUserdma, type Scope, start, temporaryFolder, userdma } from '../programs.ts'
import {
  type Column,
  DEVICES,
  DRIVERS,
  type Meanwhile,
  PROGRAM,
  type Run,
  runAll,
  runLibrary,
  runPrograms,
  type Settings,
} from './tool-runs.ts'

/** On which devices a row was seen. */
type Seen = ReadonlySet<Column>

export interface Row {
  readonly tool: string
  readonly kind: string
  /** `npm test` runs it too. */
  readonly isOrdinary?: true
  readonly look: (scope: Scope) => Promise<Seen>
}

/** A number for a device without fail: they end a wait that is not seen. */
const WAIT_SECONDS = 5

const seenIn = (runs: readonly Run[], isSeen: (run: Run) => boolean): Seen =>
  new Set(runs.filter(isSeen).map(({ column }) => column))

const runRow =
  (settings: Settings, isSeen: (run: Run) => boolean): Row['look'] =>
  async scope =>
    seenIn(await runAll(scope, settings), isSeen)

/** The runs of `settings` are made once, in the scope of the first row that needs them. */
const shared = <T>(make: (scope: Scope) => Promise<T>): ((scope: Scope) => Promise<T>) => {
  let made: Promise<T> | undefined
  return scope => {
    made ??= make(scope)
    return made
  }
}

const of = <K extends SessionEvent['kind']>(events: readonly SessionEvent[], kind: K) =>
  events.filter((event): event is Extract<SessionEvent, { kind: K }> => event.kind === kind)

// ---- torment ----

const tormentRow = (kind: TormentKind): Row => ({
  tool: '--torment',
  kind,
  ...(kind === 'bytes' && { isOrdinary: true }),
  async look(scope) {
    const settings: Settings = { torment: kind, case: kind === 'relaxed' ? kind : 'exchange' }
    const runs = await runAll(scope, settings)
    // It delays every second device.
    if (kind === 'skew') runs.push(...(await runPrograms(scope, { ...settings, drivers: ['mlx5'] })))
    return seenIn(runs, ({ events }) => of(events, 'torment').some(({ torment }) => torment.torment.kind === kind))
  },
})

// ---- fault rules ----

const packetRule = (rule: string, outcome: string): Row => ({
  tool: '--fault',
  kind: rule.replace(/=.*/, ''),
  ...(outcome === 'duplicated' && { isOrdinary: true }),
  look: runRow({ rule }, ({ events }) => of(events, 'packets').some(event => event.outcome === outcome)),
})

const programRule = (kind: string, rule: string, pattern: RegExp, name: Settings['case'] = 'exchange'): Row => ({
  tool: '--fault',
  kind,
  look: runRow({ rule, case: name }, ({ output }) => pattern.test(output)),
})

const DELAY_MS = 50

const faultRows: readonly Row[] = [
  packetRule('drop=20%', 'dropped'),
  packetRule('dup=20%', 'duplicated'),
  packetRule('reorder=20%', 'reordered'),
  packetRule('corrupt=20%', 'corrupted'),
  packetRule('ecn=20%', 'marked'),
  packetRule('delay=1ms', 'delayed'),
  { ...packetRule('delay=2ms,jitter=1ms', 'delayed'), kind: 'jitter' },
  packetRule('rate=100mbit', 'delayed'),
  programRule('call, errno', 'call=mr.create,errno=ENOMEM', /^(ibv_reg_mr: Cannot allocate memory|ENOMEM )/),
  {
    tool: '--fault',
    kind: 'call, delay',
    look: runRow({ rule: `call=mr.create,delay=${DELAY_MS}ms` }, ({ events }) =>
      of(events, 'call').some(({ call }) => call.duration >= DELAY_MS * 1000),
    ),
  },
  programRule('call, event', 'call=*.modify,event=QP_FATAL', /event: (QP_FATAL|local work queue)/, 'event'),
  { ...programRule('post', 'post=ENOMEM', /^(ibv_wr_complete: Cannot allocate memory|ENOMEM )/), isOrdinary: true },
  programRule('completion', 'completion=SEND,status=LOC_PROT_ERR', /local protection error|LOC_PROT_ERR/),
  programRule('event', 'event=PORT_ERR,delay=5ms', /event: (port error|PORT_ERR)/, 'event'),
  programRule('page', 'page=gone', /local protection error|LOC_PROT_ERR/, 'page'),
]

// ---- recordings, and what is made of them ----

const recorded = shared(scope => runAll(scope, {}))

const recordRow = (kind: string, isSeen: (run: Run) => boolean, isOrdinary = false): Row => ({
  tool: '--record',
  kind,
  ...(isOrdinary && { isOrdinary: true }),
  look: async scope => seenIn(await recorded(scope), isSeen),
})

const recordRows: readonly Row[] = [
  recordRow('objects', ({ events }) => of(events, 'object').some(event => event.change === 'created')),
  recordRow('calls', ({ events }) => of(events, 'call').length > 0),
  recordRow('requests and completions', ({ events }) => {
    const completed = new Set(of(events, 'completed').map(({ request }) => request))
    const posted = of(events, 'posted')
    return posted.length > 0 && posted.every(({ request }) => completed.has(request.id))
  }),
  recordRow('polls', ({ events }) => of(events, 'polled').length > 0),
  recordRow('packets', ({ events }) => of(events, 'packets').length > 0),
  recordRow(
    'failures with their causes',
    ({ events }) => of(events, 'failure').some(({ failure }) => /rkey 0x\w+ is unknown/.test(failure.failure.text)),
    true,
  ),
  recordRow('windows of queue pairs', ({ events }) => of(events, 'counters').some(({ object }) => object !== 0)),
]

/** The queue pair and the requests with times. */
const slowRow: Row = {
  tool: 'explain --slow',
  kind: 'what sends waited for',
  isOrdinary: true,
  async look(scope) {
    const seen = new Set<Column>()
    for (const { file, device, column } of await recorded(scope)) {
      const { stdout } = await runUserdma(scope, ['explain', '--slow', file, '--top', '100', '--json'])
      const lines = stdout
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line) as { kind: string; name?: string })
      if (lines.some(({ kind, name }) => kind === 'queuePair' && name?.includes(` at ${device}`))) seen.add(column)
    }
    return seen
  },
}

/** What the page reads of a recording. */
const factsOf = async (file: string): Promise<Facts> => {
  const bytes = readFileSync(file)
  const store = await Store.open({
    about: {
      name: 'file',
      isLive: false,
      hasFaults: false,
      state: { recording: 1, size: bytes.length, isGrowing: false },
    },
    memory: new Memory(),
    open: () => bytesSource(bytes),
    async *changes() {},
    faults: () => Promise.reject(new Error('no daemon')),
    save: undefined,
    link: undefined,
    choose() {},
    symbols: async () => [],
    waits: async () => [],
  })
  while (store.readState === 'reading') await setTimeout(10)
  return store.facts
}

const pageRow = (kind: string, isSeen: (facts: Facts, run: Run) => boolean): Row => ({
  tool: 'inspect',
  kind,
  async look(scope) {
    const seen = new Set<Column>()
    for (const run of await recorded(scope)) if (isSeen(await factsOf(run.file), run)) seen.add(run.column)
    return seen
  },
})

/** The queue pairs of the run's program, by the ids of the recording. */
const queuePairsOf = ({ events }: Run): ReadonlySet<number> =>
  new Set(of(events, 'object').flatMap(event => (event.class.endsWith('_qp') ? [event.object] : [])))

const pageRows: readonly Row[] = [
  pageRow('objects', ({ objects }, run) => [...queuePairsOf(run)].every(id => objects.objects.has(id))),
  pageRow('times of sends', ({ sends }, run) => {
    const own = queuePairsOf(run)
    return sends.entries.some(({ request, spans }) => own.has(request.owner) && spans.length > 0)
  }),
  pageRow('failures', ({ failures }, { device }) => failures.entries.some(({ failure }) => failure.device === device)),
  pageRow('calls', ({ calls }, { device }) => calls.entries.some(({ call }) => call.device === device)),
  pageRow('packets in the charts', ({ traffic }) => traffic.totals.packets > 0),
]

// ---- waits ----

const untilWait = (found: () => Promise<boolean>): Promise<boolean> => becomes(found, WAIT_SECONDS)

const waitRuns = (name: 'hang' | 'unarmed', id: string, text: RegExp) =>
  shared(async scope => {
    const recorded = new Set<Column>()
    const shown = new Set<Column>()
    const counted = new Set<Column>()
    const isRecorded = async ({ events, device }: Meanwhile): Promise<boolean> =>
      of(await events(), 'wait').some(({ facts }) => facts.device === device && facts.id === id)
    const isCounted = async ({ events, device }: Meanwhile): Promise<boolean> => {
      const all = await events()
      const own = of(all, 'device').find(one => one.name === device)?.device
      return of(all, 'counters').some(one => one.object === 0 && one.device === own)
    }
    const meanwhile = async (at: Meanwhile): Promise<void> => {
      const { column, device, daemon } = at
      if (await (daemon === undefined ? isCounted(at) : untilWait(() => isCounted(at)))) counted.add(column)
      if (await (daemon === undefined ? isRecorded(at) : untilWait(() => isRecorded(at)))) recorded.add(column)
      if (daemon === undefined) return
      const { stdout } = await runUserdma(scope, ['stat', '--qps', '--socket', daemon.socket])
      if (stdout.split('\n').some(line => line.includes(device) && text.test(line))) shown.add(column)
    }
    await runPrograms(scope, { case: name, meanwhile })
    if (name === 'hang') await runLibrary(scope, { case: name, meanwhile })
    return { recorded, shown, counted }
  })

const endless = waitRuns('hang', 'endless-rnr', /waits without limit for a receive/)
const unarmed = waitRuns('unarmed', 'lost-wakeup', /never armed/)

const leftUndone = shared(async scope => {
  const seen = { errors: new Set<Column>(), failures: new Set<Column>() }
  const meanwhile = async ({ column, device, daemon }: Meanwhile): Promise<void> => {
    const look = async (): Promise<readonly ProcessHealth[]> => {
      const { stdout } = await runUserdma(scope, ['stat', '--health', '--json', '--socket', daemon!.socket])
      return (JSON.parse(stdout) as Health).processes
    }
    const isError = async (): Promise<boolean> =>
      (await look()).some(({ completions }) => completions.some(one => one.device === device && one.isError))
    if (await untilWait(isError)) seen.errors.add(column)
    const failed = (await look()).flatMap(({ queuePairs }) =>
      queuePairs.filter(qp => qp.device === device && qp.isFailed),
    )
    if (/rkey/.test(failed[0]?.lastError?.text ?? '')) seen.failures.add(column)
  }
  await runPrograms(scope, { case: 'unpolled', meanwhile })
  return seen
})

const waitRows: readonly Row[] = [
  { tool: 'stat --health', kind: 'an error is not polled', look: async scope => (await leftUndone(scope)).errors },
  { tool: 'stat --health', kind: 'a failed queue pair', look: async scope => (await leftUndone(scope)).failures },
  { tool: 'stat --qps', kind: 'a SEND waits for a receive', look: async scope => (await endless(scope)).shown },
  { tool: 'stat --qps', kind: 'a CQ is not armed', look: async scope => (await unarmed(scope)).shown },
  { tool: '--record', kind: 'counters', look: async scope => (await endless(scope)).counted },
  { tool: '--record', kind: 'wait: a SEND waits for a receive', look: async scope => (await endless(scope)).recorded },
  { tool: '--record', kind: 'wait: a CQ is not armed', look: async scope => (await unarmed(scope)).recorded },
]

// ---- a look at a running daemon, or network ----

const hasCounted = (counters: unknown): boolean => /:[1-9]/.test(JSON.stringify(counters ?? {}))

/** While the program has its objects, and has used them. */
const looks = shared(async scope => {
  const seen: Record<'qps' | 'counters' | 'stat' | 'metrics' | 'top', Set<Column>> = {
    qps: new Set(),
    counters: new Set(),
    stat: new Set(),
    metrics: new Set(),
    top: new Set(),
  }
  const meanwhile = async ({ column, device, daemon, network, opened }: Meanwhile): Promise<void> => {
    if (daemon === undefined) {
      if (hasCounted(network?.stats().devices[device]?.counters)) seen.stat.add(column)
      if (hasCounted(opened?.counters())) seen.counters.add(column)
      return
    }
    const at = ['--socket', daemon.socket]
    const qps = await runUserdma(scope, ['stat', '--qps', ...at])
    if (qps.stdout.split('\n').some(line => line.includes(device) && /RTS/.test(line))) seen.qps.add(column)
  }
  await runAll(scope, { case: 'hang', meanwhile })
  const after = async ({ daemon, device, column }: Meanwhile): Promise<void> => {
    if (daemon === undefined) return
    const at = ['--socket', daemon.socket]
    await daemon.settled(({ contexts }) => contexts === 0)
    const stat = await daemon.stat()
    const own = stat.devices.find(({ name }) => name === device)
    const isCounted = Object.values(own?.hw_counters ?? {}).some(value => value > 0)
    if (isCounted) seen.stat.add(column)
    const files = `cat /sys/class/infiniband/${device}/ports/1/hw_counters/*`
    const { stdout } = await runUserdma(scope, ['run', ...at, '--', 'sh', '-c', files])
    if (stdout.split('\n').some(line => Number(line) > 0)) seen.counters.add(column)
    const metrics = await runUserdma(scope, ['metrics', ...at])
    if (metrics.stdout.split('\n').some(line => line.includes(`device="${device}"`) && / [1-9]\d*$/.test(line)))
      seen.metrics.add(column)
    const top = await runUserdma(scope, ['top', '--batch', '-n', '1', ...at])
    if (top.stdout.includes(device)) seen.top.add(column)
  }
  await runPrograms(scope, { meanwhile: after })
  return seen
})

const lookRow = (tool: string, kind: string, name: 'qps' | 'counters' | 'stat' | 'metrics' | 'top'): Row => ({
  tool,
  kind,
  look: async scope => (await looks(scope))[name],
})

const lookRows: readonly Row[] = [
  lookRow('stat', 'counters', 'stat'),
  lookRow('stat --qps', 'state and requests', 'qps'),
  lookRow('counters', 'files and counters()', 'counters'),
  lookRow('metrics', 'counters', 'metrics'),
  lookRow('top', 'the device', 'top'),
]

// ---- trace and captures ----

const traced = shared(async scope => {
  const folder = temporaryFolder(scope)
  const seen = { calls: new Set<Column>(), failures: new Set<Column>(), abi: new Set<Column>() }
  const captured = { packets: new Set<Column>(), explained: new Set<Column>() }
  const explain = async (column: Column, file: string): Promise<void> => {
    const packets: CapturedPacket[] = []
    for await (const packet of readCapture(createReadStream(file))) packets.push(packet)
    if (packets.length > 0) captured.packets.add(column)
    const { stdout } = await runUserdma(scope, ['explain', file])
    if (/remote access|REM_ACCESS|rkey/i.test(stdout)) captured.explained.add(column)
  }
  for (const [i, column] of DRIVERS.entries()) {
    const [text, pcap, device] = [join(folder, column), join(folder, `${column}.pcapng`), DEVICES[i]!]
    const options = ['--private', '--device', device, '--abi', '-o', text, '--pcap', pcap, '--', PROGRAM, `${column}_0`]
    assertGood(await runUserdma(scope, ['trace', ...options]))
    const lines = readFileSync(text, 'utf8')
    if (/ mr\.create\(/.test(lines)) seen.calls.add(column)
    if (/rkey 0x\w+ is unknown/.test(lines)) seen.failures.add(column)
    if (/ioctl|write/.test(lines) && /fd \d+/.test(lines)) seen.abi.add(column)
    await explain(column, pcap)
  }
  const pcap = join(folder, 'library.pcapng')
  let end: (() => void) | undefined
  const calls: string[] = []
  await runLibrary(scope, {
    begin(network) {
      end = network.capture(pcap)
      network.trace(({ class: cls, method }) => calls.push(`${cls}.${method}`))
    },
  })
  end?.()
  if (calls.includes('mr.create')) seen.calls.add('library')
  if (existsSync(pcap)) await explain('library', pcap)
  return { ...seen, ...captured }
})

const traceRow = (tool: string, kind: string, name: 'calls' | 'failures' | 'abi' | 'packets' | 'explained'): Row => ({
  tool,
  kind,
  look: async scope => (await traced(scope))[name],
})

const traceRows: readonly Row[] = [
  { ...traceRow('trace', 'calls', 'calls'), isOrdinary: true },
  traceRow('trace', 'failures with their causes', 'failures'),
  traceRow('trace --abi', 'bytes of calls', 'abi'),
  traceRow('captures', 'packets', 'packets'),
  traceRow('captures', '`explain FILE` names the refused request', 'explained'),
]

// ---- check ----

interface Found {
  readonly id: string
}

const checkRow = (kind: string, id: RegExp, { options = [], case: name = 'exchange', ...library }: Settings): Row => ({
  tool: 'check',
  kind,
  ...(id.test('unknown-rkey') && { isOrdinary: true }),
  async look(scope) {
    const seen = new Set<Column>()
    for (const [i, column] of DRIVERS.entries()) {
      const device = ['--device', DEVICES[i]!]
      const args = ['check', '--private', ...device, '--json', '--notes', '--leaks', '--fail-on', 'never', ...options]
      const { stdout, stderr } = await runUserdma(scope, [...args, '--', PROGRAM, `${column}_0`, name])
      const found = (stdout + stderr)
        .split('\n')
        .flatMap(line => (line.startsWith('{') ? [JSON.parse(line) as Found] : []))
      if (found.some(one => id.test(one.id))) seen.add(column)
    }
    const found: string[] = []
    const check = {
      ...library.check,
      failOn: 'never',
      notes: true,
      onFinding: (one: Found) => found.push(one.id),
    } as const
    await runLibrary(scope, { ...library, case: name, check })
    if (found.some(one => id.test(one))) seen.add('library')
    return seen
  },
})

const checkRows: readonly Row[] = [
  checkRow('a leak', /^leak/, { case: 'leak' }),
  checkRow('a refused request, with its cause', /^unknown-rkey/, {}),
  checkRow('--like', /^adapter-/, { options: ['--like', 'irdma,efa'], check: { like: ['irdma', 'efa'] } }),
  checkRow('--races', /^(race|buffer-reused)/, { options: ['--races'], case: 'race', check: { races: true } }),
  checkRow('--buffers all', /^send-buffer-changed/, { options: ['--buffers', 'all'], case: 'change' }),
  {
    tool: 'check',
    kind: '--hang',
    async look(scope) {
      const seen = new Set<Column>()
      for (const [i, column] of DRIVERS.entries()) {
        const options = ['--private', '--hang', '1', '--device', DEVICES[i]!]
        const args = ['check', ...options, '--', PROGRAM, `${column}_0`, 'hang']
        const program = start(scope, userdma, args, { env: cleanEnvironment() })
        const isSeen = await untilWait(async () => program.output().includes('endless-rnr'))
        program.child.kill('SIGINT')
        await program.ended
        if (isSeen) seen.add(column)
      }
      return seen
    },
  },
]

/** In the order of the page. */
export const rows: readonly Row[] = [
  ...tormentKinds.map(tormentRow),
  ...faultRows,
  ...recordRows,
  ...waitRows.filter(({ tool }) => tool === '--record'),
  ...pageRows,
  slowRow,
  ...lookRows,
  ...waitRows.filter(({ tool }) => tool !== '--record'),
  ...traceRows,
  ...checkRows,
]
