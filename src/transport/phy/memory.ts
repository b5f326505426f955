/*
 * The memory link (docs/decisions/memory-link.md): connects the ports of one process. A run is built in a buffer of the
 * shared arena, queued at the port with the destination address, read there and released. It is not copied. The runs of
 * one reservation share a buffer, which is free again when the runs are released and the reservation has ended.
 *
 * Packets are the same as those of the UDP port: IPv6, or IPv4 with DF and identification 0, 1, 2 … within a run, and
 * an ICRC. Sealing a run means writing its ICRCs. With the option `icrc` 'demand', runs are sealed and checked only
 * while a tap or a layer needs ICRCs.
 *
 * Buffers have two sizes, so that an ACK need not wait for a large one. Each port has guaranteed buffers, so a receiver
 * that does not read its runs blocks only its own senders.
 */
import { FIRST_MULTICAST_LID, PERMISSIVE_LID } from '../../spec/wire/subnet.ts'
import { addressText, isLinkLocal } from '../wire/address.ts'
import type { Arena } from '../wire/arena.ts'
import { ECN_MASK, markedFlow } from '../wire/flow.ts'
import { sealIcrc, verifyIcrc } from '../wire/icrc.ts'
import { createFlowTable } from './flow-table.ts'
import { addressWords, createKeyTable } from './key-table.ts'
import { MAX_PACKET_BYTES, type PacketCarrier } from './links/packet-carrier.ts'
import {
  emptyTappedRun,
  type FlowAddress,
  type Port,
  type PortFabric,
  SCRATCH_BYTES,
  STAGING_BYTES,
  type TapOutcome,
} from './port.ts'
import { RUN_BYTES, RUN_PACKETS, requireRun, requireRunBytes } from './runs/limits.ts'
import { createRunPool } from './runs/pool.ts'
import { allocateRecord, createRunRecords, freeRecord } from './runs/records.ts'
import { pathMtuOf } from './udp/window.ts'

/** Reservations up to this size, mostly for ACKs, get a small buffer if one is free. */
const SMALL_RUN_BYTES = 2048
/** Buffers guaranteed to each port; with many ports fewer (runs/pool.ts). */
const GUARANTEED_BUFFERS = 4
const GUARANTEED_SMALL_BUFFERS = 32
const PATH_MTU = 4096
/** A route is a port number, NOWHERE if no port has the address, or GROUP minus the number of a multicast group. */
const NOWHERE = -1
const GROUP = -2

/** The time that packets take. Times are microseconds. */
export interface Transit {
  now(): number
  /** From port to port, whatever the bytes; with a carrier only from a port to itself. */
  readonly delay: number
  /** Carries packets between different ports, which then belong to hosts (`MemorySwitch.attach`). */
  readonly carrier?: PacketCarrier | undefined
}

/** `direct`: messages may be passed without packets (`Port.receiverOf`) while no ICRCs and taps are needed. */
export type Path = 'packets' | 'direct'

