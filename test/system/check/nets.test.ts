/*
 * `userdma check` on two hosts of a net with `check: true`: the cause that the other host knows, its part of the story,
 * and threads that wait for each other across hosts.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { repoRoot } from '../../paths.ts'
import { compileC, hasHeader, scratchFolder } from '../../tools.ts'
import { canMakeNets, newNet } from '../nets.ts'
import { lacking, userdma } from '../programs.ts'

const skip = lacking('cc', 'ip') || (hasHeader('infiniband/verbs.h') ? false : 'needs libibverbs-dev')

interface FoundLine {
  readonly host?: string
  readonly text: string
  readonly isDecisive?: true
}
interface Found {
  readonly id: string
  readonly host?: string
  readonly text: string
  readonly objects: readonly { readonly name: string }[]
  readonly story?: readonly FoundLine[]
  readonly waits?: { readonly shape: string; readonly threads: readonly { readonly host?: string }[] }
}

test('two hosts of a net say what one daemon says', { skip }, async t => {
  if (!canMakeNets(t)) return
  const folder = scratchFolder()
  const program = compileC(
    join(folder, 'net_pair'),
    [join(repoRoot, 'test/programs/check/net_pair.c')],
    ['-g', '-libverbs'],
  )
  const net = newNet(t, 'check: true\nhosts: 2\n')
  await net.up()
  const { hosts } = await net.show()
  const [server, client] = hosts
  const check = async (kind: string, ...options: readonly string[]): Promise<readonly Found[]> => {
    const served = net.exec(server!.name, userdma, 'check', ...options, program, kind)
    const address = server!.interfaces[0]!.address
    const json = join(net.folder, `${kind}.json`)
    await net.exec(client!.name, userdma, 'check', '--json', '-o', json, ...options, program, kind, address)
    await served
    const lines = readFileSync(json, 'utf8').trim().split('\n')
    return lines.map(line => JSON.parse(line) as Found).filter(({ id }) => id !== undefined && id !== 'leak')
  }
  const ofClient = (found: readonly Found[], id: string): Found => {
    const one = found.find(finding => finding.id === id && finding.host === client!.name)
    assert.ok(one, `${id} in ${JSON.stringify(found.map(({ id: other, host }) => [other, host]))}`)
    return one
  }
  const hostsIn = (lines: readonly { readonly host?: string }[] = []): readonly string[] =>
    [...new Set(lines.map(({ host = '' }) => host))].sort()
  const both = [server!.name, client!.name].sort()

  const reset = ofClient(await check('reset'), 'peer-not-ready')
  assert.match(reset.text, /is in RESET/)
  assert.match(reset.objects[1]?.name ?? '', new RegExp(` on ${server!.name}$`))
  assert.deepEqual(hostsIn(reset.story), both)
  const decisive = reset.story?.filter(({ isDecisive }) => isDecisive)
  assert.deepEqual(
    decisive?.map(({ host, text }) => [host, text]),
    [[server!.name, 'modified to RESET']],
  )

  // The others are left to the long run.
  if (longOnly) return
  const destroyed = await check('destroyed', '--notes')
  assert.match(ofClient(destroyed, 'no-peer-qp').text, /there is no QP /)
  assert.match(
    ofClient(destroyed, 'class-differs').text,
    /in traffic class 236 \(DSCP 59\), and its peer, QP .* in traffic class 0 /,
  )
  assert.match(ofClient(await check('no-right'), 'rkey-no-right').text, /has no REMOTE_WRITE/)

  const waiting = await check('wait', '--hang', '2', '--time-limit', '5')
  const deadlocks = waiting.filter(({ id }) => id === 'deadlock')
  assert.equal(deadlocks.length, 1)
  assert.equal(deadlocks[0]?.waits?.shape, 'cycle')
  assert.deepEqual(hostsIn(deadlocks[0]?.waits?.threads), both)
})
