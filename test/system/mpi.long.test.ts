/*
 * Open MPI and MPICH, whose own launchers start ranks on the hosts of a net by `userdma net exec --shell`: messages,
 * all-reduce and one-sided, on links that lose nothing and links that lose packets; what is left of an `mpirun` that
 * is killed, and of a host that dies.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { Stat } from '../../src/uapi/tool.ts'
import { repoRoot } from '../paths.ts'
import { canMakeNets, newNet } from './nets.ts'
import { assertGood, lacking, start, temporaryFolder, userdma } from './programs.ts'

const HOSTS = ['h1', 'h2', 'h3', 'h4']
const POLL_MS = 50
const TLS = 'rc_verbs,ud_verbs,self'

interface Mpi {
  readonly compiler: string
  /** The command that starts `count` ranks, without their program. `agent`: the words that take the place of ssh. */
  launcher(agent: readonly string[], count: number): readonly string[]
}

const OPEN_MPI: Mpi = {
  compiler: 'mpicc.openmpi',
  launcher: (agent, count) => [
    ...['mpirun.openmpi', '--allow-run-as-root', '--oversubscribe', '--host', HOSTS.join(','), '-n', `${count}`],
    ...Object.entries({ plm_rsh_agent: agent.join(' '), pml: 'ucx', osc: 'ucx', mpi_yield_when_idle: '1' }).flatMap(
      setting => ['--mca', ...setting],
    ),
    ...['-x', `UCX_TLS=${TLS}`],
  ],
}
const MPICH: Mpi = {
  compiler: 'mpicc.mpich',
  launcher: ([program, ...words], count) => [
    ...['env', `UCX_TLS=${TLS}`, `HYDRA_LAUNCHER_EXTRA_ARGS=${words.join(' ')}`],
    ...['mpirun.mpich', '-hosts', HOSTS.join(','), '-n', `${count}`, '-launcher', 'rsh', '-launcher-exec', program!],
  ],
}

const skip = lacking('ip', ...[OPEN_MPI, MPICH].map(({ compiler }) => compiler), 'mpirun.openmpi', 'mpirun.mpich')

const compiled = (t: TestContext, { compiler }: Mpi): string => {
  const folder = temporaryFolder(t)
  // Ranks of a net without root are another user's.
  chmodSync(folder, 0o755)
  const check = join(folder, 'check')
  const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
  const { status, stderr } = spawnSync(compiler, ['-o', check, source], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return check
}

/** A net of four hosts, with `loss` on each link. */
const mpiNet = (t: TestContext, loss: string) => {
  const links = HOSTS.map(host => `  - { between: [${host}, tor], mtu: 4200${loss} }`)
  const net = newNet(
    t,
    `hosts: [${HOSTS.join(', ')}]\nswitches: [tor]\nlinks:\n${links.join('\n')}\nfolders: [/dev/shm]\n`,
  )
  const startRanks = (mpi: Mpi, count: number, ...program: readonly string[]) => {
    const agent = [userdma, 'net', 'exec', '--net', net.name, '--shell']
    const words = ['net', 'exec', '--net', net.name, 'h1', '--', ...mpi.launcher(agent, count), ...program]
    return start(t, userdma, words, net.options)
  }
  const statOf = async (host: string): Promise<Stat> =>
    JSON.parse((await net.exec(host, userdma, 'stat', '--json')).stdout)
  /** Resolves when the hosts have no processes but their daemons, which have no objects of programs. */
  const untilIdle = async (hosts: readonly string[]): Promise<void> => {
    for (const host of hosts)
      for (let stat = await statOf(host); stat.sessions > 0; stat = await statOf(host)) await setTimeout(POLL_MS)
    for (const host of hosts)
      assert.deepEqual(readdirSync(join(net.folder, 'userdma', 'net', net.name, host, 'own', 'dev', 'shm')), [], host)
  }
  return { ...net, startRanks, statOf, untilIdle }
}

for (const [name, mpi] of Object.entries({ 'Open MPI': OPEN_MPI, MPICH }))
  for (const [kind, loss] of Object.entries({ 'lose nothing': '', 'lose 0.1 %': ', loss: 0.1%' }))
    test(`${name} by its own launcher, on links that ${kind}`, { skip }, async t => {
      if (!canMakeNets(t)) return
      const check = compiled(t, mpi)
      const net = mpiNet(t, loss)
      await net.up()
      // So many packets that some of them are lost.
      const messages = Array.from({ length: 10 }, () => 'messages')
      assertGood(await net.startRanks(mpi, 4, check, ...messages, 'reduce', 'one-sided').ended)
      const devices = await Promise.all(HOSTS.map(async host => (await net.statOf(host)).devices[0]!))
      // Megabytes go around: each rank has used the device of its host.
      for (const { counters } of devices) assert.ok(counters.port_xmit_data! * 4 > 2 ** 20)
      const dropped = devices.reduce((sum, { faults }) => sum + faults.dropped!, 0)
      assert.equal(dropped > 0, loss !== '', `${dropped} packets lost`)
      await net.untilIdle(HOSTS)
      assertGood(await net.net('down', net.name))
      net.assertGone()
    })

test('an mpirun that is killed and a host that dies leave nothing', { skip }, async t => {
  if (!canMakeNets(t)) return
  const check = compiled(t, OPEN_MPI)
  const net = mpiNet(t, '')
  await net.up()
  for (const kill of ['mpirun', 'h3'] as const) {
    const ranks = net.startRanks(OPEN_MPI, 8, 'sh', '-c', `${check} reduce; echo started; sleep 1000`)
    await ranks.printed(/(started\s+){8}/)
    if (kill === 'mpirun') {
      const [mpirun] = spawnSync('pgrep', ['-f', `^mpirun.openmpi .*${check} reduce`], {
        encoding: 'utf8',
      }).stdout.split('\n')
      process.kill(Number(mpirun), 'SIGKILL')
    } else {
      const { hosts } = await net.show()
      const daemon = hosts.find(({ name }) => name === kill)!.daemon.pid
      const namespace = (pid: string): string =>
        spawnSync('readlink', [`/proc/${pid}/ns/net`], { encoding: 'utf8' }).stdout
      const own = namespace(`${daemon}`)
      for (const pid of readdirSync('/proc').filter(found => /^\d+$/.test(found) && namespace(found) === own))
        process.kill(Number(pid), 'SIGKILL')
    }
    await ranks.ended
    await net.untilIdle(HOSTS.filter(host => host !== kill))
  }
  assertGood(await net.net('down', net.name))
  net.assertGone()
  const left = readdirSync('/proc').filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(check)
    } catch {
      return false
    }
  })
  assert.deepEqual(left, [])
})
