/*
 * The diagrams and the table of docs/start/rdma-in-ten-minutes.md are written from the tables of src/spec.
 * UPDATE_GOLDEN=1 rewrites them.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Classes } from '../../../src/spec/classes.ts'
import { qpTransitions } from '../../../src/spec/qp-states.ts'
import { hasOperation, Service } from '../../../src/spec/wire/services.ts'
import { sendOperations, WrOpcode } from '../../../src/spec/work.ts'
import { repoRoot } from '../../paths.ts'

const path = join(repoRoot, 'docs', 'start', 'rdma-in-ten-minutes.md')

/** What `create` of the page's classes requires. */
const objects = (): string[] => [
  '```mermaid',
  'flowchart RL',
  ...(['pd', 'mr', 'cq', 'rc_qp'] as const).flatMap(name => {
    const needed = Object.values(Classes[name].methods.create.in).flatMap(({ type, optional }) =>
      type.kind === 'ref' && !optional ? [type.class] : [],
    )
    return [...new Set(needed.length === 0 ? ['device'] : needed)].map(other => `  ${name} --> ${other}`)
  }),
  '```',
]

/** Without the steps that change attributes only, and SQE, into which RC does not come. */
const states = (): string[] => [
  '```mermaid',
  'stateDiagram-v2',
  '  [*] --> RESET: create',
  ...Object.entries(qpTransitions.RC).flatMap(([from, row]) =>
    Object.entries(row)
      .filter(([to]) => to !== from && from !== 'SQE')
      .map(([to, { required }]) => `  ${from} --> ${to}${required.length === 0 ? '' : `: ${required.join(', ')}`}`),
  ),
  '  RTS --> ERR: a failure',
  '  ERR --> RESET',
  '```',
]

const operations = (): string[] => {
  const services = ['RC', 'UC', 'UD'] as const
  const rows = Object.entries(WrOpcode.values).flatMap(([name, code]) => {
    const operation = sendOperations[code]
    // Local operations have no packets.
    if (operation?.kind === undefined || operation.only === 0) return []
    const marks = services.map(service => (hasOperation(Service[service], operation.only) ? 'yes' : ''))
    return [`| ${name} | ${marks.join(' | ')} |`]
  })
  return [`| operation | ${services.join(' | ')} |`, '|---|---|---|---|', ...rows]
}

test('the diagrams and the table are those of the tables', () => {
  const page = readFileSync(path, 'utf8')
  const redrawn = page
    .replace(/```mermaid\nflowchart[\s\S]*?```/, objects().join('\n'))
    .replace(/```mermaid\nstateDiagram[\s\S]*?```/, states().join('\n'))
    .replace(/\| operation \|.*\n(?:\|.*\n)*/, `${operations().join('\n')}\n`)
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, redrawn)
  assert.equal(readFileSync(path, 'utf8'), redrawn, 'UPDATE_GOLDEN=1 npm test -- ten-minutes redraws them')
})
