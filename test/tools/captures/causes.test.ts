/*
 * Causes that Linux's captures do not have, each from packets that were made for it, and a like capture without it:
 * what a path does to packets (ICMP, doubling, incast, another port), what ends do (pauses, limits of READs, packets
 * after the end or of an earlier connection).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { aeth, analyse, packetsOfFixture, pcapOf, problemsIn, reth, roce } from './build.ts'

const causes = (packets: readonly CapturedPacket[]): string[] =>
  problemsIn(pcapOf([...packets].sort((a, b) => Number(a.time! - b.time!)))).map(({ cause }) => cause)

const evidence = (packets: readonly CapturedPacket[], cause: string): string =>
  problemsIn(pcapOf([...packets].sort((a, b) => Number(a.time! - b.time!)))).find(one => one.cause === cause)
    ?.evidence ?? ''

const QPN = 0x11
const BACK = 0x12

interface Round {
  readonly from?: number
  readonly to?: number
  readonly qpn?: number
  readonly bytes?: number
  readonly trafficClass?: number
}

/** A SEND at `time` and its acknowledgement 10 µs later. */
const round = (
  psn: number,
  time: number,
  { from = 1, to = 2, qpn = QPN, bytes = 64, trafficClass = 0 }: Round = {},
): CapturedPacket[] => [
  roce({
    from,
    to,
    opcode: 'RC_SEND_ONLY',
    qpn,
    psn,
    time,
    rest: new Uint8Array(bytes),
    trafficClass,
    identification: (psn & 0xff) + 1,
  }),
  roce({ from: to, to: from, opcode: 'RC_ACKNOWLEDGE', qpn: qpn + 1, psn, time: time + 10_000, rest: aeth() }),
]

const rounds = (count: number, gap = 50_000): CapturedPacket[][] =>
  Array.from({ length: count }, (_, psn) => round(psn, psn * gap))

test('rounds without a fault have no cause but one message in flight', () => {
  assert.deepEqual(causes(rounds(100).flat()), ['one-in-flight'])
})

/** An ICMP error about a packet, from its destination. */
const icmp = (about: CapturedPacket, type: number, code: number, mtu = 0, quoted = 44): CapturedPacket => {
  const ip = about.bytes.subarray(14, 14 + quoted)
  const bytes = new Uint8Array(14 + 20 + 8 + ip.length)
  const view = new DataView(bytes.buffer)
  bytes.set(about.bytes.subarray(0, 34))
  view.setUint16(16, bytes.length - 14)
  bytes[23] = 1
  bytes.set(about.bytes.subarray(30, 34), 26)
  bytes.set(about.bytes.subarray(26, 30), 30)
  bytes[34] = type
  bytes[35] = code
  view.setUint16(40, mtu)
  bytes.set(ip, 42)
  return { ...about, time: about.time! + 1000n, bytes, length: bytes.length }
}

test('ICMP errors about RoCEv2 packets are named, with the queue pair if it is quoted', () => {
  const [request] = round(1, 0)
  for (const [type, code, text] of [
    [3, 3, /port unreachable/],
    [3, 1, /host unreachable/],
    [3, 13, /prohibited/],
    [11, 0, /time exceeded/],
  ] as const) {
    const packets = [request!, icmp(request!, type, code), icmp(request!, type, code)]
    assert.equal(causes(packets)[0], 'icmp-refused')
    assert.match(evidence(packets, 'icmp-refused'), text)
    assert.match(evidence(packets, 'icmp-refused'), /10\.0\.0\.2 says .* QP 0x11.*, twice/)
  }
  assert.match(evidence([request!, icmp(request!, 3, 4, 1400)], 'icmp-refused'), /the next link takes 1400 bytes/)
  assert.doesNotMatch(evidence([request!, icmp(request!, 3, 3, 0, 28)], 'icmp-refused'), /QP/)
  // An echo, and an error about a packet of another port, say nothing about RDMA.
  assert.deepEqual(causes([...round(1, 0), icmp(request!, 8, 0)]), [])
  const elsewhere = roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: 1, psn: 1, time: 0, port: 53 })
  assert.ok(!causes([icmp(elsewhere, 3, 3)]).includes('icmp-refused'))
})

test('RoCEv2 packets at another UDP port are found by their ICRC', () => {
  const other = roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: QPN, psn: 1, time: 0, port: 4792 })
  assert.deepEqual(causes([other]), ['other-port'])
  const broken = Uint8Array.from(other.bytes)
  broken[broken.length - 1]! ^= 1
  assert.deepEqual(causes([{ ...other, bytes: broken }]), [])
})

