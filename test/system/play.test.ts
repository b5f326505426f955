/*
 * `userdma net play`: scenarios with real programs, failures at their moments, and what is left.
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { longOnly } from '../long-run.ts'
import { canMakeNets, newNet } from './nets.ts'
import { assertGood, lacking, NOBODY, noOtherUser, run, runUserdma, temporaryFolder, userdma } from './programs.ts'

const SERVER = 'stdbuf -oL ibv_rc_pingpong -g 1 -n 400'
const READY = 'when: { line: { program: server, matches: "local address" } }'

/** A net with hosts h1 and h2, and a scenario of a server on h1 and a client on h2. */
const scenario = (t: TestContext, client: string, events: string, user = {}) => {
  const net = newNet(t, 'hosts: 2', user)
  const file = join(net.folder, 'play.yaml')
  const programs = `  server: { host: h1, run: "${SERVER}" }\n  client: { host: h2, run: "${SERVER} h1", ${READY}, ${client} }`
  writeFileSync(file, `net: ${net.file}\nprograms:\n${programs}\nevents:\n  - ${events}\n`)
  return { ...net, play: (...options: readonly string[]) => net.net('play', file, ...options), scenarioFile: file }
}

describe('a scenario', { skip: lacking('ibv_rc_pingpong', 'stdbuf', 'ip') }, () => {
  const atHalf = 'when: { completions: { program: client, nth: 400 } }'

  it('takes a link down at a completion for less than retries last: all holds, and hosts are recorded', async t => {
    if (!canMakeNets(t)) return
    // Counts go on when the rules change: of 800 completions, 700 do not follow the first 200.
    const events = [
      `{ when: { completions: { program: client, nth: 200 } }, fault: { host: h2, rules: 'opcode=UC_SEND_ONLY,drop=1' } }`,
      `{ when: { completions: { program: client, nth: 700 } }, link: { host: h2, down: 50ms } }`,
    ]
    const run = scenario(t, 'expect: { output: "400 iters" }', events.join('\n  - '))
    const ended = await run.play('--record', join(run.folder, 'records'))
    assertGood(ended)
    assert.match(
      ended.stdout,
      /the link of the devices of h2 goes down for 50ms\n(?:.*\n)*.*client has ended: exit status 0\n/,
    )
    assert.match(ended.stdout, /\nuserdma net play: all held\n$/)
    for (const host of ['h1', 'h2']) assert.ok(existsSync(join(run.folder, 'records', `${host}.udr`)))
    run.assertGone()
  })

  it('of an hour takes seconds with a clock that skips, also over links with a rate', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(
      t,
      'hosts: 2\nswitches: [s]\nlinks: [{ between: [h1, s], rate: 20mbit, delay: 2ms }, { between: [h2, s], rate: 20mbit }]',
    )
    const file = join(net.folder, 'play.yaml')
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  server: { host: h1, run: "sleep 3000; exec ${SERVER}" }
  client: { host: h2, command: ibv_rc_pingpong, run: "sleep 3001; exec ${SERVER} h1", expect: { output: 400 iters, within: 3600s } }
  late: { host: h2, run: "date +%s; sleep 300; echo is over", when: { completions: { program: client, nth: 300, of: SEND } }, expect: { output: is over, within: 3600s } }
events:
  - { when: { completions: { program: client, nth: 200 } }, link: { host: h2, down: 100ms } }
  - { after: 1000s, daemon: { host: h1, gone: 5s } }
`,
    )
    // In a session of its own: in that of all tests its daemons may have no processor for longer than retries last
    // (docs/decisions/clock-that-skips.md).
    const words = ['net', 'play', file, '--clock', 'skip']
    const begin = performance.now()
    const ended = await run(t, userdma, words, { ...net.options, detached: true })
    const real = (performance.now() - begin) / 1000
    assertGood(ended)
    // What takes time of the machine comes later by as much.
    const isFrom = (from: number, text: string, pattern: RegExp): void => {
      const [, at = 'absent'] = pattern.exec(text) ?? []
      const seconds = Number(at.replace(',', ''))
      assert.ok(seconds >= from && seconds <= from + 10 + real, `${at} is not from ${from} on:\n${text}`)
    }
    isFrom(1000, ended.stdout, /\n(\d+)\.\d+ the daemon of h1 is killed, and starts again after 5s\n/)
    isFrom(3301, ended.stdout, /\n(\d+)\.\d+ late: is over\n/)
    assert.match(ended.stdout, /\nuserdma net play: all held\n$/)
    isFrom(3301 - real, ended.stderr, /^userdma: (\d,\d{3}) s skipped in \d+ jumps, /)
    net.assertGone()
  })

  it('for more: what does not hold is said, with exit status 1', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(t, 'expect: {}', `{ ${atHalf}, link: { host: h2, down: 5s } }`)
    const { status, stdout } = await run.play()
    assert.equal(status, 1)
    assert.match(stdout, /client: Failed status transport retry counter exceeded/)
    assert.match(stdout, /\nuserdma net play: client: exit status 1, expected 0\n$/)
    run.assertGone()
  })

  it('waits for packets in the queue of a link before a clock skips', {
    skip: longOnly || lacking('python3'),
  }, async t => {
    if (!canMakeNets(t)) return
    const net = newNet(
      t,
      'hosts: [a, b]\nlinks: [{ between: [a, s], rate: 100mbit }, { between: [b, s], rate: 800kbit }]\nswitches: [s]',
    )
    const file = join(net.folder, 'play.yaml')
    const receiver = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7777))
print('ready', flush=True)
for i in range(30):
    s.recv(2000)
    s.settimeout(0.2)
print('all', flush=True)
`
    const sender = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(30): s.sendto(bytes(1400), ('b', 7777))
`
    writeFileSync(join(net.folder, 'receiver.py'), receiver)
    writeFileSync(join(net.folder, 'sender.py'), sender)
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  receiver: { host: b, run: "python3 ${net.folder}/receiver.py", expect: { output: all } }
  sender: { host: a, run: "sleep 20; python3 ${net.folder}/sender.py", when: { line: { program: receiver, matches: ready } } }
`,
    )
    assertGood(await net.net('play', file, '--clock', 'skip'))
  })

  it('moves a GID: a program with a fixed index finds it empty', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(t, 'restart: on-failure, expect: { within: 3s }', '{ gid: { host: h2, move: 1 } }')
    const { status, stdout } = await run.play()
    assert.equal(status, 1)
    assert.match(stdout, /client: {3}local address: .* GID ::\n/)
    assert.match(stdout, /client: has not ended within 3 s\n/)
    run.assertGone()
  })

  it('removes a device, kills, stops, and cuts one way; events that do not come are said', {
    skip: longOnly,
  }, async t => {
    if (!canMakeNets(t)) return
    const events = [
      `{ ${atHalf}, fault: { host: h2, rules: 'dir=sent,drop=1', for: 50ms } }`,
      `{ when: { packets: { host: h2, nth: 100 } }, stop: { program: server, for: 100ms } }`,
      `{ when: { posts: { program: client, nth: 600 } }, device: { host: h2, gone: 100ms } }`,
      `{ after: 1000s, kill: server }`,
    ]
    const run = scenario(t, 'expect: { exit: 1 }', events.join('\n  - '))
    const { status, stdout } = await run.play()
    assert.equal(status, 1, stdout)
    assert.match(stdout, /userdma net play: did not come to this: server is killed\n/)
    assert.match(stdout, /the device of h2 is removed for 100ms\n/)
    assert.match(stdout, /server is stopped for 100ms\n/)
    run.assertGone()
  })

  it('kills a daemon, which comes back; programs start at a line, and at an event', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 2')
    const file = join(net.folder, 'play.yaml')
    // The loops end when the device is gone, and when it is there again.
    const loop =
      'echo ready; while ibv_devinfo > /dev/null 2>&1; do :; done; until ibv_devinfo > /dev/null 2>&1; do :; done; echo back'
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  watch: { host: h2, run: "stdbuf -oL ibv_asyncwatch" }
  told: { host: h1, run: "echo told", when: { events: { program: watch, nth: 1, of: PORT_ERR } }, expect: { output: told } }
  one: { host: h1, run: "${loop}", when: { line: { program: told, matches: told } }, expect: { output: back } }
events:
  - { when: { line: { program: watch, matches: async event FD } }, link: { host: h2, down: 50ms } }
  - { when: { line: { program: one, matches: ready } }, daemon: { host: h1, gone: 100ms } }
`,
    )
    const ended = await net.net('play', file)
    assertGood(ended)
    assert.match(ended.stdout, /watch: {3}event_type IBV_EVENT_PORT_ERR/)
    assert.match(ended.stdout, /the daemon of h1 is killed, and starts again after 100ms\n(?:.*\n)*.*one: back\n/)
    net.assertGone()
  })

  it('kills a daemon that is gone already: nothing; what cannot be is refused', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 1')
    const file = join(net.folder, 'play.yaml')
    const gone = '{ after: 100ms, daemon: { host: h1, gone: 50ms } }'
    writeFileSync(
      file,
      `net: ${net.file}\nprograms: { one: { host: h1, run: "sleep 2; ibv_devinfo", expect: { exit: 0 } } }\nevents: [${gone}, ${gone}]\n`,
    )
    assertGood(await net.net('play', file))
    for (const [option, value, expected] of [
      ['--restart', 'h9', /^userdma: --restart "h9": give one of h1\n$/],
      ['--record', '/proc/none', /^userdma: --record: cannot make the folder \/proc\/none: ENOENT\n$/],
    ] as const) {
      const { status, stderr } = await net.net('play', file, option, value)
      assert.equal(status, 2)
      assert.match(stderr, expected)
    }
    net.assertGone()
  })

  it('as a walk repeats a finding: with a rule, without events, programs of the host restarted', {
    skip: longOnly,
  }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(t, 'expect: { output: "400 iters" }', '{ after: 0s, kill: server }')
    const rule = ['--fault', 'h2:call=rc_qp.create,nth=1,errno=ENOMEM', '--no-events']
    const refused = await run.play(...rule)
    assert.equal(refused.status, 1)
    assert.match(refused.stdout, /client: exit status 1, expected 0\n$/)
    const restarted = await run.play(...rule, '--restart', 'h2')
    assertGood(restarted)
    assert.match(restarted.stdout, /client has ended: exit status 1\n(?:.*\n)*.*client starts\n(?:.*\n)*.*all held\n$/)
    assert.doesNotMatch(restarted.stdout, /server is killed/)
    run.assertGone()
  })

  it('with the same seed loses the same packets, and tells the same', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    // One message is outstanding at a time, so the order of the SENDs is the program's. What depends on the scheduler
    // is left out: times, numbers of queue pairs, whether the server ends by itself, and how often a late SEND is
    // repeated.
    const told = async (seed: number) => {
      const rules = 'opcode=RC_SEND_ONLY,drop=20%'
      const run = scenario(t, 'expect: { output: "40 iters" }', `{ fault: { host: h1, rules: '${rules}' } }`)
      const text = readFileSync(run.scenarioFile, 'utf8')
        .replaceAll('-n 400', '-s 64 -n 40')
        .replace('\nprograms', `\nseed: ${seed}\nprograms`)
      writeFileSync(run.scenarioFile, text)
      const ended = await run.play('--record', join(run.folder, 'records'))
      assertGood(ended)
      const exported = await runUserdma(t, ['export', join(run.folder, 'records', 'h1.udr'), '--to', 'text'])
      const packets = exported.stdout.split('\n').filter(line => /received .*SEND_ONLY/.test(line))
      run.assertGone()
      return {
        lost: packets.slice(0, 30).map(line => /dropped/.test(line)),
        lines: ended.stdout
          .split('\n')
          .filter(line => /client|net play/.test(line))
          .map(line => line.replace(/^ *[\d.]+ /, '').replace(/0x[\da-f]+|\d+/g, '#'))
          .sort(),
      }
    }
    const first = await told(7)
    assert.ok(first.lost.includes(true) && first.lost.includes(false), `${first.lost}`)
    assert.deepEqual(await told(7), first)
    assert.notDeepEqual((await told(8)).lost, first.lost)
  })

  it('is walked: failures on each host, and what recovers with a restart', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(
      t,
      'restart: on-failure, expect: { output: "400 iters", within: 10s }',
      '{ after: 500s, kill: server }',
    )
    const text = readFileSync(run.scenarioFile, 'utf8')
    writeFileSync(run.scenarioFile, text.replace('{ host: h1,', '{ host: h1, restart: always,'))
    const report = join(run.folder, 'report')
    const options = ['--kinds', 'calls,links,peers', '--points', '3', '--json', '-o', report]
    const words = ['net', 'walk', run.scenarioFile, ...options]
    const walked = await runUserdma(t, words, run.options)
    assert.ok(walked.status === 0 || walked.status === 65, walked.stderr)
    const results = readFileSync(report, 'utf8')
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as { kind: string; host?: string; outcome: string; text: string })
    assert.equal(results.length, 3)
    assert.deepEqual(new Set(results.map(({ kind }) => kind)), new Set(['calls', 'links', 'peers']))
    for (const { host } of results) assert.match(host ?? '', /^h[12]$/)
    run.assertGone()
  })

  it('without root', { skip: longOnly || noOtherUser() }, async t => {
    const user = { uid: NOBODY, gid: NOBODY }
    const folder = temporaryFolder(t)
    chownSync(folder, NOBODY, NOBODY)
    chmodSync(folder, 0o700)
    if (!canMakeNets(t, user)) return
    const net = newNet(t, 'hosts: 2', user, folder)
    const file = join(folder, 'play.yaml')
    writeFileSync(file, `net: ${net.file}\nprograms: { one: { host: h1, run: "exit 3", expect: { exit: 3 } } }\n`)
    for (const options of [[], ['--clock', 'skip']]) {
      const { status, stdout } = await net.net('play', file, ...options)
      assert.equal(status, 0, stdout)
      net.assertGone()
    }
  })

  it('that is interrupted leaves nothing', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(t, 'expect: {}', '{ after: 500s, kill: server }')
    writeFileSync(
      run.scenarioFile,
      `net: ${run.file}\nprograms: { one: { host: h1, run: "trap '' INT TERM; echo ready; sleep 1000; :", expect: {} } }\n`,
    )
    const playing = run.startNet('play', run.scenarioFile)
    await playing.printed(/one: ready/)
    playing.child.kill('SIGINT')
    assert.equal((await playing.ended).signal, 'SIGINT')
    run.assertGone()
  })

  it('a walk that is interrupted leaves nothing, and ends by the signal', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const run = scenario(t, 'expect: {}', '{ after: 500s, kill: server }')
    writeFileSync(
      run.scenarioFile,
      `net: ${run.file}\nprograms: { one: { host: h1, run: "ibv_devinfo", expect: {} } }\n`,
    )
    const walking = run.startNet('walk', run.scenarioFile)
    await walking.printed(/without failures the program takes/)
    walking.child.kill('SIGINT')
    assert.equal((await walking.ended).signal, 'SIGINT')
    run.assertGone()
  })
})
