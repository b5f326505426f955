/*
 * A small session: a SEND whose first packet is lost, a READ, and a WRITE that is refused.
 */

import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { packetOutcomes } from '../../../src/spec/faults.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { syndromeKind } from '../../../src/spec/wire/headers.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { SessionWriter } from '../../../src/tools/record/writer.ts'
import { emitPacket } from '../../../src/transport/wire/packet.ts'
import { createMemorySink } from '../../tools/record/memory-sink.ts'

export const ADDRESS = 0x7f12_3456_7000

const program = { pid: 7, command: 'server' }
const BTH = {
  se: false,
  migReq: false,
  tver: 0,
  pkey: 0xffff,
  fecn: false,
  becn: false,
  resv6: 0,
  destQp: 0x12,
  ackReq: true,
  resv7: 0,
  psn: 5,
}
const flow = {
  source: Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 168, 3, 4]),
  destination: Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 168, 3, 5]),
  sourcePort: 50_000,
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
}

const request = (id: number, owner: number, fields: Partial<WorkRequest>): WorkRequest => ({
  id,
  time: 0,
  owner,
  queue: 0,
  number: 0x11,
  index: 0,
  wrId: BigInt(100 + id),
  opcode: 2,
  flags: 2,
  isSignaled: true,
  length: 64,
  elements: [{ address: ADDRESS + 8, length: 64, lkey: 1 }],
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
  ...fields,
})

/** The file, with times in microseconds from 1,000,000 on. */
const sessionFile = async (): Promise<Uint8Array> => {
  const sink = createMemorySink()
  const writer = new SessionWriter(sink, { application: 'userdma 0', machine: 'a machine', origin: 0, payload: 0 })
  let time = 1_000_000
  const tick = (): number => {
    time += 10
    return time
  }
  writer.device(tick(), { change: 'exists', device: 0, name: 'rxe0', address: '192.168.3.4' })
  const qp = (object: number, number: number, destQpn: number): void =>
    writer.object(tick(), {
      change: 'created',
      object,
      device: 0,
      context: 1,
      program,
      class: 'rc_qp',
      handle: object,
      number,
      method: 'create',
      why: 'call',
      stack: ['main (/home/someone/server.c:5:1)'],
      details: { uses: [], values: { userHandle: '0x7f1234567000', state: 0, destQpn } },
    })
  qp(1, 0x11, 0x12)
  qp(2, 0x12, 0x11)
  writer.call(tick(), {
    object: 2,
    stack: [],
    call: {
      time: 1000.01,
      duration: 5,
      pid: 7,
      tid: 8,
      fd: 3,
      command: 'server',
      device: 'rxe0',
      dialect: 'ioctl',
      attempt: 'MODIFY_QP',
      ret: -22,
      reason: 'the file /home/someone/x is at 0x7f1234567000',
    },
  })
  const receive = request(1, 2, { opcode: -1, queue: 1, number: 0x12 })
  writer.posted(tick(), receive, '')
  const send = request(2, 1, {})
  writer.posted(tick(), send, 'main (/home/someone/server.c:9:1)')
  writer.counters(tick(), 0, 1, { window: 4096 })
  const packet = (outcome: (typeof packetOutcomes)[number], bytes: Uint8Array, direction = 0): void =>
    writer.packets(
      tick(),
      { device: 0, direction, outcome: packetOutcomes.indexOf(outcome), flow, identification: 0 },
      bytes,
      new DataView(bytes.buffer),
      0,
      bytes.length,
      1,
      bytes.length,
    )
  const sent = emitPacket({ kind: 'packet', name: 'RC_SEND_ONLY', BTH, payload: new Uint8Array(64), icrc: 0 })
  packet('passed', sent)
  packet('dropped', sent, 1)
  packet('passed', sent)
  writer.ended(tick(), send)
  writer.completed(tick(), receive, {
    status: 0,
    opcode: 128,
    bytes: 64,
    cq: 3,
    cqPosition: 1,
    solicited: false,
    qp: 2,
    message: send,
  })
  writer.completed(tick(), send, {
    status: 0,
    opcode: 0,
    bytes: 64,
    cq: 4,
    cqPosition: 1,
    solicited: false,
    qp: 1,
    message: undefined,
  })
  const read = request(4, 1, { opcode: 4, remote: { address: ADDRESS, length: 64, rkey: 9 } })
  writer.posted(tick(), read, '')
  packet(
    'passed',
    emitPacket({
      kind: 'packet',
      name: 'RC_READ_REQUEST',
      BTH: { ...BTH, psn: 6 },
      RETH: { va: BigInt(ADDRESS), rkey: 9, dmaLen: 64 },
      payload: new Uint8Array(0),
      icrc: 0,
    }),
  )
  const write = request(3, 1, { opcode: 0, remote: { address: ADDRESS, length: 64, rkey: 9 } })
  writer.posted(tick(), write, '')
  packet(
    'passed',
    emitPacket({
      kind: 'packet',
      name: 'RC_WRITE_ONLY',
      BTH: { ...BTH, psn: 7 },
      RETH: { va: BigInt(ADDRESS), rkey: 9, dmaLen: 64 },
      payload: new Uint8Array(64),
      icrc: 0,
    }),
  )
  packet(
    'passed',
    emitPacket({
      kind: 'packet',
      name: 'RC_ACKNOWLEDGE',
      BTH: { ...BTH, destQp: 0x11, psn: 7 },
      AETH: { syndrome: syndromeKind.NAK | 2, msn: 1 },
      payload: new Uint8Array(0),
      icrc: 0,
    }),
  )
  writer.finding(tick(), {
    number: 1,
    id: 'unknown-rkey',
    severity: 'error',
    text: 'QP 0x11 WRITE wr_id 103: at 192.168.3.5',
    details: [],
    program,
    device: 'rxe0',
    time,
    moments: [],
    objects: [],
  })
  writer.ended(tick(), read)
  writer.ended(tick(), write)
  writer.polled(tick(), 4, 1)
  writer.counters(tick(), 0, 0, { 'port.sentPackets': 4 })
  await writer.end(tick(), 'the test has ended')
  return sink.bytes
}

export const sessionEvents = async (): Promise<SessionEvent[]> => {
  const events: SessionEvent[] = []
  for await (const event of (await openSession(bytesSource(await sessionFile()))).eventsIn()) events.push(event)
  return events
}
