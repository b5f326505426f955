/*
 * Packet scripts for the responder: what it answers, completes and leaves in memory. Most cases are those that Linux's responder was
 * recorded with (linux rdma_rxe, forged packets); where the specification says otherwise the test says so.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ALL_ACCESS, MEMORY_BASE } from './node.ts'
import { packet, RQ, startScript } from './script.ts'

const MTU = 1024
const ERR = 6

/** A script with eight receive buffers of 4096 bytes and a word with value 5 at 0x8000. */
const start = (...args: Parameters<typeof startScript>) => {
  const t = startScript(...args)
  t.receives(8, 4096)
  t.node.words.setBigUint64(0x8000, 5n, true)
  return t
}
type Script = ReturnType<typeof start>
const word = (t: Script): bigint => t.node.words.getBigUint64(0x8000, true)
const data = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 7 + 1)
const inMemory = (t: Script, at: number, length: number): Uint8Array => t.node.memory.slice(at, at + length)
const flushed = (first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, i) => `${first + i} FLUSH`)

/** The QP is in error, every receive request flushed but those in `completions`. */
const assertRefused = (t: Script, sent: string[], completions: string[], events: string[] = []): void => {
  assert.deepEqual(t.sent(), sent)
  assert.deepEqual(t.completions(), completions)
  assert.equal(t.state, ERR)
  assert.deepEqual(t.node.events, events)
}

