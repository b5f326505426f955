/*
 * The table of suppressed findings in libraries, and docs/reference/suppressions.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { librarySuppressions } from '../../../src/cli/check/library-suppressions.ts'
import { findingIds } from '../../../src/spec/check/findings.ts'
import { repoRoot } from '../../paths.ts'

test('every row names a finding, frames of its library, and its evidence', () => {
  for (const { library, name, id, frames, versions, source, why } of librarySuppressions) {
    assert.ok(findingIds.includes(id), id)
    assert.ok(
      // Programs have no library; those of perftest are named ib_…
      frames.some(frame => frame.startsWith(library === 'perftest' ? 'obj:*/ib_' : `obj:*/${library}.so`)),
      name,
    )
    assert.doesNotMatch(name, /\.$/)
    assert.match(versions, /\d/)
    assert.match(source, /\.[ch]\b/)
    assert.match(why, /\.$/)
  }
})

const page = (): string =>
  `${[
    '# Suppressed findings in libraries',
    '',
    '[`userdma check`](cli.md#check) does not report these findings: the author of a program cannot correct them. The end of',
    'the report counts them, and `--no-default-suppressions` shows them. Each is suppressed by frames of the library, so the',
    'same mistake of a program is reported.',
    ...librarySuppressions.flatMap(({ library, name, id, frames, versions, source, why }) => [
      '',
      `## ${name}`,
      '',
      `Finding: [\`${id}\`](../findings.md#${id}), counted as in ${library}. Versions: ${versions}.`,
      '',
      `Source: ${source}.`,
      '',
      why,
      '',
      '```',
      '{',
      ...[name, id, ...frames].map(line => `   ${line}`),
      '}',
      '```',
    ]),
  ].join('\n')}\n`

test('docs/reference/suppressions.md has the table', () => {
  const path = join(repoRoot, 'docs', 'reference', 'suppressions.md')
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, page())
  assert.equal(readFileSync(path, 'utf8'), page(), '`npm run docs` regenerates it')
})
