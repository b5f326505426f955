/*
 * Requests whose PSNs were acknowledged before, and that have other data: without effect if the responder answers them
 * as duplicates. Repeats after a lost acknowledgement, and new lives of both ends, are none.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { aeth, pcapOf, problemsIn, reth, roce } from './build.ts'

const FIRST = 100
const COUNT = 4

type Kind = 'RC_SEND_ONLY' | 'RC_WRITE_ONLY'
/** `data`: of the payload. Times are in milliseconds. */
const request = (kind: Kind, i: number, data: number, time: number): CapturedPacket => {
  const payload = new Uint8Array(64).fill(data)
  const rest = kind === 'RC_SEND_ONLY' ? payload : Uint8Array.of(...reth(64), ...payload)
  return roce({
    from: 1,
    to: 2,
    opcode: kind,
    qpn: 0x11,
    psn: FIRST + i,
    time: 1e6 * time,
    rest,
    identification: 1 + time,
  })
}
const answer = (i: number, time: number): CapturedPacket =>
  roce({ from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: 0x12, psn: FIRST + i, time: 1e6 * time, rest: aeth() })

/** Four messages, each acknowledged; then `again`, each of which is answered with the PSN that `answered` says. */
const capture = (kind: Kind, data: (i: number) => number, answered: (i: number) => number): CapturedPacket[] =>
  [0, 1].flatMap(life =>
    Array.from({ length: COUNT }, (_, i) => {
      const time = 100 * life + 10 * i
      return [request(kind, i, life === 0 ? i : data(i), time), answer(life === 0 ? i : answered(i), time + 1)]
    }).flat(),
  )

const tellsOf = (packets: readonly CapturedPacket[]): string[] =>
  problemsIn(pcapOf(packets)).flatMap(({ cause, evidence }) => (cause === 'psn-mismatch' ? [evidence] : []))

for (const kind of ['RC_SEND_ONLY', 'RC_WRITE_ONLY'] as const) {
  test(`${kind}: other data at acknowledged PSNs, answered as duplicates`, () => {
    assert.deepEqual(
      tellsOf(
        capture(
          kind,
          i => 0x50 + i,
          () => COUNT - 1,
        ),
      ),
      [
        '4 packets from PSN 0x64 on, which was acknowledged before, were sent with other data, and the responder answers 3 times as to duplicates, with PSN 0x67: the requester has begun anew, the responder has not, and these requests have no effect',
      ],
    )
  })

  test(`${kind}: repeats of the same data, and a new life of both ends, are silent`, () => {
    assert.deepEqual(
      tellsOf(
        capture(
          kind,
          i => i,
          () => COUNT - 1,
        ),
      ),
      [],
    )
    assert.deepEqual(
      tellsOf(
        capture(
          kind,
          i => 0x50 + i,
          i => i,
        ),
      ),
      [],
    )
    // the last one is acknowledged alone
    const packets = capture(
      kind,
      i => 0x50 + i,
      () => COUNT - 1,
    )
    assert.deepEqual(tellsOf(packets.filter((_, i) => i < 2 * COUNT || i % 2 === 0 || i === 4 * COUNT - 1)), [])
  })
}

test('an acknowledgement that the capture lacks proves nothing', () => {
  const packets = capture(
    'RC_SEND_ONLY',
    i => 0x50 + i,
    () => COUNT - 1,
  )
  assert.deepEqual(tellsOf(packets.filter((_, i) => i % 2 === 0 || i === packets.length - 1)), [])
})
