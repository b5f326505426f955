/*
 * Refusals in the words of a program in C: sentences as core and drivers write them.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { qpAttributes } from '../../../src/spec/classes/qp/qp.ts'
import { type CallError, callError } from '../../../src/spec/errno.ts'
import { checkTransition } from '../../../src/spec/qp-states.ts'
import { because, coded, listOf, outOfRange, the } from '../../../src/spec/reason.ts'
import { adviceForRefusal, inC } from '../../../src/tools/check/c-words.ts'

const { EINVAL } = callError
const inWords = ({ reason }: CallError): string => inC(reason)

test('functions, members, masks and constants are those of libibverbs', () => {
  const mtus = [1, 2].map(n => because`${n} ${the.constant('mtu', ['', 'MTU_256', 'MTU_512'][n])}`)
  const right = the.constant('access_flags', 'LOCAL_WRITE')
  for (const [error, expected] of [
    [
      EINVAL`${the.method('rc_qp.modify', 'MODIFY_QP')}: ${the.attribute('pathMtu')}: 0 is not a value of ${the.enumeration('mtu')} (${listOf(mtus)})`,
      'ibv_modify_qp: path_mtu: 0 is not a value of enum ibv_mtu (1 IBV_MTU_256, 2 IBV_MTU_512)',
    ],
    [
      EINVAL`${the.method('rc_qp.modify')}: ${the.addressField('isGlobal')} is 0`,
      'ibv_modify_qp: ah_attr.is_global is 0',
    ],
    [EINVAL`${the.method('ah.create')}: ${the.addressField('port')} 9: no`, 'ibv_create_ah: attr.port_num 9: no'],
    [EINVAL`${the.method('rc_qp.modify')}: ${the.attribute('address')}: no`, 'ibv_modify_qp: ah_attr: no'],
    [EINVAL`${the.method('uc_qp.modify')}: ${the.attribute('port')}: 5`, 'ibv_modify_qp: port_num: 5'],
    [
      EINVAL`${the.method('ud_qp.create')}: ${the.attribute('cap.maxSendSge')}: 33`,
      'ibv_create_qp: cap.max_send_sge: 33',
    ],
    [EINVAL`${the.method('srq.modify')}: ${the.attribute('limit')}: 100`, 'ibv_modify_srq: srq_limit: 100'],
    [EINVAL`${the.method('mr.create')}: add ${right}`, 'ibv_reg_mr: add IBV_ACCESS_LOCAL_WRITE'],
    [
      EINVAL`${the.method('mw.create', 'ALLOC_MW')}: ${the.attribute('type')}: 7 is not ${the.constant('mw_type', 'TYPE_1')}`,
      'ibv_alloc_mw: type: 7 is not IBV_MW_TYPE_1',
    ],
    [EINVAL`${the.mask()}: bits 0x40 (${the.attributes('qkey')})`, 'ibv_modify_qp: attr_mask: bits 0x40 (IBV_QP_QKEY)'],
    // No function of libibverbs: as it is.
    [EINVAL`${the.method('cm_id.bind')}: ${the.attribute('address')}: no`, 'cm_id.bind: attribute address: no'],
    [EINVAL`GID index 77 of port 1 is empty`, 'GID index 77 of port 1 is empty'],
  ] as const)
    assert.equal(inWords(error), expected)
})

test('attributes of a transition are bits of attr_mask', () => {
  const refusedFor = (attributes: readonly string[]): string =>
    inWords(EINVAL`${the.method('rc_qp.modify')}: ${checkTransition('RC', 0, 1, attributes)}`)
  assert.equal(
    refusedFor(['state', 'pkeyIndex']),
    'ibv_modify_qp: RESET to INIT of RC queue pairs needs IBV_QP_PORT, IBV_QP_ACCESS_FLAGS as well',
  )
  const extra = refusedFor(['state', 'pkeyIndex', 'port', 'accessFlags', 'rqPsn'])
  assert.match(extra, /does not take IBV_QP_RQ_PSN; it takes IBV_QP_/)
  assert.doesNotMatch(extra, /[a-z][A-Z]/)
})

test('no attribute of a queue pair keeps its name of the schema', () => {
  for (const name of Object.keys(qpAttributes)) {
    const sentence = inC(outOfRange('rc_qp.modify', name, 300, 0, 255))
    assert.doesNotMatch(sentence, /[a-z][A-Z]/, sentence)
    assert.match(sentence, /^ibv_modify_qp: [a-z_]+: 300 /)
  }
})

test('the advice says what to change, by code and attribute', () => {
  const modify = the.method('rc_qp.modify')
  for (const [reason, advice] of [
    [because`${modify}: ${the.attribute('pathMtu')}: ${coded('not-in-enum')`${0} is none`}`, /for 1024 bytes give/],
    [
      because`${modify}: ${the.attribute('pathMtu')}: ${coded('not-in-enum')`${9} is none`}`,
      /use one of the constants/,
    ],
    [
      because`${modify}: ${the.attribute('pathMtu')}: ${coded('out-of-range')`${5} is not`}`,
      /active_mtu of both ports/,
    ],
    [coded('not-global')`${the.method('ah.create')}: ${the.addressField('isGlobal')} is 0`, /set is_global to 1/],
    [coded('gid-empty')`GID index 77 of port 1 is empty`, /ibv_devinfo -v/],
    [because`${modify}: ${checkTransition('RC', 0, 1, ['state'])}`, /add the bits to attr_mask/],
    [because`${modify}: ${checkTransition('RC', 0, 3, ['state'])}`, /INIT, RTR and RTS in this order/],
    [coded('above-device-limit')`${the.method('srq.create')}: ${the.attribute('maxWr')}: 9`, /ask ibv_query_device/],
    [outOfRange('rc_qp.create', 'cap.maxSendWr', 9, 0, 8), /ask ibv_query_device/],
    [outOfRange('rc_qp.modify', 'timeout', 40, 0, 31), /a value in this range/],
    [outOfRange('rc_qp.modify', 'port', 4, 1, 1), /phys_port_cnt/],
  ] as const)
    assert.match(adviceForRefusal(reason) ?? '', advice, reason.text())
  assert.equal(adviceForRefusal(because`some other reason`), undefined)
})
