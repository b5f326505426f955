/*
 * Chains in a trace (R16, R46).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ChainErrors } from '../../../src/spec/classes/device/interface.ts'
import { Errno } from '../../../src/spec/errno.ts'
import type { Place } from '../../../src/spec/reason.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import type { AnyValues } from '../../../src/spec/schema/schema.ts'
import { messagesOf } from '../../../src/tools/trace/call-messages.ts'
import { callJson, callLine } from '../../../src/tools/trace/calls.ts'
import { classesOf, isSelected } from '../../../src/tools/trace/select.ts'
import { createSummary, summaryJson, summaryText } from '../../../src/tools/trace/summary.ts'
import type { Call, Result } from '../../../src/uapi/call.ts'
import { type ChainLink, chainEntries, encodeChain } from '../../../src/uapi/object/chain.ts'
import { decodeMessage } from '../../../src/uapi/object/dialect.ts'
import { fakeView, rxeSchema } from '../../uapi/fake-view.ts'

const callOf = (className: string, methodName: string, args: AnyValues = {}, object = 0): Call => {
  const cls = rxeSchema.classByName(className)!
  return { class: cls, methodName, method: cls.methods[methodName], object, args }
}

const memory = { start: 0x10000n, length: 4096n, iova: 0x10000n, access: 1 }
const links: readonly ChainLink[] = [
  { call: callOf('pd', 'create') },
  { call: callOf('mr', 'create', { pd: 0, ...memory }), refs: { pd: 0 } },
  { call: callOf('mr', 'query'), object: 1 },
  { call: callOf('cq', 'destroy', {}, 9) },
]
const outcomes: readonly Result[] = [
  { object: 5, out: {} },
  { object: 6, out: { lkey: 0x2b, rkey: 0 } },
  { out: { lkey: 0x2b, rkey: 0, length: 4096n, iova: 0x10000n } },
]

/** The chain's bytes; the first `results.length` entries are answered. */
const answered = (entries: Uint8Array, results: readonly Result[]): Uint8Array => {
  const bytes = entries.slice()
  // A reference is not resolved: its value remains the number of the entry.
  const view = { ...fakeView(), chained: (_where: Place, _of: unknown, entry: number) => entry }
  chainEntries(bytes)
    .slice(0, results.length)
    .forEach(({ call, at, message }, i) => {
      bytes.set(decodeMessage(view, call, message).answer(results[i]).message, at)
    })
  return bytes
}

const recordOf = (entries: Uint8Array, out: AnyValues, onError = ChainErrors.values.STOP): TraceRecord => ({
  time: 0,
  duration: 100,
  pid: 1,
  tid: 1,
  fd: 3,
  command: 'x',
  device: 'rxe0',
  dialect: 'object',
  call: messagesOf(fakeView(), callOf('interface', 'chain', { entries, onError }), { out }),
  ret: 0,
})

const entries = encodeChain(links)
const reason = new TextEncoder().encode('cq.destroy: there is no object 9')
const failedChain = recordOf(entries, { results: answered(entries, outcomes), done: 3, error: Errno.ENOENT, reason })