describe('a SEND', () => {
  it('is delivered and acknowledged when asked', () => {
    const t = start()
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    assert.deepEqual(t.completions(), ['100 ok recv 5'])
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    assert.deepEqual(inMemory(t, 0, 6), Uint8Array.of(1, 8, 15, 22, 29, 0))
    assert.equal(t.node.cqes[0].flags, 1, 'GRH')
  })
  it('is not acknowledged unasked', () => {
    const t = start()
    t.request('SEND_ONLY', 0, { payload: 5 })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['100 ok recv 5'])
  })
  it('of several packets is one message, written in one piece', () => {
    const t = start()
    t.request('SEND_FIRST', 0, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 0'])
    const before = t.node.calls.writes
    t.request('SEND_MIDDLE', 1, { payload: MTU })
    t.request('SEND_MIDDLE', 2, { payload: MTU })
    t.request('SEND_LAST', 3, { payload: 3, ackReq: true, solicited: true })
    assert.equal(t.node.calls.writes - before, 1)
    assert.deepEqual(t.completions(), ['100 ok recv 3075'])
    assert.equal(t.node.cqes[0].solicited, true)
    assert.deepEqual(t.sent(), ['ACK@3 msn 1'])
    assert.deepEqual(inMemory(t, MTU, MTU), data(MTU))
    assert.deepEqual(inMemory(t, 3 * MTU, 4), Uint8Array.of(1, 8, 15, 0))
  })
  it('goes to all elements of the receive request, empty ones too', () => {
    const t = startScript()
    const sges = [
      { at: 10, length: 3 },
      { at: 50, length: 0, key: 99 },
      { at: 20, length: 1100 },
      { at: 2000, length: 100 },
    ]
    t.node.postReceive(t.row, { id: 7, sges })
    t.request('SEND_FIRST', 0, { payload: MTU })
    t.request('SEND_LAST', 1, { payload: 90 })
    assert.deepEqual(t.completions(), ['7 ok recv 1114'])
    const got = [...inMemory(t, 10, 3), ...inMemory(t, 20, 1100), ...inMemory(t, 2000, 11)]
    assert.deepEqual(Uint8Array.from(got), Uint8Array.from([...data(MTU), ...data(90)]))
    assert.equal(t.node.memory[13] | t.node.memory[1120] | t.node.memory[2011], 0)
  })
  it('carries immediate data, and may be empty', () => {
    const t = start()
    t.request('SEND_ONLY_IMM', 0, { imm: 0xdeadbeef })
    t.request('SEND_FIRST', 1, { payload: MTU })
    t.request('SEND_LAST_IMM', 2, { payload: 1, imm: 7 })
    assert.deepEqual(t.completions(), [`100 ok recv 0 imm ${0xdeadbeef}`, '101 ok recv 1025 imm 7'])
  })
  it('with invalidate revokes the key', () => {
    const t = start()
    t.node.regions.push({ key: 0x77, pd: 1, offset: 0, length: 10, access: ALL_ACCESS })
    t.request('SEND_ONLY_INV', 0, { payload: 3, imm: 0x77, ackReq: true })
    assert.deepEqual(t.completions(), [`100 ok recv 3 inv ${0x77}`])
    assert.deepEqual(t.node.invalidated, [0x77])
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
  it('with invalidate of an unknown key is acknowledged, then the QP is in error', () => {
    const t = start()
    t.request('SEND_ONLY_INV', 0, { payload: 3, imm: 0x78, ackReq: true })
    assertRefused(t, ['ACK@0 msn 1'], ['100 REM_INV_REQ', ...flushed(101, 107)])
  })
  it('longer than the buffer is an invalid request, and a local length error here', () => {
    const t = startScript()
    t.receives(2, MTU + 10)
    t.request('SEND_FIRST', 0, { payload: MTU })
    t.request('SEND_LAST', 1, { payload: 11, ackReq: true })
    assertRefused(t, ['NAK(INVALID_REQUEST)@1 msn 0'], ['100 LOC_LEN', '101 FLUSH'])
  })
  it('into a receive request with more elements than there may be finds no room', () => {
    const t = startScript({}, { maxSge: 1 })
    const element = { at: 0, length: 8 }
    t.node.postReceive(t.row, { id: 1, sges: [element, element] })
    t.request('SEND_ONLY', 0, { payload: 10 })
    assertRefused(t, ['NAK(INVALID_REQUEST)@0 msn 0'], ['1 LOC_LEN'])
  })
  it('into memory that is not ours is a remote operational error', () => {
    const t = startScript()
    t.node.postReceive(t.row, { id: 1, sges: [{ at: 0, length: 100, key: 0xbad }] })
    t.request('SEND_ONLY', 0, { payload: 10 })
    assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], ['1 LOC_PROT'])
  })
  it('into memory that has gone is a remote operational error, for the first packet that is not in memory', () => {
    const t = startScript()
    t.receives(2, 4 * MTU)
    t.request('SEND_FIRST', 0, { payload: MTU, ackReq: true })
    t.node.endBurst(0)
    t.request('SEND_MIDDLE', 1, { payload: MTU, ackReq: true })
    t.request('SEND_MIDDLE', 2, { payload: MTU, ackReq: true })
    t.node.faults.write = 14
    assertRefused(t, ['NAK(REMOTE_OPERATION)@1 msn 0'], ['100 LOC_PROT', '101 FLUSH'])
  })
  it('waits for a receive request: RNR NAK, once per try, and silence about what follows', () => {
    const t = startScript({ minRnrTimer: 14 })
    t.request('SEND_ONLY', 0, { payload: 5 })
    t.request('SEND_ONLY', 1, { payload: 6 })
    assert.deepEqual(t.sent(), ['RNR(14)@0 msn 0'])
    t.request('SEND_ONLY', 0, { payload: 5 })
    assert.deepEqual(t.sent(), ['RNR(14)@0 msn 0'])
    t.receives(2, 100)
    t.request('SEND_ONLY', 0, { payload: 5 })
    t.request('SEND_ONLY', 1, { payload: 6, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
    assert.deepEqual(t.completions(), ['100 ok recv 5', '101 ok recv 6'])
    assert.equal(t.node.engine.counters.sentRnr, 2)
  })
  it('that comes while the RNR NAK has not left is just taken', () => {
    const t = startScript()
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    t.receives(1, 100)
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
})

describe('a WRITE', () => {
  it('goes to memory, all its packets in one piece, and is seen by nobody', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9001, dmaLen: 2 * MTU + 9 })
    t.request('WRITE_MIDDLE', 1, { payload: MTU })
    t.request('WRITE_LAST', 2, { payload: 9, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@2 msn 1'])
    assert.deepEqual(t.completions(), [])
    assert.ok(t.node.calls.writes <= 2, `${t.node.calls.writes} writes`)
    assert.deepEqual(inMemory(t, 0x9001, MTU), data(MTU))
    assert.deepEqual(inMemory(t, 0x9001 + 2 * MTU, 10), Uint8Array.from([...data(9), 0]))
  })
  it('crosses the 4 GiB line', () => {
    const t = start()
    const line = Number(0x7f02_0000_0000n - MEMORY_BASE)
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: line - 500, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 1, { payload: MTU, ackReq: true })
    t.request('WRITE_FIRST', 2, { payload: MTU, remote: line - MTU, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 3, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@3 msn 2'])
    assert.deepEqual(inMemory(t, line - MTU, 2 * MTU), Uint8Array.from([...data(MTU), ...data(MTU)]))
  })
  it('with immediate takes a receive request and completes it', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 1 })
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5, solicited: true })
    t.request('WRITE_ONLY_IMM', 2, { imm: 6, ackReq: true })
    assert.deepEqual(t.completions(), ['100 ok recv-imm 1025 imm 5', '101 ok recv-imm 0 imm 6'])
    assert.deepEqual(t.sent(), ['ACK@2 msn 2'])
  })
  it('with immediate waits for a receive request, at its last packet', () => {
    const t = startScript({ minRnrTimer: 1 })
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 1 })
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5 })
    assert.deepEqual(t.sent(), ['RNR(1)@1 msn 0'])
    t.receives(1, 0)
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@1 msn 1'])
    assert.deepEqual(t.completions(), ['100 ok recv-imm 1025 imm 5'])
  })
  it('of nothing does not look at the key', () => {
    const t = start()
    t.request('WRITE_ONLY', 0, { rkey: 0xbad, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
  const wrong: [string, (t: Script) => void, string][] = [
    ['a wrong key', t => t.request('WRITE_ONLY', 0, { payload: 1, rkey: 0xbad }), 'NAK(REMOTE_ACCESS)@0 msn 0'],
    [
      'a range that ends outside',
      t => t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x2_0000 - MTU, dmaLen: MTU + 1 }),
      'NAK(REMOTE_ACCESS)@0 msn 0',
    ],
    [
      'no right to write',
      t => {
        t.node.regions.push({ key: 0x55, pd: 1, offset: 0, length: 100, access: 4 })
        t.request('WRITE_ONLY', 0, { payload: 1, rkey: 0x55 })
      },
      'NAK(REMOTE_ACCESS)@0 msn 0',
    ],
    [
      'a region of another protection domain',
      t => {
        t.node.regions.push({ key: 0x55, pd: 2, offset: 0, length: 100, access: 15 })
        t.request('WRITE_ONLY', 0, { payload: 1, rkey: 0x55 })
      },
      'NAK(REMOTE_ACCESS)@0 msn 0',
    ],
    [
      'a length that is more than the payload',
      t => t.request('WRITE_ONLY', 0, { payload: 4, dmaLen: 5 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
    ],
    [
      'a length that is less than the payload',
      t => t.request('WRITE_ONLY', 0, { payload: 4, dmaLen: 3 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
    ],
    [
      'more than 2 GiB',
      t => t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: 0x8000_0001 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
    ],
    [
      'a FIRST that is all',
      t => t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: MTU }),
      'NAK(INVALID_REQUEST)@0 msn 0',
    ],
    [
      'a MIDDLE that is the rest',
      t => {
        t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: 2 * MTU })
        t.request('WRITE_MIDDLE', 1, { payload: MTU })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
    ],
    [
      'a LAST that is not the rest',
      t => {
        t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: 2 * MTU })
        t.request('WRITE_LAST', 1, { payload: MTU - 4 })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
    ],
  ]
  for (const [what, act, answer] of wrong)
    it(`with ${what} is refused`, () => {
      const t = start()
      act(t)
      assertRefused(t, [answer], flushed(100, 107), [answer.includes('ACCESS') ? 'QP_ACCESS_ERR' : 'QP_REQ_ERR'])
    })
  it('is refused when the QP does not allow it', () => {
    const t = start({ access: 4 })
    t.request('WRITE_ONLY', 0, { payload: 1 })
    assertRefused(t, ['NAK(INVALID_REQUEST)@0 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
  })
  it('whose region goes half way is refused, nothing more is written, what came before is acknowledged', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 3 * MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 0'])
    t.request('WRITE_MIDDLE', 1, { payload: MTU, ackReq: true })
    t.node.regions.splice(0, 1)
    t.request('WRITE_LAST', 2, { payload: MTU, ackReq: true })
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 0'], flushed(100, 107), ['QP_ACCESS_ERR'])
    assert.equal(t.node.memory[0x9000 + MTU], 0)
  })
  it('before a refused request is in memory', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 2 })
    t.request('WRITE_LAST', 1, { payload: 2 })
    t.request('SEND_MIDDLE', 2, { payload: MTU })
    assertRefused(t, ['NAK(INVALID_REQUEST)@2 msn 1'], flushed(100, 107), ['QP_REQ_ERR'])
    assert.deepEqual(inMemory(t, 0x9000 + MTU, 2), data(2))
  })
})

