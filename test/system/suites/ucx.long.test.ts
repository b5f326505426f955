/*
 * UCX on a device of the driver mlx5, with its defaults: every test of ucx_perftest by size and transport, and UCX's
 * example ucp_client_server. docs/reference/ucx.md has what they do; UPDATE_GOLDEN=1 writes its tables. UCX_PREFIX,
 * folders of builds separated by colons (`configure --prefix`), adds these.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { enterable, type UserlandRoot, type Words } from '../../project/catalogue/userland.ts'
import {
  freePort,
  isEmpty,
  lacking,
  type Running,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
  untilListening,
} from '../programs.ts'
import { fetchDebian13 } from './debian13.ts'

const PAGE = join(repoRoot, 'docs', 'reference', 'ucx.md')
const MPI_CHECK = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
const EXAMPLES = '/usr/share/doc/libucx-dev/examples'

const SIZES = [8, 4096, 65_536, 1_048_576] as const
/** Iterations by size; 1 MiB takes long over UD. */
const iterations = (bytes: number): number => (bytes > 65_536 ? 10 : 50)

/** Columns: what UCX_TLS is. RC connects over UD, as UCX does on any adapter. */
const TRANSPORTS = {
  rc_mlx5: 'rc_mlx5,ud_mlx5:aux',
  dc_mlx5: 'dc_mlx5',
  ud_mlx5: 'ud_mlx5',
  rc_verbs: 'rc_verbs,ud_verbs:aux',
  ib: 'ib',
} as const
type Transport = keyof typeof TRANSPORTS
const transports = Object.keys(TRANSPORTS) as Transport[]

type Layout = (bytes: number) => 'short' | 'bcopy' | 'zcopy'

interface Test {
  readonly name: string
  readonly sizes: readonly number[]
  /** UCT's tests choose one transport and a layout of the data by size. */
  readonly layout?: Layout
  readonly transports?: readonly Transport[]
}

const ucp = (...names: string[]): Test[] => names.map(name => ({ name, sizes: SIZES }))
const atomic = (...names: string[]): Test[] => names.map(name => ({ name, sizes: [8] }))
const connected = ['rc_mlx5', 'dc_mlx5', 'rc_verbs'] as const
const uct = (sizes: readonly number[], layout: Layout, on: readonly Transport[], ...names: string[]): Test[] =>
  names.map(name => ({ name, sizes, layout, transports: on }))

const TESTS: readonly Test[] = [
  ...ucp('tag_lat', 'tag_bw', 'tag_sync_lat', 'tag_sync_bw', 'ucp_am_lat', 'ucp_am_bw', 'stream_lat', 'stream_bw'),
  ...ucp('ucp_put_lat', 'ucp_put_bw', 'ucp_get'),
  ...atomic('ucp_add', 'ucp_fadd', 'ucp_swap', 'ucp_cswap'),
  // a message of UCT is at most a segment
  ...uct([8, 4096], () => 'bcopy', [...connected, 'ud_mlx5'], 'am_lat', 'am_bw'),
  ...uct(SIZES, bytes => (bytes === 8 ? 'short' : 'zcopy'), connected, 'put_lat', 'put_bw'),
  ...uct(SIZES, bytes => (bytes === 8 ? 'bcopy' : 'zcopy'), connected, 'get'),
  ...uct([8], () => 'short', connected, 'add_lat', 'add_mr', 'fadd', 'swap', 'cswap'),
]

const isOn = (test: Test, transport: Transport): boolean => test.transports?.includes(transport) ?? true
const caseName = (test: Test, bytes: number): string => `${test.name}-${bytes}`
/** Lines of a batch of ucx_perftest: a name and options. */
const casesOf = (transport: Transport) =>
  TESTS.filter(test => isOn(test, transport)).flatMap(test =>
    test.sizes.map(bytes => {
      const layout = test.layout ? ` -d mlx5_0:1 -x ${transport} -D ${test.layout(bytes)}` : ''
      const options = `-t ${test.name} -s ${bytes} -n ${iterations(bytes)} -w 10${layout}`
      return { name: caseName(test, bytes), options }
    }),
  )

interface Outcome {
  readonly isGood: boolean
  readonly output: string
}

interface Release {
  readonly name: string
  readonly command: (words: Words) => Words
  readonly env?: NodeJS.ProcessEnv
  /** More options of ucx_perftest. */
  readonly options?: string
  /** Whether this machine's MPI can use it. */
  readonly hasMpi?: true
}

const fromBuild = (prefix: string): Release => {
  const { stdout } = spawnSync(join(prefix, 'bin', 'ucx_info'), ['-v'], { encoding: 'utf8' })
  const version = /Library version: (\d+\.\d+)/.exec(stdout)?.[1]
  assert.ok(version, `${prefix} has no ucx_info: UCX_PREFIX is the folder of \`make install\``)
  const env = { LD_LIBRARY_PATH: [join(prefix, 'lib'), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':') }
  return {
    name: `UCX ${version}, built from source`,
    command: ([program, ...args]) => [program.includes('/') ? program : join(prefix, 'bin', program), ...args],
    env,
    hasMpi: true,
  }
}
const prefixes = (process.env.UCX_PREFIX ?? '').split(':').filter(prefix => prefix !== '')

