/*
 * The code of docs/library.md runs, block after block, as one program.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'

test('the program on the library’s page runs and says what it says it says', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'library.md'), 'utf8')
  const blocks = [...page.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(match => match[1])
  assert.ok(blocks.length >= 8)
  const library = new URL('../../src/verbs/index.js', import.meta.url).href
  const program = blocks.join('\n').replaceAll("from 'userdma'", `from '${library}'`)
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  const promised = [...program.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(match => match[1])
  assert.equal(promised.length, 6)
  for (const line of promised) assert.ok(said.split('\n').includes(line), `"${line}" is not in:\n${said}`)
})
