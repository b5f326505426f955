/*
 * The programs that are mutated: programs of docs/findings without their faults, and C programs of test/programs. Each
 * ends with status 0.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'

export interface Program {
  readonly name: string
  readonly folder: string
  /** The C file, relative to `folder`. */
  readonly file: string
  /** Flags of the compiler. */
  readonly flags: readonly string[]
  /** The shell command that runs the program; $0 is the program, $1 a free TCP port. */
  readonly command: string
}

const FINDINGS = join(repoRoot, 'docs', 'findings')
const OWN = join(repoRoot, 'test', 'programs')

/** Programs that need a second daemon, or a file system that answers late. */
const excluded = ['peer-refused.c', 'slow-memory.c']

const ofFindings = readdirSync(FINDINGS)
  .filter(file => file.endsWith('.c') && !excluded.includes(file))
  .sort()
  .map(
    (file): Program => ({
      name: file.slice(0, -2),
      folder: FINDINGS,
      file,
      flags: ['-DFIXED', `-I${join(repoRoot, 'shim', 'include')}`],
      command: '"$0"',
    }),
  )

const own = (file: string, ...commands: readonly string[]): Program[] =>
  commands.map(command => ({ name: `${file} ${command}`, folder: OWN, file: `${file}.c`, flags: [], command }))

/** A server and a client. The status is the server's, or the client's if the server's is 0. */
const pair = (args: string): string => `"$0" ${args} & "$0" ${args} 127.0.0.1; client=$?; wait $! && exit $client`

/** Our own C programs. */
export const ownPrograms: readonly Program[] = [
  ...own('loopback', '"$0"'),
  ...own('pairs/threads', '"$0" -n 2 -t 2'),
  ...own('pairs/verbs_check', '"$0" -1 -n 64', '"$0" -1 -e -n 64', pair('-e -n 64 -t 4 -p $1')),
  ...own(
    'pairs/datagrams',
    ...['one datagram', 'reply address', 'unreliable connection'].map(name => `"$0" "${name}"`),
  ),
  ...own('pairs/shared_queues', ...['limit', 'resize', 'last_request'].map(name => `"$0" ${name}`)),
  ...own(
    'memory/memory_windows',
    ...['type1', 'type2_local_invalidate', 'atomic_write', 'flush'].map(name => `"$0" ${name}`),
  ),
  ...own('check/initialised', ...['recv', 'extended', 'read', 'write'].map(name => `"$0" ${name}`)),
  ...own('memory/fork_safe', '"$0"'),
  ...own('failures/unacknowledged', '"$0" cq at-once', '"$0" qp at-once'),
]

export const programs: readonly Program[] = [...ofFindings, ...ownPrograms]
