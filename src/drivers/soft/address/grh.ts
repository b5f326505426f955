/*
 * The GRH of a received datagram (IBA 11.4.1.2; annex A17), 40 bytes: the IPv6 header of the packet, or 20 zero bytes
 * and the IPv4 header, as on Linux. Sockets deliver only UDP payloads, so the header is built from the port's record of
 * the run, in the port's scratch memory, where the engine copies the datagram's payload behind it.
 */

import { MAX_MTU_BYTES } from '../../../spec/mtu.ts'
import type { GrhBuilder } from '../../../transport/engine/types.ts'
import { type Port, type ReceivedRun, SCRATCH_BYTES } from '../../../transport/phy/port.ts'
import { isMappedIpv4 } from '../../../transport/wire/address.ts'
import { IPV4_BYTES, IPV6_BYTES, putIpv4, putIpv6, UDP_BYTES } from '../../../transport/wire/ip.ts'

/** As Linux sends RoCEv2 packets. */
const DONT_FRAGMENT = true

/** `run`: the record that the device fills for each received run. */
export const grhBuilder = (port: Port, run: ReceivedRun): GrhBuilder => {
  const { scratch } = port
  if (SCRATCH_BYTES < IPV6_BYTES + MAX_MTU_BYTES)
    throw new Error(`the scratch memory of ports is too small for a GRH and ${MAX_MTU_BYTES} bytes`)
  return {
    header(arena, at, length) {
      const { source, destination, trafficClass, hopLimit, flowLabel } = run.flowAddress
      const { view } = arena
      const udpLength = UDP_BYTES + length
      if (!isMappedIpv4(source)) {
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
