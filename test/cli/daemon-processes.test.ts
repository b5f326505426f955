import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { type Joined, joinPrivate, privateDaemons } from '../../src/cli/join.ts'
import { programEnvironment } from '../../src/cli/program/program.ts'
import { until } from '../tools.ts'

/** The process of a daemon that serves `use`. */
const processesOf = (t: TestContext, options: Parameters<typeof joinPrivate>[1] = {}) => {
  const daemons = privateDaemons()
  t.after(() => daemons.close())
  return async (use: (joined: Joined) => void | Promise<void> = () => {}): Promise<number> => {
    const joined = await joinPrivate(daemons, options)
    try {
      await use(joined)
      return joined.client.daemon
    } finally {
      await joined.leave()
    }
  }
}

/** Of a link; '' if it is gone. */
const targetOf = (path: string): string => {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

describe('a process for private daemons', () => {
  for (const clock of ['real', 'skip'] as const)
    it(`serves one after another, with folders of their own, clock ${clock}`, async t => {
      const daemon = processesOf(t, { clock })
      const folders = new Set<string>()
      const note = ({ client }: Joined): void => void folders.add(dirname(client.socket))
      const first = await daemon(note)
      for (let i = 0; i < 3; i++) assert.equal(await daemon(note), first)
      assert.equal(folders.size, 4)
      assert.deepEqual([...folders].filter(existsSync), [])
    })

  it('has no settings of the one before', async t => {
    const daemons = privateDaemons()
    t.after(() => daemons.close())
    for (const options of [{ torment: '7', timers: 0.5 }, {}]) {
      const { client, leave } = await joinPrivate(daemons, options)
      const { torment, timers } = await client.config()
      assert.deepEqual([torment, timers], [options.torment, options.timers])
      await leave()
    }
  })

  it('has no timers of those that have ended', async t => {
    const daemon = processesOf(t, { clock: 'skip', check: true })
    const counts: number[] = []
    for (let i = 0; i < 3; i++)
      await daemon(async ({ client }) => {
        await client.subscribeFindings()
        const folder = `/proc/${client.daemon}/fd`
        counts.push(readdirSync(folder).filter(name => targetOf(join(folder, name)).includes('timerfd')).length)
      })
    assert.deepEqual(counts, Array(3).fill(counts[0]))
  })

  it('serves no two at a time', async t => {
    const daemon = processesOf(t)
    let inner = 0
    const outer = await daemon(async () => {
      inner = await daemon()
    })
    assert.notEqual(inner, outer)
  })

  it('is replaced when it was killed', async t => {
    const daemon = processesOf(t)
    const killed = await daemon(({ client }) => void process.kill(client.daemon, 'SIGKILL'))
    assert.notEqual(await daemon(), killed)
  })

  it('serves no other if a program is left in its clock', async t => {
    const daemon = processesOf(t, { clock: 'skip' })
    const first = await daemon(async ({ client }) => {
      const left = spawn('cat', { env: programEnvironment(client.socket), detached: true })
      t.after(() => left.kill('SIGKILL'))
      await until(() => readFileSync(`/proc/${left.pid}/maps`, 'latin1').includes('.clock'))
    })
    assert.notEqual(await daemon(), first)
  })
})