/** A packet in two IP fragments, the first with `bytes` of the IP payload. */
const fragmentsOf = (packet: CapturedPacket, bytes: number): CapturedPacket[] => {
  const part = (from: number, to: number, isLast: boolean): CapturedPacket => {
    const made = Uint8Array.from([...packet.bytes.subarray(0, 34), ...packet.bytes.subarray(34 + from, 34 + to)])
    const view = new DataView(made.buffer)
    view.setUint16(16, made.length - 14)
    view.setUint16(20, (isLast ? 0 : 0x2000) | (from >> 3))
    return { ...packet, bytes: made, length: made.length }
  }
  const end = packet.bytes.length - 34
  return [part(0, bytes, false), part(bytes, end, true)]
}

test('packets in IP fragments are understood from the first, and it is told whether the others come', () => {
  const rest = rounds(4).slice(1).flat()
  const [request, answer] = round(0, 0, { bytes: 2000 })
  const [first, second] = fragmentsOf(request!, 1480)
  const whole = [first!, second!, answer!, ...rest]
  assert.deepEqual(causes(whole), ['fragmented'])
  assert.match(evidence(whole, 'fragmented'), /^1 packet in fragments$/)
  const { flows, kinds } = analyse(pcapOf(whole))
  assert.deepEqual([flows[0]!.messages?.[0], flows[0]!.messageBytes], [4, 2000 + 3 * 64])
  assert.equal(kinds[9], 1)
  assert.match(evidence([first!, answer!, ...rest], 'fragmented'), /^1 packet in fragments; of 1 some are missing$/)
  // Fragments of other datagrams are none of RoCEv2.
  const [, other] = fragmentsOf(round(9, 0, { from: 5, bytes: 2000 })[0]!, 1480)
  assert.deepEqual(causes([...rounds(4).flat(), other!]), [])
})

test('packets with the PSNs of the connection before are ghosts', () => {
  const old = rounds(20).flat()
  const now = Array.from({ length: 20 }, (_, i) => round(0x80_0000 + i, 2e6 + i * 50_000)).flat()
  const ghosts = [round(20, 2_210_000)[0]!, round(21, 2_260_000)[0]!]
  assert.deepEqual(causes([...old, ...now]), ['one-in-flight', 'psn-jump'])
  assert.deepEqual(causes([...old, ...now, ...ghosts]), ['one-in-flight', 'ghosts', 'psn-jump'])
  assert.match(evidence([...old, ...now, ...ghosts], 'ghosts'), /^2 packets/)
})

test('a packet that comes twice at once was doubled; one that is sent again after a timeout was not', () => {
  const all = rounds(20)
  const [request] = all[5]!
  assert.deepEqual(causes([...all.flat(), { ...request!, time: request!.time! + 2000n }]), ['doubled'])
  const again = roce({
    from: 1,
    to: 2,
    opcode: 'RC_SEND_ONLY',
    qpn: QPN,
    psn: 19,
    time: 5e6,
    rest: new Uint8Array(64),
    identification: 99,
  })
  assert.ok(!causes([...all.flat(), again]).includes('doubled'))
})

test('packets after the DREP are told', () => {
  const packets = packetsOfFixture('rping')
  const send = packets.find(({ bytes }) => bytes[42] === 0x04)!
  const last = packets.at(-1)!
  assert.deepEqual(problemsIn(pcapOf(packets)), [])
  const late = problemsIn(pcapOf([...packets, { ...send, time: last.time! + 1000n }]))
  const told = late.find(({ cause }) => cause === 'after-disconnect')
  assert.equal(told?.frames[1], packets.length + 1)
})

test('a pause of the requester is told, if it is long beside its other time', () => {
  const before = rounds(50).flat()
  const after = Array.from({ length: 50 }, (_, i) => round(50 + i, 100e6 + i * 50_000)).flat()
  assert.deepEqual(causes([...before, ...after]), ['one-in-flight', 'sender-paused'])
  assert.match(evidence([...before, ...after], 'sender-paused'), /^97\.\d+ ms before frame 101/)
})

/** A READ of 64 bytes that is answered after a time. */
const readOf = (psn: number, time: number, delay: number): CapturedPacket[] => [
  roce({ from: 1, to: 2, opcode: 'RC_READ_REQUEST', qpn: QPN, psn, time, rest: reth(64) }),
  roce({
    from: 2,
    to: 1,
    opcode: 'RC_READ_RESP_ONLY',
    qpn: BACK,
    psn,
    time: time + delay,
    rest: Uint8Array.of(...aeth(), ...new Uint8Array(64)),
  }),
]

