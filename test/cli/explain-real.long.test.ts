/*
 * `userdma explain` of real logs: programs on the hosts of a net fail by a fault that is set, and what they have
 * printed, a file for each host, must tell the cause. `accepts` was written before the first run, with the causes that
 * no log can tell apart; where a program's lines turned out to tell less (`unusable`, TCP that does not connect), it
 * was extended.
 *
 * A row is right if the class and the first cause of the first failure are accepted; half right if one of them is; it
 * misleads if it says a wrong cause is likely, or names another host or adapter. Where the logs have no word of a
 * failure, or the program did not fail, there is nothing to explain.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { canMakeNets, newNet } from '../system/nets.ts'
import { lacking, temporaryFolder, userdma } from '../system/programs.ts'

type End = 'server' | 'client'
/** What a command has in braces. */
type Setting = 'gid' | 'mtu' | 'size' | 'timeout' | 'peer'

interface Program {
  readonly name: string
  /** The process that sends. */
  readonly process: string
  /** None if `client` starts all ranks. */
  readonly server?: string
  readonly client: string
  readonly usual: Readonly<Partial<Record<Setting, string>>>
  /** It connects by rdma_cm, or by TCP. */
  readonly connects: 'rdma_cm' | 'TCP'
  readonly layer?: 'infiniband'
  /** What it posts. */
  readonly requests: readonly ('SEND' | 'WRITE' | 'READ')[]
}

interface Fault {
  readonly name: string
  /** `class/cause`. */
  readonly accepts: readonly string[]
  readonly settings?: Readonly<Partial<Record<End, Partial<Record<Setting, string>>>>>
  /** Fault rules from the start; REQUESTS are those of `requests` that the program has. */
  readonly rules?: Readonly<Partial<Record<End, string>>>
  readonly requests?: Program['requests']
  readonly connects?: Program['connects']
  /** After some packets of the client; SERVER and CLIENT are hosts. */
  readonly event?: string
  /** A command that runs the client. */
  readonly wrapper?: string
  readonly linkMtu?: number
  readonly without?: 'server' | 'client device'
}

const perftest = (name: string, request: 'SEND' | 'WRITE' | 'READ', more = ''): Program => ({
  name: `${name}${more}`,
  process: name,
  server: `${name} -F -x {gid} -m {mtu} -s {size} -u {timeout} -n 1000 -p PORT${more}`,
  client: `${name} -F -x {gid} -m {mtu} -s {size} -u {timeout} -n 1000 -p PORT${more} {peer}`,
  usual: { gid: '1', mtu: '1024', size: '4096', timeout: '14' },
  connects: more === '' ? 'TCP' : 'rdma_cm',
  requests: [request],
})
const ucx = (name: string, transports: string, test: string): Program => {
  const words = `UCX_TLS=${transports} UCX_IB_GID_INDEX={gid} UCX_RC_PATH_MTU={mtu} UCX_RC_TIMEOUT=100ms UCX_UD_TIMEOUT=1s ucx_perftest -t ${test} -s {size} -n 1000 -w 10 -p PORT`
  return {
    name,
    process: 'ucx_perftest',
    server: words,
    client: `${words} {peer}`,
    usual: { gid: '1', mtu: '1024', size: '4096' },
    connects: 'TCP',
    requests: ['SEND', 'WRITE', 'READ'],
  }
}
const mpirun = (name: string, words: string): Program => ({
  name,
  process: 'mpi_check',
  client: `mpirun.openmpi --allow-run-as-root --oversubscribe --mca plm_rsh_agent AGENT --mca mpi_yield_when_idle 1 --host HOSTS ${words} CHECK ${'messages '.repeat(10)} reduce`,
  usual: name.includes('UCX') ? { gid: '1' } : {},
  connects: 'TCP',
  requests: ['SEND', 'WRITE', 'READ'],
  ...(!name.includes('UCX') && { layer: 'infiniband' as const }),
})

