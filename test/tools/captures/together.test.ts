/*
 * Several captures together: clocks with an offset of 10 ms and a drift of 1 % are found within the error that is
 * named, and packets that are lost between the points are told from those that a capture misses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AddressTable } from '../../../src/tools/captures/addresses.ts'
import type { CapturedPacket } from '../../../src/tools/captures/file.ts'
import { compareCaptures, type Together } from '../../../src/tools/captures/together.ts'
import { packetsOfFixture, pcapOf, pointOf, randomOf, START } from './build.ts'

const compare = (files: readonly Uint8Array[]): Promise<Together> => {
  const addresses = new AddressTable()
  return compareCaptures(
    files.map((file, i) => pointOf(`${i}`, file, addresses)),
    addresses,
    {},
  )
}

interface Seen extends CapturedPacket {
  readonly at: number
}

interface Network {
  readonly rounds: number
  readonly gap?: number
  readonly delay: (random: () => number) => number
  /** Whether the request or answer of a round is lost on the path. */
  readonly isLost?: (round: number, isAnswer: boolean) => boolean
}

/** A request of the client (which captures 0) to the server (captures 1), and its answer, each round. */
const twoEnds = ({ rounds, gap = 1e6, delay, isLost = () => false }: Network): readonly [Seen[], Seen[]] => {
  const packets = packetsOfFixture('write_lat')
  const request = packets.find(({ bytes }) => bytes[42] === 0x0a)!
  const answer = packets.find(({ bytes }) => bytes[42] === 0x11)!
  const random = randomOf(7)
  const ends: readonly [Seen[], Seen[]] = [[], []]
  const see = (end: number, of: CapturedPacket, psn: number, at: number): void => {
    const bytes = Uint8Array.from(of.bytes)
    new DataView(bytes.buffer).setUint32(50, psn)
    ends[end].push({ ...of, bytes, at })
  }
  for (let round = 0; round < rounds; round++) {
    const sent = round * gap
    see(0, request, 0x8000_0000 + round, sent)
    if (isLost(round, false)) continue
    const arrived = sent + delay(random)
    see(1, request, 0x8000_0000 + round, arrived)
    see(1, answer, round, arrived + 5000)
    if (!isLost(round, true)) see(0, answer, round, arrived + 5000 + delay(random))
  }
  return ends
}

/** A file of packets by a clock. */
const fileBy = (packets: readonly Seen[], { offset = 0, drift = 0 } = {}): Uint8Array =>
  pcapOf(
    [...packets]
      .sort((a, b) => a.at - b.at)
      .map(({ at, ...packet }) => ({ ...packet, time: START + BigInt(Math.round(at * (1 + drift) + offset)) })),
  )

const OFFSET = 10e6

for (const drift of [0, 0.01, -0.01, 5e-5])
  test(`a clock that is 10 ms ahead and drifts by ${100 * drift} % is aligned within its error`, async () => {
    const [client, server] = twoEnds({ rounds: 3000, delay: random => 20_000 + 30_000 * random() ** 4 })
    const { clocks, paths, lost } = await compare([fileBy(client), fileBy(server, { offset: OFFSET, drift })])
    const { clock } = clocks[1]!
    assert.ok(Math.abs(clock.drift - drift) <= 3 * clock.driftError + 1e-7, `${clock.drift} ± ${clock.driftError}`)
    assert.ok(clock.driftError < 1e-6, `${clock.driftError}`)
    // The clock's origin is the first common packet, at which the drift is not yet there.
    assert.ok(Math.abs(clock.offset - OFFSET) <= clock.offsetError!, `${clock.offset} ± ${clock.offsetError}`)
    assert.ok(clock.offsetError! < 25_000, `${clock.offsetError}`)
    assert.deepEqual(lost, [])
    for (const { packets, points } of paths) {
      assert.equal(packets, 3000)
      const [near, far] = points
      assert.deepEqual([near.seen, far.seen, far.delays], [3000, 3000, 3000])
      const mean = far.delaySum / far.delays
      assert.ok(mean > 15_000 && mean < 35_000, `${mean}`)
    }
    // Each end is the first point of its own packets.
    assert.deepEqual(
      paths.map(({ points }) => points.map(({ point }) => point)),
      [
        [0, 1],
        [1, 0],
      ],
    )
  })

