/*
 * Reports of whole logs, as golden texts (UPDATE_GOLDEN=1 rewrites them), and of anything: random cuts and mixtures.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { LogAnalysis } from '../../../src/tools/logs/analysis.ts'
import { readers } from '../../../src/tools/logs/readers.ts'
import { Redactor } from '../../../src/tools/logs/redact.ts'
import { quietLine, type Report, reportLines, reportObjects, reportOf } from '../../../src/tools/logs/report.ts'
import { explainNumber, explainText } from '../../../src/tools/logs/words.ts'
import { fixture } from '../../paths.ts'
import { assertValid } from '../../project/docs/json-schema.ts'

const reportOn = (...logs: readonly (readonly [name: string, bytes: Uint8Array, host?: string])[]): Report => {
  const analysis = new LogAnalysis()
  for (const [name, bytes, host] of logs) {
    const log = analysis.begin(name, host)
    log.push(bytes)
    log.end()
  }
  return reportOf(analysis)
}
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const file = (name: string): readonly [string, Uint8Array] => [name, readFileSync(fixture('logs', name))]

/** The logs of each report. */
const reports: Readonly<Record<string, readonly string[]>> = {
  'nccl-one-peer': ['nccl-one-peer.log'],
  'ucx-first-request': ['ucx-first-request.log'],
  'nccl-decimal-81': ['nccl-decimal-81.log'],
  'nccl-socket': ['nccl-socket.log'],
  'libfabric-reject': ['libfabric-reject.log'],
  'mlx5-command': ['mlx5-command.log'],
  'efa-unreachable': ['efa-unreachable.log'],
  'flushes-only': ['flushes-only.log'],
  'two-hosts': ['two-hosts-job.log', 'two-hosts.log'],
  'modify-qp': ['modify-qp.log'],
  memlock: ['memlock.log'],
  nvme: ['nvme.log'],
}

for (const [name, logs] of Object.entries(reports))
  test(`the report of ${logs.join(' and ')}`, () => {
    const report = reportOn(...logs.map(file))
    const text = `${reportLines(report, 5).join('\n')}\n`
    const golden = fixture('logs', `${name}.txt`)
    if (process.env.UPDATE_GOLDEN) writeFileSync(golden, text)
    assert.equal(text, readFileSync(golden, 'utf8'))
    assert.equal(report.hasFailed, true)
    for (const object of reportObjects(report, 5)) assertValid('explain LOG', JSON.parse(JSON.stringify(object)))
  })

test('every log of the folder is in a report', () => {
  const used = Object.values(reports).flat()
  const logs = readdirSync(fixture('logs')).filter(name => name.endsWith('.log'))
  assert.deepEqual(logs.sort(), used.sort())
})

test('no failure: nothing in it, something else, consequences only', () => {
  for (const [text, expected] of [
    ['', /^No failure of RDMA stands in 1 log of 0 lines\./],
    ['GET / 200\nerror: timeout after 30 s\nsegfault\n', /^No failure of RDMA stands in 1 log of 3 lines\.$/],
    [
      '[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE\n',
      /has 1 watchdog timeout, which also follow/,
    ],
    ['node1:7:8 [0] NCCL INFO Using network IB\n', /^No failure/],
    [
      'mlx5_core 0000:3b:00.0: mlx5_cmd_out_err:808:(pid 88): ACCESS_REG(0x805) op_mod(0x1) failed, status bad parameter(0x3), syndrome (0x9a6171), err(-22)\n',
      /^No failure .* It has 1 line that may matter: a\.log:1: /,
    ],
  ] as const) {
    const report = reportOn(['a.log', bytesOf(text)])
    assert.match(report.summary.join(' '), expected)
    assert.equal(report.hasFailed, false)
    assert.match(quietLine(report), /^No failure/)
  }
})

