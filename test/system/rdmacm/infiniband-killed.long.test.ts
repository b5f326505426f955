/*
 * Programs on InfiniBand ports that are killed at any time of resolving, joining and connecting, many connections at
 * once, and a subnet manager that is killed meanwhile: nothing stays, and later programs connect.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { isEmpty, lacking, run, start, startDaemon, type TestDaemon, temporaryFolder } from '../programs.ts'

const DEVICES = [1, 2].map(i => `mlx5_${i - 1}@127.0.0.${i + 1},driver=mlx5,layer=infiniband`)
const [CLIENT, SERVER] = ['127.0.0.2', '127.0.0.3']

/** `count` connections between two programs; the output of the client. */
const connect = async (t: TestContext, daemon: TestDaemon, count: number): Promise<string> => {
  const { env } = daemon
  const server = start(t, 'ucmatose', ['-b', SERVER, '-c', `${count}`], { env })
  await daemon.settled(({ connections }) => connections.listeners > 0)
  const { stdout } = await run(t, 'ucmatose', ['-b', CLIENT, '-s', SERVER, '-c', `${count}`], { env })
  await server.ended
  return stdout
}

describe('programs on InfiniBand ports', { skip: lacking('ucmatose', 'mckey', 'opensm') }, () => {
  it('that are killed leave nothing', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES })
    const { env } = daemon
    const server = start(t, 'ucmatose', ['-b', SERVER, '-c', '1000'], { env })
    for (let i = 1; i <= 12; i++) {
      const after = ['-s', 'KILL', `${i / 50}`]
      await Promise.all([
        run(t, 'timeout', [...after, 'ucmatose', '-b', CLIENT, '-s', SERVER, '-c', '50'], { env }),
        run(t, 'timeout', [...after, 'mckey', '-b', CLIENT, '-m', `239.7.7.${i}`], { env }),
        run(t, 'timeout', [...after, 'mckey', '-b', SERVER, '-m', '239.7.7.1', '-s'], { env }),
      ])
    }
    server.child.kill('SIGKILL')
    await server.ended
    assert.ok(isEmpty(await daemon.settled(isEmpty)))
    assert.match(await connect(t, daemon, 1), /test complete\nreturn status 0/)
    const { stdout } = await run(t, 'saquery', ['-g'], { env })
    assert.equal(stdout.match(/MGID/g)?.length, 1, stdout)
  })

  it('connect 200 times at once', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES })
    assert.match(await connect(t, daemon, 200), /test complete\nreturn status 0/)
    assert.ok(isEmpty(await daemon.settled(isEmpty)))
  })

  it('outlive a subnet manager that is killed: what fails is told, and later programs connect', async t => {
    const daemon = await startDaemon(t, { devices: DEVICES })
    const folder = temporaryFolder(t)
    const env = { ...daemon.env, OSM_CACHE_DIR: folder, OSM_TMP_DIR: folder }
    const log = join(folder, 'log')
    const opensm = start(t, 'opensm', ['-f', log, '-e'], { env })
    for (let attempts = 0; attempts < 2000; attempts++) {
      await run(t, 'sminfo', ['-t', '300'], { env })
      if (/SUBNET UP/.test(readFileSync(log, 'utf8'))) break
    }
    const clients = Array.from({ length: 6 }, (_, i) =>
      run(t, 'timeout', ['60', 'mckey', '-b', CLIENT, '-m', `239.8.8.${i}`, '-s', '-C', '2'], { env }),
    )
    opensm.child.kill('SIGKILL')
    await opensm.ended
    for (const { status, stdout } of await Promise.all(clients)) assert.ok(status !== 124, stdout)
    for (let attempts = 0; ; attempts++) {
      const { stdout } = await run(t, 'sminfo', ['-t', '300'], { env })
      if (/sm lid 1 .*SMINFO_MASTER/.test(stdout)) break
      assert.ok(attempts < 2000, stdout)
    }
    assert.match(await connect(t, daemon, 20), /test complete\nreturn status 0/)
  })
})
