/*
 * Tools on the hosts of a net: they act on the host's device, for which a command's own daemon borrows it, and report
 * what programs do on the other hosts.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileC } from '../tools.ts'
import { canMakeNets, newNet, untilListeningAt } from './nets.ts'
import { assertGood, lacking, type Scope, temporaryFolder, userdma } from './programs.ts'

const skip = lacking('ibv_rc_pingpong', 'ibv_devices', 'ip', 'cc')

/** `gidIndex`: of the device's IPv4 address as RoCE v2. */
const pingpong = (gidIndex: number) => ['ibv_rc_pingpong', '-g', `${gidIndex}`, '-n', '20'] as const

/** A program with the mistake `stale-rkey`. */
const staleRkey = (scope: Scope): string =>
  compileC(join(temporaryFolder(scope), 'stale-rkey'), ['docs/findings/stale-rkey.c'], ['-g', '-libverbs'])

describe('tools on hosts of a net', { skip, concurrency: true }, () => {
  it('borrow the device of the host, which has it again afterwards', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: { h1: , h2: { driver: mlx5 } }\nlinks: [{ between: [h1, h2], delay: 1ms }]')
    await net.up()
    const { hosts } = await net.show()
    // Both ends by daemons of their own, with the delay of the link.
    const server = net.startExec('h1', userdma, 'check', '--', ...pingpong(1))
    await untilListeningAt(hosts[0]!.daemon.pid, 18515, server)
    const taken = await net.exec('h1', userdma, 'check', '--', 'true')
    assert.match(taken.stderr, /needs the devices of host h1 .* another command has the devices now; end that first/)
    const trace = await net.exec('h2', userdma, 'trace', '--private', '--', ...pingpong(3), 'h1')
    assertGood(trace)
    assert.match(trace.stderr + trace.stdout, /rc_qp\.create|qp\.create/)
    const microseconds = Number(/20 iters in [\d.]+ seconds = ([\d.]+) usec/.exec(trace.stdout)?.[1])
    assert.ok(microseconds >= 2000, 'a round takes two milliseconds')
    const served = await server.ended
    assertGood(served)
    assert.match(served.stderr, /userdma check: programs on h2 are not checked/)
    assert.match(served.stderr, /userdma check: no findings/)
    const stale = staleRkey(t)
    const checked = await net.exec('h1', userdma, 'check', '--torment', '1', '--', stale)
    assert.equal(checked.status, 65)
    assert.match(checked.stderr, /error stale-rkey: process \d+ \(stale-rkey\) on h1, rxe0:/)
    const searched = await net.exec('h1', userdma, 'check', '--torment-search', '1', '--', 'ibv_devices')
    assert.match(searched.stderr, /no failure with 1 seed/)
    const walked = await net.exec(
      'h1',
      userdma,
      'walk',
      '--kinds',
      'calls,posts,completions',
      '--points',
      '2',
      '--',
      'ibv_devinfo',
    )
    assert.match(walked.stdout + walked.stderr, /4 points at 3 call sites[\s\S]*2 ended/)
    // A program that uses the device, then a command that is killed.
    const user = net.startExec('h2', 'ibv_asyncwatch')
    await user.printed(/async event FD/)
    const refused = await net.exec('h2', userdma, 'run', '--private', '--', 'true')
    assert.match(refused.stderr, /needs the devices of host h2 .* process \d+ \(ibv_asyncwatch\) uses the devices; end/)
    user.child.kill('SIGTERM')
    await user.ended
    const held = `echo up; exec sleep 100 > ${net.file}.out 2>&1`
    const killed = net.startExec('h2', 'sh', '-c', `echo $$; exec ${userdma} run --private -- sh -c '${held}'`)
    await killed.printed(/up/)
    process.kill(Number.parseInt(killed.output(), 10), 'SIGKILL')
    await killed.ended
    const again = await net.exec('h2', 'sh', '-c', 'until ibv_devices | grep mlx5_0; do sleep .1; done')
    assertGood(again)
    assertGood(await net.exec('h1', userdma, 'run', '--private', '--link', 'memory', '--', 'ibv_devinfo', '-d', 'rxe0'))
  })

  it('with `check: true` report findings of all hosts, each run its own, and several at once', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: { h1: , h2: { driver: mlx5 } }\ncheck: true')
    await net.up()
    const stale = staleRkey(t)
    const end = join(net.folder, 'end')
    const loop = `echo up; until [ -e ${end} ]; do sleep .1; done`
    const waiting = net.startExec('h2', userdma, 'check', '--json', '--', 'sh', '-c', loop)
    await waiting.printed(/up/)
    for (const _ of ['twice', 'the same mistake']) {
      const own = await net.exec('h1', userdma, 'check', '--', stale)
      assert.equal(own.status, 65)
      assert.match(own.stderr, /error stale-rkey: process \d+ \(stale-rkey\) on h1, rxe0:[\s\S]*1 error\n$/)
    }
    assertGood(await net.exec('h1', userdma, 'check', '--', 'ibv_devinfo'))
    // A program that no command checks.
    await net.exec('h1', stale)
    writeFileSync(end, '')
    const { stderr, stdout, status } = await waiting.ended
    assert.equal(status, 65)
    const findings = (stderr + stdout)
      .split('\n')
      .filter(line => line.startsWith('{"number"'))
      .map(line => JSON.parse(line) as { id: string; host: string; count: number; moments: { frames: unknown[] }[] })
    assert.deepEqual([...new Set(findings.map(({ id, host }) => `${id} on ${host}`))], ['stale-rkey on h1'])
    assert.ok(findings.at(-1)!.moments[0]!.frames.length > 0, 'its posts have stacks')
    const file = join(net.folder, 'session.udma')
    assertGood(await net.exec('h1', userdma, 'run', '--record', file, '--', 'ibv_devinfo'))
    assert.ok(existsSync(file) && readFileSync(file).length > 0)
  })
})
