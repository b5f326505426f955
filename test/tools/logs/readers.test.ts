/*
 * Readers of logs: each shape reads its sample, after every prefix; the page of shapes and values is current.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Failure, LogAnalysis } from '../../../src/tools/logs/analysis.ts'
import { knownCommandSyndromes } from '../../../src/tools/logs/meanings/firmware.ts'
import { familyName, vendorRows } from '../../../src/tools/logs/meanings/vendor-errors.ts'
import { readers } from '../../../src/tools/logs/readers.ts'
import { reportObjects, reportOf } from '../../../src/tools/logs/report.ts'
import type { Shape } from '../../../src/tools/logs/shape.ts'
import { repoRoot } from '../../paths.ts'
import { assertValid, readReference } from '../../project/docs/json-schema.ts'

const read = (text: string): LogAnalysis => {
  const analysis = new LogAnalysis()
  const log = analysis.begin('log')
  log.push(new TextEncoder().encode(text))
  log.end()
  return analysis
}
const failureOf = ({ failures }: LogAnalysis, { id }: Shape): Failure | undefined =>
  failures.find(({ shape }) => shape.id === id)

const shapes = readers.flatMap(reader => reader.shapes.map(shape => ({ reader, shape })))

describe('each shape reads its sample', () => {
  for (const { shape } of shapes)
    test(shape.id, () => {
      const analysis = read(`${shape.sample.join('\n')}\n`)
      if (shape.role === 'fact') {
        assert.deepEqual(analysis.failures, [])
        assert.ok(analysis.facts.length + analysis.hosts.size > 0)
        return
      }
      const failure = failureOf(analysis, shape)
      assert.ok(failure, analysis.failures.map(one => one.shape.id).join())
      assert.deepEqual(
        Object.fromEntries(Object.keys(shape.gives).map(name => [name, failure.fields[name as never]])),
        shape.gives,
      )
      assert.equal(analysis.failures.length, 1, 'one line is one failure')
      for (const object of reportObjects(reportOf(analysis), 1))
        assertValid('explain LOG', JSON.parse(JSON.stringify(object)))
    })
})

/** A line as it comes through schedulers, containers, journals and pages; the host that it then has. */
const wraps: readonly (readonly [before: string, after?: string, host?: string])[] = [
  ['2026-03-01T12:03:05.123Z '],
  ['[2026-03-01 12:03:05,123] '],
  ['2026-03-01T12:03:05.123456789Z stderr F '],
  ['Mar  1 12:03:05 node9 kernel: ', '', 'node9'],
  ['2026-03-01T12:03:05+0100 node9 kernel: ', '', 'node9'],
  ['Mar 01 12:03:05 node9 app[42]: ', '', 'node9'],
  ['[Sun Mar  1 12:03:05 2026] '],
  ['[12345.678901] '],
  ['<3>[12345.678901] '],
  ['[1,3]<stderr>:'],
  ['3: '],
  ['[pod/trainer-0/main] ', '', 'trainer-0'],
  ['(Worker pid=42, ip=10.0.0.9) ', '', '10.0.0.9'],
  ['trainer-0  | ', '', 'trainer-0'],
  ['[rank3]: '],
  ['node9: [12345.678901] ', '', 'node9'],
  ['> > '],
  ['`'],
  ['\u001b[31m', '\u001b[0m'],
  ['Some output of another program '],
  ['[core.py:390] '],
  ['RuntimeError: [1] '],
  ['Total | '],
  ['Started app[42]: '],
  ['ERROR    | '],
  ['E0301 12:03:05.123456  4242 main.cpp:12] '],
]

test('prefixes are stripped, and say the host', () => {
  const line = ' Failed status 12: wr_id 0 syndrom 0x81'
  for (const [before, after = '', host] of wraps) {
    const [failure] = read(`${before}${line.trim()}${after}\n`).failures
    assert.equal(failure?.status, 'RETRY_EXC_ERR', before)
    assert.equal(failure.vendor, 0x81, before)
    assert.equal(failure.host, host, before)
  }
})

test('damage and redactions are read over', () => {
  const { failures } = read(
    [
      'node1:71:89 [3] [net_ib.cc:1295](http://net_ib.cc:1295/) NCCL WARN NET/IB : Got completion from peer x.x.x.x&lt;xx&gt; with error 12, opcode xx, len 0, vendor err 129 (Send)',
      '[1772366585.123456] [xxx:4242 :0]   ib_mlx5_log.c:181  UCX  ERROR Transport retry count exceeded on mlx_x:1/RoCE (synd 0x15 vend 0x81 hw_synd 0/0)',
      'two programs at once: node2:71:89 [0] x.cc:1 NCCL WARN NET/IB : Got completion with error 5, opcode 0, len 0, vendor err 249node3:71:89 [0] x.cc:1 NCCL WARN NET/IB : Got completion with error 4, opcode 0, len 0, vendor err 81',
    ].join('\r\n'),
  )
  assert.deepEqual(
    failures.map(({ status, host, peer }) => [status, host, peer]),
    [
      ['RETRY_EXC_ERR', 'node1', undefined],
      ['RETRY_EXC_ERR', undefined, undefined],
      ['WR_FLUSH_ERR', 'node2', undefined],
      ['LOC_PROT_ERR', 'node3', undefined],
    ],
  )
})

