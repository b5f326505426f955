/*
 * Compare-and-swaps without effect: who wrote the word, and when the swap may have an effect yet.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { SWAPS } from '../../../src/tools/check/findings/swap-repeated.ts'
import { requestScenario, START } from './requests.ts'

const { RDMA_WRITE, ATOMIC_CMP_AND_SWP } = WrOpcode.values
const { RESET } = QpState.values
const RKEY = 0x200
const WORD = START + 64

const lockScenario = () => {
  const scenario = requestScenario()
  const { checker, peer, advance, post, complete, call, qp } = scenario
  const elements = [{ lkey: 0x100, address: START, length: 8 }]
  const remote = { rkey: RKEY, address: WORD, length: 8 }
  const swap = (expected: bigint, value: bigint, changes: Parameters<typeof post>[0] = {}): void => {
    advance(1)
    complete(post({ opcode: ATOMIC_CMP_AND_SWP, elements, remote, swap: { expected, value }, ...changes }))
  }
  /** The peer is connected to the same memory. */
  const byPeer = { owner: peer, number: 2 }
  return {
    ...scenario,
    byPeer,
    swap,
    write(changes: Parameters<typeof post>[0] = {}): void {
      advance(1)
      complete(post({ opcode: RDMA_WRITE, elements, remote, ...changes }))
    },
    spin(times = 1000): void {
      for (let i = 0; i < times; i++) swap(0n, 2n)
    },
    fail: (status: number) => complete(post({ opcode: ATOMIC_CMP_AND_SWP, elements, remote }), status),
    reset: () => call('rc_qp', 'modify', qp, { state: RESET }),
    /** The texts of the waits, if the word is `found`. */
    waits: (found: bigint | undefined) =>
      checker
        .need(SWAPS)
        .waits(() => found)
        .map(({ wait }) => wait),
  }
}

test('a thousand swaps without effect are a wait, which says what was expected and found', () => {
  const { spin, waits } = lockScenario()
  spin(999)
  assert.deepEqual(waits(1n), [])
  spin(1)
  const [wait] = waits(1n)
  assert.equal(
    wait?.text,
    'QP 0x1 repeats a compare-and-swap of the word at 0x10040 without effect: it expects 0x0 and finds 0x1; no request that is known has written that',
  )
  assert.deepEqual([wait?.severity, wait?.advice], ['note', undefined])
  assert.deepEqual(waits(0n), [])
  assert.deepEqual(waits(undefined), [])
})

test('the writer is the queue pair whose swap has put in the word, with its end', () => {
  const { swap, spin, byPeer, waits, checker } = lockScenario()
  swap(0n, 1n, byPeer)
  spin()
  assert.match(waits(1n)[0]?.text ?? '', /; QP 0x2 of process 1 \(client\) has written that \(ATOMIC_CMP_AND_SWP /)
  checker.event({ event: 'contextEnds', context: 0, how: 'kill', pendingSends: new Map() })
  const [wait] = waits(1n)
  assert.match(wait?.text ?? '', /QP 0x2 of process 1 \(client\), whose process has ended, has written that/)
  assert.equal(wait?.severity, 'warning')
})

test('a word of the other byte order is told with the WRITE that wrote it', () => {
  const { write, spin, waits, swap } = lockScenario()
  write()
  spin()
  for (let i = 0; i < 1000; i++) swap(7n, 8n)
  const [wait] = waits(7n << 56n)
  assert.match(wait?.text ?? '', /finds 0x700000000000000, which is 0x7 in the other byte order; QP 0x1 .*\(WRITE /)
  assert.match(wait?.advice ?? '', /byte order of the host/)
})

test('a lock that others give back meanwhile is no wait', () => {
  for (const unlock of ['write', 'swap'] as const) {
    const { swap, write, spin, byPeer, waits } = lockScenario()
    swap(0n, 1n, byPeer)
    spin()
    if (unlock === 'write') write(byPeer)
    else swap(1n, 0n, byPeer)
    swap(0n, 1n, byPeer)
    assert.deepEqual(waits(1n), [], unlock)
  }
})

test('a lock that the program itself gives back, another word and a failure begin anew', () => {
  const own = lockScenario()
  own.spin()
  own.write()
  assert.deepEqual(own.waits(1n), [])
  const other = lockScenario()
  other.spin()
  other.swap(1n, 0n)
  other.spin(999)
  assert.deepEqual(other.waits(1n), [])
  const failed = lockScenario()
  failed.spin()
  failed.fail(WcStatus.values.REM_ACCESS_ERR)
  assert.deepEqual(failed.waits(1n), [])
})