describe('a malformed sequence', () => {
  const cases: [string, (t: Script) => void, string, string[]][] = [
    [
      'MIDDLE without FIRST',
      t => t.request('SEND_MIDDLE', 0, { payload: MTU }),
      'NAK(INVALID_REQUEST)@0 msn 0',
      flushed(100, 107),
    ],
    [
      'LAST without FIRST',
      t => t.request('SEND_LAST', 0, { payload: 3 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
      flushed(100, 107),
    ],
    [
      'WRITE in a SEND',
      t => {
        t.request('SEND_FIRST', 0, { payload: MTU })
        t.request('WRITE_MIDDLE', 1, { payload: MTU })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
      ['100 REM_INV_REQ', ...flushed(101, 107)],
    ],
    [
      'ONLY in a message',
      t => {
        t.request('SEND_FIRST', 0, { payload: MTU })
        t.request('SEND_ONLY', 1, { payload: 3 })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
      ['100 REM_INV_REQ', ...flushed(101, 107)],
    ],
    [
      'READ in a message',
      t => {
        t.request('SEND_FIRST', 0, { payload: MTU })
        t.request('READ_REQUEST', 1, { dmaLen: 3 })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
      ['100 REM_INV_REQ', ...flushed(101, 107)],
    ],
    [
      'FIRST shorter than the MTU',
      t => t.request('SEND_FIRST', 0, { payload: MTU - 4 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
      flushed(100, 107),
    ],
    [
      'MIDDLE shorter than the MTU',
      t => {
        t.request('SEND_FIRST', 0, { payload: MTU })
        t.request('SEND_MIDDLE', 1, { payload: MTU - 1 })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
      ['100 REM_INV_REQ', ...flushed(101, 107)],
    ],
    [
      'empty LAST',
      t => {
        t.request('SEND_FIRST', 0, { payload: MTU })
        t.request('SEND_LAST', 1)
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
      ['100 REM_INV_REQ', ...flushed(101, 107)],
    ],
    [
      'ONLY longer than the MTU',
      t => t.request('SEND_ONLY', 0, { payload: MTU + 1 }),
      'NAK(INVALID_REQUEST)@0 msn 0',
      flushed(100, 107),
    ],
  ]
  for (const [what, act, answer, completions] of cases)
    it(`${what}: invalid request`, () => {
      const t = start()
      act(t)
      assertRefused(t, [answer], completions, completions[0] === '100 FLUSH' ? ['QP_REQ_ERR'] : [])
    })
})

describe('a PSN', () => {
  it('ahead gets one NAK until the gap is filled', () => {
    const t = start()
    t.request('SEND_ONLY', 3, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@0 msn 0'])
    t.request('SEND_ONLY', 4, { payload: 1, ackReq: true })
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    t.request('SEND_ONLY', 5, { payload: 1 })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@1 msn 1'])
    assert.equal(t.node.engine.counters.outOfSequence, 3)
  })
  it('behind gets an ACK with the latest PSN and is not executed again', () => {
    const t = start()
    t.request('SEND_ONLY', 0, { payload: 1 })
    t.request('SEND_ONLY', 1, { payload: 1 })
    t.request('SEND_ONLY', 0, { payload: 1 })
    assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
    t.request('WRITE_ONLY', -100, { payload: 1, remote: 0x9000 })
    assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
    assert.equal(t.node.memory[0x9000], 0)
    assert.equal(t.completions().length, 2)
    assert.equal(t.node.engine.counters.duplicateRequests, 2)
  })
  it('belongs to the half before or the half after the expected one', () => {
    const t = start()
    t.request('SEND_ONLY', -0x80_0000, { payload: 1 })
    assert.deepEqual(t.sent(), ['ACK@-1 msn 0'])
    t.request('SEND_ONLY', 0x7f_ffff, { payload: 1 })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@0 msn 0'])
  })
  it('wraps', () => {
    const t = start({ rqPsn: 0xfffffe })
    for (let i = 0; i < 4; i++) t.raw(packet('SEND_ONLY', 0xfffffe + i, { payload: 1, ackReq: true }))
    assert.deepEqual(t.sent(), [`ACK@${1 - RQ} msn 4`])
    assert.equal(t.node.engine.query(t.row).rqPsn, 2)
  })
})

describe('an ACK', () => {
  it('is one for a burst, for the last of it', () => {
    const t = start()
    for (let i = 0; i < 5; i++) t.request('SEND_ONLY', i, { payload: 1, ackReq: i < 4 })
    assert.deepEqual(t.sent(), ['ACK@4 msn 5'])
    assert.deepEqual(t.sent(), [])
  })
  it('waits until the data is in memory', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU, ackReq: true })
    t.node.transmit(0)
    assert.equal(t.node.calls.writes, 1)
  })
})

describe('a READ', () => {
  it('is answered with its data, FIRST, MIDDLE and LAST, and uses their PSNs', () => {
    const t = start()
    t.node.memory.set(data(2500), 0x9000)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500, ackReq: true })
    t.request('SEND_ONLY', 3, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [
      'READ_RESP_FIRST@0 msn 1 [1024]',
      'READ_RESP_MIDDLE@1 [1024]',
      'READ_RESP_LAST@2 msn 1 [452]',
      'ACK@3 msn 2',
    ])
    const got = t.payloads().slice(0, 3)
    assert.deepEqual(Uint8Array.from(got.flatMap(p => [...p])), data(2500))
  })
  it('of one packet or of nothing is answered by ONLY, the latter without a look at the key', () => {
    const t = start()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 5 })
    t.request('READ_REQUEST', 1, { rkey: 0xbad, dmaLen: 0 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [5]', 'READ_RESP_ONLY@1 msn 2'])
  })
  it('acknowledges what came before; what comes after is acknowledged behind it', () => {
    const t = start()
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    t.request('READ_REQUEST', 1, { dmaLen: 5 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@1 msn 2 [5]'])
    t.request('READ_REQUEST', 2, { dmaLen: 5 })
    t.request('SEND_ONLY', 3, { payload: MTU + 4, ackReq: true })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@2 msn 3 [5]', 'NAK(INVALID_REQUEST)@3 msn 3'])
  })
  it('repeated is answered again, whole, or its tail', () => {
    const t = start()
    t.node.memory.set(data(2500), 0x9000)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.deepEqual(t.sent(), [
      'READ_RESP_FIRST@0 msn 1 [1024]',
      'READ_RESP_MIDDLE@1 [1024]',
      'READ_RESP_LAST@2 msn 1 [452]',
    ])
    t.request('READ_REQUEST', 1, { remote: 0x9000 + MTU, dmaLen: 2500 - MTU })
    assert.deepEqual(t.sent(), ['READ_RESP_MIDDLE@1 [1024]', 'READ_RESP_LAST@2 msn 1 [452]'])
    assert.deepEqual(t.payloads().at(-2), data(2500).slice(MTU, 2 * MTU))
  })
  it('repeated with another range or key is not answered', () => {
    const t = start()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
    t.request('READ_REQUEST', 0, { remote: 0x8fff, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9001, dmaLen: 2500 })
    t.request('READ_REQUEST', 1, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500, rkey: 1 })
    assert.deepEqual(t.sent(), [])
  })
  it('repeated while its answer is under way is not answered twice', () => {
    const t = start()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
  })
  it('beyond the number agreed on is refused', () => {
    const t = start({ maxDestRdAtomic: 2 })
    for (let i = 0; i < 3; i++) t.request('READ_REQUEST', i, { dmaLen: 1 })
    assertRefused(
      t,
      ['READ_RESP_ONLY@0 msn 1 [1]', 'READ_RESP_ONLY@1 msn 2 [1]', 'NAK(INVALID_REQUEST)@2 msn 2'],
      flushed(100, 107),
      ['QP_REQ_ERR'],
    )
  })
  it('may follow when earlier ones are answered; a repetition that waits gives way', () => {
    const t = start({ maxDestRdAtomic: 1 })
    for (let i = 0; i < 5; i++) {
      t.request('READ_REQUEST', i, { dmaLen: 1 })
      assert.deepEqual(t.sent(), [`READ_RESP_ONLY@${i} msn ${i + 1} [1]`])
    }
    t.request('READ_REQUEST', 4, { dmaLen: 1 })
    t.request('READ_REQUEST', 5, { dmaLen: 1 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@5 msn 6 [1]'])
  })
  for (const [what, spec, answer] of [
    ['a wrong key', { dmaLen: 1, rkey: 0xbad }, 'REMOTE_ACCESS'],
    ['a range that ends outside', { dmaLen: 100, remote: 0x2_0000 - 99 }, 'REMOTE_ACCESS'],
    ['more than 2 GiB', { dmaLen: 0x8000_0001 }, 'INVALID_REQUEST'],
  ] as const)
    it(`with ${what} is refused`, () => {
      const t = start()
      t.request('READ_REQUEST', 0, spec)
      assert.deepEqual(t.sent(), [`NAK(${answer})@0 msn 0`])
      assert.equal(t.state, ERR)
    })
  it('whose region goes while it is answered ends with a NAK', () => {
    const t = start({}, { maxBytes: 1100 })
    t.node.port.room = 1
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 3000 })
    assert.deepEqual(t.sent(), ['READ_RESP_FIRST@0 msn 1 [1024]'])
    t.node.regions.splice(0, 1)
    t.node.port.room = 9
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 1'], flushed(100, 107), ['QP_ACCESS_ERR'])
  })
  it('is read as the port has room, in turns with others', () => {
    const t = start({}, { maxBytes: 2 * (MTU + 20) })
    t.node.port.room = 2
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 10 * MTU })
    assert.equal(t.sent().length, 2)
    assert.equal(t.node.calls.reads, 1, 'the first response and those behind it at once')
    t.node.port.room = 1
    assert.equal(t.sent().length, 2)
    t.node.port.room = 100
    assert.deepEqual(t.sent().at(-1), 'READ_RESP_LAST@9 msn 1 [1024]')
  })
})

describe('a run of packets', () => {
  const full = { payload: MTU }
  /** A WRITE of `count` packets to 0x9000 of which the first has come. */
  const begun = (count: number, ...args: Parameters<typeof startScript>) => {
    const t = start(...args)
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: count * MTU })
    return t
  }
  it('that continues a WRITE is written in one piece with its first packet', () => {
    const t = begun(6)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full], ['WRITE_MIDDLE', 4, full])
    t.request('WRITE_LAST', 5, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@5 msn 1'])
    assert.equal(t.node.calls.writes, 1)
    for (let i = 0; i < 6; i++) assert.deepEqual(inMemory(t, 0x9000 + i * MTU, MTU), data(MTU))
    assert.equal(t.node.engine.counters.receivedPackets, 6)
  })
  it('has its last packet of a message and the next message in it', () => {
    const t = begun(3)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_LAST', 2, full], ['SEND_ONLY', 3, { ...full, ackReq: true }])
    assert.deepEqual(t.sent(), ['ACK@3 msn 2'])
    assert.deepEqual(t.completions(), ['100 ok recv 1024'])
    assert.deepEqual(inMemory(t, 0x9000 + 2 * MTU, MTU), data(MTU))
  })
  it('is acknowledged if any of its packets asks for it', () => {
    const t = begun(5)
    t.run(['WRITE_MIDDLE', 1, { ...full, ackReq: true }], ['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full])
    assert.deepEqual(t.sent(), ['ACK@3 msn 0'])
  })
  it('with a gap in it is taken up to there', () => {
    const t = begun(9)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 4, full], ['WRITE_MIDDLE', 5, full])
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@3 msn 0'])
    t.run(['WRITE_MIDDLE', 3, full], ['WRITE_MIDDLE', 4, { ...full, ackReq: true }])
    assert.deepEqual(t.sent(), ['ACK@4 msn 0'])
  })
  it('with packets that were there before takes what is new', () => {
    const t = begun(9)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full])
    t.run(['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full], ['WRITE_MIDDLE', 4, full])
    assert.deepEqual(t.sent(), ['ACK@4 msn 0'])
    assert.equal(t.node.engine.counters.duplicateRequests, 1)
  })
  it('that goes on where the message should end is an invalid request', () => {
    const t = begun(3)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full])
    assertRefused(t, ['NAK(INVALID_REQUEST)@2 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
  })
  it('has packets of another kind in it, which are looked at one by one', () => {
    const t = begun(9)
    const odd = { ...full, pkey: 0x1234 }
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, odd], ['WRITE_MIDDLE', 2, full], ['SEND_MIDDLE', 3, full])
    assertRefused(t, ['NAK(INVALID_REQUEST)@3 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
    assert.equal(t.node.engine.counters.dropped, 1)
  })
  it('may be for several queue pairs', () => {
    const t = begun(9)
    const other = t.node.createQp(0x33)
    t.node.connect(other, { destQpn: 0x44, rqPsn: RQ + 2, peer: 0 })
    const run = [packet('WRITE_MIDDLE', RQ + 1, full), packet('WRITE_MIDDLE', RQ + 2, full, 0x33)]
    t.node.injectRun(run, bytes => (bytes[7] === 0x33 ? other : t.row), 0)
    assert.equal(t.node.engine.query(t.row).rqPsn, RQ + 2)
    assert.equal(t.node.engine.query(other).state, ERR, 'a MIDDLE without a FIRST')
  })
  it('from another peer is dropped', () => {
    const t = begun(4)
    const stray = [1, 2].map(psn => packet('WRITE_MIDDLE', RQ + psn, full))
    t.node.injectRun(stray, () => t.row, 0, 5)
    assert.equal(t.node.engine.counters.dropped, 2)
    assert.deepEqual(t.sent(), [])
  })
  it('into a region that is gone is refused at its first packet', () => {
    const t = begun(5)
    t.node.endBurst(0)
    t.node.regions.splice(0, 1)
    t.run(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full])
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 0'], flushed(100, 107), ['QP_ACCESS_ERR'])
  })
})

