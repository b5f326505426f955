/*
 * Shared by the phy tests: addresses, flows, a port on a memory link, runs with recognizable packets, and received
 * packets.
 */

import { createMemorySwitch, type MemorySwitch, memorySwitchBytes } from '../../src/phy/memory.ts'
import { emptyRun, type FlowAddress, type Port } from '../../src/phy/port.ts'
import { plainArena } from '../../src/wire/arena.ts'
import { putBth } from '../../src/wire/bth.ts'

/** ::ffff:10.0.0.n */
export const ipv4 = (n: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, n)
/** fd00::n */
export const ipv6 = (n: number): Uint8Array => Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n)

export const flowBetween = (
  source: Uint8Array,
  destination: Uint8Array,
  more: Partial<FlowAddress> = {},
): FlowAddress => ({
  source,
  destination,
  sourcePort: 4791,
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
  ...more,
})

export const smallSwitch = (runs = 8, smallRuns = 16, sealing: 'always' | 'demand' = 'always'): MemorySwitch =>
  createMemorySwitch({ arena: plainArena(memorySwitchBytes(runs, smallRuns)), runs, smallRuns, sealing })

/** Ports with the addresses 10.0.0.1, 10.0.0.2, … */
export const ports = (link: MemorySwitch, count: number): Port[] =>
  Array.from({ length: count }, (_, i) => {
    const port = link.attach()
    port.addAddress(ipv4(i + 1))
    return port
  })

const RC_SEND_ONLY = 4

/** Sends SEND_ONLYs numbered by PSN from `psn` on as one run; false if the port had no room. */
export const sendRun = (
  port: Port,
  flow: number,
  psn: number,
  count: number,
  bytes = 64,
  lastBytes = bytes,
): boolean => {
  const total = (count - 1) * bytes + lastBytes
  const at = port.reserve(total)
  if (at < 0) return false
  port.arena.bytes.fill(psn & 0xff, at, at + total)
  for (let i = 0; i < count; i++) putBth(port.arena.view, at + i * bytes, RC_SEND_ONLY, 0, 0xffff, 0x11, psn + i)
  port.commit(at, bytes, count, lastBytes, flow)
  port.flush()
  return true
}

export interface ReceivedPacket {
  psn: number
  length: number
  peer: number
  identification: number
  bytes: Uint8Array
}

/** Receives and releases everything that waits at a port, packet by packet; `run` is the last record. */
export const receiveAll = (port: Port, run = emptyRun()): ReceivedPacket[] => {
  const got: ReceivedPacket[] = []
  while (port.receive(run)) {
    for (let i = 0; i < run.count; i++) {
      const at = run.offset + i * run.packetBytes
      const length = i === run.count - 1 ? run.lastBytes : run.packetBytes
      got.push({
        psn: port.arena.view.getUint32(at + 8) & 0xffffff,
        length,
        peer: run.peer,
        identification: run.identification + i,
        bytes: port.arena.bytes.slice(at, at + length),
      })
    }
    port.release()
  }
  return got
}

export const psns = (got: readonly ReceivedPacket[]): number[] => got.map(g => g.psn)

/** Receives until `count` packets have arrived, and everything that waits then; fails if they do not arrive. */
export const collect = async (port: Port, count: number, run = emptyRun()): Promise<ReceivedPacket[]> => {
  const deadline = Date.now() + 5000
  const got: ReceivedPacket[] = []
  for (;;) {
    got.push(...receiveAll(port, run))
    if (got.length >= count) return got
    if (Date.now() > deadline)
      throw new Error(`${got.length} of ${count} packets arrived: ${JSON.stringify(port.counters)}`)
    await new Promise(setImmediate)
  }
}
