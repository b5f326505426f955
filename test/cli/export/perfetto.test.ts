/*
 * Traces for Perfetto: decoded by protobufjs with perfetto.proto, and what the tracks of a session are.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import protobuf from 'protobufjs'
import { createPerfetto } from '../../../src/cli/export/perfetto.ts'
import { Message } from '../../../src/cli/export/protobuf.ts'
import { repoRoot } from '../../paths.ts'
import { sessionEvents } from './session.ts'

const proto = protobuf.loadSync(join(repoRoot, 'src/cli/export/perfetto.proto'))

interface Decoded {
  readonly timestamp?: number
  readonly sequenceFlags?: number
  readonly trackDescriptor?: {
    readonly uuid: number
    readonly name: string
    readonly parentUuid?: number
    readonly process?: { readonly pid: number }
    readonly thread?: { readonly tid: number }
    readonly counter?: object
  }
  readonly internedData?: { readonly eventNames: readonly { readonly iid: number; readonly name: string }[] }
  readonly trackEvent?: {
    readonly type: string
    readonly nameIid?: number
    readonly trackUuid: number
    readonly doubleCounterValue?: number
    readonly flowIds?: readonly string[]
    readonly terminatingFlowIds?: readonly string[]
    readonly debugAnnotations?: readonly { readonly name: string; readonly stringValue?: string }[]
  }
}

const decode = (bytes: Uint8Array): Decoded[] => {
  const type = proto.lookupType('userdma.perfetto.Trace')
  const { packet } = type.toObject(type.decode(bytes), { longs: Number, enums: String }) as { packet: Decoded[] }
  return packet
}

describe('the encoder of protobuf', () => {
  it('encodes integers, texts, doubles and fixed numbers of all sizes as protobufjs decodes them', () => {
    const type = proto.lookupType('userdma.perfetto.TrackEvent')
    fc.assert(
      fc.property(
        fc.nat({ max: Number.MAX_SAFE_INTEGER }),
        fc.string({ maxLength: 400, size: 'max', unit: 'grapheme' }),
        fc.double({ noNaN: true }),
        fc.nat({ max: 2 ** 32 }),
        (track, name, value, flow) => {
          const { bytes } = new Message().varint(11, track).text(23, name).double(44, value).fixed64(47, BigInt(flow))
          const message = type.toObject(type.decode(bytes), { longs: Number })
          assert.deepEqual(message, { trackUuid: track, name, doubleCounterValue: value, flowIds: [flow] })
        },
      ),
    )
  })
})

describe('a trace of a session', async () => {
  const parts: Uint8Array[] = []
  const perfetto = createPerfetto(bytes => parts.push(bytes.slice()))
  for (const event of await sessionEvents()) perfetto.add(event)
  const packets = decode(Buffer.concat(parts))
  const tracks = new Map(
    packets.flatMap(({ trackDescriptor }) => (trackDescriptor ? [[trackDescriptor.uuid, trackDescriptor]] : [])),
  )
  const names = new Map(
    packets.flatMap(({ internedData }) => (internedData?.eventNames ?? []).map(({ iid, name }) => [iid, name])),
  )
  const events = packets.flatMap(({ timestamp, trackEvent }) =>
    trackEvent
      ? [
          {
            ...trackEvent,
            time: timestamp ?? 0,
            name: names.get(trackEvent.nameIid ?? 0),
            track: tracks.get(trackEvent.trackUuid)?.name,
          },
        ]
      : [],
  )
  const parentOf = (name: string): string | undefined => {
    const track = [...tracks.values()].find(one => one.name === name)
    return tracks.get(track?.parentUuid ?? 0)?.name
  }

  it('has tracks of the process, its thread and its queue pairs', () => {
    assert.equal(parentOf('rc_qp 0x11'), 'server')
    assert.equal(parentOf('calls'), 'server')
    assert.equal([...tracks.values()].find(({ name }) => name === 'server')?.process?.pid, 7)
    assert.equal([...tracks.values()].find(({ name }) => name === 'calls')?.thread?.tid, 8)
    assert.equal(packets.filter(({ sequenceFlags }) => sequenceFlags === 1).length, 1)
  })

  it('has a slice from each post to its completion, and a flow to the receive of the message', () => {
    const send = events.find(({ name }) => name === 'SEND')
    assert.equal(send?.type, 'SLICE_BEGIN')
    const end = events.find(({ type, trackUuid }) => type === 'SLICE_END' && trackUuid === send?.trackUuid)
    assert.ok((end?.time ?? 0) > (send?.time ?? 0))
    assert.ok(end?.debugAnnotations?.some(({ stringValue }) => stringValue === 'SUCCESS'))
    const received = events.find(({ name }) => name === 'message received')
    assert.deepEqual(received?.terminatingFlowIds, send?.flowIds)
    assert.equal(received?.track, 'rc_qp 0x12')
    // Slices of a track end before the next begins.
    const depth = new Map<number, number>()
    for (const { type, trackUuid } of events) {
      const change = type === 'SLICE_BEGIN' ? 1 : type === 'SLICE_END' ? -1 : 0
      depth.set(trackUuid, (depth.get(trackUuid) ?? 0) + change)
      assert.ok([0, 1].includes(depth.get(trackUuid) ?? 0))
    }
  })

  it('has a flow from each WRITE and READ to its first packet, on the track of the responder', () => {
    for (const name of ['RDMA_WRITE', 'RDMA_READ']) {
      const request = events.find(event => event.name === name)
      const packet = events.find(event => event.name === `${name} request`)
      assert.ok(request?.flowIds)
      assert.deepEqual(packet?.terminatingFlowIds, request.flowIds)
      assert.equal(packet?.track, 'rc_qp 0x12')
    }
  })

  it('has instants of the loss, the retransmission, the NAK and the finding, on the tracks that they are about', () => {
    const instants = events.filter(({ type }) => type === 'INSTANT').map(({ name, track }) => [name, track])
    for (const expected of [
      ['dropped', 'rc_qp 0x12'],
      ['retransmission', 'rc_qp 0x12'],
      ['NAK REMOTE_ACCESS', 'rc_qp 0x11'],
      ['unknown-rkey', 'server'],
    ])
      assert.ok(
        instants.some(found => String(found) === String(expected)),
        `${expected}: ${instants}`,
      )
    assert.equal(instants.filter(([name]) => name === 'retransmission').length, 1)
  })

  it('has counters of bytes in flight, the window, completions that were not polled, and of the device', () => {
    const values = (track: string) =>
      events.flatMap(event => (event.track === track && event.type === 'COUNTER' ? [event.doubleCounterValue] : []))
    assert.deepEqual(values('rc_qp 0x11 bytes in flight'), [64, 0, 64, 128, 64, 0])
    assert.deepEqual(values('rc_qp 0x11 window'), [4096])
    assert.deepEqual(values('CQ 4 completions not polled'), [1, 0])
    assert.deepEqual(values('port.sentPackets'), [4])
  })
})

describe('a trace of many outstanding requests', () => {
  it('has a slice of each, on the tracks of its queue pair and direction, without overlaps', () => {
    const parts: Uint8Array[] = []
    const perfetto = createPerfetto(bytes => parts.push(bytes.slice()))
    const count = 300
    const opcodes = Array.from({ length: count }, (_, i) => (i % 3 === 0 ? -1 : 2))
    for (const [id, opcode] of opcodes.entries())
      perfetto.add({
        kind: 'posted',
        time: id,
        stack: [],
        request: {
          id: id + 1,
          time: id,
          owner: 1,
          queue: 0,
          number: 0x11,
          index: id,
          wrId: 1n,
          opcode,
          flags: 2,
          isSignaled: true,
          length: 64,
          elements: [],
          remote: undefined,
          destQpn: undefined,
          destination: undefined,
        },
      })
    // They do not end in their order.
    for (const id of [...opcodes.keys()].sort((a, b) => (a % 7) - (b % 7)))
      perfetto.add({
        kind: 'completed',
        time: 1000 + id,
        request: id + 1,
        qp: 1,
        cq: 4,
        cqPosition: 0,
        status: 0,
        opcode: 0,
        bytes: 64,
        message: 0,
      } as never)
    const packets = decode(Buffer.concat(parts))
    const names = new Map(packets.flatMap(({ trackDescriptor: one }) => (one ? [[one.uuid, one.name]] : [])))
    const events = packets.flatMap(({ trackEvent }) => (trackEvent ? [trackEvent] : []))
    const slices = events.filter(({ type }) => type === 'SLICE_BEGIN')
    const on = (name: string): number => slices.filter(({ trackUuid }) => names.get(trackUuid) === name).length
    assert.equal(slices.length, count)
    assert.deepEqual([on('sends'), on('receives')], [200, 100])
    const depth = new Map<number, number>()
    for (const { type, trackUuid } of events.filter(({ type }) => type === 'SLICE_BEGIN' || type === 'SLICE_END')) {
      depth.set(trackUuid, (depth.get(trackUuid) ?? 0) + (type === 'SLICE_BEGIN' ? 1 : -1))
      assert.ok([0, 1].includes(depth.get(trackUuid)!))
    }
    assert.deepEqual(new Set(depth.values()), new Set([0]))
  })
})
