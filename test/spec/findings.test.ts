/*
 * The table of findings, its programs in docs/findings, and docs/findings.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CauseName, causes } from '../../src/spec/check/causes.ts'
import { findingIds, findingOfCause, findings } from '../../src/spec/check/findings.ts'
import { repoRoot } from '../paths.ts'
import { knownFindings } from '../system/check/known-findings.ts'

const programs = join(repoRoot, 'docs', 'findings')
const sources = readdirSync(programs)
  .filter(name => name.endsWith('.c'))
  .sort()
/** The programs of a finding: ID.c, and ID--VARIANT.c for other faults with the same finding. */
const sourcesOf = (id: string): string[] => sources.filter(name => name === `${id}.c` || name.startsWith(`${id}--`))

test('an error cause belongs to one finding unless it is injected, a note cause to at most one note', () => {
  const counts = new Map<string, number>()
  for (const id of findingIds)
    for (const cause of findings[id].causes ?? []) counts.set(cause, (counts.get(cause) ?? 0) + 1)
  for (const name of Object.keys(causes) as CauseName[]) {
    const id = findingOfCause(name)
    assert.equal(counts.get(name) ?? 0, id === undefined ? 0 : 1, name)
    if (id === undefined) assert.ok(causes[name].isNote || name === 'INJECTED', name)
    else if (causes[name].isNote) assert.equal(findings[id].severity, 'note', name)
  }
})

test('every finding has a program with marked faults, and a variant without faults', () => {
  for (const id of findingIds) assert.ok(sources.includes(`${id}.c`), id)
  assert.deepEqual(sources, findingIds.flatMap(sourcesOf).sort())
  for (const name of sources) {
    const text = readFileSync(join(programs, name), 'utf8')
    assert.match(text, /\/\* FAULT \*\//, name)
    // FAULT_OR (pair.h) chooses by FIXED
    assert.match(text, /FIXED|FAULT_OR/, name)
  }
})

test('titles and advice do not end with a full stop, explanations do', () => {
  for (const id of findingIds) {
    assert.doesNotMatch(findings[id].title, /[.!]$/, id)
    assert.doesNotMatch(findings[id].advice, /[.!]$/, id)
    assert.match(findings[id].why, /\.$/, id)
  }
})

const page = (): string =>
  `${[
    '# Findings',
    '',
    'The findings that [`userdma check`](reference/cli.md#check) reports. Each has an example program in `docs/findings`, in which the',
    'line that the finding names is marked; `-DFIXED` compiles the program without the fault. To try one:',
    '',
    '```sh',
    'cc -g -o stale-rkey docs/findings/stale-rkey.c -libverbs',
    'userdma check -- ./stale-rkey',
    '```',
    '',
    'Programs that include `cm.h` also need `-lrdmacm`.',
    '',
    'Error: a request failed, or the program cannot work. Warning: the program works here, but leaks, or fails on other',
    'adapters. Notes are printed with `--notes`.',
    '',
    '| finding | severity | meaning |',
    '|---|---|---|',
    ...findingIds.map(id => `| [\`${id}\`](#${id}) | ${findings[id].severity} | ${findings[id].title} |`),
    ...findingIds.flatMap(id => {
      const { title, why, advice, causes: causeNames = [] } = findings[id]
      return [
        '',
        `## ${id}`,
        '',
        `${title[0].toUpperCase()}${title.slice(1)}. ${why}`,
        '',
        `What to do: ${advice}.`,
        ...(causeNames.length > 0
          ? ['', `[Causes](reference/vendor-errors.md): ${causeNames.map(one => `\`${one}\``).join(', ')}.`]
          : []),
        ...sourcesOf(id).flatMap(name => ['', '```c', readFileSync(join(programs, name), 'utf8').trimEnd(), '```']),
      ]
    }),
    '',
    '## Found in real programs',
    '',
    'All commands of [programs](reference/programs.md) on Debian 12, the tests of pyverbs and programs of `test/programs`, with',
    'and without `--races`, have these findings of severity error and warning, and no others (`npm run test:long --',
    'check/real-programs`). Each is true. Lines are those of rdma-core 44.0 and perftest 4.5-0.17.',
    '',
    '| program | finding | severity | source | why it is true |',
    '|---|---|---|---|---|',
    ...knownFindings.map(
      ({ programs: names, id, severity, source, why }) =>
        `| ${names.map(name => `\`${name}\``).join(', ')} | [\`${id}\`](#${id}) | ${severity} | ${source} | ${why} |`,
    ),
  ].join('\n')}\n`

test('docs/findings.md has the tables and the programs', () => {
  const path = join(repoRoot, 'docs', 'findings.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