describe('an atomic', () => {
  it('fetches and adds, with carry and wrap', () => {
    const t = start()
    t.request('FETCH_ADD', 0, { remote: 0x8000, swap: 0xffff_ffffn })
    t.request('FETCH_ADD', 1, { remote: 0x8000, swap: 0xffff_ffff_ffff_ffffn })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@0 msn 1 = 5', 'ATOMIC_ACK@1 msn 2 = 4294967300'])
    assert.equal(word(t), 4294967299n)
  })
  it('compares and swaps', () => {
    const t = start()
    t.request('COMPARE_SWAP', 0, { remote: 0x8000, compare: 5n, swap: 0x1234_5678_9abc_def0n })
    t.request('COMPARE_SWAP', 1, { remote: 0x8000, compare: 5n, swap: 9n })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@0 msn 1 = 5', `ATOMIC_ACK@1 msn 2 = ${0x1234_5678_9abc_def0n}`])
    assert.equal(word(t), 0x1234_5678_9abc_def0n)
  })
  it('repeated has the same answer and no effect, and none when it is forgotten', () => {
    const t = start()
    for (let i = 0; i < 5; i++) t.request('FETCH_ADD', i, { remote: 0x8000, swap: 1n })
    assert.equal(t.state, ERR, 'five at once are more than four')
    const u = start()
    for (let i = 0; i < 5; i++) {
      u.request('FETCH_ADD', i, { remote: 0x8000, swap: 1n })
      u.sent()
    }
    u.request('FETCH_ADD', 1, { remote: 0x8000, swap: 1n })
    assert.deepEqual(u.sent(), ['ATOMIC_ACK@1 msn 2 = 6'])
    u.request('FETCH_ADD', 0, { remote: 0x8000, swap: 1n })
    assert.deepEqual(u.sent(), [])
    assert.equal(word(u), 10n)
  })
  it('sees the WRITE before it', () => {
    const t = start()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x8000 - MTU, dmaLen: MTU + 8 })
    t.request('WRITE_LAST', 1, { payload: Uint8Array.of(9, 0, 0, 0, 0, 0, 0, 0) })
    t.request('FETCH_ADD', 2, { remote: 0x8000, swap: 1n })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@2 msn 2 = 9'])
  })
  it('at an odd address, without the right, or with a wrong key is refused', () => {
    const t = start()
    t.request('FETCH_ADD', 0, { remote: 0x8004 })
    assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'])
    const u = start({ access: 6 })
    u.request('FETCH_ADD', 0, { remote: 0x8000 })
    assert.deepEqual(u.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'])
    const v = start()
    v.request('COMPARE_SWAP', 0, { remote: 0x8000, rkey: 0xbad })
    assert.deepEqual(v.sent(), ['NAK(REMOTE_ACCESS)@0 msn 0'])
  })
})

