/* Of the flows between two hosts some lose packets: told if it is more than chance. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { aeth, analyse, pcapOf, problemsIn, randomOf, roce } from './build.ts'

const NAK = 0x60
/** A microsecond in nanoseconds. */
const US = 1000

interface Queue {
  readonly qpn: number
  readonly sourcePort: number
  readonly trafficClass?: number
  /** Rounds of 8 packets, one of which is lost in the round. */
  readonly lossy?: (round: number) => boolean
}

/** 40 rounds of 8 messages of each queue pair: they take turns. */
const captureOf = (queues: readonly Queue[]): Uint8Array => {
  const packets: CapturedPacket[] = []
  let time = 0
  for (let round = 0; round < 40; round++)
    for (const { qpn, sourcePort, trafficClass = 0, lossy } of queues) {
      const ends = { sourcePort, trafficClass }
      const send = (psn: number): void => {
        const rest = new Uint8Array(64).fill(psn)
        time += US
        packets.push(roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn, psn, time, rest, ...ends }))
      }
      const answer = (psn: number, syndrome?: number): void => {
        const rest = aeth(syndrome)
        const way = { from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: qpn + 1 } as const
        time += 30 * US
        packets.push(roce({ ...way, psn, time, rest, ...ends }))
      }
      const first = 1000 * qpn + 8 * round
      for (let i = 0; i < 8; i++) send(first + i)
      if (lossy?.(round)) {
        answer(first + 3, NAK)
        for (let i = 3; i < 8; i++) send(first + i)
      }
      answer(first + 7)
    }
  return pcapOf(packets)
}

const always = (): boolean => true
const queuesOf = (count: number, ofQueue: (i: number) => Partial<Queue>): Queue[] =>
  Array.from({ length: count }, (_, i) => ({ qpn: 0x10 + 2 * i, sourcePort: 0xc100 + i, ...ofQueue(i) }))

const pathProblem = (file: Uint8Array): string | undefined =>
  problemsIn(file).find(({ cause }) => cause === 'lossy-path')?.evidence

test('two of eight flows lose: their queue pairs and source ports are named, and those of the others', () => {
  const file = captureOf(queuesOf(8, i => (i % 4 === 1 ? { lossy: round => round % 4 === i % 3 } : {})))
  assert.equal(
    pathProblem(file),
    '10.0.0.1 → 10.0.0.2: 2 of 8 UDP source ports, with 28 % of the packets, lost some 20 times: ' +
      '49409 (QP 0x13 to QP 0x12) 10 times in 370 packets, 49413 (QP 0x1b to QP 0x1a) 10 times in 370 packets; ' +
      'never the other 6: 49408 (QP 0x11 to QP 0x10), 49410 (QP 0x15 to QP 0x14), 49411 (QP 0x17 to QP 0x16), ' +
      '49412 (QP 0x19 to QP 0x18), 49414 (QP 0x1d to QP 0x1c), 49415 (QP 0x1f to QP 0x1e)',
  )
  assert.equal(analyse(file).flows.filter(({ repeats }) => repeats !== undefined).length, 2)
})

test('a few losses elsewhere do not hide it', () => {
  const lossy = (i: number) =>
    i === 2 ? { lossy: (round: number) => round % 2 === 0 } : i === 5 ? { lossy: (round: number) => round === 9 } : {}
  assert.match(
    pathProblem(captureOf(queuesOf(6, lossy))) ?? '',
    /^.*: 1 of 6 UDP source ports.* 20 times.*; only once the other 5: /,
  )
})

test('nothing is said where chance, another class, another time or the same port explains it', () => {
  const silent: Readonly<Record<string, Uint8Array>> = {
    'all lose': captureOf(queuesOf(6, () => ({ lossy: always }))),
    'all lose, by chance': captureOf(
      queuesOf(6, i => {
        const random = randomOf(77 + i)
        return { lossy: () => random() < 0.1 }
      }),
    ),
    'two losses only': captureOf(queuesOf(8, i => (i === 3 ? { lossy: round => round < 2 } : {}))),
    'one flow': captureOf(queuesOf(1, () => ({ lossy: always }))),
    'one port': captureOf(queuesOf(6, i => ({ sourcePort: 4791, ...(i === 3 && { lossy: always }) }))),
    'another class': captureOf(queuesOf(6, i => (i === 3 ? { trafficClass: 104, lossy: always } : {}))),
  }
  for (const [what, file] of Object.entries(silent)) assert.equal(pathProblem(file), undefined, what)
})
