/*
 * Addresses, flows, memory links, and functions that send and receive runs.
 */

import type { UdpBatches } from '../../../src/host/net/udp.ts'
import { DEFAULT_PKEY, ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { createMemorySwitch, type MemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { emptyRun, type FlowAddress, type Port } from '../../../src/transport/phy/port.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { bthPsn, putBth } from '../../../src/transport/wire/bth.ts'
import { until } from '../../limits.ts'

/** ::ffff:10.0.0.n */
export const ipv4 = (n: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, n)
/** fd00::n */
export const ipv6 = (n: number): Uint8Array => Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n)

export const flowBetween = (
  source: Uint8Array,
  destination: Uint8Array,
  fields: Partial<FlowAddress> = {},
): FlowAddress => ({
  source,
  destination,
  sourcePort: ROCE_UDP_PORT,
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
  ...fields,
})

/** An arena for fakes of `UdpBatches`, without the properties that system calls need. */
export const batchArena = (bytes: number): UdpBatches['arena'] => ({
  ...plainArena(bytes),
  length: bytes,
  buffer: new ArrayBuffer(0),
  i32: new Int32Array(0),
  u32: new Uint32Array(0),
})

export const smallSwitch = (runs = 8, smallRuns = 16, icrc: 'always' | 'demand' = 'always'): MemorySwitch =>
  createMemorySwitch({ arena: plainArena(memorySwitchBytes(runs, smallRuns)), runs, smallRuns, icrc })

/** Attaches ports with the addresses 10.0.0.1, 10.0.0.2, … to a link. */
export const attachPorts = (link: MemorySwitch, count: number): Port[] =>
  Array.from({ length: count }, (_, i) => {
    const port = link.attach()
    port.addAddress(ipv4(i + 1))
    return port
  })

/** Writes the BTH of an RC SEND_ONLY. */
export const putSendOnly = (view: DataView, at: number, psn: number): void => {
  putBth(view, at, opcodeNumber.RC_SEND_ONLY, 0, DEFAULT_PKEY, 0x11, psn)
}

/** Sends a run of RC SEND_ONLYs with PSNs from `psn`. Returns false if the port has no free buffer. */
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
  for (let i = 0; i < count; i++) putSendOnly(port.arena.view, at + i * bytes, psn + i)
  port.commit(at, bytes, count, lastBytes, flow)
  port.flush()
  return true
}

export interface ReceivedPacket {
  psn: number
  length: number
  peer: number
  identification: number
  trafficClass: number
  bytes: Uint8Array
}

/** Receives and releases all waiting runs. Returns their packets; the last run is in `run`. */
export const receiveAll = (port: Port, run = emptyRun()): ReceivedPacket[] => {
  const packets: ReceivedPacket[] = []
  while (port.receive(run)) {
    for (let i = 0; i < run.count; i++) {
      const at = run.offset + i * run.packetBytes
      const length = i === run.count - 1 ? run.lastBytes : run.packetBytes
      packets.push({
        psn: bthPsn(port.arena.view, at),
        length,
        peer: run.peer,
        identification: run.identification + i,
        trafficClass: run.flowAddress.trafficClass,
        bytes: port.arena.bytes.slice(at, at + length),
      })
    }
    port.release()
  }
  return packets
}

/** 0 to `count` - 1. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)

export const psns = (packets: readonly ReceivedPacket[]): number[] => packets.map(packet => packet.psn)

/** Receives until at least `count` packets have arrived. */
export const collect = async (port: Port, count: number, run = emptyRun()): Promise<ReceivedPacket[]> => {
  const packets: ReceivedPacket[] = []
  const haveArrived = (): boolean => packets.push(...receiveAll(port, run)) >= count
  await until(haveArrived, () => `${packets.length} of ${count} packets arrived: ${JSON.stringify(port.counters)}`)
  return packets
}