const RELEASES: Readonly<Record<string, () => Release>> = {
  'UCX 1.13 (Debian 12)': () => ({ name: 'UCX 1.13 (Debian 12)', command: words => words, hasMpi: true }),
  'UCX 1.18 (Debian 13)': () => {
    const { command }: UserlandRoot = enterable(
      fetchDebian13(['ucx-utils', 'ibverbs-providers', 'base-files', 'coreutils', 'dash']),
    )
    // this one uses MPI if its input is no terminal
    return { name: 'UCX 1.18 (Debian 13)', command, options: ' -P 0' }
  },
  ...Object.fromEntries(prefixes.map(prefix => [prefix, () => fromBuild(prefix)])),
}

const whatLacks = (): string | false =>
  lacking(
    'ucx_perftest',
    'cc',
    'mpicc.openmpi',
    'mpicc.mpich',
    'mpirun.openmpi',
    'mpirun.mpich',
    '/usr/include/ucp/api/ucp.h',
    join(EXAMPLES, 'ucp_client_server.c'),
  )

/** MPI over UCX: the words before mpi_check's part. */
const MPI = {
  'Open MPI': [
    'mpirun.openmpi',
    '--allow-run-as-root',
    '--oversubscribe',
    '--mca',
    'pml',
    'ucx',
    '--mca',
    'osc',
    'ucx',
  ],
  MPICH: ['mpirun.mpich'],
} as const
const mpiNames = Object.keys(MPI) as (keyof typeof MPI)[]
const COMPILERS = { 'Open MPI': 'mpicc.openmpi', MPICH: 'mpicc.mpich' } as const
const MPI_PARTS = ['messages', 'reduce', 'one-sided']

/** The line of UCX that says why a program failed. */
const sentence = (outputs: readonly string[]): string => {
  const lines = outputs.flatMap(output => output.split('\n')).map(line => line.trim())
  const found = lines.find(line => /ERROR|Assertion|FATAL/.test(line)) ?? lines.findLast(line => line !== '')
  return (found ?? 'no output')
    .replace(/^.*?UCX\s+/, 'UCX ')
    .replace(/0x[0-9a-f]+/g, '…')
    .replace(/\s+/g, ' ')
    .replaceAll('|', '\\|')
}