/** READs of 64 bytes: `outstanding` at a time, each answered after 100 µs. */
const reads = (count: number, outstanding: number): CapturedPacket[] =>
  Array.from({ length: count }, (_, psn) => {
    const time = Math.floor(psn / outstanding) * 101_000 + (psn % outstanding) * 100
    return readOf(psn, time, 100_000)
  }).flat()

test('READs that wait for a limit are told: always as many outstanding', () => {
  // A next READ leaves when an answer comes, so that four are outstanding always.
  const rolling = Array.from({ length: 200 }, (_, psn) => {
    const time = psn * 25_000
    return readOf(psn, time, 99_000)
  }).flat()
  assert.match(evidence(rolling, 'reads-limited'), /never more than 4 outstanding/)
  assert.deepEqual(causes(reads(100, 1)), ['one-in-flight'])
  assert.ok(!causes(reads(100, 4)).includes('reads-limited'), 'batches of four that the program waits for')
})

test('several senders to one host, whose packets are marked then, are an incast', () => {
  const marked = 3
  const senders = [2, 3, 4, 5]
  const flows = senders.flatMap(from =>
    Array.from({ length: 40 }, (_, psn) =>
      round(psn, psn * 20_000 + from, {
        from,
        to: 1,
        qpn: 0x20 * from,
        bytes: 1024,
        trafficClass: psn > 20 ? marked : 2,
      }),
    ).flat(),
  )
  assert.ok(causes(flows).includes('incast'))
  assert.match(evidence(flows, 'incast'), /^4 hosts sent \d+ bytes to 10\.0\.0\.1 within a millisecond/)
  // One after the other, each marked as much: no incast.
  const inTurn = senders.flatMap(from =>
    Array.from({ length: 40 }, (_, psn) =>
      round(psn, from * 5e6 + psn * 20_000, {
        from,
        to: 1,
        qpn: 0x20 * from,
        bytes: 1024,
        trafficClass: psn > 20 ? marked : 2,
      }),
    ).flat(),
  )
  assert.ok(causes(inTurn).includes('congestion') && !causes(inTurn).includes('incast'))
})

test('a congested flow has its rate over time', () => {
  const fast = Array.from({ length: 2000 }, (_, psn) =>
    round(psn, psn * 10_000, { bytes: 4000, trafficClass: psn > 1980 ? 3 : 2 }),
  )
  const slow = Array.from({ length: 100 }, (_, i) =>
    round(2000 + i, 20e6 + i * 100_000, { bytes: 4000, trafficClass: 2 }),
  )
  assert.match(evidence([...fast, ...slow].flat(), 'congestion'), /its rate was 3\.\d+ Gb\/s at .* and 0\.3\d+ at /)
})

test('go-back-N: bytes that were sent again for each byte that was lost', () => {
  const packets: CapturedPacket[] = []
  const send = (psn: number, time: number): void =>
    void packets.push(
      roce({
        from: 1,
        to: 2,
        opcode: 'RC_SEND_ONLY',
        qpn: QPN,
        psn,
        time,
        rest: new Uint8Array(64),
        identification: packets.length + 1,
      }),
    )
  for (let psn = 0; psn < 40; psn++) send(psn, psn * 1000)
  const answer = (psn: number, syndrome: number, time: number): void =>
    void packets.push(roce({ from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: BACK, psn, time, rest: aeth(syndrome) }))
  answer(29, 0x1f, 50_000)
  // A NAK for PSN 30: it and the nine after it are sent again.
  answer(30, 0x60, 51_000)
  for (let psn = 30; psn < 40; psn++) send(psn, 100_000 + psn * 1000)
  answer(39, 0x1f, 200_000)
  assert.match(evidence(packets, 'loss'), /10\.0 bytes were sent again for each byte/)
})

test('answers are timed by the size of the message', () => {
  const small = rounds(100).flat()
  const large = Array.from({ length: 40 }, (_, i) => round(100 + i, 10e6 + i * 50_000, { bytes: 8000 })).flat()
  const { flows } = analyse(pcapOf([...small, ...large]))
  const answers = flows.find(flow => flow.answers > 0)!
  assert.deepEqual([answers.delayBySize![0], answers.delayBySize![6]], [36, 40])
})