const programs: readonly Program[] = [
  {
    name: 'ibv_rc_pingpong',
    process: 'ibv_rc_pingpong',
    server: 'ibv_rc_pingpong -g {gid} -m {mtu} -s {size} -n 1000 -p PORT',
    client: 'ibv_rc_pingpong -g {gid} -m {mtu} -s {size} -n 1000 -p PORT {peer}',
    usual: { gid: '1', mtu: '1024', size: '4096' },
    connects: 'TCP',
    requests: ['SEND'],
  },
  perftest('ib_send_bw', 'SEND'),
  perftest('ib_write_bw', 'WRITE'),
  perftest('ib_read_bw', 'READ'),
  perftest('ib_write_bw', 'WRITE', ' -R'),
  {
    name: 'rping',
    process: 'rping',
    server: 'rping -s -v -C 300 -S 64 -p PORT',
    client: 'rping -c -a {peer} -C 300 -S 64 -p PORT',
    usual: {},
    connects: 'rdma_cm',
    requests: ['SEND'],
  },
  {
    name: 'ucmatose',
    process: 'ucmatose',
    server: 'ucmatose -C 500 -S {size} -p PORT',
    client: 'ucmatose -C 500 -S {size} -p PORT -s {peer}',
    usual: { size: '100' },
    connects: 'rdma_cm',
    requests: ['SEND'],
  },
  ucx('ucx_perftest rc_mlx5', 'rc_mlx5,ud_mlx5:aux', 'tag_bw'),
  ucx('ucx_perftest rc_verbs', 'rc_verbs,ud_verbs:aux', 'tag_bw'),
  ucx('ucx_perftest put', 'rc_mlx5,ud_mlx5:aux', 'ucp_put_bw'),
  ucx('ucx_perftest ud', 'ud_verbs', 'tag_bw'),
  mpirun(
    'Open MPI over UCX',
    '--mca pml ucx --mca osc ucx -x UCX_TLS=rc_verbs,ud_verbs,self -x UCX_IB_GID_INDEX={gid} -x UCX_RC_TIMEOUT=100ms -x UCX_UD_TIMEOUT=1s',
  ),
  mpirun(
    'Open MPI over openib',
    '--mca pml ob1 --mca btl openib,self --mca btl_openib_allow_ib 1 --mca btl_openib_ib_timeout 12 --mca btl_openib_warn_no_device_params_found 0',
  ),
]

const SILENCE = ['path', 'peer-ended', 'loss', 'link'].map(cause => `no-answer/${cause}`)
const CLOSED = ['flushed/disconnect', 'flushed/first-failure-missing', 'disconnected/peer-ended']
const INVALID = ['mtu-or-version', 'receive-length'].map(cause => `remote-request/${cause}`)
const NO_DEVICE = ['container', 'provider', 'unusable'].map(cause => `no-device/${cause}`)
/** By TCP, programs often say only that they could not connect. */
const NOT_CONNECTED = ['unreachable/no-listener', 'unreachable/no-route']
const REMOTE_ACCESS = ['remote-memory/rkey', 'remote-memory/deregistered']
const LIMIT = ['registration/memlock', 'registration/limit', 'resources/memlock', 'resources/limit']