test('normal operation has no failure', () => {
  const lines = [
    'I0301 12:00:00.123456  4242 rdma_helper.cpp:490] RDMA GID Index: 3',
    'W0301 12:00:00.123456  4242 rdma_helper.cpp:262] rdma async event: communication established',
    '2026-03-01T12:00:00.123+0000 7f01  1 RDMAStack handle_tx_event sending of the disconnect msg completed',
    '2026-03-01T12:00:00.123+0000 7f01  1 RDMAStack handle_async_event ibv_get_async_event: dev=0x55 evt: port active',
    'W0301 12:00:00.123456 42 libfabric_rail.cpp:559] fi_setopt FI_OPT_EFA_RNR_RETRY failed for rail 3: Function not implemented - continuing with default',
    'WARNING: destroy() was not called before DeepEP buffer destruction, which can leak resources.',
    'DeepEP initialized with NCCL version: 2.30.4 (loaded library)',
    '[PG ID 0 PG GUID 0(default_pg) Rank 5] ProcessGroupNCCL initialization options: size: 8, global rank: 5, TIMEOUT(ms): 600000',
    '[ 42.123456] infiniband rxe0: qp#17 rxe_qp_from_attr: state -> RTR',
    '[ 42.123456] [qedr_affiliated_event:715(qedr0)]QP event 2 on handle 00000000f00d',
    '[ 42.123456] svcrdma: reducing receive depth to 128',
    "[ 42.123456] rpcrdma: connection to 10.0.0.7:20049 on mlx5_0, memreg 'frwr', 128 credits, 16 responders",
    '[ 42.123456] ksmbd: smb_direct: disconnected',
    '[ 42.123456] CIFS: VFS: RDMA transport re-established',
    '[ 42.123456] CIFS: VFS: smbd_conn_upcall:231 connected event=established',
    'mlx5_net: New debug dump in file /var/log/dpdk_mlx5_port_0_txq_0_index_0_1',
    'my-program: got event IBV_EVENT_PORT_ACTIVE',
    'libfabric:verbs:fabric:fi_ibv_create_ep():221<info> rdma_create_ep: No such device(19)',
    '[1772366585.123456] [node1:4242 :0] ib_md.c:300  UCX  DEBUG ibv_reg_mr(address=0x7f01, length=4096, access=0xf) failed: Bad address',
    'W0301 12:00:00.123456  4242 worker_pool.cpp:1014] Worker: Received context async event port active for context mlx5_3',
  ]
  for (const line of lines)
    assert.deepEqual(
      read(`${line}\n`).failures.map(({ shape }) => shape.id),
      [],
      line,
    )
})

test('no form begins with an endless repetition, whose cost would be the square of the line', () => {
  const endless = /^(?:\(\?(?:<\w+>|:))*(?:\[[^\]]*\]|\\w|\\S|\.)[+*]/
  assert.deepEqual(
    shapes.filter(({ shape }) => endless.test(shape.form.source)).map(({ shape }) => shape.id),
    [],
  )
  assert.match('(?<device>[\\w.-]+): x', endless)
})

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')

test('docs/reference/log-lines.md has all shapes and values', () => {
  const rows = shapes.map(
    ({ reader, shape }) =>
      `| ${reader.name} | \`${shape.id}\` | ${shape.role}${shape.kind === undefined ? '' : `, ${shape.kind}`} | ${cell(shape.source)} |`,
  )
  const values = vendorRows().map(
    ({ family, code, row }) =>
      `| ${familyName(family)} | 0x${code.toString(16)} | ${(row.statuses ?? []).map(name => `\`${name}\``).join(' ')} | ${cell(row.text)} | ${row.certainty} | ${cell(row.source)} |`,
  )
  const syndromes = knownCommandSyndromes.map(
    ([key, [text, certainty, source]]) => `| \`${key}\` | ${cell(text)} | ${certainty} | ${source} |`,
  )
  const page = `# Lines of logs

What \`userdma explain\` reads in logs ([how](../how-to/logs.md)). A shape counts if the line of its source was read; those
without are marked *unverified*. \`npm run docs\` writes this page from \`src/tools/logs/\`.

## Shapes

| software | shape | what it is | source |
|---|---|---|---|
${rows.join('\n')}

## Vendor errors

*sure*: the source of the driver or library says it. *likely*: many public reports agree, of programs whose fault was found.
*guess*: a few reports. Other values have no public meaning, and nothing is concluded from them.

| adapter | vendor_err | with | meaning | how sure | source |
|---|---|---|---|---|---|
${values.join('\n')}

## Syndromes of commands of mlx5

Syndromes have no public meaning, except those of reports. The number counts for its command only.

| command and syndrome | meaning | how sure | source |
|---|---|---|---|
${syndromes.join('\n')}
`
  if (process.env.UPDATE_GOLDEN) writeFileSync(join(repoRoot, 'docs', 'reference', 'log-lines.md'), page)
  assert.equal(readReference('log-lines.md'), page, '`npm run docs` regenerates it')
})
