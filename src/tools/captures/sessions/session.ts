/*
 * A capture as the events of a session, so that the page, `export` and `explain --slow` show it as they show a
 * recording. Each address is a device, each queue pair an object of it; requests are rebuilt from the packets of their
 * messages.
 *
 * The capture is read twice: the first time for its analysis, which knows the queue pair at the other end, and path
 * MTUs. What packets do not show is not made up: there are no calls and no completions but those that a NAK ends in
 * error. A request is posted when its first packet is seen, and ended when its last PSN is acknowledged.
 */

import { hexBytes } from '../../../base/text.ts'
import { captureCause } from '../../../spec/captures.ts'
import type { RequestCompletion, WorkRequest } from '../../../spec/check/requests.ts'
import { Mtu, QpState } from '../../../spec/enums.ts'
import { mtuBytes } from '../../../spec/mtu.ts'
import { refusalOf, Verdict, verdictOf } from '../../../spec/naks.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { PacketFlow } from '../../../spec/wire/flow.ts'
import { headers, ICRC_BYTES, SYNDROME_VALUE_MASK } from '../../../spec/wire/headers.ts'
import {
  CNP,
  headerAt,
  isReliableOpcode,
  OP_END,
  OP_PAYLOAD,
  OP_READ,
  OP_REQUEST,
  OP_START,
  opcodeByNumber,
  opcodeFlags,
  opcodeHeaderBytes,
  TRANSPORT_MASK,
  transportBits,
} from '../../../spec/wire/opcodes.ts'
import { WrOpcode } from '../../../spec/work.ts'
import { bthPadCount, psnDifference } from '../../../transport/wire/bth.ts'
import { checkPacket } from '../../../transport/wire/packet.ts'
import type { SessionWriter } from '../../record/writer.ts'
import type { CaptureAnalysis } from '../analysis.ts'
import type { RawPacket } from '../file.ts'
import type { Flow } from '../flows/flow.ts'
import { refusedText, requestOf } from '../flows/refused.ts'
import type { Located } from '../located.ts'
import { type CaptureProblem, problemsOf } from '../problems.ts'
import { flowText } from '../report.ts'

/** Requests without an answer that a queue pair may have; the oldest is left open. */
const MAX_OUTSTANDING = 4096
/** Objects and findings: a page cannot show more. */
const MAX_QUEUE_PAIRS = 50_000
const MAX_FINDINGS = 1000
const MAX_FLOWS = 1 << 16
/** Bytes of a packet that are passed on: all headers. */
const MAX_HEADERS = 256
const NO_TEXT = ''

const mtuNumber = (bytes: number): number | undefined =>
  Object.values(Mtu.values).find(number => mtuBytes(number) === bytes)

/** A message whose last PSN is not acknowledged. */
interface Sent {
  readonly request: WorkRequest
  readonly lastPsn: number
}

/** A queue pair as an object, and what it has outstanding. */
interface Pair {
  readonly object: number
  /** The object of the queue pair that gets its requests. */
  readonly target: number
  readonly qpn: number
  /** The object of its completions. */
  readonly cq: number
  readonly flow: Flow
  /** The message whose packets are being seen. */
  open: Open | undefined
  nextPsn: number
  posted: number
  readonly sent: Sent[]
  completions: number
}

/** A message that has begun. Its length is known at its end, so what follows it waits. */
interface Open {
  readonly time: number
  readonly opcode: number
  readonly remote: WorkRequest['remote']
  readonly id: number
  bytes: number
}

/** Events that wait for the end of a message that began before them; beyond, messages are told with what is known. */
const MAX_WAITING = 8192

