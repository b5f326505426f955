/*
 * The packets of a session as pcapng, and as they would be if their payload were zeros.
 */
import type { PacketsEvent, SessionHeader } from '../../record/events.ts'
import { expandPackets } from '../../record/packets.ts'
import { createPcapng } from '../../trace/pcapng.ts'

/** Longer than any packet of a port: a damaged file may name any length. */
const MAX_PACKET = 2 ** 14

/** A packet of `length` bytes with the recorded ones at its start, and zeros after them. */
export const paddedPacket = (recorded: Uint8Array, length: number): Uint8Array => {
  const bytes = new Uint8Array(Math.min(Math.max(length, recorded.length), MAX_PACKET))
  bytes.set(recorded.subarray(0, bytes.length))
  return bytes
}

/**
 * Starts a capture file. `devices`: names by their numbers. Returns a function that adds the packets of an event. The
 * frames end where the recorded bytes end.
 */
export const createCapture = (
  write: (bytes: Uint8Array) => void,
  { origin }: SessionHeader,
  devices: ReadonlyMap<number, string>,
): ((time: number, event: PacketsEvent) => void) => {
  const numbers = [...devices.keys()]
  const writePacket = createPcapng(write, { interfaces: numbers.length === 0 ? ['none'] : [...devices.values()] })
  return (time, event) => {
    const { device, flow, direction, outcome } = event
    for (const { bytes, length, identification } of expandPackets(event))
      writePacket({
        interface: Math.max(0, numbers.indexOf(device)),
        time: origin * 1000 + time,
        flow,
        identification,
        payload: paddedPacket(bytes, length),
        captured: Math.min(bytes.length, MAX_PACKET),
        direction,
        ...(outcome !== 'passed' && { comment: outcome }),
      })
  }
}
