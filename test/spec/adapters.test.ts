/*
 * The table of adapters, and docs/reference/adapters.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  type Adapter,
  adapterNames,
  adapters,
  type LimitName,
  limitNames,
  type OperationName,
  operationNames,
} from '../../src/spec/check/adapters.ts'
import { repoRoot } from '../paths.ts'

const limitRows = ({ limits }: Adapter): string[] =>
  limitNames.flatMap((name: LimitName) => {
    const [value, source, classes] = limits[name] ?? []
    const types =
      classes === undefined ? '' : ` (${classes.map(cls => cls.replace(/_qp$/, '').toUpperCase()).join(', ')})`
    return value === undefined ? [] : [`| ${name}${types} | ${value} | ${source} |`]
  })

const lackRows = ({ lacks }: Adapter): string[] =>
  (Object.keys(operationNames) as OperationName[]).flatMap(name => {
    const source = lacks[name]
    return source === undefined ? [] : [`| ${operationNames[name]} | – | ${source} |`]
  })

const page = (): string =>
  `${[
    '# Adapters',
    '',
    '[`userdma check --like`](cli.md#check) compares programs with these adapters: their limits, and the operations of',
    'userdma that they lack. Each row names its source; a limit without a source is not compared. A limit is the largest',
    'value that the adapter accepts. If the limit of a queue depends on the size of its WQEs, the table has the limit for',
    'the smallest WQE, and creation of a smaller queue with larger WQEs may fail too.',
    '',
    'All of them pin registered memory, which counts against `RLIMIT_MEMLOCK`, and on kernels before 5.12 programs that',
    'fork need `ibv_fork_init`.',
    '',
    'No source states an alignment rule that differs from that of the specification (addresses of atomics are multiples',
    'of 8): the post functions of rdma-core providers/mlx5/qp.c, efa/verbs.c and irdma/uverbs.c check neither addresses',
    'nor lengths.',
    ...adapterNames.flatMap(name => [
      '',
      `## ${name}`,
      '',
      `${adapters[name].model[0].toUpperCase()}${adapters[name].model.slice(1)}.`,
      '',
      '| limit or missing operation | value | source |',
      '|---|---|---|',
      ...limitRows(adapters[name]),
      ...lackRows(adapters[name]),
    ]),
  ].join('\n')}\n`

test('every limit and missing operation has a source', () => {
  for (const name of adapterNames) {
    const { limits, lacks, model } = adapters[name]
    assert.match(model, /./)
    for (const [value, source] of Object.values(limits)) {
      assert.ok(Number.isSafeInteger(value) && value > 0, name)
      assert.match(source, /Linux|rdma-core|ibv_devinfo|pull request/, name)
    }
    for (const source of Object.values(lacks)) assert.match(source, /Linux|rdma-core|ibv_devinfo|pull request/, name)
  }
})

test('docs/reference/adapters.md is the table', () => {
  const path = join(repoRoot, 'docs', 'reference', 'adapters.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
