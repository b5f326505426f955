/*
 * One sweep of a subnet: finds all nodes and links by directed routes from the manager's port, and asks what the manager
 * decides on. `done` is called with what was found, once no request is open.
 */
import { MAX_HOPS, PKEY_BLOCK, PortCapability } from '../../spec/wire/subnet.ts'
import type { Path, SmpRequests } from './requests.ts'
import { endPort, type FoundNode, type FoundPort, isSwitch, isUp, Subnet } from './subnet.ts'

/** Nodes of a subnet; what is beyond is not found. */
const MAX_NODES = 16_384

/** `ownGuid`: of the manager's port, whose SMInfo is not asked. `now`: the time of the answer that is handled. */
export const sweep = (
  requests: SmpRequests,
  ownGuid: bigint,
  now: () => number,
  done: (subnet: Subnet) => void,
): void => {
  const subnet = new Subnet()
  let open = 0
  const ask = (request: (end: () => void) => void): void => {
    open++
    request(() => {
      if (--open === 0) done(subnet)
    })
  }

  const visit = (path: Path, from: FoundPort | undefined): void =>
    ask(end =>
      requests.get(path, 'NodeInfo', 0, now(), info => {
        if (info !== undefined) found(path, from, info)
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
    if (isSwitch(node))
      ask(end =>
        requests.get(path, 'SwitchInfo', 0, now(), answer => {
          node.switchInfo = answer
          end()
        }),
      )
    const numbers = isSwitch(node) ? Array.from({ length: info.numPorts + 1 }, (_, i) => i) : [info.localPort]
    for (const number of numbers) askPort(node, number, number === info.localPort ? from : undefined)
  }

  /** `from`: the other end of the link, if the sweep came by it. */
  const askPort = (node: FoundNode, number: number, from: FoundPort | undefined): void =>
    ask(end =>
      requests.get(node.path, 'PortInfo', number, now(), info => {
        if (info !== undefined) {
          const port: FoundPort = { node, number, info, pkeys: [], peer: undefined }
          node.ports.set(number, port)
          if (from !== undefined) join(from, node, number)
          const isEnd = endPort(node) === port
          if (isEnd) askEnd(node, port)
          // A route goes through switches, and begins at the manager's port.
          const mayGoOn = number > 0 && (isSwitch(node) || node.path.length === 0)
          if (mayGoOn && isUp(port) && port.peer === undefined && node.path.length < MAX_HOPS)
            visit([...node.path, number], port)
        }
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

  visit([], undefined)
}
