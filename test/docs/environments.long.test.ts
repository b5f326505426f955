/*
 * The pages of environments, each from nothing to a ping-pong: their commands run, each page in one shell. That of
 * containers is in containers.long.test.ts.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { canMakeNets } from '../system/nets.ts'
import { cleanEnvironment, lacking, run, temporaryFolder, userdma } from '../system/programs.ts'
import { lacksSlurm } from '../system/slurm.ts'

/** Of a whole page, on a busy machine. */
const LIMIT_MS = 300_000

const commandsRun = async (t: TestContext, name: string): Promise<void> => {
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', name), 'utf8')
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(match => match[1])
  assert.equal(blocks.length, 1)
  const folder = temporaryFolder({
    after: remove =>
      t.after(() => {
        spawnSync(userdma, ['net', 'down'], { env })
        remove()
      }),
  })
  mkdirSync(join(folder, 'runtime'), { mode: 0o700 })
  const env = cleanEnvironment({
    PATH: [join(repoRoot, 'bin'), process.env.PATH].join(delimiter),
    XDG_RUNTIME_DIR: join(folder, 'runtime'),
  })
  const { status, stdout, stderr } = await run(t, 'bash', ['-c', `set -eux\n${blocks.join('\n')}`], {
    cwd: folder,
    env,
    limit: LIMIT_MS,
  })
  assert.equal(status, 0, stdout + stderr)
  assert.match(stdout, /1000 iters in/)
}

test('the commands of docs/how-to/net.md run', { skip: lacking('ibv_rc_pingpong', 'ip') }, async t => {
  if (canMakeNets(t)) await commandsRun(t, 'net.md')
})

const MPI = ['mpicc.openmpi', 'mpirun.openmpi', 'mpicc.mpich', 'mpirun.mpich']
test('the commands of docs/how-to/mpi.md run', { skip: lacking('ip', ...MPI) }, async t => {
  if (canMakeNets(t)) await commandsRun(t, 'mpi.md')
})

test('the commands of docs/how-to/slurm.md run', { skip: lacksSlurm }, async t => {
  if (canMakeNets(t)) await commandsRun(t, 'slurm.md')
})

test('the commands of docs/how-to/metrics.md run', { skip: lacking('ibv_rc_pingpong', 'curl') }, t =>
  commandsRun(t, 'metrics.md'),
)
