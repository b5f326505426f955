/*
 * Taps: packet captures and recordings get every run that a port sends and receives, captures with real ICRCs. Taps may
 * be added and removed at any time. Without taps a run costs one test of the port's `tap`.
 */
import type { Port, PortTap, TappedRun } from './port.ts'

const tapsOf = new WeakMap<Port, PortTap[]>()

/**
 * Passes every run to `tap`, until the returned function is called. `needsIcrc` false: the tap ignores the ICRCs, and
 * the identifications within a run, so a port that may omit them does.
 */
export const addTap = (port: Port, tap: PortTap, needsIcrc = true): (() => void) => {
  const taps = tapsOf.get(port) ?? []
  tapsOf.set(port, taps)
  // A new function per call: a tap that was added twice can be removed once.
  const registration: PortTap = run => tap(run)
  const updatePort = (): void => {
    // A copy, because a tap may remove itself during the call.
    const current = [...taps]
    if (current.length <= 1) port.tap = current[0] ?? null
    else
      port.tap = run => {
        for (const registered of current) registered(run)
      }
  }
  taps.push(registration)
  updatePort()
  if (needsIcrc) port.requireSeal(1)
  return () => {
    const index = taps.indexOf(registration)
    if (index < 0) return
    taps.splice(index, 1)
    updatePort()
    if (needsIcrc) port.requireSeal(-1)
  }
}

/** Calls `onPacket` for each packet of a run. `identification`: of the IPv4 header, modulo 65,536; unused for IPv6. */
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
