/*
 * Programs of Debian 12 that use RDMA, as lines for each kind of device: those of docs/reference/applications.md and
 * docs/reference/programs.md that run without set-up. What `userdma check` tells of each is
 * docs/reference/check-applications.md (applications.long.test.ts).
 */

/** Words of a line, in capitals, and the variables of a device. */
export const devices = {
  rxe: {
    option: 'rxe0@127.0.0.1',
    words: { DEVICE: 'rxe0', GID: '1', SERVICE: 'RC', PROVIDER: 'verbs', RDM: 'verbs;ofi_rxm' },
    // by default libfabric's rxm provider requests queues for 256 peers, more than rxe allows
    env: { FI_UNIVERSE_SIZE: '8' },
  },
  mlx5: {
    option: 'mlx5_0@127.0.0.1,driver=mlx5',
    words: { DEVICE: 'mlx5_0', GID: '1', SERVICE: 'RC', PROVIDER: 'verbs', RDM: 'verbs;ofi_rxm' },
    env: { FI_UNIVERSE_SIZE: '8' },
  },
  efa: {
    option: 'efa0@127.0.0.1,driver=efa',
    words: { DEVICE: 'efa0', GID: '0', SERVICE: 'SRD', PROVIDER: 'efa', RDM: 'efa' },
    // otherwise libfabric passes messages between processes of one machine by shared memory
    env: { FI_EFA_ENABLE_SHM_TRANSFER: '0' },
  },
} as const
export type Device = keyof typeof devices

/** What shows that a server listens. */
type Ready = 'tcp' | 'rdma_cm' | number

export interface Application {
  readonly group: string
  /** The row's title. */
  readonly name: string
  /** A shell script: words in capitals are filled in. */
  readonly script: string
  readonly devices: readonly Device[]
  readonly env: Readonly<Record<string, string>>
  /** Programs that have to be there. */
  readonly needs: readonly string[]
}

const all: readonly Device[] = ['rxe', 'mlx5', 'efa']
const ofInfiniBand: readonly Device[] = ['rxe', 'mlx5']

const test = (ready: Ready): string =>
  ready === 'rdma_cm'
    ? 'rdma resource show cm_id | grep -q LISTEN'
    : `ss -Htln "sport = :${ready === 'tcp' ? 'PORT' : ready}" | grep -q .`

interface Pair {
  readonly server: string
  readonly client: string
  readonly ready: Ready
  /** Whether the server is stopped after the client. */
  readonly isEndless?: boolean
}
/** The server is killed if the client fails. */
const pairScript = ({ server, client, ready, isEndless = false }: Pair): string =>
  [
    `${server} & server=$!`,
    `while kill -0 $server 2>/dev/null && ! ${test(ready)}; do :; done`,
    `${client} || { kill -9 $server; wait; exit 1; }`,
    isEndless ? 'kill -INT $server; kill $server; wait; exit 0' : 'wait $server',
  ].join('\n')

const firstWord = (line: string): string => line.split(' ').find(word => !word.includes('=') && word !== 'env')!

interface Options {
  readonly devices?: readonly Device[]
  readonly env?: Readonly<Record<string, string>>
}
const pair = (group: string, line: string, one: Pair, { devices: on = all, env = {} }: Options = {}): Application => ({
  group,
  name: line.replace(/ -(d DEVICE|[gx] GID|p PORT|n \d+|F|I \d+|w \d+|lp PORT)\b/g, '').replace(/^env /, ''),
  script: pairScript(one),
  devices: on,
  env,
  needs: [firstWord(one.server), 'ss', 'rdma'],
})
const single = (group: string, line: string, { devices: on = all, env = {} }: Options = {}): Application => ({
  group,
  name: line,
  script: line,
  devices: on,
  env,
  needs: [firstWord(line)],
})

