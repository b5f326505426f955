/*
 * The memory link (docs/decisions/memory-link.md): connects the ports of one process. A run goes to the port that has
 * its destination address, which may be the sender's own, without a copy: it is built in a buffer of the shared arena,
 * queued at the destination, read there and released. Runs that are built one after another share a buffer, which is
 * free again when the last of them is released and the sender uses another one.
 *
 * The packets are those that the UDP port would send: IPv4 with DF and identification 0, 1, 2 … within a run, and an
 * ICRC; the receiver drops packets with a wrong one. With sealing on demand, ICRCs are computed and checked only while
 * a tap or a layer reads the bytes.
 *
 * Buffers have two sizes, so that an ACK never waits for a large one, and each port has a share. A receiver that does
 * not read its runs blocks only those that send to it.
 */
import { addressText } from '../wire/address.ts'
import type { Arena } from '../wire/arena.ts'
import { sealIcrc, verifyIcrc } from '../wire/icrc.ts'
import { createFlowTable } from './flow-table.ts'
import { addressWords, createKeyTable } from './key-table.ts'
import { emptyTappedRun, type Port, SCRATCH_BYTES, STAGING_BYTES, type TapOutcome } from './port.ts'
import { RUN_BYTES, RUN_PACKETS, requireRun, requireRunBytes } from './runs/limits.ts'
import { createRunPool } from './runs/pool.ts'
import { allocateRecord, createRunRecords, freeRecord } from './runs/records.ts'

/** Runs up to this size, mostly ACKs, have buffers of their own. */
const SMALL_RUN_BYTES = 2048
/** Buffers that are guaranteed to each port (fewer with very many ports). */
const SHARE = 4
const SMALL_SHARE = 32
const PATH_MTU = 4096
/** Routes that are no port: none, and from GROUP downwards multicast groups. */
const NOWHERE = -1
const GROUP = -2

/** Whether messages may pass without packets. */
export type Path = 'packets' | 'direct'

export interface MemorySwitchOptions {
  /** Of at least `memorySwitchBytes(runs, smallRuns)` bytes; the link uses that many from 0 on. */
  readonly arena: Arena
  /** Run buffers of 264 KiB, 64 by default. It is also the largest number of ports. */
  readonly runs?: number
  /** Run buffers of 2 KiB, 256 by default. */
  readonly smallRuns?: number
  /** `demand`: no ICRCs unless a tap or a layer wants them. Default `always`. */
  readonly sealing?: 'always' | 'demand'
  /**
   * `direct`: messages may pass without packets (`Port.receiverOf`) unless ICRCs or taps need packets. Default
   * `packets`.
   */
  readonly path?: Path
}

export interface MemorySwitch {
  /** Adds a port. Throws when there are as many as run buffers. */
  attach(): Port
  /** Runs that wait to be received at any port. */
  readonly waiting: number
  /** Buffers in use and flows open or in flight: 0 when all ports are closed. */
  stat(): { ports: number; runs: number; smallRuns: number; flows: number }
}

const DEFAULT_RUNS = 64
const DEFAULT_SMALL_RUNS = 256

/** Bytes of arena that a memory link with so many buffers needs. */
export const memorySwitchBytes = (runs: number = DEFAULT_RUNS, smallRuns: number = DEFAULT_SMALL_RUNS): number =>
  runs * (RUN_BYTES + SCRATCH_BYTES) + smallRuns * SMALL_RUN_BYTES + STAGING_BYTES

