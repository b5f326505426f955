/*
 * Links of a network in virtual time: packets arrive when the clock says so. Counts are those of the links, with the
 * names of their ends.
 */

import type { Clock, Timer } from '../../../host/event-loop/clock.ts'
import type { ClassCounts } from '../../../transport/phy/links/class-queues.ts'
import { type LinkTopology, namesOf } from '../../../transport/phy/links/graph.ts'
import type { Links } from '../../../transport/phy/links/links.ts'
import { createPacketCarrier, type PacketCarrier } from '../../../transport/phy/links/packet-carrier.ts'
import { addressText } from '../../../transport/wire/address.ts'
import type { ClassStats, FlowStats, LinkStats, RouterStats } from '../contract.ts'

/** `due`: called when packets are due, to have `PacketCarrier.poll` called. */
export const createClockedLinks = (
  topology: LinkTopology,
  seed: number,
  clock: Clock,
  due: () => void,
): PacketCarrier => {
  let timer: Timer | undefined
  const carrier = createPacketCarrier({
    topology,
    seed,
    now: clock.now,
    changed() {
      clock.clear(timer)
      const next = carrier.links.nextAt()
      timer = next === Number.POSITIVE_INFINITY ? undefined : clock.at(next, 'device', due)
    },
  })
  return carrier
}

/** The counts since time 0, of each direction of each link. `now`: µs. */
export const linkStats = (topology: LinkTopology, links: Links, now: number): LinkStats[] => {
  const names = namesOf(topology)
  return links.stats(now).map((stats, direction) => {
    const { ends, rate } = topology.links[direction >> 1]!
    const { packets, bytes, marked, overflowed, lost, tooLong, cut, maxQueue, meanQueue, classes } = stats
    const queue = links.queueOf(direction, now)
    return {
      from: names[ends[direction & 1]!]!,
      to: names[ends[1 - (direction & 1)]!]!,
      packets,
      bytes,
      marked,
      lost: { overflow: overflowed, chance: lost, mtu: tooLong, down: cut },
      queue: { now: queue, max: maxQueue, mean: meanQueue },
      utilization: now > 0 ? ((bytes - queue) * 8e6) / rate / now : 0,
      classes: classes.map(classStats),
    }
  })
}

const classStats = (counts: ClassCounts): ClassStats => ({
  name: counts.name,
  lossless: counts.isLossless,
  packets: counts.packets,
  bytes: counts.bytes,
  marked: counts.marked,
  lost: { overflow: counts.overflowed, buffer: counts.noRoom },
  queue: { now: counts.queue, max: counts.maxQueue },
  held: { now: counts.held, max: counts.maxHeld },
  pauses: {
    sent: counts.pausesSent,
    received: counts.pauses,
    isPaused: counts.isPaused,
    time: counts.pausedTime / 1000,
  },
})

/** `isUp`: by name. */
export const routerStats = (topology: LinkTopology, links: Links, isUp: (name: string) => boolean): RouterStats[] => {
  const first = topology.hosts + topology.switches
  const names = namesOf(topology)
  return links
    .nodeStats()
    .slice(first)
    .map(({ forwarded, expired, unroutable, pathless }, i) => {
      const name = names[first + i]!
      return { name, isUp: isUp(name), forwarded, lost: { ttl: expired, scope: unroutable, route: pathless } }
    })
}

export const flowStats = (topology: LinkTopology, carrier: PacketCarrier): FlowStats[] => {
  const names = namesOf(topology)
  return carrier.flows().map(({ from, to, source, destination, sourcePort, dscp, paths }) => ({
    from: names[from]!,
    to: names[to]!,
    source: addressText(source),
    destination: addressText(destination),
    sourcePort,
    dscp,
    paths: paths.map(({ lost, ...path }) => ({ ...path, lost: lost.map(place => ({ ...place })) })),
  }))
}