test('packets that are lost between the ends left one and never came to the other, with their frames', async () => {
  const isLost = (round: number, isAnswer: boolean): boolean => round % 100 === (isAnswer ? 70 : 20)
  const [client, server] = twoEnds({ rounds: 1000, delay: random => 20_000 + 9000 * random(), isLost })
  const { paths, lost } = await compare([fileBy(client), fileBy(server, { offset: -OFFSET, drift: 0.01 })])
  assert.deepEqual(
    lost.map(({ from, to, isLate, count }) => ({ from, to, isLate, count })),
    [
      { from: 0, to: 1, isLate: false, count: 10 },
      { from: 1, to: 0, isLate: false, count: 10 },
    ],
  )
  // Request 20 is the 41st packet of the client: requests and answers before it alternate.
  assert.equal(lost[0]!.frames[0], 41)
  assert.deepEqual(
    paths.map(({ points }) => points.map(({ lost: count, missed }) => [count, missed])),
    [
      [
        [0, 0],
        [10, 0],
      ],
      [
        [0, 0],
        [10, 0],
      ],
    ],
  )
})

test('what a capture misses is no loss, if a later point has the packet', async () => {
  const [client, server] = twoEnds({ rounds: 1000, delay: () => 20_000 })
  const isRequest = ({ bytes }: Seen): boolean => bytes[42] === 0x0a
  const thinned = client.filter((packet, i) => !isRequest(packet) || i === 0 || i % 50 !== 0)
  const { paths, lost } = await compare([fileBy(thinned), fileBy(server)])
  assert.deepEqual(lost, [])
  assert.ok(paths.some(({ points }) => points[0]!.missed === client.length - thinned.length))
})

test('after the last packet of a capture, loss is told as such: it may have ended', async () => {
  const [client, server] = twoEnds({ rounds: 200, delay: () => 20_000, isLost: round => round > 150 })
  const { lost } = await compare([fileBy(client), fileBy(server)])
  assert.deepEqual(
    lost.map(({ from, to, isLate, count }) => ({ from, to, isLate, count })),
    [{ from: 0, to: 1, isLate: true, count: 49 }],
  )
})

test('a switch between the ends is a point between them: the loss is behind it', async () => {
  const [client, server] = twoEnds({ rounds: 500, delay: () => 40_000 })
  // The switch sees each packet halfway, and each tenth request dies behind it.
  const middle = [
    ...client.filter(({ bytes }) => bytes[42] === 0x0a).map(packet => ({ ...packet, at: packet.at + 20_000 })),
    ...server.filter(({ bytes }) => bytes[42] === 0x11).map(packet => ({ ...packet, at: packet.at + 20_000 })),
  ]
  const psnOf = ({ bytes }: Seen): number => new DataView(bytes.buffer, bytes.byteOffset).getUint16(52)
  const arrived = server.filter(packet => packet.bytes[42] !== 0x0a || psnOf(packet) % 10 !== 5)
  const files = [fileBy(client), fileBy(arrived, { offset: OFFSET }), fileBy(middle, { offset: -3e6, drift: 1e-4 })]
  const { lost, paths } = await compare(files)
  assert.deepEqual(
    lost.map(({ from, to, count }) => ({ from, to, count })),
    [{ from: 2, to: 1, count: 50 }],
  )
  assert.deepEqual(
    paths.map(({ points }) => points.map(({ point }) => point)),
    [
      [0, 2, 1],
      [1, 2, 0],
    ],
  )
})

test('captures without common packets are not compared, and one direction alone has no error of its offset', async () => {
  const [client, server] = twoEnds({ rounds: 100, delay: () => 20_000 })
  const apart = await compare([fileBy(client), pcapOf(packetsOfFixture('read_bw'))])
  assert.deepEqual([apart.clocks[1], apart.paths], [undefined, []])
  const isRequest = ({ bytes }: Seen): boolean => bytes[42] === 0x0a
  const oneWay = await compare([fileBy(client.filter(isRequest)), fileBy(server.filter(isRequest))])
  assert.equal(oneWay.clocks[1]!.clock.offsetError, undefined)
})
