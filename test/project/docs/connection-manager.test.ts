/*
 * The diagram of docs/reference/connection-manager.md is drawn from the state table. UPDATE_GOLDEN=1 rewrites it.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CmState, cmStates } from '../../../src/services/cm-engine/cm-states.ts'
import { repoRoot } from '../../paths.ts'

const path = join(repoRoot, 'docs', 'reference', 'connection-manager.md')

/**
 * Labels: `send X` is a command of the consumer, and `data` the consumer's report of data before the RTU. `X` is a
 * received message, and `X / Y` a received message that is answered with Y. `no answer` is the last timeout.
 */
const diagram = (): string => {
  const lines = [
    '```mermaid',
    'stateDiagram-v2',
    '  [*] --> IDLE',
    '  [*] --> REQ_RCVD: REQ',
    '  [*] --> SIDR_REQ_RCVD: SIDR_REQ',
  ]
  for (const state of Object.keys(cmStates) as CmState[]) {
    const { receive, command, timeout } = cmStates[state]
    const arrows = new Map<CmState, string[]>()
    const add = (nextState: CmState, label: string): void => {
      arrows.set(nextState, [...(arrows.get(nextState) ?? []), label])
    }
    for (const [name, nextState] of Object.entries(command))
      add(nextState, name === 'ESTABLISH' ? 'data' : `send ${name}`)
    for (const [name, receipt] of Object.entries(receive)) {
      if ('nextState' in receipt) add(receipt.nextState, name)
      else add(state, `${name} / ${receipt.answer}`)
    }
    if (timeout)
      add(timeout.nextState, state === 'TIMEWAIT' ? 'timer expires' : `no answer${timeout.send ? ' / REJ' : ''}`)
    for (const [nextState, labels] of arrows) lines.push(`  ${state} --> ${nextState}: ${labels.join(', ')}`)
  }
  return [...lines, '```'].join('\n')
}

test('the diagram is drawn from the table', () => {
  const page = readFileSync(path, 'utf8')
  const redrawn = page.replace(/```mermaid[\s\S]*?```/, diagram())
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, redrawn)
  assert.equal(readFileSync(path, 'utf8'), redrawn, 'UPDATE_GOLDEN=1 npm test -- connection-manager redraws it')
  assert.match(readFileSync(join(repoRoot, 'docs', 'README.md'), 'utf8'), /\(reference\/connection-manager\.md\)/)
})
