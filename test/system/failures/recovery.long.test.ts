/*
 * What well-known programs do after each kind of failure: `userdma walk` of each, and the table of
 * docs/reference/recovery.md. With WRITE_DOCS=1 it writes what it has run to the page; otherwise what is bad must be
 * bad on the page. VALKEY is the folder of a build of Valkey with BUILD_RDMA=module, and of its tests/rdma; UCX that of
 * an installed UCX 1.23, with its example `ucp_client_server` in bin, of which UCX_SOURCE is the source. BRPC is a
 * folder with the `server` of brpc's example/rdma_performance and with suites/brpc_client.cpp as `client`, linked with
 * brpc built with WITH_RDMA, of which BRPC_SOURCE is the source. SPDK is the folder of a build of SPDK with
 * `--with-rdma`: nvmf_tgt, and bdevperf of its examples. MOONCAKE is a folder with suites/mooncake_transfers.cpp as
 * `mooncake_transfers`, linked with Mooncake's transfer engine, of which MOONCAKE_SOURCE is the source.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { before, describe, it } from 'node:test'
import { walkKinds } from '../../../src/cli/walk/walk-kinds.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, ownProgram, runUserdma, suiteScope, temporaryFolder } from '../programs.ts'

/** Failures that are tried of each program, and the seconds for them. */
const POINTS = 48
const SECONDS = 420

const page = join(repoRoot, 'docs', 'reference', 'recovery.md')

interface Program {
  readonly name: string
  /** What tells wrong bytes. */
  readonly bytes: string
  readonly tools: readonly string[]
  /** A shell command; $FOLDER has files of its own. */
  readonly command: string
  /** Of the devices. */
  readonly options?: readonly string[]
}

const {
  VALKEY = '/nonexistent',
  UCX = '/nonexistent',
  UCX_SOURCE = '/nonexistent',
  BRPC = '/nonexistent',
  BRPC_SOURCE = '/nonexistent',
  SPDK = '/nonexistent',
  MOONCAKE = '/nonexistent',
  MOONCAKE_SOURCE = '/nonexistent',
} = process.env

/** Ends with the client's status. The server is ended if it is endless, or if its client has failed. */
const pair = (server: string, client: string, isEndless = false): string =>
  `${server} & server=$!; sleep 0.3; ${client}; status=$?; ${isEndless ? '' : '[ $status = 0 ] || '}kill -9 $server; wait $server; exit $status`

/**
 * Messages of letters; what the server prints must be what the client prints. The server may print it after the
 * client's end.
 */
const ucpJob = (size: number): string => {
  const ucp = `stdbuf -oL $UCX/bin/ucp_client_server -p 18606 -c tag -i 20 -s ${size}`
  const compared =
    'for i in 1 2 3 4 5; do grep ^ABC $FOLDER/sent >$FOLDER/out; grep ^ABC $FOLDER/got | cmp - $FOLDER/out && break; sleep 1; done'
  return pair(
    `${ucp} >$FOLDER/got`,
    `sleep 6; { ${ucp} -a 127.0.0.1 >$FOLDER/sent && { ${compared}; [ $i != 5 ]; }; }`,
    true,
  )
}

/** Less memory and fewer prepared queue pairs than its default of 1 GiB and 1,024. */
const brpcPool = '-rdma_memory_pool_initial_size_mb=64 -rdma_prepared_qp_cnt=4'

/** The devices as the engine's matrix of priorities names them. */
const mooncakeJob = (devices: string): string => {
  const transfers = (role: string) => `$MOONCAKE/mooncake_transfers ${role} $FOLDER/name ${devices}`
  return pair(`rm -f $FOLDER/name; ${transfers('target')}`, `sleep 3; ${transfers('initiator')}`, true)
}

const NQN = 'nqn.2016-06.io.spdk:cnode1'
const nvmfAddress = { trtype: 'RDMA', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: '18608' }
/** A configuration of SPDK: calls of its subsystems. */
const spdkConfig = (subsystems: Readonly<Record<string, Readonly<Record<string, object>>>>): string =>
  JSON.stringify({
    subsystems: Object.entries(subsystems).map(([subsystem, calls]) => ({
      subsystem,
      config: Object.entries(calls).map(([method, params]) => ({ method, params })),
    })),
  })
