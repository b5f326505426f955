/*
 * Packet scripts for the responder.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../../src/spec/enums.ts'
import { Errno } from '../../../../src/spec/errno.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { ALL_ACCESS, MEMORY_BASE, MEMORY_BYTES, REMOTE_ACCESS, REMOTE_KEY } from '../node.ts'
import { NAK } from '../requests.ts'
import { assertRefused, flushed, MTU, memoryAt, patternOf, type Script, startResponder } from '../responding.ts'
import { PEER_QPN, packet, RQ_PSN, startScript } from '../script.ts'

const { RESET, INIT, RTR, RTS, ERR } = QpState.values

describe('a SEND', () => {
  it('is delivered, and acknowledged if AckReq is set', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    assert.deepEqual(t.completions(), ['100 ok recv 5'])
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    assert.deepEqual(memoryAt(t, 0, 6), Uint8Array.from([...patternOf(5), 0]))
    assert.equal(t.node.cqes[0].flags, 0, 'only datagrams have a GRH')
  })
  it('is not acknowledged without AckReq', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 0, { payload: 5 })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['100 ok recv 5'])
  })
  it('of several packets is one message, written contiguously', () => {
    const t = startResponder()
    t.request('SEND_FIRST', 0, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 0'])
    const before = t.node.dmaCalls.writes
    t.request('SEND_MIDDLE', 1, { payload: MTU })
    t.request('SEND_MIDDLE', 2, { payload: MTU })
    t.request('SEND_LAST', 3, { payload: 3, ackReq: true, solicited: true })
    assert.equal(t.node.dmaCalls.writes - before, 1)
    assert.deepEqual(t.completions(), ['100 ok recv 3075'])
    assert.equal(t.node.cqes[0].solicited, true)
    assert.deepEqual(t.sent(), ['ACK@3 msn 1'])
    assert.deepEqual(memoryAt(t, MTU, MTU), patternOf(MTU))
    assert.deepEqual(memoryAt(t, 3 * MTU, 4), Uint8Array.from([...patternOf(3), 0]))
  })
  it('is scattered to the SGEs of the receive WQE; empty SGEs are skipped', () => {
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
    const received = [...memoryAt(t, 10, 3), ...memoryAt(t, 20, 1100), ...memoryAt(t, 2000, 11)]
    assert.deepEqual(Uint8Array.from(received), Uint8Array.from([...patternOf(MTU), ...patternOf(90)]))
    for (const end of [13, 1120, 2011]) assert.equal(t.node.memory[end], 0, 'nothing is written after the data')
  })
  it('carries immediate data, and may be empty', () => {
    const t = startResponder()
    t.request('SEND_ONLY_IMM', 0, { imm: 0xdeadbeef })
    t.request('SEND_FIRST', 1, { payload: MTU })
    t.request('SEND_LAST_IMM', 2, { payload: 1, imm: 7 })
    assert.deepEqual(t.completions(), [`100 ok recv 0 imm ${0xdeadbeef}`, '101 ok recv 1025 imm 7'])
  })
  it('with invalidate revokes the key', () => {
    const t = startResponder()
    t.node.regions.push({ key: 0x77, pd: 1, offset: 0, length: 10, access: ALL_ACCESS })
    t.request('SEND_ONLY_INV', 0, { payload: 3, imm: 0x77, ackReq: true })
    assert.deepEqual(t.completions(), [`100 ok recv 3 inv ${0x77}`])
    assert.deepEqual(t.node.invalidated, [0x77])
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
  it('with invalidate of an unknown key is not acknowledged, and the QP is in error', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 0, { payload: 3, ackReq: true })
    t.request('SEND_ONLY_INV', 1, { payload: 3, imm: 0x78, ackReq: true })
    assertRefused(t, ['ACK@0 msn 1'], ['100 ok recv 3', '101 REM_INV_REQ', ...flushed(102, 107)])
    t.request('SEND_ONLY_INV', 1, { payload: 3, imm: 0x78, ackReq: true })
    assert.deepEqual(t.sent(), [], 'a retransmission is not acknowledged')
  })
  it('longer than the buffer is an invalid request; the receive WQE completes with LOC_LEN', () => {
    const t = startScript()
    t.postReceives(2, MTU + 10)
    t.request('SEND_FIRST', 0, { payload: MTU })
    t.request('SEND_LAST', 1, { payload: 11, ackReq: true })
    assertRefused(t, ['NAK(INVALID_REQUEST)@1 msn 0'], ['100 LOC_LEN', '101 FLUSH'])
  })
  it('longer than 2^31 bytes is an invalid request, also if the receive WQE has more bytes', () => {
    const mtu = 4096
    // All addresses of the buffer of 3 GiB are mapped to the first 512 KiB of client memory.
    const t = startScript(
      { pathMtu: mtu },
      { memoryBytes: 0x10_0000, locate: address => Number(address - MEMORY_BASE) % 0x8_0000 },
    )
    t.node.postReceive(t.row, { id: 100, sges: Array.from({ length: 3 }, () => ({ at: 0, length: 0x4000_0000 })) })
    t.request('SEND_FIRST', 0, { payload: mtu })
    const bytes = packet('SEND_MIDDLE', RQ_PSN, { payload: mtu })
    const view = new DataView(bytes.buffer)
    const packetsOf2GiB = 2 ** 31 / mtu
    for (let psn = 1; psn < packetsOf2GiB; psn++) {
      view.setUint32(8, RQ_PSN + psn) // AckReq 0, and the PSN
      t.injectRaw(bytes)
    }
    assert.equal(t.state, RTS)
    t.request('SEND_MIDDLE', packetsOf2GiB, { payload: mtu })
    assertRefused(t, [`NAK(INVALID_REQUEST)@${packetsOf2GiB} msn 0`], ['100 LOC_LEN'])
    assert.equal(t.node.cqes[0].cause, 'MESSAGE_TOO_LONG')
  })
  it('into a receive WQE with more SGEs than max_recv_sge is an invalid request', () => {
    const t = startScript({}, { maxSge: 1 })
    const element = { at: 0, length: 8 }
    t.node.postReceive(t.row, { id: 1, sges: [element, element] })
    t.request('SEND_ONLY', 0, { payload: 10 })
    assertRefused(t, ['NAK(INVALID_REQUEST)@0 msn 0'], ['1 LOC_LEN'])
  })
  it('into a buffer with a wrong lkey is a remote operational error', () => {
    const t = startScript()
    t.node.postReceive(t.row, { id: 1, sges: [{ at: 0, length: 100, key: 0xbad }] })
    t.request('SEND_ONLY', 0, { payload: 10 })
    assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], ['1 LOC_PROT'])
  })
  it('into unmapped memory is a remote operational error with the PSN of the first packet not written', () => {
    const t = startScript()
    t.postReceives(2, 4 * MTU)
    t.request('SEND_FIRST', 0, { payload: MTU, ackReq: true })
    t.node.endBurst()
    t.request('SEND_MIDDLE', 1, { payload: MTU, ackReq: true })
    t.request('SEND_MIDDLE', 2, { payload: MTU, ackReq: true })
    // Packets 1 and 2 are written at the end of their burst.
    t.node.faults.write = Errno.EFAULT
    assertRefused(t, ['NAK(REMOTE_OPERATION)@1 msn 0'], ['100 LOC_PROT', '101 FLUSH'])
  })
  it('whose last packet cannot be written fails its receive WQE', () => {
    for (const fail of ['the memory is unmapped', 'the region is deregistered']) {
      const t = startScript()
      t.postReceives(2, 4 * MTU)
      t.request('SEND_FIRST', 0, { payload: MTU })
      if (fail === 'the memory is unmapped') t.node.faults.write = Errno.EFAULT
      else t.node.regions.length = 0
      t.request('SEND_LAST', 1, { payload: 1, ackReq: true })
      assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], ['100 LOC_PROT', '101 FLUSH'])
    }
  })
  it('is not answered if the program that owns the memory has ended; neither is a WRITE or a READ', () => {
    for (const [name, spec] of [
      ['SEND_ONLY', { payload: 10 }],
      ['WRITE_ONLY', { payload: 10 }],
      ['READ_REQUEST', { dmaLen: 10 }],
    ] as const) {
      const t = startScript()
      t.postReceives(1, 100)
      t.node.faults.write = Errno.ESRCH
      t.node.faults.read = Errno.ESRCH
      t.request(name, 0, { ...spec, ackReq: true })
      assert.deepEqual(t.sent(), [], name)
      t.request(name, 1, { ...spec, ackReq: true })
      assert.deepEqual(t.sent(), [], name)
      assert.equal(t.state, ERR, name)
    }
  })
  it('without a receive WQE is answered with one RNR NAK per try; the following packets are dropped', () => {
    const t = startScript({ minRnrTimer: 14 })
    t.request('SEND_ONLY', 0, { payload: 5 })
    t.request('SEND_ONLY', 1, { payload: 6 })
    assert.deepEqual(t.sent(), ['RNR(14)@0 msn 0'])
    t.request('SEND_ONLY', 0, { payload: 5 })
    assert.deepEqual(t.sent(), ['RNR(14)@0 msn 0'])
    t.postReceives(2, 100)
    t.request('SEND_ONLY', 0, { payload: 5 })
    t.request('SEND_ONLY', 1, { payload: 6, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
    assert.deepEqual(t.completions(), ['100 ok recv 5', '101 ok recv 6'])
    assert.equal(t.node.engine.counters.sentRnr, 2)
  })
  it('is accepted if it is repeated before the RNR NAK has left', () => {
    const t = startScript()
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    t.postReceives(1, 100)
    t.request('SEND_ONLY', 0, { payload: 5, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
})

/** Deregisters the region to which the peer WRITEs. */
const deregisterRemote = (t: Script): void => {
  const index = t.node.regions.findIndex(({ key }) => key === REMOTE_KEY)
  t.node.regions.splice(index, 1)
}

