/*
 * Programs of Debian 12 and of Debian testing (forky) on each kind of device: the table "By device" of
 * docs/reference/applications.md. UPDATE_GOLDEN=1 writes the table.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { enterable, type UserlandRoot, type Words } from '../../project/catalogue/userland.ts'
import { findTool, inCi } from '../../tools.ts'
import {
  type Finished,
  freePort,
  lacking,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
  untilListening,
} from '../programs.ts'
import { runPyverbs } from './pyverbs.ts'

const PAGE = join(repoRoot, 'docs', 'reference', 'applications.md')
const HEADING = '## By device\n'
const SOURCE = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')

/** Words of a program's line: DEVICE, GID, and what else differs between the devices, in capitals. */
interface DeviceKind {
  readonly device: string
  readonly words: Readonly<Record<string, string>>
  readonly env: NodeJS.ProcessEnv
  /** Tests of pyverbs that fail, with the reason in the page's text. */
  readonly failing?: RegExp
  /** Whether the connection manager finds the device by the address of a network interface. */
  readonly hasInterface: boolean
}

/** The columns. libfabric finds EFA only if all devices are of EFA: each has a daemon of its own. */
const DEVICES = {
  rxe: {
    device: 'rxe0@127.0.0.1',
    words: {
      DEVICE: 'rxe0',
      GID: '1',
      SERVICE: 'RC',
      PROVIDER: 'verbs',
      RDM: 'verbs;ofi_rxm',
      TLS: 'rc_verbs,ud_verbs:aux',
    },
    // by default libfabric's rxm provider requests queues for 256 peers, more than rxe allows
    env: { FI_UNIVERSE_SIZE: '8' },
    hasInterface: true,
  },
  efa: {
    device: 'efa0@127.0.0.1,driver=efa',
    words: { DEVICE: 'efa0', GID: '0', SERVICE: 'SRD', PROVIDER: 'efa', RDM: 'efa', TLS: 'ud' },
    // otherwise libfabric passes messages between processes of one machine by shared memory
    env: { FI_EFA_ENABLE_SHM_TRANSFER: '0' },
    hasInterface: false,
  },
  mlx5: {
    device: 'mlx5_0@127.0.0.1,driver=mlx5',
    words: {
      DEVICE: 'mlx5_0',
      GID: '1',
      SERVICE: 'RC',
      PROVIDER: 'verbs',
      RDM: 'verbs;ofi_rxm',
      TLS: 'rc_mlx5,ud_mlx5:aux',
    },
    env: { FI_UNIVERSE_SIZE: '8' },
    failing: /test_flow_table_drop|test_multi_process_alloc_dm|test_dc_send_stream_bad_flow$/,
    hasInterface: true,
  },
} as const satisfies Readonly<Record<string, DeviceKind>>
type Column = keyof typeof DEVICES
const columns = Object.keys(DEVICES) as Column[]

const RELEASES = { 12: 'Debian 12 (rdma-core 44)', forky: 'Debian forky (rdma-core 65)' } as const
type Release = keyof typeof RELEASES

/** Two runs of one line, the client with the server's address; or one run. PORT is a free TCP port. */
interface Program {
  readonly kind: 'pair' | 'single'
  readonly line: string
  /** The row's name, if it is not the line. */
  readonly name?: string
  /** What server and client have of their own. */
  readonly server?: string
  readonly client?: string
  readonly env?: NodeJS.ProcessEnv
  /** Whether the server listens by rdma_cm, not on TCP port PORT. */
  readonly listensByRdmacm?: true
  /** Whether the server is stopped after the client. */
  readonly isServerEndless?: true
}
const pair = (line: string, server = '-p PORT', client = '-p PORT 127.0.0.1', env = {}): Program => ({
  kind: 'pair',
  line,
  server,
  client,
  env,
})
const single = (line: string, env = {}): Program => ({ kind: 'single', line, env })

const PERFTEST = ['ib_send_bw', 'ib_send_lat', 'ib_write_bw', 'ib_write_lat', 'ib_read_bw', 'ib_read_lat']
const perftest = (name: string, ...more: string[]): Program =>
  pair([name, '-c SERVICE -d DEVICE -x GID -n 200 -F', ...more].join(' '))
