/*
 * A session as a trace of Perfetto (TrackEvent, perfetto.proto), for https://ui.perfetto.dev:
 *
 * - a track per process, thread (its calls) and queue pair, and below it one of its sends and one of its receives.
 *   Slices of a track must not overlap: requests that are outstanding together have tracks of the same name and parent,
 *   which Perfetto shows as one
 * - a slice from post to completion, with a flow to the responder's queue pair: to the receive of a message, or to the
 *   first packet of a WRITE, READ or atomic
 * - counters: bytes and requests in flight of a queue pair and its window, completions that a program has not polled,
 *   and the device's
 * - instants: NAKs, retransmissions, packets that a fault changed, failures, findings
 */

import type { Program } from '../../spec/check/finding.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { isQueuePairClass, isSrqClass } from '../../spec/classes/ids.ts'
import { nameIn } from '../../spec/enums.ts'
import { errnoName } from '../../spec/errno.ts'
import type { ObjectEvent, PacketsEvent, SessionEvent } from '../../spec/session-events.ts'
import { syndromeKind } from '../../spec/wire/headers.ts'
import {
  headerAt,
  isReliableOpcode,
  OP_ACK,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_FLUSH,
  OP_READ,
  OP_REQUEST,
  OP_WRITE,
  opcodeByNumber,
  opcodeFlags,
} from '../../spec/wire/opcodes.ts'
import { SendKind, sendOperations, takesReceive, WcStatus, WrOpcode } from '../../spec/work.ts'
import { decodeRecord } from '../../tools/trace/decode.ts'
import { isFailed, reasonOf } from '../../tools/trace/failed.ts'
import { syndromeText } from '../../tools/trace/packets.ts'
import { bthDestQp, bthOpcode, bthPsn, psnDifference } from '../../transport/wire/bth.ts'
import { aethSyndrome } from '../../transport/wire/extensions.ts'
import { Message } from './protobuf.ts'

/** Numbers of the fields in perfetto.proto. */
const Trace = { packet: 1 }
const Packet = { timestamp: 8, sequence: 10, event: 11, interned: 12, flags: 13, track: 60 }
const Track = { uuid: 1, name: 2, process: 3, thread: 4, parent: 5, counter: 8 }
const Process = { pid: 1, name: 6 }
const Thread = { pid: 1, tid: 2, name: 5 }
const Counter = { unit: 6 }
const Event = { annotation: 4, type: 9, nameId: 10, track: 11, category: 22, counter: 44, flow: 47, flowEnd: 48 }
const Annotation = { uint: 3, text: 6, name: 10 }
const Interned = { eventName: 2 }
const EventName = { id: 1, name: 2 }

const Type = { BEGIN: 1, END: 2, INSTANT: 3, COUNTER: 4 }
const Flags = { CLEARED: 1, NEEDED: 2 }
const SEQUENCE = 1

type Annotations = Readonly<Record<string, number | string>>

/** An event of a track. */
interface TrackEvent {
  readonly type: number
  readonly name?: string
  readonly category?: string
  readonly counter?: number
  readonly flow?: number
  readonly flowEnd?: number
  readonly annotations?: Annotations
}

/** The names of the tracks. */
type Direction = 'sends' | 'receives'

/** A queue pair or SRQ, and its tracks. */
interface Queue {
  readonly track: number
  /** Tracks without an outstanding request, by direction. */
  readonly free: Readonly<Record<Direction, number[]>>
  readonly bytesTrack: number
  readonly requestsTrack: number
  /** Tracks of its counters by name. */
  readonly counters: Map<string, number>
  bytes: number
  requests: number
}

interface OpenRequest {
  readonly queue: Queue
  readonly direction: Direction
  readonly track: number
  readonly length: number
  /** Whether a completion ends it, also if it succeeds. */
  readonly isSignaled: boolean
}

const PSN_BITS = 24