/** Pools for little memory. */
const iobuf = { iobuf_set_options: { small_pool_count: 1024, large_pool_count: 128 } }
const bdev_set_options = { bdev_io_pool_size: 1023, bdev_io_cache_size: 64 }
const nvmfTarget = spdkConfig({
  iobuf,
  bdev: { bdev_set_options, bdev_malloc_create: { name: 'Malloc0', num_blocks: 8192, block_size: 512 } },
  nvmf: {
    nvmf_create_transport: { trtype: 'RDMA' },
    nvmf_create_subsystem: { nqn: NQN, allow_any_host: true },
    nvmf_subsystem_add_ns: { nqn: NQN, namespace: { bdev_name: 'Malloc0' } },
    nvmf_subsystem_add_listener: { nqn: NQN, listen_address: nvmfAddress },
  },
})
const nvmfInitiator = spdkConfig({
  iobuf,
  bdev: {
    bdev_set_options,
    bdev_nvme_attach_controller: { name: 'Nvme0', ...nvmfAddress, subnqn: NQN },
  },
})

const fioJob = 'fio --thread --name=job --ioengine=rdma --port=18600 --bs=64k --size=4m'

const twoRails = ['--device', 'rxe0@127.0.0.1', '--device', 'rxe1@127.0.0.2']

const fabricJob = (provider: string, endpoint: string): string => `fi_pingpong -c -p ${provider} -e ${endpoint} -I 10`

const programs: readonly Program[] = [
  {
    name: 'rsockets: `rcopy` of a file',
    bytes: 'compared with the file',
    tools: ['rcopy'],
    command: pair('rcopy', '{ rcopy $FOLDER/file localhost:$FOLDER/copy && cmp $FOLDER/file $FOLDER/copy; }', true),
  },
  {
    name: 'fio, `ioengine=rdma`: WRITEs of 64 KiB',
    bytes: 'not looked at',
    tools: ['fio'],
    command: `cd $FOLDER; ${pair(`${fioJob} --rw=read --iodepth=64`, `${fioJob} --hostname=127.0.0.1 --verb=write --rw=write --iodepth=4`)}`,
  },
  {
    name: 'UCX: `ucx_perftest -t tag_lat` over `rc_verbs`',
    bytes: 'not looked at',
    tools: ['ucx_perftest'],
    command: `export UCX_TLS=rc_verbs,ud:aux,self UCX_NET_DEVICES=rxe0:1; ${pair('ucx_perftest -p 18601', 'ucx_perftest -p 18601 -n 50 -w 5 -t tag_lat 127.0.0.1')}`,
  },
  {
    name: 'Open MPI, 2 ranks, pml ucx over `rc_verbs`: ring, all-reduce, one-sided',
    bytes: 'checked by the program',
    tools: ['mpirun.openmpi', 'mpicc.openmpi'],
    command:
      'mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 --mca pml ucx --mca osc ucx -x UCX_TLS=rc_verbs,ud_verbs,self $FOLDER/check messages reduce one-sided',
  },
  {
    name: 'Open MPI, 2 ranks, pml ucx over `rc_verbs` with two rails: the same',
    bytes: 'checked by the program',
    tools: ['mpirun.openmpi', 'mpicc.openmpi'],
    command:
      'mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 --mca pml ucx --mca osc ucx -x UCX_TLS=rc_verbs,ud_verbs,self -x UCX_NET_DEVICES=rxe0:1,rxe1:1 -x UCX_MAX_RNDV_RAILS=2 -x UCX_RNDV_THRESH=1k $FOLDER/check messages reduce one-sided',
    options: twoRails,
  },
  {
    name: 'UCX 1.23: `ucp_client_server -c tag` over rdma_cm and `rc_verbs`',
    bytes: 'compared with what was sent',
    tools: [join(UCX, 'bin', 'ucp_client_server')],
    command: `export LD_LIBRARY_PATH=$UCX/lib UCX_TLS=rc_verbs,ud_verbs:aux,self UCX_NET_DEVICES=rxe0:1; ${ucpJob(5000)}`,
  },
  {
    name: 'UCX 1.23: the same with two rails, messages of 500,000 bytes',
    bytes: 'compared with what was sent',
    tools: [join(UCX, 'bin', 'ucp_client_server')],
    command: `export LD_LIBRARY_PATH=$UCX/lib UCX_TLS=rc_verbs,ud_verbs:aux,self UCX_NET_DEVICES=rxe0:1,rxe1:1 UCX_MAX_RNDV_RAILS=2; ${ucpJob(500_000)}`,
    options: twoRails,
  },
  {
    name: "brpc 1.17 with RDMA: the server of `rdma_performance`, and 20 calls, with brpc's own retries",
    bytes: 'compared by the client',
    tools: [join(BRPC, 'server'), join(BRPC, 'client')],
    command: pair(`$BRPC/server -port=18607 ${brpcPool}`, `sleep 3; $BRPC/client ${brpcPool} 127.0.0.1:18607`, true),
  },
  {
    name: 'SPDK of August 2026: `nvmf_tgt` over RDMA, and `bdevperf -w verify`',
    bytes: 'compared by `bdevperf`',
    tools: [join(SPDK, 'build', 'bin', 'nvmf_tgt'), join(SPDK, 'build', 'examples', 'bdevperf')],
    command: pair(
      '$SPDK/build/bin/nvmf_tgt --no-huge -s 512 -m 1 -r $FOLDER/target.sock -c $FOLDER/target.json --interrupt-mode',
      'sleep 3; $SPDK/build/examples/bdevperf --no-huge -s 512 -m 2 -r $FOLDER/initiator.sock -c $FOLDER/initiator.json -q 4 -o 4096 -w verify -t 1',
      true,
    ),
  },
  {
    name: "Mooncake's transfer engine of August 2026, `P2PHANDSHAKE`: 12 WRITEs that are read back",
    bytes: 'compared by the initiator',
    tools: [join(MOONCAKE, 'mooncake_transfers')],
    command: mooncakeJob('rxe0'),
  },
  {
    name: "Mooncake's transfer engine with two devices: the same",
    bytes: 'compared by the initiator',
    tools: [join(MOONCAKE, 'mooncake_transfers')],
    command: mooncakeJob('rxe0 rxe1'),
    options: twoRails,
  },
  {
    name: 'libfabric: `fi_pingpong` over the provider `verbs`',
    bytes: 'compared by the program',
    tools: ['fi_pingpong'],
    command: pair(`${fabricJob('verbs', 'msg')} -B 18603`, `${fabricJob('verbs', 'msg')} -P 18603 127.0.0.1`),
  },
  {
    name: 'libfabric: `fi_pingpong` over the provider `efa`',
    bytes: 'compared by the program',
    tools: ['fi_pingpong'],
    command: pair(`${fabricJob('efa', 'rdm')} -B 18603`, `${fabricJob('efa', 'rdm')} -P 18603 127.0.0.1`),
    options: ['--device', 'efa_0@127.0.0.1,driver=efa'],
  },
  {
    name: 'Valkey of October 2024: its test client of RDMA, 2 connections',
    bytes: 'compared by the client',
    tools: [join(VALKEY, 'src', 'valkey-server'), join(VALKEY, 'tests', 'rdma', 'rdma-test')],
    command: `cd $FOLDER; ${pair(
      '$VALKEY/src/valkey-server --port 0 --save "" --loadmodule $VALKEY/src/valkey-rdma.so port=18605 bind=127.0.0.1',
      'sleep 5; $VALKEY/tests/rdma/rdma-test --host 127.0.0.1 --port 18605 --minkeys 20 --maxkeys 60 --thread 2',
      true,
    )}`,
  },
  {
    name: 'A service and its client on our library, `test/system/failures/service.mjs`',
    bytes: 'compared by the client',
    tools: [],
    command: pair(
      'node test/system/failures/service.mjs serve rdma://127.0.0.1:18602',
      'sleep 1; node test/system/failures/service.mjs call rdma://127.0.0.1:18602',
      true,
    ),
  },
  {
    name: 'Two rails, `test/programs/walks/rails.c`: what has failed on one is done by the other, and that is connected anew',
    bytes: 'not looked at',
    tools: [ownProgram('rails')],
    command: 'build/programs/rails -a -d rxe0 -s rxe1',
    options: twoRails,
  },
]

