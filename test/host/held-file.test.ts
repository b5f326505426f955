/*
 * Files that are removed by name only if they are the files that were held.
 */
import assert from 'node:assert/strict'
import { closeSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { holdFile, isAt, removeHeld } from '../../src/host/held-file.ts'
import { scratchFolder } from '../tools.ts'

const path = join(scratchFolder(), 'file')

test('a held file or folder is removed', () => {
  for (const make of [() => writeFileSync(path, 'own'), () => mkdirSync(join(path, 'sub'), { recursive: true })]) {
    make()
    const held = holdFile(path)
    assert.equal(isAt(path, held), true)
    removeHeld(path, held)
    assert.equal(existsSync(path), false)
    removeHeld(path, held)
    closeSync(held)
  }
})

test("another process's file of the same name stays, even if its inode number could be used again", () => {
  writeFileSync(path, 'own')
  const held = holdFile(path)
  rmSync(path)
  writeFileSync(path, 'other')
  assert.equal(isAt(path, held), false)
  removeHeld(path, held)
  assert.equal(readFileSync(path, 'utf8'), 'other')
  closeSync(held)
})

test('a link is held itself, not its target', () => {
  const link = `${path}.link`
  symlinkSync(path, link)
  const held = holdFile(link)
  assert.equal(isAt(path, held), false)
  removeHeld(link, held)
  assert.equal(existsSync(path), true)
  closeSync(held)
})
