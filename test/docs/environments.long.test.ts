/*
 * The pages of environments, each from nothing to a ping-pong: their commands run, each page in one shell. That of
 * containers is in containers.long.test.ts.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { canMakeNets } from '../system/nets.ts'
import { cleanEnvironment, lacking, run, temporaryFolder } from '../system/programs.ts'

const commandsRun = async (t: TestContext, name: string): Promise<void> => {
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', name), 'utf8')
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(match => match[1])
  assert.equal(blocks.length, 1)
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'runtime'), { mode: 0o700 })
  const env = cleanEnvironment({
    PATH: [join(repoRoot, 'bin'), process.env.PATH].join(delimiter),
    XDG_RUNTIME_DIR: join(folder, 'runtime'),
  })
  const { status, stdout, stderr } = await run(t, 'bash', ['-c', `set -eux\n${blocks.join('\n')}`], {
    cwd: folder,
    env,
  })
  assert.equal(status, 0, stdout + stderr)
  assert.match(stdout, /1000 iters in/)
}

test('the commands of docs/how-to/net.md run', { skip: lacking('ibv_rc_pingpong', 'ip') }, async t => {
  if (canMakeNets(t)) await commandsRun(t, 'net.md')
})

test('the commands of docs/how-to/metrics.md run', { skip: lacking('ibv_rc_pingpong', 'curl') }, t =>
  commandsRun(t, 'metrics.md'),
)
