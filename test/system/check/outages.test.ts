/*
 * `userdma check` in an outage: packets that a fault rule loses, an address that leaves, a port that goes down.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { canMakeNamespaces, ip, twoNamespaces } from '../namespaces.ts'
import {
  cleanEnvironment,
  freePort,
  lacking,
  ownProgram,
  run,
  type Scope,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from '../programs.ts'
import { checkScript, type FindingJson } from './checking.ts'

const program = ownProgram('outages')

/** Begins a command line in a namespace under `userdma check`, with the device of the namespace. */
const checked = (scope: Scope, netns: string) => {
  const output = join(temporaryFolder(scope), 'findings')
  const options = ['--private', '--notes', '--json', '-o', output, '--link', 'udp', '--device', 'rxe0@10.99.0.1']
  return {
    args: ['netns', 'exec', netns, userdma, 'check', ...options, '--'],
    found: () =>
      readFileSync(output, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map(line => JSON.parse(line) as FindingJson),
  }
}

const withId = (found: readonly FindingJson[], id: string) => found.filter(one => one.id === id)

describe('userdma check in an outage', { skip: lacking(program) }, () => {
  for (const [how, severity] of [
    ['recovers', 'note'],
    ['closes', 'note'],
    ['dies', 'error'],
  ])
    it(`names the fault rule that lost the packets of a program that ${how}: ${severity}`, async t => {
      const { found } = await checkScript(t, `${program} ${how} >&2`, ['--fault', 'drop=1,count=8'])
      const [finding] = withId(found, 'no-answer')
      assert.equal(finding?.severity, severity)
      assert.match(finding.text, /: the fault rule count=8,drop=1 lost, damaged or delayed packets of the connection/)
      assert.deepEqual(
        found.filter(one => one.severity === 'error' && one !== finding),
        [],
      )
    })

  it('names a queue pair of the process that it has destroyed', async t => {
    const { found } = await checkScript(t, `${program} forgets >&2`)
    const [finding] = withId(found, 'no-peer-qp')
    assert.match(
      finding?.details[0] ?? '',
      /^dest_qp_num 0x\w+ was this process's queue pair, destroyed \d+ ms before$/,
    )
    assert.match(finding?.moments[1]?.action ?? '', /^the queue pair 0x\w+ was destroyed$/)
  })

  it('an index that empties between an address handle and its datagram is no mistake: mlx5', async t => {
    const options = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5', '--fault', 'call=ah.create,nth=1,gid=1']
    const { found, status, stderr } = await checkScript(t, `exec ${ownProgram('datagram_service')} >&2`, options)
    assert.deepEqual(
      found.filter(({ severity }) => severity !== 'note').map(({ id, text }) => `${id}: ${text}`),
      [],
    )
    const texts = withId(found, 'event-ignored').map(({ text }) => text)
    for (const text of texts)
      assert.match(text, /^ah names GID index 3, which is empty: the address 127\.0\.0\.1 left.* at GID index 5$/)
    assert.equal(status, 0, stderr)
  })

  it('names the address that left, when, and where it is now', async t => {
    if (!canMakeNamespaces(t)) return
    const [netns] = twoNamespaces(t, 1500)
    // The program runs until the device has another table.
    const change = (what: string): string =>
      `ip addr ${what} 10.99.0.1/24 dev v0; for i in $(seq 100); do gids=$(ibv_devinfo -v) && echo "$gids" | grep -c '::ffff:10.99.0.1' | grep -q ${what === 'del' ? 0 : 1} && break; done`
    const { args, found } = checked(t, netns)
    await run(t, 'ip', [...args, program, 'again', change('del'), change('add')], { env: cleanEnvironment() })
    const [refused] = withId(found(), 'event-ignored')
    const left = String.raw`the address 10\.99\.0\.1 left GID index 1 of rxe0 [\d.]+ m?s before, and`
    assert.match(
      refused?.text ?? '',
      new RegExp(`which is empty: ${left} returned [\\d.]+ m?s before, at GID index \\d+$`),
    )
    const [unanswered] = withId(found(), 'no-answer')
    assert.equal(unanswered?.severity, 'note')
    assert.match(unanswered.text, new RegExp(`: ${left} has not returned$`))
  })

  it('names the port that went down, for a program that ends of it', {
    skip: lacking('ib_write_bw', 'stdbuf'),
  }, async t => {
    if (!canMakeNamespaces(t)) return
    const [netns, peerNetns] = twoNamespaces(t, 1500)
    const peer = await startDaemon(t, { devices: ['rxe0@10.99.0.2'], link: 'udp', netns: peerNetns })
    const line = ['-F', '-x', '1', '-D', '60', '-p', String(await freePort())]
    const server = start(t, 'ip', ['netns', 'exec', peerNetns, 'stdbuf', '-oL', 'ib_write_bw', ...line], {
      env: peer.env,
    })
    const { args, found } = checked(t, netns)
    await server.printed(/Waiting for client/)
    const client = start(t, 'ip', [...args, 'stdbuf', '-oL', 'ib_write_bw', ...line, '10.99.0.2'], {
      env: cleanEnvironment(),
    })
    await client.printed(/remote address/)
    await peer.settled(({ devices }) => devices[0].port.sentPackets > 1000)
    ip('-n', netns, 'link', 'set', 'v0', 'down')
    const { stderr } = await client.ended
    server.child.kill()
    const [unanswered] = withId(found(), 'no-answer')
    assert.equal(unanswered?.severity, 'error', stderr)
    assert.match(
      unanswered.text,
      /: the port of rxe0 went down [\d.]+ m?s before, and is still down: the program ended/,
    )
  })
})
