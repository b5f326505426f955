/*
 * Calls to a daemon: encoding of arguments, and decoding of the longest result.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasNative } from '../../../../src/host/native.ts'
import { RdmaError } from '../../../../src/library/index.ts'
import { callMemory } from '../../../../src/library/verbs/remote/call-memory.ts'
import { createCalls } from '../../../../src/library/verbs/remote/messages.ts'
import { MAD_RECEIVED_BYTES } from '../../../../src/spec/classes/mad/mad_channel.ts'
import { MAX_AHS } from '../../../../src/spec/classes/pd.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import type { AnyValues } from '../../../../src/spec/schema/schema.ts'
import { decodeObject } from '../../../../src/uapi/object/dialect.ts'
import { newReply } from '../../../../src/uapi/session-codec.ts'
import { fakeView } from '../../../uapi/fake-view.ts'

const [CONTEXT, FD] = [1, 3]
const native = { skip: !hasNative() && 'koffi is missing' }

test('a value that is no list, a list that is too long, or an element that is no record is refused', native, () => {
  const call = createCalls({ ask: () => assert.fail('a request was sent') }, CONTEXT, FD)
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

test('the longest management message is received', native, () => {
  const data = new Uint8Array(MAD_RECEIVED_BYTES).fill(7)
  const ask = () => {
    const { address, bytes } = callMemory()
    const at = (offset: bigint) => Number(offset) - address
    const view = {
      ...fakeView(),
      copyIn: (from: bigint, length: number) => bytes.slice(at(from), at(from) + length),
      copyOut: (to: bigint, written: Uint8Array) => bytes.set(written, at(to)),
    }
    const decoded = decodeObject(view, Classes.mad_channel.methods.receive.call, BigInt(address))
    assert.ok('call' in decoded)
    const { ret } = decoded.answer({ out: { agent: 0, status: 0, length: data.length, data } })
    return { reply: { ...newReply(), ret: BigInt(ret) }, fds: [] }
  }
  const { out } = createCalls({ ask }, CONTEXT, FD)(Classes.mad_channel, 'receive', 5, { bufferBytes: data.length })
  assert.deepEqual(out.data, data)
})
