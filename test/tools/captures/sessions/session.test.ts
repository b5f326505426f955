/*
 * Captures as sessions: requests are rebuilt from packets, with sizes, answers and failures; nothing is made up, and
 * damage of any kind makes a session that can be read.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AnyEvent, SessionEvent } from '../../../../src/spec/session-events.ts'
import { WcStatus, WrOpcode } from '../../../../src/spec/work.ts'
import { CaptureAnalysis } from '../../../../src/tools/captures/analysis.ts'
import { packetsOf } from '../../../../src/tools/captures/file.ts'
import { PacketsBeside } from '../../../../src/tools/captures/sessions/beside.ts'
import { CaptureSession } from '../../../../src/tools/captures/sessions/session.ts'
import { bytesSource, openSession } from '../../../../src/tools/record/reader.ts'
import { TimesOfRequests } from '../../../../src/tools/record/times/request-times.ts'
import { SessionWriter } from '../../../../src/tools/record/writer.ts'
import { aeth, analyse, knownCapture, packetsOfFixture, pcapOf, randomOf, reth, roce } from '../build.ts'

/** The events of the session that is made of a file. */
const sessionOf = async (file: Uint8Array): Promise<SessionEvent[]> => {
  const parts: Uint8Array[] = []
  const write = (position: number, bytes: Uint8Array, done: () => void): void => {
    const length = Math.max(position + bytes.length, parts[0]?.length ?? 0)
    const all = new Uint8Array(length)
    if (parts[0] !== undefined) all.set(parts[0])
    all.set(bytes, position)
    parts[0] = all
    done()
  }
  const analysis = analyse(file)
  const writer = new SessionWriter(
    { write },
    { application: 'test', machine: 'test', origin: 0, payload: 0, isCapture: true },
  )
  const session = new CaptureSession(analysis, writer)
  const again = new CaptureAnalysis({
    addresses: analysis.addresses,
    onPacket: (packet, located, _kind, time) => session.add(packet, located, time),
  })
  again.reader.push(file)
  session.finish()
  await writer.end(analysis.end / 1000, 'end')
  const opened = await openSession(bytesSource(parts[0]!))
  assert.equal(opened.header.isCapture, true)
  assert.equal(opened.damaged, 0)
  const events = [...(await opened.checkpointBefore(opened.start)).events]
  for await (const event of opened.eventsIn()) events.push(event)
  return events
}

const of = <K extends AnyEvent['kind']>(events: readonly SessionEvent[], kind: K) =>
  events.filter((event): event is SessionEvent & { kind: K } => event.kind === kind)

test('messages of several packets are requests with their sizes, before their packets', async () => {
  const events = await sessionOf(pcapOf(packetsOfFixture('rc_pingpong_4096')))
  assert.deepEqual(
    of(events, 'posted').map(({ request }) => [request.opcode, request.length]),
    Array.from({ length: 6 }, () => [WrOpcode.values.SEND, 4096]),
  )
  assert.equal(of(events, 'ended').length, 6)
  assert.equal(of(events, 'completed').length, 0)
  assert.equal(of(events, 'packets').length, packetsOfFixture('rc_pingpong_4096').length)
  // A request is told before its first packet, although its size is known at the last one.
  const first = events.findIndex(({ kind }) => kind === 'posted')
  assert.ok(first < events.findIndex(({ kind }) => kind === 'packets'))
  const times = events.map(({ time }) => time)
  assert.deepEqual(
    times,
    [...times].sort((a, b) => a - b),
  )
})

test('frames with several packets are the requests of these, whole and cut', async () => {
  const whole = knownCapture('healthy-udp-gso')
  for (const snap of [262_144, 96]) {
    const events = await sessionOf(pcapOf(packetsOf(whole).packets, { snap }))
    assert.deepEqual(
      of(events, 'posted').map(({ request }) => [request.opcode, request.length]),
      Array.from({ length: 12 }, () => [WrOpcode.values.RDMA_WRITE, 6144]),
      `${snap}`,
    )
    assert.equal(of(events, 'ended').length, 12)
    // 72 packets of WRITEs and 6 acknowledgements.
    assert.equal(of(events, 'packets').length, 78)
    assert.equal(of(events, 'finding').length, 0)
  }
  const beside = new PacketsBeside(
    new SessionWriter({ write: () => {} }, { application: 'test', machine: 'test', origin: 0, payload: 0 }),
    0,
  )
  beside.reader.push(whole)
  assert.equal(beside.queue.length, 78)
})