describe('silence', () => {
  const dropped: [string, (t: Script) => void][] = [
    ['another partition', t => t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, pkey: 0x1234 })],
    ['another version', t => t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, tver: 1 })],
    ['another peer', t => t.raw(packet('SEND_ONLY', RQ, { payload: 1, ackReq: true }), 1)],
    ['no peer', t => t.raw(packet('SEND_ONLY', RQ, { payload: 1, ackReq: true }), -1)],
    ['UC', t => t.request('UC_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    ['UD', t => t.request('UD_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    ['XRC', t => t.request('XRC_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    ['FLUSH', t => t.request('FLUSH', 0, { ackReq: true })],
    ['ATOMIC_WRITE', t => t.request('ATOMIC_WRITE', 0, { ackReq: true, payload: 8 })],
    ['CNP', t => t.request('CNP', 0, { payload: 16 })],
    ['an unknown opcode', t => t.raw(packet('SEND_ONLY', RQ, { payload: 1 }).fill(0x15, 0, 1))],
    ['ten bytes', t => t.raw(packet('SEND_ONLY', RQ).slice(0, 10))],
    ['more pad than payload', t => t.raw(packet('SEND_ONLY', RQ).fill(0x30, 1, 2))],
    ['a stray ACK', t => t.response('ACKNOWLEDGE', 0)],
    ['a stray NAK', t => t.response('ACKNOWLEDGE', 0, { syndrome: 0x62 })],
    ['a stray READ response', t => t.response('READ_RESP_ONLY', 0, { payload: 4 })],
  ]
  for (const [what, act] of dropped)
    it(`about ${what}`, () => {
      const t = start()
      act(t)
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), [])
      assert.equal(t.node.engine.counters.dropped, 1)
      t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, migReq: true, pkey: 0x7fff })
      assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    })
  it('in INIT, and in error once the NAK is out', () => {
    const t = start()
    t.request('SEND_LAST', 0, { payload: 1 })
    assert.equal(t.sent().length, 1)
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [])
    t.node.engine.modify(t.row, 0, {}, 0)
    t.node.engine.modify(t.row, 1, { access: 14 }, 0)
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [])
  })
})

it('the first packet in RTR is told, once', () => {
  const t = startScript()
  t.node.engine.modify(t.row, 0, {}, 0)
  t.node.engine.modify(t.row, 1, { access: 14 }, 0)
  t.node.engine.modify(
    t.row,
    2,
    { destQpn: 0x22, rqPsn: RQ, pathMtu: 256, maxDestRdAtomic: 1, minRnrTimer: 1, flow: 0, peer: 0 },
    0,
  )
  t.receives(2, 10)
  t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
  t.request('SEND_ONLY', 1, { payload: 1, ackReq: true })
  assert.deepEqual(t.node.events, ['COMM_EST'])
  assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
  // no request of ours is out in RTR, so no answer means anything
  t.response('ACKNOWLEDGE', 0)
  assert.equal(t.node.engine.counters.dropped, 1)
})