const fabric = (provider: string, endpoint: string): Program =>
  pair(`fi_pingpong -p ${provider} -e ${endpoint} -I 10`, '-B PORT', '-P PORT 127.0.0.1')
/** Names of mpi_check's parts. */
const MPI_TESTS = { messages: 'point to point', reduce: 'all-reduce', 'one-sided': 'one-sided' } as const
/** `line`: without the program, which the compiler of this implementation has made. */
const mpi = (name: string, line: string, program: 'OPEN_MPI_CHECK' | 'MPICH_CHECK', env = {}): Program[] =>
  Object.entries(MPI_TESTS).map(([test, shown]) => ({
    kind: 'single',
    line: `${line} ${program} ${test}`,
    name: `${name}, 2 ranks: ${shown}`,
    env,
  }))
const MTL_OFI = '--mca btl self --mca pml cm --mca mtl ofi --mca osc ^ucx --mca mtl_ofi_provider_include RDM'
const openMpi = (name: string, settings: string, env = {}): Program[] =>
  mpi(`Open MPI ${name}`, `mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 ${settings}`, 'OPEN_MPI_CHECK', {
    OMPI_MCA_rmaps_base_oversubscribe: '1',
    ...env,
  })
const UCX = { UCX_TLS: 'TLS,self', UCX_NET_DEVICES: 'DEVICE:1' }
/** `-P 0`: newer ones use MPI if their input is no terminal. */
const ucx = (test: string, { prefix = '', options = '' } = {}): Program =>
  pair(`${prefix}ucx_perftest -t ${test} -n 100 -w 10${options}`, '-p PORT', '-p PORT 127.0.0.1', UCX)
const dcUcx = { prefix: 'env UCX_TLS=dc_mlx5,self ' }
const rdmacm = (line: string, server: string, client: string): Program => ({
  ...pair(line, server, client),
  listensByRdmacm: true,
})

const both = [
  single('ibv_devinfo -d DEVICE -v'),
  ...['ibv_rc_pingpong', 'ibv_uc_pingpong', 'ibv_ud_pingpong', 'ibv_srq_pingpong'].map(name =>
    pair(`${name} -d DEVICE -g GID -n 100`),
  ),
  // libefa refuses inline WRITEs, which perftest posts by default, and then waits for
  ...PERFTEST.map(name => perftest(name, ...(name === 'ib_write_lat' ? ['-I 0'] : []))),
  pair('ib_send_bw -c UD -d DEVICE -x GID -n 200 -F -s 1024 -Q 1'),
  ...['ib_atomic_bw', 'ib_atomic_lat'].map(name => perftest(name)),
  single('fi_info -p PROVIDER'),
  fabric('RDM', 'rdm'),
  fabric('PROVIDER', 'dgram'),
]
const programs: Readonly<Record<Release, readonly Program[]>> = {
  12: [...both, ...openMpi('4.1.4, mtl ofi', MTL_OFI), ucx('tag_lat'), ucx('tag_lat', dcUcx)],
  forky: [
    ...both,
    perftest('ib_write_bw', '--write_with_imm'),
    perftest('ib_send_bw', '-s 4096 -e'),
    rdmacm('rping -p PORT -a 127.0.0.1 -C 5 -V', '-s', '-c'),
    rdmacm('ucmatose -p PORT -c 4 -C 5', '-b 127.0.0.1', '-s 127.0.0.1'),
    rdmacm('udaddy -c 3 -C 5', '-b 127.0.0.1', '-s 127.0.0.1'),
    rdmacm('rstream -p PORT -S 4096 -C 20', '-b 127.0.0.1', '-s 127.0.0.1'),
    ...['rc_bw', 'rc_rdma_read_bw', 'rc_rdma_write_lat', 'ver_rc_fetch_add'].map(
      (test): Program => ({
        ...pair('qperf -lp PORT', '', `-cm 1 -t 1 127.0.0.1 ${test}`),
        name: `\`qperf -cm 1 ${test}\``,
        isServerEndless: true,
      }),
    ),
    ucx('tag_lat', { options: ' -P 0' }),
    ...openMpi('6, mtl ofi', MTL_OFI),
    ...openMpi('6, pml ucx', '--mca pml ucx --mca osc ucx', UCX),
    ...mpi('MPICH 5', 'mpirun.mpich -n 2', 'MPICH_CHECK', UCX),
  ],
}

