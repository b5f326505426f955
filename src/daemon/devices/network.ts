/*
 * The network of a daemon: a memory link between its devices, or UDP sockets. Each port can inject faults and be
 * captured.
 */
import { identityOf } from '../../assembly/host-identity.ts'
import { createSocketPort, type SocketLink, useNativeCrc } from '../../assembly/socket-ports.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { mapArena } from '../../host/memory/mapping.ts'
import type { Interfaces } from '../../host/net/interfaces.ts'
import { appendBlock } from '../../host/output-file.ts'
import { type FaultPort, withFaults } from '../../phy/faults/layer.ts'
import { type FaultRule, formatFaults, formatRule, parseFaults } from '../../phy/faults/rules.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../phy/memory.ts'
import type { Port, PortTap } from '../../phy/port.ts'
import { addTap, forEachPacket } from '../../phy/tap.ts'
import { type FaultCounters, sumFaultRuleCounts } from '../../spec/faults.ts'
import { createPcapng } from '../../trace/pcapng.ts'
import type { DaemonConfig, DeviceSpec, FaultStat, Path } from '../../uapi/tool.ts'
import { isSoftDevice } from './device-spec.ts'

export interface Network {
  /** Creates the port of a device, and binds it over UDP. Throws an Error with a message for people. */
  attach(device: DeviceSpec): FaultPort
  /** Forgets a removed device. Its driver closes the port. */
  detach(device: string): void
  /** Renames a device, also in fault rules. */
  rename(device: string, name: string): void
  /** The current fault rules, as the text of `--fault`. */
  readonly faults: string
  /** How many of a device's packets were dropped, delayed, … since it was added. */
  faultsOf(device: string): FaultCounters | undefined
  /** The rules with their counts on the existing devices, since they were set. */
  faultCounts(): FaultStat[]
  /** Replaces the fault rules. Throws an Error with a message for people: invalid rules, or no such soft device. */
  setFaults(text: string): void
  /** Passes the runs of a device's port to `tap`, without ICRCs; returns a function that ends it. Undefined: no port. */
  tap(device: string, tap: PortTap): (() => void) | undefined
  /**
   * Captures packets in a pcapng file: all that the existing devices send, or receive from elsewhere. The capture ends
   * when the returned function is called or a write fails. `isOwn`: whether one of these devices has an address (16
   * bytes); `failed`: called if a write fails. The caller closes the file. Throws the system's error if the first write
   * fails.
   */
  capture(fd: number, isOwn: (address: Uint8Array) => boolean, failed: (error: unknown) => void): () => void
}

type CreatePort = (device: DeviceSpec) => Port

const memoryPorts = (path: Path): CreatePort => {
  const arena = mapArena(memorySwitchBytes())
  // Memory loses no bits, so ICRCs are computed and checked only while taps or fault rules need them.
  const link = createMemorySwitch({ arena, icrc: 'demand', path })
  return () => link.attach()
}

/** Charges a descriptor; the returned function releases it. Throws CallError EMFILE, ENFILE. */
type ChargeDescriptor = () => () => void

/** Charges a descriptor for each multicast group of the port, because each has a socket of its own. */
const withGroupCharges = (port: Port, charge: ChargeDescriptor): Port => {
  const releases = new Map<string, () => void>()
  const { joinGroup, leaveGroup, close } = port
  const release = (key: string): void => {
    releases.get(key)?.()
    releases.delete(key)
  }
  return Object.assign(port, {
    joinGroup(group: Uint8Array) {
      const key = String(group)
      if (releases.has(key)) return
      releases.set(key, charge())
      try {
        joinGroup(group)
      } catch (error) {
        release(key)
        throw error
      }
    },
    leaveGroup(group: Uint8Array) {
      leaveGroup(group)
      release(String(group))
    },
    close() {
      close()
      for (const key of [...releases.keys()]) release(key)
    },
  })
}

