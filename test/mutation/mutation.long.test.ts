/*
 * The long mutation run: for each of two seeds, 200 programs with a single mistake each. For 90 % of them `userdma
 * check` must have a finding that names the mistake.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { lacking } from '../system/programs.ts'
import { counted, describeMutant, foundShare, runCampaign, summary } from './campaign.ts'
import { programs } from './programs.ts'

const SEEDS = [1, 2]
const MUTANTS = 200
/** The share that must be found. */
const SHARE = 0.9

for (const seed of SEEDS)
  it(`userdma check finds ${SHARE * 100} % of ${MUTANTS} mistakes of seed ${seed}`, {
    skip: lacking('cc', 'gcov'),
  }, async t => {
    const campaign = await runCampaign(t, { seed, count: MUTANTS, programs })
    const missed = counted(campaign).filter(({ verdict }) => verdict === 'missed')
    t.diagnostic(summary(campaign).join('\n'))
    t.diagnostic(`missed:\n${missed.map(describeMutant).join('\n')}`)
    assert.equal(counted(campaign).length, MUTANTS)
    assert.ok(foundShare(campaign) >= SHARE, `${missed.length} of ${MUTANTS} are missed`)
  })
