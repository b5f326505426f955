/*
 * Where failures of programs are reported: the daemon's log, traces and `userdma stat --qps`.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { layouts } from '../../../src/daemon/check/waits/destroys.ts'
import { hasNative } from '../../../src/host/native.ts'
import { open } from '../../../src/library/index.ts'
import { sourcePortOf } from '../../../src/transport/wire/flow.ts'
import type { QpStat } from '../../../src/uapi/tool.ts'
import { faulty } from '../check/checking.ts'
import { assertGood, lacking, ownProgram, run, start, startDaemon, userdma } from '../programs.ts'

const hex = (value: number): string => `0x${value.toString(16)}`

const errors = ownProgram('verbs_errors')
const unacknowledged = ownProgram('unacknowledged')

it('a failed request is in the log and in stat', { skip: !hasNative() }, async t => {
  // The request is lost once, and sent again.
  const daemon = await startDaemon(t, { fault: 'opcode=RC_WRITE_ONLY,nth=1,drop=1' })
  const device = await open({ socket: daemon.socket })
  const pd = device.pd()
  const cq = device.cq()
  const [a, b] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]
  a.connect(b.endpoint)
  b.connect(a.endpoint)
  // A message of the daemon lists at most 50 queue pairs.
  for (let i = 0; i < 120; i++) pd.udQp({ sendCq: cq })
  b.receive()
  a.write(new Uint8Array(8), { address: 0n, rkey: 5, length: 8 }, { id: 7 })
  while (a.state !== 'ERR' || b.state !== 'ERR') await cq.wait()

  const logged = await daemon.running.printed(/userdma daemon: rxe0: (QP .* WRITE wr_id 7: .*)\n/)
  const command = readFileSync('/proc/self/comm', 'utf8').trim()
  const program = `(${process.pid}, ${command})`
  assert.ok(
    logged[1].startsWith(`QP 0x${a.qpn.toString(16)} ${program} WRITE wr_id 7: REM_ACCESS_ERR: peer QP`),
    logged[1],
  )

  const { stdout } = await run(t, userdma, ['stat', '--qps', '--json', '--socket', daemon.socket])
  const all = JSON.parse(stdout) as QpStat[]
  assert.equal(all.length, 122)
  const shown = all.find(({ qpn }) => qpn === a.qpn)
  assert.equal(shown?.lastError?.cause, 'RKEY_UNKNOWN')
  assert.deepEqual(
    { ...shown, lastError: undefined, send: undefined, receive: undefined, psn: undefined },
    {
      device: 'rxe0',
      pid: process.pid,
      command,
      qpn: a.qpn,
      type: 'rc_qp',
      state: 'ERR',
      peer: { qpn: b.qpn, address: device.address, dscp: 0, hopLimit: 64, sourcePort: sourcePortOf(0, a.qpn, b.qpn) },
      send: undefined,
      receive: undefined,
      psn: undefined,
      retries: 1,
      lastError: undefined,
    },
  )
  const text = (await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])).stdout
  assert.match(text, /^DEVICE +QPN +PROCESS +TYPE +STATE +PEER +SEND +RECEIVE\n/)
  assert.match(text, /\n {4}last error: QP 0x[0-9a-f]+ WRITE wr_id 7: REM_ACCESS_ERR: peer QP .*rkey 0x5 is unknown/)
  await device.close()
  const none = await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])
  assert.equal(none.stdout, 'no queue pairs\n')
})

it('different PSNs of two ends are in the log and in stat', { skip: !hasNative() }, async t => {
  const daemon = await startDaemon(t)
  const device = await open({ socket: daemon.socket })
  const pd = device.pd()
  const mr = pd.register(new Uint8Array(8192), { localWrite: true, remoteWrite: true })
  const cq = device.cq()
  /** The request of a queue pair whose peer expects another first PSN: the text of its failure in the log. */
  const failureWith = async (difference: number): Promise<string> => {
    const [a, b] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]
    a.connect(b.endpoint, { pathMtu: 1024, ackTimeout: 8, retryCount: 1 })
    b.connect({ ...a.endpoint, psn: a.endpoint.psn + difference }, { pathMtu: 1024 })
    a.write(mr.slice(0, 4096), mr.remote(4096, 4096), { id: 7 })
    while (a.state !== 'ERR') await cq.wait()
    const psns = `began at PSN ${hex(a.endpoint.psn)} \\(sq_psn\\).* expected ${hex(a.endpoint.psn + difference)} then`
    const [, text] = await daemon.running.printed(new RegExp(`QP ${hex(a.qpn)} .*wr_id 7: (.*${psns}.*)\n`))
    assert.ok((await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])).stdout.includes(text))
    return text
  }
  assert.match(await failureWith(-5), /^RETRY_EXC_ERR: .*; peer QP 0x[0-9a-f]+ at .* is in RTS$/)
  // The first packets are duplicates, and the next continues no message.
  assert.match(await failureWith(2), /^REM_INV_REQ_ERR: peer QP 0x/)
  await device.close()
})