describe('UCX on the driver mlx5', { skip: whatLacks() }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  let clientServer: string
  const checks = {} as Record<keyof typeof MPI, string>
  before(async () => {
    daemon = await startDaemon(suite, { devices: ['mlx5_0@127.0.0.1,driver=mlx5'] })
    clientServer = join(temporaryFolder(suite), 'ucp_client_server')
    const source = join(EXAMPLES, 'ucp_client_server.c')
    const { status, stderr } = spawnSync('cc', ['-o', clientServer, source, '-lucp', '-lucs'], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    for (const name of mpiNames) {
      checks[name] = join(temporaryFolder(suite), 'mpi_check')
      const compiled = spawnSync(COMPILERS[name], ['-o', checks[name], MPI_CHECK], { encoding: 'utf8' })
      assert.equal(compiled.status, 0, compiled.stderr)
    }
  })

  const environment = (release: Release, transport: Transport): NodeJS.ProcessEnv => ({
    ...daemon.env,
    ...release.env,
    UCX_TLS: TRANSPORTS[transport],
    UCX_NET_DEVICES: 'mlx5_0:1',
  })

  /** Undefined if both sides end well. The client starts once `isReady` resolves to true. */
  const runPair = async (begin: (address: string) => Running, isReady: (server: Running) => Promise<boolean>) => {
    const outcome = (running: Running): Promise<Outcome> =>
      running.ended.then(
        ({ status, stdout, stderr }) => ({ isGood: status === 0, output: `${stderr}\n${stdout}` }),
        error => ({ isGood: false, output: `${running.output()}\n${error}` }),
      )
    const server = begin('')
    const client = (await isReady(server)) ? await outcome(begin('127.0.0.1')) : { isGood: false, output: '' }
    if (!client.isGood) server.child.kill('SIGKILL')
    const ended = await outcome(server)
    if (client.isGood && ended.isGood) return undefined
    return { output: client.output, sentence: sentence([client.output, ended.output]) }
  }

  /** Runs a batch over one transport, and what follows a failure in further processes. Returns the reasons by case. */
  const perftest = async (t: Scope, release: Release, transport: Transport): Promise<Map<string, string>> => {
    const failed = new Map<string, string>()
    let cases = casesOf(transport)
    while (cases.length > 0) {
      const port = await freePort()
      const batch = join(temporaryFolder(t), 'batch')
      writeFileSync(batch, cases.map(one => `${one.name} ${one.options}\n`).join(''))
      const begin = (address: string): Running => {
        const line = `ucx_perftest${release.options ?? ''} -p ${port} -b ${batch} ${address}`.trim()
        const [program, ...args] = release.command(line.split(' ') as unknown as Words)
        return start(t, program, args, { env: environment(release, transport) })
      }
      const reason = await runPair(begin, server => untilListening(port, server.ended))
      if (reason === undefined) return failed
      const ran = reason.output.split('\n').filter(line => line.startsWith('Final:')).length
      // a batch that ran but ended badly counts against its last case
      failed.set(cases[Math.min(ran, cases.length - 1)]!.name, reason.sentence)
      cases = cases.slice(ran + 1)
    }
    return failed
  }

  const clientAndServer = async (t: Scope, release: Release, transport: Transport, kind: string) => {
    const port = await freePort()
    const { listeners } = (await daemon.stat()).connections
    const begin = (...more: string[]): Running => {
      const [program, ...args] = release.command([clientServer, '-p', `${port}`, '-c', kind, ...more])
      return start(t, program, args, { env: environment(release, transport) })
    }
    const server = begin()
    const listens = await Promise.race([
      daemon.settled(({ connections }) => connections.listeners > listeners).then(() => true),
      server.ended.then(() => false),
    ])
    // the client ends with status 0 only after the server's answer; the server waits for the next one
    const client = listens ? await begin('-a', '127.0.0.1').ended : undefined
    server.child.kill('SIGKILL')
    const ended = await server.ended
    if (client?.status === 0) return undefined
    return sentence([client?.stderr ?? '', client?.stdout ?? '', ended.stderr, ended.stdout])
  }

  /** The reason why the first part of mpi_check that fails does; undefined: none. */
  const mpi = async (t: Scope, release: Release, transport: Transport, name: keyof typeof MPI) => {
    // a rank sends itself messages, too
    const more = { UCX_TLS: `${TRANSPORTS[transport]},self`, OMPI_MCA_rmaps_base_oversubscribe: '1' }
    const env = { ...environment(release, transport), ...more }
    for (const part of MPI_PARTS) {
      const [program, ...args] = MPI[name]
      const { status, stdout, stderr } = await start(t, program, [...args, '-n', '2', checks[name], part], { env })
        .ended
      if (status !== 0) return `${part}: ${sentence([stderr, stdout])}`
    }
    return undefined
  }

  for (const [key, prepare] of Object.entries(RELEASES)) {
    it(key, async t => {
      const release = prepare()
      const cells = new Map<string, string[]>()
      for (const transport of transports) {
        const failed = await perftest(t, release, transport)
        for (const test of TESTS) {
          const row = `\`${test.name}\`, ${test.sizes.join(', ')} bytes`
          const reasons = test.sizes.flatMap(bytes => {
            const reason = failed.get(caseName(test, bytes))
            return reason === undefined ? [] : [`${bytes}: ${reason}`]
          })
          const runs = reasons.length === 0 ? 'runs' : `no: ${reasons.join('; ')}`
          cells.set(row, [...(cells.get(row) ?? []), isOn(test, transport) ? runs : ''])
        }
        const add = (row: string, reason: string | undefined): void =>
          void cells.set(row, [...(cells.get(row) ?? []), reason === undefined ? 'runs' : `no: ${reason}`])
        for (const kind of ['tag', 'stream', 'am'])
          add(`\`ucp_client_server -c ${kind}\``, await clientAndServer(t, release, transport, kind))
        if (!release.hasMpi) continue
        for (const name of mpiNames)
          add(`${name}, 2 ranks: point to point, all-reduce, one-sided`, await mpi(t, release, transport, name))
      }
      await daemon.settled(isEmpty)
      compare(
        release.name,
        [...cells].map(([row, columns]) => `| ${[row, ...columns].join(' | ')} |`),
      )
    })
  }
})

/** Asserts that the page's table of this release has these rows. */
const compare = (release: string, rows: readonly string[]): void => {
  const page = readFileSync(PAGE, 'utf8')
  const heading = `## ${release}\n`
  const at = page.indexOf(heading)
  const end = at < 0 ? page.length : (/\n## /.exec(page.slice(at + 1))?.index ?? page.length - at - 1) + at + 1
  const head = [
    `| test | ${transports.map(name => `\`${name}\``).join(' | ')} |`,
    `|---|${transports.map(() => '---|').join('')}`,
  ]
  const section = `${heading}\n${[...head, ...rows].join('\n')}\n`
  const written = at < 0 ? `${page.trimEnd()}\n\n${section}` : page.slice(0, at) + section + page.slice(end)
  if (process.env.UPDATE_GOLDEN) writeFileSync(PAGE, written)
  else assert.equal(page, written, 'UPDATE_GOLDEN=1 writes the table')
}
