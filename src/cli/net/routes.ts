/*
 * The routes of a net with routers: each node has one to each segment that is not its own, by all next hops of the
 * paths with the fewest routers. The kernel takes one of them by the hash of the five-tuple (fib_multipath_hash_policy
 * 1).
 */
import { addressText, parseAddress, subnetAddress } from '../../transport/wire/address.ts'
import type { Plan, PlannedHost, PlannedInterface } from './plan.ts'

/** An interface in a segment. */
interface Place {
  readonly node: PlannedHost
  readonly at: PlannedInterface
}

/** NETWORK/PREFIX of an address. */
export const networkOf = ({ address, prefix }: PlannedInterface): string =>
  `${addressText(subnetAddress(parseAddress(address)!, prefix))}/${prefix}`

/** How many routers are between each router and a segment. */
const distancesTo = (segment: string, segments: ReadonlyMap<string, readonly Place[]>): ReadonlyMap<string, number> => {
  const routersIn = (network: string): PlannedHost[] =>
    segments.get(network)!.flatMap(({ node }) => (node.forwards ? node : []))
  const networksOf = (node: PlannedHost): string[] =>
    [...segments].flatMap(([network, places]) => (places.some(place => place.node === node) ? network : []))
  const distances = new Map<string, number>()
  let next = routersIn(segment)
  for (let distance = 0; next.length > 0; distance++) {
    for (const { name } of next) distances.set(name, distance)
    next = [...new Set(next.flatMap(networksOf).flatMap(routersIn))].filter(({ name }) => !distances.has(name))
  }
  return distances
}

/** By node, by segment: the line of `ip` that gives the node its route, in place of the one that it has. */
export type Routes = ReadonlyMap<string, ReadonlyMap<string, string>>

/**
 * The routes of all nodes. `isDown`: interfaces without use, whose own segments are then reached by others. An
 * unreachable segment has a route that says so.
 */
export const routesOf = (
  { hosts }: Pick<Plan, 'hosts'>,
  isDown: (node: string, at: PlannedInterface) => boolean = () => false,
): Routes => {
  const lines = new Map<string, Map<string, string>>()
  if (!hosts.some(({ forwards }) => forwards)) return lines
  const all = new Set(hosts.flatMap(({ interfaces }) => interfaces.map(networkOf)))
  const segments = new Map<string, Place[]>([...all].map(network => [network, []]))
  for (const node of hosts)
    for (const at of node.interfaces) if (!isDown(node.name, at)) segments.get(networkOf(at))!.push({ node, at })
  for (const [segment, places] of segments) {
    const distances = distancesTo(segment, segments)
    for (const node of hosts) {
      const isOwn = node.interfaces.some(at => networkOf(at) === segment)
      // An interface that is up has a route of its own.
      if (isOwn && places.some(place => place.node === node)) continue
      const hops = node.interfaces
        .filter(at => !isDown(node.name, at))
        .flatMap(at =>
          segments.get(networkOf(at))!.flatMap(({ node: router, at: { address } }) => {
            const distance = router === node || !router.forwards ? undefined : distances.get(router.name)
            return distance === undefined ? [] : [{ distance, text: `nexthop via ${address} dev ${at.name}` }]
          }),
        )
      const least = Math.min(...hops.map(({ distance }) => distance))
      const nearest = hops.filter(({ distance }) => distance === least).map(({ text }) => text)
      const own = lines.get(node.name) ?? new Map<string, string>()
      lines.set(node.name, own)
      const route =
        nearest.length === 0 ? `unreachable ${segment} proto static` : `${segment} proto static ${nearest.join(' ')}`
      own.set(segment, `route replace ${route}`)
    }
  }
  return lines
}