interface Result {
  readonly kind: string
  readonly outcome: string
  readonly isFinding: boolean
  readonly text: string
  readonly rule: string
  readonly program: string
  readonly frames: readonly { readonly function?: string; readonly file?: string; readonly line?: number }[]
  readonly recovery?: number
}

/** Words for outcomes; those of `walk` that are not here stay. */
const words: Readonly<Record<string, string>> = {
  recovered: 'recovers',
  ended: 'ends',
  hang: 'hangs',
  wrong: 'wrong bytes or status',
  leak: 'leaks',
  crash: 'crashes',
  swallowed: 'fails silently',
  left: 'leaves its peer connected',
}

const cellText = (results: readonly Result[]): string => {
  if (results.length === 0) return ''
  const counts = new Map<string, Result[]>()
  for (const result of results) counts.set(result.outcome, [...(counts.get(result.outcome) ?? []), result])
  return [...counts]
    .sort(([a], [b]) => Object.keys(words).indexOf(a) - Object.keys(words).indexOf(b))
    .map(([outcome, all]) => {
      const longest = Math.max(...all.map(({ recovery = 0 }) => recovery))
      const seconds = outcome === 'recovered' && longest >= 100 ? ` (${(longest / 1000).toFixed(1)} s)` : ''
      const text = `${words[outcome] ?? outcome} ${all.length}${seconds}`
      return all.some(({ isFinding }) => isFinding) ? `**${text}**` : text
    })
    .join(', ')
}

