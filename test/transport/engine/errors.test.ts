/*
 * Connections with one wrong request each: earlier requests succeed, later requests are flushed, and every request
 * completes once. A responder in ERR does not repeat a lost NAK or ACK. So over a bad link the wrong request, or an
 * earlier request, may complete with RETRY_EXC_ERR.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WcStatus } from '../../../src/spec/work.ts'
import { createRandom, type LinkOptions, linkNodes } from './link.ts'
import { createNode, LOCAL_KEY, MEMORY_BYTES, type SendSpec, type TestNode } from './node.ts'
import { ERR, FAA, READ, SEND, WRITE } from './requests.ts'

const { SUCCESS, LOC_LEN_ERR, LOC_PROT_ERR, WR_FLUSH_ERR } = WcStatus.values
const { REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, RETRY_EXC_ERR } = WcStatus.values
/** Requests and receive WQEs of each connection. */
const REQUESTS = 9
const RECEIVES = 12
/** No region has this lkey. */
const UNKNOWN_KEY = 1

interface Mistake {
  readonly name: string
  readonly spec: Omit<SendSpec, 'id'>
  /** Status of the wrong request. */
  readonly status: number
  /** Status of the receive WQE that the wrong request consumes. */
  readonly receiveStatus?: number
  /** The receive WQE that the wrong request consumes has a wrong lkey. */
  readonly hasWrongLkey?: boolean
}
const sges = [{ at: 0, length: 900 }]
const mistakes: readonly Mistake[] = [
  { name: 'WRITE, wrong key', spec: { opcode: WRITE, sges, rkey: LOCAL_KEY }, status: REM_ACCESS_ERR },
  { name: 'READ, wrong range', spec: { opcode: READ, sges, remote: MEMORY_BYTES - 16 }, status: REM_ACCESS_ERR },
  {
    name: 'SEND, too long',
    spec: { opcode: SEND, sges: [{ at: 0, length: 1300 }] },
    status: REM_INV_REQ_ERR,
    receiveStatus: LOC_LEN_ERR,
  },
  {
    name: 'SEND, wrong key of the receive buffer',
    spec: { opcode: SEND, sges },
    status: REM_OP_ERR,
    receiveStatus: LOC_PROT_ERR,
    hasWrongLkey: true,
  },
  {
    name: 'atomic, unaligned address',
    spec: { opcode: FAA, sges: [{ at: 0, length: 8 }], remote: 4 },
    status: REM_INV_REQ_ERR,
  },
  {
    name: 'SEND, wrong local key',
    spec: { opcode: SEND, sges: [{ at: 0, length: 9, key: UNKNOWN_KEY }] },
    status: LOC_PROT_ERR,
  },
]

/** Runs `count` connections, each with one mistake in a random request. */
const run = (seed: number, count: number, link: LinkOptions): void => {
  const random = createRandom(seed)
  const nodes: [TestNode, TestNode] = [createNode(), createNode()]
  const wire = linkNodes(nodes, link, random)
  // the index of the wrong request and the mistake, by connection
  const wrongIndexes: number[] = []
  const mistakesMade: Mistake[] = []
  for (let i = 0; i < count; i++) {
    const mistake = mistakes[i % mistakes.length]
    const wrong = Math.floor(random() * REQUESTS)
    wrongIndexes.push(wrong)
    mistakesMade.push(mistake)
    nodes.forEach((node, side) => {
      const row = node.createQp(100 + i)
      node.connect(row, { destQpn: 100 + i, pathMtu: 256, timeout: 8, sqPsn: i, rqPsn: i })
      wire.bind(side, 100 + i, row)
    })
    for (let k = 0; k < RECEIVES; k++) {
      const isWrong = mistake.hasWrongLkey === true && k === wrong
      nodes[1].postReceive(i, { id: k, sges: [{ at: 0x1_0000, length: 1200, key: isWrong ? UNKNOWN_KEY : LOCAL_KEY }] })
    }
    for (let k = 0; k < REQUESTS; k++)
      nodes[0].post(
        i,
        k === wrong ? { id: k, ...mistake.spec } : { id: k, opcode: SEND, sges: [{ at: 0, length: 300 * (k % 4) }] },
      )
  }
  while (wire.step()) {}
  // A requester in ERR does not notify its peer, so the test moves the peer to ERR.
  for (let i = 0; i < count; i++) nodes[1].engine.modify(i, ERR, {})
  const isLossless = link.drop === undefined
  for (let i = 0; i < count; i++) {
    const cqesOf = (side: number) => nodes[side].cqes.filter(c => c.qpn === 100 + i)
    const { name, status, receiveStatus } = mistakesMade[i]
    const wrong = wrongIndexes[i]
    const sends = cqesOf(0)
    assert.deepEqual(
      sends.map(c => c.id),
      [...Array(REQUESTS).keys()],
      name,
    )
    const failed = sends.findIndex(c => c.status !== SUCCESS)
    const failedStatus = sends[failed].status
    if (failedStatus === RETRY_EXC_ERR && !isLossless) assert.ok(failed <= wrong, name)
    else assert.deepEqual([failed, failedStatus], [wrong, status], name)
    assert.ok(
      sends.slice(failed + 1).every(c => c.status === WR_FLUSH_ERR),
      name,
    )
    const receives = cqesOf(1)
    assert.deepEqual(
      receives.map(c => c.id),
      [...Array(RECEIVES).keys()],
      name,
    )
    assert.ok(
      receives.slice(0, wrong).every(c => c.status === SUCCESS),
      name,
    )
    assert.equal(receives[wrong].status, receiveStatus ?? WR_FLUSH_ERR, name)
    assert.ok(
      receives.slice(wrong + 1).every(c => c.status === WR_FLUSH_ERR),
      name,
    )
  }
}

describe('one mistake on each connection', () => {
  it('ends the connection as the specification says', () => run(1, 120, {}))
  it('ends the connection over a bad link too; every request completes once', () =>
    run(2, 300, { drop: 0.05, duplicate: 0.05, reorder: 0.1 }))
})