const VERBS = 'ibverbs-utils 44.0'
const verbs = (line: string, on = ofInfiniBand): Application => {
  const command = `${line} -p PORT -d DEVICE -g GID -n 200`
  return pair(VERBS, line, { server: command, client: `${command} localhost`, ready: 'tcp' }, { devices: on })
}

const PERFTEST = 'perftest 4.5'
const perftest = (line: string, on: readonly Device[] = all): Application => {
  const command = `${line} -F -p PORT -d DEVICE -x GID`
  return pair(PERFTEST, line, { server: command, client: `${command} localhost`, ready: 'tcp' }, { devices: on })
}

const CM = 'rdmacm-utils 44.0'
const cm = (line: string, server: string, client: string, isEndless = false): Application =>
  pair(
    CM,
    line,
    { server: `${line} ${server}`, client: `${line} ${client}`, ready: 'rdma_cm', isEndless },
    { devices: ofInfiniBand },
  )
const bothSides = (line: string, isEndless = false): Application => cm(line, '-b 127.0.0.1', '-s 127.0.0.1', isEndless)

const UCX = 'UCX 1.13.1'
const ucxTransports = {
  'rc_verbs,ud_verbs': ofInfiniBand,
  ud_verbs: ofInfiniBand,
  'rc_mlx5,ud_mlx5': ['mlx5'],
  'dc_mlx5,ud_mlx5': ['mlx5'],
  ud_mlx5: ['mlx5'],
} as const satisfies Readonly<Record<string, readonly Device[]>>
type UcxTransport = keyof typeof ucxTransports
const ucxEnv = (tls: string): Readonly<Record<string, string>> => ({
  UCX_TLS: `${tls},self`,
  UCX_NET_DEVICES: 'DEVICE:1',
})
const UCX_TESTS = [
  ...['tag_lat', 'tag_bw', 'tag_sync_lat', 'ucp_put_lat', 'ucp_put_bw', 'ucp_get', 'ucp_fadd', 'ucp_cswap'],
  ...['stream_lat', 'stream_bw', 'ucp_am_lat', 'ucp_am_bw'],
]
/** Tests of `ucx_perftest -b`, in words of its command line. */
export const UCX_BATCH = UCX_TESTS.flatMap(name =>
  (/fadd|cswap/.test(name) ? [8] : [8, 100_000]).map(bytes => `${name}_${bytes} -t ${name} -s ${bytes} -n 10 -w 2`),
).join('\n')
const ucx = (tls: UcxTransport): Application =>
  pair(
    UCX,
    `ucx_perftest, UCX_TLS=${tls}`,
    {
      server: 'ucx_perftest -p PORT -b FOLDER/batch',
      client: 'ucx_perftest -p PORT -b FOLDER/batch 127.0.0.1',
      ready: 'tcp',
    },
    { devices: ucxTransports[tls], env: ucxEnv(tls) },
  )

const FABRIC = 'libfabric 1.17'
const fabric = (provider: string, endpoint: string, on: readonly Device[] = all, env = {}): Application => {
  const line = `fi_pingpong -p '${provider}' -e ${endpoint} -I 10`
  return pair(
    FABRIC,
    line,
    { server: `${line} -B PORT`, client: `${line} -P PORT 127.0.0.1`, ready: 'tcp' },
    { devices: on, env },
  )
}

/** Of mpi_check.c. */
const MPI_TESTS = ['messages', 'reduce', 'one-sided']
const mpi = (
  group: string,
  name: string,
  line: string,
  program: string,
  on: readonly Device[],
  env = {},
): Application => ({
  group,
  name,
  script: MPI_TESTS.map(part => `${line} ${program} ${part} || exit 1`).join('\n'),
  devices: on,
  env,
  needs: [firstWord(line)],
})
const openMpi = (name: string, settings: string, on: readonly Device[], env = {}): Application =>
  mpi(
    'Open MPI 4.1.4',
    name,
    `mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 --mca btl self ${settings}`,
    'OPEN_MPI_CHECK',
    on,
    env,
  )

