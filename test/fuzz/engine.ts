/*
 * Fuzz target for the engine (src/transport/): queue pairs of each service in each state, and a program
 * (engine-program.ts) that acts as peer, program and clock. For any input nothing throws, memory changes only in
 * registered regions that allow it, every request completes at most once and in order, sent packets are well-formed,
 * counters agree with the input, and after the destruction of all queue pairs no state remains.
 */
import assert from 'node:assert/strict'
import { headerAt, OP_REQUEST, opcodeFlags } from '../../src/spec/wire/opcodes.ts'
import { Service, serviceBits } from '../../src/spec/wire/services.ts'
import { WrOpcode } from '../../src/spec/work.ts'
import { Access } from '../../src/transport/types.ts'
import { plainArena } from '../../src/wire/arena.ts'
import { checkPacket } from '../../src/wire/packet.ts'
import { addressHi, addressLo } from '../model/memory.ts'
import { createNode, type ModelNode } from '../model/node.ts'
import { createRandomSource } from '../model/random.ts'
import { Fix, HEAD_BYTES, Record, type Step, seedPrograms, splitProgram, stepsOf } from './engine-program.ts'
import type { Target } from './fuzzer.ts'

const SERVICES = [Service.RC, Service.RC, Service.UC, Service.UD, Service.XRC_INI, Service.XRC_TGT]
const { UD, XRC_INI, XRC_TGT } = Service
const QKEY = 0x1234_5678
const SRQN = 0x77
const AREA = 0x2000
const LOCAL_KEY = 0x1110
const REMOTE_KEY = 0x2220
const WINDOW_KEY = 0x3330
const WINDOWS = 4
const MTUS = [256, 512, 1024, 2048, 4096]
const { LOCAL_INV, BIND_MW, SEND_WITH_INV } = WrOpcode.values
const [RESET, INIT, RTR, RTS, SQD, SQE, ERR] = [0, 1, 2, 3, 4, 5, 6]
/** Next states that a program may request, by the current state. */
const TRANSITIONS: readonly (readonly number[])[] = [
  [INIT, ERR],
  [INIT, RTR, RESET, ERR],
  [RTS, RESET, ERR],
  [RTS, SQD, RESET, ERR],
  [RTS, SQD, RESET, ERR],
  [RTS, RESET, ERR],
  [RESET],
]
/** LOCAL_WRITE, the three remote rights, and FLUSH_GLOBAL. */
const ALL_ACCESS = 0x10f
const MAX_PACKET = 4096 + 60
const PEER = 1

const arrivals = plainArena(0x1_0000)

