/*
 * The QP state table against the legal transitions of the specification, and the messages for illegal ones.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { RcQp } from '../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../src/spec/classes/qp/ud_qp.ts'
import { QpState } from '../../src/spec/enums.ts'
import { Links } from '../../src/spec/links.ts'
import {
  checkTransition,
  isTransition,
  type QpStateName,
  type QpTypeName,
  qpTransitions,
  type Transition,
  transitionOf,
} from '../../src/spec/qp-states.ts'
import type { ObjectClass } from '../../src/spec/schema/schema.ts'

const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values
const states = Object.keys(QpState.values) as QpStateName[]

describe('the QP state table', () => {
  const types = Object.keys(qpTransitions) as QpTypeName[]
  const classOf: Partial<Record<QpTypeName, ObjectClass>> = { RC: RcQp, UC: UcQp, UD: UdQp }

  it('has exactly the legal transitions, for all types', () => {
    const end = ['RESET', 'ERR']
    const dynamic: Partial<Record<QpTypeName, Partial<Record<QpStateName, string[]>>>> = {
      DCI: { RTS: ['RESET', 'RTS', 'ERR'], SQD: end, SQE: end },
      DCT: { INIT: ['RESET', 'RTR', 'ERR'], RTR: end, RTS: end, SQD: end, SQE: end },
    }
    for (const type of types) {
      const legal = states.map(from => [from, states.filter(to => transitionOf(type, from, to) !== undefined)])
      const expected = {
        RESET: ['RESET', 'INIT', 'ERR'],
        INIT: ['RESET', 'INIT', 'RTR', 'ERR'],
        RTR: ['RESET', 'RTS', 'ERR'],
        RTS: ['RESET', 'RTS', 'SQD', 'ERR'],
        SQD: ['RESET', 'RTS', 'SQD', 'ERR'],
        SQE: ['RESET', 'RTS', 'ERR'],
        ERR: ['RESET', 'ERR'],
      }
      assert.deepEqual(Object.fromEntries(legal), { ...expected, ...dynamic[type] }, type)
    }
  })
  it('names only existing attributes of the class, for RC, UC and UD', () => {
    for (const [type, cls] of Object.entries(classOf)) {
      const known = Object.keys(cls.methods.modify.in)
      for (const [from, row] of Object.entries(qpTransitions[type as QpTypeName]))
        for (const [to, { required, optional }] of Object.entries(row as Record<string, Transition>))
          for (const name of [...required, ...optional])
            assert.ok(known.includes(name), `${type} ${from} to ${to}: ${name}`)
    }
  })
  it('requires the attributes of the QP type', () => {
    const required = (type: QpTypeName, from: QpStateName, to: QpStateName) =>
      transitionOf(type, from, to)?.required.join(' ')
    assert.equal(required('UC', 'RESET', 'INIT'), 'pkeyIndex port accessFlags')
    assert.equal(required('UC', 'INIT', 'RTR'), 'address pathMtu destQpn rqPsn')
    assert.equal(required('UC', 'RTR', 'RTS'), 'sqPsn')
    assert.equal(required('UD', 'RESET', 'INIT'), 'pkeyIndex port qkey')
    assert.equal(required('UD', 'INIT', 'RTR'), '')
    assert.equal(required('UD', 'RTR', 'RTS'), 'sqPsn')
    assert.equal(required('XRC_INI', 'INIT', 'RTR'), 'address pathMtu destQpn rqPsn')
    assert.equal(required('XRC_TGT', 'RTR', 'RTS'), 'timeout sqPsn')
    assert.equal(required('GSI', 'RESET', 'INIT'), 'pkeyIndex qkey')
  })
})

describe('checkTransition', () => {
  const toInit = ['state', 'pkeyIndex', 'port', 'accessFlags']
  const toRtr = ['state', 'address', 'pathMtu', 'destQpn', 'rqPsn', 'maxDestRdAtomic', 'minRnrTimer']
  const toRts = ['state', 'timeout', 'retryCnt', 'rnrRetry', 'sqPsn', 'maxRdAtomic']
  type Case = [from: number, to: number, attributes: string[], curState?: number]
  const accepted: Case[] = [
    [RESET, INIT, toInit],
    [INIT, INIT, ['port']],
    [INIT, RTR, toRtr],
    [INIT, RTR, [...toRtr, 'accessFlags', 'pkeyIndex', 'alternatePath']],
    [RTR, RTS, toRts],
    [RTR, RTS, [...toRts, 'curState', 'minRnrTimer'], RTR],
    [RTS, RTS, ['accessFlags']],
    [RTS, SQD, ['state', 'enSqdAsyncNotify']],
    [SQD, SQD, ['timeout', 'address']],
    [SQD, RTS, ['state', 'curState'], SQD],
    [SQE, RTS, ['state']],
    ...Object.values(QpState.values).flatMap((from): Case[] => [
      [from, RESET, ['state']],
      [from, ERR, ['state']],
    ]),
  ]
  for (const [from, to, attributes, curState] of accepted)
    it(`accepts ${states[from]} to ${states[to]} with ${attributes.join(', ')}`, () =>
      assert.equal(checkTransition('RC', from, to, attributes, curState), undefined))

  const refused: [from: number, to: number, attributes: string[], message: RegExp, curState?: number][] = [
    [RESET, RTR, toRtr, /cannot go from RESET to RTR; from RESET they can go to RESET, INIT, ERR/],
    [RESET, INIT, ['state', 'port'], /RESET to INIT .* needs pkeyIndex, accessFlags as well/],
    [RESET, INIT, [...toInit, 'timeout'], /RESET to INIT .* does not take timeout; it takes pkeyIndex/],
    [INIT, RTR, toRtr.slice(0, -1), /needs minRnrTimer/],
    [INIT, RTS, toRts, /cannot go from INIT to RTS/],
    [RTR, RTS, [...toRts, 'curState'], /curState is RTS, but the RC queue pair is in RTR/, RTS],
    [RTS, RTS, ['curState'], /curState is INIT; it may be RTR, RTS, SQD, SQE/, INIT],
    [RTS, RTS, ['curState'], /curState is 9; it may be/, 9],
    [RTS, RTS, ['timeout'], /does not take timeout/],
    [RTS, RTR, ['state'], /cannot go from RTS to RTR/],
    [ERR, RTS, ['state'], /from ERR they can go to RESET, ERR/],
    [RTS, ERR, ['state', 'port'], /does not take port; it takes no attributes/],
    [RTS, 7, ['state'], /QP state 7 does not exist/],
    [RTS, SQE, ['state'], /cannot go from RTS to SQE/],
  ]
  for (const [from, to, attributes, message, curState] of refused)
    it(`refuses ${states[from]} to ${states[to] ?? to} with ${attributes.join(', ')}`, () =>
      assert.match(String(checkTransition('RC', from, to, attributes, curState)), message))
})

describe('isTransition', () => {
  const names = ['state', 'address', 'linkAddress', ...Object.keys(RcQp.methods.modify.in), 'unknown']
  // Some numbers are not states.
  const number = fc.oneof({ weight: 7, arbitrary: fc.nat(states.length) }, { weight: 1, arbitrary: fc.nat(70) })
  const type = fc.constantFrom(...(Object.keys(qpTransitions) as QpTypeName[]))
  const anyAttributes = fc.shuffledSubarray(names.filter(name => name !== 'curState'))

  it('refuses every call with curState, and otherwise agrees with checkTransition', () => {
    fc.assert(
      fc.property(type, number, number, anyAttributes, fc.boolean(), (qpType, from, to, randomAttributes, isLegal) => {
        const areStates = from < states.length && to < states.length
        const row = isLegal && areStates ? transitionOf(qpType, states[from], states[to]) : undefined
        const omitted = randomAttributes.length % 3
        const attributes =
          row === undefined ? randomAttributes : ['state', ...row.required, ...row.optional.slice(omitted)]
        const args = Object.fromEntries(attributes.map(name => [name, 0]))
        const hasCurState = 'curState' in args
        // An attribute with the value undefined counts as absent.
        assert.equal(
          isTransition(qpType, from, to, { ...args, missing: undefined }),
          !hasCurState && checkTransition(qpType, from, to, attributes) === undefined,
        )
      }),
      { numRuns: 2000 },
    )
  })
  it('accepts an address of any link', () => {
    const args = { pathMtu: 1, destQpn: 1, rqPsn: 1, maxDestRdAtomic: 1, minRnrTimer: 1 }
    for (const { attributes } of Object.values(Links).filter(({ attributes }) => attributes.address !== undefined)) {
      const { address = '', alternatePath = '' } = attributes
      assert.equal(isTransition('RC', INIT, RTR, { ...args, [address]: 1 }), true)
      assert.equal(isTransition('RC', INIT, RTR, { ...args, [address]: 1, [alternatePath]: 1 }), true)
      assert.equal(isTransition('RC', INIT, RTR, { ...args, [alternatePath]: 1 }), false)
    }
    assert.equal(isTransition('RC', INIT, RTR, args), false)
  })
})
