/*
 * Calls to a daemon: arguments that cannot be encoded are refused, as on a device in this process.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import { MAX_AHS } from '../../../src/spec/classes/pd.ts'
import { Classes } from '../../../src/spec/classes.ts'
import type { AnyValues } from '../../../src/spec/schema/schema.ts'
import { RdmaError } from '../../../src/verbs/index.ts'
import { createCalls } from '../../../src/verbs/remote/messages.ts'

const native = { skip: !hasNative() && 'koffi is missing' }

test('a list or blob that is none is refused with a reason, and nothing is sent', native, () => {
  const call = createCalls({ ask: () => assert.fail('a request was sent') }, 1, 3)
  const reasonFor = (addresses: unknown): string => {
    try {
      call(Classes.pd, 'createAhs', 1, { addresses } as AnyValues)
    } catch (error) {
      if (error instanceof RdmaError) return `${error.code} ${error.reason}`
      throw error
    }
    return 'done'
  }
  const notList = `EINVAL attribute addresses: must be a list of at most ${MAX_AHS} records`
  for (const value of [null, 5, {}]) assert.equal(reasonFor(value), notList)
  assert.equal(reasonFor(new Array(MAX_AHS + 1).fill({})), notList)
  assert.equal(reasonFor([null]), 'EINVAL attribute addresses[0]: must be a record')
})
