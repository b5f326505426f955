/*
 * What killed processes leave behind, and what is not theirs.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, closeSync, existsSync, mkdirSync, openSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { privateFolder, removeFolder } from '../../src/cli/paths.ts'
import { lockShared, openOwn, removeLeftBehind } from '../../src/host/left-behind.ts'
import { hasNative } from '../../src/host/native.ts'
import { scratchFolder } from '../tools.ts'

const skip = !hasNative()

test('a folder of a killed process is removed when the next one is made; one of a living process is not', {
  skip,
}, async t => {
  const folder = scratchFolder()
  const env = { ...process.env, TMPDIR: folder }
  const paths = new URL('../../src/cli/paths.js', import.meta.url).href
  const make = `
    const { privateFolder } = await import('${paths}')
    process.stdout.write(privateFolder())
    setInterval(() => {}, 1000)`
  const [killed, living] = [0, 1].map(() =>
    spawn(process.execPath, ['--input-type=module', '-e', make], { env, stdio: ['ignore', 'pipe', 'inherit'] }),
  )
  t.after(() => living!.kill('SIGKILL'))
  const [left, used] = await Promise.all(
    [killed!, living!].map(async ({ stdout }) => String((await once(stdout!, 'data'))[0])),
  )
  writeFileSync(join(left!, 'crashes'), 'text')
  killed!.kill('SIGKILL')
  await once(killed!, 'exit')
  const previous = process.env.TMPDIR
  process.env.TMPDIR = folder
  t.after(() => {
    if (previous === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = previous
  })
  const made = privateFolder()
  assert.deepEqual(readdirSync(folder).sort(), [basename(made), basename(used!)].sort())
  removeFolder(made)
})

test('what another user has, a link, another name, and what is locked stays', { skip }, t => {
  const folder = scratchFolder()
  const at = (name: string): string => join(folder, name)
  for (const name of ['left1', 'held2', 'other']) writeFileSync(at(name), '')
  mkdirSync(at('target'))
  writeFileSync(at('target/file'), '')
  symlinkSync(at('target'), at('left3'))
  const isRoot = process.geteuid?.() === 0
  if (isRoot) {
    mkdirSync(at('left4'))
    chownSync(at('left4'), 65534, 65534)
  }
  const held = openSync(at('held2'), 'r')
  t.after(() => closeSync(held))
  assert.ok(lockShared(at('held2'), held))
  removeLeftBehind(folder, /^(left|held)\d$/)
  assert.deepEqual(readdirSync(folder).sort(), ['held2', 'left3', ...(isRoot ? ['left4'] : []), 'other', 'target'])
  assert.ok(existsSync(at('target/file')))
})

test('who opens a file that is removed meanwhile does not hold it', { skip }, () => {
  const folder = scratchFolder()
  const path = join(folder, 'left1')
  writeFileSync(path, '')
  const fd = openOwn(path)
  removeLeftBehind(folder, /^left1$/)
  assert.equal(lockShared(path, fd), false)
  closeSync(fd)
})
