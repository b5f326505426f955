/*
 * Each failure of the engine says why: the sentence that is told, and the code in the completion (spec/causes.ts). That
 * every failure in any test of the engine has a cause which the table knows for it is checked by node.ts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { because, type CauseName, causes, causeText } from '../../src/spec/causes.ts'
import { Service } from '../../src/spec/wire/services.ts'
import { joinNodes } from './link.ts'
import { createNode, MEMORY_BASE } from './node.ts'
import { ERR, FAA, NAK, READ, rnr, SEND, sge, T14, WRITE, wr } from './requests.ts'
import { packet, RQ, startScript } from './script.ts'

type Script = ReturnType<typeof startScript>

const hex = (at: number): string => `0x${(MEMORY_BASE + BigInt(at)).toString(16)}`
const tooLong = { sges: [1, 2, 3].map(() => ({ at: 0, length: 0x4000_0000 })) }

/** Cause, its sentence, and what leads to it. */
const requester: readonly [CauseName, string, (t: Script) => void][] = [
  ['BAD_OPCODE', 'this type of queue pair has no 99', t => t.post({ id: 1, opcode: 99 })],
  [
    'TOO_MANY_SGE',
    'it has more scatter/gather elements than max_send_sge, 4',
    t => t.post({ id: 1, opcode: SEND, sges: Array.from({ length: 5 }, () => ({ at: 0, length: 1 })) }),
  ],
  ['NOT_INLINE', 'READ takes no inline data', t => t.post({ id: 1, opcode: READ, inline: new Uint8Array(4) })],
  [
    'BAD_FLUSH',
    'placement 0 with selectivity 0 is no FLUSH',
    t => t.post({ id: 1, opcode: wr.FLUSH, compare: 1n, swap: 0n }),
  ],
  ['MESSAGE_TOO_LONG', 'the message is longer than 2147483648 bytes', t => t.post({ id: 1, opcode: SEND, ...tooLong })],
  ['ATOMIC_LENGTH', 'it has 4 bytes; an atomic has 8', t => t.post({ id: 1, opcode: FAA, ...sge(0, 4) })],
  ['REFUSED', 'the queue refuses it', t => t.post({ id: 1, opcode: SEND, refused: 2 })],
  [
    'INLINE_TOO_LONG',
    'its inline data is longer than max_inline_data of the queue pair',
    t => t.post({ id: 1, opcode: SEND, refused: 1 | (causes.INLINE_TOO_LONG.code << 8) }),
  ],
  [
    'NO_ADDRESS_HANDLE',
    'its address handle does not exist, or not here',
    t => t.post({ id: 1, opcode: SEND, refused: 2 | (causes.NO_ADDRESS_HANDLE.code << 8) }),
  ],
  [
    'LKEY_REFUSED',
    `lkey 0x7 does not allow [${hex(16)}, ${hex(26)})`,
    t => t.post({ id: 1, opcode: SEND, sges: [{ at: 16, length: 10, key: 7 }] }),
  ],
  [
    'LOCAL_FAULT',
    `lkey 0x1111: memory [${hex(16)}, ${hex(26)}) is unmapped or protected`,
    t => {
      t.node.faults.read = 14
      t.post({ id: 1, opcode: SEND, ...sge(16, 10) })
    },
  ],
  [
    'LOCAL_ENDED',
    'the program whose memory it is has ended',
    t => {
      t.node.faults.read = 3
      t.post({ id: 1, opcode: SEND, ...sge(16, 10) })
    },
  ],
  ['BIND_REFUSED', 'window 0x0 cannot be bound so', t => t.post({ id: 1, opcode: wr.BIND_MW, rkey: 0 })],
  [
    'LOCAL_INVALIDATE',
    'rkey 0x7 is no window of type 2 that is bound to the queue pair',
    t => t.post({ id: 1, opcode: wr.LOCAL_INV, imm: 7 }),
  ],
  ...(
    [
      ['NAK_INVALID_REQUEST', 'the peer answered: invalid request', NAK.INVALID],
      ['NAK_REMOTE_ACCESS', 'the peer answered: remote access error', NAK.ACCESS],
      ['NAK_REMOTE_OPERATION', 'the peer answered: remote operational error', NAK.OPERATION],
      ['NAK_INVALID_RD', 'the peer answered: invalid RD request', NAK.INVALID_RD],
    ] as const
  ).map(([cause, text, syndrome]): (typeof requester)[number] => [
    cause,
    text,
    t => {
      t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
      t.sent()
      t.response('ACKNOWLEDGE', 0, { syndrome })
    },
  ]),
  [
    'BAD_RESPONSE',
    'the response is not that of READ, or has not its length',
    t => {
      t.post({ id: 1, opcode: READ, ...sge(0, 8) })
      t.sent()
      t.response('READ_RESP_ONLY', 0, { payload: 4 })
    },
  ],
]

