/*
 * Links and routers of a net that go down and return: their interfaces, and the routes of all nodes, which are made
 * anew at once. Several outages may have the same interface, which is up again when none has it.
 */
import type { WalkOutages } from '../walk/points.ts'
import { addressLine, untilUp } from './build.ts'
import type { Plan, PlannedInterface, PlannedLink } from './plan.ts'
import { networkOf, type Routes, routesOf } from './routes.ts'
import type { NetSystem } from './system.ts'

/** Links of routers to others and to switches, each once. */
export const routerLinks = ({ hosts }: Pick<Plan, 'hosts'>): [string, string][] => {
  const isHost = new Set(hosts.flatMap(({ name, forwards }) => (forwards ? [] : name)))
  const links = hosts.flatMap(({ name, forwards, interfaces }) =>
    forwards ? interfaces.flatMap(({ peer }) => (isHost.has(peer) ? [] : [[name, peer].sort().join(' ')])) : [],
  )
  return [...new Set(links)].map(pair => pair.split(' ') as [string, string])
}

/** What may go down of a net for a walk; undefined: it has no routers. */
export const walkOutages = (plan: Plan): WalkOutages | undefined => {
  const routers = plan.hosts.filter(({ forwards }) => forwards).map(({ name }) => name)
  if (routers.length === 0) return undefined
  const hosts = plan.hosts.filter(({ forwards }) => !forwards)
  const ofHosts = new Set(hosts.flatMap(({ interfaces }) => interfaces.map(networkOf)))
  /** Whether each host has a route to all networks with hosts without the links of a node, or those to another. */
  const hasOtherWays = (node: string, other?: string): boolean => {
    const routes = routesOf(plan, (name, { peer }) =>
      other === undefined
        ? name === node || peer === node
        : (name === node && peer === other) || (name === other && peer === node),
    )
    return hosts.every(({ name }) =>
      [...(routes.get(name) ?? [])].every(
        ([network, line]) => !ofHosts.has(network) || !line.includes(' unreachable '),
      ),
    )
  }
  return {
    routers: routers.map(name => ({
      rule: `router=${name}`,
      name: `the router ${name}`,
      hasOtherWays: hasOtherWays(name),
    })),
    paths: routerLinks(plan).map(([a, b]) => ({
      rule: `cable=${a}:${b}`,
      name: `the link between ${a} and ${b}`,
      hasOtherWays: hasOtherWays(a, b),
    })),
  }
}

/** An interface of a node. */
interface End {
  readonly node: string
  readonly at: PlannedInterface
}

export class NetOutages {
  readonly #system: NetSystem
  readonly #plan: Plan
  readonly #outages = new Set<readonly End[]>()
  #routes: Routes

  constructor(system: NetSystem, plan: Plan) {
    this.#system = system
    this.#plan = plan
    this.#routes = routesOf(plan)
  }

  /** Takes the links between two nodes, or all of a router, down. Returns what ends this. */
  takeDown(node: string, other?: string): () => Promise<void> {
    const outage = this.#plan.hosts.flatMap(({ name, interfaces }) =>
      interfaces.flatMap(at => {
        const isMeant = name === node ? other === undefined || at.peer === other : name === other && at.peer === node
        return isMeant ? [{ node: name, at }] : []
      }),
    )
    const down = outage.filter(end => !this.#isDown(end))
    this.#outages.add(outage)
    for (const { node: of, at } of down) this.#system.batch('ip', of, [`link set ${at.name} down`])
    this.#reroute(down)
    return () => this.#end(outage)
  }

  /** Ends all outages. */
  async endAll(): Promise<void> {
    for (const outage of this.#outages) await this.#end(outage)
  }

  async #end(outage: readonly End[]): Promise<void> {
    if (!this.#outages.delete(outage)) return
    const up = outage.filter(end => !this.#isDown(end))
    for (const { node, at } of up) {
      const network = networkOf(at)
      this.#system.batch('ip', node, [
        // The way round, which the interface's own route does not replace.
        ...(this.#routes.get(node)?.has(network) ? [`route delete ${network} proto static`] : []),
        `link set ${at.name} up`,
        // An IPv6 address has gone with the interface.
        addressLine(at).replace('address add', 'address replace'),
      ])
    }
    // Linux may take a second until a link carries packets again.
    for (const { node, at } of up)
      for (const end of this.#endsOf(node, at.name)) await untilUp(this.#system, end.node, [end.interface])
    this.#reroute(up)
  }

  /** The ends of the link of an interface; none if one of them is down. */
  #endsOf(node: string, name: string): PlannedLink['ends'] | readonly [] {
    const ends = this.#plan.links.find(link => link.ends.some(end => end.node === node && end.interface === name))?.ends
    const isDown = ends?.some(end => this.#isDown({ node: end.node, at: { name: end.interface } }))
    return ends === undefined || isDown ? [] : ends
  }

  #isDown({ node, at }: { readonly node: string; readonly at: { readonly name: string } }): boolean {
    return [...this.#outages].some(ends => ends.some(end => end.node === node && end.at.name === at.name))
  }

  /** `changed`: with an interface that goes down the kernel removes routes of its node. */
  #reroute(changed: readonly End[]): void {
    const routes = routesOf(this.#plan, (node, at) => this.#isDown({ node, at }))
    for (const [node, own] of routes) {
      const lines = [...own.values()]
      const before = [...(this.#routes.get(node)?.values() ?? [])]
      if (changed.some(end => end.node === node) || lines.join() !== before.join())
        this.#system.batch('ip', node, lines)
    }
    this.#routes = routes
  }
}
