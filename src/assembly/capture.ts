/*
 * Captures the packets of a port as records of pcapng.
 */
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import type { Port } from '../phy/port.ts'
import { addTap, forEachPacket } from '../phy/tap.ts'
import type { PcapngPacket } from '../trace/pcapng.ts'

/**
 * Passes each packet of the port to `write` until the returned function is called. A packet between two captured
 * devices is captured once, when it is sent. `index`: the port's interface in the file; `isOwn`: whether one of the
 * captured devices has an address (16 bytes); `failed` is called if `write` throws, for example for a full disk.
 */
export const capturePort = (
  port: Port,
  index: number,
  isOwn: (address: Uint8Array) => boolean,
  write: (packet: PcapngPacket) => void,
  failed: (error: unknown) => void,
): (() => void) =>
  addTap(port, run => {
    const { direction, flow } = run
    if (direction !== 'sent' && isOwn(flow.source)) return
    const time = performance.timeOrigin * 1000 + nowMicroseconds()
    try {
      forEachPacket(run, (offset, length, identification) => {
        const payload = run.arena.bytes.subarray(offset, offset + length)
        write({ interface: index, time, direction, flow, identification, payload })
      })
    } catch (error) {
      failed(error)
    }
  })
