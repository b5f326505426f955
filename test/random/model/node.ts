/*
 * One engine of the model test, with client memory, work queues and a port, which is full at times. The queues are
 * plain lists: tests of drivers/rxe cover rings.
 */
import { Service } from '../../../src/spec/wire/services.ts'
import { createEngine, type Engine } from '../../../src/transport/engine/engine.ts'
import { PollResult } from '../../../src/transport/engine/scheduling.ts'
import {
  BindMw,
  Completion,
  DatagramPath,
  Receive,
  type TransmitSink,
  type WorkSource,
} from '../../../src/transport/engine/types.ts'
import { type Arena, plainArena } from '../../../src/transport/wire/arena.ts'
import {
  completionOf,
  copyInlineData,
  type ElementWords,
  engineOptions,
  packetsOf,
  putElements,
  putSend,
} from '../../transport/engine/node-parts.ts'
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
  /** ibv_wr_opcode */
  readonly opcode: number
  /** ibv_send_flags; for XRC, bits 8 and up are the number of the peer's SRQ. */
  readonly flags: number
  readonly sges: readonly Element[]
  readonly inline?: Uint8Array | undefined
  readonly imm: number
  /** Offset in the peer's client memory. */
  readonly remote: number
  readonly rkey: number
  /** Operands of atomics (FETCH_AND_ADD adds `compare`), and arguments of a FLUSH (requests.ts). */
  readonly compare: bigint
  readonly swap: bigint
  /** BIND_MW; `window`: its key. */
  readonly bind?: { readonly window: number; readonly at: number; readonly length: number; readonly access: number }
  /** A `qkey` with the top bit set stands for the sender's own Q_Key. */
  readonly datagram?: { readonly qpn: number; readonly qkey: number; readonly node: number } | undefined
  /** 0, or the ibv_wc_status with which the work queue refuses the request. */
  readonly refused: number
}

export interface ReceiveRequest {
  readonly id: number
  readonly sges: readonly Element[]
}

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

/** `first`: number of the oldest send request in `sends`. */
interface Queues {
  sends: SendRequest[]
  first: number
  receives: ReceiveRequest[]
  /** The SRQ, if the queue pair has one. */
  readonly shared?: { readonly srqn: number; readonly pd: number; readonly cq: number } | undefined
}

interface QpSpec {
  /** `Service` */
  readonly service: number
  readonly qpn: number
  readonly pd: number
  readonly sendCq: number
  readonly recvCq: number
  readonly maxSge: number
  readonly sqSigAll: boolean
  /** Undefined: the queue pair has no SRQ. */
  readonly srqn?: number | undefined
}

interface NodeHooks extends Observer {
  completed(cq: number, completion: Completed): void
  event(row: number, type: number): void
  /** `bytes`: a copy of the packet, with room for the ICRC. */
  sent(bytes: Uint8Array, flow: number): void
}

interface NodeOptions {
  readonly memoryBytes: number
  /** Of the engine (`createEngine`). */
  readonly windowBytes?: number | undefined
  readonly boundReads?: boolean | undefined
  readonly pacingInterval?: number | undefined
  readonly sharedWindowBytes?: number | undefined
  /** Limits of a run. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** For received packets; default: 256 KiB. */
  readonly arrivals?: Arena
}

export interface ModelNode {
  readonly engine: Engine
  readonly memory: ClientMemory
  /** By row. */
  readonly queues: Queues[]
  /** Returns the row of the queue pair, which is in RESET. */
  create(qp: QpSpec): number
  /** Passes a run to the engine; `rowOf`: of the packet's destination, negative if there is none. */
  receive(packets: readonly Uint8Array[], rowOf: (bytes: Uint8Array) => number, peer: number, now: number): void
  /** Sends what the port accepts; returns whether there is more to send. */
  transmit(now: number): boolean
}