/** Its innermost line of source that is not of an inline function of verbs, else the object file. */
const placeOf = ({ frames, program }: Result): string => {
  const known = frames.find(({ line, file = '' }) => line !== undefined && !file.endsWith('/infiniband/verbs.h'))
  const [first] = frames
  if (known !== undefined) {
    const file = [VALKEY, UCX_SOURCE, BRPC_SOURCE, SPDK, MOONCAKE_SOURCE].reduce(
      (path, folder) => path.replace(`${folder}/`, ''),
      normalize(known.file ?? ''),
    )
    // C++ functions' names have the types of their parameters.
    return `${program}, ${known.function?.replace(/\(.+\)$/, '()')} (${file}:${known.line})`
  }
  return first?.file === undefined ? program : `${program}, ${first.function ?? '?'} (${first.file})`
}

describe('recovery after failures', () => {
  const scope = suiteScope()
  /** By program: its row of the table, and what is bad of it. */
  const ran = new Map<string, { readonly row: string; readonly details: string }>()
  const written = (): string => readFileSync(page, 'utf8')
  const isWriting = process.env.WRITE_DOCS !== undefined
  let folder = ''
  before(() => {
    folder = temporaryFolder(scope)
    writeFileSync(join(folder, 'file'), Buffer.alloc(200_000, 'userdma '))
    writeFileSync(join(folder, 'target.json'), nvmfTarget)
    writeFileSync(join(folder, 'initiator.json'), nvmfInitiator)
    const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
    spawnSync('mpicc.openmpi', ['-g', '-O1', '-o', join(folder, 'check'), source])
  })

  for (const { name, bytes, tools, command, options = [] } of programs)
    it(name, { skip: lacking(...tools) }, async t => {
      const output = join(temporaryFolder(t), 'results')
      const limits = ['--points', `${POINTS}`, '--time-limit', `${SECONDS}`, '--jobs', '1', '--clock', 'skip']
      const full = `FOLDER=${folder}; VALKEY=${VALKEY}; UCX=${UCX}; BRPC=${BRPC}; SPDK=${SPDK}; MOONCAKE=${MOONCAKE}; cd ${repoRoot}; ${command}`
      const args = [...limits, ...options, '--json', '--output', output, '--', 'sh', '-c', full]
      const { stderr } = await runUserdma(t, ['walk', ...args])
      assert.ok(existsSync(output), stderr)
      const results = readFileSync(output, 'utf8')
        .split('\n')
        .filter(line => line.startsWith('{'))
        .map(line => JSON.parse(line) as Result)
      assert.ok(results.length > 8, stderr)
      const ofKind = (kind: string) => results.filter(result => result.kind === kind)
      const cells = [name, results.length, ...Object.keys(walkKinds).map(kind => cellText(ofKind(kind))), bytes]
      const repeated = ['userdma run --private --clock skip', ...options, '--fault RULES -- sh -c']
      const details = [`\n### ${name}\n\n    ${repeated.join(' ')} '${command}'\n`]
      for (const result of results.filter(({ isFinding }) => isFinding)) {
        const line = `${words[result.outcome] ?? result.outcome}: ${result.text}, ${placeOf(result)}`
        details.push(`- ${line}: \`--fault '${result.rule}'\``)
        if (!isWriting) assert.ok(written().includes(line), `not on the page: ${line}`)
      }
      if (details.length === 1) details.push('Nothing.')
      ran.set(name, { row: `| ${cells.join(' | ')} |`, details: details.join('\n') })
    })

  it('is the page', { skip: !isWriting }, () => {
    const kinds = Object.keys(walkKinds)
    const head = [
      `| program | failures | ${kinds.join(' | ')} | bytes |`,
      `|---|---|${kinds.map(() => '---|').join('')}---|`,
    ]
    const [before = '', table = ''] = written().split('| program |')
    const [, ...sections] = written().split('\n### ')
    const of = ({ name }: Program) => {
      const row = table.split('\n').find(line => line.startsWith(`| ${name} |`))
      const section = sections.find(text => text.startsWith(`${name}\n`))
      return ran.get(name) ?? (row && section && { row, details: `\n### ${section.trimEnd()}` })
    }
    const all = programs.map(of).filter(one => one !== undefined && one !== '')
    const rows = [...head, ...all.map(({ row }) => row)].join('\n')
    writeFileSync(page, `${before}${rows}\n\n## What is bad\n${all.map(one => `${one.details}\n`).join('')}`)
  })
})
