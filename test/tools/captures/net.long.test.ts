/*
 * What a path does, as ground truth: perftest between two hosts of a net, whose devices lose, double, delay or reorder
 * packets by a fault rule, captured at the interface of one host, where the kernel has not yet segmented (GSO). From
 * the capture alone, whole and cut, `explain` must name what the rule did, and no other reason; and with one direction
 * only, nothing that the other direction would refute. docs/reference/captures.md has these rows.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type CaptureCause, captureCause } from '../../../src/spec/captures.ts'
import { type CapturedPacket, packetsOf } from '../../../src/tools/captures/file.ts'
import { becomes } from '../../limits.ts'
import { canMakeNets, newNet, untilListeningAt } from '../../system/nets.ts'
import { assertGood, lacking, type Running, temporaryFolder, userdma } from '../../system/programs.ts'
import { analyse, pcapOf, problemsIn } from './build.ts'

interface Row {
  readonly what: string
  /** Fault rules of the client, where the capture is, and of the server. */
  readonly client?: string
  readonly server?: string
  readonly command: string
  /** What must be named; then what else may be. */
  readonly causes: readonly CaptureCause[]
  readonly others?: readonly CaptureCause[]
  /** Messages of the client. */
  readonly messages: number
}

const write = (count: number, depth: number, more = ''): string =>
  `ib_write_bw -F -x 1 -s 8192 -n ${count} -t ${depth} -Q 1 ${more}`

const rows: readonly Row[] = [
  { what: 'nothing', command: write(60, 16), causes: [], messages: 60 },
  { what: 'nothing, small messages', command: 'ib_send_bw -F -x 1 -s 64 -n 300 -t 64', causes: [], messages: 300 },
  { what: 'nothing, READs', command: 'ib_read_bw -F -x 1 -s 8192 -n 60 -t 16 -o 8', causes: [], messages: 60 },
  {
    what: 'packets doubled before the capture',
    client: 'dup=5%,dir=sent',
    command: write(60, 16),
    causes: ['doubled'],
    messages: 60,
  },
  {
    what: 'packets late before the capture',
    client: 'reorder=3%,dir=sent',
    command: write(60, 16),
    causes: ['reordered'],
    others: ['loss'],
    messages: 60,
  },
  {
    what: 'packets lost before the capture',
    client: 'drop=3%,dir=sent',
    command: write(60, 16, '-u 12'),
    causes: ['loss'],
    messages: 60,
  },
  {
    what: 'packets lost behind the capture',
    server: 'drop=3%,dir=received',
    command: write(60, 16, '-u 12'),
    causes: ['loss'],
    messages: 60,
  },
  {
    what: 'responses lost behind the capture',
    client: 'drop=3%,dir=received',
    command: 'ib_read_bw -F -x 1 -s 8192 -n 60 -t 16 -o 4',
    causes: ['implied-nak'],
    others: ['loss'],
    messages: 60,
  },
  {
    what: 'answers later than the timeout',
    server: 'delay=60ms,dir=sent',
    command: write(10, 4, '-u 12'),
    causes: ['late-acknowledgements'],
    messages: 10,
  },
]

/** About the speed of the machine, or notes: neither right nor wrong here. */
const isOfMachine = (cause: CaptureCause): boolean =>
  ['slow-answers', 'sender-paused', 'one-in-flight', 'reads-limited'].includes(cause) ||
  captureCause(cause).severity === 'note'

const causesOf = (packets: readonly CapturedPacket[], snap = 262_144): CaptureCause[] =>
  problemsIn(pcapOf(packets, { snap }))
    .map(({ cause }) => cause)
    .filter(cause => !isOfMachine(cause))

/** A datagram to this port is a mark: what came before it is in the file. */
const MARK = 9

const marksIn = (file: string): number =>
  analyse(existsSync(file) ? readFileSync(file) : new Uint8Array(0))
    .others.list('ports')
    .find(({ number }) => number === MARK)?.count ?? 0

/**
 * Resolves when `capture`, which writes `file`, has `count` marks; rejects if it ended. `mark` sends one. Before the
 * first, the capture may not run yet.
 */
const untilMarked = async (
  capture: Running,
  file: string,
  count: number,
  mark: () => Promise<unknown>,
): Promise<void> => {
  const over = capture.ended.then(({ stderr }) => assert.fail(`the capture ended: ${stderr}`))
  over.catch(() => {})
  do await mark()
  while (!(await Promise.race([over, becomes(() => marksIn(file) >= count, 2)])))
}

const skip = lacking('ib_write_bw', 'ib_read_bw', 'ib_send_bw', 'dumpcap', 'bash', 'ip')

describe('captures of hosts whose devices have fault rules', { skip }, () => {
  it('are explained by what the rules did', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: [client, server]\nlinks: [{ between: [client, server] }]')
    await net.up()
    const { hosts } = await net.show()
    const serverPid = hosts.find(({ name }) => name === 'server')!.daemon.pid
    const folder = temporaryFolder(t)
    for (const [i, { what, client, server, command, causes, others = [], messages }] of rows.entries())
      await t.test(what, async () => {
        for (const [host, rule] of [
          ['client', client],
          ['server', server],
        ] as const)
          assertGood(await net.exec(host, userdma, 'fault', ...(rule === undefined ? ['clear'] : ['set', rule])))
        const file = join(folder, `${i}.pcapng`)
        const capture = net.startExec('client', 'dumpcap', '-i', 'eth0', '-w', file)
        const mark = () => net.exec('client', 'bash', '-c', `echo > /dev/udp/server/${MARK}`)
        await untilMarked(capture, file, 1, mark)
        const serving = net.startExec('server', ...command.trim().split(' '))
        await untilListeningAt(serverPid, 18_515, serving)
        assertGood(await net.exec('client', ...command.trim().split(' '), 'server'))
        assertGood(await serving.ended)
        await untilMarked(capture, file, marksIn(file) + 1, mark)
        capture.child.kill('SIGINT')
        await capture.ended
        const { packets } = packetsOf(readFileSync(file))
        const { flows } = analyse(pcapOf(packets))
        const counts = flows.map(flow => flow.messages?.reduce((sum, count) => sum + count, 0) ?? 0)
        assert.equal(Math.max(...counts), messages)
        for (const snap of [262_144, 96]) {
          const found = causesOf(packets, snap)
          for (const cause of causes) assert.ok(found.includes(cause), `${snap}: ${cause} of ${found.join()}`)
          for (const cause of found) assert.ok([...causes, ...others].includes(cause), `${snap}: ${cause}`)
        }
        for (const last of [1, 2]) {
          // 10.77.0.1 or 10.77.0.2, where the frame is of IPv4.
          const oneWay = packets.filter(({ bytes }) => bytes[12] === 8 && bytes[13] === 0 && bytes[29] === last)
          for (const cause of causesOf(oneWay))
            assert.notEqual(captureCause(cause).severity, 'failure', `from .${last}: ${cause}`)
        }
      })
  })
})