describe('a request fails with its cause:', () => {
  for (const [id, text, play] of requester)
    it(id, () => {
      const t = startScript()
      play(t)
      t.sent()
      assert.deepEqual(t.node.told.map(causeText), [text])
      assert.equal(t.node.cqes[0].cause, id)
    })
  it('NO_READS', () => {
    const t = startScript({ maxRdAtomic: 0 })
    t.post({ id: 1, opcode: READ, ...sge(0, 8) })
    assert.deepEqual(t.sent(), [])
    assert.match(t.node.told.map(causeText).join(), /^max_rd_atomic of the queue pair is 0/)
    assert.equal(t.node.cqes[0].cause, 'NO_READS')
  })
})

const UNKNOWN_KEY = 7
const ranged = (key: number, from: number, length: number): string =>
  `rkey 0x${key.toString(16)} does not allow [${hex(from)}, ${hex(from + length)})`

/** What the peer sends for it; the QP has one receive request of 8 bytes. */
const responder: readonly [CauseName, string, (t: Script) => void, access?: number][] = [
  ['OUT_OF_PLACE', 'packet 0x1 does not continue the message', t => t.request('SEND_MIDDLE', 0, { payload: 1024 })],
  [
    'PACKET_LENGTH',
    'a packet with 2000 bytes does not fit path MTU 1024; both ends must have the same',
    t => t.request('SEND_ONLY', 0, { payload: 2000 }),
  ],
  [
    'QP_NO_RIGHT',
    'the queue pair has no REMOTE_WRITE in its access flags',
    t => t.request('WRITE_ONLY', 0, { payload: 8 }),
    0,
  ],
  ['QP_NO_RIGHT', 'the queue pair has no REMOTE_READ in its access flags', t => t.request('READ_REQUEST', 0), 2],
  ['QP_NO_RIGHT', 'the queue pair has no REMOTE_ATOMIC in its access flags', t => t.request('FETCH_ADD', 0), 2],
  [
    'QP_NO_RIGHT',
    'the queue pair has no FLUSH_GLOBAL in its access flags',
    t => t.request('FLUSH', 0, { dmaLen: 8 }),
    2,
  ],
  [
    'REMOTE_TOO_LONG',
    'a message of 4294967295 bytes is longer than 2147483648',
    t => t.request('READ_REQUEST', 0, { dmaLen: 0xffff_ffff }),
  ],
  [
    'DMA_LENGTH',
    'the packets bring more or less than the 9 bytes that were announced',
    t => t.request('WRITE_ONLY', 0, { payload: 8, dmaLen: 9 }),
  ],
  [
    'RECEIVE_TOO_SHORT',
    'the receive buffer of 8 bytes is too short for 100 or more',
    t => t.request('SEND_ONLY', 0, { payload: 100 }),
  ],
  [
    'TOO_MANY_READS',
    'more READs and atomics are outstanding than max_dest_rd_atomic, 4',
    t => {
      for (let psn = 0; psn < 5; psn++) t.request('READ_REQUEST', psn, { dmaLen: 8 })
    },
  ],
  [
    'ATOMIC_ADDRESS',
    `address ${hex(4)} of an atomic is not a multiple of 8`,
    t => t.request('COMPARE_SWAP', 0, { remote: 4 }),
  ],
  [
    'FLUSH_KIND',
    'a FLUSH with placement 2 and selectivity 0 is not possible here',
    t => t.request('FLUSH', 0, { dmaLen: 8, plt: 2 }),
  ],
  ['ATOMIC_WRITE_LENGTH', 'an ATOMIC WRITE has 8 bytes, not 4', t => t.request('ATOMIC_WRITE', 0, { payload: 4 })],
  [
    'NOT_INVALIDATED',
    'rkey 0x7 of a SEND with invalidate is no window of type 2 that is bound to the queue pair',
    t => t.request('SEND_ONLY_INV', 0, { payload: 4, imm: UNKNOWN_KEY }),
  ],
  [
    'RKEY_REFUSED',
    ranged(UNKNOWN_KEY, 64, 8),
    t => t.request('WRITE_ONLY', 0, { payload: 8, remote: 64, rkey: UNKNOWN_KEY }),
  ],
  [
    'RKEY_REFUSED',
    ranged(UNKNOWN_KEY, 64, 8),
    t => t.request('READ_REQUEST', 0, { dmaLen: 8, remote: 64, rkey: UNKNOWN_KEY }),
  ],
  [
    'REMOTE_FAULT',
    `rkey 0x80002222: memory [${hex(64)}, ${hex(72)}) is unmapped or protected`,
    t => {
      t.node.faults.write = 14
      t.request('WRITE_ONLY', 0, { payload: 8, remote: 64 })
    },
  ],
  [
    'REMOTE_ENDED',
    'the program whose memory it is has ended',
    t => {
      t.node.faults.write = 3
      t.request('WRITE_ONLY', 0, { payload: 8, remote: 64 })
    },
  ],
]

