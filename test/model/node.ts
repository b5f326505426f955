/*
 * One engine of the model test, with client memory, work queues and a port that hands packets to the link; the only
 * file here that creates an engine. The port is full at times; the queues are plain lists, because tests of drivers/rxe
 * cover rings. Time is virtual.
 */
import { Service } from '../../src/spec/wire/services.ts'
import { createEngine, type Engine } from '../../src/transport/engine.ts'
import {
  BindMw,
  Completion,
  Receive,
  Send,
  Sge,
  type TransmitSink,
  type WorkSource,
} from '../../src/transport/types.ts'
import { type Arena, plainArena } from '../../src/wire/arena.ts'
import { addressHi, addressLo, type ClientMemory, createMemory, type Observer } from './memory.ts'
import type { RandomSource } from './random.ts'

export interface Element {
  /** Offset in client memory. */
  readonly at: number
  readonly length: number
  readonly key: number
}

export interface SendRequest {
  readonly id: number
  /** ibv_wr_opcode. */
  readonly opcode: number
  /** ibv_send_flags; of XRC also the number of the peer's SRQ, from bit 8 on. */
  readonly flags: number
  readonly sges: readonly Element[]
  readonly inline?: Uint8Array | undefined
  readonly imm: number
  /** Offset in the peer's client memory. */
  readonly remote: number
  readonly rkey: number
  /** Operands of atomics (FETCH_AND_ADD adds `compare`), and the arguments of a FLUSH (requests.ts). */
  readonly compare: bigint
  readonly swap: bigint
  /** BIND_MW: the window's key and its range. */
  readonly bind?: { readonly window: number; readonly at: number; readonly length: number; readonly access: number }
  /** A datagram: destination queue pair, Q_Key (top bit: the sender's own) and node. */
  readonly datagram?: { readonly qpn: number; readonly qkey: number; readonly node: number } | undefined
  /** An ibv_wc_status with which the work queue refuses it, or 0. */
  readonly refused: number
}

export interface ReceiveRequest {
  readonly id: number
  readonly sges: readonly Element[]
}

/** A completion of the engine. */
export interface Completed {
  readonly id: number
  readonly status: number
  readonly opcode: number
  readonly bytes: number
  readonly imm: number
  readonly qpn: number
  readonly sourceQpn: number
  readonly flags: number
  readonly isSolicited: boolean
}

/** Queues of one queue pair. `first`: number of the oldest send request still stored. */
export interface Queues {
  sends: SendRequest[]
  first: number
  receives: ReceiveRequest[]
  /** The receive queue is the SRQ of this number, which has this protection domain and CQ. */
  readonly shared?: { readonly srqn: number; readonly pd: number; readonly cq: number } | undefined
}

/** Creation attributes of a queue pair. */
export interface QpSpec {
  /** A `Service` value. */
  readonly service: number
  readonly qpn: number
  readonly pd: number
  readonly sendCq: number
  readonly recvCq: number
  readonly maxSge: number
  readonly sqSigAll: boolean
  /** Number of its SRQ. */
  readonly srqn?: number | undefined
}

export interface NodeHooks extends Observer {
  /** `cq` is the CQ of the queue pair. */
  completed(cq: number, completion: Completed): void
  event(row: number, type: number): void
  /** A packet leaves. `bytes` is a copy, with room for the ICRC. */
  sent(bytes: Uint8Array, flow: number): void
}

export interface NodeOptions {
  readonly memoryBytes: number
  /** Options of the engine (`createEngine`). */
  readonly windowBytes?: number | undefined
  readonly boundReads?: boolean | undefined
  readonly pacingInterval?: number | undefined
  readonly sharedWindowBytes?: number | undefined
  /** Maximum packets and bytes of a run that the port accepts. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** Arena of received packets; by default a new one of 256 KiB. */
  readonly arrivals?: Arena
}

export interface ModelNode {
  readonly engine: Engine
  readonly memory: ClientMemory
  /** By row. */
  readonly queues: Queues[]
  /** Creates a queue pair in RESET; returns its row. */
  create(qp: QpSpec): number
  /**
   * Passes one run of packets to the engine; `rowOf`: the row of the packet's destination, negative if there is none.
   */
  receive(packets: readonly Uint8Array[], rowOf: (bytes: Uint8Array) => number, peer: number, now: number): void
  /** Sends what the port accepts; true if the port was full and this has to be called again. */
  transmit(now: number): boolean
}