/** Some tests of pyverbs choose by chance what they test, and skip what the device lacks. */
const withoutCounts = (page: string): string =>
  page.replace(/^\| pyverbs, all others.*$/gm, line => line.replace(/\d+/g, '#'))

const FORKY = [
  ...['ibverbs-utils', 'ibverbs-providers', 'perftest', 'rdmacm-utils', 'libfabric-bin', 'python3-pyverbs'],
  // without it pyverbs' tests of firmware commands skip themselves
  'python3-scapy',
  ...['ucx-utils', 'qperf', 'openmpi-bin', 'mpich'],
  ...['libstdc++6', 'coreutils', 'dash', 'iproute2'],
]

const whatLacks = (): string | false => {
  if (process.arch !== 'x64') return 'the packages of forky are for x86-64'
  if (process.getuid?.() !== 0) return 'chroot needs root'
  const missing = ['apt-get', 'dpkg-deb', 'unshare'].filter(tool => !findTool(tool))
  if (missing.length > 0 && inCi()) throw new Error(`missing: ${missing.join(', ')}`)
  return missing.length > 0 && `missing: ${missing.join(', ')}`
}
const skip =
  lacking(
    'ibv_devinfo',
    'ib_write_bw',
    'fi_pingpong',
    'mpicc.openmpi',
    'mpicc.mpich',
    'mpirun.openmpi',
    'ucx_perftest',
  ) || whatLacks()