const faults: readonly Fault[] = [
  { name: 'peer killed', accepts: [...SILENCE, ...CLOSED], event: 'kill: server' },
  {
    name: 'link down at the server',
    accepts: [...SILENCE, 'port-down/link'],
    event: 'link: { host: SERVER, down: 500s }',
  },
  {
    name: 'link down at the client',
    accepts: [...SILENCE, 'port-down/link'],
    event: 'link: { host: CLIENT, down: 500s }',
  },
  { name: 'all packets lost', accepts: SILENCE, event: "fault: { host: SERVER, rules: 'drop=1' }" },
  {
    name: 'all packets lost from the start',
    accepts: [...SILENCE, 'unreachable/no-route', 'unreachable/firewall'],
    rules: { server: 'drop=1' },
  },
  {
    name: 'heavy loss, short timeout',
    accepts: SILENCE,
    rules: { server: 'drop=70%' },
    settings: { server: { timeout: '8' }, client: { timeout: '8' } },
  },
  { name: 'empty GID index', accepts: ['qp-setup/gid-index', ...NO_DEVICE], settings: { client: { gid: '7' } } },
  {
    name: 'GID of another network',
    accepts: ['qp-setup/gid-index', 'qp-setup/no-neighbour', 'no-answer/path'],
    settings: { client: { gid: '0' } },
  },
  {
    name: 'path MTU above that of the link',
    accepts: ['qp-setup/port', 'qp-setup/gid-index'],
    linkMtu: 1500,
    settings: { server: { mtu: '4096' }, client: { mtu: '4096' } },
  },
  { name: 'path MTUs differ', accepts: INVALID, settings: { server: { mtu: '4096' }, client: { mtu: '512' } } },
  {
    name: 'message longer than the buffer at the peer',
    accepts: [...INVALID, 'local-request/request', ...REMOTE_ACCESS],
    settings: { server: { size: '64' }, client: { size: '8192' } },
  },
  {
    name: 'no receive',
    accepts: ['no-receive/slow-receiver', 'no-receive/rnr-retry'],
    requests: ['SEND'],
    rules: { client: 'completion=REQUESTS,status=RNR_RETRY_EXC_ERR,nth=5' },
  },
  {
    name: 'rkey refused',
    accepts: REMOTE_ACCESS,
    requests: ['WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,status=REM_ACCESS_ERR,nth=5' },
  },
  {
    name: 'request invalid at the peer',
    accepts: INVALID,
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,status=REM_INV_REQ_ERR,nth=5' },
  },
  {
    name: 'peer cannot execute',
    accepts: ['remote-operation/peer-memory'],
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,status=REM_OP_ERR,nth=5' },
  },
  {
    name: 'lkey refused',
    accepts: ['local-memory/lkey'],
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,status=LOC_PROT_ERR,nth=5' },
  },
  {
    name: 'request invalid here',
    accepts: ['local-request/request'],
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,status=LOC_QP_OP_ERR,nth=5' },
  },
  {
    name: 'small ulimit -l',
    accepts: ['registration/memlock', 'resources/memlock'],
    wrapper: 'prlimit --memlock=4096 setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock',
  },
  { name: 'too many regions', accepts: LIMIT, rules: { client: 'call=mr.create,errno=ENOMEM' } },
  {
    name: 'too many queue pairs',
    accepts: [...LIMIT, 'no-device/unusable'],
    rules: { client: 'call=*_qp.create,errno=ENOMEM' },
  },
  {
    name: 'too many completion queues',
    accepts: [...LIMIT, 'no-device/unusable'],
    rules: { client: 'call=cq.create,errno=ENOMEM' },
  },
  {
    name: 'no device',
    accepts: [...NO_DEVICE, 'unreachable/no-route'],
    without: 'client device',
  },
  { name: 'no server', accepts: ['rejected/no-listener', ...NOT_CONNECTED], without: 'server' },
  {
    name: 'address of nobody',
    accepts: NOT_CONNECTED,
    settings: { client: { peer: '10.99.9.9' } },
  },
  {
    name: 'connection rejected',
    accepts: ['rejected/application', 'rejected/no-listener'],
    connects: 'rdma_cm',
    rules: { client: 'call=cm_id.connect,event=REJECTED' },
  },
  {
    name: 'connection not answered',
    accepts: ['unreachable/no-route', 'unreachable/firewall'],
    connects: 'rdma_cm',
    rules: { client: 'call=cm_id.connect,event=UNREACHABLE' },
  },
  {
    name: 'no route',
    accepts: ['unreachable/no-route'],
    connects: 'rdma_cm',
    rules: { client: 'call=cm_id.resolveRoute,event=ROUTE_ERROR' },
  },
  {
    name: 'address not resolved',
    accepts: ['unreachable/no-route'],
    connects: 'rdma_cm',
    rules: { client: 'call=cm_id.resolveAddress,event=ADDR_ERROR' },
  },
  {
    name: 'device fails',
    accepts: ['adapter-failed/adapter', ...SILENCE, ...CLOSED],
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'completion=REQUESTS,nth=5,fatal=qps' },
  },
  {
    name: 'device of the server removed',
    accepts: ['adapter-failed/adapter', ...SILENCE, ...CLOSED],
    event: 'device: { host: SERVER, gone: 500s }',
  },
  {
    name: 'queue full',
    accepts: ['queue-full/too-many'],
    requests: ['SEND', 'WRITE', 'READ'],
    rules: { client: 'post=ENOMEM,nth=5' },
  },
]

/** Folder in which the logs stay, each run's in its own; those that are there are not made again. */
const KEPT = process.env.KEEP_LOGS
/** Hosts of nets; the client is on h2, and with four hosts others on h3 and h4, each with a server on h1. */
const COUNTS = [2, 4]
/** For so long, of a clock that skips only while all programs sleep, ends may fail one after the other. */
const within = (end: End, { server, connects }: Program): string =>
  `expect: { within: ${end === 'server' ? 4 : server === undefined ? 30 : connects === 'TCP' ? 8 : 40}s }`
/** Packets of the client before an event. */
const PACKETS = 100

