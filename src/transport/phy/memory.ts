/*
 * The memory link (docs/decisions/memory-link.md): connects the ports of one process. A run is built in a buffer of the
 * shared arena (memory/runs.ts), queued at the port with the destination address (memory/routes.ts), read there and
 * released. It is not copied.
 *
 * Packets are the same as those of the UDP port: IPv6, or IPv4 with DF and identification 0, 1, 2 … within a run, and
 * an ICRC. Sealing a run means writing its ICRCs. With the option `icrc` 'demand', runs are sealed and checked only
 * while a tap or a layer needs ICRCs.
 */
import type { Arena } from '../wire/arena.ts'
import { type MemoryMedium, MemoryPort, type Path } from './memory/port.ts'
import { MemoryRoutes } from './memory/routes.ts'
import type { Transit } from './memory/run-queue.ts'
import { MemoryRuns, SMALL_RUN_BYTES } from './memory/runs.ts'
import { type Port, SCRATCH_BYTES, STAGING_BYTES } from './port.ts'
import { RUN_BYTES } from './runs/limits.ts'

interface MemorySwitchOptions {
  /** Has at least `memorySwitchBytes(runs, smallRuns, ports)` bytes; the link uses them from offset 0 on. */
  readonly arena: Arena
  /** Number of run buffers of RUN_BYTES (264 KiB), default 64. */
  readonly runs?: number
  /**
   * Maximum number of ports, default `runs`. More ports than that share the buffers, at most one of each size for a
   * port.
   */
  readonly ports?: number | undefined
  /** Number of run buffers of 2 KiB, default 256. */
  readonly smallRuns?: number
  /** `demand`: ICRCs are written only while a tap or a layer needs them. Default `always`. */
  readonly icrc?: 'always' | 'demand'
  /** Default `packets`. */
  readonly path?: Path
  /**
   * When runs arrive, with path `packets`. Runs do not overtake each other at a port, so a run arrives with the one
   * before it at the earliest. Default: at once.
   */
  readonly transit?: Transit | undefined
}

export interface MemorySwitch {
  /**
   * Adds a port; with a carrier on `host`, which has no other port. Throws an Error if there are `ports` ports already;
   * closed ports with runs in flight count too.
   */
  attach(host?: number): Port
  /** Number of runs that wait to be received, at all ports together. */
  readonly waitingRuns: number
  /** Number of ports, of buffers in use, and of flows that are open or in flight. */
  stat(): { ports: number; runs: number; smallRuns: number; flows: number }
}

const DEFAULT_RUNS = 64
const DEFAULT_SMALL_RUNS = 256

/** Bytes of arena for a memory link with this many buffers. */
export const memorySwitchBytes = (
  runs: number = DEFAULT_RUNS,
  smallRuns: number = DEFAULT_SMALL_RUNS,
  ports: number = runs,
): number => runs * RUN_BYTES + smallRuns * SMALL_RUN_BYTES + ports * SCRATCH_BYTES + STAGING_BYTES

export const createMemorySwitch = (options: MemorySwitchOptions): MemorySwitch => {
  const {
    arena,
    runs: largeCount = DEFAULT_RUNS,
    smallRuns: smallCount = DEFAULT_SMALL_RUNS,
    ports: maxPorts = largeCount,
    icrc = 'always',
    path = 'packets',
    transit,
  } = options
  const carrier = transit?.carrier
  const bytes = memorySwitchBytes(largeCount, smallCount, maxPorts)
  if (arena.bytes.length < bytes)
    throw new RangeError(
      `a memory link with ${largeCount} runs, ${smallCount} small runs and ${maxPorts} ports needs an arena of ${bytes} bytes, not ${arena.bytes.length}`,
    )
  const runs = new MemoryRuns(arena, largeCount, smallCount, maxPorts, icrc === 'always')
  const ports: (MemoryPort | undefined)[] = new Array(maxPorts).fill(undefined)
  const portOfHost: (MemoryPort | undefined)[] = []
  const routes = new MemoryRoutes(runs.flows)
  const medium: MemoryMedium = { runs, routes, ports, portOfHost, path, transit, nextIdentification: 0 }

  if (carrier !== undefined) {
    carrier.onArrived = host => portOfHost[host]?.wake?.()
    carrier.onLost = (packet, host, at, length) => {
      portOfHost[host]?.showLost(packet, at, length)
      runs.releaseCarried(packet)
    }
  }

  return {
    attach: (host = 0) => {
      // The number of a closed port cannot be reused while some of its buffers are in flight.
      const number = ports.findIndex((port, i) => port === undefined && !runs.isOwner(i))
      if (number < 0) throw new Error(`this memory link has ${maxPorts} ports, which is its maximum; all are in use`)
      runs.addOwner(number)
      const scratch = bytes - STAGING_BYTES - (maxPorts - number) * SCRATCH_BYTES
      const port = new MemoryPort(medium, number, host, { scratch, staging: bytes - STAGING_BYTES })
      carrier?.setTaken(host, true)
      return port
    },
    get waitingRuns() {
      return runs.waiting
    },
    stat() {
      const free = runs.freeBuffers()
      return {
        ports: ports.filter(port => port !== undefined).length,
        runs: largeCount - free.large,
        smallRuns: smallCount - free.small,
        flows: runs.flows.size(),
      }
    },
  }
}
