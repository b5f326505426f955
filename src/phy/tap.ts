/*
 * Taps: the tracer and packet captures get every run that a port sends and receives, with real ICRCs. Taps may be added
 * and removed at any time; without taps a run costs one test of the port's `tap`. Several taps share this property.
 */
import type { Port, PortTap, TappedRun } from './port.ts'

const tapsOf = new WeakMap<Port, PortTap[]>()

/** Passes every run to `tap`, until the returned function is called. */
export const addTap = (port: Port, tap: PortTap): (() => void) => {
  const taps = tapsOf.get(port) ?? []
  tapsOf.set(port, taps)
  // A new function for each call of `addTap`, so that a tap that was added twice can be removed once.
  const registration: PortTap = run => tap(run)
  const updatePort = (): void => {
    // A copy, since a tap may remove itself during the call.
    const current = [...taps]
    port.tap =
      current.length === 0
        ? null
        : current.length === 1
          ? current[0]
          : run => {
              for (const registered of current) registered(run)
            }
  }
  taps.push(registration)
  updatePort()
  port.requireSeal(1)
  return () => {
    const index = taps.indexOf(registration)
    if (index < 0) return
    taps.splice(index, 1)
    updatePort()
    port.requireSeal(-1)
  }
}

/** Calls `onPacket` for every packet of a run: its offset in the arena, its length, its IPv4 identification. */
export const forEachPacket = (
  run: TappedRun,
  onPacket: (offset: number, length: number, identification: number) => void,
): void => {
  for (let i = 0; i < run.count; i++)
    onPacket(
      run.offset + i * run.packetBytes,
      i === run.count - 1 ? run.lastBytes : run.packetBytes,
      run.identification + i,
    )
}
