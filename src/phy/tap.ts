/*
 * Taps: tracer and pcap get every run that a port sends and receives, with real ICRCs. Taps may be added and removed at
 * any time; a port without one pays a test of its `tap` slot per run. Several taps share the slot.
 */
import type { Port, PortTap, TappedRun } from './port.ts'

const tapsOf = new WeakMap<Port, PortTap[]>()

/** Passes every run to `tap` until the returned function is called. */
export const addTap = (port: Port, tap: PortTap): (() => void) => {
  const taps = tapsOf.get(port) ?? []
  tapsOf.set(port, taps)
  // a function of its own, so that the same tap can be added twice and removed once
  const own: PortTap = run => tap(run)
  const settle = (): void => {
    // a copy, since a tap may remove itself during the call
    const now = [...taps]
    port.tap =
      now.length === 0
        ? null
        : now.length === 1
          ? now[0]
          : run => {
              for (const one of now) one(run)
            }
  }
  taps.push(own)
  settle()
  port.requireSeal(1)
  return () => {
    const at = taps.indexOf(own)
    if (at < 0) return
    taps.splice(at, 1)
    settle()
    port.requireSeal(-1)
  }
}

/** Calls `each` for every packet of a run: offset in its arena, bytes, and IPv4 identification. */
export const forEachPacket = (
  run: TappedRun,
  each: (offset: number, length: number, identification: number) => void,
): void => {
  for (let i = 0; i < run.count; i++)
    each(
      run.offset + i * run.packetBytes,
      i === run.count - 1 ? run.lastBytes : run.packetBytes,
      run.identification + i,
    )
}
