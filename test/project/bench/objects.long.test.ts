/*
 * The memory of idle objects of every kind.
 */
import { describe, it } from 'node:test'
import { assertSmall, LIMITS } from './idle-objects.ts'

describe('an idle object', { concurrency: 2 }, () => {
  for (const [kind, limit] of Object.entries(LIMITS) as [keyof typeof LIMITS, number][])
    it(`${kind} takes at most ${limit} bytes`, () => assertSmall(kind))
})
