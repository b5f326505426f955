/*
 * Flows of packets in one direction of a device, for fault rules: the packets to a queue pair from one sender, requests
 * and responses apart, as they count PSNs apart.
 */
import { headerAt, opcodeByNumber } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthOpcode, bthPsn } from '../../wire/bth.ts'

/** A flow remembers this many packets: a retransmission of an earlier one counts as new. */
const MAX_PACKETS = 4096
/** Flows that are counted: beyond, the oldest begins anew. */
export const MAX_FLOWS = 65_536

const RESPONSE = 2 ** 24
const SENDER = 2 ** 25

/** Bytes of the packet that tell the sender, if several may send to a queue pair; 0: the sender is its only one. */
export const senderOf = (view: DataView, packet: number, opcode: number): number => {
  const deth = headerAt.DETH[opcode]!
  const srd = headerAt.SRDETH[opcode]!
  if (deth !== 0) return view.getUint32(packet + deth + 4)
  return srd === 0 ? 0 : view.getUint32(packet + srd + 4)
}

/** A number for each flow. */
export const flowKeyOf = (view: DataView, packet: number): number => {
  const opcode = bthOpcode(view, packet)
  const response = opcodeByNumber[opcode]?.role === 'response' ? RESPONSE : 0
  return bthDestQp(view, packet) + response + (senderOf(view, packet, opcode) & 0xff_ffff) * SENDER
}

/** Adds to a map of at most `max` entries; the oldest goes. */
export const putBounded = <K, V>(map: Map<K, V>, key: K, value: V, max: number): V => {
  if (map.size >= max && !map.has(key)) for (const oldest of map.keys()) if (map.delete(oldest)) break
  map.set(key, value)
  return value
}

/** Where a packet is: all numbers from 1. */
export interface Place {
  readonly message: number
  readonly inMessage: number
  readonly inFlow: number
}

interface Flow {
  readonly places: Map<number, Place>
  last: Place
}

const BEFORE: Place = { message: 0, inMessage: 0, inFlow: 0 }

export class FlowPlaces {
  readonly #flows = new Map<number, Flow>()

  /**
   * The place of a packet in its flow; undefined: it carries no message, as acknowledgements. A packet that is sent
   * again keeps its place.
   */
  of(view: DataView, packet: number): Place | undefined {
    const opcode = bthOpcode(view, packet)
    const known = opcodeByNumber[opcode]
    if (known === undefined || known.kind === 'ack' || known.kind === 'cnp' || known.kind === 'connect')
      return undefined
    const key = flowKeyOf(view, packet)
    const flow = this.#flows.get(key) ?? putBounded(this.#flows, key, { places: new Map(), last: BEFORE }, MAX_FLOWS)
    const psn = bthPsn(view, packet)
    const place = flow.places.get(psn)
    if (place !== undefined) return place
    const { last } = flow
    const srd = headerAt.SRDETH[opcode]!
    const offset = srd === 0 ? 0 : view.getUint32(packet + srd + 16)
    const begins = srd === 0 ? known.position === 'first' || known.position === 'only' : offset === 0
    flow.last = {
      message: begins ? last.message + 1 : last.message,
      inMessage: begins ? 1 : last.inMessage + 1,
      inFlow: last.inFlow + 1,
    }
    return putBounded(flow.places, psn, flow.last, MAX_PACKETS)
  }
}