describe('a WRITE', () => {
  it('goes to memory contiguously, without a completion', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9001, dmaLen: 2 * MTU + 9 })
    t.request('WRITE_MIDDLE', 1, { payload: MTU })
    t.request('WRITE_LAST', 2, { payload: 9, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@2 msn 1'])
    assert.deepEqual(t.completions(), [])
    assert.equal(t.node.dmaCalls.writes, 1)
    assert.deepEqual(memoryAt(t, 0x9001, MTU), patternOf(MTU))
    assert.deepEqual(memoryAt(t, 0x9001 + 2 * MTU, 10), Uint8Array.from([...patternOf(9), 0]))
  })
  it('crosses a multiple of 4 GiB', () => {
    const t = startResponder()
    const multiple = Number(0x7f02_0000_0000n - MEMORY_BASE)
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: multiple - 500, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 1, { payload: MTU, ackReq: true })
    t.request('WRITE_FIRST', 2, { payload: MTU, remote: multiple - MTU, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 3, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@3 msn 2'])
    assert.deepEqual(memoryAt(t, multiple - MTU, 2 * MTU), Uint8Array.from([...patternOf(MTU), ...patternOf(MTU)]))
  })
  it('with immediate consumes and completes a receive WQE', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 1 })
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5, solicited: true })
    t.request('WRITE_ONLY_IMM', 2, { imm: 6, ackReq: true })
    assert.deepEqual(t.completions(), ['100 ok recv-imm 1025 imm 5', '101 ok recv-imm 0 imm 6'])
    assert.deepEqual(t.sent(), ['ACK@2 msn 2'])
  })
  it('with immediate waits for a receive WQE at its last packet', () => {
    const t = startScript({ minRnrTimer: 1 })
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 1 })
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5 })
    assert.deepEqual(t.sent(), ['RNR(1)@1 msn 0'])
    t.postReceives(1, 0)
    t.request('WRITE_LAST_IMM', 1, { payload: 1, imm: 5, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@1 msn 1'])
    assert.deepEqual(t.completions(), ['100 ok recv-imm 1025 imm 5'])
  })
  it('of zero length does not check the key', () => {
    const t = startResponder()
    t.request('WRITE_ONLY', 0, { rkey: 0xbad, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
  const wrong: [string, (t: Script) => void, string][] = [
    ['a wrong key', t => t.request('WRITE_ONLY', 0, { payload: 1, rkey: 0xbad }), 'NAK(REMOTE_ACCESS)@0 msn 0'],
    [
      'a range that ends outside',
      t => t.request('WRITE_FIRST', 0, { payload: MTU, remote: MEMORY_BYTES - MTU, dmaLen: MTU + 1 }),
      'NAK(REMOTE_ACCESS)@0 msn 0',
    ],
    [
      'no right to write',
      t => {
        t.node.regions.push({ key: 0x55, pd: 1, offset: 0, length: 100, access: Access.REMOTE_READ })
        t.request('WRITE_ONLY', 0, { payload: 1, rkey: 0x55 })
      },
      'NAK(REMOTE_ACCESS)@0 msn 0',
    ],
    [
      'a region of another protection domain',
      t => {
        t.node.regions.push({ key: 0x55, pd: 2, offset: 0, length: 100, access: ALL_ACCESS })
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
      'a FIRST with the whole message',
      t => t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: MTU }),
      'NAK(INVALID_REQUEST)@0 msn 0',
    ],
    [
      'a MIDDLE with all remaining bytes',
      t => {
        t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: 2 * MTU })
        t.request('WRITE_MIDDLE', 1, { payload: MTU })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
    ],
    [
      'a LAST without all remaining bytes',
      t => {
        t.request('WRITE_FIRST', 0, { payload: MTU, dmaLen: 2 * MTU })
        t.request('WRITE_LAST', 1, { payload: MTU - 4 })
      },
      'NAK(INVALID_REQUEST)@1 msn 0',
    ],
  ]
  for (const [title, send, nak] of wrong)
    it(`with ${title} is refused`, () => {
      const t = startResponder()
      send(t)
      assertRefused(t, [nak], flushed(100, 107), [nak.includes('ACCESS') ? 'QP_ACCESS_ERR' : 'QP_REQ_ERR'])
    })
  it('is refused when the QP does not allow it', () => {
    const t = startResponder({ access: Access.REMOTE_READ })
    t.request('WRITE_ONLY', 0, { payload: 1 })
    assertRefused(t, ['NAK(INVALID_REQUEST)@0 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
    assert.equal(t.node.reported.length, 1, 'no receive WQE has failed, only the event is reported')
  })
  it('whose region is deregistered in the middle is refused from the first packet that is not in memory', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 3 * MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 0'])
    t.request('WRITE_MIDDLE', 1, { payload: MTU, ackReq: true })
    deregisterRemote(t)
    t.request('WRITE_LAST', 2, { payload: MTU, ackReq: true })
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 0'], flushed(100, 107), ['QP_ACCESS_ERR'])
    assert.equal(t.node.memory[0x9000 + MTU], 0)
  })
  it('that cannot be written is not acknowledged by the response to a later READ', () => {
    const t = startScript()
    t.request('READ_REQUEST', 0, { dmaLen: 4, remote: 0x200 })
    t.request('WRITE_FIRST', 1, { payload: MTU, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 2, { payload: MTU })
    t.request('READ_REQUEST', 3, { dmaLen: 8, remote: 0x100 })
    t.node.faults.write = Errno.EFAULT
    assertRefused(t, ['READ_RESP_ONLY@0 msn 1 [4]', 'NAK(REMOTE_OPERATION)@1 msn 1'], [], ['QP_FATAL'])
  })
  it('to memory of a program that ends before the data is written is not acknowledged', () => {
    const t = startScript()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU, ackReq: true })
    t.node.faults.write = Errno.ESRCH
    assert.deepEqual(t.sent(), [])
    assert.equal(t.state, ERR)
  })
  it('to memory of a program that ends before the data is written is not acknowledged by the NAK for a later gap', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
    t.request('WRITE_LAST', 1, { payload: MTU })
    t.request('SEND_ONLY', 3, { payload: 1 })
    t.node.faults.write = Errno.ESRCH
    assert.deepEqual(t.sent(), [])
    assert.equal(t.state, ERR)
  })
  it('that cannot be written: a later atomic, FLUSH or ATOMIC WRITE is not executed', () => {
    for (const [name, spec] of [
      ['FETCH_ADD', { swap: 1n }],
      ['FLUSH', { dmaLen: 8 }],
      ['ATOMIC_WRITE', { payload: 8 }],
    ] as const) {
      const t = startResponder({ access: REMOTE_ACCESS | Access.FLUSH_GLOBAL })
      t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
      t.request('WRITE_LAST', 1, { payload: MTU })
      t.node.faults.write = Errno.EFAULT
      t.request(name, 2, { ...spec, remote: 0x8000 })
      assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], flushed(100, 107), ['QP_FATAL'])
      assert.equal(t.node.words.getBigUint64(0x8000, true), 5n, name)
      assert.equal(t.node.dmaCalls.writes, 1, name)
    }
  })
  it('that cannot be written fails no receive WQE of a later message', () => {
    for (const [name, spec] of [
      ['SEND_ONLY', {}],
      ['SEND_FIRST', {}],
      ['WRITE_ONLY_IMM', { remote: 0xa000 }],
    ] as const) {
      const t = startResponder()
      t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
      t.request('WRITE_LAST', 1, { payload: MTU })
      t.node.faults.write = Errno.EFAULT
      t.request(name, 2, { ...spec, payload: MTU })
      assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], flushed(100, 107), ['QP_FATAL'])
    }
  })
  it('whose region is deregistered: no later message is written', () => {
    for (const name of ['SEND_ONLY', 'SEND_FIRST'] as const) {
      const t = startScript()
      const halves = [
        { at: 0, length: MTU / 2 },
        { at: MTU / 2, length: MTU / 2 },
      ]
      t.node.postReceive(t.row, { id: 1, sges: halves })
      t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
      t.request('WRITE_LAST', 1, { payload: MTU })
      deregisterRemote(t)
      t.request(name, 2, { payload: MTU })
      assertRefused(t, ['NAK(REMOTE_ACCESS)@0 msn 0'], ['1 FLUSH'], ['QP_ACCESS_ERR'])
      assert.deepEqual(memoryAt(t, 0, MTU), new Uint8Array(MTU))
    }
  })
  it('with immediate that cannot be written fails its receive WQE', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
    t.node.faults.write = Errno.EFAULT
    t.request('WRITE_LAST_IMM', 1, { payload: MTU })
    assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], ['100 LOC_ACCESS', ...flushed(101, 107)])
  })
  it('that cannot be written before a refused request: the NAK and the event are for the WRITE', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 2 })
    deregisterRemote(t)
    t.request('SEND_MIDDLE', 1, { payload: MTU })
    assertRefused(t, ['NAK(REMOTE_ACCESS)@0 msn 0'], flushed(100, 107), ['QP_ACCESS_ERR'])
  })
  it('that cannot be written: the responses to earlier READs are sent', () => {
    // Near the wrap, PSN 0 is later than these PSNs: the zeros of unused responder resources must not count as READs.
    const t = startScript({ rqPsn: 0xff_fff0 })
    const psn = 0xff_fff0 - RQ_PSN
    t.request('READ_REQUEST', psn, { dmaLen: 4, remote: 0x200 })
    t.request('WRITE_FIRST', psn + 1, { payload: MTU, dmaLen: 2 * MTU })
    t.node.faults.write = Errno.EFAULT
    const sent = t.sent().map(text => text.replace(/@.*/, ''))
    assert.deepEqual(sent, ['READ_RESP_ONLY', 'NAK(REMOTE_OPERATION)'])
  })
  it('before a refused request is in memory', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: MTU + 2 })
    t.request('WRITE_LAST', 1, { payload: 2 })
    t.request('SEND_MIDDLE', 2, { payload: MTU })
    assertRefused(t, ['NAK(INVALID_REQUEST)@2 msn 1'], flushed(100, 107), ['QP_REQ_ERR'])
    assert.deepEqual(memoryAt(t, 0x9000 + MTU, 2), patternOf(2))
  })
})

