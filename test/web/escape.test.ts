/*
 * Texts of a session are hostile: the page never makes HTML or links of them.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { filesBelow } from '../tools.ts'

test('the page makes no HTML of texts, and no code', () => {
  const sources = filesBelow(`${repoRoot}/web`).filter(path => /\.tsx?$/.test(path))
  assert.ok(sources.length > 10)
  for (const path of sources)
    assert.doesNotMatch(
      readFileSync(path, 'utf8'),
      /dangerouslySetInnerHTML|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:/,
      path,
    )
})
