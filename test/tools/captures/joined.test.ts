/*
 * Frames with several transport packets (GSO, GRO) are split into what was on the wire: any number of packets, the last
 * shorter, over IPv4 and IPv6, with tags and tunnels, whole and cut; and what only looks like such a frame is not
 * split.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { OpcodeName } from '../../../src/spec/wire/opcodes.ts'
import { AddressTable } from '../../../src/tools/captures/addresses.ts'
import { CaptureAnalysis } from '../../../src/tools/captures/analysis.ts'
import { type CapturedPacket, packetsOf } from '../../../src/tools/captures/file.ts'
import { compareCaptures } from '../../../src/tools/captures/together.ts'
import { CaptureRedactor, CaptureWriter } from '../../../src/tools/captures/write.ts'
import { aeth, analyse, causesIn, joined, pcapOf, pointOf, reth, roce } from './build.ts'

const QPN = 0x11
const BACK = 0x12
const MTU = 1024

interface Options {
  readonly isIpv6?: boolean
  /** Identifications from one packet to the next. */
  readonly step?: number
  readonly time?: number
  readonly qpn?: number
}

const bytesOf = (count: number, seed = 1): Uint8Array => {
  let state = seed
  return Uint8Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state >>> 24
  })
}

/** The packets of a WRITE, of `size` bytes. */
const write = (psn: number, size: number, { isIpv6 = false, step = 1, time = 0, qpn = QPN }: Options = {}) => {
  const count = Math.ceil(size / MTU)
  return Array.from({ length: count }, (_, i): CapturedPacket => {
    const opcode: OpcodeName = i === 0 ? 'RC_WRITE_FIRST' : i === count - 1 ? 'RC_WRITE_LAST' : 'RC_WRITE_MIDDLE'
    const payload = bytesOf(Math.min(MTU, size - i * MTU), psn + i)
    const isLast = i === count - 1
    return roce({
      from: 1,
      to: 2,
      opcode,
      qpn,
      psn: psn + i,
      ackReq: isLast,
      rest: i === 0 ? Uint8Array.of(...reth(size), ...payload) : payload,
      time,
      // The first has a RETH, so that it is sent alone, and the others together.
      identification: i === 0 ? 7 : 100 + (i - 1) * step,
      isIpv6,
    })
  })
}

const answer = (psn: number, time: number, { isIpv6 = false }: Options = {}): CapturedPacket =>
  roce({ from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: BACK, psn, time, rest: aeth(), isIpv6 })

/** WRITEs as on the wire, and as a host sees them that segments later. */
const captures = (size: number, options: Options = {}) => {
  const onWire: CapturedPacket[] = []
  const atHost: CapturedPacket[] = []
  const count = Math.ceil(size / MTU)
  for (let i = 0; i < 3; i++) {
    const [first, ...others] = write(i * count, size, { ...options, time: i * 50_000 })
    const ack = answer(i * count + count - 1, i * 50_000 + 10_000, options)
    onWire.push(first!, ...others, ack)
    atHost.push(first!, ...(others.length > 0 ? [joined(others)] : []), ack)
  }
  return { onWire, atHost }
}

/** What is known of all flows, without their frames. */
const factsOf = (file: Uint8Array) => {
  const { flows } = analyse(file)
  return flows.map(flow => [
    flow.qpn,
    flow.packets,
    flow.bytes,
    flow.mtu,
    [...(flow.messages ?? [])],
    flow.messageBytes,
    flow.largestMessage,
    flow.repeated,
    flow.holes,
    flow.icrcWrong,
    flow.malformed,
    flow.lastPsn,
    flow.ackedPsn,
  ])
}

for (const [name, size, options] of [
  ['two packets', 3 * MTU, {}],
  ['five, all of one size', 6 * MTU, {}],
  ['five, the last shorter', 5 * MTU + 100, {}],
  ['sixty', 61 * MTU, {}],
  ['identifications that are all the same', 6 * MTU, { step: 0 }],
  ['IPv6', 6 * MTU, { isIpv6: true }],
  ['IPv6, the last shorter', 5 * MTU + 8, { isIpv6: true }],
] as const)
  test(`a frame of several packets: ${name}`, () => {
    const { onWire, atHost } = captures(size, options)
    assert.deepEqual(factsOf(pcapOf(atHost)), factsOf(pcapOf(onWire)))
    assert.deepEqual(causesIn(pcapOf(atHost)), [])
    const { joined: counts } = analyse(pcapOf(atHost))
    assert.deepEqual(
      { frames: counts.frames, packets: counts.packets },
      {
        frames: 3,
        packets: 3 * (Math.ceil(size / MTU) - 1),
      },
    )
  })