/** By SendKind of a request: the flag of its packets' opcodes. */
const flagsOfKind: Readonly<Record<number, number>> = {
  [SendKind.WRITE]: OP_WRITE,
  [SendKind.READ]: OP_READ,
  [SendKind.ATOMIC]: OP_ATOMIC,
  [SendKind.ATOMIC_WRITE]: OP_ATOMIC_WRITE,
  [SendKind.FLUSH]: OP_FLUSH,
}
const packetFlags = (opcode: number): number => flagsOfKind[sendOperations[opcode]?.kind ?? SendKind.NONE] ?? 0

const hex = (value: number): string => `0x${value.toString(16)}`

interface PerfettoWriter {
  add(event: SessionEvent): void
}

/** Returns a writer that passes the bytes of the trace to `write`, piece by piece. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: tracks, requests and counters of one session
export const createPerfetto = (write: (bytes: Uint8Array) => void): PerfettoWriter => {
  let lastTrack = 0
  const names = new Map<string, number>()
  const processes = new Map<number, number>()
  const threads = new Map<string, number>()
  /** By device: its track, and the tracks of its counters by name. */
  const devices = new Map<number, { readonly track: number; readonly counters: Map<string, number> }>()
  const queues = new Map<number, Queue>()
  /** By device and QPN: the id of the queue pair. */
  const qpIds = new Map<number, number>()
  const qps = new Map<number, ObjectEvent>()
  const requests = new Map<number, OpenRequest>()
  /** Ids of queue pairs by their device and the QPN that they send to. */
  const senders = new Map<number, Set<number>>()
  /** By queue pair and id: WRITEs, READs and atomics that have not ended, and whose first packet was not sent. */
  const unsent = new Map<number, Map<number, WorkRequest>>()
  /** By CQ: completions that were written, and polled. */
  const cqs = new Map<number, { readonly track: number; written: number; polled: number }>()
  /** The highest PSN of requests by destination queue pair. */
  const psns = new Map<number, number>()
  let isFirst = true

  const writePacket = (fill: (packet: Message) => void): void => {
    const packet = new Message().varint(Packet.sequence, SEQUENCE)
    if (isFirst) packet.varint(Packet.flags, Flags.CLEARED)
    isFirst = false
    fill(packet)
    write(new Message().message(Trace.packet, packet).bytes)
  }

  const addTrack = (name: string, parent: number, fill: (track: Message) => void = () => {}): number => {
    const track = ++lastTrack
    const descriptor = new Message().varint(Track.uuid, track).text(Track.name, name)
    if (parent !== 0) descriptor.varint(Track.parent, parent)
    fill(descriptor)
    writePacket(packet => packet.message(Packet.track, descriptor))
    return track
  }
  const addCounter = (name: string, parent: number, unit: string): number =>
    addTrack(name, parent, track => track.message(Track.counter, new Message().text(Counter.unit, unit)))

  /** `time`: microseconds. */
  const addEvent = (time: number, track: number, event: TrackEvent): void => {
    const { type, name, category, counter, flow, flowEnd, annotations = {} } = event
    const message = new Message().varint(Event.type, type).varint(Event.track, track)
    let interned: Message | undefined
    if (name !== undefined) {
      let id = names.get(name)
      if (id === undefined) {
        id = names.size + 1
        names.set(name, id)
        const entry = new Message().varint(EventName.id, id).text(EventName.name, name)
        interned = new Message().message(Interned.eventName, entry)
      }
      message.varint(Event.nameId, id)
    }
    if (category !== undefined) message.text(Event.category, category)
    if (counter !== undefined) message.double(Event.counter, counter)
    if (flow !== undefined) message.fixed64(Event.flow, BigInt(flow))
    if (flowEnd !== undefined) message.fixed64(Event.flowEnd, BigInt(flowEnd))
    for (const [key, value] of Object.entries(annotations)) {
      const annotation = new Message().text(Annotation.name, key)
      if (typeof value === 'number') annotation.varint(Annotation.uint, value)
      else annotation.text(Annotation.text, value)
      message.message(Event.annotation, annotation)
    }
    writePacket(packet => {
      packet.varint(Packet.timestamp, Math.max(0, Math.round(time * 1000)))
      packet.varint(Packet.flags, Flags.NEEDED)
      if (interned !== undefined) packet.message(Packet.interned, interned)
      packet.message(Packet.event, message)
    })
  }

  // ---- tracks ----

  const processTrack = ({ pid, command }: Program = { pid: 0, command: 'this process' }): number => {
    let track = processes.get(pid)
    if (track === undefined) {
      const process = new Message().varint(Process.pid, pid).text(Process.name, command)
      track = addTrack(command, 0, descriptor => descriptor.message(Track.process, process))
      processes.set(pid, track)
    }
    return track
  }

  const threadTrack = (pid: number, tid: number, command: string): number => {
    const key = `${pid} ${tid}`
    let track = threads.get(key)
    if (track === undefined) {
      const parent = processTrack({ pid, command })
      const thread = new Message().varint(Thread.pid, pid).varint(Thread.tid, tid).text(Thread.name, 'calls')
      track = addTrack('calls', parent, descriptor => descriptor.message(Track.thread, thread))
      threads.set(key, track)
    }
    return track
  }

  const deviceTracks = (device: number, name = `device ${device}`) => {
    let tracks = devices.get(device)
    if (tracks === undefined) {
      tracks = { track: addTrack(name, 0), counters: new Map() }
      devices.set(device, tracks)
    }
    return tracks
  }

  const queueName = (id: number): string => {
    const object = qps.get(id)
    return object === undefined ? `queue ${id}` : `${object.class} ${hex(object.number || object.handle)}`
  }
  const queueOf = (id: number): Queue => {
    let queue = queues.get(id)
    if (queue === undefined) {
      const name = queueName(id)
      const track = addTrack(name, processTrack(qps.get(id)?.program))
      queue = {
        track,
        free: { sends: [], receives: [] },
        bytesTrack: addCounter(`${name} bytes in flight`, track, 'bytes'),
        requestsTrack: addCounter(`${name} requests in flight`, track, 'requests'),
        counters: new Map(),
        bytes: 0,
        requests: 0,
      }
      queues.set(id, queue)
    }
    return queue
  }

  const instant = (time: number, track: number, name: string, category: string, annotations: Annotations = {}): void =>
    addEvent(time, track, { type: Type.INSTANT, name, category, annotations })

  // ---- events ----

  const noteObject = (event: ObjectEvent & { readonly time: number }): void => {
    const { class: name, object, device, number, change } = event
    if (!isQueuePairClass(name) && !isSrqClass(name)) return
    if (change === 'created' || change === 'exists') {
      qps.set(object, event)
      qpIds.set(device * 2 ** PSN_BITS + number, object)
    }
    const { state, destQpn } = event.details.values ?? {}
    if (typeof destQpn === 'number') {
      const key = device * 2 ** PSN_BITS + destQpn
      senders.set(key, (senders.get(key) ?? new Set()).add(object))
    }
    if (change === 'changed') {
      instant(
        event.time,
        queueOf(object).track,
        `${event.method}${state === undefined ? '' : ` state ${state}`}`,
        'object',
      )
    }
  }

  const count = (time: number, queue: Queue, bytes: number, requestCount: number): void => {
    queue.bytes += bytes
    queue.requests += requestCount
    addEvent(time, queue.bytesTrack, { type: Type.COUNTER, counter: queue.bytes })
    addEvent(time, queue.requestsTrack, { type: Type.COUNTER, counter: queue.requests })
  }

  const begin = (time: number, request: WorkRequest): void => {
    const { id, owner, opcode, length, wrId, number, isSignaled, remote } = request
    const queue = queueOf(owner)
    const isSend = opcode >= 0
    const direction = isSend ? 'sends' : 'receives'
    const track = queue.free[direction].pop() ?? addTrack(direction, queue.track)
    requests.set(id, { queue, direction, track, length: isSend ? length : 0, isSignaled })
    addEvent(time, track, {
      type: Type.BEGIN,
      name: isSend ? nameIn(WrOpcode.values, opcode) : 'receive',
      category: 'request',
      ...(isSend && { flow: id }),
      annotations: { wr_id: String(wrId), length, queue: number },
    })
    if (isSend) count(time, queue, length, 1)
    if (remote !== undefined && !takesReceive(request.opcode))
      unsent.set(owner, (unsent.get(owner) ?? new Map()).set(id, request))
  }

  /** Ends the flow of the oldest request that a packet may begin. `at`: of the RETH or AtomicETH. */
  const endFlow = (time: number, device: number, destQpn: number, flags: number, view: DataView, at: number): void => {
    const address = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)
    const rkey = view.getUint32(at + 8)
    for (const sender of senders.get(device * 2 ** PSN_BITS + destQpn) ?? [])
      for (const { id, opcode, remote } of unsent.get(sender)?.values() ?? []) {
        if (remote?.address !== address || remote.rkey !== rkey || (packetFlags(opcode) & flags) === 0) continue
        unsent.get(sender)?.delete(id)
        const name = `${nameIn(WrOpcode.values, opcode)} request`
        addEvent(time, destinationTrack(destQpn, device), {
          type: Type.INSTANT,
          name,
          category: 'message',
          flowEnd: id,
        })
        return
      }
  }

  const end = (time: number, id: number, annotations: Annotations = {}): void => {
    const open = requests.get(id)
    if (open === undefined) return
    requests.delete(id)
    open.queue.free[open.direction].push(open.track)
    addEvent(time, open.track, { type: Type.END, annotations })
  }

  const endAll = (time: number, owner: number): void => {
    const queue = queues.get(owner)
    for (const [id, open] of requests) if (open.queue === queue) end(time, id, { status: 'reset' })
    unsent.delete(owner)
    if (queue !== undefined && queue.requests > 0) count(time, queue, -queue.bytes, -queue.requests)
  }

  const cqOf = (id: number) => {
    let cq = cqs.get(id)
    if (cq === undefined) {
      cq = { track: addCounter(`CQ ${id} completions not polled`, 0, 'completions'), written: 0, polled: 0 }
      cqs.set(id, cq)
    }
    return cq
  }
  const countCq = (time: number, id: number): void => {
    const cq = cqOf(id)
    addEvent(time, cq.track, { type: Type.COUNTER, counter: Math.max(0, cq.written - cq.polled) })
  }

  /** The track of the queue pair to which packets go; of the device if it is unknown. */
  const destinationTrack = (destQpn: number, device: number): number => {
    for (const index of [device, ...devices.keys()]) {
      const id = qpIds.get(index * 2 ** PSN_BITS + destQpn)
      if (id !== undefined) return queueOf(id).track
    }
    return deviceTracks(device).track
  }

  const addPackets = ({
    time,
    bytes,
    headerBytes,
    outcome,
    device,
    direction,
    count: packets,
  }: PacketsEvent & { time: number }): void => {
    if (headerBytes < 12) return
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const opcode = bthOpcode(view, 0)
    const psn = bthPsn(view, 0)
    const destQpn = bthDestQp(view, 0)
    const flags = opcodeFlags[opcode]!
    const annotations = { psn, packets, opcode: opcodeByNumber[opcode]?.name ?? hex(opcode) }
    const track = (): number => destinationTrack(destQpn, device)
    if (outcome !== 'passed') instant(time, track(), outcome, 'fault', annotations)
    if (direction === 'received') return
    if ((flags & OP_ACK) !== 0) {
      const syndrome = aethSyndrome(view, headerAt.AETH[opcode]!)
      const kind = syndrome & 0x60
      if (kind === syndromeKind.NAK || kind === syndromeKind.RNR_NAK)
        instant(time, track(), syndromeText(syndrome), 'nak', annotations)
    }
    // Only reliable services retransmit.
    if ((flags & OP_REQUEST) === 0 || !isReliableOpcode(opcode)) return
    const last = psns.get(destQpn)
    const at = headerAt.RETH[opcode]! || headerAt.AtomicETH[opcode]!
    if (last !== undefined && psnDifference(psn, last) <= 0)
      instant(time, track(), 'retransmission', 'retransmission', annotations)
    else if (at !== 0 && at + 12 <= headerBytes) endFlow(time, device, destQpn, flags, view, at)
    const highest = (psn + packets - 1) & (2 ** PSN_BITS - 1)
    if (last === undefined || psnDifference(highest, last) > 0) psns.set(destQpn, highest)
  }

  return {
    add(event) {
      const { time } = event
      switch (event.kind) {
        case 'device':
          if (event.change !== 'removed') deviceTracks(event.device, event.name)
          break
        case 'object':
          noteObject(event)
          break
        case 'call': {
          const { call } = event
          const decoded = decodeRecord(call, 0)
          const name = decoded ? `${decoded.class.name}.${decoded.name}` : (call.attempt ?? call.dialect)
          const track = threadTrack(call.pid, call.tid, call.command)
          const error = isFailed(call) ? { error: errnoName(-call.ret), reason: reasonOf(call) ?? '' } : {}
          addEvent(time - call.duration, track, { type: Type.BEGIN, name, category: 'call', annotations: error })
          addEvent(time, track, { type: Type.END })
          break
        }
        case 'posted':
          begin(time, event.request)
          break
        case 'ended': {
          const open = requests.get(event.request)
          if (open !== undefined) count(time, open.queue, -open.length, -1)
          unsent.get(event.owner)?.delete(event.request)
          if (open?.isSignaled === false) end(time, event.request)
          break
        }
        case 'completed': {
          const cq = cqOf(event.cq)
          cq.written++
          countCq(time, event.cq)
          if (event.message !== 0)
            addEvent(time, queueOf(event.qp).track, {
              type: Type.INSTANT,
              name: 'message received',
              category: 'message',
              flowEnd: event.message,
            })
          end(time, event.request, { status: nameIn(WcStatus.values, event.status), bytes: event.bytes })
          break
        }
        case 'polled':
          cqOf(event.cq).polled = event.count
          countCq(time, event.cq)
          break
        case 'receiveLost':
          end(time, event.request, { status: 'lost' })
          break
        case 'receiverNotReady':
          instant(time, queueOf(event.qp).track, 'no receive', 'rnr')
          break
        case 'queueReset':
          endAll(time, event.owner)
          break
        case 'packets':
          addPackets(event)
          break
        case 'failure': {
          const { object, failure } = event
          const track = object === 0 ? processTrack(failure.pid === 0 ? undefined : failure) : queueOf(object).track
          instant(time, track, failure.failure.cause, 'failure', { text: failure.failure.text })
          break
        }
        case 'finding': {
          const { id, text, severity, program } = event.finding
          instant(time, processTrack(program), id, 'finding', { severity, text })
          break
        }
        case 'counters': {
          const { object, device } = event
          const { track, counters } = object === 0 ? deviceTracks(device) : queueOf(object)
          for (const [name, value] of Object.entries(event.values)) {
            let counter = counters.get(name)
            if (counter === undefined) {
              counter = addCounter(
                object === 0 ? name : `${queueName(object)} ${name}`,
                track,
                object === 0 ? '' : 'bytes',
              )
              counters.set(name, counter)
            }
            addEvent(time, counter, { type: Type.COUNTER, counter: value })
          }
          break
        }
      }
    },
  }
}