/** Length of the GRH before a datagram's payload, in bytes. */
export const GRH_BYTES = 40
/** Every byte of the GRHs that this node writes. */
export const GRH_FILL = 0x47
/** Bytes at the end of the receive arena for one GRH and the payload of a datagram. */
const GRH_AND_PAYLOAD_BYTES = GRH_BYTES + 4096
/** Offset of the first packet in the arenas of this node. */
const FIRST_PACKET = 64
/**
 * Fill of the first bytes that the engine reserves, all of which it must write, and of packets that it has handled,
 * which it must not read again.
 */
const RESERVED_FILL = 0xdb
const HANDLED_FILL = 0xee
/** An empty protection domain. */
const NO_DOMAIN = 0xdead

const u32 = (value: bigint, shift: bigint): number => Number((value >> shift) & 0xffff_ffffn)

const putElements = (sges: readonly Element[], into: Uint32Array, at: number): number => {
  let total = 0
  sges.forEach(({ at: offset, length, key }, i) => {
    const word = at + i * Sge.WORDS
    into[word + Sge.LO] = addressLo(offset)
    into[word + Sge.HI] = addressHi(offset)
    into[word + Sge.LENGTH] = length
    into[word + Sge.LKEY] = key
    total += length
  })
  return total
}

const workOf = (queues: readonly Queues[]): WorkSource => ({
  loadSend(row, index, into, at) {
    const queue = queues[row]
    const request = queue.sends[index - queue.first]
    if (request === undefined) return false
    into.fill(0, at, at + Send.SGE)
    into[at + Send.OPCODE] = request.opcode
    into[at + Send.FLAGS] = request.flags
    into[at + Send.ID_LO] = request.id
    into[at + Send.SGES] = request.sges.length
    into[at + Send.LENGTH] = putElements(request.sges, into, at + Send.SGE)
    if (request.inline !== undefined) into[at + Send.LENGTH] = request.inline.length
    into[at + Send.IMM] = request.imm
    into[at + Send.RKEY] = request.rkey
    into[at + Send.REMOTE_LO] = addressLo(request.remote)
    into[at + Send.REMOTE_HI] = addressHi(request.remote)
    into[at + Send.COMPARE_LO] = u32(request.compare, 0n)
    into[at + Send.COMPARE_HI] = u32(request.compare, 32n)
    into[at + Send.SWAP_LO] = u32(request.swap, 0n)
    into[at + Send.SWAP_HI] = u32(request.swap, 32n)
    into[at + Send.INLINE_AT] = index
    into[at + Send.REFUSED] = request.refused
    if (request.datagram !== undefined) {
      into[at + Send.DEST_QPN] = request.datagram.qpn
      into[at + Send.QKEY] = request.datagram.qkey
      into[at + Send.FLOW] = request.datagram.node
    }
    if (request.bind !== undefined) {
      const { window, at: from, length, access } = request.bind
      into[at + BindMw.WINDOW] = window
      into[at + BindMw.KEY] = window
      into[at + BindMw.HI] = addressHi(from)
      into[at + BindMw.LO] = addressLo(from)
      into[at + BindMw.LENGTH_HI] = 0
      into[at + BindMw.LENGTH_LO] = length
      into[at + BindMw.ACCESS] = access
    }
    return true
  },
  retireSend(row, count) {
    const queue = queues[row]
    if (count > queue.sends.length) throw new Error('more requests are retired than were posted')
    queue.sends.splice(0, count)
    queue.first += count
  },
  copyInline(row, inlineAt, from, to: Arena, at, chunk, stride, total) {
    const data = queues[row].sends[inlineAt - queues[row].first]?.inline
    if (data === undefined) throw new Error('inline data of a request that was retired')
    for (let done = 0, piece = at; done < total; done += chunk, piece += stride)
      to.bytes.set(data.subarray(from + done, from + done + Math.min(chunk, total - done)), piece)
  },
  selectShared(row, srqn, into) {
    const shared = queues[row].shared
    if (shared?.srqn !== srqn) return false
    into[0] = shared.pd
    into[1] = shared.cq
    return true
  },
  takeReceive(row, into, at) {
    const request = queues[row].receives.shift()
    if (request === undefined) return false
    into[at + Receive.ID_LO] = request.id
    into[at + Receive.ID_HI] = 0
    into[at + Receive.SGES] = request.sges.length
    into[at + Receive.LENGTH] = putElements(request.sges, into, at + Receive.SGE)
    return true
  },
})

