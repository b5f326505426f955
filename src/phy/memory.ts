/*
 * The memory link (design.md sections 5 and 7): joins the ports of one process. A run goes to the port that has its destination
 * address, which may be the sender's own, without being copied: it is built in a buffer of the shared arena, queued at the
 * destination, read there and given back.
 *
 * The packets are those that the UDP port would send: IPv4 with DF and identification 0, 1, 2 … within a run, an ICRC over it, and the
 * receiver drops what has a wrong one. With sealing on demand ICRCs are made and checked only while somebody wants real bytes.
 *
 * Buffers are of two sizes, so that an acknowledgement never waits for the big ones, and each port has a share of its own. A
 * receiver that does not take its runs stops those who send to it, no others. Knows no queue pairs, no clock and no socket.
 */
import { isMappedIpv4 } from '../wire/address.ts'
import type { Arena } from '../wire/arena.ts'
import { sealIcrc, verifyIcrc } from '../wire/icrc.ts'
import { createFlowTable } from './flow-table.ts'
import { addressWords, createKeyTable } from './key-table.ts'
import { type Fate, noAddress, type Port, type TappedRun } from './port.ts'
import { createRunPool } from './run-pool.ts'

/** The largest run: 16 packets of path MTU 4096, or 256 of path MTU 256, with 256 or 16 bytes of headers each. */
const RUN_BYTES = 69632
const RUN_PACKETS = 256
/** Runs up to this size, acknowledgements above all, have buffers of their own. */
const SMALL_RUN_BYTES = 2048
/** Buffers that a port can always have, whatever the others do (fewer with very many ports). */
const SHARE = 4
const SMALL_SHARE = 32
const PATH_MTU = 4096
/** BTH and ICRC. */
const SHORTEST_PACKET = 16

export interface MemorySwitchOptions {
  /** Of at least `memorySwitchBytes(runs, smallRuns)` bytes; the link uses that many from 0 on. */
  readonly arena: Arena
  /** Run buffers of 68 KiB, 64 by default. It is also the largest number of ports. */
  readonly runs?: number
  /** Run buffers of 2 KiB, 256 by default. */
  readonly smallRuns?: number
  /** `demand`: no ICRCs unless a tap or a layer wants them. Default `always`. */
  readonly sealing?: 'always' | 'demand'
}

export interface MemorySwitch {
  /** One more port. Throws when there are as many as run buffers. */
  attach(): Port
  /** Runs that wait at some port to be received. */
  readonly waiting: number
  /** Buffers in use and flows open or under way: 0 when all ports are closed. */
  stat(): { ports: number; runs: number; smallRuns: number; flows: number }
}

const DEFAULT_RUNS = 64
const DEFAULT_SMALL_RUNS = 256

/** Bytes of arena that a memory link with so many buffers needs. */
export const memorySwitchBytes = (runs: number = DEFAULT_RUNS, smallRuns: number = DEFAULT_SMALL_RUNS): number =>
  runs * RUN_BYTES + smallRuns * SMALL_RUN_BYTES

