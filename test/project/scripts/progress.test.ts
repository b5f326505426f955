/*
 * What `npm start` and `npm test` say while they work.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { openSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

interface Progress {
  watchTests(): { note(event: { type: string; data: { name: string; file: string } }): void; end(): void }
}

const script = (name: string): string => join(repoRoot, 'scripts', name)

test('a step that blocks is told while it runs', () => {
  const folder = scratchFolder()
  const [output, main] = ['output', 'main.mjs'].map(name => join(folder, name)) as [string, string]
  const fd = openSync(output, 'w')
  // The steps end when they are told.
  const waits = JSON.stringify(['-c', `until grep -q 'the other' ${output}; do sleep 0.05; done`])
  const code = `
    import { spawnSync } from 'node:child_process'
    import { step } from ${JSON.stringify(pathToFileURL(script('progress.mjs')).href)}
    const block = tell => {
      tell('another name')
      spawnSync('sh', ${waits})
    }
    let end
    const other = step('the other', () => new Promise(resolve => { end = resolve }))
    await step('one step', block)
    end()
    await other
    process.exitCode = 7`
  writeFileSync(main, code)
  const { status } = spawnSync(process.execPath, [main], { stdio: ['ignore', fd, fd] })
  assert.equal(status, 7)
  assert.match(readFileSync(output, 'utf8'), /^userdma: the other, \d+ s; another name, \d+ s\n/)
})

test('a run of tests says how many files have ended, and which run, if it prints nothing else', t => {
  t.mock.timers.enable({ apis: ['setInterval', 'Date'] })
  const lines: string[] = []
  t.mock.method(process.stderr, 'write', (text: string) => lines.push(text) > 0)
  // Node warns of its mock timers too.
  const said = (): string =>
    lines
      .splice(0)
      .filter(line => line.startsWith('userdma: '))
      .join('')
  const { watchTests } = createRequire(import.meta.url)(script('test-progress.cjs')) as Progress
  const progress = watchTests()
  const event = (type: string, file: string, name = file): void =>
    progress.note({ type: `test:${type}`, data: { name, file } })
  const [slow, quick, together] = ['/a/dist/test/check/findings.test.js', '/a/dist/test/x/y.test.js', '/tmp/core.mjs']
  for (const file of [slow, quick, together]) event('enqueue', file!)
  for (const file of [slow, quick]) event('dequeue', file!)
  t.mock.timers.tick(2000)
  assert.equal(said(), 'userdma: tests: 0 of 3 files have ended; running: check/findings 2 s, x/y 2 s\n')
  event('complete', quick!)
  event('dequeue', together!)
  t.mock.timers.tick(9000)
  assert.equal(said(), '')
  t.mock.timers.tick(1000)
  assert.equal(said(), 'userdma: tests: 1 of 3 files have ended; running: check/findings 12 s, core 10 s\n')
  for (let i = 0; i < 5; i++) {
    event('pass', slow!, 'a test')
    t.mock.timers.tick(5000)
  }
  assert.equal(said(), '')
  event('complete', slow!)
  event('complete', together!)
  t.mock.timers.tick(60_000)
  assert.equal(said(), '')
  progress.end()
})
