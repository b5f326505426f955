/*
 * `userdma metrics`: the text that a scraper reads, with the counters of a daemon; the dashboard.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { Health } from '../../src/cli/waits/health.ts'
import { portCounterFiles } from '../../src/spec/counters.ts'
import { repoRoot } from '../paths.ts'
import { assertValid } from '../project/docs/json-schema.ts'
import { findTool } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  run,
  runUserdma,
  start,
  startDaemon,
  userdma,
} from './programs.ts'

const LOOPBACK = ownProgram('loopback')
const TOOLS = ownProgram('tools')

/** Values by metric and labels. Fails unless every line is as the format says, and each family is together. */
const parse = (text: string, suffix = ''): ReadonlyMap<string, number> => {
  const values = new Map<string, number>()
  const families = new Set<string>()
  let family = ''
  let type = ''
  for (const line of text.trimEnd().split('\n')) {
    if (line === '# EOF') continue
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) ([a-z_][a-zA-Z0-9_]*) (.+)$/.exec(line) ?? []
    if (kind === 'HELP') {
      assert.ok(!families.has(name), `${name} is there twice`)
      families.add(name)
      family = name
    } else if (kind === 'TYPE') {
      assert.equal(name, family)
      type = rest
    } else {
      const [, metric, labels = '', value] =
        /^([a-z_][a-zA-Z0-9_]*)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? (-?\d+(?:\.\d+)?)$/.exec(line) ?? []
      assert.equal(metric, type === 'counter' ? family + suffix : family, line)
      assert.ok(!values.has(`${metric}{${labels}}`), line)
      values.set(`${metric}{${labels}}`, Number(value))
    }
  }
  return values
}

describe('userdma metrics', { skip: lacking(LOOPBACK) }, () => {
  it('serves the counters of the daemon, with the names of node_exporter, and says when the daemon has ended', async t => {
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.50.31', 'ctx0'], fault: 'dup=100%' })
    assertGood(await run(t, LOOPBACK, [], { env: daemon.env }))
    const words = ['metrics', '--socket', daemon.socket]
    const server = start(t, userdma, [...words, '--listen', '127.0.50.31'], { env: cleanEnvironment() })
    const [, url = ''] = await server.printed(/^userdma metrics: (http:\S+)\n/)
    const [first, open, wrong, printed] = await Promise.all([
      fetch(url),
      fetch(url, { headers: { accept: 'application/openmetrics-text; version=1.0.0' } }),
      fetch(url.replace('metrics', 'api')),
      runUserdma(t, words),
    ])
    assert.equal(first.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
    const text = await first.text()
    const values = parse(text)
    const labels = '{device="rxe0",port="1"}'
    const stat = (await daemon.stat()).devices[0]!
    assert.equal(
      values.get(`node_infiniband_port_data_transmitted_bytes_total${labels}`),
      4 * stat.counters.port_xmit_data!,
    )
    assert.ok(stat.counters.port_xmit_data! > 0)
    for (const { folder, name } of portCounterFiles)
      if (folder === 'hw_counters')
        assert.equal(values.get(`rdma_${name}_total${labels}`), stat.hw_counters[name], name)
    assert.equal(values.get(`node_infiniband_state_id${labels}`), 4)
    assert.equal(values.get(`node_infiniband_physical_state_id${labels}`), 5)
    assert.equal(values.get('userdma_faults_total{device="rxe0",fault="duplicated"}'), stat.faults.duplicated)
    assert.equal(values.get('userdma_up{}'), 1)
    const openText = await open.text()
    assert.match(openText, /\n# EOF\n$/)
    assert.deepEqual([...parse(openText, '_total').keys()], [...values.keys()])
    assert.deepEqual([...parse(printed.stdout).keys()], [...values.keys()])
    assert.equal(wrong.status, 404)
    const promtool = findTool('promtool')
    if (promtool !== undefined) assert.equal(spawnSync(promtool, ['check', 'metrics'], { input: text }).status, 0)

    const dashboard = readFileSync(join(repoRoot, 'docs', 'dashboards', 'userdma.json'), 'utf8')
    // No object lives now.
    const names = new Set(['userdma_objects', ...[...values.keys()].map(key => key.replace(/\{.*/, ''))])
    const used = [...dashboard.matchAll(/"expr": "(?:rate\()?(\w+)\{/g)].map(([, name]) => name!)
    assert.ok(used.length > 15)
    for (const name of used) assert.ok(names.has(name), `the dashboard has ${name}`)

    // a page whose name server points to this address
    const { hostname, port } = new URL(url)
    const raw = (text: string): Promise<string> =>
      new Promise(resolve => {
        const socket = connect(Number(port), hostname, () => socket.write(text))
        let answers = ''
        socket.on('data', bytes => (answers += bytes.toString()))
        socket.on('error', () => {})
        socket.once('close', () => resolve(answers))
      })
    assert.match(
      await raw('GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n'),
      /^HTTP\/1.1 403 /,
    )
    // requests that do not wait for their answers
    assert.equal(await raw('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(100)), '')
    // connections that say nothing do not keep a scraper out
    const idle = await Promise.all(
      Array.from({ length: 80 }, async () => {
        const socket = connect(Number(port), hostname)
        socket.on('error', () => {})
        await once(socket, 'connect')
        return socket
      }),
    )
    // fetch could take a connection that has just been closed for these
    assert.match(await raw('GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 200 /)
    for (const socket of idle) socket.destroy()

    assertGood(await runUserdma(t, ['stop', '--socket', daemon.socket]))
    assert.deepEqual([...parse(await (await fetch(url)).text())], [['userdma_up{}', 0]])
    server.child.kill('SIGTERM')
    assertGood(await server.ended)
    const none = await runUserdma(t, words)
    assert.deepEqual([none.status, none.stdout], [1, ''])
    const bad = await runUserdma(t, [...words, '--listen', 'nowhere'])
    assert.match(bad.stderr, /^userdma: --listen "nowhere": give an address, such as 127\.0\.0\.1/)
  })

  it('tells with --health what programs leave undone', { skip: lacking(TOOLS) }, async t => {
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.50.32'] })
    const at = ['metrics', '--socket', daemon.socket]
    const server = start(t, userdma, [...at, '--listen', '127.0.50.32', '--health'], { env: cleanEnvironment() })
    const [, url = ''] = await server.printed(/^userdma metrics: (http:\S+)\n/)
    const program = start(t, TOOLS, ['rxe0', 'unpolled'], { env: daemon.env })
    await program.printed(/waits/)
    const of = async () => parse(await (await fetch(url)).text())
    const labels = `{device="rxe0",pid="${program.child.pid}",command="tools"}`
    let values = await of()
    while (values.get(`userdma_unpolled_completions${labels}`) === undefined) values = await of()
    assert.equal(values.get(`userdma_unpolled_completions${labels}`), 1)
    assert.equal(values.get(`userdma_failed_queue_pairs${labels}`), 2)
    assert.equal(values.get(`userdma_unread_events${labels}`), 1)
    const health = (await (await fetch(url.replace('metrics', 'health'))).json()) as [{ readonly health: Health }]
    assertValid('stat --health', health[0].health)
    const [{ pid, completions } = assert.fail()] = health[0].health.processes
    assert.deepEqual([pid, completions.map(one => one.isError)], [program.child.pid, [true]])
    const { stdout } = await runUserdma(t, at)
    assert.doesNotMatch(stdout, /command=/)
    program.child.kill('SIGKILL')
  })
})