const socketPorts =
  (link: SocketLink, interfaces: Interfaces | undefined, charge: ChargeDescriptor): CreatePort =>
  device =>
    withGroupCharges(createSocketPort(link, device, identityOf(device, interfaces)), charge)

/**
 * Parses fault rules for these soft devices. Throws an Error with a message for people: invalid text, or an unknown
 * device.
 */
const faultRules = (text: string, devices: readonly DeviceSpec[]): FaultRule[] => {
  const rules = parseFaults(text)
  for (const { device } of rules)
    if (device !== '' && !devices.some(({ name }) => name === device))
      throw new Error(
        `fault device: there is no soft device "${device}"; there are ${devices.map(({ name }) => name).join(', ') || 'none'}`,
      )
  return rules
}

/**
 * `interfaces`: undefined for a memory link, and on systems without netlink. `charge`: called for the socket of each
 * multicast group.
 */
export const createNetwork = (
  { devices, fault, link, path = 'direct' }: DaemonConfig,
  interfaces?: Interfaces,
  charge: ChargeDescriptor = () => () => {},
): Network => {
  useNativeCrc()
  const createPort = link === 'memory' ? memoryPorts(path) : socketPorts(link, interfaces, charge)
  let rules = faultRules(fault, devices.filter(isSoftDevice))
  const ports: { readonly port: FaultPort; device: DeviceSpec }[] = []
  const findPort = (name: string) => ports.find(({ device }) => device.name === name)

  return {
    attach(device) {
      const port = withFaults(createPort(device), device.name, rules)
      ports.push({ port, device })
      return port
    },
    detach(device) {
      const at = ports.findIndex(({ device: { name } }) => name === device)
      if (at >= 0) ports.splice(at, 1)
    },
    rename(device, name) {
      const found = findPort(device)
      if (found === undefined) return
      const hasRuleOfName = rules.some(rule => rule.device === name)
      rules = rules.map(rule => (rule.device === device ? { ...rule, device: name } : rule))
      found.device = { ...found.device, name }
      // Otherwise the same rules apply to the port, which keeps their counts, random sequences and rate limits.
      if (hasRuleOfName) found.port.setFaults(rules, name)
    },
    get faults() {
      return formatFaults(rules)
    },
    faultsOf: device => findPort(device)?.port.faults,
    faultCounts() {
      const counts = ports.map(({ port }) => port.ruleCounts())
      return rules.map((rule, i) => ({
        rule: formatRule(rule),
        ...sumFaultRuleCounts(counts.map(portCounts => portCounts[i]!)),
      }))
    },
    setFaults(text) {
      rules = faultRules(
        text,
        ports.map(port => port.device),
      )
      for (const { port, device } of ports) port.setFaults(rules, device.name)
    },
    tap(device, tap) {
      const found = findPort(device)
      return found && addTap(found.port, tap, false)
    },
    capture(fd, isOwn, failed) {
      const write = createPcapng(bytes => appendBlock(fd, bytes), {
        interfaces: ports.map(({ device }) => device.name),
      })
      const stopCapture = (): void => {
        for (const remove of removers) remove()
      }
      const removers = ports.map(({ port }, index) =>
        addTap(port, run => {
          // A packet between two captured devices is captured once, by the sender's tap.
          if (run.direction !== 'sent' && isOwn(run.flow.source)) return
          const time = performance.timeOrigin * 1000 + nowMicroseconds()
          try {
            forEachPacket(run, (offset, length, identification) =>
              write({
                interface: index,
                time,
                direction: run.direction,
                flow: run.flow,
                identification,
                payload: run.arena.bytes.subarray(offset, offset + length),
              }),
            )
          } catch (error) {
            // For example a full disk. Only the capture ends.
            console.error('userdma daemon: a packet capture failed:', String(error))
            stopCapture()
            failed(error)
          }
        }),
      )
      return stopCapture
    },
  }
}