test('a cut frame: packets whose header was not captured are known by the path MTU', () => {
  const { onWire, atHost } = captures(5 * MTU + 100)
  for (const snap of [96, 600, 1500, 3000]) {
    const [wire, host] = [onWire, atHost].map(packets => factsOf(pcapOf(packets, { snap })))
    assert.deepEqual(host, wire, `${snap}`)
    assert.deepEqual(causesIn(pcapOf(atHost, { snap })), [], `${snap}`)
  }
  // The last packet may be one of the middle, as far as its length tells: the RETH tells.
  for (const size of [6 * MTU, 2 * MTU])
    assert.deepEqual(causesIn(pcapOf(captures(size).atHost, { snap: 96 })), [], `${size}`)
})

test('a cut frame of SENDs, whose length no header tells', () => {
  const packets: CapturedPacket[] = []
  for (let i = 0; i < 3; i++) {
    const opcodes: OpcodeName[] = ['RC_SEND_FIRST', 'RC_SEND_MIDDLE', 'RC_SEND_MIDDLE', 'RC_SEND_LAST']
    const parts = opcodes.map((opcode, k) =>
      roce({
        from: 1,
        to: 2,
        opcode,
        qpn: QPN,
        psn: 4 * i + k,
        ackReq: k === 3,
        rest: bytesOf(MTU),
        time: i,
        identification: k,
      }),
    )
    packets.push(
      parts[0]!,
      joined(parts.slice(1).map((part, k) => ({ ...part, identification: k }))),
      answer(4 * i + 3, i + 0.5),
    )
  }
  const { flows } = analyse(pcapOf(packets, { snap: 96 }))
  // The last one may have more packets behind the end of the capture.
  assert.deepEqual([flows[0]!.messages?.[0], flows[0]!.largestMessage], [2, 4 * MTU])
  assert.deepEqual(causesIn(pcapOf(packets, { snap: 96 })), [])
})

/** `count` messages of one packet, in frames of `together`. */
const messages = (
  count: number,
  together: number,
  make: (psn: number, identification: number) => CapturedPacket,
): CapturedPacket[] =>
  Array.from({ length: Math.ceil(count / together) }, (_, frame) => {
    const some = Array.from({ length: Math.min(together, count - frame * together) }, (_, i) =>
      make(frame * together + i, i),
    )
    return some.length === 1 ? some[0]! : joined(some)
  })

test('small messages, READ requests and acknowledgements in one frame', () => {
  const kinds: Readonly<Record<string, (psn: number, identification: number) => CapturedPacket>> = {
    SEND: (psn, identification) =>
      roce({
        from: 1,
        to: 2,
        opcode: 'RC_SEND_ONLY',
        qpn: QPN,
        psn,
        time: 0,
        rest: bytesOf(64, psn + 1),
        identification,
      }),
    WRITE: (psn, identification) =>
      roce({
        from: 1,
        to: 2,
        opcode: 'RC_WRITE_ONLY',
        qpn: QPN,
        psn,
        time: 0,
        rest: Uint8Array.of(...reth(128), ...bytesOf(128, psn + 1)),
        identification,
      }),
    READ: (psn, identification) =>
      roce({ from: 1, to: 2, opcode: 'RC_READ_REQUEST', qpn: QPN, psn, time: 0, rest: reth(64), identification }),
    UD: (psn, identification) =>
      roce({
        from: 1,
        to: 2,
        opcode: 'UD_SEND_ONLY',
        // Datagrams of one queue pair to several.
        qpn: QPN + (psn % 2),
        psn,
        time: 0,
        rest: Uint8Array.of(0, 0, 0, 5, 0, 0, 0, 9, ...bytesOf(32, psn + 1)),
        identification,
      }),
    ACK: (psn, identification) =>
      roce({
        from: 2,
        to: 1,
        opcode: 'RC_ACKNOWLEDGE',
        qpn: BACK,
        psn: 4 * psn,
        time: 0,
        rest: aeth(),
        identification,
      }),
  }
  for (const [kind, make] of Object.entries(kinds)) {
    const single = analyse(pcapOf(messages(20, 1, psn => make(psn, psn % 6))))
    const several = analyse(pcapOf(messages(20, 6, make)))
    assert.deepEqual(
      several.flows.map(({ qpn, packets, holes, icrcWrong, malformed }) => [qpn, packets, holes, icrcWrong, malformed]),
      single.flows.map(({ qpn, packets }) => [qpn, packets, 0, 0, 0]),
      kind,
    )
    assert.equal(several.joined.packets, 20, kind)
  }
})

