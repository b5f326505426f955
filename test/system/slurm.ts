/*
 * The cluster of docs/how-to/slurm.md in tests: the lines of the page up to its first `srun` make it.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { until } from '../limits.ts'
import { repoRoot } from '../paths.ts'
import {
  assertGood,
  cleanEnvironment,
  type Finished,
  lacking,
  run,
  type Scope,
  temporaryFolder,
  userdma,
} from './programs.ts'

/** The reason why Slurm cannot run here; false if it can. */
export const lacksSlurm: string | false =
  (process.geteuid?.() !== 0 && "Slurm's daemons need root") ||
  lacking('slurmctld', 'slurmd', 'srun', 'munged', 'setpriv', 'ip', 'ibv_rc_pingpong')

export const NODES = ['node1', 'node2', 'node3', 'node4']
/** Seconds until the cluster gets to a state. */
const STATE_SECONDS = 90

/** Makes the cluster; it is removed at the end of the scope. */
export const startCluster = async (scope: Scope) => {
  const folder = temporaryFolder(scope)
  // Jobs of other users have their programs here.
  chmodSync(folder, 0o755)
  const runtime = join(folder, 'runtime')
  mkdirSync(runtime, { mode: 0o700 })
  const env = cleanEnvironment({
    PATH: [join(repoRoot, 'bin'), process.env.PATH].join(delimiter),
    XDG_RUNTIME_DIR: runtime,
  })
  const name = `s${process.pid}`
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'slurm.md'), 'utf8')
  const [, setUp] = /^```sh\n([\s\S]*?)^userdma net exec login -- srun/m.exec(page) ?? []
  assert.ok(setUp !== undefined)
  const lines = setUp
    .replace('hosts:', `name: ${name}\nhosts:`)
    // More processors than the machine has, for many ranks.
    .replace('NodeName=node[1-4]', 'SlurmdParameters=config_overrides\nNodeName=node[1-4] CPUs=16')
  scope.after(() => spawnSync(userdma, ['net', 'down', name], { env }))
  assertGood(await run(scope, 'bash', ['-c', `set -eux\n${lines}`], { cwd: folder, env }))

  /** A program on a host. */
  const exec = (host: string, ...words: readonly string[]): Promise<Finished> =>
    run(scope, userdma, ['net', 'exec', '--net', name, host, '--', ...words], { cwd: folder, env })
  const output = async (...words: readonly string[]): Promise<string> => {
    const ended = await exec('login', ...words)
    assertGood(ended)
    return ended.stdout.trim()
  }
  /** Resolves when `command` on the login host prints what matches. */
  const untilPrinted = async (pattern: RegExp, ...words: readonly string[]): Promise<void> => {
    let printed = ''
    const isPrinted = async (): Promise<boolean> => {
      printed = await output(...words)
      return pattern.test(printed)
    }
    await until(isPrinted, () => `${words.join(' ')} prints ${printed}, not ${pattern}`, STATE_SECONDS)
  }
  const host = (node: string): string => join(runtime, 'userdma', 'net', name, node)
  return {
    name,
    folder,
    exec,
    output,
    untilPrinted,
    /** The path of a file that a host has in its own folders. */
    ownFile: (node: string, path: string): string => join(host(node), 'own', path),
    /** Ends all processes of a node at once. */
    kill(node: string): void {
      const { stdout } = spawnSync('ip', ['netns', 'pids', `userdma-${name}-${node}`], { encoding: 'utf8' })
      for (const pid of stdout.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL')
    },
    /** Resolves when no job is left. Asserts that nodes have no process, file or socket of one. */
    async assertClean(nodes: readonly string[] = NODES): Promise<void> {
      await untilPrinted(/^$/, 'squeue', '--noheader')
      for (const node of nodes) {
        const { stdout } = spawnSync('ip', ['netns', 'pids', `userdma-${name}-${node}`], { encoding: 'utf8' })
        const commands = stdout
          .split('\n')
          .filter(Boolean)
          .map(pid => readFileSync(`/proc/${pid}/comm`, 'utf8').trim())
        assert.deepEqual(commands.filter(command => command !== '').sort(), ['munged', 'slurmd'], node)
        const left = ['/dev/shm', '/var/tmp', '/run/userdma/slurm'].flatMap(path => {
          const own = join(host(node), 'own', path)
          return existsSync(own) ? readdirSync(own).map(file => `${path}/${file}`) : []
        })
        assert.deepEqual(left, [], node)
      }
    },
  }
}
export type Cluster = Awaited<ReturnType<typeof startCluster>>