const fio = (verb: string): Application => {
  const job = 'fio --thread --name=job --ioengine=rdma --port=PORT --bs=64k --size=4m'
  return pair(
    'fio 3.33',
    `fio --ioengine=rdma --verb=${verb}`,
    {
      // a receive for each of the 64 messages: fio's connections have no RNR retries
      server: `${job} --rw=read --iodepth=64`,
      client: `${job} --hostname=127.0.0.1 --verb=${verb} --rw=write --iodepth=4`,
      ready: 'rdma_cm',
    },
    { devices: ofInfiniBand },
  )
}

const QPERF_TESTS = [
  ...['rc_bw', 'rc_lat', 'rc_bi_bw', 'rc_rdma_read_bw', 'rc_rdma_read_lat', 'rc_rdma_write_bw', 'rc_rdma_write_lat'],
  ...['rc_rdma_write_poll_lat', 'rc_compare_swap_mr', 'rc_fetch_add_mr', 'ver_rc_fetch_add', 'ver_rc_compare_swap'],
]

const dapl = (line: string, port: number): Application =>
  pair(
    'uDAPL 2.1',
    line,
    { server: line, client: `${line} -h 127.0.0.1`, ready: port },
    { devices: ofInfiniBand, env: { DAT_OVERRIDE: 'FOLDER/dat.conf' } },
  )

