/*
 * The order of events of what happens to devices, connections and processes (event-rows.ts), on devices of each driver.
 * docs/reference/event-orders.md has the table; with WRITE_DOCS set, this test writes it.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { canMakeNamespaces, ip, twoNamespaces } from '../namespaces.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  runUserdma,
  start,
  startDaemon,
  type TestDaemon,
} from '../programs.ts'
import { type EventRow, rows, type Stage, type Witness } from './event-rows.ts'

const page = join(repoRoot, 'docs/reference/event-orders.md')
const program = ownProgram('witness')
const COLUMNS = ['rxe', 'mlx5', 'efa'] as const
type Column = (typeof COLUMNS)[number]

const SOURCES = ['netlink', 'sysfs', 'async', 'cm', 'completion', 'call'] as const
const NAMES: Readonly<Record<(typeof SOURCES)[number], string>> = {
  netlink: 'netlink',
  sysfs: 'sysfs',
  async: 'async',
  cm: 'rdma_cm',
  completion: 'completions',
  call: 'calls',
}

/** The last word that both ends print before they end. */
const END = '-- end'

const startWitness = (t: TestContext, netns: string, { env }: TestDaemon, ...words: readonly string[]): Witness => {
  const args = ['netns', 'exec', netns, program, ...words]
  const running = start(t, 'ip', args, { env, stdio: ['pipe', 'pipe', 'pipe'] })
  running.child.stdin?.on('error', () => {})
  return { running, say: word => void running.child.stdin?.write(`${word}\n`) }
}

/** What an end was told since it was ready, by source; of sysfs the last state in each step. */
const told = ({ running }: Witness): readonly string[] => {
  const lines = running.output().split('\n')
  const since = lines.slice(lines.indexOf('ready') + 1, lines.indexOf(END)).filter(Boolean)
  return SOURCES.flatMap(source => {
    const steps = since.join('\n').split(/^-- .*$/m)
    const events = steps.flatMap(step => {
      const own = step
        .split('\n')
        .filter(line => line.startsWith(`${source} `))
        .map(line => line.slice(source.length + 1))
      return source === 'sysfs' ? own.slice(-1) : own
    })
    const counted = events.flatMap((event, i) => {
      if (event === events[i - 1]) return []
      const times = events.slice(i).findIndex(other => other !== event)
      const count = times < 0 ? events.length - i : times
      return count === 1 ? [event] : [`${event} × ${count}`]
    })
    return counted.length === 0 ? [] : [`${NAMES[source]}: ${counted.join(', ')}`]
  })
}

