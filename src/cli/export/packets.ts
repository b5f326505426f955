/*
 * The packets of a session as pcapng, and as they would be if their payload were zeros.
 */
import type { PacketsEvent, SessionHeader } from '../../record/events.ts'
import { expandPackets } from '../../record/packets.ts'
import { createPcapng } from '../../trace/pcapng.ts'

/** Most characters of an interface's name; Linux's have 15. */
const MAX_NAME = 255

/** A packet of `length` bytes with the recorded ones at its start, and zeros after them. */
export const paddedPacket = (recorded: Uint8Array, length: number): Uint8Array => {
  const bytes = new Uint8Array(Math.max(length, recorded.length))
  bytes.set(recorded)
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
  const names = [...devices.values()].map(name => name.slice(0, MAX_NAME))
  const writePacket = createPcapng(write, { interfaces: names.length === 0 ? ['none'] : names })
  return (time, event) => {
    const { device, flow, direction, outcome } = event
    for (const { bytes, length, identification } of expandPackets(event))
      writePacket({
        interface: Math.max(0, numbers.indexOf(device)),
        time: origin * 1000 + time,
        flow,
        identification,
        payload: paddedPacket(bytes, length),
        captured: bytes.length,
        direction,
        ...(outcome !== 'passed' && { comment: outcome }),
      })
  }
}
