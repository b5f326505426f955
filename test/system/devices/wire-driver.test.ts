/*
 * A driver from outside with a link and a connection protocol of its own, without packets, datagrams and a management
 * port (examples/drivers/wire.mjs): programs of rdma_cm, and the tools.
 */
import assert from 'node:assert/strict'
import { chmodSync, copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import type { Stat } from '../../../src/uapi/tool.ts'
import { casesOf } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import {
  freePort,
  isEmpty,
  lacking,
  run,
  runUserdma,
  type Scope,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
} from '../programs.ts'
import { assertGoodRdmacm, bothSides, type RdmacmCase, rpingCases, runRdmacm, startLine } from '../rdmacm/rdmacm.ts'

const perftest = (line: string): RdmacmCase => ({
  server: `${line} -R -p PORT -F -x 1`,
  client: `${line} -R -p PORT -F -x 1 SERVER`,
  listensTwice: true,
})

const cases: readonly RdmacmCase[] = [
  ...rpingCases,
  bothSides('ucmatose', '-c 8 -C 5 -S 3000'),
  { server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  { server: 'cmtime -b SERVER -p PORT -c 20', client: 'cmtime -s SERVER -p PORT -c 20', isServerEndless: true },
  perftest('ib_send_lat -n 20 -s 64 -e'),
  perftest('ib_write_bw -n 50 -s 65536 -q 2'),
  perftest('ib_read_lat -n 20 -s 64'),
]

/** The folder of a user's copy of the drivers. */
const copyDrivers = (t: Scope): string => {
  const folder = temporaryFolder(t)
  for (const name of ['loop.mjs', 'wire.mjs']) {
    copyFileSync(join(repoRoot, 'examples/drivers', name), join(folder, name))
    chmodSync(join(folder, name), 0o644)
  }
  return folder
}

const startWires = (t: Scope, ...options: string[]): Promise<TestDaemon> => {
  const wires = [1, 2].flatMap(n => ['--device', `wire${n}@127.0.0.${n},driver=wire`])
  const driver = join(copyDrivers(t), 'wire.mjs')
  return startDaemon(t, { devices: [], options: ['--driver', driver, ...wires, ...options] })
}

describe('a driver with a connection protocol of its own', {
  skip: lacking('rping', 'ucmatose', 'cmtime', 'rdma_server', 'ib_send_lat', 'ib_write_bw', 'ib_read_lat'),
}, () => {
  const scope = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startWires(scope, '--check')
  })

  for (const one of casesOf(cases, (_, i) => i % 2 === 0))
    it(one.client, async t => {
      assertGoodRdmacm(one, await runRdmacm(t, daemon, one))
    })

  it('connects two devices', async t => {
    const one: RdmacmCase = {
      server: 'rping -s -a SERVER -p PORT -C 5',
      client: 'rping -c -a SERVER -I CLIENT -p PORT -C 5 -v',
    }
    const values = { SERVER: '127.0.0.1', CLIENT: '127.0.0.2' }
    assertGoodRdmacm(one, await runRdmacm(t, daemon, one, { values }))
  })

  it('refuses a request without a listener', async t => {
    const { stdout } = await run(t, 'ucmatose', ['-s', '127.0.0.1', '-p', '9'], { env: daemon.env })
    assert.match(stdout, /RDMA_CM_EVENT_REJECTED, error: 8/)
  })

  it('survives a killed peer', async t => {
    const values = { PORT: String(await freePort()) }
    const begin = await daemon.settled(isEmpty)
    const server = startLine(t, daemon, 'rping -s -a SERVER -p PORT -V', { values })
    await daemon.settled(now => now.connections.listeners > begin.connections.listeners)
    const client = startLine(t, daemon, 'rping -c -a SERVER -p PORT -V', { values })
    const sends = ({ devices }: Stat) =>
      devices.reduce((sum, { hw_counters: { rdma_sends = 0 } }) => sum + rdma_sends, 0)
    await daemon.settled(now => sends(now) > sends(begin) + 100)
    client.child.kill('SIGKILL')
    // rping ends at the first that it sees: the event, or its failed completion. The killed peer's memory goes before
    // its queue pair, so a READ may fail at the region (10), the memory (11) or the queue pair (12).
    assert.match((await server.ended).stderr, /DISCONNECT EVENT|cq completion failed status 1[0-2]/)
    await daemon.settled(isEmpty)
  })
})

describe('tools, at devices of such a driver', { skip: lacking('rping') }, () => {
  const rping: RdmacmCase = { server: 'rping -s -a SERVER -p PORT -C 5', client: 'rping -c -a SERVER -p PORT -C 5' }

  it('trace has the calls and events, check finds mistakes', async t => {
    const { socket } = await startWires(t, '--check')
    const program = join(repoRoot, 'build/findings/receives-after-accept')
    const traced = await runUserdma(t, ['trace', '--socket', socket, '--', program])
    assert.match(traced.stderr, /cm_id\.connect\(.*\n(.*\n)*.*type CONNECT_RESPONSE/)
    const checked = await runUserdma(t, ['check', '--notes', '--socket', socket, '--', program])
    assert.match(checked.stderr, /receives-after-accept: .*wire1/)
  })

  it('recordings have the requests, and which message has filled which receive; fault rules fail completions', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const daemon = await startWires(t, '--record', file)
    assertGoodRdmacm(rping, await runRdmacm(t, daemon, rping))
    const rule = 'completion=RDMA_READ,status=REM_ACCESS_ERR,nth=2'
    assert.equal((await runUserdma(t, ['fault', 'set', rule, '--socket', daemon.socket])).status, 0)
    const { server } = await runRdmacm(t, daemon, { ...rping, isServerEndless: true })
    assert.match(server.stderr, /cq completion failed with status 10|status 10/)
    assert.equal((await runUserdma(t, ['stop', '--socket', daemon.socket])).status, 0)

    const events: SessionEvent[] = []
    for await (const event of (await openSession(bytesSource(readFileSync(file)))).eventsIn()) events.push(event)
    const posted = events.filter(event => event.kind === 'posted' && event.request.opcode >= 0)
    // Of each ping: two SENDs of both ends, a READ and a WRITE.
    assert.ok(posted.length >= 25, `${posted.length} requests`)
    const received = events.filter(event => event.kind === 'completed' && event.message !== 0)
    assert.ok(received.length >= 15, `${received.length} messages`)
    const { stdout } = await runUserdma(t, ['export', file, '--to', 'text'])
    assert.ok(/posted.*RDMA_READ/.test(stdout), 'no RDMA READ in the text')
  })
})
