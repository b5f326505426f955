/*
 * Replay: for every capture of Linux's rxe, except the `excluded` (facts.ts), our engine replaces each side in turn. It
 * must send the recorded packets, field by field and with the same kind of timing, and end with the same completions
 * and memory, except for the rows of permitted.ts. Mutated recordings must fail.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import { fixture, repoRoot } from '../../paths.ts'
import { compareStreams, describeDifference, type RecordedStream, recordedStreams } from './compare.ts'
import { type Conversation, readConversation, type Side } from './conversation.ts'
import { departures, malformedDepartures } from './departures.ts'
import { excluded, type Facts, factsOf } from './facts.ts'
import { takesReceive } from './messages.ts'
import { deliveredMutants, recordedMutants } from './mutations.ts'
import { outcomeFaults } from './outcome.ts'
import { pairsOf } from './pairs.ts'
import { isExempt, permitFor, permitted, permittedOutcomes, type Row } from './permitted.ts'
import { type PlayResult, play } from './play.ts'

const { ERR } = QpState.values

const captures = readdirSync(fixture('wire'))
  .filter(name => name.endsWith('.pcap'))
  .map(name => name.slice(0, -'.pcap'.length))

/** Rows of permitted.ts that permitted a difference. */
const usedRows = new Set<Row>()
const usedOutcomes = new Set<unknown>()
/** Number of mutated recordings that failed the comparison; a low count means that few mutants were made. */
let rejectedMutants = 0
const MIN_MUTANTS = 3000

/** Every difference of a replay that permitted.ts does not permit, as sentences; fills `usedRows`, `usedOutcomes`. */
const faultsOf = (
  conversation: Conversation,
  side: Side,
  facts: Facts,
  recorded: readonly RecordedStream[],
  played: PlayResult,
  inBursts = false,
): string[] => {
  const differences = compareStreams(recorded, played, permitFor(conversation.name, side, usedRows), inBursts)
  const outcomes = outcomeFaults(conversation, side, facts, played).filter(text => {
    const outcome = permittedOutcomes.find(o => o.capture === conversation.name && o.side === side && o.text === text)
    usedOutcomes.add(outcome)
    return outcome === undefined
  })
  return [...differences.map(describeDifference), ...outcomes]
}

test('each permitted difference is explained in docs/reference/conformance.md', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'reference', 'conformance.md'), 'utf8')
  const rows = [
    ...permitted.map(r => `"${r.capture === undefined ? 'packets: MADS' : `capture: '${r.capture}'`}"`),
    ...[...departures, ...malformedDepartures].map(r => `"name: '${r.name}'"`),
  ]
  assert.deepEqual(
    rows.filter(row => !page.includes(row)),
    [],
  )
})

test('every excluded capture exists', () => {
  assert.deepEqual(
    Object.keys(excluded).filter(name => !captures.includes(name)),
    [],
  )
})

for (const name of captures.filter(capture => excluded[capture] === undefined)) {
  describe(name, () => {
    const facts = factsOf[name] ?? {}
    const conversation = readConversation(name, facts.loss)
    const pairs = pairsOf(conversation)
    test('at least one pair of queue pairs is connected', () => assert.notEqual(pairs.length, 0))
    for (const side of [0, 1] as const) {
      const role = side === 0 ? 'as the client' : 'as the server'
      const recorded = recordedStreams(conversation, pairs, side, facts)
      const played = play(conversation, pairs, side, facts)

      test(role, () => {
        assert.deepEqual(faultsOf(conversation, side, facts, recorded, played), [])
      })

      test(`${role}, packets in bursts`, () => {
        const burst = play(conversation, pairs, side, facts, { inBursts: true })
        assert.deepEqual(faultsOf(conversation, side, facts, recorded, burst, true), [])
      })

      test(`${role}: mutated recordings fail`, () => {
        const mutants = recordedMutants(name, recorded, isExempt(name, side))
        for (const [mutant, streams] of mutants)
          assert.notEqual(faultsOf(conversation, side, facts, streams, played).length, 0, mutant)
        rejectedMutants += mutants.length
      })

      test(`${role}: mutated input fails`, () => {
        if (facts.destroyed?.side === side && facts.destroyed.from === 1) return
        const incoming = played.ends.flatMap(end => end.incoming)
        // the payload that reaches a queue pair already in error is not compared
        const isInError = played.ends.some(end => played.node.engine.query(end.row).state === ERR)
        const checked = isInError ? [] : facts.programWrites === true ? incoming.filter(takesReceive) : incoming
        for (const [mutant, deliver] of deliveredMutants(conversation, side, checked)) {
          const mutated = play(conversation, pairs, side, facts, { deliver })
          assert.notEqual(faultsOf(conversation, side, facts, recorded, mutated).length, 0, mutant)
        }
      })
    }
  })
}

after(() => {
  assert.ok(rejectedMutants >= MIN_MUTANTS, `only ${rejectedMutants} mutants failed`)
  assert.deepEqual(
    permitted.filter(row => !usedRows.has(row)),
    [],
    'unused rows',
  )
  assert.deepEqual(
    permittedOutcomes.filter(row => !usedOutcomes.has(row)),
    [],
    'unused outcomes',
  )
})
