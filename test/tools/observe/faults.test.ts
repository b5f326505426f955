/*
 * What observed programs are told to do by fault rules, byte by byte.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createProgramFaults } from '../../../src/faults/program-faults.ts'
import { parseFaults } from '../../../src/faults/rules.ts'
import { vendorErrorOf } from '../../../src/spec/check/causes.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { ObservedFaults, questionOf } from '../../../src/tools/observe/faults.ts'
import { AskKind } from '../../../src/tools/observe/file-layout.ts'
import type { ObservedContext, ObservedObject } from '../../../src/tools/observe/objects.ts'
import type { ObservedPost } from '../../../src/tools/observe/records.ts'
import { structBytes } from './structs.ts'

const TID = 5
const qp = { id: 20, class: { name: 'rc_qp' } } as ObservedObject
const context = {
  device: { name: 'mlx5_0', qps: new Map([[0x11, qp]]) },
  process: { program: { pid: 7, command: 'test' } },
} as unknown as ObservedContext
const faultsOf = (rules: string): ObservedFaults => new ObservedFaults(createProgramFaults(parseFaults(rules)))
const answer = (values: Record<string, number | bigint>): Uint8Array => structBytes('answer', values)

describe('a question', () => {
  const completions = [
    { wrId: 2n ** 63n, opcode: 1, qpn: 0x11, canFail: true },
    { wrId: 3n, opcode: 128, qpn: 0x12, canFail: false },
  ]
  const head = { kind: AskKind.COMPLETIONS, pid: 1, tid: 2, fd: -3, queue: 4, number: 5, count: 2 }
  const bytes = Buffer.concat([
    structBytes('question', head),
    ...completions.map(one => structBytes('polledCompletion', { ...one, canFail: Number(one.canFail) })),
  ])

  it('is read once all of its bytes have come', () => {
    assert.deepEqual(questionOf(bytes), { ...head, completions })
    for (let length = 0; length < bytes.length; length++) assert.equal(questionOf(bytes.subarray(0, length)), undefined)
    const post = { ...head, kind: AskKind.POST, count: 4000 }
    assert.deepEqual(questionOf(structBytes('question', post)), { ...post, completions: [] })
  })

  it('is refused if it is about more completions than a poll returns', () =>
    assert.throws(() => questionOf(structBytes('question', { ...head, count: 65 })), RangeError))
})

describe('answers', () => {
  it('delay and fail calls', () => {
    const faults = faultsOf('call=mr.create,delay=2ms;call=cq.create,errno=ENOMEM')
    assert.equal(faults.asks, AskKind.CALL)
    assert.deepEqual(faults.onCall(TID, context, 'mr.create', []), answer({ delay: 2_000_000 }))
    assert.equal(faults.takeCall(TID), undefined)
    assert.deepEqual(faults.onCall(TID, context, 'cq.create', []), answer({ error: Errno.ENOMEM }))
    assert.equal(faults.takeCall(TID + 1), undefined)
    assert.equal(faults.takeCall(TID)?.number, 2)
    assert.equal(faults.takeCall(TID), undefined)
    assert.deepEqual(faults.onCall(TID, context, undefined, []), answer({}))
  })

  it('refuse posts from the first request that a rule is for, of the last posts of the thread', () => {
    const faults = faultsOf('post=EIO,request=WRITE,qp=0x11')
    const posts = (...opcodes: number[]): ObservedPost[] =>
      opcodes.map(opcode => ({ opcode, wrId: 1n, elements: [], flags: 0 }) as unknown as ObservedPost)
    const { SEND, RDMA_WRITE } = WrOpcode.values
    const ask = (count: number, qpn = 0x11) => faults.onPosts(TID, context, 'rc_qp', qpn, count, () => [])
    faults.posted(TID, posts(RDMA_WRITE))
    faults.posted(TID, posts(SEND, RDMA_WRITE, RDMA_WRITE))
    assert.deepEqual(ask(3), answer({ error: Errno.EIO, index: 1 }))
    assert.equal(faults.takeRefused(TID)?.number, 1)
    faults.posted(TID, posts(RDMA_WRITE))
    assert.deepEqual(ask(1, 0x12), answer({}))
    // Not all of them are known.
    faults.posted(TID, posts(RDMA_WRITE))
    assert.deepEqual(ask(2), answer({}))
  })

  it('fail a completion, and flush the later ones of its queue pair until this is reset', () => {
    const faults = faultsOf('completion=WRITE,status=RETRY_EXC_ERR,nth=2')
    const completion = (wrId: bigint, more = {}) => ({
      wrId,
      opcode: WcOpcode.values.RDMA_WRITE,
      qpn: 0x11,
      canFail: true,
      ...more,
    })
    const ask = (...list: ReturnType<typeof completion>[]) => faults.onCompletions(context, list, () => [])
    const verdict = (values: Record<string, number>): Uint8Array => structBytes('completionVerdict', values)
    const flushed = verdict({ status: WcStatus.values.WR_FLUSH_ERR, vendorErr: vendorErrorOf('FLUSHED') })
    const failed = verdict({
      status: WcStatus.values.RETRY_EXC_ERR,
      vendorErr: vendorErrorOf('INJECTED'),
      fails: 1,
    })
    const other = completion(9n, { qpn: 0x99 })
    const failedBefore = completion(8n, { canFail: false })
    assert.deepEqual(
      ask(completion(1n), other, failedBefore, completion(2n), completion(3n)),
      Uint8Array.from(Buffer.concat([verdict({}), verdict({}), verdict({}), failed, flushed])),
    )
    assert.deepEqual(
      [1n, 2n, 2n].map(wrId => faults.takeCompletion(qp, wrId)?.number),
      [undefined, 1, undefined],
    )
    // The rule has acted, but what the adapter completes still is flushed.
    assert.equal(faults.asks, AskKind.COMPLETIONS)
    faults.reset(qp.id)
    assert.equal(faults.asks, 0)
    assert.deepEqual(ask(completion(4n)), verdict({}))
  })
})