export const createMemorySwitch = (options: MemorySwitchOptions): MemorySwitch => {
  const { arena, runs = DEFAULT_RUNS, smallRuns = DEFAULT_SMALL_RUNS, sealing = 'always', path = 'packets' } = options
  if (arena.bytes.length < memorySwitchBytes(runs, smallRuns))
    throw new RangeError(
      `a memory link with ${runs} runs and ${smallRuns} small runs needs an arena of ${memorySwitchBytes(runs, smallRuns)} bytes, not ${arena.bytes.length}`,
    )
  const big = createRunPool(0, RUN_BYTES, runs, runs, SHARE)
  const small = createRunPool(runs * RUN_BYTES, SMALL_RUN_BYTES, smallRuns, runs, SMALL_SHARE)
  const flows = createFlowTable()
  const addresses = createKeyTable(4)
  const portOfAddress: number[] = []
  /** Multicast addresses, and by number the ports that want runs to them. */
  const groups = createKeyTable(4)
  const members: number[][] = []
  /**
   * By flow: its destination (a port, NOWHERE, a group), the source's number there, and the version for which that
   * holds.
   */
  const routeOf: number[] = []
  const peerOf: number[] = []
  const routeVersion: number[] = []
  /** Ports by number; the number of a closed port is used again once its buffers are released. */
  const links: (Link | undefined)[] = new Array(runs).fill(undefined)
  const scratch = new Uint32Array(4)
  let sealsWanted = sealing === 'always' ? 1 : 0
  let waiting = 0

  const records = createRunRecords(runs + smallRuns)
  /** By buffer, the large ones first: its runs in flight, and its reservation. */
  const holders = new Int32Array(runs + smallRuns)

  /** Looks up the destination of a flow, unless nothing has changed since the last time. */
  const route = (flow: number): number => {
    const version = addresses.version + flows.version() + groups.version
    if (routeVersion[flow] !== version) {
      const address = addresses.find(flows.words(), flows.destinationAt(flow))
      const group = address < 0 ? groups.find(flows.words(), flows.destinationAt(flow)) : -1
      const port = address >= 0 ? portOfAddress[address] : group < 0 ? NOWHERE : GROUP - group
      routeOf[flow] = port
      peerOf[flow] = port < 0 ? -1 : flows.peerOf(port, flows.words(), flows.sourceAt(flow))
      routeVersion[flow] = version
    }
    return routeOf[flow]
  }

  const receiverAt = (port: number): object | null => {
    const to = links[port]?.port
    return to === undefined || to.tap !== null ? null : (to.receiver as object | null)
  }

  const takeBuffer = (owner: number, bytes: number): number => {
    let buffer = bytes <= SMALL_RUN_BYTES ? small.take(owner) : -1
    if (buffer >= 0) buffer += runs
    else buffer = big.take(owner)
    if (buffer >= 0) holders[buffer] = 1
    return buffer
  }
  const dropBuffer = (buffer: number): void => {
    if (--holders[buffer] > 0) return
    if (buffer < runs) big.give(buffer)
    else small.give(buffer - runs)
  }
  const startOf = (buffer: number): number => (buffer < runs ? big.offsetOf(buffer) : small.offsetOf(buffer - runs))
  const endOf = (buffer: number): number => startOf(buffer) + (buffer < runs ? RUN_BYTES : SMALL_RUN_BYTES)
  const dropRun = (run: number): void => {
    dropBuffer(records.buffer[run])
    freeRecord(records, run)
  }

  /** Another record for a run that is sent: the same bytes, for one more receiver. */
  const copyRun = (run: number): number => {
    const copy = allocateRecord(records)
    records.buffer[copy] = records.buffer[run]
    records.offset[copy] = records.offset[run]
    records.packetBytes[copy] = records.packetBytes[run]
    records.count[copy] = records.count[run]
    records.lastBytes[copy] = records.lastBytes[run]
    records.flow[copy] = records.flow[run]
    records.sealed[copy] = records.sealed[run]
    holders[records.buffer[run]]++
    flows.hold(records.flow[run])
    return copy
  }

  const placeOf = (run: number, packet: number): number => records.offset[run] + packet * records.packetBytes[run]
  const sizeOf = (run: number, packet: number): number =>
    packet === records.count[run] - 1 ? records.lastBytes[run] : records.packetBytes[run]
  const sealRun = (run: number): void => {
    const flow = flows.icrcFlowOf(records.flow[run])
    for (let i = 0; i < records.count[run]; i++) sealIcrc(arena, placeOf(run, i), sizeOf(run, i), flow, i)
    records.sealed[run] = 1
  }
  const isRight = (run: number, packet: number): boolean =>
    verifyIcrc(arena, placeOf(run, packet), sizeOf(run, packet), flows.icrcFlowOf(records.flow[run]), packet)

  /** The record that is passed to the taps of all ports; a tap may not keep it. */
  const tapped = emptyTappedRun(arena, 'sent')

  /** The receiving side of a port: a list of runs, first those that were handed out and not yet released. */
  interface Link {
    readonly port: Port
    enqueue(run: number): void
  }

  const createLink = (me: number): Link => {
    /** First run that was not released, first that was not handed out, last; -1 for none. */
    let oldest = -1
    let head = -1
    let tail = -1
    /** First packet of the run at `head` that was not handed out. */
    let cursor = 0
    let outstanding = false
    /** The last reservation, and how far it is filled. */
    let reserved = -1
    let filled = 0
    let closed = false
    let seals = 0
    const own: number[] = []

    const showTap = (
      direction: 'sent' | 'received',
      outcome: TapOutcome,
      run: number,
      from: number,
      end: number,
    ): void => {
      tapped.direction = direction
      tapped.outcome = outcome
      tapped.arena = arena
      tapped.offset = placeOf(run, from)
      tapped.packetBytes = records.packetBytes[run]
      tapped.count = end - from
      tapped.lastBytes = sizeOf(run, end - 1)
      tapped.flow = flows.recordOf(records.flow[run])
      tapped.identification = from
      port.tap?.(tapped)
    }

    const leave = (group: number): void => {
      if (group < 0 || !members[group].includes(me)) return
      members[group] = members[group].filter(member => member !== me)
      groups.drop(group)
    }

    /** Releases what lies before `head`. */
    const freeToHead = (): void => {
      while (oldest !== head) {
        const run = oldest
        oldest = records.next[run]
        flows.drop(records.flow[run])
        dropRun(run)
      }
      if (oldest < 0) tail = -1
    }
    const endReservation = (): void => {
      if (reserved >= 0) dropBuffer(reserved)
      reserved = -1
    }

    /** Skips and counts packets with wrong ICRCs. Returns the first correct one from `from` on, or the run's end. */
    const skipWrong = (run: number, from: number): number => {
      let packet = from
      while (packet < records.count[run] && !isRight(run, packet)) {
        port.counters.icrcErrors++
        if (port.tap !== null) showTap('received', 'wrong icrc', run, packet, packet + 1)
        packet++
      }
      return packet
    }
    const advance = (): void => {
      head = records.next[head]
      cursor = 0
      waiting--
    }

    const port: Port = {
      arena,
      scratch: runs * RUN_BYTES + smallRuns * SMALL_RUN_BYTES + me * SCRATCH_BYTES,
      maxPackets: RUN_PACKETS,
      maxBytes: RUN_BYTES,
      pathMtu: PATH_MTU,
      counters: { sentPackets: 0, sentBytes: 0, receivedPackets: 0, receivedBytes: 0, icrcErrors: 0, dropped: 0 },
      wake: null,
      tap: null,
      receiver: null,
      staging: memorySwitchBytes(runs, smallRuns) - STAGING_BYTES,
      receiverOf: flow => {
        if (path === 'packets' || sealsWanted > 0 || port.tap !== null) return null
        const to = route(flow)
        return to < 0 ? null : receiverAt(to)
      },
      peerAt: flow => {
        route(flow)
        return peerOf[flow]
      },
      isWaiting: () => head >= 0,

      addAddress: address => {
        addressWords(address, scratch, 0)
        const known = addresses.find(scratch, 0)
        if (known >= 0) {
          if (portOfAddress[known] === me) return
          throw new Error(`the memory link has a port with the address ${addressText(address)} already`)
        }
        const number = addresses.take(scratch, 0)
        portOfAddress[number] = me
        own.push(number)
      },
      removeAddress: address => {
        addressWords(address, scratch, 0)
        const number = addresses.find(scratch, 0)
        if (number < 0 || portOfAddress[number] !== me) return
        own.splice(own.indexOf(number), 1)
        addresses.drop(number)
      },
      joinGroup: group => {
        addressWords(group, scratch, 0)
        const known = groups.find(scratch, 0)
        if (known >= 0 && members[known].includes(me)) return
        const number = groups.take(scratch, 0)
        members[number] = known < 0 ? [me] : [...members[known], me]
      },
      leaveGroup: group => {
        addressWords(group, scratch, 0)
        leave(groups.find(scratch, 0))
      },
      openFlow: address => flows.open(me, address),
      holdFlow: flow => flows.reopen(me, flow),
      closeFlow: flow => flows.close(me, flow),
      peerOf: address => {
        addressWords(address, scratch, 0)
        return flows.peerOf(me, scratch, 0)
      },

      reserve: bytes => {
        requireRunBytes(bytes)
        const buffer = closed ? -1 : takeBuffer(me, bytes)
        if (buffer < 0) return -1
        endReservation()
        reserved = buffer
        filled = startOf(buffer)
        return filled
      },
      commit: (offset, packet, packets, last, flow) => {
        const end = requireRun(offset, packet, packets, last, filled, reserved < 0 ? -1 : endOf(reserved))
        if (!flows.isOpen(me, flow)) throw new Error(`flow ${flow} is not open`)
        filled = end
        holders[reserved]++
        const run = allocateRecord(records)
        records.buffer[run] = reserved
        records.offset[run] = offset
        records.packetBytes[run] = packet
        records.count[run] = packets
        records.lastBytes[run] = last
        records.flow[run] = flow
        records.sealed[run] = 0
        if (sealsWanted > 0) sealRun(run)
        port.counters.sentPackets += packets
        port.counters.sentBytes += end - offset
        if (port.tap !== null) showTap('sent', 'passed', run, 0, packets)
        const to = route(flow)
        if (to === NOWHERE) {
          port.counters.dropped += packets
          dropRun(run)
          return
        }
        if (to <= GROUP) {
          for (const member of members[GROUP - to]) links[member]?.enqueue(copyRun(run))
          dropRun(run)
          return
        }
        flows.hold(flow)
        links[to]?.enqueue(run)
      },
      flush: endReservation,

      receive: received => {
        while (head >= 0) {
          const run = head
          if (sealsWanted > 0 && !records.sealed[run]) sealRun(run)
          const packets = records.count[run]
          const from = records.sealed[run] ? skipWrong(run, cursor) : cursor
          if (from === packets) {
            advance()
            continue
          }
          let end = packets
          if (records.sealed[run]) {
            end = from + 1
            while (end < packets && isRight(run, end)) end++
          }
          const flow = records.flow[run]
          received.offset = placeOf(run, from)
          received.packetBytes = records.packetBytes[run]
          received.count = end - from
          received.lastBytes = sizeOf(run, end - 1)
          route(flow)
          received.peer = peerOf[flow]
          received.from = flows.recordOf(flow)
          received.identification = from
          port.counters.receivedPackets += received.count
          port.counters.receivedBytes += (received.count - 1) * received.packetBytes + received.lastBytes
          if (port.tap !== null) showTap('received', 'passed', run, from, end)
          // wrong packets behind it are skipped now, so that the run can be released with its last correct packet
          cursor = end < packets ? skipWrong(run, end) : end
          if (cursor === packets) advance()
          outstanding = true
          return true
        }
        if (!outstanding) freeToHead()
        return false
      },
      release: () => {
        outstanding = false
        freeToHead()
      },
      requireSeal: change => {
        seals += change
        sealsWanted += change
      },
      takeRoom: bytes => {
        requireRunBytes(bytes)
        const buffer = closed ? -1 : big.take(me)
        return buffer < 0 ? -1 : big.offsetOf(buffer)
      },
      giveRoom: offset => big.give(big.bufferAt(offset)),

      nextTimeout: () => Number.POSITIVE_INFINITY,
      onTimeout: () => {},
      close: () => {
        if (closed) return
        closed = true
        endReservation()
        while (head >= 0) advance()
        freeToHead()
        for (const address of own) addresses.drop(address)
        for (let group = 0; group < members.length; group++) leave(group)
        flows.closeAll(me)
        sealsWanted -= seals
        seals = 0
        links[me] = undefined
        big.removeOwner(me)
        small.removeOwner(me)
      },
    }

    return {
      port,
      enqueue: run => {
        const wasEmpty = head < 0
        if (tail < 0) oldest = run
        else records.next[tail] = run
        tail = run
        if (wasEmpty) head = run
        waiting++
        if (wasEmpty) port.wake?.()
      },
    }
  }

  return {
    attach: () => {
      // a number whose buffers are in flight cannot be given to another port yet
      const me = links.findIndex((link, i) => link === undefined && big.usedBy(i) === 0 && small.usedBy(i) === 0)
      if (me < 0)
        throw new Error(
          `this memory link has ${runs} run buffers, so at most ${runs} ports, and all of them are in use`,
        )
      big.addOwner(me)
      small.addOwner(me)
      const link = createLink(me)
      links[me] = link
      return link.port
    },
    get waiting() {
      return waiting
    },
    stat: () => ({
      ports: links.filter(link => link !== undefined).length,
      runs: runs - big.free(),
      smallRuns: smallRuns - small.free(),
      flows: flows.size(),
    }),
  }
}
