/*
 * Packet scripts for ACKs, READ responses and atomic responses.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../../src/spec/enums.ts'
import { Errno } from '../../../../src/spec/errno.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { MEMORY_BASE, REMOTE_ACCESS } from '../node.ts'
import { assertRefused, atomicWord, ERR, flushed, MTU, memoryAt, patternOf, startResponder } from '../responding.ts'
import { packet, RQ_PSN } from '../script.ts'

const { RESET } = QpState.values
/** The low byte of BTH.DestQP. */
const destQpOf = ({ bytes }: { readonly bytes: Uint8Array }): number => bytes[7]

describe('an ACK', () => {
  it('is sent later if the port is full', () => {
    const t = startResponder()
    t.node.port.freeRuns = 0
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [])
    t.node.port.freeRuns = 1
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
  it('is sent once per burst, for the last packet', () => {
    const t = startResponder()
    // The last packet requests no ACK, the others do.
    for (let i = 0; i < 5; i++) t.request('SEND_ONLY', i, { payload: 1, ackReq: i < 4 })
    assert.deepEqual(t.sent(), ['ACK@4 msn 5'])
    t.node.engine.resume(t.row)
    assert.deepEqual(t.sent(), [])
  })
  it('has the PSN before the expected one, also if that has wrapped to 0', () => {
    const t = startResponder({ rqPsn: 0 })
    // A duplicate: PSNs of scripts count from RQ_PSN, so this is 0xffffff.
    t.request('SEND_ONLY', -1 - RQ_PSN, { payload: 1 })
    assert.deepEqual(t.sent(), [`ACK@${-1 - RQ_PSN} msn 0`])
  })
  it('waits until the data is in memory', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 0'])
    assert.equal(t.node.sent[0].writesBefore, 1)
    assert.deepEqual(memoryAt(t, 0x9000, MTU), patternOf(MTU))
  })
})