describe('a trace', { skip: lacking(errors) }, () => {
  it('has failures as lines and as JSON', async t => {
    const args = ['-g', '1', '-d', 'rxe0']
    const { stderr } = await run(t, userdma, ['trace', '--private', '--errors', '--', errors, ...args])
    assert.match(
      stderr,
      /\[pid \d+ verbs_errors\] QP 0x[0-9a-f]+ WRITE wr_id 1: REM_ACCESS_ERR: peer QP 0x[0-9a-f]+: rkey/,
    )
    const json = await run(t, userdma, ['trace', '--private', '--json', '--', errors, ...args])
    const records = json.stderr
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as { failure?: { status?: string } })
    const statuses = new Set(records.flatMap(({ failure }) => failure?.status ?? []))
    for (const status of ['REM_ACCESS_ERR', 'LOC_PROT_ERR', 'LOC_LEN_ERR', 'WR_FLUSH_ERR'])
      assert.ok(statuses.has(status), status)
  })
})

it('stat --qps names the end of the peer for which a program waits', {
  skip: lacking(faulty('peer-gone--process')),
}, async t => {
  const daemon = await startDaemon(t)
  const program = start(t, faulty('peer-gone--process'), [], { env: daemon.env })
  const list = async (): Promise<string> => (await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])).stdout
  let text = ''
  while (!text.includes('waits for') && program.child.exitCode === null && program.child.signalCode === null)
    text = await list()
  assert.match(
    text,
    /QP 0x[0-9a-f]+ waits for a message of QP 0x[0-9a-f]+ at [^ ]+, whose process \d+ \(peer-gone--proc\) has ended\n/,
  )
})

describe('a destroy that waits for acknowledgements', { skip: lacking(unacknowledged) }, () => {
  for (const [kind, call] of [
    ['cq', 'ibv_ack_cq_events'],
    ['qp', 'ibv_ack_async_event'],
  ])
    it(`destroy_${kind} is in the log and in stat while it waits`, async t => {
      const daemon = await startDaemon(t)
      const waiting = start(t, unacknowledged, [kind], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
      const [, pid, text] = await daemon.running.printed(
        /userdma daemon: rxe0: \((\d+), unacknowledged\) (destroy_.* waits: .*)\n/,
      )
      assert.equal(Number(pid), waiting.child.pid)
      const wanted = `^destroy_${kind} of 0x[0-9a-f]+ waits: 0 of the 1 events that were read are acknowledged \\(${call}\\)$`
      assert.match(text, new RegExp(wanted))
      const list = async () => (await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])).stdout
      assert.ok((await list()).endsWith(`rxe0: (${pid}, unacknowledged) ${text}\n`), await list())
      waiting.child.stdin?.write('go\n')
      assert.equal((await waiting.ended).stdout, 'destroyed\n')
      assert.doesNotMatch(await list(), /waits/)
    })
  it('is detected by counts at the offsets of the installed libibverbs header', async t => {
    const { stdout } = await run(t, unacknowledged, ['layout'])
    // librdmacm's structure has no header: docs/findings/events-unacknowledged--cm.c shows that it is found.
    const { cm_id: _, ...ofVerbs } = layouts
    const rows = Object.entries(ofVerbs).map(([name, { handle, number, counts }]) => [name, handle, number, counts])
    assert.equal(stdout, rows.map(row => `${row.join(' ')}\n`).join(''))
  })
  it('is not in stat for programs that acknowledge', async t => {
    const daemon = await startDaemon(t)
    for (const kind of ['cq', 'qp']) {
      const program = start(t, unacknowledged, [kind, 'at-once'], { env: daemon.env, stdio: ['pipe', 'pipe', 'pipe'] })
      await program.printed(/destroyed\n/)
      assert.doesNotMatch((await run(t, userdma, ['stat', '--qps', '--socket', daemon.socket])).stdout, /waits/)
      program.child.stdin?.end()
      assert.equal((await program.ended).status, 0)
    }
  })
})

it('requests that are posted while the daemon sleeps complete', { skip: lacking(ownProgram('asleep')) }, async t => {
  for (const command of [['run', '--link', 'memory'], ['run', '--link', 'udp'], ['trace']])
    assertGood(await run(t, userdma, [...command, '--private', '--', ownProgram('asleep'), '-g', '1']))
})
