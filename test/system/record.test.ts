/*
 * `--record` as a user calls it: what the file has, who may read it, and what remains after a kill.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../src/tools/record/reader.ts'
import { repoRoot } from '../paths.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  run,
  runUserdma,
  startDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

const LOOPBACK = ownProgram('loopback')
const private_ = ['run', '--private']

const eventsIn = async (file: string): Promise<SessionEvent[]> => {
  const events: SessionEvent[] = []
  for await (const event of (await openSession(bytesSource(readFileSync(file)))).eventsIn()) events.push(event)
  return events
}

const ofKind = <K extends SessionEvent['kind']>(events: readonly SessionEvent[], kind: K) =>
  events.filter((event): event is Extract<SessionEvent, { kind: K }> => event.kind === kind)

describe('userdma run --record', { skip: lacking(LOOPBACK) }, () => {
  it('records objects, calls, requests, packets and the end, readable by the user only', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    assertGood(await runUserdma(t, [...private_, '--record', file, '--', LOOPBACK]))
    assert.equal(statSync(file).mode & 0o777, 0o600)
    assert.match(readFileSync(file, 'utf8').split('\n')[0], /^userdma session 1: .*no payload; no environment$/)
    const events = await eventsIn(file)
    assert.deepEqual(
      ofKind(events, 'device').map(({ change, name }) => `${change} ${name}`),
      ['exists rxe0'],
    )
    const [qp] = ofKind(events, 'object').filter(event => event.class === 'rc_qp' && event.change === 'created')
    assert.equal(qp.program?.command, 'loopback')
    const history = ofKind(events, 'object').filter(({ object }) => object === qp.object)
    assert.deepEqual(
      history.map(({ change }) => change),
      ['created', 'changed', 'changed', 'changed', 'destroyed'],
    )
    const create = ofKind(events, 'call').find(({ object }) => object === qp.object)
    assert.equal(create?.call.ret, 0)
    const sends = ofKind(events, 'posted').filter(({ request }) => request.opcode >= 0)
    assert.ok(sends.length > 0)
    // Each send leads to a completion and to packets to the queue pair.
    const completed = new Set(ofKind(events, 'completed').map(({ request }) => request))
    assert.ok(sends.every(({ request }) => completed.has(request.id)))
    const packets = ofKind(events, 'packets')
    assert.ok(packets.length > 0)
    assert.ok(packets.every(({ bytes, headerBytes }) => bytes.length === headerBytes))
    assert.equal(events.at(-1)?.kind, 'end')
    assert.ok(events.every((event, i) => i === 0 || event.time >= events[i - 1].time))
  })

  it('records payload if told, and losses with their outcome', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const fault = ['--fault', 'opcode=RC_SEND_*,drop=40%,seed=1']
    assertGood(await runUserdma(t, [...private_, '--record', file, '--payload', '8', ...fault, '--', LOOPBACK]))
    const packets = ofKind(await eventsIn(file), 'packets')
    assert.ok(packets.some(({ outcome, direction }) => outcome === 'dropped' && direction === 'received'))
    assert.ok(packets.some(({ bytes, headerBytes }) => bytes.length === headerBytes + 8))
  })

  it('keeps the file of --record-on-failure only if the program fails', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const options = [...private_, '--record', file, '--record-on-failure', '--', 'sh', '-c']
    assertGood(await runUserdma(t, [...options, LOOPBACK]))
    assert.ok(!existsSync(file))
    const { status, stderr } = await runUserdma(t, [...options, `${LOOPBACK}; exit 3`])
    assert.equal(status, 3)
    assert.match(stderr, /session\.udr: has the last part/)
    assert.equal((await eventsIn(file)).at(-1)?.kind, 'end')
  })

  it('refuses links, devices and wrong values with a sentence, before the program runs', async t => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'precious'), 'text')
    symlinkSync(join(folder, 'precious'), join(folder, 'link'))
    const refused = async (options: readonly string[], message: RegExp) => {
      const { status, stderr, stdout } = await runUserdma(t, [...private_, ...options, '--', 'echo', 'ran'])
      assert.notEqual(status, 0)
      assert.equal(stdout, '')
      assert.match(stderr, message)
    }
    await refused(['--record', join(folder, 'link')], /symbolic link/)
    await refused(['--record', '/dev/null'], /needs a regular file/)
    await refused(['--payload', '5'], /--payload is for --record FILE/)
    await refused(['--record', join(folder, 'a'), '--payload', '5000'], /--payload "5000": .* 0 to 4096/)
    await refused(['--record', join(folder, 'a'), '--record-limit', '1k'], /--record-limit "1k": .* at least 1M/)
    assert.equal(readFileSync(join(folder, 'precious'), 'utf8'), 'text')
  })

  it('refuses a file into which another command records', async t => {
    const folder = temporaryFolder(t)
    const [file, go] = [join(folder, 'session.udr'), join(folder, 'go')]
    const first = runUserdma(t, [
      ...private_,
      ...['--record', file, '--', 'sh', '-c', `touch ${go}; until [ -e ${go}.end ]; do sleep 0.01; done; ${LOOPBACK}`],
    ])
    while (!existsSync(go)) await new Promise(setImmediate)
    const second = await runUserdma(t, [...private_, '--record', file, '--', 'echo', 'ran'])
    assert.equal(second.status, 2)
    assert.equal(second.stdout, '')
    assert.match(second.stderr, /^userdma: --record .*: (process \d+|another process) records into this file; choose/)
    writeFileSync(`${go}.end`, '')
    assertGood(await first)
    assert.ok(ofKind(await eventsIn(file), 'completed').length > 0)
    // It is free again.
    assertGood(await runUserdma(t, [...private_, '--record', file, '--', LOOPBACK]))
  })

  it('records a program of a running daemon, and nothing after it', async t => {
    const daemon = await startDaemon(t)
    const file = join(temporaryFolder(t), 'session.udr')
    assertGood(await runUserdma(t, ['run', '--socket', daemon.socket, '--record', file, '--', LOOPBACK]))
    const { size } = statSync(file)
    assertGood(await runUserdma(t, ['run', '--socket', daemon.socket, '--', LOOPBACK]))
    assert.equal(statSync(file).size, size)
    const events = await eventsIn(file)
    assert.ok(ofKind(events, 'completed').length > 0)
    assert.ok(ofKind(events, 'packets').length > 0)
  })
})

const HANG = join(repoRoot, 'build', 'findings', 'both-receive')
const FINDING = join(repoRoot, 'build', 'findings', 'rkey-no-right')

describe('a recording of a program that hangs', { skip: lacking(HANG) }, () => {
  it('says what the program waited for at which queue pairs, and what ended it; as text too', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    // It ends by SIGALRM after three seconds.
    assert.equal((await runUserdma(t, [...private_, '--record', file, '--', HANG])).signal, 'SIGALRM')
    const events = await eventsIn(file)
    const [wait, ...later] = ofKind(events, 'wait')
    assert.equal(wait.change, 'began')
    assert.equal(wait.facts.id, 'both-receive')
    assert.match(wait.facts.text, /both have receives posted, and neither has a send outstanding/)
    const qps = ofKind(events, 'object').filter(event => event.class === 'rc_qp' && event.change === 'created')
    assert.deepEqual(new Set(wait.facts.objects), new Set(qps.map(({ object }) => object)))
    assert.ok(later.every(({ change }) => change === 'closed'))
    const [end] = ofKind(events, 'programEnd')
    assert.deepEqual([end.command, end.signal, end.status], ['both-receive', 'SIGALRM', 128 + 14])
    const slowJson = await runUserdma(t, ['explain', '--slow', file, '--json'])
    const lines = slowJson.stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line))
    assert.deepEqual(
      lines.map(({ kind }) => kind),
      ['wait', 'programEnd'],
    )
    assert.match(lines[0].text, /both have receives posted/)
    assert.equal(lines[1].signal, 'SIGALRM')
    const text = await runUserdma(t, ['export', file, '--to', 'text'])
    assert.match(text.stdout, /both-receive \(\d+\) waits, rxe0: QP .* both have receives posted/)
    assert.match(text.stdout, /both-receive \(\d+\) was ended by SIGALRM/)
    const slow = await runUserdma(t, ['explain', '--slow', file])
    assert.match(
      slow.stdout,
      /^what programs wait for\n {2}both-receive \(\d+\) waited until it ended, for .*receives posted/,
    )
    const redacted = await runUserdma(t, ['export', file, '--to', 'text', '--redact'])
    assert.match(redacted.stdout, /both have receives posted/)
  })
})

describe('userdma check --record', { skip: lacking(FINDING) }, () => {
  it('records findings, causes, and the stacks of calls and posts', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    await runUserdma(t, ['check', '--record', file, '--', FINDING])
    const events = await eventsIn(file)
    assert.deepEqual(
      ofKind(events, 'finding').map(({ finding }) => finding.id),
      ['rkey-no-right'],
    )
    const [post] = ofKind(events, 'posted')
    assert.ok(
      ofKind(events, 'failure').some(
        ({ object, failure: { failure } }) => object === post.request.owner && failure.cause === 'RKEY_NO_RIGHT',
      ),
    )
    assert.ok(post.stack.length > 0)
    assert.ok(ofKind(events, 'call').some(({ stack }) => stack.length > 0))
  })
})

describe('a recording whose program is gone', { skip: lacking(FINDING) }, () => {
  it('has functions, lines and source of its stacks, and after redaction no folders and no source', async t => {
    const folder = temporaryFolder(t)
    const [file, program] = [join(folder, 'session.udr'), join(folder, 'rkey-no-right')]
    copyFileSync(FINDING, program)
    await runUserdma(t, ['check', '--record', file, '--', program])
    rmSync(program)
    const [post] = ofKind(await eventsIn(file), 'posted')
    assert.ok(post.stack.some(frame => frame.includes(program)))
    const text = await runUserdma(t, ['export', '--to', 'text', file])
    const line = / posted to .* from ibv_post_send \(verbs\.h:\d+\) < .*main \(rkey-no-right\.c:\d+\)/
    assert.match(text.stdout, line)
    assert.match(text.stdout, / main at docs\/findings\/rkey-no-right\.c:\d+: .*;/)
    const redacted = await runUserdma(t, ['export', '--to', 'text', '--redact', file])
    assert.match(redacted.stdout, line)
    assert.doesNotMatch(redacted.stdout, /docs\/findings|main at .*;/)
    assert.ok(!redacted.stdout.includes(folder))
    const slow = await runUserdma(t, ['explain', '--slow', file])
    assert.match(slow.stdout, /posted in ibv_post_send \(verbs\.h:\d+\) < .*main \(rkey-no-right\.c:\d+\)/)
  })

  it('is whole where no tool knows debug information', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'session.udr')
    symlinkSync(process.execPath, join(folder, 'node'))
    await runUserdma(t, ['check', '--record', file, '--', FINDING], { env: { ...cleanEnvironment(), PATH: folder } })
    const events = await eventsIn(file)
    assert.equal(events.at(-1)?.kind, 'end')
    assert.ok(ofKind(events, 'posted').length > 0)
  })
})

describe('userdma daemon --record', { skip: lacking(LOOPBACK) }, () => {
  it('leaves a readable file when the daemon is killed', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const daemon = await startDaemon(t, { options: ['--record', file, '--record-limit', '1M'] })
    assertGood(await runUserdma(t, ['run', '--socket', daemon.socket, '--', LOOPBACK]))
    // The file is written every 100 ms: once a sample of counters is in it, what was before is in it too.
    while (ofKind(await eventsIn(file), 'counters').length === 0) await new Promise(setImmediate)
    process.kill(daemon.pid, 'SIGKILL')
    await daemon.running.ended
    const events = await eventsIn(file)
    assert.ok(ofKind(events, 'completed').length > 0)
    assert.ok(!events.some(({ kind }) => kind === 'end'))
  })
})

describe('userdma export', { skip: lacking(LOOPBACK, 'tshark') }, () => {
  it('writes a session in every format, and says what is wrong with other files', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'session.udr')
    assertGood(await runUserdma(t, [...private_, '--record', file, '--', LOOPBACK]))
    const text = await runUserdma(t, ['export', file, '--to', 'text'])
    assertGood(text)
    assert.match(text.stdout, /rc_qp\.create\(.*\) = 0/)
    assert.match(text.stdout, /SEND_FIRST/)
    const json = await runUserdma(t, ['export', file, '--to', 'json', '--redact'])
    const kinds = json.stdout.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line).kind]))
    assert.equal(kinds[0], 'session')
    assert.ok(kinds.includes('completed'))
    for (const format of ['pcapng', 'perfetto']) {
      const output = join(folder, format)
      assertGood(await runUserdma(t, ['export', file, '--to', format, '-o', output]))
      assert.ok(statSync(output).size > 100)
    }
    const tshark = await run(t, 'tshark', ['-r', join(folder, 'pcapng'), '-Y', '_ws.malformed || udp.length < 24'])
    assert.equal(tshark.stdout, '')
    const refused = async (args: readonly string[], message: RegExp) => {
      const { status, stderr } = await runUserdma(t, ['export', ...args])
      assert.notEqual(status, 0)
      assert.match(stderr, message)
      assert.doesNotMatch(stderr, /\n {4}at /)
    }
    await refused([userdma, '--to', 'text'], /no session file/)
    await refused([join(folder, 'none'), '--to', 'text'], /cannot read .*none: ENOENT/)
    await refused([folder, '--to', 'text'], /not a regular file/)
    await refused([file, '--to', 'xml'], /--to "xml" is not one of text, json, pcapng, perfetto/)
  })
})

describe('userdma explain --slow', { skip: lacking(LOOPBACK) }, () => {
  it('says what the sends of a recording waited for, and what is wrong with its arguments', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    assertGood(await runUserdma(t, [...private_, '--record', file, '--', LOOPBACK]))
    const text = await runUserdma(t, ['explain', '--slow', file, '--top', '1'])
    assertGood(text)
    assert.match(text.stdout, /^QP 0x[0-9a-f]+ at rxe0 of \S+ \(\d+\), to QP 0x/)
    assert.match(text.stdout, /the longest sends\n {2}.* wr_id \d+, QP 0x/)
    const json = await runUserdma(t, ['explain', '--slow', file, '--json'])
    const lines = json.stdout.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line)]))
    const requests = lines.filter(({ kind }) => kind === 'request')
    assert.ok(requests.length > 0 && lines.some(({ kind }) => kind === 'queuePair'))
    for (const { from, to, spans } of requests) {
      // The spans are the whole time, in its order.
      let at = from
      for (const span of spans) {
        assert.equal(span.from, at)
        at = span.to
      }
      assert.equal(at, to)
    }
    const refused = async (args: readonly string[], message: RegExp) => {
      const { status, stderr } = await runUserdma(t, ['explain', ...args])
      assert.notEqual(status, 0)
      assert.match(stderr, message)
    }
    await refused([], /takes a word, files or --slow FILE/)
    await refused(['RETRY_EXC_ERR', '--slow', file], /takes a word, files or --slow FILE/)
    await refused(['RETRY_EXC_ERR', '--top', '3'], /options of explain are for logs, captures and --slow/)
    await refused(['--slow', file, '--top', '0'], /--top "0": give an integer from 1 to 10000/)
    await refused(['--slow', userdma], /neither a session file nor a capture/)
  })
})
