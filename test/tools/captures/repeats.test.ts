/*
 * Why packets come again: lost and asked for, after a timeout, doubled by the path, late by another path, or sent again
 * although nothing was lost. Each from packets that were made for it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OpcodeName } from '../../../src/spec/wire/opcodes.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import type { CaptureProblem } from '../../../src/tools/captures/problems.ts'
import { aeth, analyse, packetsOfFixture, pcapOf, problemsIn, reth, roce } from './build.ts'

const QPN = 0x11
const BACK = 0x12
const NAK = 0x60
const RNR = 0x20 | 14
/** A microsecond in nanoseconds. */
const US = 1000

interface Sent {
  readonly opcode?: OpcodeName
  readonly rest?: Uint8Array
  readonly ackReq?: boolean
  readonly identification?: number
}

/** A capture that is written packet by packet. Times are microseconds. */
const script = () => {
  const packets: CapturedPacket[] = []
  const send = (
    psn: number,
    time: number,
    { opcode = 'RC_SEND_ONLY', rest = new Uint8Array(64), ...more }: Sent = {},
  ) => void packets.push(roce({ from: 1, to: 2, opcode, qpn: QPN, psn, time: time * US, rest, ...more }))
  const answer = (psn: number, time: number, syndrome = 0x1f, opcode: OpcodeName = 'RC_ACKNOWLEDGE', payload = 0) =>
    void packets.push(
      roce({
        from: 2,
        to: 1,
        opcode,
        qpn: BACK,
        psn,
        time: time * US,
        rest: Uint8Array.of(...(opcode === 'RC_READ_RESP_MIDDLE' ? [] : aeth(syndrome)), ...new Uint8Array(payload)),
      }),
    )
  const file = (keep: (packet: CapturedPacket) => boolean = () => true): Uint8Array =>
    pcapOf(packets.filter(keep).sort((a, b) => Number(a.time! - b.time!)))
  return { packets, send, answer, file }
}

const isFrom =
  (last: number) =>
  ({ bytes }: CapturedPacket): boolean =>
    bytes[29] === last
const causes = (file: Uint8Array): string[] =>
  problemsIn(file)
    .map(({ cause }) => cause)
    .filter(cause => cause !== 'one-in-flight')
const problem = (file: Uint8Array, cause: string): CaptureProblem => {
  const found = problemsIn(file).find(one => one.cause === cause)
  assert.ok(found, `${cause} of ${causes(file).join()}`)
  return found
}

/** Sixteen messages in flight, all acknowledged at once: the first half of a capture. */
const start = ({ send, answer }: ReturnType<typeof script>): void => {
  for (let psn = 0; psn < 16; psn++) send(psn, psn * 10)
  answer(15, 300)
}

test('a packet that comes twice was doubled, whatever lies between, if nothing asked for it', () => {
  for (const [what, psn, time] of [
    ['at once', 18, 785],
    ['behind others', 18, 913],
    ['the oldest one', 16, 820],
    ['an acknowledged one', 14, 340],
    ['the last one', 23, 870],
  ] as const) {
    const capture = script()
    start(capture)
    for (let next = 16; next < 24; next++) capture.send(next, 600 + 10 * next)
    capture.send(psn, time)
    capture.send(24, 1100)
    capture.answer(24, 1400)
    assert.deepEqual(causes(capture.file()), ['doubled'], what)
    assert.match(problem(capture.file(), 'doubled').evidence, /^1 of 26 packets, .* after the first$/, what)
  }
})

test('every packet doubled, and answers too: the mirror is told, and NAKs are counted once', () => {
  const all = packetsOfFixture('loss_send_requests')
  const lossOf = (packets: readonly CapturedPacket[]): string =>
    problem(pcapOf([...packets].sort((a, b) => Number(a.time! - b.time!))), 'loss').evidence.replace(/\(.*?\)/, '')
  for (const later of [2000n, 150_000n]) {
    const doubled = all.flatMap(packet => [packet, { ...packet, time: packet.time! + later }])
    assert.equal(lossOf(doubled), lossOf(all), `${later}`)
  }
  for (const name of ['rnr_nak', 'rnr_retry_exceeded', 'nak_access_write']) {
    const mirrored = packetsOfFixture(name).flatMap(packet => [packet, { ...packet, time: packet.time! + 3000n }])
    const naks = (packets: readonly CapturedPacket[]) =>
      analyse(pcapOf(packets)).flows.map(flow => [flow.rnrs, flow.mostRnrRow, flow.fatalNaks])
    assert.deepEqual(naks(mirrored), naks(packetsOfFixture(name)), name)
  }
  // Points of one capture one after the other, as interfaces in a merged file: the hop limit tells them apart.
  const packets = packetsOfFixture('rnr_retry_exceeded')
  const routed = packets.map(packet => {
    const bytes = Uint8Array.from(packet.bytes)
    bytes[22]! -= 1
    return { ...packet, bytes }
  })
  const { flows } = analyse(pcapOf([...packets, ...routed, ...routed]))
  assert.deepEqual(
    flows.map(({ rnrs }) => rnrs),
    analyse(pcapOf(packets)).flows.map(({ rnrs }) => rnrs),
  )
})

