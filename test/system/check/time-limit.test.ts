/*
 * A program that hangs is ended by `userdma check --time-limit`, and SIGTERM to `userdma check` writes the report too:
 * with what the program waited for, and the story of it.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { cleanEnvironment, lacking, runUserdma, start, temporaryFolder, userdma } from '../programs.ts'
import { faulty } from './checking.ts'

const hanging = faulty('idle-queues')
const env = cleanEnvironment()

describe('userdma check of a program that hangs', { skip: lacking(hanging) }, () => {
  it('--time-limit ends it with the processes that it has started, reports, and exits with 124', async t => {
    const script = `${hanging} & wait`
    const { status, stderr } = await runUserdma(t, ['check', '--time-limit', '2', '--', 'sh', '-c', script], { env })
    assert.equal(status, 124)
    assert.match(stderr, /note idle-queues: .*\n(?:.*\n)*? {2}story.*\n(?: .*\n)*.* before .*: \w+ \(.*:\d+\)/)
    assert.match(stderr, /userdma check: after 2 s:\nprocess \d+ \(idle-queues\): 2 queue pairs/)
    assert.match(stderr, /did not end within 2 seconds \(--time-limit\), and SIGTERM ended it\n/)
  })

  it('SIGTERM ends it, and the report is complete', async t => {
    const json = join(temporaryFolder(t), 'findings')
    const args = ['check', '--hang', '1', '--sarif', json, '--', hanging]
    const running = start(t, userdma, args, { env })
    const told = (): void => {
      if (!running.output().includes('idle-queues: ')) return
      running.child.stderr?.off('data', told)
      running.child.kill('SIGTERM')
    }
    running.child.stderr?.on('data', told)
    await running.ended
    const log = JSON.parse(readFileSync(json, 'utf8')) as {
      readonly runs: readonly { readonly results: readonly { ruleId: string; codeFlows?: readonly object[] }[] }[]
    }
    const found = log.runs[0]?.results.find(({ ruleId }) => ruleId === 'idle-queues')
    assert.equal(found?.codeFlows?.length, 1)
  })
})