describe('a responder refuses with a cause:', () => {
  for (const [id, text, play, access = 0x10e] of responder)
    it(`${id}, ${text}`, () => {
      const t = startScript({ access })
      t.receives(1, 8)
      play(t)
      t.sent()
      const [{ id: found }] = t.node.told
      assert.deepEqual([found, causeText(t.node.told[0])], [id, text])
      // what the peer will ask for
      if (id !== 'NOT_INVALIDATED') assert.equal([...t.node.naks.values()][0], t.node.told[0])
    })
  it('NO_SRQ', () => {
    const t = startScript({ access: 0x10e }, { service: Service.XRC_TGT })
    t.raw(packet('XRC_SEND_ONLY', RQ, { payload: 4, srq: 0x99 }))
    t.sent()
    assert.deepEqual(t.node.told.map(causeText).slice(-1), [
      'its XRC domain has no shared receive queue 0x99, or not that of the message',
    ])
    assert.equal(t.node.told.at(-1)?.id, 'NO_SRQ')
  })
  it('without acknowledgements a message is dropped with its cause', () => {
    const t = startScript({ access: 0x10e }, { service: Service.UC })
    t.raw(packet('UC_WRITE_ONLY', RQ, { payload: 8, remote: 64, rkey: UNKNOWN_KEY }))
    t.sent()
    assert.deepEqual(t.node.told.map(causeText).slice(-1), [ranged(UNKNOWN_KEY, 64, 8)])
  })
})

