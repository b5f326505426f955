/*
 * One sweep of a subnet: finds all nodes and links by directed routes from the manager's port, and asks what the
 * manager decides on. `done` is called with what was found, once no request is open.
 */
import { MAX_HOPS, PKEY_BLOCK, PortCapability, PortState } from '../../spec/wire/subnet.ts'
import type { Path, SmpRequests } from './requests.ts'
import { type Change, endPort, type FoundNode, type FoundPort, isSwitch, isUp, Subnet } from './subnet.ts'

/** Nodes of a subnet; what is beyond is not found. */
const MAX_NODES = 16_384

interface SweepOptions {
  /** Of the manager's port, whose SMInfo is not asked. */
  readonly ownGuid: bigint
  /** The time of the answer that is handled. */
  readonly now: () => number
  /** The manager has the subnet: switches are told that what they say of changed ports is read. */
  readonly isMaster: boolean
  /**
   * What the sweep before has found, all of which was set. Then of switches without a changed port, and of nodes behind
   * ports that have stayed ACTIVE, nothing more is asked: a link that was away is INIT. Absent: everything is asked.
   */
  readonly known?: Subnet | undefined
  /** GUIDs of adapters' ports of `known` to which somebody has set something since then: they are asked. */
  readonly stale: ReadonlySet<bigint>
  /** By GUID, switches of `known` that may have a changed port: which ones, or none if the switch must be asked. */
  readonly changed: ReadonlyMap<bigint, ReadonlySet<number>>
}

interface LookOptions extends SweepOptions {
  readonly known: Subnet
}

/** The requests of a sweep, whose answers go to `subnet`. `done` is called once no request is open. */
const createSearch = (
  requests: SmpRequests,
  { ownGuid, now, isMaster, stale, changed }: SweepOptions,
  subnet: Subnet,
  done: () => void,
) => {
  let open = 0
  const ask = (request: (end: () => void) => void): void => {
    open++
    request(() => {
      if (--open === 0) done()
    })
  }

  const visit = (path: Path, from: FoundPort | undefined): void =>
    ask(end =>
      requests.get(path, 'NodeInfo', 0, now(), info => {
        if (info === undefined) subnet.hasGaps = true
        else found(path, from, info)
        end()
      }),
    )

  const found = (path: Path, from: FoundPort | undefined, info: FoundNode['info']): void => {
    const known = subnet.nodes.get(info.portGuid)
    if (known !== undefined) {
      join(from, known, info.localPort)
      return
    }
    if (subnet.nodes.size >= MAX_NODES) return
    const node: FoundNode = {
      info,
      path,
      description: new Uint8Array(64),
      switchInfo: undefined,
      ports: new Map(),
      smInfo: undefined,
    }
    subnet.nodes.set(info.portGuid, node)
    ask(end =>
      requests.get(path, 'NodeDescription', 0, now(), answer => {
        if (answer !== undefined) node.description = answer.text
        end()
      }),
    )
    if (!isSwitch(node)) askPort(node, info.localPort, from)
    else askSwitch(node, () => askPorts(node, from))
  }

  const askPorts = (node: FoundNode, from: FoundPort | undefined): void => {
    for (let number = 0; number <= node.info.numPorts; number++)
      askPort(node, number, number === node.info.localPort ? from : undefined)
  }

  /** `then`: gets whether a port has changed since the switch was told that this is read. */
  const askSwitch = (node: FoundNode, then: (hasChanged: boolean) => void): void =>
    ask(end =>
      requests.get(node.path, 'SwitchInfo', 0, now(), answer => {
        node.switchInfo = answer
        subnet.hasGaps ||= answer === undefined
        const hasChanged = answer?.portStateChange !== false || (changed.get(node.info.portGuid)?.size ?? 0) > 0
        // Before the ports are read: what changes later is told again.
        if (answer?.portStateChange === true && isMaster)
          ask(told => requests.set(node.path, 'SwitchInfo', 0, answer, now(), told))
        then(hasChanged)
        end()
      }),
    )

  /**
   * The node of this port of the sweep before, by the way that leads there now; it has the ports that need not be
   * asked. `from`: the other end of the link; undefined: it is the manager's own.
   */
  const keep = ({ node: old, number: inPort }: FoundPort, from: FoundPort | undefined): void => {
    const known = subnet.nodes.get(old.info.portGuid)
    if (known !== undefined) {
      join(from, known, inPort)
      return
    }
    const path = from === undefined ? [] : [...from.node.path, from.number]
    const node: FoundNode = { ...old, info: { ...old.info, localPort: inPort }, path, ports: new Map() }
    subnet.nodes.set(old.info.portGuid, node)
    const keepAll = (hasChanged: boolean): void => {
      for (const port of old.ports.values()) {
        const inbound = port.number === inPort ? from : undefined
        if (hasChanged && port.number > 0) askPort(node, port.number, inbound, port)
        else keepPort(node, port, inbound)
      }
    }
    if (isSwitch(node)) askSwitch(node, keepAll)
    else keepAll(false)
  }

  const keepPort = (node: FoundNode, old: FoundPort, from: FoundPort | undefined): void => {
    const port: FoundPort = { ...old, node, peer: undefined }
    node.ports.set(old.number, port)
    if (from !== undefined) join(from, node, old.number)
    if (!goesOn(port) || old.peer === undefined) return
    if (stale.has(old.peer.node.info.portGuid)) visit([...node.path, port.number], port)
    else keep(old.peer, port)
  }

  /** Whether the sweep goes by this port: a route goes through switches, and begins at the manager's port. */
  const goesOn = (port: FoundPort): boolean => {
    const { node, number, peer } = port
    const mayPass = number > 0 && (isSwitch(node) || node.path.length === 0)
    return mayPass && isUp(port) && peer === undefined && node.path.length < MAX_HOPS
  }

  /** `from`: the other end of the link, if the sweep came by it. `old`: the port as the sweep before has found it. */
  const askPort = (node: FoundNode, number: number, from: FoundPort | undefined, old?: FoundPort): void =>
    ask(end =>
      requests.get(node.path, 'PortInfo', number, now(), info => {
        if (info?.portState === PortState.ACTIVE && old !== undefined && old.info.portState === PortState.ACTIVE)
          keepPort(node, { ...old, info }, from)
        else if (info !== undefined) {
          const port: FoundPort = { node, number, info, pkeys: [], peer: undefined }
          node.ports.set(number, port)
          if (from !== undefined) join(from, node, number)
          const isEnd = endPort(node) === port
          if (isEnd) askEnd(node, port)
          if (goesOn(port)) visit([...node.path, number], port)
        } else subnet.hasGaps = true
        end()
      }),
    )

  const askEnd = (node: FoundNode, port: FoundPort): void => {
    const blocks = Math.ceil(node.info.partitionCap / PKEY_BLOCK)
    const pkeys: number[] = []
    const askBlock = (block: number): void =>
      ask(end =>
        requests.get(node.path, 'P_KeyTable', block, now(), table => {
          pkeys.push(...(table?.pkeys ?? []))
          port.pkeys = pkeys
          // Tables are filled from the front.
          if (table !== undefined && block + 1 < blocks && table.pkeys.some(key => key !== 0)) askBlock(block + 1)
          end()
        }),
      )
    askBlock(0)
    if ((port.info.capabilityMask & PortCapability.IS_SM) !== 0 && node.info.portGuid !== ownGuid)
      ask(end =>
        requests.get(node.path, 'SMInfo', 0, now(), answer => {
          node.smInfo = answer
          end()
        }),
      )
  }

  /** A link between a port and a port of a node that is known; the latter may not have answered yet. */
  const join = (from: FoundPort | undefined, node: FoundNode, number: number): void => {
    const port = node.ports.get(number)
    if (from === undefined || port === undefined || from === port) return
    from.peer = port
    port.peer = from
  }

  return { ask, visit, askSwitch, keep }
}

