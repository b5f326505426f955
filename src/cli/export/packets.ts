/*
 * The packets of a session as pcapng, and as they would be if their payload were zeros.
 */

import type { PacketsEvent, SessionHeader } from '../../spec/session-events.ts'
import type { PacketFlow } from '../../spec/wire/flow.ts'
import { ICRC_BYTES, ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { expandPackets } from '../../tools/record/packets.ts'
import { createLosses } from '../../tools/trace/losses.ts'
import { createPcapng } from '../../tools/trace/pcapng.ts'
import { arenaOver } from '../../transport/wire/arena.ts'
import { BTH_BYTES } from '../../transport/wire/bth.ts'
import { type Flow, makeFlow, sealIcrc } from '../../transport/wire/icrc.ts'

/** Maximum bytes of a UDP payload. */
const MAX_PAYLOAD = 65_507

/** Most characters of an interface's name; Linux's have 15. */
const MAX_NAME = 255

/** A packet of `length` bytes with the recorded ones at its start, and zeros after them. */
export const paddedPacket = (recorded: Uint8Array, length: number): Uint8Array => {
  const bytes = new Uint8Array(Math.max(length, recorded.length))
  bytes.set(recorded)
  return bytes
}

/** The packet that was sent, with the right ICRC: of a packet whose payload was not recorded, that of zeros. */
const wholePacket = (recorded: Uint8Array, length: number, flow: Flow, identification: number): Uint8Array => {
  const bytes = paddedPacket(recorded, length)
  if (bytes.length >= BTH_BYTES + ICRC_BYTES && bytes.length <= MAX_PAYLOAD)
    sealIcrc(arenaOver(bytes), 0, bytes.length, flow, identification)
  return bytes
}

/**
 * Starts a capture file. `devices`: names by their numbers. Packets have their whole length, with zeros for what was
 * not recorded of their payload: Wireshark calls shorter ones malformed. A lost packet is one frame with a comment.
 */
export const createCapture = (
  write: (bytes: Uint8Array) => void,
  { origin }: SessionHeader,
  devices: ReadonlyMap<number, string>,
): { add(time: number, event: PacketsEvent): void; end(): void } => {
  const numbers = [...devices.keys()]
  const names = [...devices.values()].map(name => name.slice(0, MAX_NAME))
  const pcapng = createPcapng(write, { interfaces: names.length === 0 ? ['none'] : names })
  // The recorded bytes wait, not the whole packets. How long a packet may be in flight is not recorded.
  const lengths = new WeakMap<Uint8Array, number>()
  let last: { readonly flow: PacketFlow; readonly icrcFlow: Flow } | undefined
  const losses = createLosses(packet => {
    const { payload, flow, identification } = packet
    if (last?.flow !== flow) last = { flow, icrcFlow: makeFlow({ ...flow, destinationPort: ROCE_UDP_PORT }) }
    const { icrcFlow } = last
    const length = lengths.get(payload) ?? payload.length
    pcapng({ ...packet, payload: wholePacket(payload, length, icrcFlow, identification) })
  }, Number.POSITIVE_INFINITY)
  /** Addresses that have sent packets which were recorded then. */
  const senders = new Set<string>()
  return {
    add(time, event) {
      const { device, flow, direction, outcome } = event
      const source = flow.source.join()
      if (direction === 'sent') senders.add(source)
      for (const { bytes, length, identification } of expandPackets(event)) {
        const packet = {
          interface: Math.max(0, numbers.indexOf(device)),
          time: origin * 1000 + time,
          flow,
          identification,
          payload: bytes,
          direction,
        }
        lengths.set(bytes, length)
        if (outcome === 'passed') losses.sent(packet)
        else if (direction === 'received' && senders.has(source)) losses.arrived(packet, outcome)
        else losses.sent({ ...packet, comment: outcome })
      }
    },
    end: losses.flush,
  }
}
