/*
 * The long mutation run: `userdma check` must find most mistakes in programs with one mistake each.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { lacking } from '../../system/programs.ts'
import { describeMutant, foundOrMissed, foundShare, runCampaign, summary } from './campaign.ts'
import { programs } from './programs.ts'

const SEEDS = [1, 2]
const MUTANTS = 400
const MIN_FOUND_SHARE = 0.93

for (const seed of SEEDS)
  it(`userdma check finds ${MIN_FOUND_SHARE * 100} % of ${MUTANTS} mistakes of seed ${seed}`, {
    skip: lacking('cc', 'gcov'),
  }, async t => {
    const campaign = await runCampaign(t, { seed, count: MUTANTS, programs })
    const missed = foundOrMissed(campaign).filter(({ verdict }) => verdict === 'missed')
    t.diagnostic(summary(campaign).join('\n'))
    t.diagnostic(`missed:\n${missed.map(describeMutant).join('\n')}`)
    assert.equal(foundOrMissed(campaign).length, MUTANTS)
    assert.ok(foundShare(campaign) >= MIN_FOUND_SHARE, `${missed.length} of ${MUTANTS} are missed`)
  })
