/*
 * The table of calls that libraries refuse themselves, and docs/reference/refused-calls.md (UPDATE_GOLDEN=1 rewrites
 * it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { refusalReason, refusals } from '../../../src/tools/check/library-refusals.ts'
import { repoRoot } from '../../paths.ts'

test('reasons and advice are sentences without a full stop, and a function has at most 4 facts', () => {
  for (const [name, { facts, reasons, source }] of Object.entries(refusals)) {
    assert.ok(facts.length <= 4, name)
    assert.match(source, /^lib(ibverbs|rdmacm)\/\w+\.c/, name)
    const zeros = Object.fromEntries(facts.map(fact => [fact, 0]))
    for (const { reason, advice } of reasons) {
      const text = typeof reason === 'string' ? reason : reason(zeros)
      assert.doesNotMatch(text, /[.!]$|is undefined|NaN/, name)
      assert.doesNotMatch(advice, /[.!]$/, name)
    }
  }
})

test('of the reasons with an errno, only the last applies always, so that each can be found', () => {
  for (const [name, { reasons }] of Object.entries(refusals))
    for (const [i, { errno, when }] of reasons.entries())
      if (when === undefined) assert.ok(!reasons.slice(i + 1).some(later => later.errno === errno), `${name} ${errno}`)
})

const { EINVAL, EOPNOTSUPP, EBUSY, EADDRNOTAVAIL, ENODEV, ECONNREFUSED } = Errno
for (const [name, errno, facts, expected] of [
  ['ibv_rereg_mr', EINVAL, [8n], /^flags 0x8 has unknown bits$/],
  ['ibv_rereg_mr', EINVAL, [1n, 0n, 4096n], /addr is NULL$/],
  ['ibv_rereg_mr', EINVAL, [1n, 4096n, 0n], /length is 0$/],
  ['ibv_rereg_mr', EINVAL, [2n, 0n, 0n, 1n], /^access is 0x1, and flags has no IBV_REREG_MR_CHANGE_ACCESS$/],
  ['ibv_rereg_mr', EINVAL, [2n], /not made by ibv_reg_mr/],
  ['ibv_create_qp', EINVAL, [77n, 1n], /^qp_type 77 is no type/],
  ['ibv_create_qp_ex', EINVAL, [2n, 0n], /no IBV_QP_INIT_ATTR_PD/],
  ['ibv_create_qp_ex', EINVAL, [10n, 1n], /target of XRC/],
  ['ibv_create_qp_ex', EOPNOTSUPP, [4n, 65n, 0n, 1n], /^send_ops_flags 0x1 has operations/],
  ['ibv_create_srq_ex', EINVAL, [1n], /no IBV_SRQ_INIT_ATTR_PD/],
  ['ibv_create_srq_ex', EINVAL, [3n, 1n], /SRQ of XRC/],
  ['rdma_create_qp', EINVAL, [1n, 1n], /has a queue pair already/],
  ['rdma_create_qp', EINVAL, [0n, 0n], /has no device yet/],
  ['rdma_create_qp', EINVAL, [0n, 1n, 1n], /another context/],
  ['rdma_create_qp', EINVAL, [0n, 1n, 0n, 1n], /another CQ/],
  ['rdma_create_qp', EINVAL, [0n, 1n], undefined],
  ['rdma_connect', EINVAL, [0n, 0n], /conn_param is NULL/],
  ['rdma_connect', EINVAL, [1n, 1n, 200n, 1n], /^responder_resources 200 or initiator_depth 1 is more/],
  ['rdma_connect', ECONNREFUSED, [1n, 1n], undefined],
  ['rdma_bind_addr', EINVAL, [0n], /^sa_family of the address is 0;/],
  ['rdma_bind_addr', EINVAL, [0x10000n], /^the address is NULL;/],
  ['rdma_bind_addr', EINVAL, [2n], undefined],
  ['rdma_resolve_addr', EINVAL, [2n, 0n], /source address is 0/],
  ['rdma_leave_multicast', EADDRNOTAVAIL, [2n], /no member of a group/],
  ['ibv_modify_qp', EOPNOTSUPP, [1n << 25n], /no IBV_QP_RATE_LIMIT$/],
  ['ibv_modify_qp', EOPNOTSUPP, [1n << 31n], /^attr_mask 0x80000000 has undefined bits$/],
  ['ibv_modify_qp', EOPNOTSUPP, [1n], undefined],
  ['rdma_create_event_channel', ENODEV, [], /no RDMA device/],
  ['ibv_destroy_comp_channel', EBUSY, [], /a CQ uses the channel/],
  ['no_such_function', EINVAL, [], undefined],
  ['constructor', EINVAL, [], undefined],
] as const)
  test(`${name} with errno ${errno} and facts ${facts.join(', ')}: ${expected ?? 'no reason'}`, () => {
    const { reason } = refusalReason(name, errno, facts)
    if (expected === undefined) assert.equal(reason, undefined)
    else assert.match(reason ?? '', expected)
  })

const page = (): string => {
  const rows = Object.entries(refusals).flatMap(([name, { facts, reasons, source }]) => {
    // A fact is shown by its name.
    const names = facts.map(fact => [fact, { toString: () => `*${fact}*` } as unknown as number])
    return reasons.map(({ errno, reason, advice, severity = 'warning' }) => {
      const text = typeof reason === 'string' ? reason : reason(Object.fromEntries(names))
      return `| \`${name}\` | ${errno} | ${text.replaceAll('0x*', '*')} | ${advice} | ${severity} | ${source} |`
    })
  })
  return `${[
    '# Refused calls',
    '',
    'Calls that libibverbs, the rxe provider or librdmacm refuse themselves, without a call of the kernel. `userdma check`',
    'reports them as [`refused-call`](../findings.md#refused-call) with these reasons, [`destroy-busy`](../findings.md#destroy-busy) for a',
    'channel; a note is printed with `--notes`. From reading rdma-core 44.0 and 64.0. The first reason of an errno that',
    'applies counts. EAGAIN, EINTR and the like are not reported.',
    '',
    '| function | errno | reason | what to do | severity | source |',
    '|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')}\n`
}

test('docs/reference/refused-calls.md is the table', () => {
  const path = join(repoRoot, 'docs', 'reference', 'refused-calls.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
