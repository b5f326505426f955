/*
 * Findings about buffers, from scripts of requests, completions and polls in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../src/spec/check/requests.ts'
import { PostQueue } from '../../src/spec/session.ts'
import { LKEY, requestWorld, START } from './requests.ts'

const at = (from: number, length: number) => ({ length, elements: [{ address: START + from, length, lkey: LKEY }] })
const receive = (from: number, length: number): Partial<WorkRequest> => ({
  queue: PostQueue.RECEIVE,
  opcode: -1,
  ...at(from, length),
})
const READ = 4

it('a region is deregistered with requests outstanding: an error for sends, a warning for receives', () => {
  const send = requestWorld()
  send.post()
  send.destroy('mr', send.region)
  assert.deepEqual(send.ids(), ['region-in-use error'])
  const other = requestWorld()
  other.post(receive(0, 64))
  other.destroy('mr', other.region)
  assert.deepEqual(other.ids(), ['region-in-use warning'])
  const none = requestWorld()
  none.complete(none.post())
  none.poll(1)
  none.post({ elements: [{ address: START, length: 64, lkey: LKEY + 1 }] })
  none.destroy('mr', none.region)
  assert.deepEqual(none.ids(), [])
})

it('a change to the buffer of an outstanding send is found; a change to the buffer of a READ is not', () => {
  for (const [opcode, ids] of [
    [2, ['send-buffer-changed warning']],
    [READ, []],
  ] as const) {
    const w = requestWorld()
    const same = w.post({ opcode })
    w.complete(same)
    const changed = w.post({ opcode, ...at(1000, 64) })
    w.bytes.hash++
    w.complete(changed)
    assert.deepEqual(w.ids(), ids)
  }
})

it('the first 16 requests of a queue are checked, and then every 16th', () => {
  const w = requestWorld()
  let checked = 0
  for (let index = 0; index < 1000; index++) {
    const request = w.post({ index })
    w.bytes.hash++
    const before = w.checker.counts[0] ?? 0
    w.complete(request)
    checked += (w.checker.counts[0] ?? 0) - before
  }
  assert.equal(checked, 16 + Math.floor(999 / 16))
})

it("with buffers: 'all', all bytes of all requests are checked", () => {
  for (const [buffers, ids] of [
    ['sampled', []],
    ['all', ['send-buffer-changed warning']],
  ] as const) {
    const w = requestWorld({ buffers })
    const request = w.post({ index: 17 })
    w.bytes.rest++
    w.complete(request)
    assert.deepEqual(w.ids(), ids)
  }
})

it('overlapping receives are a note, and a warning once one message overwrites another', () => {
  const w = requestWorld()
  const first = w.post(receive(0, 100))
  w.post(receive(100, 100))
  assert.deepEqual(w.ids(), [])
  const second = w.post(receive(50, 100))
  assert.deepEqual(w.ids(), ['receive-overlap note'])
  w.complete({ ...first, length: 20 })
  w.complete({ ...second, length: 20 })
  assert.equal(w.found.length, 1, 'short messages do not overlap')
  w.poll(2)
  const [third, fourth] = [w.post(receive(0, 100)), w.post(receive(0, 100))]
  w.complete(third)
  w.poll(3)
  w.complete(fourth)
  assert.equal(w.found.length, 1, 'the first message was polled before the second arrived')
  for (const one of [w.post(receive(0, 100)), w.post(receive(0, 100))]) w.complete(one)
  assert.deepEqual(w.ids(), ['receive-overlap note', 'receive-overlap warning'])
})

it('buffers of sends may overlap, buffers of READs may not', () => {
  const w = requestWorld()
  w.post(at(0, 64))
  w.post(at(0, 64))
  assert.deepEqual(w.ids(), [])
  w.post({ opcode: READ, ...at(200, 64) })
  w.post({ opcode: READ, ...at(200, 64) })
  assert.deepEqual(w.ids(), ['receive-overlap note'])
})

it('registered memory that is unmapped is found, and an outstanding request named', () => {
  const w = requestWorld()
  w.checker.unmapped(w.region)
  assert.deepEqual(w.ids(), ['region-unmapped warning'])
  w.post()
  w.checker.unmapped(w.region)
  assert.match(w.found[1]!.text, /while QP 0x1 has WRITE wr_id \d+ outstanding$/)
})
