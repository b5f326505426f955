/*
 * Merge patches.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { applyPatch, mergePatch, patchPieces } from '../../src/uapi/merge-patch.ts'

/** With an own field `__proto__`. */
const proto = (a: number): unknown => JSON.parse(`{"__proto__":{"a":${a}}}`)

const cases: readonly (readonly [name: string, before: unknown, after: unknown, patch: unknown])[] = [
  ['equal values', { a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }, undefined],
  ['a changed field', { a: 1, b: { c: 2, d: 3 } }, { a: 1, b: { c: 2, d: 4 } }, { b: { d: 4 } }],
  ['a new and a removed field', { a: { b: 1 } }, { a: { c: 1 } }, { a: { b: null, c: 1 } }],
  ['a list, which is replaced', { a: [1, 2] }, { a: [1] }, { a: [1] }],
  ['an object in place of a number', { a: 1 }, { a: { b: 1 } }, { a: { b: 1 } }],
  ['a name of Object.prototype', proto(1), proto(2), proto(2)],
]

for (const [name, before, after, patch] of cases)
  test(`the merge patch of ${name} has only the difference`, () => {
    assert.deepEqual(mergePatch(before, after), patch)
    const text = [...patchPieces(before, after)].join('')
    assert.deepEqual(text === '' ? undefined : JSON.parse(text), patch)
    assert.equal([...patchPieces(undefined, after)].join(''), JSON.stringify(after))
    if (patch !== undefined) assert.deepEqual(applyPatch(before, JSON.parse(JSON.stringify(patch))), after)
  })
