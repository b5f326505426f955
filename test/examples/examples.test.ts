/*
 * The examples run, as a reader would run them.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { repoRoot } from '../paths.ts'

const run = (name: string, ...args: string[]): string =>
  execFileSync(process.execPath, [fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url)), ...args], {
    encoding: 'utf8',
  })

test('ping-pong: under 60 lines, and it plays all rounds', () => {
  assert.match(run('ping-pong', '200', '100'), /^200 round trips of 100 bytes, [\d.]+ µs each\n$/)
  assert.ok(readFileSync(join(repoRoot, 'examples', 'ping-pong.ts'), 'utf8').split('\n').length < 60)
})