describe('a READ', () => {
  it('is answered with FIRST, MIDDLE and LAST, and takes one PSN for each', () => {
    const t = startResponder()
    t.node.memory.set(patternOf(2500), 0x9000)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500, ackReq: true })
    t.request('SEND_ONLY', 3, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), [
      'READ_RESP_FIRST@0 msn 1 [1024]',
      'READ_RESP_MIDDLE@1 [1024]',
      'READ_RESP_LAST@2 msn 1 [452]',
      'ACK@3 msn 2',
    ])
    const responses = t.payloads().slice(0, 3)
    assert.deepEqual(Uint8Array.from(responses.flatMap(p => [...p])), patternOf(2500))
  })
  it('counts once in the 64 KiB that a queue pair sends per turn', () => {
    const attributes = { pathMtu: 4096, maxDestRdAtomic: 16 }
    const t = startResponder(attributes, { maxBytes: 0x4_0000 })
    const second = t.node.createQp(0x12)
    t.node.connect(second, { destQpn: 0x23, rqPsn: 0, ...attributes })
    for (let i = 0; i < 16; i++) {
      t.request('READ_REQUEST', i, { remote: 0x9000, dmaLen: 4096 })
      t.node.inject(second, packet('READ_REQUEST', i, { remote: 0x9000, dmaLen: 4096 }, 0x12), 0)
    }
    t.node.transmit(0)
    // 16 READs of 4 KiB are 64 KiB: the first queue pair's turn ends after its last READ.
    assert.deepEqual(t.node.sent.map(destQpOf), [...Array(16).fill(0x22), ...Array(16).fill(0x23)])
  })
  it('may share a run with the next READ, if the port sets maxSinglePacketRun', () => {
    /** The lengths of the packets of each run. */
    const runsOf = (maxSinglePacketRun?: number): number[][] => {
      const t = startResponder(
        {},
        { maxBytes: 0x8000, ...(maxSinglePacketRun !== undefined && { maxSinglePacketRun }) },
      )
      t.node.memory.set(patternOf(8 * MTU), 0x9000)
      t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 4 * MTU })
      t.request('READ_REQUEST', 4, { remote: 0x9000 + 4 * MTU, dmaLen: 4 * MTU })
      const names = ['FIRST', 'MIDDLE', 'MIDDLE', 'LAST']
      const expected = [...names, ...names].map((name, i) => `READ_RESP_${name}@${i}`)
      assert.deepEqual(
        t.sent().map(text => text.split(' ')[0]),
        expected,
      )
      assert.deepEqual(Uint8Array.from(t.payloads().flatMap(p => [...p])), patternOf(8 * MTU))
      const runs: number[][] = []
      for (const { run, bytes } of t.node.sent) {
        runs[run - 1] ??= []
        runs[run - 1].push(bytes.length)
      }
      return runs
    }
    // BTH and ICRC have 16 bytes, the AETH of FIRST and LAST 4.
    const [end, middles] = [MTU + 20, [MTU + 16, MTU + 16]]
    assert.deepEqual(runsOf(8), [[end], middles, [end, end], middles, [end]])
    assert.deepEqual(runsOf(), [[end], middles, [end], [end], middles, [end]])
  })
  it('of one packet or of zero length is answered by ONLY; zero length needs no valid key', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 5 })
    t.request('READ_REQUEST', 1, { rkey: 0xbad, dmaLen: 0 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [5]', 'READ_RESP_ONLY@1 msn 2'])
  })
  it('is answered with a response that acknowledges earlier requests, before later requests are answered', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    t.request('READ_REQUEST', 1, { dmaLen: 5 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@1 msn 2 [5]'])
    t.request('READ_REQUEST', 2, { dmaLen: 5 })
    t.request('SEND_ONLY', 3, { payload: MTU + 4, ackReq: true })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@2 msn 3 [5]', 'NAK(INVALID_REQUEST)@3 msn 3'])
  })
  it('duplicate is answered again, whole or from a later PSN', () => {
    const t = startResponder()
    t.node.memory.set(patternOf(2500), 0x9000)
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
    assert.deepEqual(t.payloads().at(-2), patternOf(2500).slice(MTU, 2 * MTU))
  })
  it('duplicate from a later PSN may begin beyond a multiple of 4 GiB', () => {
    const t = startResponder()
    const multiple = Number(0x7f02_0000_0000n - MEMORY_BASE)
    t.node.memory.set(patternOf(2 * MTU), multiple - MTU)
    t.request('READ_REQUEST', 0, { remote: multiple - MTU, dmaLen: 2 * MTU })
    t.sent()
    t.request('READ_REQUEST', 1, { remote: multiple, dmaLen: MTU })
    assert.deepEqual(t.sent(), ['READ_RESP_LAST@1 msn 1 [1024]'])
    assert.deepEqual(t.payloads().at(-1), patternOf(2 * MTU).slice(MTU))
  })
  it('duplicate that is late, whose region was deregistered since, gets a NAK, and the queue pair goes on', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 8 })
    t.request('SEND_ONLY', 1, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [8]', 'ACK@1 msn 2'])
    const [region] = t.node.regions.splice(0, 1)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 8 })
    assert.deepEqual(t.sent(), ['NAK(REMOTE_ACCESS)@0 msn 1'])
    t.node.regions.unshift(region!)
    t.request('SEND_ONLY', 2, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@2 msn 3'])
  })
  it('duplicate with another range or key is not answered', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
    t.request('READ_REQUEST', 0, { remote: 0x8fff, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9001, dmaLen: 2500 })
    t.request('READ_REQUEST', 1, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500, rkey: 1 })
    // Inside the range, but not the data of the PSN.
    t.request('READ_REQUEST', 1, { remote: 0x9000, dmaLen: 1024 })
    t.request('READ_REQUEST', 0, { remote: 0x9400, dmaLen: 1024 })
    t.request('READ_REQUEST', 0, { remote: 0x9004, dmaLen: 8 })
    // Longer than the original, but not in more packets.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2501 })
    assert.deepEqual(t.sent(), [])
  })
  it('of an earlier connection is forgotten', () => {
    const t = startResponder()
    for (const psn of [0, 1]) t.request('READ_REQUEST', psn, { dmaLen: 8 })
    assert.equal(t.sent().length, 2)
    t.node.engine.modify(t.row, RESET, {})
    t.node.connect(t.row, { destQpn: 0x22, rqPsn: RQ_PSN + 2 })
    t.request('READ_REQUEST', 2, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@2 msn 1 [8]'])
    t.request('READ_REQUEST', 1, { dmaLen: 8 })
    assert.deepEqual(t.sent(), [])
  })
  it('is not repeated for a duplicate of another operation', () => {
    const t = startResponder({ access: REMOTE_ACCESS | Access.FLUSH_GLOBAL })
    t.request('READ_REQUEST', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [8]'])
    t.request('FETCH_ADD', 0, { remote: 0x8000, swap: 1n })
    t.request('FLUSH', 0, { dmaLen: 8 })
    t.request('ATOMIC_WRITE', 0, { payload: 8 })
    assert.deepEqual(t.sent(), [])
  })
  it('duplicate is answered from the youngest READ with its PSN, after 2^24 packets', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { dmaLen: 8 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [8]'])
    t.node.engine.modify(t.row, undefined, { rqPsn: RQ_PSN })
    for (const time of ['first', 'second']) {
      t.request('READ_REQUEST', 0, { dmaLen: 4, remote: 0x100 })
      assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 2 [4]'], time)
    }
  })
  it('duplicate during its response is not answered twice', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
  })
  it('duplicate of a part of it: only that part is sent again', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 3)
    t.request('READ_REQUEST', 1, { remote: 0x9000 + MTU, dmaLen: MTU })
    assert.deepEqual(t.sent(), ['READ_RESP_LAST@1 msn 1 [1024]'])
    // Before it is answered, a duplicate is replaced by a later one.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: MTU })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@0 msn 1 [1024]'])
  })
  it('duplicate while its response is being sent: the response begins again', () => {
    const t = startResponder({}, { maxBytes: 1100 })
    t.node.port.freeRuns = 1 // The port accepts one run of one packet, then it is full.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    assert.equal(t.sent().length, 1)
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    t.node.port.freeRuns = 9
    assert.equal(t.sent().length, 3)
    assert.deepEqual(t.sent(), [])
  })
  it('duplicate of its end, before its response was sent: the whole response is sent once', () => {
    const t = startResponder()
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 2500 })
    t.request('READ_REQUEST', 1, { remote: 0x9000 + MTU, dmaLen: 2500 - MTU })
    assert.deepEqual(t.sent(), [
      'READ_RESP_FIRST@0 msn 1 [1024]',
      'READ_RESP_MIDDLE@1 [1024]',
      'READ_RESP_LAST@2 msn 1 [452]',
    ])
  })
  it('beyond max_dest_rd_atomic is refused', () => {
    const t = startResponder({ maxDestRdAtomic: 2 })
    for (let i = 0; i < 3; i++) t.request('READ_REQUEST', i, { dmaLen: 1 })
    assertRefused(
      t,
      ['READ_RESP_ONLY@0 msn 1 [1]', 'READ_RESP_ONLY@1 msn 2 [1]', 'NAK(INVALID_REQUEST)@2 msn 2'],
      flushed(100, 107),
      ['QP_REQ_ERR'],
    )
  })
  it('may follow when earlier READs are answered, also if a duplicate is not answered yet', () => {
    const t = startResponder({ maxDestRdAtomic: 1 })
    for (let i = 0; i < 5; i++) {
      t.request('READ_REQUEST', i, { dmaLen: 1 })
      assert.deepEqual(t.sent(), [`READ_RESP_ONLY@${i} msn ${i + 1} [1]`])
    }
    t.request('READ_REQUEST', 4, { dmaLen: 1 })
    t.request('READ_REQUEST', 5, { dmaLen: 1 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@5 msn 6 [1]'])
  })
  it('beyond max_dest_rd_atomic is refused also after an answered duplicate', () => {
    const t = startResponder({ maxDestRdAtomic: 1 })
    for (let i = 0; i < 2; i++) {
      t.request('READ_REQUEST', 0, { dmaLen: 1 })
      assert.equal(t.sent().length, 1)
    }
    for (const psn of [1, 2]) t.request('READ_REQUEST', psn, { dmaLen: 1 })
    assert.deepEqual(t.sent(), ['READ_RESP_ONLY@1 msn 2 [1]', 'NAK(INVALID_REQUEST)@2 msn 2'])
  })
  for (const [title, spec, code] of [
    ['a wrong key', { dmaLen: 1, rkey: 0xbad }, 'REMOTE_ACCESS'],
    ['a range that ends outside', { dmaLen: 100, remote: 0x2_0000 - 99 }, 'REMOTE_ACCESS'],
    ['more than 2 GiB', { dmaLen: 0x8000_0001 }, 'INVALID_REQUEST'],
  ] as const)
    it(`with ${title} is refused`, () => {
      const t = startResponder()
      t.request('READ_REQUEST', 0, spec)
      assert.deepEqual(t.sent(), [`NAK(${code})@0 msn 0`])
      assert.equal(t.state, ERR)
    })
  it('whose region is deregistered while it is answered ends with a NAK', () => {
    const t = startResponder({}, { maxBytes: 1100 })
    t.node.port.freeRuns = 1 // The port accepts one run of one packet, then it is full.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 3000 })
    assert.deepEqual(t.sent(), ['READ_RESP_FIRST@0 msn 1 [1024]'])
    t.node.regions.splice(0, 1)
    t.node.port.freeRuns = 9
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 1'], flushed(100, 107), ['QP_ACCESS_ERR'])
  })
  it('that cannot be answered in ERR ends with a NAK, without another event', () => {
    const t = startResponder()
    t.node.port.freeRuns = 0 // The port is full.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 8 })
    t.sent()
    t.node.engine.modify(t.row, ERR, {})
    t.node.faults.read = Errno.EFAULT
    t.node.port.freeRuns = 9
    assert.deepEqual(t.sent(), ['NAK(REMOTE_OPERATION)@0 msn 1'])
    assert.deepEqual(t.node.events, [])
  })
  it('that cannot be answered ends with a NAK whose MSN does not count later messages', () => {
    const t = startResponder()
    t.request('SEND_ONLY', 0, { payload: 1 })
    t.request('READ_REQUEST', 1, { remote: 0x9000, dmaLen: 8 })
    t.request('SEND_ONLY', 2, { payload: 1 })
    t.node.faults.read = Errno.EFAULT
    assert.deepEqual(t.sent(), ['NAK(REMOTE_OPERATION)@1 msn 2'])
    assert.deepEqual(t.node.events, ['QP_FATAL'])
  })
  it('that is long lets other queue pairs respond before its end', () => {
    const t = startResponder({}, { maxBytes: 0x4000, memoryBytes: 0x4_0000 })
    const other = t.node.createQp(0x33)
    t.node.connect(other, { destQpn: 0x44, rqPsn: RQ_PSN })
    t.request('READ_REQUEST', 0, { dmaLen: 200 * MTU })
    t.node.inject(other, packet('READ_REQUEST', RQ_PSN, { dmaLen: 1 }, 0x33), 0)
    t.node.transmit(0)
    const position = t.node.sent.findIndex(sent => destQpOf(sent) === 0x44)
    assert.ok(position < 100, `${position} responses before`)
  })
  it('is answered with PSNs that wrap', () => {
    const t = startResponder({ rqPsn: 0xff_fffe })
    const psn = 0xff_fffe - RQ_PSN
    t.request('READ_REQUEST', psn, { dmaLen: 5 * MTU })
    const psns = t.sent().map(text => (Number(/@(-?\d+)/.exec(text)?.[1]) + RQ_PSN) & 0xff_ffff)
    assert.deepEqual(psns, [0xff_fffe, 0xff_ffff, 0, 1, 2])
  })
  it('is answered later if the port is full', () => {
    const t = startResponder()
    t.node.port.freeRuns = 0
    t.request('READ_REQUEST', 0, { dmaLen: 2 * MTU })
    assert.deepEqual(t.sent(), [])
    t.node.port.freeRuns = 9
    assert.equal(t.sent().length, 2)
  })
  it('is answered as far as the port accepts runs, and continued when the port accepts more', () => {
    const t = startResponder({}, { maxBytes: 2 * (MTU + 20) })
    t.node.port.freeRuns = 2 // The port accepts two runs, then it is full.
    t.request('READ_REQUEST', 0, { remote: 0x9000, dmaLen: 10 * MTU })
    assert.equal(t.sent().length, 2)
    assert.equal(t.node.dmaCalls.reads, 1, 'one DMA read for both responses')
    t.node.port.freeRuns = 1
    assert.equal(t.sent().length, 2)
    t.node.port.freeRuns = 100
    assert.deepEqual(t.sent().at(-1), 'READ_RESP_LAST@9 msn 1 [1024]')
  })
})

