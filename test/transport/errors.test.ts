/*
 * Many connections with one mistake each: earlier requests complete with success, the wrong one with its status, later
 * ones are flushed, each exactly once, on both sides, under any loss. If a NAK is lost, the peer is in error and no
 * longer answers, so over a bad link the retries may run out instead.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createRandom, joinNodes, type LinkOptions } from './link.ts'
import { createNode, LOCAL_KEY, type SendSpec, type TestNode } from './node.ts'

const [SUCCESS, LOC_LEN, , , LOC_PROT, FLUSH] = [0, 1, 2, 3, 4, 5]
const [REM_INV_REQ, REM_ACCESS, REM_OP, RETRY_EXC] = [9, 10, 11, 12]
const REQUESTS = 9
const RECEIVES = 12

interface Mistake {
  readonly what: string
  readonly spec: Omit<SendSpec, 'id'>
  /** Status of the wrong request, and of the receive WQE that it consumes, if any. */
  readonly status: number
  readonly receive?: number
  /** The receive WQE's buffer lies outside the memory region. */
  readonly badBuffer?: boolean
}
const sges = [{ at: 0, length: 900 }]
const mistakes: readonly Mistake[] = [
  { what: 'WRITE, wrong key', spec: { opcode: 0, sges, rkey: LOCAL_KEY }, status: REM_ACCESS },
  { what: 'READ, wrong range', spec: { opcode: 4, sges, remote: 0x1_fff0 }, status: REM_ACCESS },
  {
    what: 'SEND, too long',
    spec: { opcode: 2, sges: [{ at: 0, length: 1300 }] },
    status: REM_INV_REQ,
    receive: LOC_LEN,
  },
  { what: 'SEND, bad buffer', spec: { opcode: 2, sges }, status: REM_OP, receive: LOC_PROT, badBuffer: true },
  { what: 'atomic, odd address', spec: { opcode: 6, sges: [{ at: 0, length: 8 }], remote: 4 }, status: REM_INV_REQ },
  { what: 'SEND, wrong local key', spec: { opcode: 2, sges: [{ at: 0, length: 9, key: 1 }] }, status: LOC_PROT },
]

const run = (seed: number, count: number, link: LinkOptions): void => {
  const random = createRandom(seed)
  const nodes: [TestNode, TestNode] = [createNode(), createNode()]
  const wire = joinNodes(nodes, link, random)
  const wrongAt: number[] = []
  const mistakeOf: Mistake[] = []
  for (let i = 0; i < count; i++) {
    const mistake = mistakes[i % mistakes.length]
    const wrong = Math.floor(random() * REQUESTS)
    wrongAt.push(wrong)
    mistakeOf.push(mistake)
    nodes.forEach((node, side) => {
      const row = node.createQp(100 + i)
      node.connect(row, { destQpn: 100 + i, pathMtu: 256, timeout: 8, sqPsn: i, rqPsn: i })
      wire.bind(side, 100 + i, row)
    })
    for (let k = 0; k < RECEIVES; k++) {
      const bad = mistake.badBuffer === true && k === wrong
      nodes[1].postReceive(i, { id: k, sges: [{ at: 0x1_0000, length: 1200, key: bad ? 1 : LOCAL_KEY }] })
    }
    for (let k = 0; k < REQUESTS; k++)
      nodes[0].post(
        i,
        k === wrong ? { id: k, ...mistake.spec } : { id: k, opcode: 2, sges: [{ at: 0, length: 300 * (k % 4) }] },
      )
  }
  while (wire.step()) {}
  // A requester in error does not notify its peer, so the test moves the peer to error.
  for (let i = 0; i < count; i++) nodes[1].engine.modify(i, 6, {})
  const lossless = link.drop === undefined
  for (let i = 0; i < count; i++) {
    const mine = (side: number) => nodes[side].cqes.filter(c => c.qpn === 100 + i)
    const { what, status, receive } = mistakeOf[i]
    const wrong = wrongAt[i]
    const sends = mine(0)
    assert.deepEqual(
      sends.map(c => c.id),
      [...Array(REQUESTS).keys()],
      what,
    )
    const failed = sends.findIndex(c => c.status !== SUCCESS)
    const found = sends[failed].status
    if (found === RETRY_EXC && !lossless) assert.ok(failed <= wrong, what)
    else assert.deepEqual([failed, found], [wrong, status], what)
    assert.ok(
      sends.slice(failed + 1).every(c => c.status === FLUSH),
      what,
    )
    const receives = mine(1)
    assert.deepEqual(
      receives.map(c => c.id),
      [...Array(RECEIVES).keys()],
      what,
    )
    assert.ok(
      receives.slice(0, wrong).every(c => c.status === SUCCESS),
      what,
    )
    assert.equal(receives[wrong].status, receive ?? FLUSH, what)
    assert.ok(
      receives.slice(wrong + 1).every(c => c.status === FLUSH),
      what,
    )
  }
}

describe('one mistake on each connection', () => {
  it('ends the connection as the specification says', () => run(1, 120, {}))
  it('ends a connection over a bad link too, with every request completed once', () =>
    run(2, 300, { drop: 0.05, duplicate: 0.05, reorder: 0.1 }))
})
