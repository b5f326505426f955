/*
 * Fuzz target for the engine (src/transport/engine/). An input (engine-program.ts) acts as peer, user and clock for
 * queue pairs of all services. Only registered memory may change, every request completes at most once and in order,
 * and no state may remain at the end.
 */
import assert from 'node:assert/strict'
import { headerAt, OP_REQUEST, opcodeFlags } from '../../../src/spec/wire/opcodes.ts'
import { Service, serviceBits } from '../../../src/spec/wire/services.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { checkPacket } from '../../../src/transport/wire/packet.ts'
import { addressHi, addressLo } from '../model/memory.ts'
import { createNode, type ModelNode } from '../model/node.ts'
import { createRandomSource } from '../model/random.ts'
import { HEAD_BYTES, PacketFlag, RecordKind, type Step, seedPrograms, splitProgram, stepsOf } from './engine-program.ts'
import type { Target } from './fuzzer.ts'

/** The service of each queue pair, by its index. */
const SERVICES = [Service.RC, Service.RC, Service.UC, Service.UD, Service.XRC_INI, Service.XRC_TGT]
const { UD, XRC_INI, XRC_TGT } = Service
/** Queue pair `i` has QPN FIRST_QPN + i. */
const FIRST_QPN = 0x10
const PEER_QPN = 0x99
/** Number of the node that is the peer of all queue pairs. */
const PEER = 1
const QKEY = 0x1234_5678
const SRQN = 0x77
/** Bytes of each registered area: one area is for local elements, one for the peer. */
const AREA = 0x2000
// queue pair `i` has the keys LOCAL_KEY + i, REMOTE_KEY + i, and WINDOW_KEY + 16 * i and following
const LOCAL_KEY = 0x1110
const REMOTE_KEY = 0x2220
const UNKNOWN_KEY = 0x666
const WINDOW_KEY = 0x3330
const WINDOWS = 4
const MTUS = [256, 512, 1024, 2048, 4096]
/** Maximum number of outstanding sends of a queue pair, and maximum number of outstanding receives. */
const MAX_OUTSTANDING = 20
const { LOCAL_INV, BIND_MW, SEND_WITH_INV } = WrOpcode.values
/** States of queue pairs (enum ibv_qp_state). */
const [RESET, INIT, RTR, RTS, SQD, SQE, ERR] = [0, 1, 2, 3, 4, 5, 6]
/** Next states that an input may request, by the current state. */
const TRANSITIONS: readonly (readonly number[])[] = [
  [INIT, ERR],
  [INIT, RTR, RESET, ERR],
  [RTS, RESET, ERR],
  [RTS, SQD, RESET, ERR],
  [RTS, SQD, RESET, ERR],
  [RTS, RESET, ERR],
  [RESET],
]
const REMOTE_ACCESS = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC
const { FLUSH_GLOBAL } = Access
const ALL_ACCESS = Access.LOCAL_WRITE | REMOTE_ACCESS | FLUSH_GLOBAL
/** More bytes than the longest packet has: the longest payload has 4096. */
const MAX_PACKET = 4096 + 60
/** More words of the engine's pool than a queue pair with MAX_OUTSTANDING sends and receives takes. */
const MAX_POOL_WORDS = 40 * 64
/** Maximum packets that arrive together. */
const MAX_JOINED = 7
/** Kinds of features (fuzzer.ts). The other bits of a feature's number say what happened. */
const Feature = { COMPLETION: 0x4000, EVENT: 0x5000, SENT: 0x6000, ARRIVAL: 0x1_0000 } as const

/** The memory of received packets, for all runs. */
const arrivals = plainArena(0x1_0000)

/** IDs of sends and IDs of receives count from 0 after each RESET. */
interface QueuePair {
  /** The engine's number of the queue pair. */
  readonly row: number
  posted: number
  /** All sends with smaller IDs have ended, with or without a completion. */
  completed: number
  postedReceives: number
  completedReceives: number
}

/** Byte `n` of a record's arguments; 0 beyond the end of the record. */
type Argument = (n: number) => number

