/*
 * What hosts tell each other of queue pairs, as text.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { StoryLine } from '../../src/spec/check/finding.ts'
import { type PeerFacts, peerFactsText, readPeerFacts } from '../../src/spec/check/peer-facts.ts'

const facts: PeerFacts = {
  device: 'rxe0',
  clock: 1e15,
  state: 3,
  qp: {
    handle: 1,
    class: 'rc_qp',
    program: { pid: 1, command: 'server' },
    history: [{ action: 'created', time: 1, stack: ['main (a.c:1)'] }],
    isDestroyed: false,
    args: {},
    out: { qpNum: 0x11 },
    attributes: { address: { dgid: new Uint8Array(16).fill(7), sgidIndex: 1 } },
    failure: { kind: 'send', device: 'rxe0', cause: { id: 'RKEY_UNKNOWN', args: { accessStart: 2n ** 63n, key: 1 } } },
  },
  regions: [],
  story: [],
}
const line: StoryLine = {
  time: 1,
  object: 'QP 0x11',
  event: 'posted',
  text: 'posted',
  stack: ['x'.repeat(1000)],
  count: 1,
}

test('numbers and addresses pass unchanged', () => {
  assert.deepEqual(readPeerFacts(peerFactsText(facts)), facts)
})

test('what is too long loses its oldest lines, and then all', () => {
  const lines = (count: number, one = line): PeerFacts => ({
    ...facts,
    story: Array.from({ length: count }, () => one),
  })
  assert.equal(readPeerFacts(peerFactsText(lines(20)))?.story.length, 20)
  assert.equal(readPeerFacts(peerFactsText(lines(10_000)))?.story.length, 8)
  const huge = { ...line, stack: ['x'.repeat(10_000)] }
  assert.deepEqual(readPeerFacts(peerFactsText(lines(10_000, huge))), facts)
})

test('other texts are no facts', () => {
  for (const text of ['', 'null', '{}', '[]', '{"device":1}', '{"device":"a","regions":1,"story":[]}'])
    assert.equal(readPeerFacts(text), undefined, text)
})