test('datagrams and packets of UC come twice, and are not sent again', () => {
  for (const opcode of ['UD_SEND_ONLY', 'UC_SEND_ONLY'] as const) {
    const capture = script()
    for (let psn = 0; psn < 8; psn++) capture.send(psn, psn * 50, { opcode, rest: new Uint8Array(72).fill(9) })
    capture.send(3, 170, { opcode, rest: new Uint8Array(72).fill(9) })
    assert.deepEqual(causes(capture.file()), ['doubled'], opcode)
  }
})

test('what was asked for or timed out is no double', () => {
  const again = script()
  start(again)
  for (let psn = 16; psn < 24; psn++) again.send(psn, 1000 + 10 * psn)
  // A NAK 50 µs later, and all from there on again.
  again.answer(18, 1250, NAK)
  for (let psn = 18; psn < 24; psn++) again.send(psn, 1260 + psn)
  again.answer(23, 1400)
  assert.deepEqual(causes(again.file()), ['loss'])
  assert.match(problem(again.file(), 'loss').evidence, /^6 packets in 1 burst .*, after 1 NAK; all had passed here/)

  const timeout = script()
  start(timeout)
  timeout.send(16, 1000)
  timeout.send(16, 68_000)
  timeout.answer(16, 68_100)
  assert.match(problem(timeout.file(), 'loss').evidence, /^1 packet in 1 burst .* after 1 timeout of 67\.0 ms/)

  const rnr = script()
  start(rnr)
  rnr.send(16, 1000)
  rnr.answer(16, 1010, RNR)
  rnr.send(16, 2500)
  rnr.answer(16, 2510)
  assert.deepEqual(causes(rnr.file()), ['rnr-waits'])
})

test('a packet that is late is not lost, however late, also if the responder asks for it', () => {
  for (const late of [20, 60]) {
    const capture = script()
    start(capture)
    for (let psn = 16; psn < 120; psn++) if (psn !== 40) capture.send(psn, 1000 + 10 * psn)
    capture.send(40, 1000 + 10 * (40 + late) + 5)
    capture.answer(119, 3000)
    assert.deepEqual(causes(capture.file()), ['reordered'], `${late}`)
  }
  for (const original of [1705, 1905]) {
    const capture = script()
    start(capture)
    for (let psn = 16; psn < 60; psn++) if (psn !== 40) capture.send(psn, 1000 + 10 * psn)
    capture.answer(40, 1650, NAK)
    // The late one comes before what is sent again, or after it.
    capture.send(40, original)
    for (let psn = 40; psn < 60; psn++) capture.send(psn, 1700 + 10 * (psn - 40) + 6)
    capture.send(60, 1950)
    capture.answer(60, 3000)
    assert.deepEqual(causes(capture.file()), ['reordered'], `${original}`)
    assert.match(
      problem(capture.file(), 'reordered').evidence,
      /^1 packet; the responder dropped what followed, and 20 packets in 1 burst were sent again$/,
    )
  }
})

test('a packet that was missing and comes with all that follow it was lost before the capture', () => {
  const capture = script()
  start(capture)
  for (let psn = 16; psn < 24; psn++) if (psn !== 18) capture.send(psn, 1000 + 10 * psn)
  for (let psn = 18; psn < 24; psn++) capture.send(psn, 1260 + psn)
  capture.send(24, 1300)
  capture.answer(24, 1400)
  assert.deepEqual(causes(capture.file()), ['loss'])
  assert.match(problem(capture.file(), 'loss').evidence, /1 of them were missing here before/)
  assert.equal(analyse(capture.file()).flows[0]!.messages?.[0], 25)
})

/** READs of four packets, and their responses; one is lost, before the capture or behind it. */
const reads = (missing: number, repeatedAfter: number, isHere = false): ReturnType<typeof script> => {
  const capture = script()
  const read = (psn: number, time: number, length: number): void =>
    capture.send(psn, time, { opcode: 'RC_READ_REQUEST', rest: reth(length) })
  for (let i = 0; i < 8; i++) read(4 * i, i, 4096)
  const respond = (from: number, to: number, time: number): void => {
    for (let psn = from; psn <= to; psn++) {
      if (psn === missing && time === 100 && !isHere) continue
      const place = psn % 4 === 0 ? 'FIRST' : psn % 4 === 3 ? 'LAST' : 'MIDDLE'
      capture.answer(psn, time + psn, 0x1f, `RC_READ_RESP_${place}`, 1024)
    }
  }
  respond(0, 31, 100)
  read(missing, repeatedAfter, 4096 - 1024 * (missing % 4))
  for (let i = Math.floor(missing / 4) + 1; i < 8; i++) read(4 * i, repeatedAfter + i, 4096)
  respond(missing, 31, repeatedAfter + 100)
  return capture
}