export class CaptureSession {
  readonly #analysis: CaptureAnalysis
  readonly #writer: SessionWriter
  /** By flow: the queue pair that sends its requests. */
  readonly #senders = new Map<Flow, Pair>()
  readonly #flows = new Map<string, PacketFlow>()
  readonly #problems = new Map<number, CaptureProblem[]>()
  readonly #scratch = new Uint8Array(MAX_HEADERS)
  readonly #scratchView = new DataView(this.#scratch.buffer)
  #lastFlow: { readonly key: string; readonly flow: PacketFlow } | undefined
  readonly #devices = new Set<number>()
  #objects = 0
  #requests = 0
  #findings = 0
  /** Events in the order of time, from the first message that has not ended on. */
  #waiting: { readonly message: Open | undefined; readonly write: () => void }[] = []
  readonly #begun = new Set<Open>()

  /** `analysis` is finished. Times of the writer: microseconds since the first packet. */
  constructor(analysis: CaptureAnalysis, writer: SessionWriter) {
    this.#analysis = analysis
    this.#writer = writer
    this.#addObjects()
    for (const problem of problemsOf(analysis).problems.slice(0, MAX_FINDINGS)) {
      const frame = problem.frames.at(-1) ?? 0
      const known = this.#problems.get(frame)
      if (known === undefined) this.#problems.set(frame, [problem])
      else known.push(problem)
    }
  }