describe('a chain', () => {
  it('is shown with its entries, references between entries, and the reason of a failure', () => {
    assert.equal(
      callLine(failedChain),
      '[pid 1 x] fd 3 interface.chain(onError STOP, entries [pd.create(), ' +
        'mr.create(pd entry 0, start 65536, length 4096, iova 65536, access LOCAL_WRITE), ' +
        'mr.query(object entry 1), cq.destroy(object 9)]) = 0 {done 3, results [{object 5}, ' +
        '{object 6, lkey 0x2b, rkey 0x0}, {lkey 0x2b, rkey 0x0, length 4096, iova 65536}], ' +
        'entry 3 ENOENT (cq.destroy: there is no object 9)} <0.000100>',
    )
  })

  it('has entries as calls in JSON', () => {
    const { args, chain, out } = callJson(failedChain)
    assert.deepEqual(args, { onError: 'STOP' })
    assert.deepEqual(out, { done: 3 })
    assert.deepEqual(chain, [
      { class: 'pd', method: 'create', object: 5, args: {}, out: {} },
      {
        class: 'mr',
        method: 'create',
        object: 6,
        args: { pd: { entry: 0 }, start: '65536', length: '4096', iova: '65536', access: ['LOCAL_WRITE'] },
        out: { lkey: 0x2b, rkey: 0 },
      },
      {
        class: 'mr',
        method: 'query',
        object: { entry: 1 },
        args: {},
        out: { lkey: 0x2b, rkey: 0, length: '4096', iova: '65536' },
      },
      {
        class: 'cq',
        method: 'destroy',
        object: 9,
        args: {},
        error: 'ENOENT',
        reason: 'cq.destroy: there is no object 9',
      },
    ])
  })

  it('is abridged if it has many entries, and complete on demand', () => {
    const many = encodeChain(Array.from({ length: 3000 }, () => ({ call: callOf('pd', 'create') })))
    const record = recordOf(many, { results: many, done: 0, error: 0 })
    assert.match(callLine(record), /entries \[(pd\.create\(\), ){4}… 2996 more\]\) = 0 \{done 0, results \[\]\}/)
    assert.equal(callLine(record, { verbose: true }).match(/pd\.create\(\)/g)?.length, 3000)
  })

  it('matches the classes of its entries, and is an error if one entry failed', () => {
    assert.deepEqual([...new Set(classesOf(failedChain))], ['interface', 'pd', 'mr', 'cq'])
    assert.ok(isSelected(failedChain, { classes: new Set(['cq']), onlyFailed: true }))
    assert.ok(!isSelected(failedChain, { classes: new Set(['ah']) }))
    const successfulChain = recordOf(entries, { results: answered(entries, outcomes), done: 3, error: 0 })
    assert.ok(!isSelected(successfulChain, { onlyFailed: true }))
    const summary = createSummary()
    for (const record of [failedChain, successfulChain]) summary.add(record)
    assert.deepEqual(
      summary.rows().map(({ name, calls, errors }) => [name, calls, errors]),
      [['interface.chain', 2, 1]],
    )
    assert.deepEqual(summaryText(summary).split('\n').slice(-8), [
      '100.00    0.000200         100         2         1 total',
      '',
      'in chains    errors method',
      '--------- --------- ------------------------',
      '        2           mr.create',
      '        2           mr.query',
      '        2           pd.create',
      '        1         1 cq.destroy',
    ])
    assert.deepEqual(
      summaryJson(summary).map(({ method, inChains, errors }) => [method, inChains, errors]),
      [
        ['interface.chain', undefined, 1],
        ['mr.create', 2, 0],
        ['mr.query', 2, 0],
        ['pd.create', 2, 0],
        ['cq.destroy', 1, 1],
        ['total', undefined, 1],
      ],
    )
  })

  it('is shown as bytes if malformed; an entry of an unknown class is shown as bytes', () => {
    assert.match(callLine(recordOf(Uint8Array.of(1, 2, 3), { done: 0, error: 0 })), /chain\(entries 010203, onError/)
    const unknownEntries = entries.slice()
    // Changes the class id of the first entry's message.
    unknownEntries[10] = 0x77
    unknownEntries[11] = 0x77
    assert.match(callLine(recordOf(unknownEntries, { done: 0, error: 0 })), /\[\(class 30583, call 0, 1000777700/)
  })

  it('is shown without an exception if random bytes of it change', () => {
    const change = fc.array(fc.tuple(fc.nat(entries.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(change, change, fc.nat(9), (messageChange, answerChange, done) => {
        const [message, answer] = [entries.slice(), answered(entries, outcomes)]
        for (const [at, byte] of messageChange) message[at] = byte
        for (const [at, byte] of answerChange) answer[at] = byte
        // `done` also serves as the errno.
        const record = recordOf(message, { results: answer, done, error: done })
        assert.ok(callLine(record).length < 20_000)
        JSON.stringify(callJson(record))
      }),
    )
  })
})
