/*
 * Traffic classes of connected queue pairs: the two directions of a connection, and connections between two addresses,
 * whose packets have different DSCP. Told once for two addresses: it is legal, and may be intended.
 */
import { transportBits } from '../../../spec/wire/opcodes.ts'
import type { Flow } from '../flows/flow.ts'
import { frameList, type ProblemList } from './list.ts'

/** Pairs of addresses that are looked at. */
const MAX_PAIRS = 65_536

export const addOfClasses = (problems: ProblemList): void => {
  const { analysis } = problems
  /** By both addresses: the first flow. */
  const first = new Map<string, Flow>()
  const told = new Set<string>()
  const tell = (flow: Flow, other: Flow, what: string): void => {
    told.add(keyOf(flow)).add(keyOf({ source: flow.destination, destination: flow.source }))
    problems.add(
      'class-differs',
      `DSCP ${flow.dscp}, and ${other.dscp} ${what}`,
      frameList(flow.firstFrame, other.firstFrame),
      flow.packets + other.packets,
      { flow },
    )
  }
  // Both directions of one connection come first: they are what counts.
  for (const flow of analysis.flows) {
    const { peer } = flow
    if (peer === undefined || peer.number < flow.number || told.has(keyOf(flow)) || !isOfClass(flow)) continue
    if (isOfClass(peer) && flow.dscp !== peer.dscp) tell(flow, peer, 'in the other direction')
  }
  for (const flow of analysis.flows) {
    const key = keyOf(flow)
    if (told.has(key) || !isOfClass(flow)) continue
    const known = first.get(key)
    if (known === undefined) {
      if (first.size < MAX_PAIRS) first.set(key, flow)
    } else if (known.dscp !== flow.dscp)
      tell(flow, known, `from the same host to QP 0x${known.qpn.toString(16)} of the other`)
  }
}

const keyOf = ({ source, destination }: Pick<Flow, 'source' | 'destination'>): string => `${source} ${destination}`

/** Whether the DSCP is that of a connected queue pair on RoCE: CNPs have one of their own. */
const isOfClass = ({ service, firstFrame, firstCnpFrame, packets, isRoceV1, hopLimit }: Flow): boolean =>
  packets > 0 && service !== transportBits.UD && firstFrame !== firstCnpFrame && (isRoceV1 || hopLimit > 0)