describe('an atomic', () => {
  it('fetches and adds, with carry and wrap', () => {
    const t = startResponder()
    t.request('FETCH_ADD', 0, { remote: 0x8000, swap: 0xffff_ffffn })
    t.request('FETCH_ADD', 1, { remote: 0x8000, swap: 0xffff_ffff_ffff_ffffn })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@0 msn 1 = 5', 'ATOMIC_ACK@1 msn 2 = 4294967300'])
    assert.equal(atomicWord(t), 4294967299n)
  })
  it('compares and swaps', () => {
    const t = startResponder()
    t.request('COMPARE_SWAP', 0, { remote: 0x8000, compare: 5n, swap: 0x1234_5678_9abc_def0n })
    t.request('COMPARE_SWAP', 1, { remote: 0x8000, compare: 5n, swap: 9n })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@0 msn 1 = 5', `ATOMIC_ACK@1 msn 2 = ${0x1234_5678_9abc_def0n}`])
    assert.equal(atomicWord(t), 0x1234_5678_9abc_def0n)
  })
  it('duplicate gets the first response again, or none after reuse of its responder resource', () => {
    // max_dest_rd_atomic is 4: the fifth atomic replaces the first.
    const t = startResponder()
    for (let i = 0; i < 5; i++) {
      t.request('FETCH_ADD', i, { remote: 0x8000, swap: 1n })
      t.sent()
    }
    t.request('FETCH_ADD', 1, { remote: 0x8000, swap: 1n })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@1 msn 2 = 6'])
    t.request('FETCH_ADD', 0, { remote: 0x8000, swap: 1n })
    assert.deepEqual(t.sent(), [])
    assert.equal(atomicWord(t), 10n)
  })
  it('beyond max_dest_rd_atomic, 4, moves the queue pair to ERR', () => {
    const t = startResponder()
    for (let i = 0; i < 5; i++) t.request('FETCH_ADD', i, { remote: 0x8000, swap: 1n })
    assert.equal(t.state, ERR)
    assert.equal(atomicWord(t), 9n, 'the fifth is not executed')
  })
  it('in memory that cannot be written ends with a NAK', () => {
    for (const name of ['FETCH_ADD', 'COMPARE_SWAP']) {
      const t = startResponder()
      t.node.faults.write = Errno.EFAULT
      t.request(name, 0, { remote: 0x8000 })
      assertRefused(t, ['NAK(REMOTE_OPERATION)@0 msn 0'], flushed(100, 107), ['QP_FATAL'])
      assert.deepEqual(
        t.node.reported.map(({ id }) => id),
        ['REMOTE_FAULT'],
      )
    }
  })
  it('sees the WRITE before it', () => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { payload: MTU, remote: 0x8000 - MTU, dmaLen: MTU + 8 })
    t.request('WRITE_LAST', 1, { payload: Uint8Array.of(9, 0, 0, 0, 0, 0, 0, 0) })
    t.request('FETCH_ADD', 2, { remote: 0x8000, swap: 1n })
    assert.deepEqual(t.sent(), ['ATOMIC_ACK@2 msn 2 = 9'])
  })
  it('at an unaligned address, without the right, or with a wrong key is refused', () => {
    const unaligned = startResponder()
    unaligned.request('FETCH_ADD', 0, { remote: 0x8004 })
    assert.deepEqual(unaligned.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'])
    const withoutRight = startResponder({ access: Access.REMOTE_WRITE | Access.REMOTE_READ })
    withoutRight.request('FETCH_ADD', 0, { remote: 0x8000 })
    assert.deepEqual(withoutRight.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'])
    const wrongKey = startResponder()
    wrongKey.request('COMPARE_SWAP', 0, { remote: 0x8000, rkey: 0xbad })
    assert.deepEqual(wrongKey.sent(), ['NAK(REMOTE_ACCESS)@0 msn 0'])
  })
})
