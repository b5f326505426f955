/*
 * The short mutation run, of kinds that must be found, in the long run; the search for the text to edit.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { lacking } from '../../system/programs.ts'
import { describeMutant, runCampaign } from './campaign.ts'
import { type KindName, kindNames } from './kinds.ts'
import { inOrderOf } from './mutants.ts'
import { programs } from './programs.ts'
import { applyEdit, fieldsOf, searchable, statementsWith, valuesOf } from './source.ts'

/** Kinds whose mutants must be found. */
const certain: readonly KindName[] = [
  'sq-psn-ahead',
  'peer-number-wrong',
  'attribute-left-out',
  'port-wrong',
  'pkey-index-wrong',
  'timeout-0',
  'lkey-missing',
  'rkey-byte-order',
  'remote-address-beyond',
  'region-of-other-domain',
  'cq-too-small',
  'destroy-missing',
  'destroy-twice',
  'poll-too-many',
  'elements-unset',
  'immediate-byte-order',
  'descriptor-closed',
  'counter-of-both',
]
/** Programs of docs/findings. */
const programNames = [
  'leak',
  'no-answer',
  'path-mtu-mismatch',
  'rkey-no-right',
  'local-out-of-bounds',
  'destroy-busy',
  'array-too-short',
  'batch-misused',
  'immediate-byte-order',
  'descriptor-closed',
  'counter-shared',
]

describe('mistakes in programs', { skip: longOnly || lacking('cc', 'gcov') }, () => {
  it('are found by userdma check', async t => {
    const chosen = programs.filter(({ name }) => programNames.includes(name))
    const { judged } = await runCampaign(t, { seed: 1, count: certain.length, programs: chosen, kinds: certain })
    const found = judged.filter(({ verdict }) => verdict === 'found')
    assert.deepEqual(judged.filter(({ verdict }) => verdict === 'missed').map(describeMutant), [])
    assert.equal(found.length, certain.length)
    assert.ok(found.some(({ isAtChangedLine }) => isAtChangedLine))
  })
})

it('every kind has a mutant, and a seed determines the order', () => {
  const seed = 7
  const order = inOrderOf(seed)
  assert.deepEqual(
    kindNames.filter(kind => !order.some(mutant => mutant.kind === kind)),
    [],
  )
  assert.deepEqual(inOrderOf(seed), order)
})

it('statements, values and fields are found in C text, and an edit replaces a range', () => {
  const text = searchable(`
    check(ibv_modify_qp(qp, &attr, A | B), "to, (RTR)"); /* modify(x); */
    NEED(!qp || modify(qp) == 0, "no");
    const int error = modify(qp);
    if (modify(qp))
        found = modify(qp);
    struct x y = {.a = f(1, 2), .b = {.a = 3}};
    y.a = FAULT_OR(4, 5);
`)
  const found = (ranges: readonly { readonly from: number; readonly to: number }[]): string[] =>
    ranges.map(({ from, to }) => text.slice(from, to).replace(/\s+/g, ' '))
  // `searchable` blanks comments, strings and first arguments of FAULT_OR.
  // The declaration and the condition are no statements that can be removed.
  assert.deepEqual(found(statementsWith(text, 'modify|ibv_modify_qp')), [
    'check(ibv_modify_qp(qp, &attr, A | B), " ");',
    'NEED(!qp || modify(qp) == 0, " ");',
    'found = modify(qp);',
  ])
  assert.deepEqual(found(valuesOf(text, 'a')), ['f(1, 2)', '3', 'FAULT_OR( , 5)'])
  assert.deepEqual(found(fieldsOf(text, 'a')), ['.a = f(1, 2),', '.a = 3', 'y.a = FAULT_OR( , 5);'])
  assert.equal(applyEdit('abc', { from: 1, to: 2, text: 'x' }), 'axc')
})