test('it is said that it is not known which host failed first', () => {
  const line = (host: string): Uint8Array =>
    bytesOf(
      `2026-03-01T12:03:05Z ${host}:7:8 [0] x.cc:1 NCCL WARN NET/IB : Got completion from peer 10.0.0.7<1> with error 12, opcode 0, len 0, vendor err 129\n`,
    )
  const same = reportOn(['a', line('node1')], ['b', line('node2')])
  assert.match(same.summary.join(' '), /not known which failure came first: node1 at 12:03:05, node2 at 12:03:05\./)
  const later = reportOn(
    ['a', line('node1')],
    ['b', bytesOf(new TextDecoder().decode(line('node2')).replace('12:03:05', '12:03:09'))],
  )
  assert.doesNotMatch(later.summary.join(' '), /not known/)
})

test('of failures whose order is not known, one that others follow from is first', () => {
  const end = (own: number, far: number, failure: string): Uint8Array =>
    bytesOf(
      `  local address:  LID 0x0000, QPN 0x1, PSN 0x2, GID ::ffff:10.77.0.${own}
  remote address: LID 0x0000, QPN 0x3, PSN 0x4, GID ::ffff:10.77.0.${far}
Failed status ${failure} for wr_id 2\n`,
    )
  const report = reportOn(
    ['a', end(1, 2, 'transport retry counter exceeded (12)'), 'h1'],
    ['b', end(2, 1, 'local protection error (4)'), 'h2'],
  )
  assert.equal(report.chains.length, 1, 'the addresses that the programs print name the hosts')
  assert.match(report.summary.join(' '), /^On h2: the adapter could not access .* came first: h2, h1\./)
})

test('failures of a host minutes apart are of one chain if they share an adapter or a peer', () => {
  const line = (minute: number, device: string, peer: string): string =>
    `2026-03-01T12:0${minute}:05Z node1:7:8 [0] x.cc:1 NCCL WARN NET/IB: Got completion from peer ${peer}<1> with status=12 opcode=0 len=0 vendor err 129 (Send) localGid ::ffff:10.0.0.1 remoteGids::ffff:${peer} hca ${device}\n`
  const chains = (text: string): readonly number[] =>
    reportOn(['a', bytesOf(text)]).chains.map(({ chain }) => chain.failures.length)
  assert.deepEqual(chains(line(0, 'mlx5_0', '10.0.0.7') + line(5, 'mlx5_1', '10.0.1.8')), [1, 1])
  assert.deepEqual(chains(line(0, 'mlx5_0', '10.0.0.7') + line(5, 'mlx5_0', '10.0.0.8')), [2])
  assert.deepEqual(chains(line(0, 'mlx5_0', '10.0.0.7') + line(5, 'mlx5_1', '10.0.0.7')), [2])
  assert.deepEqual(chains(line(0, 'mlx5_0', '10.0.0.7') + line(0, 'mlx5_1', '10.0.1.8')), [2])
  const again = line(0, 'mlx5_0', '10.0.0.7') + line(3, 'mlx5_1', '10.0.1.8') + line(6, 'mlx5_0', '10.0.0.9')
  assert.deepEqual(chains(again), [2, 1])
})

test('clocks of hosts are compared by when communicators began', () => {
  const log = (host: string, hour: number, failsAt: string): Uint8Array =>
    bytesOf(
      [1, 2, 3]
        .map(
          n =>
            `2026-03-01T${hour}:00:0${n}Z ${host}:7:8 [0] NCCL INFO ncclCommInitRank comm 0x5 rank ${n} nranks 2 cudaDev 0 nvmlDev 0 busId 1 commId 0xfeed${n} - Init COMPLETE\n`,
        )
        .join('') +
        `2026-03-01T${hour}:${failsAt}Z ${host}:7:9 [0] x.cc:1 NCCL WARN NET/IB : Got completion from peer 10.0.0.7<1> with error 12, opcode 0, len 0, vendor err 129\n`,
    )
  const report = reportOn(['a', log('node1', 12, '20:00')], ['b', log('node2', 13, '10:00')])
  assert.equal(report.chains[0]!.chain.first.host, 'node2')
  assert.match(report.clockNote ?? '', /node2 by 3600 s/)
})