export const applications: readonly Application[] = [
  single(VERBS, 'ibv_devinfo -v'),
  ...[
    'ibv_rc_pingpong',
    'ibv_rc_pingpong -e',
    'ibv_rc_pingpong -N',
    'ibv_uc_pingpong',
    'ibv_srq_pingpong',
    'ibv_xsrq_pingpong',
  ].map(line => verbs(line)),
  verbs('ibv_ud_pingpong', all),
  verbs('ibv_ud_pingpong -e', all),
  ...['ib_send_bw', 'ib_send_lat', 'ib_read_bw', 'ib_read_lat'].map(line => perftest(`${line} -c SERVICE -n 200`)),
  ...['ib_write_bw', 'ib_write_lat', 'ib_atomic_bw', 'ib_atomic_lat'].map(line =>
    perftest(`${line} -n 200`, ofInfiniBand),
  ),
  perftest('ib_send_bw -c UD -s 1024 -Q 1 -n 200'),
  perftest('ib_send_lat -c UD -s 64 -n 200', ofInfiniBand),
  perftest('ib_send_bw -e -n 200 -s 4096', ofInfiniBand),
  perftest('ib_write_bw -b -q 4 -n 200 -s 4096', ofInfiniBand),
  perftest('ib_write_bw -c UC -n 200', ofInfiniBand),
  perftest('ib_send_bw -c XRC -n 200 -s 4096', ofInfiniBand),
  perftest('ib_write_bw -c DC -n 200 -s 4096', ['mlx5']),
  perftest('ib_write_bw --use_old_post_send -n 200 -s 4096', ofInfiniBand),
  pair(
    PERFTEST,
    'ib_send_bw -R -n 200',
    {
      server: 'ib_send_bw -F -p PORT -R -n 200',
      client: 'ib_send_bw -F -p PORT -R -n 200 127.0.0.1',
      ready: 'rdma_cm',
    },
    { devices: ofInfiniBand },
  ),
  cm('rping -p PORT -a 127.0.0.1 -C 5 -V', '-s', '-c'),
  cm('rping -p PORT -a 127.0.0.1 -C 5 -V -q', '-s', '-c'),
  bothSides('ucmatose -p PORT -c 4 -C 5'),
  bothSides('udaddy -c 3 -C 5'),
  {
    group: CM,
    name: 'mckey -m 239.77.0.1',
    // what is sent before the receiver has joined the group is lost
    script: [
      'mckey -m 239.77.0.1 -b 127.0.0.1 & receiver=$!',
      'while kill -0 $receiver 2>/dev/null; do mckey -m 239.77.0.1 -b 127.0.0.1 -s || { kill $receiver; exit 1; }; done',
      'wait $receiver',
    ].join('\n'),
    devices: ofInfiniBand,
    env: {},
    needs: ['mckey'],
  },
  pair(
    CM,
    'rdma_server, rdma_client',
    { server: 'rdma_server -p PORT', client: 'rdma_client -s 127.0.0.1 -p PORT', ready: 'rdma_cm' },
    { devices: ofInfiniBand },
  ),
  pair(
    CM,
    'rdma_xserver, rdma_xclient',
    { server: 'rdma_xserver -p PORT', client: 'rdma_xclient -s 127.0.0.1 -p PORT', ready: 'rdma_cm' },
    { devices: ofInfiniBand },
  ),
  bothSides('rstream -p PORT -S 4096 -C 50'),
  bothSides('rstream -p PORT -S 65536 -C 20 -T a'),
  bothSides('riostream -p PORT -S 4096 -I 20 -C 5'),
  bothSides('cmtime -p PORT -c 20', true),
  pair(
    CM,
    'rcopy',
    {
      server: 'rcopy -p PORT',
      client: 'rcopy FOLDER/dat.conf 127.0.0.1:FOLDER/copy -p PORT',
      ready: 'rdma_cm',
      isEndless: true,
    },
    { devices: ofInfiniBand },
  ),
  ...(Object.keys(ucxTransports) as UcxTransport[]).map(tls => ucx(tls)),
  single(FABRIC, 'fi_info -p PROVIDER'),
  fabric('RDM', 'rdm'),
  fabric('PROVIDER', 'dgram'),
  fabric('verbs', 'msg', ofInfiniBand),
  fabric('verbs;ofi_rxd', 'rdm', ofInfiniBand),
  {
    ...fabric('verbs;ofi_rxm', 'rdm', ofInfiniBand, { FI_VERBS_PREFER_XRC: '1', FI_OFI_RXM_USE_SRX: '1' }),
    name: "fi_pingpong -p 'verbs;ofi_rxm' -e rdm, over XRC",
  },
  openMpi('mtl ofi', '--mca pml cm --mca mtl ofi --mca osc ^ucx --mca mtl_ofi_provider_include "RDM"', all),
  ...(['rc_verbs,ud_verbs', 'rc_mlx5,ud_mlx5', 'dc_mlx5,ud_mlx5'] as const).map(tls =>
    openMpi(`pml ucx, UCX_TLS=${tls}`, '--mca pml ucx --mca osc ucx', ucxTransports[tls], ucxEnv(tls)),
  ),
  ...(['rc_verbs,ud_verbs', 'rc_mlx5,ud_mlx5', 'dc_mlx5,ud_mlx5'] as const).map(tls =>
    mpi('MPICH 4.0.2', `UCX_TLS=${tls}`, 'mpirun.mpich -n 2', 'MPICH_CHECK', ucxTransports[tls], ucxEnv(tls)),
  ),
  ...['write', 'read', 'send'].map(fio),
  {
    ...pair(
      'qperf 0.4.11',
      'qperf',
      {
        server: 'qperf -lp PORT',
        client: `qperf -lp PORT -cm 1 -t 1 127.0.0.1 ${QPERF_TESTS.join(' ')}`,
        ready: 'tcp',
        isEndless: true,
      },
      { devices: ofInfiniBand },
    ),
    name: `qperf -cm 1, ${QPERF_TESTS.length} tests`,
  },
  dapl('dtest -P lo -b 65536 -B 10', 15828),
  dapl('dtestx -P lo', 15828),
]

/** uDAPL's list of providers: `lo`, which is rdma_cm on the interface lo. */
export const DAT_CONF = 'lo u2.0 nonthreadsafe default libdaplofa.so.2 dapl.2.0 "lo 0" ""\n'