it('a length of 2^31 bytes is not too long for a WRITE, READ or FLUSH', () => {
  for (const [name, payload] of [
    ['WRITE_FIRST', MTU],
    ['READ_REQUEST', 0],
    ['FLUSH', 0],
  ] as const) {
    const t = startScript({ access: REMOTE_ACCESS | Access.FLUSH_GLOBAL })
    t.request(name, 0, { payload, dmaLen: 0x8000_0000 })
    assert.deepEqual(t.sent(), ['NAK(REMOTE_ACCESS)@0 msn 0'], `${name}: the region is shorter`)
  }
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
  for (const [title, send, nak, completions] of cases)
    it(`${title}: invalid request`, () => {
      const t = startResponder()
      send(t)
      // no event if a receive WQE completes with the error
      assertRefused(t, [nak], completions, completions[0] === '100 FLUSH' ? ['QP_REQ_ERR'] : [])
    })
})

describe('a PSN', () => {
  it('ahead gets one NAK until the expected PSN arrives', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 3, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@0 msn 0'])
    t.request('SEND_ONLY', 4, { payload: 1, ackReq: true })
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    t.request('SEND_ONLY', 5, { payload: 1 })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@1 msn 1'])
    assert.equal(t.node.engine.counters.outOfSequence, 3)
  })
  it('ahead gets one NAK, also if a duplicate arrives meanwhile', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 1, { payload: 1 })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@0 msn 0'])
    t.request('SEND_ONLY', -1, { payload: 1 })
    t.request('SEND_ONLY', 1, { payload: 1 })
    assert.deepEqual(t.sent(), ['ACK@-1 msn 0'])
  })
  it('behind gets an ACK with the latest PSN, and the packet is not executed', () => {
    const t = startResponder()
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
  it('is behind if it is one of the 2^23 PSNs before the expected PSN, otherwise ahead', () => {
    const t = startResponder()
    t.request('SEND_ONLY', -0x80_0000, { payload: 1 })
    assert.deepEqual(t.sent(), ['ACK@-1 msn 0'])
    t.request('SEND_ONLY', 0x7f_ffff, { payload: 1 })
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@0 msn 0'])
  })
  it('wraps', () => {
    const t = startResponder({ rqPsn: 0xfffffe })
    for (let i = 0; i < 4; i++) t.injectRaw(packet('SEND_ONLY', 0xfffffe + i, { payload: 1, ackReq: true }))
    // PSN 1; `sent` returns the difference to RQ_PSN
    assert.deepEqual(t.sent(), [`ACK@${1 - RQ_PSN} msn 4`])
    assert.equal(t.node.engine.query(t.row).rqPsn, 2)
  })
})

