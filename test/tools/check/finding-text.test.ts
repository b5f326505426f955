/*
 * Frames of V8 and Python in findings.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { v8Frame } from '../../../src/tools/check/finding-text.ts'

test('a frame has function, path and line, also outside of functions and after an `await`', () => {
  const cases: readonly (readonly [text: string, name: string, file?: string])[] = [
    ['at Queue.post (file:///opt/app.js:3:5)', 'Queue.post', '/opt/app.js'],
    ['Queue.post (/opt/app.js:3:5)', 'Queue.post', '/opt/app.js'],
    ['async Queue.post (file:///opt/app.js:3:5)', 'async Queue.post', '/opt/app.js'],
    ['file:///opt/app.js:3:5', '<anonymous>', '/opt/app.js'],
    ['at async file:///opt/app.js:3:5', '<anonymous>', '/opt/app.js'],
    ['async /opt/app.js:3:5', '<anonymous>', '/opt/app.js'],
    ['async Promise.all (index 0)', 'async Promise.all (index 0)'],
    ['main (/opt/app.py:3)', 'main', '/opt/app.py'],
  ]
  for (const [text, name, file] of cases) {
    const source = file === undefined ? {} : { file, line: 3 }
    assert.deepEqual(
      v8Frame(text, path => path),
      { function: name, ...source },
    )
  }
})

test('the path of a file URL is decoded; other paths and invalid encodings stay as they are', () => {
  const fileOf = (text: string): string | undefined => v8Frame(text, path => path).file
  assert.equal(fileOf('post (file:///opt/my%20app/%C3%BC.js:3:5)'), '/opt/my app/ü.js')
  assert.equal(fileOf('post (/opt/my%20app.js:3:5)'), '/opt/my%20app.js')
  assert.equal(fileOf('post (file:///opt/100%.js:3:5)'), '/opt/100%.js')
})
