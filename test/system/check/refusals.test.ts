/*
 * `userdma check` on calls that libibverbs, its rxe provider and librdmacm refuse themselves
 * (tools/check/library-refusals.ts): each case of test/programs/check/refusals.c has its reason, with the function of
 * the case in the stack.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { refusals } from '../../../src/tools/check/library-refusals.ts'
import { cleanEnvironment, lacking, ownProgram, runUserdma, temporaryFolder, userdma } from '../programs.ts'
import { checkScript, type FindingJson } from './checking.ts'

/** By case of the program: the severity, and the text. */
const cases: Readonly<Record<string, readonly [severity: 'note' | 'warning', text: RegExp]>> = {
  rereg_flags: ['warning', /^ibv_rereg_mr on MR .* flags 0xc has unknown bits$/],
  rereg_range: ['warning', /^ibv_rereg_mr on MR .* addr is NULL$/],
  rereg_access: ['warning', /^ibv_rereg_mr on MR .* no IBV_REREG_MR_CHANGE_ACCESS$/],
  reg_implicit: ['warning', /^ibv_reg_mr(_iova2)? on PD 0: EINVAL: a region of the whole address space/],
  reg_dmabuf: ['note', /^ibv_reg_dmabuf_mr on PD 0: EOPNOTSUPP/],
  import_mr: ['note', /^ibv_import_mr .* no import of regions$/],
  import_pd: ['note', /^ibv_import_pd: .* no import of protection domains$/],
  import_dm: ['note', /^ibv_import_dm: .* no import of device memory$/],
  import_device: ['warning', /^ibv_import_device: EINVAL: the descriptor is not open/],
  qp_type: ['warning', /^ibv_create_qp on PD 0: EINVAL: qp_type 77 is no type/],
  qp_without_pd: ['warning', /^ibv_create_qp_ex: EINVAL: comp_mask has no IBV_QP_INIT_ATTR_PD/],
  qp_operations: ['note', /^ibv_create_qp_ex: EOPNOTSUPP: send_ops_flags 0x10 has operations/],
  qp_flags: ['note', /^ibv_create_qp_ex: EOPNOTSUPP: .* create_flags 0x2$/],
  qp_target: ['warning', /^ibv_create_qp_ex: EINVAL: a target of XRC needs its domain/],
  cq_fields: ['note', /^ibv_create_cq_ex: EOPNOTSUPP: .* wc_flags 0x10000000400,/],
  srq_without_pd: ['warning', /^ibv_create_srq_ex: EINVAL: comp_mask has no IBV_SRQ_INIT_ATTR_PD/],
  srq_xrc: ['warning', /^ibv_create_srq_ex: EINVAL: an SRQ of XRC/],
  xrcd: ['warning', /^ibv_open_xrcd: EINVAL: comp_mask lacks IBV_XRCD_INIT_ATTR_FD or/],
  open_qp: ['warning', /^ibv_open_qp: EINVAL: comp_mask lacks/],
  modify_mask: ['warning', /^ibv_modify_qp on QP .* attr_mask 0x4000001 has undefined bits$/],
  query_mask: ['warning', /^ibv_query_qp on QP .* attr_mask 0x4000000 has undefined bits$/],
  set_ece: ['note', /^ibv_set_ece on QP /],
  query_ece: ['note', /^ibv_query_ece on QP /],
  ah_without_grh: ['warning', /_ah_from_wc: EPROTONOSUPPORT: .* \(IP version 0\)/],
  ah_multicast: ['warning', /^ibv_init_ah_from_wc: EINVAL: the datagram was sent to a multicast group/],
  bind_family: ['warning', /^rdma_bind_addr on CM_ID \d+: EINVAL: sa_family of the address is 0;/],
  bind_null: ['warning', /^rdma_bind_addr .* the address is NULL;/],
  resolve_family: ['warning', /^rdma_resolve_addr .* sa_family of the address is 0;/],
  resolve_source: ['warning', /^rdma_resolve_addr .* sa_family of the source address is 0;/],
  qp_unbound: ['warning', /^rdma_create_qp on CM_ID \d+: EINVAL: the identifier has no device yet/],
  qp_other_context: ['warning', /^rdma_create_qp .* is of another context/],
  qp_twice: ['warning', /^rdma_create_qp .* has a queue pair already$/],
  qp_other_cq: ['warning', /^rdma_create_qp .* has another CQ/],
  cm_srq_type: ['warning', /^rdma_create_srq_ex .* no IBV_SRQ_INIT_ATTR_TYPE$/],
  connect_null: ['warning', /^rdma_connect .* conn_param is NULL/],
  connect_depth: ['warning', /^rdma_connect .* responder_resources 254 or initiator_depth 254/],
  get_request: ['warning', /^rdma_get_request .* works only without one$/],
  establish: ['warning', /^rdma_establish .* the queue pair is of rdma_create_qp/],
  disconnect: ['note', /^rdma_disconnect .* has no device/],
  join_family: ['warning', /^rdma_join_multicast .* sa_family/],
  join_mask: ['warning', /^rdma_join_multicast_ex .* comp_mask lacks/],
  join_flags: ['warning', /^rdma_join_multicast_ex .* join_flags is 7;/],
  join_unknown: ['warning', /^rdma_join_multicast_ex .* comp_mask 0x40 has unknown bits$/],
  leave: ['note', /^rdma_leave_multicast .* EADDRNOTAVAIL: .* no member/],
  event_null: ['warning', /^rdma_get_cm_event: EINVAL: `event` is NULL$/],
  ack_null: ['warning', /^rdma_ack_cm_event: EINVAL: the event is NULL$/],
  migrate_null: ['warning', /^rdma_migrate_id .* synchronous already/],
  local_ece: ['warning', /^rdma_set_local_ece .* vendor_id is 0x0/],
  remote_ece: ['warning', /^rdma_get_remote_ece .* has a queue pair/],
  addrinfo: ['warning', /^rdma_getaddrinfo: EINVAL: node, service and hints are all NULL$/],
}