/** One run of an input. */
class EngineRun {
  readonly #feature: (number: number) => void
  readonly #queuePairs: QueuePair[] = []
  readonly #node: ModelNode
  /** Offsets of the two areas in the node's memory. */
  readonly #local: number
  readonly #remote: number
  readonly #memoryBefore: Uint8Array
  /** The time in µs. */
  #now = 0
  /** Opcode of the last packet that arrived. */
  #lastOpcode = 0
  /** Packets that will arrive together. */
  #joined: Uint8Array[] = []
  #deliveredPackets = 0

  constructor(feature: (number: number) => void) {
    this.#feature = feature
    this.#node = this.#createNode()
    this.#local = this.#node.memory.allocate(AREA)
    this.#remote = this.#node.memory.allocate(AREA)
    this.#memoryBefore = this.#node.memory.bytes.slice()
    for (const i of SERVICES.keys()) {
      const { memory } = this.#node
      const pd = 1 + i
      memory.register(LOCAL_KEY + i, pd, this.#local, AREA, Access.LOCAL_WRITE)
      memory.register(REMOTE_KEY + i, pd, this.#remote, AREA, ALL_ACCESS)
      for (let n = 0; n < WINDOWS; n++) memory.addWindow(WINDOW_KEY + 16 * i + n, pd, false)
      this.#createQueuePair(i)
      for (const state of [INIT, RTR, RTS]) this.#changeState(i, state, 0)
    }
  }

  #createNode(): ModelNode {
    return createNode(
      { memoryBytes: 2 * AREA + 0x400, maxPackets: 16, maxBytes: 0x4000, arrivals },
      {
        wrote: region => assert.ok((region.access & (Access.LOCAL_WRITE | Access.REMOTE_WRITE)) !== 0),
        atomic: region => assert.ok((region.access & Access.REMOTE_ATOMIC) !== 0),
        bound: region => assert.ok(region.isWindow),
        invalidated: region => assert.ok(region.isWindow),
        completed: (cq, { id, status }) => this.#onCompletion(cq, id, status),
        event: (_row, type) => this.#feature(Feature.EVENT | type),
        sent: bytes => {
          const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
          assert.equal(checkPacket(view, 0, bytes.length), 0, 'a packet of our engine is malformed')
          this.#feature(Feature.SENT | (this.#lastOpcode << 16) | bytes[0])
        },
      },
      createRandomSource(1),
    )
  }

  /** Queue pair `i` has CQ 2 i for requests and CQ 2 i + 1 for receives. */
  #createQueuePair(i: number): void {
    const service = SERVICES[i]
    const row = this.#node.create({
      service,
      qpn: FIRST_QPN + i,
      pd: 1 + i,
      sendCq: 2 * i,
      recvCq: 2 * i + 1,
      maxSge: 3,
      sqSigAll: i === 1,
      srqn: service === XRC_TGT ? SRQN : undefined,
    })
    this.#queuePairs[i] = { row, posted: 0, completed: 0, postedReceives: 0, completedReceives: 0 }
  }

  /** Each request completes at most once, and in order; receives complete without gaps. */
  #onCompletion(cq: number, id: number, status: number): void {
    const queuePair = this.#queuePairs[cq >> 1]
    const { posted, completed, postedReceives, completedReceives } = queuePair
    this.#feature(Feature.COMPLETION | ((cq & 1) << 8) | status)
    if ((cq & 1) === 0) {
      assert.ok(id >= completed && id < posted, `request ${id} of ${completed}…${posted}`)
      queuePair.completed = id + 1
    } else {
      assert.ok(id === completedReceives && id < postedReceives, `receive ${id}, after ${completedReceives - 1}`)
      queuePair.completedReceives++
    }
  }

  #stateOf(i: number): number {
    return this.#node.engine.query(this.#queuePairs[i].row).state
  }

  /** Moves queue pair `i` to a state. `choice`, a byte, determines the attributes. */
  #changeState(i: number, state: number, choice: number): void {
    const queuePair = this.#queuePairs[i]
    const { engine, queues } = this.#node
    const attributes = {
      [INIT]: { pkeyIndex: 0, qkey: QKEY, access: (choice & 1) !== 0 ? 0 : ALL_ACCESS & ~Access.LOCAL_WRITE },
      [RTR]: {
        destQpn: PEER_QPN,
        // the peer's PSNs begin near the wrap, ours (sqPsn) near 2^23
        rqPsn: (0xff_fffe + choice) & 0xff_ffff,
        pathMtu: MTUS[choice % 5],
        minRnrTimer: choice & 31,
        maxDestRdAtomic: choice & 3 || 2,
        flow: 0,
        peer: PEER,
      },
      [RTS]: { sqPsn: (0x7f_fffe + choice) & 0xff_ffff, timeout: 8, retryCnt: 2, rnrRetry: 1, maxRdAtomic: 2 },
    }
    // of the transitions to RTS, only the one from RTR has attributes
    const hasNoAttributes = state === RTS && this.#stateOf(i) !== RTR
    engine.modify(queuePair.row, state, (hasNoAttributes ? undefined : attributes[state as 1 | 2 | 3]) ?? {})
    if (state !== RESET) return
    Object.assign(queues[queuePair.row], { sends: [], first: 0, receives: [] })
    Object.assign(queuePair, { posted: 0, completed: 0, postedReceives: 0, completedReceives: 0 })
  }

  /** Delivers the packets that arrive together. */
  #deliver(): void {
    const packets = this.#joined
    if (packets.length === 0) return
    this.#joined = []
    // the low byte of the destination QPN selects the queue pair
    const rowOf = (bytes: Uint8Array): number =>
      this.#queuePairs[((bytes[7] - FIRST_QPN) & 255) % this.#queuePairs.length].row
    this.#node.receive(packets, rowOf, PEER, this.#now)
    this.#deliveredPackets += packets.length
  }

  /** The packet of a record, with the fields of PacketFlag corrected. */
  #packetOf(bytes: Uint8Array, { start, end }: Step, i: number, argument: Argument): Uint8Array {
    const flags = argument(0)
    const psnDelta = (argument(1) << 24) >> 24
    const words = (argument(2) << 8) | argument(3)
    const length = Math.min(MAX_PACKET, Math.max(16, words * 4))
    const packet = new Uint8Array(length).fill(0xcd)
    packet.set(bytes.subarray(start + 5, end).subarray(0, Math.min(HEAD_BYTES, length)))
    const view = new DataView(packet.buffer)
    // fields of the BTH
    if ((flags & PacketFlag.SERVICE) !== 0) packet[0] = serviceBits[SERVICES[i]] | (packet[0] & 31)
    const opcode = packet[0]
    if ((flags & PacketFlag.QPN) !== 0) view.setUint32(4, FIRST_QPN + i)
    if ((flags & PacketFlag.PKEY) !== 0) view.setUint16(2, 0xffff)
    if ((flags & PacketFlag.VERSION) !== 0) packet[1] &= 0xf0
    if ((flags & PacketFlag.PSN) !== 0) {
      const { rqPsn, sqPsn } = this.#node.engine.query(this.#queuePairs[i].row)
      const expected = (opcodeFlags[opcode] & OP_REQUEST) !== 0 ? rqPsn : sqPsn - 1
      view.setUint32(8, (view.getUint32(8) & 0xff00_0000) | ((expected + psnDelta) & 0xff_ffff))
    }
    if ((flags & PacketFlag.KEY) === 0) return packet
    const deth = headerAt.DETH[opcode]
    if (deth > 0 && deth + 4 <= length) view.setUint32(deth, QKEY)
    const xrceth = headerAt.XRCETH[opcode]
    if (xrceth > 0 && xrceth + 4 <= length) view.setUint32(xrceth, SRQN)
    const reth = headerAt.RETH[opcode] || headerAt.AtomicETH[opcode]
    if (reth > 0 && reth + 16 <= length) {
      // an address in the area, or up to 64 bytes behind the area
      const offset = this.#remote + (view.getUint32(reth + 4) % (AREA + 64))
      view.setUint32(reth, addressHi(offset))
      view.setUint32(reth + 4, addressLo(offset))
      view.setUint32(reth + 8, REMOTE_KEY + i)
    }
    return packet
  }

  /** A packet arrives. Packets that arrive together have the length of the first; only the last may be shorter. */
  #receivePacket(packet: Uint8Array, i: number, joinsNext: boolean): void {
    this.#lastOpcode = packet[0]
    this.#feature(Feature.ARRIVAL | (this.#stateOf(i) << 8) | packet[0])
    const joined = this.#joined
    const fits = joined.length > 0 && joined.length < MAX_JOINED && packet.length <= joined[0].length
    const hasShortLast = joined.length > 0 && joined[joined.length - 1].length < joined[0].length
    if (!fits || hasShortLast) this.#deliver()
    this.#joined.push(packet)
    if (!joinsNext) this.#deliver()
  }

  #postSend(i: number, argument: Argument): void {
    const queuePair = this.#queuePairs[i]
    const service = SERVICES[i]
    if (queuePair.posted - queuePair.completed >= MAX_OUTSTANDING) return
    if (this.#stateOf(i) === RESET || service === XRC_TGT) return
    const length = ((argument(3) << 8) | argument(4)) % (AREA / 2)
    // may exceed maxSge
    const elements = argument(2) % 5
    const elementLength = Math.floor(length / Math.max(1, elements))
    const key = (argument(6) & 7) === 7 ? UNKNOWN_KEY : LOCAL_KEY + i
    // opcodes that do not exist too
    const opcode = argument(0) % 24
    const remote = this.#remote + argument(5)
    // a window's key, or a key without a window
    const window = WINDOW_KEY + 16 * i + (argument(8) % (WINDOWS + 1))
    this.#node.queues[queuePair.row].sends.push({
      id: queuePair.posted++,
      opcode,
      // ibv_send_flags without IBV_SEND_INLINE (8); the number of the peer's SRQ from bit 8 on
      flags: (argument(1) & ~8) | (service === XRC_INI ? SRQN << 8 : 0),
      ...(service === UD && { datagram: { qpn: PEER_QPN, qkey: argument(6) << 24, node: 0 } }),
      sges: Array.from({ length: elements }, (_, n) => ({
        at: this.#local + n * elementLength,
        length: elementLength,
        key,
      })),
      inline: undefined,
      imm: opcode === LOCAL_INV || opcode === SEND_WITH_INV ? window : argument(6) * 0x0101_0101,
      remote,
      rkey: REMOTE_KEY + i,
      ...(opcode === BIND_MW && { bind: { window, at: remote, length: argument(4), access: REMOTE_ACCESS } }),
      compare: BigInt(argument(7)),
      swap: BigInt(argument(8)),
      refused: 0,
    })
    this.#node.engine.onDoorbell(queuePair.row)
  }

  #postReceives(i: number, argument: Argument): void {
    const queuePair = this.#queuePairs[i]
    if (this.#stateOf(i) === RESET || SERVICES[i] === XRC_INI) return
    const length = argument(1) * 16
    const key = (argument(2) & 7) === 7 ? UNKNOWN_KEY : LOCAL_KEY + i
    for (let n = 0; n < argument(0) % 4; n++) {
      if (queuePair.postedReceives - queuePair.completedReceives >= MAX_OUTSTANDING) break
      const sges = [{ at: this.#local + AREA / 2, length, key }]
      this.#node.queues[queuePair.row].receives.push({ id: queuePair.postedReceives++, sges })
    }
    this.#node.engine.onReceiveScan(queuePair.row)
  }

  #transmit(): void {
    for (let turns = 0; this.#node.transmit(this.#now); turns++) assert.ok(turns < 200, 'sending does not end')
  }

  #passTime(microseconds: number): void {
    const { engine } = this.#node
    this.#now += microseconds
    for (let turns = 0; engine.nextTimeout() <= this.#now; turns++) {
      assert.ok(turns < 200, 'timers do not end')
      engine.onTimeout(this.#now)
    }
  }

  /** Modifies attributes that may change in the current state. */
  #modifyAttributes(i: number, argument: Argument): void {
    const { row } = this.#queuePairs[i]
    const { engine } = this.#node
    const state = this.#stateOf(i)
    if (state === RTS) {
      const access = (argument(0) & REMOTE_ACCESS) | FLUSH_GLOBAL
      engine.modify(row, undefined, { access, minRnrTimer: argument(1) & 31 })
    }
    if (state === SQD || state === SQE)
      engine.modify(row, undefined, { maxDestRdAtomic: argument(2) % 9, maxRdAtomic: argument(3) % 5 })
  }

  /** Performs one record of the input `bytes`. */
  perform(bytes: Uint8Array, step: Step): void {
    const i = step.queuePair % SERVICES.length
    const argument: Argument = n => (step.start + n < step.end ? bytes[step.start + n] : 0)
    if (step.kind !== RecordKind.PACKET) this.#deliver()
    switch (step.kind) {
      case RecordKind.PACKET:
        this.#receivePacket(this.#packetOf(bytes, step, i, argument), i, (argument(0) & PacketFlag.JOINS) !== 0)
        break
      case RecordKind.SEND:
        this.#postSend(i, argument)
        break
      case RecordKind.RECEIVE:
        this.#postReceives(i, argument)
        break
      case RecordKind.TRANSMIT:
        this.#transmit()
        break
      case RecordKind.TIME:
        this.#passTime((argument(0) + 1) << (argument(1) % 16))
        break
      case RecordKind.STATE: {
        const nextStates = TRANSITIONS[this.#stateOf(i)]
        this.#changeState(i, nextStates[argument(0) % nextStates.length], argument(0))
        break
      }
      case RecordKind.ATTRIBUTES:
        this.#modifyAttributes(i, argument)
        break
      case RecordKind.RECREATE:
        if ((argument(0) & 7) !== 0) break
        this.#node.engine.destroy(this.#queuePairs[i].row)
        this.#createQueuePair(i)
        break
    }
  }

  /** Destroys all queue pairs, and checks counters, flushed requests and memory. */
  finish(): void {
    this.#deliver()
    const { engine, memory, queues } = this.#node
    const { counters } = engine
    for (const [name, count] of Object.entries(counters))
      assert.ok(Number.isInteger(count) && count >= 0, `${name} is ${count}`)
    assert.equal(counters.receivedPackets, this.#deliveredPackets, 'every packet is counted once')
    assert.ok(counters.dropped <= this.#deliveredPackets)
    assert.ok(engine.stat().poolWords <= SERVICES.length * MAX_POOL_WORDS, 'the pool grows')
    for (const { row } of this.#queuePairs) if (engine.query(row).state !== ERR) engine.modify(row, ERR, {})
    this.#queuePairs.forEach(({ postedReceives, completedReceives, row }, i) => {
      // receives of an SRQ are not flushed
      const inSrq = SERVICES[i] === XRC_TGT ? queues[row].receives.length : 0
      assert.equal(completedReceives + inSrq, postedReceives, 'all receive requests are flushed')
      assert.equal(queues[row].sends.length, 0, 'all send requests are flushed')
    })
    for (const { row } of this.#queuePairs) engine.destroy(row)
    assert.deepEqual(engine.stat(), { queuePairs: 0, poolWords: 0 })
    assert.equal(engine.nextTimeout(), Number.POSITIVE_INFINITY)
    const expected = this.#memoryBefore
    for (const area of [this.#local, this.#remote]) expected.set(memory.bytes.subarray(area, area + AREA), area)
    assert.ok(Buffer.compare(expected, memory.bytes) === 0, 'memory outside the regions has changed')
  }
}

export const engineTarget: Target = {
  name: 'engine',
  seeds: seedPrograms,
  split: splitProgram,
  run(bytes, feature) {
    const run = new EngineRun(feature)
    for (const step of stepsOf(bytes)) run.perform(bytes, step)
    run.finish()
  },
}
