/*
 * The pages of environments, each from nothing to a ping-pong: their commands run, each page in one shell. That of
 * containers is in containers.long.test.ts. There is no cluster: of the page about Kubernetes the commands that need
 * none run, and what would be applied is read by kubectl; device-plugin.long.test.ts plays it.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { canMakeNets } from '../../system/nets.ts'
import { cleanEnvironment, lacking, run, temporaryFolder, userdma } from '../../system/programs.ts'
import { lacksSlurm } from '../../system/slurm.ts'

/** Runs the commands of a page, after `before`; returns what they print. */
const outputOf = async (t: TestContext, name: string, before: readonly string[] = []): Promise<string> => {
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
  const { status, stdout, stderr } = await run(t, 'bash', ['-c', ['set -eux', ...before, ...blocks].join('\n')], {
    cwd: folder,
    env,
  })
  assert.equal(status, 0, stdout + stderr)
  return stdout
}

const commandsRun = async (t: TestContext, name: string): Promise<void> =>
  assert.match(await outputOf(t, name), /1000 iters in/)

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

/** What a cluster would do: `apply` reads the manifests, and `label --local` checks each of them. */
const WITHOUT_CLUSTER = [
  `cd ${repoRoot}`,
  'npm() { :; }',
  'ctr() { :; }',
  `kubectl() {
    case $1 in
      kustomize) command kubectl "$@" ;;
      apply) command kubectl kustomize "$3" | command kubectl label --local --dry-run=client -f - applied=yes -o name ;;
      *) echo "needs a cluster: $1" ;;
    esac
  }`,
]

test('the commands of docs/how-to/kubernetes.md that need no cluster run', { skip: lacking('kubectl') }, async t => {
  const output = await outputOf(t, 'kubernetes.md', WITHOUT_CLUSTER)
  for (const name of ['daemonset.apps/userdma', 'pod/pingpong-server', 'pod/pingpong-client'])
    assert.ok(output.split('\n').includes(name), output)
  assert.deepEqual(output.match(/(?<=needs a cluster: ).*/g), ['rollout', 'get', 'wait', 'logs'])
})
