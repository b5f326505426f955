/*
 * Captures the packets of ports as records of pcapng.
 */
import type { Clock } from '../host/event-loop/clock.ts'
import { createLosses } from '../tools/trace/losses.ts'
import type { PcapngPacket } from '../tools/trace/pcapng.ts'
import type { Port } from '../transport/phy/port.ts'
import { addTap, forEachPacket } from '../transport/phy/tap.ts'

/** Milliseconds for which a packet waits at least, while packets may be lost; at most twice as long. */
const FLUSH_INTERVAL = 50

interface PacketCapture {
  /** Captures a port, interface `index` of the file, until the returned function is called. */
  add(port: Port, index: number): () => void
  /** Writes the last packets. Ports that were not removed may be used further. */
  end(): void
}

/**
 * A packet between two captured devices is captured once, when it is sent, with a comment if it is lost. `isOwn`:
 * whether one of the captured devices has an address (16 bytes); `failed` is called if `write` throws, for example for
 * a full disk. A packet is written at once, or while packets may be lost (`mayLose`) after twice FLUSH_INTERVAL or
 * `hold` at the latest, and at the exit of the process. `hold`: the longest time from its sending to its loss, µs.
 */
export const startCapture = (
  isOwn: (address: Uint8Array) => boolean,
  write: (packet: PcapngPacket) => void,
  failed: (error: unknown) => void,
  mayLose: () => boolean,
  clock: Clock,
  hold = 0,
): PacketCapture => {
  const losses = createLosses(write, hold)
  const attempt = (use: () => void): void => {
    try {
      use()
    } catch (error) {
      failed(error)
    }
  }
  const flush = (): void => attempt(losses.flush)
  const timer = clock.every(Math.max(FLUSH_INTERVAL, Math.ceil(hold / 1000)), 'passive', () => attempt(losses.flushOld))
  process.on('exit', flush)
  return {
    add: (port, index) =>
      addTap(port, run => {
        const { direction, flow, outcome, arena } = run
        const isArrival = direction !== 'sent' && isOwn(flow.source)
        if (isArrival && outcome === 'passed') return
        const time = clock.origin * 1000 + clock.now()
        const vlan = port.vlanOf?.(flow.source)
        attempt(() => {
          const waits = mayLose()
          if (!waits) losses.flush()
          forEachPacket(run, (offset, length, identification) => {
            const bytes = arena.bytes.subarray(offset, offset + length)
            const payload = waits ? bytes.slice() : bytes
            const packet = { interface: index, time, direction, flow, identification, payload, ...(vlan && { vlan }) }
            const commented = outcome === 'passed' ? packet : { ...packet, comment: outcome }
            if (!waits) write(commented)
            else if (isArrival) losses.arrived(packet, outcome)
            else losses.sent(commented)
          })
        })
      }),
    end() {
      clock.clear(timer)
      process.off('exit', flush)
      flush()
    },
  }
}
