/*
 * Threads that wait for each other on two hosts of a net with `check: true`, on each kind of device (netWaits in
 * spec/waits-by-device.ts). SRD has no connections, so there each host tells of its own threads.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { netWaits, waitColumns } from '../../spec/waits-by-device.ts'
import { compileC, hasHeader, scratchFolder } from '../../tools.ts'
import { canMakeNets, newNet } from '../nets.ts'
import { lacking, userdma } from '../programs.ts'

const skip = lacking('cc', 'ip') || (hasHeader('infiniband/efadv.h') ? false : 'needs libibverbs-dev')
const source = join(repoRoot, 'test/programs/check/net_pair.c')

interface Found {
  readonly id: string
  readonly waits?: { readonly threads: readonly { readonly host: string; readonly kind: string }[] }
}

/** A list that begins with its first in the order of the alphabet: a cycle has no beginning. */
const turned = (threads: readonly string[]): readonly string[] => {
  const first = threads.indexOf([...threads].sort()[0] ?? '')
  return [...threads.slice(first), ...threads.slice(0, first)]
}

describe('waits across two hosts of a net', { skip }, () => {
  for (const driver of waitColumns.filter(column => column !== 'infiniband'))
    it(driver, async t => {
      if (!canMakeNets(t)) return
      const flags = driver === 'efa' ? ['-DSRD', '-lefa'] : []
      const program = compileC(join(scratchFolder(), driver), [source], ['-g', '-libverbs', '-lpthread', ...flags])
      const net = newNet(t, `check: true\nhosts: { h1: { driver: ${driver} }, h2: { driver: ${driver} } }\n`)
      await net.up()
      const address = (await net.show()).hosts[0]!.interfaces[0]!.address
      for (const { kind, connected } of netWaits) {
        const json = join(net.folder, `${kind}.json`)
        const options = ['--hang', '2', '--time-limit', '8']
        await Promise.all([
          net.exec('h1', userdma, 'check', ...options, program, kind),
          net.exec('h2', userdma, 'check', '--json', '-o', json, ...options, program, kind, address),
        ])
        const found = readFileSync(json, 'utf8')
          .trim()
          .split('\n')
          .map(line => JSON.parse(line) as Found)
          .flatMap(({ id, waits }) =>
            waits === undefined ? [] : [[id, waits.threads.map(({ host, kind: how }) => `${host} ${how}`)] as const],
          )
        const [id, threads] = connected
        const expected =
          driver === 'efa'
            ? ['h1', 'h2'].map(host => ['idle-queues', threads.filter(thread => thread.startsWith(host))] as const)
            : [connected]
        for (const [finding, chain] of expected)
          assert.ok(
            found.some(([other, told]) => other === finding && turned(told).join() === turned(chain).join()),
            `${kind}: ${id} in ${JSON.stringify(found)}`,
          )
      }
    })
})
