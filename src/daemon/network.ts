/*
 * The daemon's network: the memory link that joins its devices, or UDP sockets, with the faults and captures that
 * people ask for around each port.
 */
import { writeSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { nowMicroseconds } from '../host/clock.ts'
import { loadNativeCrc } from '../host/crc.ts'
import { EADDRINUSE, EADDRNOTAVAIL, SystemError } from '../host/errno.ts'
import type { Interfaces } from '../host/interfaces.ts'
import { mapArena } from '../host/mapping.ts'
import { interfaceMtu } from '../host/udp.ts'
import type { RuleCounts } from '../phy/chance.ts'
import { createDgramPort } from '../phy/dgram.ts'
import type { FaultCounters } from '../phy/fault-counters.ts'
import { type FaultRule, formatFaults, formatRule, parseFaults } from '../phy/fault-spec.ts'
import { type FaultPort, withFaults } from '../phy/faults.ts'
import { createMemorySwitch, memorySwitchBytes } from '../phy/memory.ts'
import type { Port } from '../phy/port.ts'
import { addTap, forEachPacket } from '../phy/tap.ts'
import { createUdpPort } from '../phy/udp.ts'
import { ROCE_UDP_PORT } from '../spec/headers.ts'
import { createPcapng } from '../trace/pcapng.ts'
import type { DaemonConfig, DeviceSpec, Link } from '../uapi/tool.ts'
import { addressText, parseAddress } from '../wire/address.ts'
import { useCrcEngine } from '../wire/crc.ts'
import { identityOf } from './device-spec.ts'

export interface Network {
  /** A port for one more device. Over UDP its address is taken now. Throws an Error with a sentence. */
  attach(device: DeviceSpec): FaultPort
  /** The rules of faults that hold now, as text; what each has done on all devices; others from now on. */
  readonly faults: string
  /** What they did to the packets of a device since the start. */
  faultsOf(device: string): FaultCounters | undefined
  faultCounts(): ({ readonly rule: string } & RuleCounts)[]
  /** Throws an Error with a sentence for a text that is no list of rules, or names a device that is not there. */
  setFaults(text: string): void
  /**
   * Writes every packet that a device sends to a file, as pcapng, from now until the function returned is called or a
   * write fails. Closing the file is the caller's. Throws what the system says if nothing can be written at all.
   */
  capture(fd: number): () => void
}

type Links = (device: DeviceSpec) => Port

const memoryLink = (): Links => {
  const arena = mapArena(memorySwitchBytes())
  // Memory loses no bits: ICRCs are made and checked once somebody looks at packets or damages them (taps and faults
  // ask for it).
  const link = createMemorySwitch({ arena, sealing: 'demand' })
  return () => link.attach()
}

/** What a device that cannot have its address is told. */
const explain = (error: unknown, { name, address }: DeviceSpec, link: Link): unknown => {
  if (!(error instanceof SystemError)) return error
  const device = `device ${name}@${address}`
  if (error.errno === EADDRINUSE)
    return new Error(
      `${device}: UDP port ${ROCE_UDP_PORT} of ${address} is in use by another program (a second userdma daemon?); stop it, or give another address with --device`,
    )
  if (error.errno !== EADDRNOTAVAIL) return new Error(`${device}: ${error.message}`)
  const own = Object.entries(networkInterfaces()).flatMap(([on, all = []]) => all.map(a => `${a.address} (${on})`))
  return new Error(
    `${device}: this machine does not have the address ${address}, which --link ${link} needs; it has ${own.join(', ')}`,
  )
}

/** An interface that does not say how long its packets may be. */
const USUAL_MTU = 1500

/** A port of node:dgram; it says whom it refuses. */
const dgramPort = ({ name }: DeviceSpec, mtu: number, interfaceName: string): Port =>
  createDgramPort({
    mtu,
    interfaceName,
    makeArena: mapArena,
    onForeign: address =>
      console.error(
        `userdma daemon: ${name} refuses packets from ${addressText(address)}: they are those of another kind of port, and --link dgram speaks to --link dgram only; use --link udp`,
      ),
  })

/** Ports on sockets, of each kind of link that uses them. */
const socketLink =
  (link: Exclude<Link, 'memory'>, interfaces: Interfaces | undefined): Links =>
  device => {
    const { interfaceName, interfaceIndex } = identityOf(device, interfaces)
    const mtu = interfaceMtu(interfaceName) ?? USUAL_MTU
    const port =
      link === 'dgram'
        ? dgramPort(device, mtu, interfaceName)
        : createUdpPort({ mtu, interfaceIndex, cut: link === 'udp' ? 'auto' : 'never' })
    try {
      port.addAddress(parseAddress(device.address) as Uint8Array)
    } catch (error) {
      port.close()
      throw explain(error, device, link)
    }
    return port
  }

/** The rules of a text. Throws an Error with a sentence if it is none, or names a device that is not there. */
export const faultRules = (text: string, devices: readonly DeviceSpec[]): FaultRule[] => {
  const rules = parseFaults(text)
  for (const { device } of rules)
    if (device !== '' && !devices.some(({ name }) => name === device))
      throw new Error(`fault device: there is no "${device}"; there are ${devices.map(({ name }) => name).join(', ')}`)
  return rules
}

/** `interfaces`: those of this system, if they are known. */
export const createNetwork = ({ devices, fault, link }: DaemonConfig, interfaces?: Interfaces): Network => {
  const crc = loadNativeCrc()
  if (crc) useCrcEngine(crc, mapArena(1024))
  const attach = link === 'memory' ? memoryLink() : socketLink(link, interfaces)
  let rules = faultRules(fault, devices)
  const ports: { readonly name: string; readonly port: FaultPort }[] = []

  return {
    attach(device) {
      const port = withFaults(attach(device), device.name, rules)
      ports.push({ name: device.name, port })
      return port
    },
    get faults() {
      return formatFaults(rules)
    },
    faultsOf: device => ports.find(({ name }) => name === device)?.port.faults,
    faultCounts() {
      const counts = ports.map(({ port }) => port.ruleCounts())
      const sum = (rule: number, name: keyof RuleCounts): number =>
        counts.reduce((total, ofPort) => total + ofPort[rule][name], 0)
      return rules.map((rule, i) => ({
        rule: formatRule(rule),
        matched: sum(i, 'matched'),
        dropped: sum(i, 'dropped'),
        duplicated: sum(i, 'duplicated'),
        reordered: sum(i, 'reordered'),
        corrupted: sum(i, 'corrupted'),
      }))
    },
    setFaults(text) {
      rules = faultRules(text, devices)
      for (const { port } of ports) port.setFaults(rules)
    },
    capture(fd) {
      const write = createPcapng(
        bytes => {
          for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
        },
        { interfaces: ports.map(({ name }) => name) },
      )
      const stop = (): void => {
        for (const remove of removers) remove()
      }
      const removers = ports.map(({ port }, index) =>
        addTap(port, run => {
          // What one device sends another one receives: each packet is written once.
          if (run.direction !== 'sent') return
          const time = performance.timeOrigin * 1000 + nowMicroseconds()
          try {
            forEachPacket(run, (offset, length, identification) =>
              write({
                interface: index,
                time,
                flow: run.flow,
                identification,
                payload: run.arena.bytes.subarray(offset, offset + length),
              }),
            )
          } catch (error) {
            // A full disk is the capture's end, not that of the packets.
            console.error('userdma daemon: a packet capture has ended early:', String(error))
            stop()
          }
        }),
      )
      return stop
    },
  }
}