describe('unexpected packets', () => {
  const dropped: [string, (t: Script) => void][] = [
    ['another partition', t => t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, pkey: 0x1234 })],
    ['another transport version', t => t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, tver: 1 })],
    ['another peer', t => t.injectRaw(packet('SEND_ONLY', RQ_PSN, { payload: 1, ackReq: true }), 1)],
    ['an unknown peer', t => t.injectRaw(packet('SEND_ONLY', RQ_PSN, { payload: 1, ackReq: true }), -1)],
    ['UC', t => t.request('UC_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    ['UD', t => t.request('UD_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    ['XRC', t => t.request('XRC_SEND_ONLY', 0, { payload: 1, ackReq: true })],
    // 0x15 is reserved
    ['an unknown opcode', t => t.injectRaw(packet('SEND_ONLY', RQ_PSN, { payload: 1 }).fill(0x15, 0, 1))],
    ['ten bytes', t => t.injectRaw(packet('SEND_ONLY', RQ_PSN).slice(0, 10))],
    // PadCnt, bits 4 and 5 of byte 1, is 3
    ['more pad than payload', t => t.injectRaw(packet('SEND_ONLY', RQ_PSN).fill(0x30, 1, 2))],
    ['a stray ACK', t => t.response('ACKNOWLEDGE', 0)],
    ['a stray NAK', t => t.response('ACKNOWLEDGE', 0, { syndrome: NAK.ACCESS })],
    ['a stray READ response', t => t.response('READ_RESP_ONLY', 0, { payload: 4 })],
  ]
  for (const [title, send] of dropped)
    it(`are dropped without an answer: ${title}`, () => {
      const t = startResponder()
      send(t)
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), [])
      assert.equal(t.node.engine.counters.dropped, 1)
      assert.equal(t.node.engine.counters.pkeyViolations, title === 'another partition' ? 1 : 0)
      // a packet with MigReq or a limited P_Key is valid
      t.request('SEND_ONLY', 0, { payload: 1, ackReq: true, migReq: true, pkey: 0x7fff })
      assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    })
  it('are dropped in INIT, and in error after the NAK', () => {
    const t = startResponder()
    t.request('SEND_LAST', 0, { payload: 1 })
    assert.equal(t.sent().length, 1)
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [])
    t.node.engine.modify(t.row, RESET, {})
    t.node.engine.modify(t.row, INIT, { access: REMOTE_ACCESS })
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [])
  })
})

