/*
 * Refusals in the words of a program in C: sentences as core and drivers write them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { qpAttributes } from '../../../src/spec/classes/qp/qp.ts'
import { checkTransition } from '../../../src/spec/qp-states.ts'
import { adviceForRefusal, inC } from '../../../src/tools/check/c-words.ts'

test('functions, members, masks and constants are those of libibverbs', () => {
  for (const [reason, expected] of [
    [
      'rc_qp.modify (MODIFY_QP): attribute pathMtu: 0 is not a value of mtu (1 MTU_256, 2 MTU_512, 3 MTU_1024)',
      'ibv_modify_qp: path_mtu: 0 is not a value of enum ibv_mtu (1 IBV_MTU_256, 2 IBV_MTU_512, 3 IBV_MTU_1024)',
    ],
    [
      'rc_qp.modify: attribute address: isGlobal is 0: a RoCE path needs a global route',
      'ibv_modify_qp: ah_attr.is_global is 0: a RoCE path needs a global route',
    ],
    [
      'ah.create: attribute address: port 9: the device has port 1',
      'ibv_create_ah: attr.port_num 9: the device has port 1',
    ],
    [
      'rc_qp.modify: attribute address: GID index 1 and the destination GID are not both IPv4 or both IPv6',
      'ibv_modify_qp: ah_attr: GID index 1 and the destination GID are not both IPv4 or both IPv6',
    ],
    ['uc_qp.modify: attribute port: 5 is not in 1 to 1', 'ibv_modify_qp: port_num: 5 is not in 1 to 1'],
    [
      'rc_qp.modify: attribute maxDestRdAtomic: 255 is not in 0 to 128',
      'ibv_modify_qp: max_dest_rd_atomic: 255 is not in 0 to 128',
    ],
    [
      'ud_qp.create: attribute cap.maxSendSge: 33 is not in 0 to 32',
      'ibv_create_qp: cap.max_send_sge: 33 is not in 0 to 32',
    ],
    ['srq.modify: attribute limit: 100 is above 15', 'ibv_modify_srq: srq_limit: 100 is above 15'],
    [
      "cq.modify: attribute cqe: 9 is above 8, the device's max_cqe",
      "ibv_resize_cq: cqe: 9 is above 8, the device's max_cqe",
    ],
    [
      'mr.create: access 0x2 has remote write or atomic without LOCAL_WRITE: add LOCAL_WRITE',
      'ibv_reg_mr: access 0x2 has remote write or atomic without IBV_ACCESS_LOCAL_WRITE: add IBV_ACCESS_LOCAL_WRITE',
    ],
    [
      'mw.create (ALLOC_MW): attribute type: 7 is not a value of mw_type (1 TYPE_1, 2 TYPE_2)',
      'ibv_alloc_mw: type: 7 is not a value of enum ibv_mw_type (1 IBV_MW_TYPE_1, 2 IBV_MW_TYPE_2)',
    ],
    [
      'attribute mask: bits 0x40 (qkey) are of attributes that rc_qp lacks',
      'ibv_modify_qp: attr_mask: bits 0x40 (IBV_QP_QKEY) are of attributes that rc_qp lacks',
    ],
    // No function of libibverbs: as it is.
    [
      'cm_id.resolveAddress: no device of this network has the address',
      'cm_id.resolveAddress: no device of this network has the address',
    ],
    ['GID index 77 of port 1 is empty', 'GID index 77 of port 1 is empty'],
  ] as const)
    assert.equal(inC(reason), expected)
})

test('attributes of a transition are bits of attr_mask', () => {
  const missing = checkTransition('RC', 0, 1, ['state', 'pkeyIndex'])
  assert.equal(
    inC(`rc_qp.modify: ${missing}`),
    'ibv_modify_qp: RESET to INIT of RC queue pairs needs IBV_QP_PORT, IBV_QP_ACCESS_FLAGS as well',
  )
  const extra = inC(
    `rc_qp.modify: ${checkTransition('RC', 0, 1, ['state', 'pkeyIndex', 'port', 'accessFlags', 'rqPsn'])}`,
  )
  assert.match(extra, /does not take IBV_QP_RQ_PSN; it takes IBV_QP_/)
  assert.doesNotMatch(extra, /[a-z][A-Z]/)
})

test('no attribute of a queue pair keeps its name of the schema', () => {
  for (const name of Object.keys(qpAttributes)) {
    const sentence = inC(`rc_qp.modify: attribute ${name}: 300 is not in 0 to 255`)
    assert.doesNotMatch(sentence, /[a-z][A-Z]/, sentence)
    assert.match(sentence, /^ibv_modify_qp: [a-z_]+: 300 /)
  }
})

test('the advice says what to change, where the sentence says it', () => {
  for (const [reason, advice] of [
    ['rc_qp.modify: attribute pathMtu: 0 is not a value of mtu (1 MTU_256)', /for 1024 bytes give IBV_MTU_1024/],
    ['rc_qp.modify: attribute pathMtu: 9 is not a value of mtu (1 MTU_256)', /use one of the constants/],
    ['ah.create: attribute address: isGlobal is 0: a RoCE path needs a global route', /set is_global to 1/],
    ['GID index 77 of port 1 is empty', /ibv_devinfo -v/],
    ['rc_qp.modify: RESET to INIT of RC queue pairs needs accessFlags as well', /add the bits to attr_mask/],
    [
      'rc_qp.modify: RC queue pairs cannot go from RESET to RTS; from RESET they can go to INIT',
      /INIT, RTR and RTS in this order/,
    ],
    ["srq.create: attribute maxWr: 9 is above 8, the device's max_srq_wr", /ask ibv_query_device/],
    ['rc_qp.modify: attribute timeout: 40 is above 31', /a value in this range/],
  ] as const)
    assert.match(adviceForRefusal(inC(reason)) ?? '', advice, reason)
  assert.equal(adviceForRefusal('some other reason'), undefined)
})