describe('retries that run out say', () => {
  it('NO_ANSWER, and how often was sent', () => {
    const t = startScript({ timeout: 14, retryCnt: 2 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 3; i++) {
      t.sent()
      t.sleep(T14)
    }
    assert.deepEqual(t.node.told.map(causeText), ['no answer: sent 3 times, retry_cnt is 2'])
    assert.equal(t.node.cqes[0].cause, 'NO_ANSWER')
  })
  it('PACKETS_LOST, if the peer has told of losses', () => {
    const t = startScript({ retryCnt: 0 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.node.told.map(causeText), ['packets were lost again and again: sent 1 times, retry_cnt is 0'])
    assert.equal(t.node.cqes[0].cause, 'PACKETS_LOST')
  })
  it('RNR_EXCEEDED, and how often the peer was not ready', () => {
    const t = startScript({ rnrRetry: 2 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 3; i++) {
      t.sent()
      t.response('ACKNOWLEDGE', 0, { syndrome: rnr(1) })
      t.sleep(1000)
    }
    assert.deepEqual(t.node.told.map(causeText), ['the peer has no receive posted: RNR NAK 3 times, rnr_retry is 2'])
    assert.equal(t.node.cqes[0].cause, 'RNR_EXCEEDED')
  })
})

describe('a queue pair in error', () => {
  it('flushes with FLUSHED after a failure, with MODIFIED if its program has moved it', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND, sges: [{ at: 0, length: 1, key: UNKNOWN_KEY }] }, { id: 2, opcode: SEND })
    t.sent()
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(
      t.node.cqes.map(({ cause }) => cause),
      ['LKEY_REFUSED', 'FLUSHED', 'FLUSHED'],
    )
    const other = startScript()
    other.receives(1, 8)
    other.post({ id: 1, opcode: SEND })
    other.node.engine.modify(other.row, ERR, {})
    other.post({ id: 2, opcode: SEND })
    assert.deepEqual(
      other.node.cqes.map(({ cause }) => cause),
      ['MODIFIED', 'MODIFIED', 'MODIFIED'],
    )
    assert.deepEqual(other.node.told, [])
  })
  it('is flushed for the cause that its device gives', () => {
    const t = startScript()
    t.receives(1, 8)
    t.node.engine.modify(t.row, ERR, {}, because('DEVICE_REMOVED', {}))
    assert.deepEqual(
      t.node.cqes.map(({ cause }) => cause),
      ['DEVICE_REMOVED'],
    )
  })
})

it('events that are no failures have a cause: ESTABLISHED, DRAINED, LAST_WQE', () => {
  const node = createNode()
  const row = node.createQp(0x11, { service: Service.XRC_TGT })
  node.engine.modify(row, 1, { pkeyIndex: 0, access: 14 })
  node.engine.modify(row, 2, { destQpn: 0x22, rqPsn: 0, minRnrTimer: 12, maxDestRdAtomic: 4, flow: 0, peer: 0 })
  node.postReceive(row, { id: 1, sges: [{ at: 0, length: 8 }] })
  node.inject(row, packet('XRC_SEND_ONLY', 0, { payload: 4 }), 0)
  node.engine.modify(row, ERR, {})
  const t = startScript()
  t.node.engine.modify(t.row, 4, {})
  assert.deepEqual(
    [...node.told, ...t.node.told].map(({ id }) => id),
    ['ESTABLISHED', 'LAST_WQE', 'DRAINED'],
  )
})

it('a peer of the same process says why it has refused', () => {
  const nodes = [createNode(), createNode()] as const
  const wire = joinNodes([nodes[0], nodes[1]], {}, () => 0)
  nodes.forEach((node, side) => {
    const row = node.createQp(0x11)
    node.connect(row, { destQpn: 0x11 })
    wire.bind(side, 0x11, row)
  })
  nodes[0].peer.naks = nodes[1].naks
  nodes[0].post(0, { id: 1, opcode: WRITE, ...sge(0, 10) }, { id: 2, opcode: WRITE, ...sge(0, 10), rkey: UNKNOWN_KEY })
  while (wire.step()) {}
  assert.deepEqual(nodes[0].told.map(causeText), [ranged(UNKNOWN_KEY, 0, 10)])
  assert.equal(nodes[0].cqes[1].cause, 'RKEY_REFUSED')
})