/** One run of a program. */
const start = (feature: (number: number) => void) => {
  const rows: { row: number; posted: number; ended: number; receives: number; received: number }[] = []
  let last = 0
  const queuesOfCq = (cq: number) => rows[cq >> 1]
  const node: ModelNode = createNode(
    { memoryBytes: 2 * AREA + 0x400, maxPackets: 16, maxBytes: 0x4000, arrivals },
    {
      wrote: region => assert.ok((region.access & (Access.LOCAL_WRITE | Access.REMOTE_WRITE)) !== 0),
      atomic: region => assert.ok((region.access & Access.REMOTE_ATOMIC) !== 0),
      bound: region => assert.ok(region.isWindow),
      invalidated: region => assert.ok(region.isWindow),
      completed(cq, c) {
        const queue = queuesOfCq(cq)
        feature(0x4000 | ((cq & 1) << 8) | c.status)
        if ((cq & 1) === 0) {
          assert.ok(c.id >= queue.ended && c.id < queue.posted, `request ${c.id} of ${queue.ended}…${queue.posted}`)
          queue.ended = c.id + 1
        } else {
          assert.ok(c.id === queue.received && c.id < queue.receives, `receive ${c.id}, after ${queue.received - 1}`)
          queue.received++
        }
      },
      event: (_row, type) => feature(0x5000 | type),
      sent(bytes) {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
        assert.equal(checkPacket(view, 0, bytes.length), 0, 'a packet of our engine is malformed')
        feature(0x6000 | (last << 16) | bytes[0])
      },
    },
    createRandomSource(1),
  )
  const area = node.memory.allocate(AREA)
  const remote = node.memory.allocate(AREA)
  const states = (i: number): number => node.engine.query(rows[i].row).state
  const outside = node.memory.bytes.slice()
  let now = 0

  const create = (i: number): void => {
    const init = { service: SERVICES[i], qpn: 0x10 + i, pd: 1 + i, sendCq: 2 * i, recvCq: 2 * i + 1 }
    const srqn = init.service === XRC_TGT ? SRQN : undefined
    const row = node.create({ ...init, maxSge: 3, signalAll: i === 1, srqn })
    rows[i] = { row, posted: 0, ended: 0, receives: 0, received: 0 }
  }
  SERVICES.forEach((_, i) => {
    node.memory.register(LOCAL_KEY + i, 1 + i, area, AREA, Access.LOCAL_WRITE)
    node.memory.register(REMOTE_KEY + i, 1 + i, remote, AREA, ALL_ACCESS)
    for (let n = 0; n < WINDOWS; n++) node.memory.addWindow(WINDOW_KEY + 16 * i + n, 1 + i, false)
    create(i)
    for (const state of [INIT, RTR, RTS]) change(i, state, 0)
  })

  function change(i: number, state: number, choice: number): void {
    const { row } = rows[i]
    const attributes = {
      [INIT]: { pkeyIndex: 0, qkey: QKEY, access: (choice & 1) !== 0 ? 0 : ALL_ACCESS & ~Access.LOCAL_WRITE },
      [RTR]: {
        destQpn: 0x99,
        rqPsn: (0xff_fffe + choice) & 0xff_ffff,
        pathMtu: MTUS[choice % 5],
        minRnrTimer: choice & 31,
        maxDestRdAtomic: choice & 3 || 2,
        flow: 0,
        peer: PEER,
      },
      [RTS]: { sqPsn: (0x7f_fffe + choice) & 0xff_ffff, timeout: 8, retryCnt: 2, rnrRetry: 1, maxRdAtomic: 2 },
    }
    const before = states(i)
    const more = state === RTS && before !== RTR ? {} : attributes[state as 1 | 2 | 3]
    node.engine.modify(row, state, more ?? {})
    if (state === RESET) {
      Object.assign(node.queues[row], { sends: [], first: 0, receives: [] })
      Object.assign(rows[i], { posted: 0, ended: 0, receives: 0, received: 0 })
    }
  }

  let run: Uint8Array[] = []
  const deliver = (): void => {
    if (run.length === 0) return
    const packets = run
    run = []
    node.receive(packets, bytes => rows[((bytes[7] - 0x10) & 255) % rows.length].row, PEER, now)
    handed += packets.length
  }
  let handed = 0

  const arrive = (bytes: Uint8Array, { row: i, at, end }: Step): void => {
    const argument = (n: number): number => (at + n < end ? bytes[at + n] : 0)
    const fixes = argument(0)
    const delta = (argument(1) << 24) >> 24
    const words = (argument(2) << 8) | argument(3)
    const head = bytes.subarray(at + 5, end)
    const length = Math.min(MAX_PACKET, Math.max(16, words * 4))
    const packet = new Uint8Array(length).fill(0xcd)
    packet.set(head.subarray(0, Math.min(HEAD_BYTES, length)))
    const view = new DataView(packet.buffer)
    if ((fixes & Fix.SERVICE) !== 0) packet[0] = serviceBits[SERVICES[i]] | (packet[0] & 31)
    const opcode = packet[0]
    if ((fixes & Fix.QPN) !== 0) view.setUint32(4, 0x10 + i)
    if ((fixes & Fix.PKEY) !== 0) view.setUint16(2, 0xffff)
    if ((fixes & Fix.VERSION) !== 0) packet[1] &= 0xf0
    const { rqPsn, sqPsn } = node.engine.query(rows[i].row)
    if ((fixes & Fix.PSN) !== 0) {
      const expected = (opcodeFlags[opcode] & OP_REQUEST) !== 0 ? rqPsn : sqPsn - 1
      view.setUint32(8, (view.getUint32(8) & 0xff00_0000) | ((expected + delta) & 0xff_ffff))
    }
    const deth = headerAt.DETH[opcode]
    if ((fixes & Fix.KEY) !== 0 && deth > 0 && deth + 4 <= length) view.setUint32(deth, QKEY)
    const xrceth = headerAt.XRCETH[opcode]
    if ((fixes & Fix.KEY) !== 0 && xrceth > 0 && xrceth + 4 <= length) view.setUint32(xrceth, SRQN)
    const reth = headerAt.RETH[opcode] || headerAt.AtomicETH[opcode]
    if ((fixes & Fix.KEY) !== 0 && reth > 0 && reth + 16 <= length) {
      const offset = remote + (view.getUint32(reth + 4) % (AREA + 64))
      view.setUint32(reth, addressHi(offset))
      view.setUint32(reth + 4, addressLo(offset))
      view.setUint32(reth + 8, REMOTE_KEY + i)
    }
    last = opcode
    feature(0x1_0000 | (states(i) << 8) | opcode)
    const joins = run.length > 0 && run.length < 7 && packet.length <= run[0].length
    if (!joins || run[run.length - 1].length < run[0].length) deliver()
    run.push(packet)
    if ((fixes & Fix.JOINS) === 0) deliver()
  }

  const perform = (bytes: Uint8Array, step: Step): void => {
    const { kind, at, end } = step
    const i = step.row % rows.length
    const argument = (n: number): number => (at + n < end ? bytes[at + n] : 0)
    const queue = rows[i]
    const { row } = queue
    if (kind !== Record.PACKET) deliver()
    if (kind === Record.PACKET) arrive(bytes, { ...step, row: i })
    else if (kind === Record.SEND) {
      if (queue.posted - queue.ended >= 20 || states(i) === RESET || SERVICES[i] === XRC_TGT) return
      const length = ((argument(3) << 8) | argument(4)) % (AREA / 2)
      const count = argument(2) % 5
      const each = Math.floor(length / Math.max(1, count))
      const key = (argument(6) & 7) === 7 ? 0x666 : LOCAL_KEY + i
      const opcode = argument(0) % 24
      const window = WINDOW_KEY + 16 * i + (argument(8) % (WINDOWS + 1))
      node.queues[row].sends.push({
        id: queue.posted++,
        opcode,
        flags: (argument(1) & ~8) | (SERVICES[i] === XRC_INI ? SRQN << 8 : 0),
        ...(SERVICES[i] === UD && { datagram: { qpn: 0x99, qkey: argument(6) << 24, node: 0 } }),
        sges: Array.from({ length: count }, (_, n) => ({ at: area + n * each, length: each, key })),
        inline: undefined,
        imm: opcode === LOCAL_INV || opcode === SEND_WITH_INV ? window : argument(6) * 0x0101_0101,
        remote: remote + argument(5),
        rkey: REMOTE_KEY + i,
        ...(opcode === BIND_MW && { bind: { window, at: remote + argument(5), length: argument(4), access: 0xe } }),
        compare: BigInt(argument(7)),
        swap: BigInt(argument(8)),
        refused: 0,
      })
      node.engine.onDoorbell(row)
    } else if (kind === Record.RECEIVE) {
      if (states(i) === RESET || SERVICES[i] === XRC_INI) return
      for (let left = argument(0) % 4; left > 0 && queue.receives - queue.received < 20; left--) {
        const length = argument(1) * 16
        const key = (argument(2) & 7) === 7 ? 0x666 : LOCAL_KEY + i
        node.queues[row].receives.push({ id: queue.receives++, sges: [{ at: area + 0x1000, length, key }] })
      }
      node.engine.onReceiveScan(row)
    } else if (kind === Record.TRANSMIT) {
      for (let turns = 0; node.transmit(now); turns++) assert.ok(turns < 200, 'sending does not end')
    } else if (kind === Record.TIME) {
      now += (argument(0) + 1) << (argument(1) % 16)
      for (let turns = 0; node.engine.nextTimeout() <= now; turns++) {
        assert.ok(turns < 200, 'timers do not end')
        node.engine.onTimeout(now)
      }
    } else if (kind === Record.STATE) {
      const nextStates = TRANSITIONS[states(i)]
      change(i, nextStates[argument(0) % nextStates.length], argument(0))
    } else if (kind === Record.ATTRIBUTES) {
      const state = states(i)
      if (state === RTS)
        node.engine.modify(row, undefined, { access: (argument(0) & 14) | 0x100, minRnrTimer: argument(1) & 31 })
      if (state === SQD || state === SQE)
        node.engine.modify(row, undefined, { maxDestRdAtomic: argument(2) % 9, maxRdAtomic: argument(3) % 5 })
    } else if (kind === Record.RENEW && (argument(0) & 7) === 0) {
      node.engine.destroy(row)
      create(i)
    }
  }

  return {
    perform,
    /** Destroys all queue pairs, and checks counters, flushed requests and memory. */
    finish(): void {
      deliver()
      const { counters } = node.engine
      for (const [name, count] of Object.entries(counters))
        assert.ok(Number.isInteger(count) && count >= 0, `${name} is ${count}`)
      assert.equal(counters.receivedPackets, handed, 'every packet is counted once')
      assert.ok(counters.dropped <= handed)
      assert.ok(node.engine.stat().poolWords <= rows.length * 40 * 64, 'the pool grows')
      for (const { row } of rows) if (node.engine.query(row).state !== ERR) node.engine.modify(row, ERR, {})
      rows.forEach(({ receives, received, row }, i) => {
        // Receives of an SRQ are not flushed.
        const inSrq = SERVICES[i] === XRC_TGT ? node.queues[row].receives.length : 0
        assert.equal(received + inSrq, receives, 'all receive requests are flushed')
        assert.equal(node.queues[row].sends.length, 0, 'all send requests are flushed')
      })
      for (const { row } of rows) node.engine.destroy(row)
      assert.deepEqual(node.engine.stat(), { queuePairs: 0, poolWords: 0 })
      assert.equal(node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
      const after = node.memory.bytes
      outside.set(after.subarray(area, area + AREA), area)
      outside.set(after.subarray(remote, remote + AREA), remote)
      assert.ok(Buffer.compare(outside, after) === 0, 'memory outside the regions has changed')
    },
  }
}

export const engineTarget: Target = {
  name: 'engine',
  seeds: seedPrograms,
  split: splitProgram,
  run(bytes, feature) {
    const run = start(feature)
    for (const step of stepsOf(bytes)) run.perform(bytes, step)
    run.finish()
  },
}
