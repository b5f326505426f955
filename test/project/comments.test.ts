/*
 * Lines of comments have at most 120 columns, as code has by biome's formatter. Not those of one long word.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { readSources, withoutComments } from '../sources.ts'

const COLUMNS = 120

/** Lines of comments alone that are too long, by number. */
const longComments = (source: string): number[] => {
  const code = withoutComments(source).split('\n')
  return source
    .split('\n')
    .flatMap((line, i) => (line.length > COLUMNS && code[i].trim() === '' && /\S\s+\S+\s+\S/.test(line) ? [i + 1] : []))
}

it(`has comments of at most ${COLUMNS} columns`, () => {
  const sources = ['src', 'web', 'shim', 'native', 'scripts', 'test'].flatMap(folder =>
    readSources(folder, ['.ts', '.tsx', '.mjs', '.cjs', '.c', '.h']),
  )
  assert.ok(sources.length > 1000, `only ${sources.length} files`)
  assert.deepEqual(
    sources.flatMap(([path, source]) => longComments(source).map(line => `${path}:${line}`)),
    [],
  )
})

it('sees long comments, and neither long words nor code', () => {
  const words = 'a word and '.repeat(12)
  const long = 'x'.repeat(COLUMNS)
  assert.deepEqual(longComments(`// ${words}\n/*\n * ${words}\n * ${long}\n */\nf('${words}') // short`), [1, 3])
})
