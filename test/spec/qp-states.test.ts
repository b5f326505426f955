/*
 * The QP state table against the legal transitions of the specification, and the sentences of refusals.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RcQp } from '../../src/spec/classes/rc_qp.ts'
import { QpState } from '../../src/spec/enums.ts'
import { checkTransition, type QpStateName, qpTransitions, transitionOf } from '../../src/spec/qp-states.ts'

const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values
const states = Object.keys(QpState.values) as QpStateName[]

describe('the QP state table', () => {
  it('has exactly the legal transitions of RC', () => {
    const legal = states.map(from => states.filter(to => transitionOf('RC', from, to) !== undefined))
    assert.deepEqual(legal, [
      ['RESET', 'INIT', 'ERR'],
      ['RESET', 'INIT', 'RTR', 'ERR'],
      ['RESET', 'RTS', 'ERR'],
      ['RESET', 'RTS', 'SQD', 'ERR'],
      ['RESET', 'RTS', 'SQD', 'ERR'],
      ['RESET', 'RTS', 'ERR'],
      ['RESET', 'ERR'],
    ])
  })
  it('names only attributes that the class has', () => {
    const known = Object.keys(RcQp.methods.modify.in)
    for (const [from, row] of Object.entries(qpTransitions.RC))
      for (const [to, { required, optional }] of Object.entries(row))
        for (const name of [...required, ...optional]) assert.ok(known.includes(name), `${from} to ${to}: ${name}`)
  })
})

describe('checkTransition', () => {
  const toInit = ['state', 'pkeyIndex', 'port', 'accessFlags']
  const toRtr = ['state', 'address', 'pathMtu', 'destQpn', 'rqPsn', 'maxDestRdAtomic', 'minRnrTimer']
  const toRts = ['state', 'timeout', 'retryCnt', 'rnrRetry', 'sqPsn', 'maxRdAtomic']
  const accepted: [number, number, string[], number?][] = [
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
    ...Object.values(QpState.values).flatMap((from): [number, number, string[]][] => [
      [from, RESET, ['state']],
      [from, ERR, ['state']],
    ]),
  ]
  for (const [from, to, attributes, current] of accepted)
    it(`takes ${states[from]} to ${states[to]} with ${attributes.join(', ')}`, () =>
      assert.equal(checkTransition('RC', from, to, attributes, current), undefined))

  const refused: [number, number, string[], RegExp, number?][] = [
    [RESET, RTR, toRtr, /cannot go from RESET to RTR; from RESET it can go to RESET, INIT, ERR/],
    [RESET, INIT, ['state', 'port'], /RESET to INIT .* needs pkeyIndex, accessFlags as well/],
    [RESET, INIT, [...toInit, 'timeout'], /RESET to INIT .* does not take timeout; it takes pkeyIndex/],
    [INIT, RTR, toRtr.slice(0, -1), /needs minRnrTimer/],
    [INIT, RTS, toRts, /cannot go from INIT to RTS/],
    [RTR, RTS, [...toRts, 'curState'], /curState is RTS, but the RC queue pair is in RTR/, RTS],
    [RTS, RTS, ['curState'], /curState is INIT; it may be RTR, RTS, SQD, SQE/, INIT],
    [RTS, RTS, ['curState'], /curState is 9; it may be/, 9],
    [RTS, RTS, ['timeout'], /does not take timeout/],
    [RTS, RTR, ['state'], /cannot go from RTS to RTR/],
    [ERR, RTS, ['state'], /from ERR it can go to RESET, ERR/],
    [RTS, ERR, ['state', 'port'], /does not take port; it takes no attributes/],
    [RTS, 7, ['state'], /QP state 7 does not exist/],
    [RTS, SQE, ['state'], /cannot go from RTS to SQE/],
  ]
  for (const [from, to, attributes, complaint, current] of refused)
    it(`refuses ${states[from]} to ${to} with ${attributes.join(', ')}`, () =>
      assert.match(checkTransition('RC', from, to, attributes, current) ?? 'nothing', complaint))
})
