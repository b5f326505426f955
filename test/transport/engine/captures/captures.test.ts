/*
 * Replays captures of Linux's rxe with our engine in place of one side. The engine must send the recorded packets, and
 * end with the recorded completions and memory. permitted.ts lists the permitted differences.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { QpState } from '../../../../src/spec/enums.ts'
import { fixture, repoRoot } from '../../../paths.ts'
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

/** Entries of permitted.ts that permitted a difference. */
interface Used {
  readonly rows: Set<Row>
  readonly outcomes: Set<unknown>
}
const createUsed = (): Used => ({ rows: new Set(), outcomes: new Set() })

const usedByRecordings = createUsed()
let rejectedMutants = 0
const MIN_MUTANTS = 3000

/** Sentences about differences that permitted.ts does not permit. Fills `used`. */
const faultsOf = (
  conversation: Conversation,
  side: Side,
  facts: Facts,
  recorded: readonly RecordedStream[],
  played: PlayResult,
  { used = createUsed(), inBursts = false }: { readonly used?: Used; readonly inBursts?: boolean } = {},
): string[] => {
  const differences = compareStreams(recorded, played, permitFor(conversation.name, side, used.rows), inBursts)
  const outcomes = outcomeFaults(conversation, side, facts, played).filter(text => {
    const outcome = permittedOutcomes.find(o => o.capture === conversation.name && o.side === side && o.text === text)
    used.outcomes.add(outcome)
    return outcome === undefined
  })
  return [...differences.map(describeDifference), ...outcomes]
}

test('each permitted difference is explained in docs/reference/conformance.md', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'reference', 'conformance.md'), 'utf8')
  // The page names each row by a text of permitted.ts or departures.ts, in quotes.
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
      const role = side === 0 ? 'our client' : 'our server'
      const recorded = recordedStreams(conversation, pairs, side, facts)
      const played = play(conversation, pairs, side, facts)

      test(`${role} behaves as recorded`, () => {
        assert.deepEqual(faultsOf(conversation, side, facts, recorded, played, { used: usedByRecordings }), [])
      })

      test(`${role} behaves as recorded if packets arrive in bursts`, () => {
        const burst = play(conversation, pairs, side, facts, { inBursts: true })
        assert.deepEqual(
          faultsOf(conversation, side, facts, recorded, burst, { used: usedByRecordings, inBursts: true }),
          [],
        )
      })

      test(`${role} differs from mutated recordings`, () => {
        const mutants = recordedMutants(name, recorded, isExempt(name, side))
        for (const [mutant, streams] of mutants)
          assert.notEqual(faultsOf(conversation, side, facts, streams, played).length, 0, mutant)
        rejectedMutants += mutants.length
      })

      const takesNoInput = facts.destroyed?.side === side && facts.destroyed.from === 1
      const skip = takesNoInput && 'takes no input'
      test(`${role} differs from the recording after mutated input`, { skip }, () => {
        const incoming = played.ends.flatMap(end => end.incoming)
        const isInError = played.ends.some(end => played.node.engine.query(end.row).state === ERR)
        // After an error, and in memory that programs write too, our engine need not have the recorded payload.
        const withCheckedPayload = incoming.filter(m => !isInError && (facts.programWrites !== true || takesReceive(m)))
        for (const [mutant, deliver] of deliveredMutants(conversation, side, withCheckedPayload)) {
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
    permitted.filter(row => !usedByRecordings.rows.has(row)),
    [],
    'rows of permitted.ts that permit nothing',
  )
  assert.deepEqual(
    permittedOutcomes.filter(row => !usedByRecordings.outcomes.has(row)),
    [],
    'outcomes of permitted.ts that did not occur',
  )
})
