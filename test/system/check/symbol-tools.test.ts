/*
 * The tools that look up lines for `userdma check`: how often they are started, and that nothing waits for a slow one
 * but the lines.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { findTool } from '../../tools.ts'
import { cleanEnvironment, runUserdma, type Scope, temporaryFolder } from '../programs.ts'
import { EX_DATAERR, faulty } from './checking.ts'

const TOOLS = ['llvm-symbolizer', 'addr2line']
const real = TOOLS.find(tool => findTool(tool) !== undefined)
const skip = real === undefined ? 'llvm-symbolizer and addr2line are missing' : false

/** A tool that writes the file it looks into to a log, and then does the lines of `script` before it begins. */
const loggingTool = (t: Scope, script: string) => {
  const folder = temporaryFolder(t)
  const log = join(folder, 'log')
  writeFileSync(log, '')
  const text = `#!/bin/sh\nfor file; do :; done\necho "$file" >> ${log}\n${script}\nexec ${findTool(real!)} "$@"\n`
  writeFileSync(join(folder, real!), text, { mode: 0o755 })
  return {
    folder,
    env: cleanEnvironment({ PATH: `${folder}:${process.env.PATH}` }),
    started: () => readFileSync(log, 'utf8').trim().split('\n').sort(),
  }
}

it('are started once for each file whose frames are printed, and the program is reaped though they are not done', {
  skip,
}, async t => {
  const pid = join(temporaryFolder(t), 'pid')
  // It answers when the program is not even a zombie.
  const { env, started } = loggingTool(t, `while [ -e "/proc/$(cat ${pid})" ]; do sleep 0.01; done`)
  const programs = ['stale-rkey', 'bad-request'].map(faulty)
  const script = `echo $$ > ${pid}; ${programs.join('; ')}; exit 0`
  const { stderr, status } = await runUserdma(t, ['check', '--time-limit', '60', '--', 'sh', '-c', script], { env })
  assert.equal(status, EX_DATAERR, stderr)
  for (const name of ['stale-rkey', 'bad-request'])
    assert.match(stderr, new RegExp(`error ${name}(?:.*\\n)*?.* main at .*${name}\\.c:\\d+\\n`))
  const files = started()
  assert.deepEqual(files, [...new Set(files)])
  for (const program of programs) assert.ok(files.includes(program), files.join())
  // It has the callers of main only.
  assert.ok(!files.some(file => /\/libc\.so/.test(file)), files.join())
})
