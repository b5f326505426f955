/*
 * A daemon whose InfiniBand ports are cabled to the switches of another daemon (`--fabric socket=PATH`), or that has
 * these switches (`--fabric …,serve=PATH`). What that needs is loaded only then.
 */
import type { NetworkLink } from '../../assembly/link.ts'
import { type Clients, importSubnet } from '../../services/clients.ts'
import { parseFabric } from '../../settings/fabric.ts'
import type { Containment } from '../containment.ts'
import type { Loop } from '../loop.ts'

interface FabricParts {
  readonly link: Pick<NetworkLink, 'attachTrunk'>
  readonly loop: Pick<Loop, 'kick' | 'add' | 'remove'>
  readonly containment: Pick<Containment, 'guard'>
  readonly log: (line: string) => void
}

/** Milliseconds for which a daemon that starts waits for the manager of its ports. */
const MAX_WAIT = 10_000

/** Waits for the manager that the daemon itself has. */
export const untilConfigured = async (clients: Pick<Clients, 'configured'>): Promise<void> => {
  const configured = clients.configured()
  if (configured === undefined) return
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<void>(resolve => {
    timer = setTimeout(resolve, MAX_WAIT)
  })
  await Promise.race([configured, limit])
  clearTimeout(timer)
}

/** Closes what was opened. */
type Close = () => void

export const loadFabric = async (text: string | undefined) => {
  const { socket, serve, manager } = text === undefined ? {} : parseFabric(text)
  const remote =
    socket === undefined ? undefined : (await import('../../assembly/fabric/remote-subnet.ts')).RemoteSubnet
  const served = serve === undefined ? undefined : (await import('../../assembly/fabric/served-ports.ts')).ServedPorts
  const code = served && (await importSubnet())
  const partsOf = ({ link, loop, containment, log }: FabricParts) => ({
    attach: () => link.attachTrunk(),
    kick: () => loop.kick(),
    guard: containment.guard,
    log,
  })
  return {
    /** The subnet of another daemon; undefined: this one has it. */
    remote(parts: FabricParts) {
      if (remote === undefined) return undefined
      const subnet = new remote(socket!, partsOf(parts))
      return { subnet, settled: () => subnet.settled(MAX_WAIT) }
    },
    /** Serves ports of other daemons, if this one is to. Throws SystemError if another process serves them. */
    serve(parts: FabricParts, clients: Pick<Clients, 'subnet' | 'subnetCode'>): Close {
      if (served === undefined || code === undefined) return () => {}
      clients.subnetCode = code
      const { loop } = parts
      const ports = new served(serve!, {
        ...partsOf(parts),
        cable: port => clients.subnet.attach(port),
        manager: manager ?? 'none',
      })
      loop.add(ports)
      return () => {
        loop.remove(ports)
        ports.close()
      }
    },
  }
}
export type LoadedFabric = Awaited<ReturnType<typeof loadFabric>>