const play = async (t: TestContext, row: EventRow, driver: Column): Promise<readonly string[]> => {
  const namespaces = twoNamespaces(t, 1500)
  const [netns, peerNetns] = namespaces
  // Addresses of IPv6 leave with the link, and come back after a time of their own.
  for (const name of namespaces)
    spawnSync('ip', ['netns', 'exec', name, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/v0/disable_ipv6'])
  const options = row.timers === undefined ? [] : ['--timers', row.timers]
  const named = (i: number): string => `${driver === 'rxe' ? 'rxe' : `${driver}_`}0@10.99.0.${i},driver=${driver}`
  const daemon = await startDaemon(t, { devices: [named(1)], link: 'udp', netns, options })
  const peer = await startDaemon(t, { devices: [named(2)], link: 'udp', netns: peerNetns, options })
  const hasCm = driver !== 'efa'
  const server = hasCm ? startWitness(t, peerNetns, peer, 'server', '10.99.0.2') : undefined
  await server?.running.printed(/listening/)
  const client = hasCm
    ? startWitness(t, netns, daemon, 'client', '10.99.0.2')
    : startWitness(t, netns, daemon, 'device')
  for (const one of [client, server]) await one?.running.printed(/ready\n/)
  const stage: Stage = {
    client,
    ...(server && { server }),
    daemon,
    peer,
    device: named(1),
    ip: (...words) => ip('-n', netns, ...words),
    peerIp: (...words) => ip('-n', peerNetns, ...words),
    async userdma({ socket }, ...words) {
      assertGood(
        await runUserdma(t, [...words.slice(0, 2), '--socket', socket, ...words.slice(2)], { env: cleanEnvironment() }),
      )
    },
  }
  await row.run(stage)
  const ends = [client, server].filter(one => one?.running.child.killed === false) as Witness[]
  for (const { say } of ends) say(END)
  for (const { running } of ends) await running.printed(/-- end\n/)
  for (const { say } of ends) say('quit')
  for (const { running } of ends) await running.ended
  const atClient = told(client).map(line => `client: ${line}`)
  const atServer = server && ends.includes(server) ? told(server).map(line => `peer: ${line}`) : []
  return hasCm ? [...atClient, ...atServer] : atClient.map(line => line.replace('client: ', ''))
}

const source = ({ file, function: name, line, does }: EventRow['linux'][number]): string =>
  `- \`${file}:${line}\`, ${name}: ${does}`

const rowText = (row: EventRow, told: ReadonlyMap<Column, readonly string[]>): string => {
  const lines = (list: readonly string[]): string =>
    list.map(line => line.replaceAll('|', '\\|')).join('<br>') || 'nothing'
  const same = String(told.get('rxe')) === String(told.get('mlx5'))
  const devices = same
    ? [['rxe and mlx5', told.get('rxe')!] as const]
    : ([
        ['rxe', told.get('rxe')!],
        ['mlx5', told.get('mlx5')!],
      ] as const)
  const efa = told.get('efa')
  return [
    `## ${row.title}`,
    `${row.does[0]!.toUpperCase()}${row.does.slice(1)}.`,
    [
      '| device | events |',
      '|---|---|',
      ...devices.map(([name, list]) => `| ${name} | ${lines(list)} |`),
      ...(efa === undefined ? [] : [`| EFA | ${lines(efa)} |`]),
      ...(row.rxe === undefined ? [] : [`| Linux's rxe | ${lines(row.rxe)} |`]),
    ].join('\n'),
    ...(row.linux.length === 0 ? [] : [`Linux:\n\n${row.linux.map(source).join('\n')}`]),
    ...(row.differs === undefined ? [] : [`**Departure.** ${row.differs}`]),
  ].join('\n\n')
}

const HEAD = `# Orders of events

What a program is told when something happens to its device, connection or peer, as \`test/programs/failures/witness.c\` has
seen it: a client on one host, its peer on another, with \`--link udp\`. \`npm run test:long -- failures/event-orders\` runs all
rows on devices of each driver, and compares. Events of one source are in their order; sources are independent: a program
reads each from a descriptor of its own. EFA has no connection manager, so its rows are those of a device.

Lines of Linux are those of 6.12.117, below \`drivers/infiniband\`. The rows of Linux's rxe come from two guests with Linux
6.12.118, between which the same program ran.
`

describe('orders of events', { skip: lacking(program, 'ip') }, () => {
  const all = new Map<EventRow, Map<Column, readonly string[]>>(rows.map(row => [row, new Map()]))
  for (const row of rows)
    for (const driver of COLUMNS) {
      if (driver === 'efa' && row.isOfDevice === undefined) continue
      it(`${row.title}: ${driver}`, async t => {
        if (canMakeNamespaces(t)) all.get(row)!.set(driver, await play(t, row, driver))
      })
    }

  it('are those of the reference', async t => {
    if (!canMakeNamespaces(t)) return
    const text = `${HEAD}\n${rows.map(row => rowText(row, all.get(row)!)).join('\n\n')}\n`
    if (process.env.WRITE_DOCS) writeFileSync(page, text)
    assert.equal(text, readFileSync(page, 'utf8'), 'WRITE_DOCS=1 npm run test:long -- failures/event-orders writes it')
  })
})
