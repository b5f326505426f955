/* Regular expressions of filters: the same answers as JavaScript's, without its exponential time. */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { compileRegex } from '../../web/filter/regex.ts'

it('matches what RegExp matches', () => {
  const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\d', '\\W', '^', '$', '(a|b)', '(ab)', '(a|)')
  const part = fc
    .tuple(atom, fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,2}', '{0,}'))
    .map(([a, b]) => (a === '^' || a === '$' ? a : a + b))
  const pattern = fc.array(part, { maxLength: 5 }).map(parts => parts.join(''))
  const text = fc.array(fc.constantFrom('a', 'b', 'A', '1', ' '), { maxLength: 8 }).map(chars => chars.join(''))
  fc.assert(
    fc.property(pattern, pattern, text, (one, other, subject) => {
      const source = `${one}|x${other}`
      assert.equal(compileRegex(source)(subject), new RegExp(source, 'i').test(subject))
    }),
  )
})

it('ends for patterns that make a backtracking matcher hang', () => {
  const matches = compileRegex('^(a+)+(a|aa)*(a*)*$')
  assert.equal(matches(`${'a'.repeat(5000)}!`), false)
  assert.equal(matches('a'.repeat(5000)), true)
})