test('READs end at their last response, and a NAK is the status of its request', async () => {
  const reads = await sessionOf(pcapOf(packetsOfFixture('read_bw')))
  assert.deepEqual(
    of(reads, 'posted').map(({ request }) => [request.opcode, request.length]),
    Array.from({ length: 5 }, () => [WrOpcode.values.RDMA_READ, 5000]),
  )
  assert.equal(of(reads, 'ended').length, 5)
  const refused = await sessionOf(pcapOf(packetsOfFixture('nak_access_write')))
  assert.deepEqual(
    of(refused, 'completed').map(({ request, status }) => [request, status]),
    [[2, WcStatus.values.REM_ACCESS_ERR]],
  )
  assert.deepEqual(
    of(refused, 'finding').map(({ finding }) => [finding.id, finding.severity]),
    [['capture remote-access', 'error']],
  )
})

test('what requests waited for comes from packets alone: loss, and RNR NAKs', async () => {
  const phaseOf = async (name: string): Promise<string> => {
    const sums: Record<string, number> = {}
    const times = new TimesOfRequests(({ spans }) => {
      for (const { phase, from, to } of spans) sums[phase] = (sums[phase] ?? 0) + to - from
    })
    for (const event of await sessionOf(pcapOf(packetsOfFixture(name)))) times.add(event)
    times.end(analyse(pcapOf(packetsOfFixture(name))).end / 1000)
    return Object.entries(sums).sort(([, a], [, b]) => b - a)[0]![0]
  }
  assert.equal(await phaseOf('loss_send_requests'), 'loss')
  assert.equal(await phaseOf('rnr_nak'), 'receiver')
})

test('two messages of different queue pairs that overlap in time keep the order of their packets', async () => {
  const packet = (
    qpn: number,
    psn: number,
    time: number,
    opcode: 'RC_WRITE_FIRST' | 'RC_WRITE_LAST' | 'RC_SEND_FIRST' | 'RC_SEND_LAST',
  ) =>
    roce({
      from: 1,
      to: 2,
      opcode,
      qpn,
      psn,
      time,
      rest: opcode === 'RC_WRITE_FIRST' ? Uint8Array.of(...reth(2048), ...new Uint8Array(1024)) : new Uint8Array(1024),
    })
  const packets = [
    packet(0x11, 1, 0, 'RC_WRITE_FIRST'),
    packet(0x21, 1, 1000, 'RC_SEND_FIRST'),
    packet(0x11, 2, 2000, 'RC_WRITE_LAST'),
    packet(0x21, 2, 3000, 'RC_SEND_LAST'),
    roce({ from: 2, to: 1, opcode: 'RC_ACKNOWLEDGE', qpn: 0x12, psn: 2, time: 4000, rest: aeth() }),
  ]
  const events = await sessionOf(pcapOf(packets))
  assert.deepEqual(
    of(events, 'posted').map(({ time, request }) => [time, request.length]),
    [
      [0, 2048],
      [1, 2048],
    ],
  )
  assert.deepEqual(
    of(events, 'packets').map(({ time }) => time),
    [0, 1, 2, 3, 4],
  )
})

test('cut, damaged and thinned captures make sessions that can be read', async () => {
  const names = ['rping', 'send_bw', 'read_many_mtu256', 'ud_multicast', 'atomics', 'linux612_inject', 'inject']
  for (const name of names) {
    const packets = packetsOfFixture(name)
    for (const snap of [54, 60, 70, 96]) await sessionOf(pcapOf(packets, { snap }))
    for (let seed = 1; seed <= 20; seed++) {
      const random = randomOf(seed)
      const damaged = packets
        .filter(() => random() > 0.1)
        .map(packet => {
          const bytes = Uint8Array.from(packet.bytes)
          if (random() < 0.3) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256)
          return { ...packet, bytes }
        })
      await sessionOf(pcapOf(damaged))
    }
  }
})
