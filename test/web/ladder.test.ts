/*
 * The rows of the page's ladder, and its filters.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../src/spec/session-events.ts'
import { opcodeHeaderBytes, opcodeNumber, sourceQpnAt } from '../../src/spec/wire/opcodes.ts'
import { connectionsOf, SessionObjects } from '../../src/tools/record/objects.ts'
import { compileFilter, FilterError } from '../../web/filter/filter.ts'
import { srcQpnOf } from '../../web/ladder/connection-packets.ts'
import type { Row } from '../../web/ladder/row.ts'
import { filteredRow, rowFields } from '../../web/ladder/row-filter.ts'
import { LadderRows } from '../../web/ladder/rows.ts'
import { fieldNames } from '../../web/packet/fields.ts'
import { packetValueNames } from '../../web/packet/opcode-names.ts'
import { connected, LEFT, FIRST_PSN as PSN, packets, posted, RIGHT } from './events.ts'

const rowsOf = (...events: SessionEvent[]): readonly Row[] => {
  const objects = new SessionObjects()
  const all = [...connected(), ...events]
  for (const event of all) if (event.kind === 'object') objects.add(event)
  const [connection, ...others] = connectionsOf(objects)
  assert.deepEqual(others, [])
  const rows = new LadderRows(connection)
  for (const event of all) rows.add(event)
  return rows.rows.filter(({ kind, time }) => kind === 'packet' || time > 0)
}
const texts = (rows: readonly Row[]) =>
  rows.filter(({ kind }) => kind === 'packet').map(({ side, title, note }) => `${side} ${title} | ${note}`)

describe('the rows of a ladder', () => {
  it('say which packets are acknowledged, and which request they belong to', () => {
    const send = posted(LEFT, 1, 'SEND', 2048, 1)
    const rows = rowsOf(
      send,
      packets(LEFT, 'RC_SEND_FIRST', PSN, 2),
      packets(LEFT, 'RC_SEND_LAST', PSN + 1, 3),
      packets(RIGHT, 'RC_ACKNOWLEDGE', PSN + 1, 4),
    )
    assert.deepEqual(texts(rows), [
      '0 SEND_FIRST 0x000100 · 1 KiB | ',
      '0 SEND_LAST 0x000101 · 1 KiB | ',
      '1 ACKNOWLEDGE 0x000101 | acknowledges 0x000100–0x000101 · 2 packets',
    ])
    for (const row of rows) assert.equal(row.request, send)
  })

  it('split a run at a lost packet, and say why it is sent again', () => {
    const rows = rowsOf(
      packets(LEFT, 'RC_WRITE_MIDDLE', PSN, 1, { count: 8 }),
      packets(LEFT, 'RC_WRITE_MIDDLE', PSN + 3, 1, { direction: 'received', outcome: 'dropped' }),
      packets(RIGHT, 'RC_ACKNOWLEDGE', PSN + 3, 2, { syndrome: 0x60 }),
      packets(LEFT, 'RC_WRITE_MIDDLE', PSN + 3, 12, { count: 5 }),
    )
    assert.deepEqual(texts(rows), [
      '0 WRITE_MIDDLE ×3 0x000100–0x000102 · 1 KiB | ',
      '0 WRITE_MIDDLE 0x000103 · 1 KiB | lost',
      '0 WRITE_MIDDLE ×4 0x000104–0x000107 · 1 KiB | ',
      '1 NAK 0x000103 | sequence error: expects 0x000103',
      '0 WRITE_MIDDLE ×5 0x000103–0x000107 · 1 KiB | retransmission after NAK, 10.0 µs',
    ])
    assert.equal(rows[1].tone, 'lost')
    assert.equal(rows[4].tone, 'retry')
  })

  it('show waits for a receiver that is not ready, and for a missing acknowledgement', () => {
    const notReady = rowsOf(
      packets(LEFT, 'RC_SEND_ONLY', PSN, 1),
      packets(RIGHT, 'RC_ACKNOWLEDGE', PSN, 2, { syndrome: 0x20 | 12 }),
      posted(RIGHT, 2, 'SEND', 1, 5),
      packets(LEFT, 'RC_SEND_ONLY', PSN, 700),
    )
    assert.match(notReady[1].note, /receiver not ready: wait 640 µs/)
    assert.deepEqual(
      notReady.map(({ waits }) => waits[0]),
      [undefined, 'rnr', 'rnr', 'rnr'],
    )
    assert.equal(notReady[3].note, 'retransmission after RNR NAK, 698 µs')

    const lost = rowsOf(
      packets(LEFT, 'RC_SEND_ONLY', PSN, 1),
      posted(LEFT, 2, 'SEND', 1, 5),
      packets(LEFT, 'RC_SEND_ONLY', PSN, 67_001),
    )
    assert.deepEqual(
      lost.map(({ kind, waits }) => `${kind} ${waits[0]}`),
      ['packet timeout', 'posted timeout', 'idle timeout', 'packet timeout'],
    )
    assert.equal(lost[3].note, 'retransmission: not acknowledged for 67.0 ms')
  })

  it('fold time without events', () => {
    const rows = rowsOf(packets(LEFT, 'RC_SEND_ONLY', PSN, 1), packets(LEFT, 'RC_SEND_ONLY', PSN + 1, 30_001))
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      ['packet', 'idle', 'packet'],
    )
    assert.equal(rows[1].title, '30.0 ms without events')
  })

  it('know PSNs that wrap, and responses of READs', () => {
    const rows = rowsOf(
      packets(LEFT, 'RC_SEND_ONLY', 0xff_ffff, 1),
      packets(LEFT, 'RC_SEND_ONLY', 0, 2),
      packets(LEFT, 'RC_READ_REQUEST', 1, 3),
      packets(RIGHT, 'RC_READ_RESP_FIRST', 1, 4),
      packets(RIGHT, 'RC_READ_RESP_LAST', 2, 5),
      packets(LEFT, 'RC_SEND_ONLY', 3, 6),
      packets(RIGHT, 'RC_READ_RESP_LAST', 2, 7),
    )
    assert.deepEqual(
      rows.map(({ packet }) => packet?.isRetransmission),
      [false, false, false, false, false, false, true],
    )
  })

  it('give causes in words', () => {
    const failure = {
      kind: 'failure',
      time: 5,
      object: LEFT,
      failure: { failure: { text: 'QP 0x11 SEND wr_id 1: RETRY_EXC_ERR: no answer' } },
    } as unknown as SessionEvent
    const rows = rowsOf(failure)
    assert.equal(rows[0].title, 'QP 0x11 SEND wr_id 1: RETRY_EXC_ERR: no answer')
    assert.equal(rows[0].side, undefined)
  })
})

describe('filters', () => {
  const rows = rowsOf(
    posted(LEFT, 7, 'SEND', 1, 1),
    packets(LEFT, 'RC_SEND_ONLY', PSN, 1),
    packets(LEFT, 'RC_SEND_ONLY', PSN, 9),
    packets(RIGHT, 'RC_ACKNOWLEDGE', PSN, 10),
  )
  const isField = (name: string): boolean => [...fieldNames, ...rowFields].includes(name)
  const matches = (source: string): number[] => {
    const filter = compileFilter(source, isField, packetValueNames)
    return rows.flatMap((row, i) => (filter(filteredRow(row, 0)) ? [i] : []))
  }
  for (const [source, expected] of [
    ['', [0, 1, 2, 3]],
    ['infiniband.bth.psn == 0x100', [1, 2, 3]],
    ['infiniband.bth.psn == 256 && userdma.retransmission', [2]],
    ['infiniband.aeth.syndrome', [3]],
    ['!infiniband.aeth.syndrome and infiniband.bth.opcode >= 4', [1, 2]],
    ['userdma.kind == posted || infiniband.bth.opcode eq 0x11', [0, 3]],
    ['not (userdma.kind == packet)', [0]],
    ['userdma.wr_id == 7', [0, 1, 2, 3]],
    ['"wr_id 7"', [0]],
    ['infiniband.bth.opcode in {0x11, 99}', [3]],
    ['infiniband.bth.opcode in {4..0x10 200}', [1, 2]],
    ['opcode == "RC Acknowledge"', [3]],
    ['infiniband.bth.opcode in {"rc acknowledge", RC_SEND_LAST}', [3]],
    ['opcode contains "Acknowl"', [3]],
    ['userdma.kind in {"posted"}', [0]],
    ['userdma.kind matches "^P.st(ed|s)$"', [0]],
    ['retransmission', [2]],
    ['infiniband.bth.destqp != 0x12', [3]],
    ['userdma.side == left', [0, 1, 2]],
    ['infiniband.bth.opcode > 4', [3]],
    ['infiniband.bth.opcode <= 4 && infiniband.bth.opcode < 17', [1, 2]],
    ['frame.time_relative >= .000009 && frame.time_relative <= .00001', [2, 3]],
    ['userdma.kind == posted || userdma.kind == packet && retransmission', [0, 2]],
    ['userdma.kind contains OST', [0]],
  ] as const)
    it(`select rows: ${source}`, () => assert.deepEqual(matches(source), expected))

  for (const [source, message] of [
    ['infiniband.bth.psm == 1', /no field "infiniband.bth.psm"/],
    ['infiniband.bth.psn ==', /needs a value/],
    ['(userdma.kind == posted', /"\)" is missing/],
    ['&& userdma.kind', /needs a field before it/],
    ['userdma.kind == posted userdma.kind', /needs && or \|\|/],
    ['opcode == "RC Acknowledged"', /no opcode: a number, or a name such as "RC Acknowledge"/],
    ['userdma.wr_id in 7', /needs a set after it/],
    ['userdma.wr_id in {7', /a "}" is missing/],
    ['userdma.wr_id in {}', /is empty/],
    ['userdma.wr_id in {..7}', /both ends are needed/],
    ['userdma.kind matches "a("', /pattern "a\(" is not valid: a "\)" is missing/],
    [`userdma.kind matches "${'a'.repeat(201)}"`, /201 characters, and 200 are allowed/],
    ['userdma.kind matches "((a{99}){99}){99}"', /more than 2000 states/],
    ['userdma.kind matches "(((((){9999}){9999}){9999}){9999}"', /not valid/],
    ['"a', /not understood/],
  ] as const)
    it(`refuse: ${source}`, () =>
      assert.throws(
        () => compileFilter(source, isField, packetValueNames),
        error => error instanceof FilterError && message.test(error.message),
      ))
})

it('datagrams and all packets of SRD name the queue pair that sent them', () => {
  const names = [
    'UD_SEND_ONLY',
    'SRD_SEND',
    'SRD_SEND_IMM',
    'SRD_WRITE',
    'SRD_READ',
    'SRD_READ_DATA',
    'SRD_ACK',
    'SRD_REFUSE',
  ]
  for (const name of names) {
    const opcode = opcodeNumber[name as keyof typeof opcodeNumber]
    const bytes = new Uint8Array(opcodeHeaderBytes[opcode]!)
    bytes[0] = opcode
    bytes.set([0xff, 0x12, 0x34, 0x56], sourceQpnAt(opcode))
    assert.equal(srcQpnOf(bytes), 0x123456, name)
  }
  assert.equal(srcQpnOf(Uint8Array.of(opcodeNumber.RC_SEND_ONLY, ...new Uint8Array(60))), undefined)
})