export const createNode = (options: NodeOptions, hooks: NodeHooks, random: RandomSource): ModelNode => {
  const memory = createMemory(options.memoryBytes, hooks)
  const queues: Queues[] = []
  const { windowBytes, sharedWindowBytes, boundReads, pacingInterval, maxPackets, maxBytes } = options
  const engine = createEngine(
    {
      work: workOf(queues),
      memory: memory.engineMemory,
      completions: {
        push(cq, completion, isSolicited) {
          hooks.completed(cq, {
            id: completion[Completion.ID_LO],
            status: completion[Completion.STATUS],
            opcode: completion[Completion.OPCODE],
            bytes: completion[Completion.BYTES],
            imm: completion[Completion.IMM],
            qpn: completion[Completion.QPN],
            sourceQpn: completion[Completion.SRC_QPN],
            flags: completion[Completion.FLAGS],
            isSolicited,
          })
        },
      },
      events: { raise: (row, type) => hooks.event(row, type) },
      route: {
        header(into) {
          const at = into.bytes.length - GRH_AND_PAYLOAD_BYTES
          into.bytes.fill(GRH_FILL, at, at + GRH_BYTES)
          return at
        },
      },
    },
    {
      ...(windowBytes !== undefined && { windowBytes }),
      ...(boundReads !== undefined && { boundReads }),
      ...(pacingInterval !== undefined && { pacingInterval }),
      ...(sharedWindowBytes !== undefined && { sharedWindowBytes }),
    },
  )

  const arena = plainArena(maxBytes + FIRST_PACKET)
  let remainingRuns = 0
  const sink: TransmitSink = {
    arena,
    maxPackets,
    maxBytes,
    reserve(bytes) {
      if (bytes > maxBytes) throw new Error(`${bytes} bytes are reserved, of at most ${maxBytes}`)
      if (remainingRuns <= 0) return -1
      remainingRuns--
      arena.bytes.fill(RESERVED_FILL, 0, Math.min(256, maxBytes))
      return FIRST_PACKET
    },
    commit(offset, packetBytes, count, lastBytes, flow) {
      const end = offset + (count - 1) * packetBytes + lastBytes
      if (offset < FIRST_PACKET || end > FIRST_PACKET + maxBytes || count > maxPackets || lastBytes > packetBytes)
        throw new Error(`a run of ${count} × ${packetBytes}, last ${lastBytes}, at ${offset} does not fit its room`)
      for (let i = 0, at = offset; i < count; i++, at += packetBytes)
        hooks.sent(arena.bytes.slice(at, at + (i === count - 1 ? lastBytes : packetBytes)), flow)
    },
  }

  const arrivals = options.arrivals ?? plainArena(0x4_0000)
  return {
    engine,
    memory,
    queues,
    create({ maxSge, srqn, ...init }) {
      const hasSrq = srqn !== undefined
      // An XRC target uses the domain of the SRQ that a request names.
      const pd = init.service === Service.XRC_TGT ? NO_DOMAIN : init.pd
      const row = engine.create({ ...init, pd, hasSrq, maxSendSge: maxSge, maxRecvSge: maxSge })
      const shared = srqn === undefined ? undefined : { srqn, pd: init.pd, cq: init.recvCq }
      queues[row] = { sends: [], first: 0, receives: [], shared }
      return row
    },
    receive(packets, rowOf, peer, now) {
      if (arrivals.bytes.length < FIRST_PACKET + packets.length * packets[0].length + GRH_AND_PAYLOAD_BYTES)
        throw new Error('too many packets in one run')
      const size = packets[0].length
      let end = FIRST_PACKET
      for (const bytes of packets) {
        arrivals.bytes.set(bytes, end)
        end += bytes.length
      }
      let at = FIRST_PACKET
      for (let i = 0; i < packets.length; ) {
        const remaining = packets.length - i
        const row = rowOf(packets[i])
        const last = packets[packets.length - 1].length
        const taken = row < 0 ? 1 : engine.onRun(row, arrivals, at, size, remaining, last, peer, now)
        if (taken < 1 || taken > remaining) throw new Error(`${taken} of ${remaining} packets are taken`)
        i += taken
        at += taken * size
      }
      engine.endBurst()
      arrivals.bytes.fill(HANDLED_FILL, FIRST_PACKET, end)
    },
    transmit(now) {
      // The port is full at times: the engine has to retry where it stopped.
      remainingRuns = random.hits(0.1) ? random.int(3) : 1_000_000
      let hasMore = engine.pollTransmit(sink, now)
      while (hasMore && remainingRuns > 0) hasMore = engine.pollTransmit(sink, now)
      return hasMore
    },
  }
}
