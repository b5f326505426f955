/*
 * The ladder of a run as text: the packets of a network's devices with their times, what faults did to them, and the
 * failures of requests. It keeps the last lines.
 */
import { registerClient } from '../../../core/devices/clients.ts'
import { addFailureHandler } from '../../../core/failures.ts'
import { failureText } from '../../../spec/check/failures.ts'
import { packetText } from '../../../tools/trace/packets.ts'
import type { TappedRun } from '../../../transport/phy/port.ts'
import { addTap, forEachPacket } from '../../../transport/phy/tap.ts'
import { addressText, isSameAddress } from '../../../transport/wire/address.ts'
import type { LocalNetwork } from '../contract.ts'

/** Lines that a ladder keeps. */
const MAX_LINES = 40

interface Observed {
  /** Received packets by the name of the device. */
  readonly received: Map<string, number>
  /** Packets that were sent, of all devices. */
  packets: number
  /** The last lines of the ladder. */
  lines(): string[]
  /** Ends the ladder. */
  stop(): void
}

/** Observes the devices of a network. `hasLadder`: whether it keeps lines. */
export const observeRun = ({ core, clock, portOf }: LocalNetwork, hasLadder: boolean): Observed => {
  let lines: string[] = []
  let left = 0
  let isStopped = false
  const addLine = (text: string): void => {
    if (isStopped) return
    lines.push(`${(clock.now() / 1000).toFixed(3).padStart(12)} ms  ${text}`)
    if (lines.length < 2 * MAX_LINES) return
    left += lines.length - MAX_LINES
    lines = lines.slice(-MAX_LINES)
  }
  /** The device with an address, or the address. */
  const nameOf = (address: Uint8Array): string => {
    for (const { name, ports } of core.devices.values())
      for (const { gids } of ports)
        if (gids.entries.some(entry => entry !== undefined && isSameAddress(entry.gid, address))) return name
    return addressText(address)
  }
  const observed: Observed = {
    received: new Map(),
    packets: 0,
    stop() {
      isStopped = true
    },
    lines() {
      const shown = lines.slice(-MAX_LINES)
      const missing = left + lines.length - shown.length
      return missing > 0 ? [`… ${missing} lines before`, ...shown] : shown
    },
  }
  const addPackets = (device: string, run: TappedRun): void => {
    const isSent = run.direction === 'sent'
    if (!isSent) observed.received.set(device, (observed.received.get(device) ?? 0) + run.count)
    else if (run.outcome === 'passed') observed.packets += run.count
    if (!hasLadder || (!isSent && run.outcome === 'passed')) return
    const where = `${nameOf(run.flow.source)} → ${isSent ? nameOf(run.flow.destination) : device}`
    const outcome = run.outcome === 'passed' ? '' : `  ✗ ${run.outcome}`
    forEachPacket(run, (offset, length) =>
      addLine(`${where}  ${packetText(run.arena.bytes.slice(offset, offset + length))}${outcome}`),
    )
  }
  registerClient(core, {
    name: 'explore',
    add(device) {
      const port = portOf(device.name)
      if (port === undefined) return true
      addTap(port, run => addPackets(device.name, run), false)
      return true
    },
    remove: ({ name }) => addLine(`${name} is removed`),
  })
  if (hasLadder) addFailureHandler(core, (failure, { name }) => addLine(`${name}: ${failureText(failure)}`))
  return observed
}