test('words and numbers', () => {
  const text = (lines: readonly string[] | undefined): string => (lines ?? []).join('\n')
  assert.match(text(explainNumber('0x81')), /vendor error 0x81 .*RETRY_EXC_ERR \(likely\)/)
  assert.match(text(explainNumber('81')), /0x51 .*GPU[\s\S]*If the program prints hexadecimal, this is 0x81/)
  assert.match(text(explainNumber('524')), /ENOTSUPP \(524\) of a call: a number of the kernel only/)
  assert.match(text(explainText('synd 0x15 vend 0x81')), /status 12, RETRY_EXC_ERR[\s\S]*vendor error 0x81/)
  assert.match(text(explainText('vendor err 222')), /vendor error 222 \(none\): no public meaning/)
  assert.match(text(explainText('ENOMEM ibv_reg_mr')), /ENOMEM \(12\) of ibv_reg_mr \(sure\): more memory/)
  assert.match(text(explainText('00008813 08006214 0000f6d2')), /a WRITE of QP 0x6214.*\n.*REM_ACCESS_ERR/)
  assert.match(text(explainText('-28')), /reject of the connection manager .*consumer defined/)
  assert.equal(explainText('hello world'), undefined)
})

test('redacted: names and addresses, each with one pseudonym', () => {
  const redactor = new Redactor(['node1.example.com', 'node7'])
  assert.equal(
    redactor.line(
      '12:03:05 node1:71 to node7 10.0.0.7<41> gid ::ffff:10.0.0.7 fe80::1 00:11:22:33:44:55 /home/anna/x mlx5_3:1 127.0.0.1 1.2.3.4.5',
    ),
    '12:03:05 host1:71 to host2 addr1<41> gid ::ffff:addr1 [addr2] mac1 /home/user/x mlx5_3:1 127.0.0.1 1.2.3.4.5',
  )
  assert.equal(redactor.line('node1.example.com and 10.0.0.7'), 'host1 and addr1')
})

const samples = readers.flatMap(({ shapes }) => shapes.flatMap(({ sample }) => sample))

test('random cuts and mixtures of lines end no report', () => {
  const piece = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...samples) },
    fc.tuple(fc.constantFrom(...samples), fc.nat(300), fc.nat(300)).map(([text, from, to]) => text.slice(from, to)),
    fc.string({ maxLength: 80, size: 'max' }),
    fc.constantFrom('\u0000\u0000', '\r', '\u001b[31m', '> ', '[1,2]<stderr>:', 'x'.repeat(70_000), '\uffff'),
  )
  const line = fc.array(piece, { maxLength: 4 }).map(parts => parts.join(''))
  fc.assert(
    fc.property(
      fc.array(line, { maxLength: 40, size: 'max' }),
      fc.array(fc.nat(20_000), { maxLength: 8 }),
      fc.nat(50),
      (lines, cuts, end) => {
        const all = bytesOf(lines.join('\n'))
        const bytes = all.subarray(0, Math.max(0, all.length - end))
        const whole = reportLines(reportOn(['a', bytes]), 5)
        // In any pieces, the report is the same.
        const analysis = new LogAnalysis()
        const log = analysis.begin('a')
        let at = 0
        for (const cut of [...cuts].sort((a, b) => a - b)) {
          log.push(bytes.subarray(at, cut))
          at = Math.min(cut, bytes.length)
        }
        log.push(bytes.subarray(at))
        log.end()
        assert.deepEqual(reportLines(reportOf(analysis), 5), whole)
      },
    ),
    { numRuns: 60 },
  )
})

