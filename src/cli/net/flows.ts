/*
 * Which way the packets of queue pairs take in a net with routers: each node's kernel says which next hop it chooses of
 * equal ones for their five-tuple (`ip route get`). Only of packets that have UDP datagrams, and of connected queue
 * pairs: the others send to any peer.
 */
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import type { QpStat } from '../../uapi/tool.ts'
import { hasDaemon, type Plan, type PlannedInterface } from './plan.ts'
import type { NetFolder } from './state.ts'
import type { NetSystem } from './system.ts'

/** A connected queue pair, and the way of its packets. */
interface NetFlow {
  readonly host: string
  readonly device: string
  readonly qpn: number
  readonly address: string
  readonly sourcePort: number
  readonly peer: { readonly host: string; readonly qpn: number; readonly address: string }
  /** As of `QpStat`. */
  readonly retries: number
  /** The routers; the last one has no route if `isCut`. */
  readonly through: readonly string[]
  readonly isCut: boolean
}

/** Where packets of a flow are: the node, and the interface by which they have come. */
interface Step {
  readonly flow: NetFlow & { through: string[]; isCut: boolean }
  readonly node: string
  readonly from: string | undefined
}

/** A TTL of 64 ends there. */
const MAX_ROUTERS = 64

const lineOf = ({ flow: { address, peer, sourcePort }, from }: Step): string =>
  `route get ${peer.address} from ${address}${from === undefined ? '' : ` iif ${from}`} ipproto udp sport ${sourcePort} dport ${ROCE_UDP_PORT}`

/** By step: the address of the next hop; undefined: there is no route. */
const nextHops = (system: NetSystem, node: string, steps: readonly Step[]): (string | undefined)[] => {
  const read = (text: string): (string | undefined)[] =>
    text
      .split('\n')
      .filter(Boolean)
      .map(line => {
        const [{ gateway, dst, type } = {}] = JSON.parse(line) as { gateway?: string; dst?: string; type?: string }[]
        return type === 'unreachable' ? undefined : (gateway ?? dst)
      })
  try {
    return read(system.lines(node, steps.map(lineOf)))
  } catch (error) {
    // One of several has no route.
    if (steps.length > 1) return steps.flatMap(step => nextHops(system, node, [step]))
    if (!/unreachable|No route/.test((error as Error).message)) throw error
    return [undefined]
  }
}

/** The owners of addresses. */
const placesOf = ({ hosts }: Plan): ReadonlyMap<string, { readonly node: string; readonly at: PlannedInterface }> =>
  new Map(hosts.flatMap(({ name, interfaces }) => interfaces.map(at => [at.address, { node: name, at }] as const)))

/** The connected queue pairs of all hosts whose peers are behind routers. Throws an Error. */
export const netFlows = async (folder: NetFolder, system: NetSystem, plan: Plan): Promise<readonly NetFlow[]> => {
  const places = placesOf(plan)
  const routers = new Set(plan.hosts.flatMap(({ name, forwards }) => (forwards ? name : [])))
  if (routers.size === 0) return []
  const steps: Step[] = []
  for (const { name, driver, interfaces } of plan.hosts) {
    if (!hasDaemon({ driver })) continue
    for (const qp of await qpsOf(folder.socket(name))) {
      const { device, qpn, peer, retries = 0 } = qp
      const own = interfaces.find(one => one.device === device)
      const host = peer && places.get(peer.address)?.node
      if (own === undefined || host === undefined || !peer?.sourcePort) continue
      const { sourcePort, address, qpn: peerQpn } = peer
      const flow = { host: name, device, qpn, address: own.address, sourcePort, retries, through: [], isCut: false }
      steps.push({ flow: { ...flow, peer: { host, qpn: peerQpn, address } }, node: name, from: undefined })
    }
  }
  const flows = steps.map(({ flow }) => flow)
  for (let open: readonly Step[] = steps, hops = 0; open.length > 0 && hops <= MAX_ROUTERS; hops++) {
    const nodes = [...new Set(open.map(({ node }) => node))]
    open = nodes.flatMap(node => {
      const here = open.filter(step => step.node === node)
      return nextHops(system, node, here).flatMap((hop, i): Step[] => {
        const { flow } = here[i]!
        const next = hop === undefined ? undefined : places.get(hop)
        if (next === undefined) flow.isCut = true
        if (next === undefined || !routers.has(next.node)) return []
        flow.through.push(next.node)
        return [{ flow, node: next.node, from: next.at.name }]
      })
    })
  }
  return flows.filter(({ through, isCut }) => through.length > 0 || isCut)
}

/** None of a daemon that has ended. */
const qpsOf = async (socket: string): Promise<readonly QpStat[]> => {
  const session = await openToolSession(socket).catch(() => undefined)
  try {
    return (await session?.qps()) ?? []
  } finally {
    session?.close()
  }
}

/** Lines for people: `left rxe0 QP 0x11 → right QP 0x12, UDP port 49301: leaf1 spine2 leaf2`. */
export const flowsText = (flows: readonly NetFlow[]): string =>
  flows
    .map(({ host, device, qpn, peer, sourcePort, retries, through, isCut }) => {
      const name = `${host} ${device} QP 0x${qpn.toString(16)} → ${peer.host} QP 0x${peer.qpn.toString(16)}`
      const again = retries === 0 ? '' : `, ${retries} ${retries === 1 ? 'retry' : 'retries'}`
      return `${name}, UDP port ${sourcePort}${again}: ${through.join(' ')}${isCut ? ' – no route further on' : ''}\n`
    })
    .join('')