const compiled = (t: TestContext): string => {
  const check = join(temporaryFolder(t), 'mpi_check')
  const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
  const { status, stderr } = spawnSync('mpicc.openmpi', ['-o', check, source], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return check
}

/** Whether the fault can be set for the program. */
const fits = ({ server, usual, requests, connects }: Program, fault: Fault): boolean =>
  Object.values(fault.settings ?? {})
    .flatMap(settings => Object.keys(settings))
    .every(name => name in usual || (name === 'peer' && server !== undefined)) &&
  (fault.connects ?? connects) === connects &&
  (fault.requests ?? requests).some(request => requests.includes(request)) &&
  !(server === undefined && fault.without === 'server')

interface Ran {
  /** `h1=FILE` … */
  readonly logs: readonly string[]
  readonly text: string
  readonly hasFailed: boolean
}

const ran = async (t: TestContext, program: Program, fault: Fault, count: number, check: string): Promise<Ran> => {
  const hosts = Array.from({ length: count }, (_, i) => `h${i + 1}`)
  const hostTexts = hosts.map(
    host =>
      `${host}: { driver: ${fault.without === 'client device' && host === 'h2' ? 'none' : `mlx5, layer: ${program.layer ?? 'ethernet'}`} }`,
  )
  const links = hosts.map(host => `  - { between: [${host}, tor], mtu: ${fault.linkMtu ?? 4200} }`)
  const net = newNet(
    t,
    `hosts: { ${hostTexts.join(', ')} }\nswitches: [tor]\nlinks:\n${links.join('\n')}\nfolders: [/dev/shm]\n`,
  )
  const folder =
    KEPT === undefined ? net.folder : join(KEPT, `${program.name} ${fault.name} ${count}`.replaceAll(/\W+/g, '_'))
  const kept = join(folder, 'play')
  const isKept = KEPT !== undefined && existsSync(kept)
  mkdirSync(folder, { recursive: true })
  const isMpi = program.server === undefined
  const requests = (fault.requests ?? program.requests).filter(request => program.requests.includes(request))
  const completions = requests.join('+')

  const logs: string[] = []
  const line = (end: End, host: string, name: string, words: string, port: number, when: string): string => {
    const log = join(folder, `${name}.log`)
    logs.push(isMpi ? log : `${host}=${log}`)
    // Only the client of h2 has settings of its own.
    const own = end === 'client' && host !== 'h2' && !isMpi ? {} : fault.settings?.[end]
    const values = { ...program.usual, peer: 'h1', ...own }
    const command = words
      .replaceAll(/\{(\w+)\}/g, (_, setting: Setting) => values[setting] ?? '')
      .replace('PORT', `${port}`)
      .replace('HOSTS', hosts.join(','))
      .replace('AGENT', `'${userdma} net exec --net ${net.name} --shell'`)
      .replace('CHECK', check)
    const wrapper = fault.wrapper === undefined || (host !== 'h2' && !isMpi) ? '' : `${fault.wrapper} `
    const run = `exec > ${log} 2>&1; exec ${wrapper}env stdbuf -oL ${command}`.replace(
      /stdbuf -oL ((?:\w+=\S+ )+)/,
      '$1stdbuf -oL ',
    )
    return `  ${name}: { host: ${host}, command: ${program.process}, run: ${JSON.stringify(run)}, ${when}${within(end, program)} }`
  }
  const lines: string[] = []
  for (const [i, host] of (isMpi ? ['h1'] : hosts.slice(1)).entries()) {
    const suffix = i === 0 ? '' : host
    const port = 18_601 + i
    if (program.server !== undefined && fault.without !== 'server')
      lines.push(line('server', 'h1', `server${suffix}`, program.server, port, ''))
    lines.push(line('client', host, `client${suffix}`, program.client, port, 'after: 1s, '))
  }
  const ends: Readonly<Record<End, string>> = { server: 'h1', client: 'h2' }
  const rules = Object.entries(fault.rules ?? {}).map(
    ([end, rule]) => `${ends[end as End]}:${rule.replace('REQUESTS', completions)}`,
  )
  let event = fault.event?.replace('SERVER', 'h1').replace('CLIENT', 'h2')
  if (isMpi && event?.startsWith('kill')) {
    event = undefined
    rules.push(`h1:program=${program.process},completion=${completions},nth=20,signal=KILL`)
  }
  const events =
    event === undefined ? '' : `events:\n  - { when: { packets: { host: h2, nth: ${PACKETS} } }, ${event} }\n`
  const play = join(folder, 'play.yaml')
  writeFileSync(play, `net: ${net.file}\nseed: 7\nprograms:\n${lines.join('\n')}\n${events}`)
  const options = rules.flatMap(rule => ['--fault', rule])
  if (!isKept) {
    const { stdout, stderr } = await net.net('play', play, '--clock', 'skip', ...options)
    writeFileSync(kept, stdout + stderr)
  }
  const played = readFileSync(kept, 'utf8')
  assert.match(played, /\nuserdma net play: /)
  const text = logs.map(log => readFileSync(log.slice(log.indexOf('=') + 1), 'utf8')).join('')
  return { logs, text, hasFailed: !/\nuserdma net play: (?:all held|did not come to this)/.test(played) }
}

type Verdict = 'right' | 'half' | 'wrong' | 'misleading' | 'nothing'

interface Cause {
  readonly id: string
  readonly likelihood: string
}
interface Found {
  readonly kind: string
  readonly class: string
  readonly first: { readonly host?: string; readonly device?: string }
  readonly causes: readonly Cause[]
}

/** What a log has if something has failed. */
const FAILURE =
  /error|fail|unable|couldn't|could not|cannot|can't|refused|reject|unreach|unexpected|\btimed? ?out\b|abort|giving up|denied|no such|invalid|not found|no \w+ devices/i

/** Hosts that a fault makes fail: others talk to the server too, and ranks to all. */
const failingHosts = (
  { server }: Program,
  { event = '', rules, settings, linkMtu, without }: Fault,
): readonly string[] =>
  server === undefined ||
  /SERVER/.test(event) ||
  (rules?.server ?? settings?.server ?? linkMtu) !== undefined ||
  without === 'server'
    ? ['h1', 'h2', 'h3', 'h4']
    : ['h1', 'h2']

const judged = (
  { logs, text, hasFailed }: Ran,
  { accepts }: Fault,
  hosts: readonly string[],
): readonly [Verdict, string] => {
  if (!hasFailed) return ['nothing', 'does not fail']
  const { stdout, stderr } = spawnSync(userdma, ['explain', '--json', ...logs], { encoding: 'utf8' })
  assert.equal(stderr, '')
  const found = stdout
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line) as Found)
    .find(({ kind }) => kind === 'failure')
  if (found === undefined) return FAILURE.test(text) ? ['wrong', 'no failure is seen'] : ['nothing', 'prints nothing']
  const [cause] = found.causes
  const said = `${found.class}/${cause?.id}${cause?.likelihood === 'likely' ? ' (likely)' : ''}`
  const { host, device } = found.first
  if ((host !== undefined && !hosts.includes(host)) || (device !== undefined && device !== 'mlx5_0'))
    return ['misleading', `${said} on ${host} ${device}`]
  if (accepts.includes(`${found.class}/${cause?.id}`)) return ['right', said]
  if (found.causes.some(({ id, likelihood }) => likelihood === 'likely' && !accepts.includes(`${found.class}/${id}`)))
    return ['misleading', said]
  const isHalf = accepts.some(
    accepted => accepted.startsWith(`${found.class}/`) || found.causes.some(({ id }) => accepted.endsWith(`/${id}`)),
  )
  return [isHalf ? 'half' : 'wrong', said]
}

