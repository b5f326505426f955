/*
 * What captures of InfiniBand (link type 247) show of LIDs and partition keys.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { captureCause } from '../../../src/spec/captures.ts'
import { LinkType } from '../../../src/spec/wire/captures.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { aeth, pcapOf, problemsIn, roce } from './build.ts'

const QPN = 0x11
const HEADERS = 42
const LRH_BYTES = 8
const VCRC_BYTES = 2
const NEXT_IS_BTH = 2

interface Fields {
  readonly from: number
  readonly to: number
  readonly psn: number
  readonly time: number
  readonly pkey?: number
  readonly isAnswer?: boolean
}

/** A packet of RC behind an LRH. `from` and `to` are LIDs. */
const packet = ({ pkey = 0xffff, isAnswer = false, ...fields }: Fields): CapturedPacket => {
  const opcode = isAnswer ? 'RC_ACKNOWLEDGE' : 'RC_SEND_ONLY'
  const made = roce({ ...fields, opcode, qpn: isAnswer ? QPN + 1 : QPN, rest: isAnswer ? aeth() : new Uint8Array(64) })
  const transport = made.bytes.slice(HEADERS)
  new DataView(transport.buffer).setUint16(2, pkey)
  const bytes = new Uint8Array(LRH_BYTES + transport.length + VCRC_BYTES)
  const view = new DataView(bytes.buffer)
  bytes[1] = NEXT_IS_BTH
  view.setUint16(2, fields.to)
  view.setUint16(4, (LRH_BYTES + transport.length) / 4)
  view.setUint16(6, fields.from)
  bytes.set(transport, LRH_BYTES)
  return { ...made, bytes, length: bytes.length, linkType: LinkType.INFINIBAND }
}

/** Two requests with answers, if `answered`, and then one that is sent three times and has none. */
const silent = (to: number, { pkey = 0xffff, answered = false } = {}): readonly CapturedPacket[] => {
  const rounds = [1, 2].flatMap(psn => [
    packet({ from: 2, to, psn, time: psn * 1000, pkey }),
    packet({ from: to, to: 2, psn, time: psn * 1000 + 500, pkey, isAnswer: true }),
  ])
  const tries = [1, 2, 3].map(round => packet({ from: 2, to, psn: 3, time: round * 67_000_000, pkey }))
  return [...(answered ? rounds : []), ...tries]
}

const failuresIn = (packets: readonly CapturedPacket[]) =>
  problemsIn(pcapOf(packets, { linkType: LinkType.INFINIBAND }))
    .filter(({ cause }) => captureCause(cause).severity === 'failure')
    .map(({ cause, evidence }) => [cause, evidence] as const)

test('requests to LID 0, which a program for RoCE has, have that as the cause', () => {
  assert.deepEqual(failuresIn(silent(0)), [['lid-zero', '3 packets']])
})

test('a LID from which nothing comes is named', () => {
  assert.deepEqual(failuresIn(silent(9)), [
    ['no-answer', 'PSN 0x3 was sent again twice; no packet of the capture comes from LID 9'],
  ])
  const other = packet({ from: 9, to: 4, psn: 7, time: 1 })
  assert.deepEqual(failuresIn([other, ...silent(9)])[0], ['no-answer', 'PSN 0x3 was sent again twice'])
})

test('requests of a limited member, or of an empty entry of the table, name their P_Key', () => {
  const [cause, evidence] = failuresIn(silent(3, { pkey: 0x1 }))[0]!
  assert.equal(cause, 'pkey-limited')
  assert.match(evidence, /^P_Key 0x1; PSN 0x3 was sent again twice/)
  assert.match(failuresIn(silent(3, { pkey: 0 }))[0]![1], /^P_Key 0x0, that of an empty entry of the table; PSN 0x3/)
  // A full member answers.
  assert.equal(failuresIn(silent(3, { pkey: 0x1, answered: true }))[0]![0], 'answers-stop')
})

test('what to do has the tools of InfiniBand, and for RoCE it has not', () => {
  for (const cause of ['no-answer', 'answers-stop', 'loss'] as const) {
    assert.match(captureCause(cause, true).advice, /perfquery/)
    assert.doesNotMatch(captureCause(cause).advice, /perfquery/)
  }
})