export const sweep = (requests: SmpRequests, options: SweepOptions, done: (subnet: Subnet) => void): void => {
  const subnet = new Subnet()
  const { visit, keep } = createSearch(requests, options, subnet, () => done(subnet))
  const own = options.known?.nodes.get(options.ownGuid)
  const ownPort = own && isSwitch(own) ? endPort(own) : undefined
  if (ownPort !== undefined) keep(ownPort, undefined)
  else visit([], undefined)
}

/**
 * A sweep of the switches that may have changed, and of adapters that somebody has set. `done` is called with the
 * adapters that came and went; undefined: more than that has changed, or something has not answered.
 */
export const look = (requests: SmpRequests, options: LookOptions, done: (change: Change | undefined) => void): void => {
  const { known, stale, changed, now } = options
  const switches = [...changed.keys()].flatMap(guid => known.nodes.get(guid) ?? [])
  const found = new Subnet()
  const ports: FoundPort[] = []
  let isMore = false
  const { ask, visit, askSwitch } = createSearch(requests, options, found, () => {
    const added = [...found.nodes.values()]
    const removed = ports.flatMap(({ node, number }) => node.ports.get(number)!.peer?.node ?? [])
    const isOther = (node: FoundNode): boolean => {
      const before = known.nodes.get(node.info.portGuid)
      return isSwitch(node) || node.smInfo !== undefined || (before !== undefined && !removed.includes(before))
    }
    const hasGap = found.hasGaps || ports.some(port => isUp(port) && port.peer === undefined)
    done(isMore || hasGap || removed.some(isSwitch) || added.some(isOther) ? undefined : { ports, added, removed })
  })

  const askPeer = (old: FoundPort, info: FoundPort['info']): void => {
    const port = { ...old, info, peer: undefined }
    ports.push(port)
    if (isUp(port)) visit([...old.node.path, old.number], port)
  }

  const askPort = (old: FoundPort): void =>
    ask(end =>
      requests.get(old.node.path, 'PortInfo', old.number, now(), info => {
        const wasUp = isUp(old)
        const { peer } = old
        if (info === undefined) isMore = true
        else if (info.portState === PortState.DOWN || !wasUp) {
          if (info.portState !== PortState.DOWN || wasUp) askPeer(old, info)
        } else if (info.portState !== PortState.ACTIVE || old.info.portState !== PortState.ACTIVE) isMore = true
        else if (peer !== undefined && stale.has(peer.node.info.portGuid)) askPeer(old, info)
        end()
      }),
    )

  // One request is open until all have begun.
  ask(begun => {
    const asked = new Set(switches)
    for (const node of switches)
      askSwitch(node, hasChanged => {
        if (node.switchInfo !== undefined) node.switchInfo = { ...node.switchInfo, portStateChange: false }
        const told = changed.get(node.info.portGuid)!
        for (const port of node.ports.values()) {
          const mayHave = port.number > 0 && hasChanged && (told.size === 0 || told.has(port.number))
          if (mayHave) askPort(port)
          else if (port.peer !== undefined && stale.has(port.peer.node.info.portGuid)) askPeer(port, port.info)
        }
      })
    for (const guid of stale) {
      const peer = known.portOfGuid(guid)?.peer
      if (peer !== undefined && !asked.has(peer.node)) askPeer(peer, peer.info)
    }
    begun()
  })
}