test('READs that are repeated where a response is missing are an implied NAK; later, a timeout', () => {
  for (const missing of [10, 12, 15]) {
    const file = reads(missing, 5000).file()
    assert.deepEqual(causes(file), ['implied-nak'], `${missing}`)
    assert.match(problem(file, 'implied-nak').evidence, /; 1 response is missing here, the first before frame \d+$/)
  }
  assert.deepEqual(causes(reads(10, 70_000).file()), ['loss'])
  // Sooner than a timer, and from a whole READ on: no double.
  assert.deepEqual(causes(reads(12, 600).file()), ['implied-nak'])
  // Here all responses passed.
  assert.match(problem(reads(10, 5000, true).file(), 'implied-nak').evidence, /all responses had passed here before/)
})

/**
 * Messages of 4 packets, each sent again after 10 ms, whose answers take `delay` ms; `isLost`: which answers are lost.
 */
const slow = (delay: number, isLost: (answer: number) => boolean): ReturnType<typeof script> => {
  const capture = script()
  let answers = 0
  const times = Math.ceil(delay / 10)
  for (let message = 0; message < 10; message++)
    for (let attempt = 0; attempt < times; attempt++) {
      const time = message * 100_000 + attempt * 10_000
      for (let i = 0; i < 4; i++) {
        const opcode = i === 0 ? 'RC_SEND_FIRST' : i === 3 ? 'RC_SEND_LAST' : 'RC_SEND_MIDDLE'
        capture.send(4 * message + i, time + i, { opcode, rest: new Uint8Array(1024), ackReq: i === 3 })
      }
      if (!isLost(answers++)) capture.answer(4 * message + 3, time + 1000 * delay)
    }
  return capture
}

test('answers that come later than the timeout: nothing was lost; lost answers are loss', () => {
  const late = slow(25, () => false).file()
  assert.deepEqual(causes(late), ['late-acknowledgements'])
  assert.match(
    problem(late, 'late-acknowledgements').evidence,
    /^80 packets in 20 bursts .*, after timeouts of 10\.0 ms; an answer took 25\.0 ms; 20 of the bursts/,
  )
  assert.deepEqual(causes(slow(25, answer => answer % 3 < 2).file()), ['loss'])
})

test('one direction: what it proves, and which host is absent', () => {
  const capture = script()
  start(capture)
  for (let psn = 16; psn < 24; psn++) if (psn !== 18) capture.send(psn, 1000 + 10 * psn)
  capture.answer(18, 1200, NAK)
  for (let psn = 18; psn < 24; psn++) capture.send(psn, 1260 + psn)
  capture.answer(23, 1400)
  for (let psn = 24; psn < 32; psn++) capture.send(psn, 2000 + psn)
  capture.answer(25, 2100, NAK)
  for (let psn = 25; psn < 32; psn++) capture.send(psn, 2200 + psn)
  capture.answer(31, 2300)

  assert.deepEqual(causes(capture.file(isFrom(1))), ['loss', 'one-direction'])
  const requests = problem(capture.file(isFrom(1)), 'one-direction')
  assert.match(
    requests.evidence,
    /^the capture has no packet from 10\.0\.0\.2 to 10\.0\.0\.1; 32 SEND sent; .* in 2 bursts, .* before PSN 0x19 was acknowledged/,
  )
  assert.deepEqual(causes(capture.file(isFrom(2))), ['loss', 'one-direction'])
  assert.match(problem(capture.file(isFrom(2)), 'loss').evidence, /asked for packets again twice \(NAK\)/)
  assert.match(problem(capture.file(isFrom(2)), 'one-direction').evidence, /they acknowledge PSNs 0xf to 0x1f$/)

  // Without a repeat: all that can be said is that there was none.
  const well = script()
  start(well)
  assert.match(problem(well.file(isFrom(1)), 'one-direction').evidence, /none was sent again$/)

  // Requests that stay at one PSN are not known to have succeeded.
  const silent = script()
  silent.send(0, 0)
  for (let attempt = 1; attempt < 8; attempt++) silent.send(0, attempt * 67_000)
  assert.deepEqual(causes(silent.file()), ['no-answer'])
})

test('one direction: RNR NAKs and the NAKs of a responder are told', () => {
  const capture = script()
  for (const time of [0, 3000, 6000]) {
    capture.send(0, time)
    capture.answer(0, time + 100, RNR)
  }
  assert.deepEqual(causes(capture.file(isFrom(2))), ['rnr-last', 'one-direction'])
  capture.send(0, 9000)
  capture.answer(0, 9100)
  assert.deepEqual(causes(capture.file(isFrom(2))), ['rnr-waits', 'one-direction'])
  for (const [code, cause] of [
    [1, 'invalid-request'],
    [2, 'remote-access'],
    [3, 'remote-operation'],
  ] as const) {
    const refused = script()
    start(refused)
    refused.answer(20, 1000, NAK | code)
    assert.deepEqual(causes(refused.file(isFrom(2))), [cause, 'one-direction'])
  }
})