const rows: { readonly program: string; readonly fault: string; readonly verdict: Verdict; readonly said: string }[] =
  []
/** The worst counts. */
const WORST: readonly Verdict[] = ['misleading', 'wrong', 'half', 'right', 'nothing']

const skip = lacking(
  'ip',
  'stdbuf',
  'mpicc.openmpi',
  ...programs.map(({ process }) => process).filter(name => name !== 'mpi_check'),
)

for (const program of programs)
  test(program.name, { skip }, async t => {
    if (!canMakeNets(t)) return
    const check = compiled(t)
    for (const fault of faults.filter(one => fits(program, one)))
      await t.test(fault.name, async t => {
        const verdicts: (readonly [Verdict, string])[] = []
        for (const count of COUNTS)
          verdicts.push(judged(await ran(t, program, fault, count, check), fault, failingHosts(program, fault)))
        const verdict = WORST.find(one => verdicts.some(([found]) => found === one))!
        const said = verdicts.map(([found, text]) => `${found}: ${text}`).join('; ')
        t.diagnostic(said)
        rows.push({ program: program.name, fault: fault.name, verdict, said })
      })
  })

test('nine of ten are explained, and none misleads', { skip }, t => {
  const counted = rows.filter(({ verdict }) => verdict !== 'nothing')
  const of = (verdict: Verdict): number => counted.filter(row => row.verdict === verdict).length
  for (const { program, fault, verdict, said } of rows) t.diagnostic(`${program} | ${fault} | ${verdict} | ${said}`)
  t.diagnostic(`${counted.length}: ${WORST.map(verdict => `${of(verdict)} ${verdict}`).join(', ')}`)
  assert.equal(of('misleading'), 0)
  assert.ok(of('right') >= 0.9 * counted.length)
})