export const createMemorySwitch = (options: MemorySwitchOptions): MemorySwitch => {
  const { arena, runs = DEFAULT_RUNS, smallRuns = DEFAULT_SMALL_RUNS, sealing = 'always' } = options
  if (arena.bytes.length < memorySwitchBytes(runs, smallRuns))
    throw new RangeError(
      `a memory link with ${runs} runs and ${smallRuns} small runs needs an arena of ${memorySwitchBytes(runs, smallRuns)} bytes, not ${arena.bytes.length}`,
    )
  const big = createRunPool(0, RUN_BYTES, runs, runs, SHARE)
  const small = createRunPool(runs * RUN_BYTES, SMALL_RUN_BYTES, smallRuns, runs, SMALL_SHARE)
  const flows = createFlowTable()
  const addresses = createKeyTable(4)
  const portOfAddress: number[] = []
  /** By flow: the port that it leads to (-1: none) and the number that its source has there, as of `routeVersion`. */
  const routeOf: number[] = []
  const peerOf: number[] = []
  const routeVersion: number[] = []
  /** Ports by number; a closed one's number is taken again once its buffers are back. */
  const links: (Link | undefined)[] = new Array(runs).fill(undefined)
  const scratch = new Uint32Array(4)
  let sealsWanted = sealing === 'always' ? 1 : 0
  let waiting = 0

  // What lies in a buffer. The big ones come first, then the small ones.
  const buffers = runs + smallRuns
  const packetBytes = new Int32Array(buffers)
  const count = new Int32Array(buffers)
  const lastBytes = new Int32Array(buffers)
  const flowOf = new Int32Array(buffers)
  const offsetOf = new Int32Array(buffers)
  const sealed = new Uint8Array(buffers)
  const queueMask = (1 << (32 - Math.clz32(buffers))) - 1

  /** Looks up where a flow leads, unless nothing has changed since the last time. */
  const route = (flow: number): number => {
    const version = addresses.version + flows.version
    if (routeVersion[flow] !== version) {
      const address = addresses.find(flows.words, flows.destinationAt(flow))
      const port = address < 0 ? -1 : portOfAddress[address]
      routeOf[flow] = port
      peerOf[flow] = port < 0 ? -1 : flows.peerOf(port, flows.words, flows.sourceAt(flow))
      routeVersion[flow] = version
    }
    return routeOf[flow]
  }

  const giveBuffer = (buffer: number): void => {
    if (buffer < runs) big.give(buffer)
    else small.give(buffer - runs)
  }
  const takeBuffer = (owner: number, bytes: number): number => {
    if (bytes <= SMALL_RUN_BYTES) {
      const buffer = small.take(owner)
      if (buffer >= 0) return buffer + runs
    }
    return big.take(owner)
  }
  const startOf = (buffer: number): number => (buffer < runs ? big.offsetOf(buffer) : small.offsetOf(buffer - runs))
  const endOf = (buffer: number): number => startOf(buffer) + (buffer < runs ? RUN_BYTES : SMALL_RUN_BYTES)
  const sizeOf = (buffer: number, packet: number): number =>
    packet === count[buffer] - 1 ? lastBytes[buffer] : packetBytes[buffer]

  const sealRun = (buffer: number): void => {
    const flow = flows.icrcFlowOf(flowOf[buffer])
    for (let i = 0; i < count[buffer]; i++)
      sealIcrc(arena, offsetOf[buffer] + i * packetBytes[buffer], sizeOf(buffer, i), flow, i)
    sealed[buffer] = 1
  }
  const isRight = (buffer: number, packet: number): boolean =>
    verifyIcrc(
      arena,
      offsetOf[buffer] + packet * packetBytes[buffer],
      sizeOf(buffer, packet),
      flows.icrcFlowOf(flowOf[buffer]),
      packet,
    )

  /** One tapped run for all ports: a tap may not keep it. */
  const tapped: TappedRun = {
    direction: 'sent',
    fate: 'passed',
    arena,
    offset: 0,
    packetBytes: 0,
    count: 0,
    lastBytes: 0,
    flow: noAddress,
    identification: 0,
  }

  /** The receiving side of a port: a ring of buffers, those given to the receiver and not yet released first. */
  interface Link {
    readonly port: Port
    enqueue(buffer: number): void
  }

  const createLink = (me: number): Link => {
    const queue = new Int32Array(queueMask + 1)
    let released = 0
    let head = 0
    let tail = 0
    /** First packet of the run at `head` that was not handed out. */
    let cursor = 0
    let outstanding = false
    let reserved = -1
    let closed = false
    let seals = 0
    const own: number[] = []

    const showTap = (direction: 'sent' | 'received', fate: Fate, buffer: number, from: number, end: number): void => {
      tapped.direction = direction
      tapped.fate = fate
      tapped.arena = arena
      tapped.offset = offsetOf[buffer] + from * packetBytes[buffer]
      tapped.packetBytes = packetBytes[buffer]
      tapped.count = end - from
      tapped.lastBytes = sizeOf(buffer, end - 1)
      tapped.flow = flows.recordOf(flowOf[buffer])
      tapped.identification = from
      port.tap?.(tapped)
    }

    const freeTo = (end: number): void => {
      for (; released !== end; released = (released + 1) & queueMask) {
        const buffer = queue[released]
        flows.drop(flowOf[buffer])
        giveBuffer(buffer)
      }
    }

    /** Counts and passes packets with wrong ICRCs; the first right one from `from` on, or the run's end. */
    const skipWrong = (buffer: number, from: number): number => {
      let packet = from
      while (packet < count[buffer] && !isRight(buffer, packet)) {
        port.counters.icrcErrors++
        if (port.tap !== null) showTap('received', 'wrong icrc', buffer, packet, packet + 1)
        packet++
      }
      return packet
    }
    const advance = (): void => {
      head = (head + 1) & queueMask
      cursor = 0
      waiting--
    }

    const port: Port = {
      arena,
      maxPackets: RUN_PACKETS,
      maxBytes: RUN_BYTES,
      pathMtu: PATH_MTU,
      counters: { sentPackets: 0, sentBytes: 0, receivedPackets: 0, receivedBytes: 0, icrcErrors: 0, dropped: 0 },
      wake: null,
      tap: null,

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
      openFlow: address => flows.open(me, address),
      closeFlow: flow => flows.close(me, flow),
      peerOf: address => {
        addressWords(address, scratch, 0)
        return flows.peerOf(me, scratch, 0)
      },

      reserve: bytes => {
        if (bytes > RUN_BYTES) throw new RangeError(`a run has at most ${RUN_BYTES} bytes, not ${bytes}`)
        if (reserved >= 0) giveBuffer(reserved)
        reserved = closed ? -1 : takeBuffer(me, bytes)
        return reserved < 0 ? -1 : startOf(reserved)
      },
      commit: (offset, packet, packets, last, flow) => {
        const buffer = reserved
        if (buffer < 0) throw new Error('commit without reserve')
        const total = (packets - 1) * packet + last
        if (
          packets < 1 ||
          packets > RUN_PACKETS ||
          last < SHORTEST_PACKET ||
          last > packet ||
          offset < startOf(buffer) ||
          offset + total > endOf(buffer)
        )
          throw new RangeError(
            `a run of ${packets} packets of ${packet} bytes, the last of ${last}, at ${offset} does not fit the room reserved`,
          )
        if (!flows.isOpen(me, flow)) throw new Error(`flow ${flow} is not open`)
        reserved = -1
        offsetOf[buffer] = offset
        packetBytes[buffer] = packet
        count[buffer] = packets
        lastBytes[buffer] = last
        flowOf[buffer] = flow
        sealed[buffer] = 0
        if (sealsWanted > 0) sealRun(buffer)
        port.counters.sentPackets += packets
        port.counters.sentBytes += total
        if (port.tap !== null) showTap('sent', 'passed', buffer, 0, packets)
        const to = route(flow)
        if (to < 0) {
          port.counters.dropped += packets
          giveBuffer(buffer)
          return
        }
        flows.hold(flow)
        links[to]?.enqueue(buffer)
      },
      flush: () => {},

      receive: run => {
        while (head !== tail) {
          const buffer = queue[head]
          if (sealsWanted > 0 && !sealed[buffer]) sealRun(buffer)
          const packets = count[buffer]
          const from = sealed[buffer] ? skipWrong(buffer, cursor) : cursor
          if (from === packets) {
            advance()
            continue
          }
          let end = packets
          if (sealed[buffer]) {
            end = from + 1
            while (end < packets && isRight(buffer, end)) end++
          }
          run.offset = offsetOf[buffer] + from * packetBytes[buffer]
          run.packetBytes = packetBytes[buffer]
          run.count = end - from
          run.lastBytes = sizeOf(buffer, end - 1)
          route(flowOf[buffer])
          run.peer = peerOf[flowOf[buffer]]
          run.from = flows.recordOf(flowOf[buffer])
          run.identification = from
          port.counters.receivedPackets += run.count
          port.counters.receivedBytes += (run.count - 1) * run.packetBytes + run.lastBytes
          if (port.tap !== null) showTap('received', 'passed', buffer, from, end)
          // What is wrong behind it is passed now, so that the run is done with when its last good packet is released.
          cursor = end < packets ? skipWrong(buffer, end) : end
          if (cursor === packets) advance()
          outstanding = true
          return true
        }
        if (!outstanding) freeTo(head)
        return false
      },
      release: () => {
        outstanding = false
        freeTo(head)
      },
      requireSeal: change => {
        seals += change
        sealsWanted += change
      },
      takeRoom: bytes => {
        if (bytes > RUN_BYTES) throw new RangeError(`room is at most ${RUN_BYTES} bytes, not ${bytes}`)
        const buffer = closed ? -1 : big.take(me)
        return buffer < 0 ? -1 : big.offsetOf(buffer)
      },
      giveRoom: offset => big.give(big.bufferAt(offset)),

      nextTimeout: () => Number.POSITIVE_INFINITY,
      onTimeout: () => {},
      close: () => {
        if (closed) return
        closed = true
        if (reserved >= 0) giveBuffer(reserved)
        reserved = -1
        while (head !== tail) advance()
        freeTo(head)
        for (const address of own) addresses.drop(address)
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
      enqueue: buffer => {
        const wasEmpty = head === tail
        queue[tail] = buffer
        tail = (tail + 1) & queueMask
        waiting++
        if (wasEmpty) port.wake?.()
      },
    }
  }

  return {
    attach: () => {
      // A number whose buffers are still under way somewhere cannot be shared yet.
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
      runs: runs - big.free,
      smallRuns: smallRuns - small.free,
      flows: flows.size,
    }),
  }
}

/** An address for people: a.b.c.d, or IPv6 in groups without compression. */
const addressText = (address: Uint8Array): string =>
  isMappedIpv4(address)
    ? address.subarray(12).join('.')
    : Array.from({ length: 8 }, (_, i) => ((address[2 * i] << 8) | address[2 * i + 1]).toString(16)).join(':')