  #addObjects(): void {
    const { flows, addresses } = this.#analysis
    const devices = this.#devices
    const device = (address: number): number => {
      if (!devices.has(address)) {
        devices.add(address)
        const name = addresses.text(address)
        this.#writer.device(0, { change: 'exists', device: address, name, address: name })
      }
      return address
    }
    const known = new Map<string, number>()
    const add = (address: number, qpn: number, of: Flow, peer: number | undefined, isSender: boolean): number => {
      // A number that is not known is of one flow.
      const key = `${address}/${qpn === 0 && !isDatagram(of) ? `unknown ${of.number}` : qpn}/${of.service}`
      const existing = known.get(key)
      if (existing !== undefined) return existing
      const object = ++this.#objects
      known.set(key, object)
      const back = isSender ? of : of.peer
      const mtu = mtuNumber(of.mtu || (of.peer?.mtu ?? 0))
      const peerAddress = isSender ? of.destination : of.source
      this.#writer.object(0, {
        change: 'exists',
        object,
        device: device(address),
        context: address,
        program: undefined,
        class: `${serviceName(of, isSender)}_qp`,
        handle: object,
        number: qpn,
        method: '',
        why: '',
        stack: [],
        details: {
          values: {
            state: (back?.requests ?? 0) > 0 ? QpState.values.RTS : QpState.values.RTR,
            ...(peer !== undefined &&
              !isDatagram(of) && { destQpn: peer, address: { dgid: hexBytes(addresses.bytes(peerAddress)) } }),
            ...(mtu !== undefined && { pathMtu: mtu }),
            ...(back !== undefined && back.firstPsn >= 0 && { sqPsn: back.firstPsn }),
          },
        },
      })
      return object
    }
    for (const flow of flows) {
      if (this.#objects >= MAX_QUEUE_PAIRS) return
      if (!isShown(flow)) continue
      const sourceQpn = flow.sourceQpn || (flow.peer?.qpn ?? 0)
      const target = add(flow.destination, flow.qpn, flow, sourceQpn || undefined, false)
      const object = add(flow.source, sourceQpn, flow, flow.qpn, true)
      this.#senders.set(flow, {
        object,
        target,
        qpn: sourceQpn,
        cq: object + MAX_QUEUE_PAIRS,
        flow,
        open: undefined,
        nextPsn: -1,
        posted: 0,
        sent: [],
        completions: 0,
      })
    }
  }

  /** A packet that the analysis has seen too. `time`: nanoseconds since the first packet. */
  add(packet: RawPacket, located: Located, time: number): void {
    const { view, bytes } = packet.arena
    const { at, length, captured, source } = located
    const micros = time / 1000
    const opcode = view.getUint8(at)
    const word = view.getUint32(at + 4) & 0xff_ffff
    const isWell = checkPacket(view, at, length) === 0
    const headerBytes = isWell ? opcodeHeaderBytes[opcode]! : headers.BTH.bytes
    // Bytes that were not captured are zero.
    this.#scratch.fill(0)
    this.#scratch.set(bytes.subarray(at, at + Math.min(captured, headerBytes)))
    const sourceQpn =
      isWell && (opcode & TRANSPORT_MASK) === transportBits.UD ? this.#scratchView.getUint32(16) & 0xff_ffff : 0
    const service = opcode === CNP ? 0 : opcode & TRANSPORT_MASK
    const flow = this.#analysis.table.find(source, located.destination, word, service, sourceQpn)
    // Copies of other points of the same capture are not sent again.
    if (flow === undefined || (flow.copies > 0 && flow.point !== located.point)) return
    const sender = isWell ? this.#senders.get(flow) : undefined
    const flags = opcodeFlags[opcode]!
    if (sender !== undefined && (captured >= headerBytes || located.isInferred) && (flags & OP_REQUEST) !== 0)
      this.#request(sender, opcode, flags, length, micros, located.isInferred)
    this.#packet(located, micros, length)
    if (isWell && (flags & OP_REQUEST) === 0 && flow.peer !== undefined && captured >= headerBytes)
      this.#answer(flow.peer, opcode, micros)
    for (const problem of this.#problems.get(packet.frame) ?? []) this.#finding(problem, micros)
  }

  #flowOf(located: Located): PacketFlow {
    const { source, destination, sourcePort, ecn, hopLimit } = located
    const key = `${source}/${destination}/${sourcePort}/${ecn}/${hopLimit}`
    if (this.#lastFlow?.key === key) return this.#lastFlow.flow
    let flow = this.#flows.get(key)
    if (flow === undefined) {
      const { addresses } = this.#analysis
      flow = {
        source: addresses.bytes(source),
        destination: addresses.bytes(destination),
        sourcePort,
        trafficClass: ecn,
        hopLimit,
        flowLabel: 0,
      }
      if (this.#flows.size < MAX_FLOWS) this.#flows.set(key, flow)
    }
    this.#lastFlow = { key, flow }
    return flow
  }

  /** Writes now, or once all messages that began before have ended. */
  #write(write: () => void): void {
    if (this.#begun.size === 0) write()
    else {
      this.#waiting.push({ message: undefined, write })
      if (this.#waiting.length > MAX_WAITING) this.#flush(true)
    }
  }

  #packet(located: Located, time: number, length: number): void {
    const { source, identification, ecn } = located
    const flow = this.#flowOf(located)
    const facts = { device: source, direction: 0, outcome: ecn === 3 ? MARKED : PASSED, flow, identification }
    if (this.#begun.size === 0) {
      this.#writer.packets(time, facts, this.#scratch, this.#scratchView, 0, length, 1, length)
      return
    }
    const copy = this.#scratch.slice()
    this.#write(() => this.#writer.packets(time, facts, copy, new DataView(copy.buffer), 0, length, 1, length))
  }

  /** `isInferred`: the opcode is not captured, only that of a packet before. */
  #request(sender: Pair, opcode: number, flags: number, length: number, time: number, isInferred: boolean): void {
    const view = this.#scratchView
    const psn = view.getUint32(8) & 0xff_ffff
    const isReliable = isReliableOpcode(opcode)
    // Sent again: of a message that is known.
    if (isReliable && sender.nextPsn >= 0 && psnDifference(psn, sender.nextPsn) < 0) return
    const hasPayload = (flags & OP_PAYLOAD) !== 0
    const payload = hasPayload
      ? Math.max(0, length - opcodeHeaderBytes[opcode]! - ICRC_BYTES - bthPadCount(view, 0))
      : 0
    const reth = headerAt.RETH[opcode]!
    const dmaLength = reth > 0 ? view.getUint32(reth + 12) : 0
    const isRead = (flags & OP_READ) !== 0
    if ((flags & OP_START) !== 0) {
      if (sender.open !== undefined) {
        // Its last packet is missing, or was in a frame that is cut.
        const request = this.#close(sender, sender.open)
        if (isReliable) this.#isSent(sender, { request, lastPsn: (psn - 1) & 0xff_ffff })
      }
      sender.open = {
        time,
        opcode: WrOpcode.values[requestOf(opcodeByNumber[opcode]!)],
        remote:
          reth > 0
            ? {
                address: view.getUint32(reth) * 2 ** 32 + view.getUint32(reth + 4),
                rkey: view.getUint32(reth + 8),
                length: dmaLength,
              }
            : undefined,
        id: ++this.#requests,
        bytes: isRead ? dmaLength : 0,
      }
      this.#begin(sender, sender.open)
    }
    const { open } = sender
    const mtu = sender.flow.mtu || sender.flow.peer?.mtu || 0
    const span = isRead && mtu > 0 ? Math.max(1, Math.ceil(dmaLength / mtu)) : 1
    sender.nextPsn = (psn + span) & 0xff_ffff
    if (open === undefined) return
    open.bytes += isRead ? 0 : payload
    const isWhole = isInferred && open.remote !== undefined && open.bytes >= open.remote.length
    if ((flags & OP_END) === 0 && !isWhole) return
    const request = this.#close(sender, open)
    if (!isReliable) {
      this.#write(() => this.#writer.ended(time, request))
      return
    }
    this.#isSent(sender, { request, lastPsn: (psn + span - 1) & 0xff_ffff })
  }

  #isSent({ sent }: Pair, one: Sent): void {
    sent.push(one)
    if (sent.length > MAX_OUTSTANDING) sent.shift()
  }

  /** Reserves the place of a message among the events. */
  #begin(sender: Pair, open: Open): void {
    this.#begun.add(open)
    this.#waiting.push({ message: open, write: () => this.#posted(sender, open) })
  }

  #requestOf({ object, qpn, flow, posted }: Pair, { id, time, opcode, remote, bytes }: Open): WorkRequest {
    const { UD } = transportBits
    return {
      id,
      time,
      owner: object,
      queue: PostQueue.SEND,
      number: qpn,
      index: posted,
      wrId: BigInt(posted),
      numbered: 'request',
      opcode,
      flags: 0,
      isSignaled: false,
      length: bytes,
      elements: [],
      remote,
      destQpn: flow.service === UD ? flow.qpn : undefined,
      destination: undefined,
    }
  }

  readonly #made = new Map<Open, WorkRequest>()

  #posted(sender: Pair, open: Open): void {
    const request = this.#made.get(open) ?? this.#requestOf(sender, open)
    this.#made.delete(open)
    this.#writer.posted(open.time, request, NO_TEXT)
  }

  /** The message has no more packets, or none that are seen. */
  #close(sender: Pair, open: Open): WorkRequest {
    sender.open = undefined
    const request = this.#requestOf(sender, open)
    sender.posted++
    if (this.#begun.delete(open)) {
      this.#made.set(open, request)
      this.#flush(false)
    }
    return request
  }

  /**
   * Writes what waits for no message; with `all`, everything: messages that have not ended have what is known of them.
   */
  #flush(all: boolean): void {
    let at = 0
    for (const { message, write } of this.#waiting) {
      if (message !== undefined && this.#begun.has(message) && !all) break
      write()
      at++
    }
    this.#waiting.splice(0, at)
    if (all) this.#begun.clear()
  }

  #answer(requester: Flow, opcode: number, time: number): void {
    const sender = this.#senders.get(requester)
    if (sender === undefined) return
    const view = this.#scratchView
    const psn = view.getUint32(8) & 0xff_ffff
    const aeth = headerAt.AETH[opcode]!
    const syndrome = aeth > 0 ? view.getUint8(aeth) : 0
    const verdict = verdictOf[syndrome]!
    if (verdict === Verdict.RESERVED) return
    const isNak = verdict !== Verdict.ACK
    const { sent } = sender
    // A NAK acknowledges what was before its PSN.
    while (sent.length > 0 && psnDifference(sent[0]!.lastPsn, psn) <= (isNak ? -1 : 0)) {
      const { request } = sent.shift()!
      this.#write(() => this.#writer.ended(time, request))
    }
    if (verdict !== Verdict.REFUSAL) return
    const { status } = refusalOf[syndrome & SYNDROME_VALUE_MASK]!
    const failed = sent.shift()
    if (failed === undefined) return
    const { request } = failed
    const { object, cq } = sender
    const completion: RequestCompletion = {
      status,
      opcode: 0,
      bytes: 0,
      cq,
      cqPosition: ++sender.completions,
      solicited: false,
      qp: object,
      message: undefined,
    }
    const position = sender.completions
    this.#write(() => {
      this.#writer.ended(time, request)
      this.#writer.completed(time, request, completion)
      // What the program polled is not known; a depth that grows would be untrue.
      this.#writer.polled(time, cq, position)
    })
  }

  #finding({ cause, flow, evidence, frames, refused }: CaptureProblem, time: number): void {
    const { severity, title, why, unknown, advice } = captureCause(cause, this.#analysis.hasLids)
    const subject = flow === undefined ? '' : `${flowText(this.#analysis, flow)}: `
    const id = flow && this.#senders.get(flow)?.target
    this.#write(() =>
      this.#writer.finding(time, {
        number: ++this.#findings,
        id: `capture ${cause}`,
        severity: severity === 'failure' ? 'error' : severity === 'slow' ? 'warning' : 'note',
        text: `${title}: ${subject}${evidence}`,
        details: [
          ...(frames.length > 0 ? [`frames ${frames.join(', ')}`] : []),
          ...(refused === undefined ? [] : [`refused: ${refusedText(refused)}`]),
          unknown === undefined ? why : `unknown, because ${unknown}: ${why}`,
        ],
        advice,
        device: flow === undefined ? 'the network' : this.#analysis.addresses.text(flow.source),
        time,
        moments: [],
        objects:
          flow === undefined
            ? []
            : [{ ...(id !== undefined && { id }), name: `QP 0x${flow.qpn.toString(16)}`, history: [] }],
      }),
    )
  }

  /** Packets that were seen from and to each address, as the counters of a device. */
  #counters(): void {
    const { flows, end } = this.#analysis
    const sent = new Map<number, number>()
    const received = new Map<number, number>()
    for (const { source, destination, packets } of flows) {
      sent.set(source, (sent.get(source) ?? 0) + packets)
      received.set(destination, (received.get(destination) ?? 0) + packets)
    }
    for (const device of this.#devices)
      this.#writer.counters(end / 1000, device, 0, {
        'port.sentPackets': sent.get(device) ?? 0,
        'port.receivedPackets': received.get(device) ?? 0,
      })
  }

  /** No more packets. Problems without a frame come last. */
  finish(): void {
    for (const problem of this.#problems.get(0) ?? []) this.#finding(problem, this.#analysis.end / 1000)
    this.#flush(true)
    this.#counters()
  }
}

const PASSED = 0
const MARKED = 7

const isDatagram = ({ service }: Flow): boolean => service === transportBits.UD

const services: Readonly<Record<number, string>> = {
  [transportBits.RC]: 'rc',
  [transportBits.UC]: 'uc',
  [transportBits.UD]: 'ud',
  [transportBits.XRC]: 'xrc',
}

/** Flows whose requests and queue pairs are those of verbs: not CNPs, DC and SRD. */
const isShown = ({ service, requests, answers }: Flow): boolean =>
  services[service] !== undefined && requests + answers > 0

const serviceName = ({ service }: Flow, isSender: boolean): string =>
  service === transportBits.XRC ? (isSender ? 'xrc_ini' : 'xrc_tgt') : services[service]!
