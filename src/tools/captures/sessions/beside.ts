/*
 * A capture of the machine beside a recording of its programs (`run --host --record`): the packets become events of the
 * recording, so that a ladder shows a request and its packets. Both clocks are the machine's.
 *
 * A packet belongs to the device of the recording that has its source address, or whose queue pair is connected to its
 * destination. Other senders become devices of their own.
 */

import { hexBytes } from '../../../base/text.ts'
import type { DeviceEvent, ObjectEvent, SessionEvent } from '../../../spec/session-events.ts'
import type { PacketFlow } from '../../../spec/wire/flow.ts'
import { headers } from '../../../spec/wire/headers.ts'
import { opcodeHeaderBytes } from '../../../spec/wire/opcodes.ts'
import { checkPacket } from '../../../transport/wire/packet.ts'
import type { SessionWriter } from '../../record/writer.ts'
import { AddressTable } from '../addresses.ts'
import { CaptureReader, type RawPacket } from '../file.ts'
import { Kind, Locator } from '../locate.ts'
import type { Located } from '../located.ts'

/** Devices of senders that the recording does not know have numbers from here on. */
const FIRST_OTHER = 1 << 20
const MAX_HEADERS = 256
const PASSED = 0
const MARKED = 7

/** A packet of the capture, with the time of the recording in microseconds. */
interface BesidePacket {
  readonly time: number
  /** Writes it. */
  write(): void
}

export class PacketsBeside {
  readonly addresses = new AddressTable()
  readonly reader: CaptureReader
  /** Packets that were read and not taken. */
  readonly queue: BesidePacket[] = []
  readonly #writer: SessionWriter
  readonly #locator: Locator
  readonly #origin: number
  /** By address as text: the number of a device. */
  readonly #byAddress = new Map<string, number>()
  /** By GID and number of the peer: the number of the queue pair's device. */
  readonly #byPeer = new Map<string, number>()
  readonly #others = new Map<number, number>()

  /** `origin`: milliseconds since the epoch at time 0 of the recording. */
  constructor(writer: SessionWriter, origin: number, port?: number) {
    this.#writer = writer
    this.#origin = origin
    this.#locator = new Locator(this.addresses, port)
    this.reader = new CaptureReader(packet => this.#add(packet))
  }

  /** Learns from an event of the recording whose packets are whose. */
  learn(event: SessionEvent): void {
    if (event.kind === 'device') this.#device(event)
    else if (event.kind === 'object') this.#object(event)
  }

  #device({ address, device }: DeviceEvent): void {
    if (address !== '') this.#byAddress.set(address, device)
  }

  #object({ device, details: { values = {} } }: ObjectEvent): void {
    const { destQpn, address } = values
    const dgid = (address as { readonly dgid?: unknown } | undefined)?.dgid
    if (typeof destQpn === 'number' && typeof dgid === 'string') this.#byPeer.set(`${dgid}/${destQpn}`, device)
  }

  #add(packet: RawPacket): void {
    if (!packet.hasTime || this.#locator.locate(packet) > Kind.INFINIBAND) return
    const { located } = this.#locator
    for (let part = 0; part < located.parts; part++) {
      this.#locator.select(packet, part)
      this.#addTransport(packet, located)
    }
    this.#locator.select(packet, 0)
  }

  /** A transport packet of a frame. */
  #addTransport(packet: RawPacket, located: Located): void {
    const time = (packet.seconds * 1000 - this.#origin) * 1000 + packet.nanoseconds / 1000
    const { at, length, captured, source, destination, ecn, identification } = located
    const { view, bytes } = packet.arena
    const isWell = checkPacket(view, at, length) === 0
    const headerBytes = isWell ? opcodeHeaderBytes[view.getUint8(at)]! : headers.BTH.bytes
    // Bytes that were not captured are zero.
    const copy = new Uint8Array(MAX_HEADERS)
    copy.set(bytes.subarray(at, at + Math.min(captured, headerBytes)))
    const qpn = view.getUint32(at + 4) & 0xff_ffff
    const flow = this.#flowOf(located)
    this.queue.push({
      time,
      write: () => {
        const device = this.#deviceOf(time, source, destination, qpn)
        const facts = { device, direction: 0, outcome: ecn === 3 ? MARKED : PASSED, flow, identification }
        this.#writer.packets(time, facts, copy, new DataView(copy.buffer), 0, length, 1, length)
      },
    })
  }

  #flowOf({ source, destination, sourcePort, ecn, hopLimit }: Located): PacketFlow {
    const [from, to] = [this.addresses.bytes(source), this.addresses.bytes(destination)]
    return { source: from, destination: to, sourcePort, trafficClass: ecn, hopLimit, flowLabel: 0 }
  }

  #deviceOf(time: number, source: number, destination: number, qpn: number): number {
    const peer = this.#byPeer.get(`${hexBytes(this.addresses.bytes(destination))}/${qpn}`)
    const name = this.addresses.text(source)
    const known = this.#byAddress.get(name) ?? peer ?? this.#others.get(source)
    if (known !== undefined) return known
    const device = FIRST_OTHER + this.#others.size
    this.#others.set(source, device)
    this.#writer.device(time, { change: 'exists', device, name, address: name })
    return device
  }
}