/** Bytes of the GRH before a datagram's payload. */
export const GRH_BYTES = 40
/** Every byte of the GRHs that this node writes. */
export const GRH_FILL = 0x47
/** For a GRH and the payload of a datagram, at the end of the receive arena. */
const GRH_AND_PAYLOAD_BYTES = GRH_BYTES + 4096
/** Offset in the arenas. */
const FIRST_PACKET = 64
/** Fills the first bytes of a reservation, which the engine must overwrite. */
const RESERVED_FILL = 0xdb
const RESERVED_FILL_BYTES = 256
/** Fills handled packets, which the engine must not read again. */
const HANDLED_FILL = 0xee
/** No region has this protection domain. */
const NO_DOMAIN = 0xdead

const elementsOf = (sges: readonly Element[]): readonly ElementWords[] =>
  sges.map(({ at, length, key }) => ({ address: [addressLo(at), addressHi(at)], length, key }))

const workOf = (queues: readonly Queues[]): WorkSource => ({
  loadSend(row, index, into, at) {
    const queue = queues[row]
    const request = queue.sends[index - queue.first]
    if (request === undefined) return false
    const { remote, datagram, sges, inline } = request
    putSend(
      {
        ...request,
        idHigh: 0,
        elements: elementsOf(sges),
        inline,
        remote: [addressLo(remote), addressHi(remote)],
        inlineAt: index,
        to: datagram && { ...datagram, flow: datagram.node },
      },
      into,
      at,
    )
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
    copyInlineData(data, from, to, at, chunk, stride, total)
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
    into[at + Receive.LENGTH] = putElements(elementsOf(request.sges), into, at + Receive.SGE)
    return true
  },
})

export const createNode = (options: NodeOptions, hooks: NodeHooks, random: RandomSource): ModelNode => {
  const memory = createMemory(options.memoryBytes, hooks)
  const queues: Queues[] = []
  const { maxPackets, maxBytes } = options
  const engine = createEngine(
    {
      work: workOf(queues),
      memory: memory.engineMemory,
      completions: {
        push(cq, completion, isSolicited) {
          hooks.completed(cq, {
            ...completionOf(completion),
            sourceQpn: completion[Completion.SRC_QPN],
            isSolicited,
          })
        },
      },
      events: { raise: (row, type) => hooks.event(row, type) },
      grh: {
        path: DatagramPath.HAS_GRH,
        header(into) {
          const at = into.bytes.length - GRH_AND_PAYLOAD_BYTES
          into.bytes.fill(GRH_FILL, at, at + GRH_BYTES)
          return at
        },
      },
    },
    engineOptions(options),
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
      arena.bytes.fill(RESERVED_FILL, 0, Math.min(RESERVED_FILL_BYTES, maxBytes))
      return FIRST_PACKET
    },
    commit(offset, packetBytes, count, lastBytes, flow) {
      const end = offset + (count - 1) * packetBytes + lastBytes
      if (offset < FIRST_PACKET || end > FIRST_PACKET + maxBytes || count > maxPackets || lastBytes > packetBytes)
        throw new Error(`a run of ${count} × ${packetBytes}, last ${lastBytes}, at ${offset} does not fit its room`)
      for (const bytes of packetsOf(arena, offset, packetBytes, count, lastBytes)) hooks.sent(bytes, flow)
    },
  }

  const arrivals = options.arrivals ?? plainArena(0x4_0000)
  return {
    engine,
    memory,
    queues,
    create({ maxSge, srqn, ...init }) {
      const hasSrq = srqn !== undefined
      // An XRC target uses the protection domain of the SRQ.
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
        const lastSize = packets[packets.length - 1].length
        const taken = row < 0 ? 1 : engine.onRun(row, arrivals, at, size, remaining, lastSize, peer, now)
        if (taken < 1 || taken > remaining) throw new Error(`${taken} of ${remaining} packets are taken`)
        i += taken
        at += taken * size
      }
      engine.endBurst()
      arrivals.bytes.fill(HANDLED_FILL, FIRST_PACKET, end)
    },
    transmit(now) {
      // Sometimes the port is full after a few runs: the engine must continue where it stopped.
      remainingRuns = random.hits(0.1) ? random.int(3) : 1_000_000
      let result = engine.pollTransmit(sink, now)
      while (result !== PollResult.DONE && remainingRuns > 0) result = engine.pollTransmit(sink, now)
      return result !== PollResult.DONE
    },
  }
}