interface MemorySwitchOptions {
  /** Has at least `memorySwitchBytes(runs, smallRuns, ports)` bytes; the link uses them from offset 0 on. */
  readonly arena: Arena
  /** Number of run buffers of RUN_BYTES (264 KiB), default 64. */
  readonly runs?: number
  /** Maximum number of ports, default `runs`. More ports than that share the buffers, at most one of each size for a port. */
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
    runs = DEFAULT_RUNS,
    smallRuns = DEFAULT_SMALL_RUNS,
    ports = runs,
    icrc = 'always',
    path = 'packets',
    transit,
  } = options
  const carrier = transit?.carrier
  const bytes = memorySwitchBytes(runs, smallRuns, ports)
  if (arena.bytes.length < bytes)
    throw new RangeError(
      `a memory link with ${runs} runs, ${smallRuns} small runs and ${ports} ports needs an arena of ${bytes} bytes, not ${arena.bytes.length}`,
    )
  const large = createRunPool(0, RUN_BYTES, runs, ports, GUARANTEED_BUFFERS)
  const small = createRunPool(runs * RUN_BYTES, SMALL_RUN_BYTES, smallRuns, ports, GUARANTEED_SMALL_BUFFERS)
  const flows = createFlowTable()
  const addresses = createKeyTable(4)
  /** By number in `addresses`. */
  const portOfAddress: number[] = []
  /** Multicast groups, and their member ports by group number. */
  const groups = createKeyTable(4)
  const membersOf: number[][] = []
  /** By flow: route, peer number of the source at the destination, and the version for which these two are valid. */
  const routeOf: number[] = []
  const peerOf: number[] = []
  const routeVersion: number[] = []
  /** Ports by number. */
  const links: (Link | undefined)[] = new Array(ports).fill(undefined)
  /** With a carrier. */
  const linkOfHost: (Link | undefined)[] = []
  const addressKey = new Uint32Array(4)
  /** InfiniBand ports: their fabrics by port number, and their numbers by fabric. */
  const fabrics: (PortFabric | undefined)[] = []
  const portOfFabric = new Map<object, number>()
  /** Increases when an answer of a fabric may have changed. */
  let fabricVersion = 0
  /** By flow to a multicast LID: the ports that it reaches. Undefined: all members of the group. */
  const reachedOf: (ReadonlySet<number> | undefined)[] = []
  /** Number of reasons to seal runs: `icrc`, and calls of `requireSeal`. */
  let sealReasons = icrc === 'always' ? 1 : 0
  let waitingRuns = 0
  /** Of the carrier's packets: captures tell copies by it that are in flight at the same time. */
  let nextIdentification = 0

  const records = createRunRecords(runs + smallRuns)
  /** By buffer (large ones first): references by runs in flight and by a reservation. */
  const bufferRefs = new Int32Array(runs + smallRuns)
  /** By record: when the run arrives, with `transit`. */
  const arrivals: number[] = []
  /** Whether a run has arrived. */
  const hasArrived = (run: number): boolean => transit === undefined || arrivals[run] <= transit.now()

  /** The LID of a flow's address at this index. */
  const lidAt = (at: number): number => flows.words()[at + 3]

  /** A port that is not ACTIVE has no LID (IBA 7.2.7). */
  const hasLid = ({ lid }: PortFabric, wanted: number): boolean =>
    lid === PERMISSIVE_LID || (lid !== 0 && lid === wanted)

  /** The fabric of a flow's port, if the port may send it. */
  const fabricOf = (flow: number): PortFabric | undefined => {
    const fabric = fabrics[flows.portOf(flow)]
    return fabric !== undefined && hasLid(fabric, lidAt(flows.sourceAt(flow))) ? fabric : undefined
  }

  /** Makes a port a member of a group: four words from index `at` on. */
  const join = (portNumber: number, words: Uint32Array, at: number): void => {
    const existing = groups.find(words, at)
    if (existing >= 0 && membersOf[existing].includes(portNumber)) return
    const number = groups.acquire(words, at)
    membersOf[number] = existing < 0 ? [portNumber] : [...membersOf[existing], portNumber]
  }

  /** The route of a flow by LID: what the tables of the fabric say. */
  const routeByLid = (flow: number): number => {
    const fabric = fabricOf(flow)
    if (fabric === undefined) return NOWHERE
    const at = flows.destinationAt(flow)
    const dlid = lidAt(at)
    const isGroup = dlid >= FIRST_MULTICAST_LID
    // A port that is not ACTIVE takes no packets.
    const numbers = fabric
      .reached(dlid)
      .flatMap(reached => portOfFabric.get(reached) ?? [])
      .filter(number => (isGroup ? fabrics[number]!.lid !== 0 : hasLid(fabrics[number]!, dlid)))
    if (!isGroup) return numbers[0] ?? NOWHERE
    for (const number of numbers) if (fabrics[number]!.isTrunk) join(number, flows.words(), at)
    const group = groups.find(flows.words(), at)
    // An adapter passes packets to a group to its own members too.
    reachedOf[flow] = new Set(fabric.isTrunk ? numbers : [...numbers, flows.portOf(flow)])
    return group < 0 ? NOWHERE : GROUP - group
  }

  /** The route of a flow; also updates `peerOf`. */
  const route = (flow: number): number => {
    const version = addresses.version + flows.version() + groups.version + fabricVersion
    if (routeVersion[flow] !== version) {
      let destination = NOWHERE
      reachedOf[flow] = undefined
      if (flows.hasLids(flow)) destination = routeByLid(flow)
      else {
        const address = addresses.find(flows.words(), flows.destinationAt(flow))
        const group = address < 0 ? groups.find(flows.words(), flows.destinationAt(flow)) : -1
        if (address >= 0) destination = portOfAddress[address]
        else if (group >= 0) destination = GROUP - group
      }
      routeOf[flow] = destination
      peerOf[flow] = destination < 0 ? -1 : flows.peerOf(destination, flows.words(), flows.sourceAt(flow))
      routeVersion[flow] = version
    }
    return routeOf[flow]
  }

  /** The members of a group that a run with the route of this group reaches. */
  const membersOfRoute = (destination: number, flow: number): readonly number[] => {
    const members = membersOf[GROUP - destination]
    const reached = reachedOf[flow]
    return reached === undefined ? members : members.filter(member => reached.has(member))
  }

  /** The `Port.receiver` of a port; null if the port has a tap. */
  const receiverAt = (portNumber: number): object | null => {
    const port = links[portNumber]?.port
    return port === undefined || port.tap !== null ? null : (port.receiver as object | null)
  }

  /** Takes a buffer for `bytes` bytes; -1 if none is free. */
  const takeBuffer = (owner: number, bytes: number): number => {
    let buffer = bytes <= SMALL_RUN_BYTES ? small.take(owner) : -1
    if (buffer >= 0) buffer += runs
    else buffer = large.take(owner)
    if (buffer >= 0) bufferRefs[buffer] = 1
    return buffer
  }
  const releaseBuffer = (buffer: number): void => {
    if (--bufferRefs[buffer] > 0) return
    if (buffer < runs) large.release(buffer)
    else small.release(buffer - runs)
  }
  const startOf = (buffer: number): number => (buffer < runs ? large.offsetOf(buffer) : small.offsetOf(buffer - runs))
  const endOf = (buffer: number): number => startOf(buffer) + (buffer < runs ? RUN_BYTES : SMALL_RUN_BYTES)
  const releaseRun = (run: number): void => {
    releaseBuffer(records.buffer[run])
    freeRecord(records, run)
  }
  /** A packet of the carrier's: only a record, without a buffer. */
  const releaseCarried = (packet: number): void => {
    flows.release(records.flow[packet])
    freeRecord(records, packet)
  }

  /** A second record for the same bytes, for another receiver. */
  const copyRun = (run: number): number => {
    const copy = allocateRecord(records)
    records.buffer[copy] = records.buffer[run]
    records.offset[copy] = records.offset[run]
    records.packetBytes[copy] = records.packetBytes[run]
    records.count[copy] = records.count[run]
    records.lastBytes[copy] = records.lastBytes[run]
    records.flow[copy] = records.flow[run]
    records.isSealed[copy] = records.isSealed[run]
    records.identification[copy] = records.identification[run]
    bufferRefs[records.buffer[run]]++
    flows.retain(records.flow[run])
    return copy
  }

  const packetOffset = (run: number, packet: number): number => records.offset[run] + packet * records.packetBytes[run]
  const packetLength = (run: number, packet: number): number =>
    packet === records.count[run] - 1 ? records.lastBytes[run] : records.packetBytes[run]
  const sealRun = (run: number): void => {
    const flow = flows.icrcFlowOf(records.flow[run])
    const first = records.identification[run]
    for (let i = 0; i < records.count[run]; i++)
      sealIcrc(arena, packetOffset(run, i), packetLength(run, i), flow, first + i)
    records.isSealed[run] = 1
  }
  const hasCorrectIcrc = (run: number, packet: number): boolean =>
    verifyIcrc(
      arena,
      packetOffset(run, packet),
      packetLength(run, packet),
      flows.icrcFlowOf(records.flow[run]),
      records.identification[run] + packet,
    )
  /** Path and headers of a run's packets; marked packets are runs of one. */
  const flowOf = (run: number): FlowAddress => {
    const flow = flows.recordOf(records.flow[run])
    return records.isMarked[run] ? markedFlow(flow) : flow
  }

  /** Passes the packets of a run of host `from` to the carrier, which copies them. */
  const carry = (run: number, from: number, portNumber: number): void => {
    const to = links[portNumber]?.host
    if (to === undefined) return
    const flow = flows.recordOf(records.flow[run])
    const hash = carrier!.hashOf(flow)
    for (let i = 0; i < records.count[run]; i++) {
      const packet = allocateRecord(records)
      records.flow[packet] = records.flow[run]
      records.isSealed[packet] = records.isSealed[run]
      records.identification[packet] = (records.identification[run] + i) & 0xffff
      flows.retain(records.flow[run])
      const ecn = flow.trafficClass & ECN_MASK
      carrier!.send(packet, from, to, hash, ecn, arena.bytes, packetOffset(run, i), packetLength(run, i))
    }
  }

  const tapped = emptyTappedRun(arena, 'sent')

  interface Link {
    readonly port: Port
    readonly host: number
    /** Shows the port's tap a packet that the carrier has lost, and whose bytes it has at `at`. */
    showLost(packet: number, at: number, length: number): void
    /** Appends a run to the port's queue of received runs. */
    enqueue(run: number): void
  }

  const createLink = (portNumber: number, host: number): Link => {
    /** The queue of received runs: first unreleased run, first run with undelivered packets, and last run; -1: none. */
    let oldest = -1
    let head = -1
    let tail = -1
    /** First undelivered packet of the run at `head`. */
    let cursor = 0
    /** Whether runs were delivered since the last release. */
    let hasUnreleased = false
    /** Buffer of the last reservation (-1: none), and end of its used part. */
    let reserved = -1
    let filled = 0
    let isClosed = false
    /** This port's share of `sealReasons`. */
    let portSealReasons = 0
    /** Numbers of this port's addresses. */
    const ownAddresses: number[] = []
    /**
     * The committed run whose packets the carrier gets at the next call of `reserve`, `commit` or `flush`, as a layer may
     * change them until then; -1: none. And its route.
     */
    let pending = -1
    let pendingRoute = NOWHERE
    /** Whether `reserve` has failed because the host's link has enough to send. */
    let isHostFull = false

    /** Shows the port's tap packets [firstPacket, end) of a run. */
    const showTap = (
      direction: 'sent' | 'received',
      outcome: TapOutcome,
      run: number,
      firstPacket: number,
      end: number,
    ): void => {
      tapped.direction = direction
      tapped.outcome = outcome
      tapped.arena = arena
      tapped.offset = packetOffset(run, firstPacket)
      tapped.packetBytes = records.packetBytes[run]
      tapped.count = end - firstPacket
      tapped.lastBytes = packetLength(run, end - 1)
      tapped.flow = flowOf(run)
      tapped.identification = records.identification[run] + firstPacket
      port.tap?.(tapped)
    }

    /** `group`: a number in `groups`. No effect if this port is not a member. */
    const leave = (group: number): void => {
      if (group < 0 || !membersOf[group].includes(portNumber)) return
      membersOf[group] = membersOf[group].filter(member => member !== portNumber)
      groups.release(group)
    }

    /** Releases the runs before `head`. */
    const releaseDelivered = (): void => {
      while (oldest !== head) {
        const run = oldest
        oldest = records.next[run]
        flows.release(records.flow[run])
        releaseRun(run)
      }
      if (oldest < 0) tail = -1
    }
    const endReservation = (): void => {
      if (reserved >= 0) releaseBuffer(reserved)
      reserved = -1
    }

    /**
     * Counts and skips packets with wrong ICRCs from `firstPacket` on. Returns the index of the next correct packet, or
     * the number of packets if there is none.
     */
    const skipWrong = (run: number, firstPacket: number): number => {
      let packet = firstPacket
      while (packet < records.count[run] && !hasCorrectIcrc(run, packet)) {
        port.counters.icrcErrors++
        if (port.tap !== null) showTap('received', 'wrong icrc', run, packet, packet + 1)
        packet++
      }
      return packet
    }
    /** Appends a run that has arrived at `arrival`, with a transit. */
    const append = (run: number, arrival: number): void => {
      if (transit !== undefined) arrivals[run] = arrival
      if (tail < 0) oldest = run
      else records.next[tail] = run
      tail = run
      if (head < 0) head = run
      waitingRuns++
    }
    /** Takes packets that the carrier has brought, as many as fit in a buffer. None while no buffer is free. */
    const takeCarried = (by: PacketCarrier): void => {
      if (!by.hasArrived(host)) return
      const buffer = takeBuffer(portNumber, RUN_BYTES)
      if (buffer < 0) return
      const end = endOf(buffer)
      let at = startOf(buffer)
      while (at + MAX_PACKET_BYTES <= end) {
        const packet = by.receive(host, arena.bytes, at)
        if (packet < 0) break
        const destination = route(records.flow[packet])
        // The device that had the address was removed, and another one has its host.
        if (destination !== portNumber && destination > GROUP) {
          releaseCarried(packet)
          continue
        }
        records.buffer[packet] = buffer
        bufferRefs[buffer]++
        records.offset[packet] = at
        records.packetBytes[packet] = by.length
        records.count[packet] = 1
        records.lastBytes[packet] = by.length
        records.isMarked[packet] = by.isMarked ? 1 : 0
        append(packet, 0)
        at += (by.length + 15) & ~15
      }
      releaseBuffer(buffer)
    }
    const carryLater = (run: number, destination: number): void => {
      pending = run
      pendingRoute = destination
      flows.retain(records.flow[run])
    }
    const carryPending = (): void => {
      if (pending < 0) return
      const run = pending
      pending = -1
      if (pendingRoute > GROUP) carry(run, host, pendingRoute)
      else
        for (const member of membersOfRoute(pendingRoute, records.flow[run]))
          if (member !== portNumber) carry(run, host, member)
      flows.release(records.flow[run])
      releaseRun(run)
    }
    /** Moves `head` to the next run. */
    const advance = (): void => {
      head = records.next[head]
      cursor = 0
      waitingRuns--
    }

    const port: Port = {
      arena,
      scratch: runs * RUN_BYTES + smallRuns * SMALL_RUN_BYTES + portNumber * SCRATCH_BYTES,
      maxPackets: carrier?.maxPackets ?? RUN_PACKETS,
      maxBytes: carrier?.maxBytes ?? RUN_BYTES,
      pathMtu: carrier === undefined ? PATH_MTU : pathMtuOf(carrier.mtuOf(host)),
      pathBytes: carrier?.windowBytes,
      hasSourcePorts: carrier !== undefined,
      hasGroupSockets: false,
      counters: { sentPackets: 0, sentBytes: 0, receivedPackets: 0, receivedBytes: 0, icrcErrors: 0, dropped: 0 },
      wake: null,
      tap: null,
      receiver: null,
      staging: bytes - STAGING_BYTES,
      receiverOf: flow => {
        if (path === 'packets' || sealReasons > 0 || port.tap !== null) return null
        const destination = route(flow)
        return destination < 0 ? null : receiverAt(destination)
      },
      peerAt: flow => {
        route(flow)
        return peerOf[flow]
      },
      isWaiting: () => (head >= 0 && hasArrived(head)) || carrier?.hasArrived(host) === true,

      addAddress: address => {
        addressWords(address, addressKey, 0)
        const existing = addresses.find(addressKey, 0)
        if (existing >= 0) {
          // Several devices may have the same link-local address: the first device gets it.
          if (portOfAddress[existing] === portNumber || isLinkLocal(address)) return
          throw new Error(`the memory link has a port with the address ${addressText(address)} already`)
        }
        const number = addresses.acquire(addressKey, 0)
        portOfAddress[number] = portNumber
        ownAddresses.push(number)
      },
      removeAddress: address => {
        addressWords(address, addressKey, 0)
        const number = addresses.find(addressKey, 0)
        if (number < 0 || portOfAddress[number] !== portNumber) return
        ownAddresses.splice(ownAddresses.indexOf(number), 1)
        addresses.release(number)
      },
      joinGroup: group => {
        addressWords(group, addressKey, 0)
        join(portNumber, addressKey, 0)
      },
      leaveGroup: group => {
        addressWords(group, addressKey, 0)
        leave(groups.find(addressKey, 0))
      },
      setFabric: fabric => {
        fabrics[portNumber] = fabric
        portOfFabric.set(fabric, portNumber)
        fabricVersion++
      },
      openFlow: address => flows.open(portNumber, address),
      reopenFlow: flow => flows.reopen(portNumber, flow),
      closeFlow: flow => flows.close(portNumber, flow),
      peerOf: address => {
        addressWords(address, addressKey, 0)
        return flows.peerOf(portNumber, addressKey, 0)
      },

      reserve: bytes => {
        requireRunBytes(bytes)
        carryPending()
        if (carrier !== undefined && carrier.fullUntil(host) > transit!.now()) {
          isHostFull = true
          return -1
        }
        const buffer = isClosed ? -1 : takeBuffer(portNumber, bytes)
        if (buffer < 0) return -1
        endReservation()
        reserved = buffer
        filled = startOf(buffer)
        return filled
      },
      commit: (offset, packetBytes, count, lastBytes, flow) => {
        carryPending()
        const end = requireRun(offset, packetBytes, count, lastBytes, filled, reserved < 0 ? -1 : endOf(reserved))
        if (!flows.isOpen(portNumber, flow)) throw new Error(`flow ${flow} is not open`)
        filled = end
        bufferRefs[reserved]++
        const run = allocateRecord(records)
        records.buffer[run] = reserved
        records.offset[run] = offset
        records.packetBytes[run] = packetBytes
        records.count[run] = count
        records.lastBytes[run] = lastBytes
        records.flow[run] = flow
        records.isSealed[run] = 0
        if (carrier !== undefined) {
          records.identification[run] = nextIdentification
          nextIdentification = (nextIdentification + count) & 0xffff
        }
        if (sealReasons > 0) sealRun(run)
        if (port.tap !== null) showTap('sent', 'passed', run, 0, count)
        const destination = route(flow)
        if (destination === NOWHERE) {
          port.counters.dropped += count
          if (flows.hasLids(flow)) fabricOf(flow)?.lost(lidAt(flows.destinationAt(flow)), count)
          releaseRun(run)
          return
        }
        port.counters.sentPackets += count
        port.counters.sentBytes += end - offset
        if (destination <= GROUP) {
          for (const member of membersOfRoute(destination, flow))
            if (carrier === undefined || member === portNumber) links[member]?.enqueue(copyRun(run))
          if (carrier === undefined) releaseRun(run)
          else carryLater(run, destination)
          return
        }
        if (carrier !== undefined && destination !== portNumber) {
          carryLater(run, destination)
          return
        }
        flows.retain(flow)
        links[destination]?.enqueue(run)
      },
      flush: () => {
        carryPending()
        endReservation()
      },

      receive: received => {
        if (carrier !== undefined && head < 0) takeCarried(carrier)
        while (head >= 0 && hasArrived(head)) {
          const run = head
          // A run that was sent before a tap or a layer needed ICRCs.
          if (sealReasons > 0 && !records.isSealed[run]) sealRun(run)
          const packets = records.count[run]
          const firstPacket = records.isSealed[run] ? skipWrong(run, cursor) : cursor
          if (firstPacket === packets) {
            advance()
            continue
          }
          let end = packets
          if (records.isSealed[run]) {
            end = firstPacket + 1
            while (end < packets && hasCorrectIcrc(run, end)) end++
          }
          const flow = records.flow[run]
          received.offset = packetOffset(run, firstPacket)
          received.packetBytes = records.packetBytes[run]
          received.count = end - firstPacket
          received.lastBytes = packetLength(run, end - 1)
          // The flow's route may not lead here: the destination is a group, or has moved to another port.
          const isRoutedHere = route(flow) === portNumber
          received.peer = isRoutedHere ? peerOf[flow] : flows.peerOf(portNumber, flows.words(), flows.sourceAt(flow))
          received.flowAddress = flowOf(run)
          received.identification = records.identification[run] + firstPacket
          port.counters.receivedPackets += received.count
          port.counters.receivedBytes += (received.count - 1) * received.packetBytes + received.lastBytes
          if (port.tap !== null) showTap('received', records.isMarked[run] ? 'marked' : 'passed', run, firstPacket, end)
          // Skips following packets with wrong ICRCs now, so that the run is released with its last correct packet.
          cursor = end < packets ? skipWrong(run, end) : end
          if (cursor === packets) advance()
          hasUnreleased = true
          return true
        }
        // Nothing was delivered, so no `release` follows: runs with wrong ICRCs are released here.
        if (!hasUnreleased) releaseDelivered()
        return false
      },
      release: () => {
        hasUnreleased = false
        releaseDelivered()
      },
      requireSeal: change => {
        // `close` has withdrawn all reasons of this port: a tap may be removed later.
        if (isClosed) return
        portSealReasons += change
        sealReasons += change
      },
      takeLayerBuffer: bytes => {
        requireRunBytes(bytes)
        const buffer = isClosed ? -1 : large.take(portNumber)
        return buffer < 0 ? -1 : large.offsetOf(buffer)
      },
      releaseLayerBuffer: offset => large.release(large.bufferAt(offset)),

      nextTimeout: () => {
        if (transit === undefined) return Number.POSITIVE_INFINITY
        const arrival = head >= 0 ? arrivals[head] : Number.POSITIVE_INFINITY
        return isHostFull ? Math.min(arrival, carrier!.fullUntil(host)) : arrival
      },
      onTimeout: () => {
        isHostFull = false
      },
      close: () => {
        if (isClosed) return
        isClosed = true
        carryPending()
        endReservation()
        while (head >= 0) advance()
        releaseDelivered()
        for (const address of ownAddresses) addresses.release(address)
        for (let group = 0; group < membersOf.length; group++) leave(group)
        const fabric = fabrics[portNumber]
        if (fabric !== undefined) {
          portOfFabric.delete(fabric)
          fabrics[portNumber] = undefined
          fabricVersion++
        }
        flows.closeAll(portNumber)
        sealReasons -= portSealReasons
        portSealReasons = 0
        links[portNumber] = undefined
        linkOfHost[host] = undefined
        carrier?.setTaken(host, false)
        large.removeOwner(portNumber)
        small.removeOwner(portNumber)
      },
    }

    return {
      port,
      host,
      showLost: (packet, at, length) => {
        if (port.tap === null) return
        const { arena: carried } = carrier!.links
        const identification = records.identification[packet]
        if (sealReasons > 0 && !records.isSealed[packet])
          sealIcrc(carried, at, length, flows.icrcFlowOf(records.flow[packet]), identification)
        const flow = flows.recordOf(records.flow[packet])
        const shown = { direction: 'received', outcome: 'dropped', arena: carried, offset: at, count: 1, flow } as const
        port.tap({ ...shown, packetBytes: length, lastBytes: length, identification })
      },
      enqueue: run => {
        const wasEmpty = head < 0
        append(run, transit === undefined ? 0 : transit.now() + transit.delay)
        if (wasEmpty) port.wake?.()
      },
    }
  }

  if (carrier !== undefined) {
    carrier.onArrived = host => linkOfHost[host]?.port.wake?.()
    carrier.onLost = (packet, host, at, length) => {
      linkOfHost[host]?.showLost(packet, at, length)
      releaseCarried(packet)
    }
  }

  return {
    attach: (host = 0) => {
      // The number of a closed port cannot be reused while some of its buffers are in flight.
      const portNumber = links.findIndex(
        (link, i) => link === undefined && large.usedBy(i) === 0 && small.usedBy(i) === 0,
      )
      if (portNumber < 0) throw new Error(`this memory link has ${ports} ports, which is its maximum; all are in use`)
      large.addOwner(portNumber)
      small.addOwner(portNumber)
      const link = createLink(portNumber, host)
      carrier?.setTaken(host, true)
      links[portNumber] = link
      if (carrier !== undefined) linkOfHost[host] = link
      return link.port
    },
    get waitingRuns() {
      return waitingRuns
    },
    stat: () => ({
      ports: links.filter(link => link !== undefined).length,
      runs: runs - large.free(),
      smallRuns: smallRuns - small.free(),
      flows: flows.size(),
    }),
  }
}