test('a line of a megabyte, and many hosts and queue pairs, are bounded', () => {
  const many = Array.from(
    { length: 22_000 },
    (_, i) =>
      `node${i}:7:8 [0] x.cc:1 NCCL WARN NET/IB : Got completion from peer 10.${i >> 16}.${(i >> 8) & 255}.${i & 255}<1> with error 12, opcode 0, len 0, vendor err 129\n`,
  ).join('')
  const { analysis, chains } = reportOn(['a', bytesOf(`${'NET/IB '.repeat(150_000)}\n${many}`)])
  assert.ok(analysis.failures.length <= 20_001)
  assert.ok(analysis.folded > 1000)
  assert.ok(chains.length > 0)
})

test('causes are not judged by what says nothing of them', () => {
  const causes = (text: string): readonly string[] =>
    reportOn(['a', bytesOf(text)]).chains[0]!.causes.map(({ id, likelihood }) => `${likelihood} ${id}`)
  const toInit = '[Handshake] Failed to modify QP to INIT, check local context port num: Invalid argument [22]\n'
  assert.deepEqual(causes(toInit).slice(0, 2), ['likely port', 'unlikely gid-index'])
  // A DCI serves many peers.
  const dci = (queue: string): string =>
    `[node1:1:0:1] ib_mlx5_log.c:177  Transport retry count exceeded on mlx5_0:1/IB (synd 0x15 vend 0x81 hw_synd 0/0)
[node1:1:0:1] ib_mlx5_log.c:177  ${queue} QP 0xd16 wqe[6168]: SEND s-e [rqpn 0x17de rlid 1037] [va 0x7f len 577 lkey 0x1]\n`
  assert.equal(causes(dci('RC'))[0], 'possible peer-ended')
  assert.equal(causes(dci('DCI'))[0], 'possible path')
  assert.deepEqual(causes('node1:1:2 [0] misc/ibvwrap.cc:220 NCCL WARN Call to ibv_get_async_event failed\n'), [])
  assert.deepEqual(causes('cma event RDMA_CM_EVENT_ADDR_ERROR, error -19\n'), [
    'likely no-route',
    'unlikely no-listener',
    'unlikely firewall',
  ])
  // A server's first request may come long after its start.
  const server = `I0301 12:00:00.123456  42 rdma_context.cpp:286] RDMA device: mlx5_3, LID: 0, GID: (GID_Index 3) fe:80
E0301 12:30:00.123456  42 worker_pool.cpp:654] Worker: Process failed for slice (opcode: 1, source_addr: 0x7f01, length: 65536, dest_addr: 0x7f02, local_nic: mlx5_3, peer_nic: 10.0.0.7:12345@mlx5_3, dest_rkey: 7, retry_cnt: 0): transport retry counter exceeded\n`
  assert.equal(causes(server)[0], 'possible path')
  assert.equal(causes('ibgda.cpp:1889: NULL value cannot allocate mlx5dv_devx_uar\n').at(-1), 'unlikely memlock')
})

test('two clocks, an errno for a reason, and words of source code', () => {
  const first = (text: string): ReturnType<typeof reportOn>['analysis']['failures'][number] | undefined =>
    reportOn(['a', bytesOf(text)]).analysis.failures[0]
  const ucx =
    'Sun Oct  1 17:01:10 2017[1,7]<stderr>:[1506866470.744682] [node1:42 :0] dc_verbs.c:633  UCX  ERROR Send completion with error on qp 0x1: transport retry counter exceeded syndrome 0x81\n'
  assert.equal(first(ucx)?.seconds, Date.UTC(2017, 9, 1, 17, 1, 10) / 1000)
  const rejected = first('cma event RDMA_CM_EVENT_REJECTED, error -104\n')
  assert.deepEqual([rejected?.errno, rejected?.rejection], [104, undefined])
  for (const text of [
    "a.c:110:22: warning: unused variable 'IBV_WC_RETRY_EXC_ERR'\n",
    '| 12 | IBV_WC_RETRY_EXC_ERR | transport retry counter exceeded |\n',
    'mysqld: local length error in packet\n',
    'nvme nvme0: I/O 12 QID 3 timeout, completion polled\n',
  ])
    assert.equal(first(text), undefined, text)
})