/** A script whose queue pair is in RTR. */
const startInRtr = () => {
  const t = startScript()
  t.node.engine.modify(t.row, RESET, {})
  t.node.engine.modify(t.row, INIT, { access: REMOTE_ACCESS })
  t.node.engine.modify(t.row, RTR, {
    destQpn: PEER_QPN,
    rqPsn: RQ_PSN,
    pathMtu: 256,
    maxDestRdAtomic: 1,
    minRnrTimer: 1,
    flow: 0,
    peer: 0,
  })
  return t
}

it('in RTR a WRITE that cannot be written is refused', () => {
  const t = startInRtr()
  t.request('WRITE_FIRST', 0, { payload: 256, dmaLen: 512 })
  t.node.faults.write = Errno.EFAULT
  assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], [], ['COMM_EST', 'QP_FATAL'])
})

it('in RTR the first packet raises COMM_EST, once, and a response is dropped', () => {
  const t = startInRtr()
  t.postReceives(2, 10)
  t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
  t.request('SEND_ONLY', 1, { payload: 1, ackReq: true })
  assert.deepEqual(t.node.events, ['COMM_EST'])
  assert.deepEqual(t.sent(), ['ACK@1 msn 2'])
  // no request is in flight
  t.response('ACKNOWLEDGE', 0)
  assert.equal(t.node.engine.counters.dropped, 1)
})