test('READ requests whose responses have many PSNs', () => {
  const reads = [0, 8, 16, 24].map((psn, i) =>
    roce({ from: 1, to: 2, opcode: 'RC_READ_REQUEST', qpn: QPN, psn, time: 0, rest: reth(8 * MTU), identification: i }),
  )
  const { flows } = analyse(pcapOf([joined(reads)]))
  assert.deepEqual([flows[0]!.packets, flows[0]!.messages?.[2], flows[0]!.messageBytes], [4, 4, 32 * MTU])
})

test('what only looks like several packets is one: bytes of a program, a damaged frame, another queue pair', () => {
  const inner = roce({
    from: 1,
    to: 2,
    opcode: 'RC_SEND_ONLY',
    qpn: QPN,
    psn: 1,
    time: 0,
    rest: bytesOf(64),
    identification: 1,
  })
  // A SEND that carries a packet with the next PSN, also behind bytes that are a right packet as well.
  const before = roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: QPN, psn: 0, time: 0, rest: bytesOf(64) })
  for (const rest of [
    Uint8Array.of(...bytesOf(64), ...inner.bytes.subarray(42)),
    Uint8Array.of(...before.bytes.subarray(42 + 12), ...inner.bytes.subarray(42)),
  ]) {
    const send = roce({ from: 1, to: 2, opcode: 'RC_SEND_ONLY', qpn: QPN, psn: 0, time: 0, rest })
    const view = new DataView(send.bytes.buffer, send.bytes.byteOffset)
    view.setUint16(40, 0x1234)
    const { flows, joined: counts } = analyse(pcapOf([send]))
    assert.deepEqual([counts.frames, flows[0]!.packets, flows[0]!.icrcWrong], [0, 1, 0])
  }
  const frame = joined(write(0, 6 * MTU).slice(1))
  const damaged = Uint8Array.from(frame.bytes)
  for (let at = 42; at < damaged.length; at += MTU + 16) damaged[at + 20]! ^= 1
  assert.equal(analyse(pcapOf([{ ...frame, bytes: damaged }])).joined.frames, 0)
  // One damaged packet of several is told as such.
  const partly = Uint8Array.from(frame.bytes)
  partly[42 + 3 * (MTU + 16) + 20]! ^= 1
  const { joined: counts, flows } = analyse(pcapOf([{ ...frame, bytes: partly }]))
  assert.deepEqual([counts.packets, flows[0]!.icrcWrong], [5, 1])
})

test('several captures: packets that left in one frame are those that came one by one', async () => {
  const { onWire, atHost } = captures(5 * MTU + 100)
  const later = onWire.map(packet => ({ ...packet, time: packet.time! + 3000n }))
  for (const snap of [262_144, 96]) {
    const addresses = new AddressTable()
    const points = [atHost, later].map((packets, i) => pointOf(`${i}`, pcapOf(packets, { snap }), addresses))
    const { paths, lost } = await compareCaptures(points, addresses, {})
    assert.deepEqual(lost, [], `${snap}`)
    assert.deepEqual(
      paths.map(path => [path.packets, path.points.map(({ seen }) => seen)]),
      [
        [18, [18, 18]],
        [3, [3, 3]],
      ],
      `${snap}`,
    )
  }
})

test('export: a frame is written once, and redacted as its packets, if these are whole', () => {
  const exported = (packets: readonly CapturedPacket[], snap: number, isRedacted: boolean): Uint8Array => {
    const parts: Uint8Array[] = []
    const holder: { writer?: CaptureWriter } = {}
    const analysis = new CaptureAnalysis({
      onPacket: (packet, located, kind) => holder.writer?.add(packet, located, kind),
    })
    holder.writer = new CaptureWriter(
      bytes => parts.push(bytes.slice()),
      isRedacted ? new CaptureRedactor(analysis.addresses) : undefined,
    )
    analysis.reader.push(pcapOf(packets, { snap }))
    analysis.finish()
    return new Uint8Array(Buffer.concat(parts))
  }
  for (const size of [5 * MTU + 100, 6 * MTU]) {
    const { onWire, atHost } = captures(size)
    const plain = exported(atHost, 262_144, false)
    assert.deepEqual(
      packetsOf(plain).packets.map(({ bytes }) => Buffer.from(bytes)),
      atHost.map(({ bytes }) => Buffer.from(bytes)),
    )
    assert.deepEqual(factsOf(plain), factsOf(pcapOf(onWire)))
    for (const snap of [262_144, 1500, 96]) {
      const redacted = exported(atHost, snap, true)
      assert.deepEqual(factsOf(redacted), factsOf(pcapOf(onWire, { snap })), `${size}, ${snap}`)
      assert.deepEqual(causesIn(redacted), [], `${size}, ${snap}`)
    }
  }
})
