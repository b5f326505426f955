/*
 * Fabrics of several switches in one daemon: routes that change during a transfer, OpenSM on a large one, and two
 * OpenSMs.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { startPair } from '../pairs/pingpong.ts'
import { assertGood, lacking, run, start, startDaemon, type TestDaemon, temporaryFolder } from '../programs.ts'

const devices = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `mlx5_${i}@127.0.1.${i + 1},driver=mlx5,layer=infiniband`)

const outputOf = async (t: TestContext, daemon: TestDaemon, program: string, ...args: string[]): Promise<string> => {
  const { stdout, stderr } = await run(t, program, args, { env: daemon.env })
  return stdout + stderr
}

/** Repeats `look` until it returns something. */
const until = async <T>(look: () => Promise<T | undefined>): Promise<T> => {
  for (let attempts = 0; attempts < 3000; attempts++) {
    const found = await look()
    if (found !== undefined) return found
  }
  return assert.fail('it did not happen')
}

/** An OpenSM at a port, with short times, and its log. */
const startOpenSm = (t: TestContext, daemon: TestDaemon, guid: string, ...args: string[]) => {
  const folder = temporaryFolder(t)
  const log = join(folder, 'log')
  const config = join(folder, 'conf')
  writeFileSync(config, 'force_log_flush TRUE\nsminfo_polling_timeout 500\npolling_retry_number 2\n')
  const env = { ...daemon.env, OSM_CACHE_DIR: folder, OSM_TMP_DIR: folder }
  const started = start(t, 'opensm', ['-F', config, '-f', log, '-e', '-g', `0x${guid}`, ...args], { env })
  const logged = (pattern: RegExp) =>
    until(async () => {
      await run(t, 'sminfo', ['-t', '100'], { env: daemon.env })
      try {
        return pattern.test(readFileSync(log, 'utf8')) || undefined
      } catch {
        return undefined
      }
    })
  return { ...started, logged }
}

/** Of a device. */
const guidOf = async (t: TestContext, daemon: TestDaemon, device: string): Promise<string> =>
  /Port GUID: 0x([\da-f]{16})/.exec(await outputOf(t, daemon, 'ibstat', device, '1'))?.[1] ?? assert.fail(device)

describe('a fat tree', { skip: lacking('ib_write_bw', 'ibroute', 'ibportstate', 'opensm') }, () => {
  it('has another way when a link fails during ib_write_bw, and RC goes on', async t => {
    const daemon = await startDaemon(t, { devices: devices(4), options: ['--fabric', 'fat-tree,leaves=2,spines=2'] })
    const switchLid = /Switch\t36 "S-\w+"\t\t# "leaf1" enhanced port 0 lid (\d+) /
    const leaf = await until(async () => switchLid.exec(await outputOf(t, daemon, 'ibnetdiscover'))?.[1])
    const port = () => outputOf(t, daemon, 'ibroute', leaf).then(text => / (\d{3}) : .*'mlx5_1'/.exec(text)?.[1])
    const pair = await startPair(t, daemon, ['-F', '-D', '8'], {
      program: 'ib_write_bw',
      devices: ['mlx5_0', 'mlx5_1'],
    })
    for (let times = 0; times < 2; times++) {
      const before = await until(port)
      await outputOf(t, daemon, 'ibportstate', leaf, `${Number(before)}`, 'disable')
      await until(async () => {
        const next = await port()
        return next !== undefined && next !== before ? next : undefined
      })
      await outputOf(t, daemon, 'ibportstate', leaf, `${Number(before)}`, 'enable')
    }
    const { server, client } = await pair.ended()
    assertGood(client)
    assertGood(server)
  })

  it('of 64 hosts and 12 switches comes up in under 10 s, and OpenSM sweeps it', async t => {
    const options = ['--fabric', 'fat-tree,leaves=8,spines=4']
    const daemon = await startDaemon(t, { devices: devices(64), options })
    const from = performance.now()
    const isUp = async () =>
      (await outputOf(t, daemon, 'ibv_devinfo')).match(/PORT_ACTIVE/g)?.length === 64 || undefined
    await until(isUp)
    assert.ok(performance.now() - from < 10_000)
    const opensm = startOpenSm(t, daemon, await guidOf(t, daemon, 'mlx5_0'))
    await opensm.logged(/SUBNET UP/)
    assert.ok(await isUp())
    assert.equal((await outputOf(t, daemon, 'saquery', '-N')).match(/NodeRecord dump/g)?.length, 76)
  })
})

describe('two OpenSMs', { skip: lacking('opensm', 'sminfo', 'ibstat') }, () => {
  it('one is the master; when it is killed, the other takes over', async t => {
    const daemon = await startDaemon(t, { devices: devices(2), options: ['--fabric', 'manager=none'] })
    const guids = [await guidOf(t, daemon, 'mlx5_0'), await guidOf(t, daemon, 'mlx5_1')]
    assert.match(await outputOf(t, daemon, 'ibv_devinfo'), /PORT_INIT/)
    const first = startOpenSm(t, daemon, guids[0]!, '-p', '5')
    await first.logged(/SUBNET UP/)
    const second = startOpenSm(t, daemon, guids[1]!, '-p', '3')
    await second.logged(/Entering STANDBY state/)
    first.child.kill('SIGKILL')
    await first.ended
    await second.logged(/Entering MASTER state[\s\S]*SUBNET UP/)
    assert.match(await outputOf(t, daemon, 'sminfo'), /priority 3 state 3 SMINFO_MASTER/)
  })
})
