/*
 * Folders in which no other user can replace this user's files.
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, lchownSync, mkdirSync, realpathSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { exposure } from '../../src/host/exposure.ts'
import { scratchFolder } from '../tools.ts'

const folder = realpathSync(scratchFolder())
const OTHER_USER = 65534
const skip = process.geteuid?.() !== 0 && 'only root can give files away'

const make = (name: string, mode: number): string => {
  const path = join(folder, name)
  mkdirSync(path, { recursive: true })
  chmodSync(path, mode)
  return path
}

test('a folder that only its user can write to is safe, also below a sticky folder', () => {
  assert.equal(exposure(make('own', 0o755)), undefined)
  make('sticky', 0o1777)
  assert.equal(exposure(make('sticky/own', 0o700)), undefined)
  symlinkSync(join(folder, 'sticky/own'), join(folder, 'link'))
  assert.equal(exposure(join(folder, 'link')), undefined)
})

test('a folder that others may write to is not safe; without the sticky bit, no folder below is safe', () => {
  for (const mode of [0o777, 0o1777, 0o770, 0o1770]) {
    const path = make('open', mode)
    const shown = `0${mode.toString(8)}`.slice(-4)
    assert.equal(exposure(path), `others may write to ${path} (mode ${shown})`)
  }
  make('loose', 0o777)
  assert.match(exposure(make('loose/own', 0o700)) ?? '', /^others may write to .*loose \(mode 0777\)$/)
  symlinkSync(join(folder, 'loose/own'), join(folder, 'detour'))
  assert.match(exposure(join(folder, 'detour')) ?? '', /^others may write to .*loose \(mode 0777\)$/)
})

test('`..` after a link is the parent of the folder to which the link leads', () => {
  make('outside', 0o777)
  make('outside/below', 0o700)
  make('inside', 0o700)
  symlinkSync(make('elsewhere/below', 0o700), join(folder, 'inside/away'))
  symlinkSync('away/..', join(folder, 'inside/safe')) // leads to `elsewhere`
  assert.equal(exposure(join(folder, 'inside/safe')), undefined)
  symlinkSync(join(folder, 'outside/below'), join(folder, 'inside/detour'))
  symlinkSync('detour/../below', join(folder, 'inside/link')) // leads through `outside`
  assert.match(exposure(join(folder, 'inside/link')) ?? '', /^others may write to .*outside \(mode 0777\)$/)
  make('sticky', 0o1777)
  make('sticky/below', 0o700)
  symlinkSync('../sticky/below/..', join(folder, 'inside/sticky')) // leads to `sticky`
  assert.match(exposure(join(folder, 'inside/sticky')) ?? '', /^others may write to .*sticky \(mode 1777\)$/)
})

test('a loop of links is an error', () => {
  symlinkSync('second', join(folder, 'first'))
  symlinkSync('first', join(folder, 'second'))
  assert.throws(() => exposure(join(folder, 'first')), { code: 'ELOOP' })
})

test("a path through another user's folder or link is not safe", { skip }, () => {
  const path = make('theirs/own', 0o700)
  chownSync(join(folder, 'theirs'), OTHER_USER, OTHER_USER)
  assert.equal(exposure(path), `${join(folder, 'theirs')} belongs to user ${OTHER_USER}`)
  const link = join(make('shared', 0o1777), 'link')
  symlinkSync(make('shared/own', 0o700), link)
  lchownSync(link, OTHER_USER, OTHER_USER)
  assert.equal(exposure(link), `${link} belongs to user ${OTHER_USER}`)
})
