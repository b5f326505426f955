/*
 * The GRH of a received datagram (IBA 11.4.1.2; annex A17), 40 bytes: the IPv6 header of the packet, or 20 zero bytes
 * and the IPv4 header, as on Linux. On InfiniBand and RoCE v1 it is that of the packet; without one the 40 bytes are
 * zeros. Sockets deliver only UDP payloads, so the header is built from the port's record of the run, in the port's
 * scratch memory, where the engine copies the datagram's payload behind it.
 */

import { MAX_MTU_BYTES } from '../../../spec/mtu.ts'
import { DatagramPath, type GrhBuilder } from '../../../transport/engine/types.ts'
import { type FlowAddress, noAddress, type Port, type ReceivedRun, SCRATCH_BYTES } from '../../../transport/phy/port.ts'
import { isMappedIpv4, lidOf } from '../../../transport/wire/address.ts'
import { GRH_BYTES, IPV4_BYTES, IPV6_BYTES, putIpv4, putIpv6, UDP_BYTES } from '../../../transport/wire/ip.ts'
import { putGrh } from '../../../transport/wire/lrh.ts'

/** As Linux sends RoCEv2 packets. */
const DONT_FRAGMENT = true
/** The service level of a completion, as RoCEv2 adapters set it: bit 3: UDP; low bits: 0: RoCE v1, 1: IPv6, 2: IPv4. */
const SL_IPV4 = 0xa
const SL_IPV6 = 0x9
const { HAS_GRH, LID_SHIFT } = DatagramPath

/** `run`: the record that the device fills for each received run. */
export type GrhBuilderOf = (port: Port, run: ReceivedRun) => GrhBuilder

const scratchOf = ({ scratch }: Port): number => {
  if (SCRATCH_BYTES < GRH_BYTES + MAX_MTU_BYTES)
    throw new Error(`the scratch memory of ports is too small for a GRH and ${MAX_MTU_BYTES} bytes`)
  return scratch
}

export const infinibandGrh: GrhBuilderOf = (port, run) => {
  const scratch = scratchOf(port)
  let last: FlowAddress = noAddress
  return {
    path: 0,
    header({ bytes }, _at, length) {
      const flow = run.flowAddress
      if (flow !== last) {
        const { source, sl = 0, grh } = flow
        this.path = (lidOf(source) << LID_SHIFT) | (grh === undefined ? 0 : HAS_GRH) | sl
        last = flow
      }
      if (flow.grh === undefined) bytes.fill(0, scratch, scratch + GRH_BYTES)
      else putGrh(bytes, scratch, flow, length)
      return scratch
    },
  }
}

export const roceGrh: GrhBuilderOf = (port, run) => {
  const scratch = scratchOf(port)
  return {
    path: 0,
    header(arena, at, length) {
      const { source, destination, trafficClass, hopLimit, flowLabel, grh } = run.flowAddress
      const { view } = arena
      if (grh !== undefined) {
        this.path = HAS_GRH
        putGrh(arena.bytes, scratch, run.flowAddress, length)
        return scratch
      }
      const udpLength = UDP_BYTES + length
      const isIpv4 = isMappedIpv4(source)
      this.path = (isIpv4 ? SL_IPV4 : SL_IPV6) | HAS_GRH
      if (!isIpv4) {
        putIpv6(view, scratch, udpLength, flowLabel, trafficClass, hopLimit, source, destination)
        return scratch
      }
      // Exact while identifications count up within a run (`Port.requireSeal`), otherwise an estimate.
      const identification = (run.identification + (at - run.offset) / run.packetBytes) & 0xffff
      const ip = scratch + IPV6_BYTES - IPV4_BYTES
      arena.bytes.fill(0, scratch, ip)
      putIpv4(
        view,
        ip,
        IPV4_BYTES + udpLength,
        identification,
        DONT_FRAGMENT,
        trafficClass,
        hopLimit,
        source,
        destination,
      )
      return scratch
    },
  }
}
