/*
 * In captures of Linux's connection manager, our engine replaces each side in turn. It must send the recorded messages,
 * except for differences in permitted.ts.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fixture, repoRoot } from '../../paths.ts'
import { permitted, type Row, rowFor } from './permitted.ts'
import { type Difference, messagesIn, replay } from './replay.ts'

const captures = readdirSync(fixture('wire'))
  .filter(name => name.endsWith('.pcap'))
  .map(name => name.slice(0, -'.pcap'.length))
  // These captures have forged packets, which the reader skips.
  .filter(name => !name.endsWith('inject') && messagesIn(name).length > 0)

const used = new Set<Row>()
/** `side`: 0 active, 1 passive. */
const notPermitted = (capture: string, side: 0 | 1): Difference[] =>
  replay(messagesIn(capture), side).filter(difference => {
    const row = rowFor(capture, side, difference)
    if (row !== undefined) used.add(row)
    return row === undefined
  })

test('the captures have every message type except MRA, LAP and APR', () => {
  assert.ok(captures.length >= 14, captures.join(', '))
  const names = new Set(captures.flatMap(messagesIn).map(({ message }) => message.name))
  assert.deepEqual([...names].sort(), ['DREP', 'DREQ', 'REJ', 'REP', 'REQ', 'RTU', 'SIDR_REP', 'SIDR_REQ'])
})

for (const capture of captures)
  describe(capture, () => {
    test('our engine sends the recorded messages as the active side', () =>
      assert.deepEqual(notPermitted(capture, 0), []))
    test('our engine sends the recorded messages as the passive side', () =>
      assert.deepEqual(notPermitted(capture, 1), []))
  })

/** One field per message that our engine computes. */
const derived = { REQ: 'localAckTimeout', REP: 'targetAckDelay', DREQ: 'remoteQpn' } as const

test('the replay of a recording with a changed field reports the field', () => {
  let mutants = 0
  for (const recorded of captures.map(messagesIn))
    for (const [i, { from, message }] of recorded.entries()) {
      const field = derived[message.name as keyof typeof derived]
      if (field === undefined) continue
      const record = message as unknown as Record<string, number>
      const mutant = recorded.with(i, { ...recorded[i]!, message: { ...message, [field]: record[field]! ^ 1 } })
      assert.ok(
        replay(mutant, from).some(difference => difference.field === field),
        `${message.name} ${field}`,
      )
      mutants++
    }
  assert.ok(mutants > 50, `${mutants} mutants`)
})

test('each permitted difference is explained in docs/reference/conformance.md', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'reference', 'conformance.md'), 'utf8')
  const missing = permitted.filter(
    ({ capture }) => !page.includes(`\`test/services/cm-engine/permitted.ts\` "capture: '${capture}'"`),
  )
  assert.deepEqual(missing, [])
})

after(() => {
  const unused = permitted.filter(row => !used.has(row))
  assert.deepEqual(unused, [], 'unused rows')
})