/** Functions that no case calls: with rxe they fail in no other way than another function, or not at all. */
const withoutCase = [
  'ibv_destroy_comp_channel', // docs/findings/destroy-busy--channel.c
  'ibv_query_gid_ex', // the daemon refuses the call
  'ibv_reg_mr_iova',
  'ibv_reg_mr_iova2',
  'ibv_create_ah_from_wc',
  'rdma_create_event_channel',
  'rdma_create_qp_ex',
  'rdma_create_srq',
  'rdma_accept',
  // of newer versions of librdmacm
  'rdma_write_cm_event',
  'rdma_resolve_addrinfo',
  'rdma_query_addrinfo',
]

const assertCases = (found: readonly FindingJson[]): void => {
  for (const [name, [severity, text]] of Object.entries(cases)) {
    const own = found.filter(({ moments: [moment] }) => moment?.frames.some(frame => frame.function === name))
    const texts = own.map(one => `${one.id} ${one.severity}: ${one.text}`).join('\n')
    assert.ok(
      own.some(one => one.id === 'refused-call' && one.severity === severity && text.test(one.text)),
      `${name}: ${texts || 'nothing'}`,
    )
  }
  // No call is reported twice, and there is nothing else.
  const others = found.filter(({ id }) => id !== 'refused-call').map(({ id }) => id)
  assert.deepEqual([...new Set(others)], ['cq-too-small'])
  assert.equal(found.length - others.length, Object.keys(cases).length)
}

describe('userdma check on calls that libraries refuse', { skip: lacking(ownProgram('refusals')) }, () => {
  it('finds each, with its reason and its function', async t => {
    const { found, stdout, stderr } = await checkScript(t, ownProgram('refusals'))
    assert.deepEqual(
      stdout.split('\n').flatMap(line => line.split(': ').slice(0, 1).filter(Boolean)),
      Object.keys(cases),
      stderr,
    )
    assertCases(found)
  })

  it('finds each with --host', async t => {
    const output = join(temporaryFolder(t), 'findings')
    const observed = [userdma, 'check', '--host', '--notes', '--json', '-o', output, '--', ownProgram('refusals')]
    await runUserdma(t, ['run', '--private', '--', ...observed], { env: cleanEnvironment() })
    const lines = readFileSync(output, 'utf8').split('\n').filter(Boolean)
    assertCases(lines.map(line => JSON.parse(line) as FindingJson).filter(one => 'id' in one))
  })

  it('has a case for each function', () => {
    const texts = Object.values(cases).map(([, text]) => text.source)
    const missing = Object.keys(refusals).filter(name => !texts.some(text => new RegExp(`^\\^${name}\\b`).test(text)))
    assert.deepEqual(missing.sort(), [...withoutCase].sort())
  })
})