const fetchForky = (scope: Scope): UserlandRoot => {
  const root = temporaryFolder(scope)
  const script = join(repoRoot, 'test', 'linux', 'peer', 'kernel-peer')
  const env = { ...process.env, KERNEL_PEER_SUITE: 'forky' }
  const { status, stderr } = spawnSync(script, ['userland', root, ...FORKY], { env, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return enterable(root)
}

/** A line that says why a program refuses a device. */
const REASON =
  /only possible|n[o']t support|unsupported|not implemented|no such|invalid|unable|failed to|couldn't|could not|cannot|no components|not reachable/i

const sentence = (outputs: readonly string[]): string => {
  const lines = outputs.flatMap(output => output.split('\n')).map(line => line.trim())
  const found = lines.find(line => REASON.test(line)) ?? lines.findLast(line => line !== '') ?? 'no output'
  // numbers of processes and ports, and addresses, differ from run to run
  return found
    .replace(/^(\[[^\]]*\]\s*)+(\S+\.c:\d+\s*)?/, '')
    .replace(/iface=\S+: /, '')
    .replace(/0x[0-9a-f]{6,}/g, '…')
    .replace(/\s+/g, ' ')
    .replaceAll('|', '\\|')
}

describe('programs on each kind of device', { skip }, () => {
  const suite = suiteScope()
  const daemons = {} as Record<Column, TestDaemon>
  const userlands = {} as Record<Release, UserlandRoot>
  /** mpi_check.c by compiler. */
  const checks: Record<string, string> = {}
  before(async () => {
    for (const column of columns) daemons[column] = await startDaemon(suite, { devices: [DEVICES[column].device] })
    userlands[12] = { root: '/', command: words => words }
    userlands.forky = fetchForky(suite)
    for (const [word, compiler] of [
      ['OPEN_MPI_CHECK', 'mpicc.openmpi'],
      ['MPICH_CHECK', 'mpicc.mpich'],
    ] as const) {
      checks[word] = join(temporaryFolder(suite), 'mpi_check')
      const { status, stderr } = spawnSync(compiler, ['-o', checks[word], SOURCE], { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
  })

  /** The cell of a program: "runs", or "no: SENTENCE". */
  const tryProgram = async (t: Scope, release: Release, column: Column, program: Program): Promise<string> => {
    try {
      return await runProgram(t, release, column, program)
    } catch (error) {
      return `no: ${/did not end/.test(String(error)) ? 'does not end' : sentence([String(error)])}`
    }
  }

  const runProgram = async (t: Scope, release: Release, column: Column, program: Program): Promise<string> => {
    const { words, env: ofColumn } = DEVICES[column]
    const port = await freePort()
    const fillIn = (text: string): string =>
      Object.entries({ ...words, PORT: `${port}`, ...checks }).reduce(
        (filled, [name, word]) => filled.replace(new RegExp(`\\b${name}\\b`, 'g'), word),
        text,
      )
    const extra = Object.entries(program.env ?? {}).map(([name, value]) => [name, fillIn(value ?? '')])
    const env = { ...daemons[column].env, ...ofColumn, ...Object.fromEntries(extra) }
    const begin = (more = '') => {
      const line = fillIn(`${program.line} ${more}`.trim()).split(' ') as [string, ...string[]]
      const [name, ...args] = userlands[release].command(line as Words)
      return start(t, name, args, { env })
    }
    const outputOf = ({ stdout, stderr }: Finished): string => `${stderr}\n${stdout}`
    if (program.kind === 'single') {
      const ended = await begin().ended
      return ended.status === 0 ? 'runs' : `no: ${sentence([outputOf(ended)])}`
    }
    const { listeners } = (await daemons[column].stat()).connections
    const server = begin(program.server)
    const listens = program.listensByRdmacm
      ? await Promise.race([
          daemons[column].settled(({ connections }) => connections.listeners > listeners).then(() => true),
          server.ended.then(() => false),
        ])
      : await untilListening(port, server.ended)
    const client = listens ? await begin(program.client).ended : undefined
    if (client?.status !== 0 || program.isServerEndless) server.child.kill('SIGKILL')
    const ended = await server.ended
    if (client?.status === 0 && (ended.status === 0 || program.isServerEndless)) return 'runs'
    return `no: ${sentence([outputOf(ended), client === undefined ? '' : outputOf(client)])}`
  }

  const rows: string[] = []
  const addRow = (name: string, cells: readonly string[]): void => void rows.push(`| ${[name, ...cells].join(' | ')} |`)

  for (const release of [12, 'forky'] as const) {
    it(`programs of ${RELEASES[release]}`, async t => {
      addRow(
        `**${RELEASES[release]}**`,
        columns.map(() => ''),
      )
      for (const program of programs[release]) {
        const cells: string[] = []
        for (const column of columns) cells.push(await tryProgram(t, release, column, program))
        const line = program.line.replace(/ -(d DEVICE|[gx] GID|p PORT|n \d+|F|I \d+|w \d+|P 0)\b/g, '')
        addRow(program.name ?? `\`${line}\``, cells)
      }
    })

    it(`pyverbs of ${RELEASES[release]}`, async t => {
      for (const [name, modules] of [
        ['pyverbs, tests of EFA', 'test_efa'],
        ['pyverbs, tests of mlx5', 'test_mlx5'],
        ['pyverbs, all others', ''],
      ] as const) {
        const cells: string[] = []
        for (const column of columns) {
          const tests = await runPyverbs(t, {
            ...userlands[release],
            daemon: daemons[column],
            device: DEVICES[column].words.DEVICE,
            looksForInterface: !DEVICES[column].hasInterface,
            modules: modules || 'test_',
          })
          const counted = modules === '' ? tests.filter(({ test }) => !/test_(mlx5|efa)/.test(test)) : tests
          const failed = counted.filter(({ kind }) => kind === 'fail')
          const { failing } = DEVICES[column] as DeviceKind
          assert.deepEqual(
            failed.filter(({ test }) => !failing?.test(test)),
            [],
            `${name} on ${column}`,
          )
          const passed = counted.filter(({ kind }) => kind === 'pass').length
          const skipped = counted.length - passed - failed.length
          const fails = failed.length === 0 ? '' : `, ${failed.length} fail`
          cells.push(`${passed} of ${counted.length} pass, ${skipped} skipped${fails}`)
        }
        addRow(name, cells)
      }
    })
  }

  it('are those of the table', () => {
    const table = [`| program | ${columns.join(' | ')} |`, `|---|${columns.map(() => '---|').join('')}`, ...rows]
    const page = readFileSync(PAGE, 'utf8')
    const at = page.indexOf(HEADING)
    const written = `${page.slice(0, page.indexOf('\n| program |', at))}\n${table.join('\n')}\n`
    if (process.env.UPDATE_GOLDEN) writeFileSync(PAGE, written)
    else assert.equal(withoutCounts(page), withoutCounts(written), 'UPDATE_GOLDEN=1 writes the table')
  })
})
