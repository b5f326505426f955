/*
 * An engine with memory, work queues and a port for tests. Tests pass the virtual time to each call. A row is the
 * engine's number of a queue pair, from 0.
 */
import type { CauseName } from '../../../src/spec/check/causes.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { MAX_FRAME_BYTES } from '../../../src/spec/wire/ethernet.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, WcStatus } from '../../../src/spec/work.ts'
import type { DcqcnParameters } from '../../../src/transport/engine/congestion/dcqcn.ts'
import { createEngine, type Engine } from '../../../src/transport/engine/engine.ts'
import { PollResult } from '../../../src/transport/engine/scheduling.ts'
import {
  Access,
  BindMw,
  Completion,
  DatagramPath,
  type Memory,
  type QpAttributes,
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
  halvesOf,
  packetsOf,
  putElements,
  putSend,
} from './node-parts.ts'
import { checkCompletion, createReports } from './reports.ts'

const { INIT, RTR, RTS } = QpState.values
const { SIGNALED, INLINE } = SendFlags.values

/** Address of the first byte of client memory: the memory crosses a multiple of 4 GiB. */
export const MEMORY_BASE = 0x7f01_ffff_c000n

export interface Region {
  key: number
  pd: number
  /** Offset in client memory. */
  offset: number
  length: number
  access: number
}

export interface SgeSpec {
  /** Offset in client memory. */
  at: number
  length: number
  /** LOCAL_KEY by default. */
  key?: number
}

export interface SendSpec {
  id: number
  opcode: number
  /** SIGNALED by default. */
  flags?: number
  sges?: SgeSpec[]
  inline?: Uint8Array
  /** Immediate data, the key to invalidate, or the new key of a BIND_MW. */
  imm?: number
  /** Offset in the peer's client memory; for BIND_MW the offset of the window in this node's client memory. */
  remote?: number
  /** REMOTE_KEY by default; for BIND_MW the window's current key. */
  rkey?: number
  /** Operand of an atomic (compare or add), or length of a FLUSH or BIND_MW. */
  compare?: bigint
  /**
   * Operand of an atomic (swap); for FLUSH the placement, and the selectivity in the high half; for BIND_MW the lkey,
   * and the access flags in the high half.
   */
  swap?: bigint
  /** The status with which the work queue refuses the request (`Send.REFUSED`); bits 8 and above are the cause. */
  refused?: number
  /** The destination of a datagram. */
  to?: { qpn: number; qkey: number; flow: number }
}

interface ReceiveSpec {
  id: number
  sges: SgeSpec[]
}

interface Cqe {
  id: number
  status: number
  opcode: number
  bytes: number
  imm: number
  flags: number
  qpn: number
  srcQpn: number
  sl: number
  cq: number
  solicited: boolean
  /** The cause in vendor_err. */
  cause: CauseName | undefined
}

interface SentPacket {
  readonly bytes: Uint8Array
  readonly flow: number
  /** Number of the packet's run, from 1. */
  readonly run: number
  /** Number of calls of `Memory.write` before the packet was sent. */
  readonly writesBefore: number
}

// keys of two regions that cover all client memory
/** lkey of work requests. */
export const LOCAL_KEY = 0x1111
/** rkey for the peer. */
export const REMOTE_KEY = 0x8000_2222
/** Access flags of a queue pair whose peer may WRITE, READ and execute atomics. */
export const REMOTE_ACCESS = Access.REMOTE_WRITE | Access.REMOTE_READ | Access.REMOTE_ATOMIC
/** REMOTE_ACCESS and local write: access flags of a region. */
export const ALL_ACCESS = Access.LOCAL_WRITE | REMOTE_ACCESS
/** Number of the only SRQ. Its WQEs are in `receives` of the XRC target. */
export const SHARED_QUEUE = 0x5a
export const SHARED_QUEUE_CQ = 3

/** Default bytes of client memory. */
export const MEMORY_BYTES = 0x2_0000

/** Bytes at the end of the receive arena for a datagram with its GRH. */
const GRH_SPACE = 0x1100

/** Client memory, options of the engine (`EngineOptions`), and limits of the port's runs (`TransmitSink`). */
export interface NodeOptions {
  memoryBytes?: number
  windowBytes?: number
  sharedWindowBytes?: number
  boundReads?: boolean
  pacingInterval?: number
  rateControl?: DcqcnParameters
  maxPackets?: number
  maxSinglePacketRun?: number
  maxBytes?: number
  /** Microseconds that each call of `Memory.read` takes, on the clock of turns. */
  readTime?: number
  /** Returns the offset of an address in client memory. Default: relative to MEMORY_BASE. */
  locate?: (address: bigint) => number
}

export interface TestNode extends ReturnType<typeof createNode> {}

export const createNode = (options: NodeOptions = {}) => {
  const memoryBytes = options.memoryBytes ?? MEMORY_BYTES
  /** Memory of the program that owns the queue pairs. */
  const memory = new Uint8Array(memoryBytes)
  const words = new DataView(memory.buffer)
  const regions: Region[] = [
    { key: REMOTE_KEY, pd: 1, offset: 0, length: memoryBytes, access: ALL_ACCESS },
    { key: LOCAL_KEY, pd: 1, offset: 0, length: memoryBytes, access: Access.LOCAL_WRITE },
  ]
  const cqes: Cqe[] = []
  const events: string[] = []
  const sent: SentPacket[] = []
  const reports = createReports()
  /** Number of calls of `Memory.read` and `Memory.write`. */
  const dmaCalls = { reads: 0, writes: 0 }
  /** Errno that `Memory.read`, or `Memory.write` and atomics return; 0 for success. */
  const faults = { read: 0, write: 0 }
  /** Keys passed to `Memory.invalidate`, except unknown ones. */
  const invalidated: number[] = []
  /** Arguments of `Memory.bindWindow`; a window of key 0 cannot be bound. */
  const binds: {
    qpn: number
    window: number
    key: number
    at: number
    length: number
    lkey: number
    access: number
  }[] = []
  /**
   * The queues of each row. The first `retired` sends are undefined; `receives` are those that the engine has not
   * taken.
   */
  const queues: { sends: (SendSpec | undefined)[]; receives: ReceiveSpec[]; retired: number }[] = []

  /** Copies client memory to the arena (`isRead`) or back, in chunks as in `Memory`. */
  const copy = (
    region: number,
    hi: number,
    lo: number,
    arena: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
    isRead: boolean,
  ): void => {
    if (regions[region] === undefined) throw new Error(`region ${region} was not resolved`)
    let offset = offsetOf(hi, lo)
    if (offset < 0 || offset + total > memoryBytes) throw new Error(`DMA of ${total} bytes at offset ${offset}`)
    for (let left = total, chunkAt = at; left > 0; chunkAt += stride) {
      const size = Math.min(left, chunk)
      if (isRead) arena.bytes.set(memory.subarray(offset, offset + size), chunkAt)
      else memory.set(arena.bytes.subarray(chunkAt, chunkAt + size), offset)
      offset += size
      left -= size
    }
  }
  const locate = options.locate ?? (address => Number(address - MEMORY_BASE))
  const offsetOf = (hi: number, lo: number): number => locate((BigInt(hi) << 32n) | BigInt(lo))

  const clientMemory: Memory = {
    resolve(pd, key, hi, lo, length, access) {
      const at = offsetOf(hi, lo)
      return regions.findIndex(
        r =>
          r.key === key &&
          r.pd === pd &&
          (r.access & access) === access &&
          at >= r.offset &&
          at + length <= r.offset + r.length,
      )
    },
    grants: (pd, key, access) => regions.some(r => r.key === key && r.pd === pd && (r.access & access) === access),
    read(region, hi, lo, to, at, chunk, stride, total) {
      dmaCalls.reads++
      if (faults.read === 0) copy(region, hi, lo, to, at, chunk, stride, total, true)
      return faults.read
    },
    write(region, hi, lo, from, at, chunk, stride, total) {
      dmaCalls.writes++
      if (faults.write === 0) copy(region, hi, lo, from, at, chunk, stride, total, false)
      return faults.write
    },
    hasProcessEnded: () => faults.read === Errno.ESRCH || faults.write === Errno.ESRCH,
    hasTimedOut: () => faults.read === Errno.ETIMEDOUT || faults.write === Errno.ETIMEDOUT,
    compareSwap(_region, hi, lo, compareHi, compareLo, swapHi, swapLo, original) {
      if (faults.write !== 0) return faults.write
      const at = offsetOf(hi, lo)
      original[0] = words.getUint32(at, true)
      original[1] = words.getUint32(at + 4, true)
      if (original[0] === compareLo && original[1] === compareHi) {
        words.setUint32(at, swapLo, true)
        words.setUint32(at + 4, swapHi, true)
      }
      return 0
    },
    fetchAdd(_region, hi, lo, addHi, addLo, original) {
      if (faults.write !== 0) return faults.write
      const at = offsetOf(hi, lo)
      original[0] = words.getUint32(at, true)
      original[1] = words.getUint32(at + 4, true)
      const value = words.getBigUint64(at, true) + ((BigInt(addHi) << 32n) | BigInt(addLo))
      words.setBigUint64(at, BigInt.asUintN(64, value), true)
      return 0
    },
    bindWindow(_pd, qpn, words, at) {
      const window = words[at + BindMw.WINDOW]
      const offset = offsetOf(words[at + BindMw.HI], words[at + BindMw.LO])
      const length = words[at + BindMw.LENGTH_LO]
      const [key, lkey, access] = [words[at + BindMw.KEY], words[at + BindMw.LKEY], words[at + BindMw.ACCESS]]
      binds.push({ qpn, window, key, at: offset, length, lkey, access })
      return window !== 0
    },
    invalidate(pd, _qp, key) {
      const index = regions.findIndex(r => r.key === key && r.pd === pd)
      if (index < 0) return WcStatus.values.LOC_QP_OP_ERR
      invalidated.push(key)
      regions.splice(index, 1)
      return 0
    },
  }

  const elementsOf = (sges: readonly SgeSpec[]): readonly ElementWords[] =>
    sges.map(({ at, length, key = LOCAL_KEY }) => ({ address: halvesOf(MEMORY_BASE + BigInt(at)), length, key }))

  const work: WorkSource = {
    loadSend(row, index, into, at) {
      const spec = queues[row].sends[index]
      if (spec === undefined) return false
      const { inline, flags = SIGNALED, sges = [], remote = 0 } = spec
      putSend(
        {
          imm: 0,
          rkey: REMOTE_KEY,
          compare: 0n,
          swap: 0n,
          refused: 0,
          ...spec,
          flags: flags | (inline ? INLINE : 0),
          idHigh: ~spec.id,
          elements: inline ? [] : elementsOf(sges),
          inline,
          remote: halvesOf(MEMORY_BASE + BigInt(remote)),
          inlineAt: index,
          to: spec.to,
        },
        into,
        at,
      )
      return true
    },
    retireSend(row, count) {
      const queue = queues[row]
      for (let i = 0; i < count; i++) queue.sends[queue.retired++] = undefined
    },
    copyInline(row, inlineAt, start, arena, at, chunk, stride, total) {
      copyInlineData(queues[row].sends[inlineAt]?.inline, start, arena, at, chunk, stride, total)
    },
    takeReceive(row, into, at) {
      const spec = queues[row].receives.shift()
      if (spec === undefined) return false
      into[at + Receive.ID_LO] = spec.id
      into[at + Receive.ID_HI] = ~spec.id
      into[at + Receive.SGES] = spec.sges.length
      into[at + Receive.LENGTH] = putElements(elementsOf(spec.sges), into, at + Receive.SGE)
      return true
    },
    selectShared(_row, srqn, into) {
      into[0] = 1 // protection domain
      into[1] = SHARED_QUEUE_CQ
      return srqn === SHARED_QUEUE
    },
  }

  /** IP version of received datagrams: 4 or 6. */
  const receivedIp = { version: 4 }
  /** Writes only the GRH fields that tests check. */
  const writeGrh = (arena: Arena, _at: number, length: number): number => {
    const grhAt = arena.bytes.length - GRH_SPACE
    arena.bytes.fill(0, grhAt, grhAt + 40)
    grh.path = DatagramPath.HAS_GRH | (receivedIp.version === 6 ? 0x9 : 0xa)
    if (receivedIp.version === 6) arena.view.setUint16(grhAt, 0x6000)
    else arena.view.setUint16(grhAt + 20, 0x4500)
    // total length of IPv4, with the IPv4 and UDP headers
    arena.view.setUint16(grhAt + 22, 20 + 8 + length)
    return grhAt
  }
  const grh = { path: 0, header: writeGrh }
  const engine: Engine = createEngine(
    {
      grh,
      frames: { arena: plainArena(16_384), maxBytes: MAX_FRAME_BYTES, reserve: () => 0, commit: () => {} },
      work,
      memory: clientMemory,
      completions: {
        push(cq, c, solicited) {
          if (c[Completion.ID_HI] !== ~c[Completion.ID_LO] >>> 0) throw new Error('a wr_id of two requests')
          cqes.push({
            ...completionOf(c),
            srcQpn: c[Completion.SRC_QPN],
            sl: c[Completion.SL],
            cq,
            solicited,
            cause: checkCompletion(c[Completion.STATUS], c[Completion.VENDOR]),
          })
        },
      },
      events: {
        raise(_row, type, cause) {
          events.push(EVENTS[type] ?? String(type))
          reports.event(type, cause)
        },
      },
      causes: reports.causes,
      now: () => dmaCalls.reads * (options.readTime ?? 0),
    },
    {
      ...engineOptions(options),
      rateControl: options.rateControl,
    },
  )

  const maxBytes = options.maxBytes ?? 0x1_1000
  const arena = plainArena(maxBytes * 2)
  /** Each run increments `runs` and decrements `freeRuns`. With `freeRuns` 0 the port accepts no reservation. */
  const port = { freeRuns: Number.POSITIVE_INFINITY, runs: 0 }
  /** `free` to `end` - 1: bytes that are reserved but not committed. */
  let free = 0
  let end = -1
  const sink: TransmitSink = {
    arena,
    maxPackets: options.maxPackets ?? 256,
    maxSinglePacketRun: options.maxSinglePacketRun,
    maxBytes,
    reserve(bytes) {
      if (bytes > maxBytes) throw new Error(`reserved ${bytes}`)
      if (port.freeRuns <= 0) return -1
      free = 64
      end = free + bytes
      arena.bytes.fill(0xdb)
      return free
    },
    commit(offset, packetBytes, count, lastBytes, flow) {
      const runBytes = (count - 1) * packetBytes + lastBytes
      const runEnd = offset + runBytes
      if (offset < free || runEnd > end) throw new Error(`commit of ${offset}…${runEnd} in reservation ${free}…${end}`)
      if (count > sink.maxPackets || runBytes > maxBytes || lastBytes > packetBytes)
        throw new Error(`run of ${count} × ${packetBytes}, last ${lastBytes}`)
      free = runEnd
      port.freeRuns--
      port.runs++
      for (const bytes of packetsOf(arena, offset, packetBytes, count, lastBytes))
        sent.push({ bytes, flow, run: port.runs, writesBefore: dmaCalls.writes })
    },
  }

  const receiveArena = plainArena(0x4_0000)
  let receiveAt = 0
  /** Copies received bytes to the receive arena, and returns their offset. Ends the burst if the arena is full. */
  const storeReceived = (bytes: Uint8Array): number => {
    if (receiveAt + bytes.length > receiveArena.bytes.length - GRH_SPACE) {
      engine.endBurst()
      receiveAt = 0
    }
    receiveArena.bytes.set(bytes, receiveAt)
    receiveAt += bytes.length
    return receiveAt - bytes.length
  }
  return {
    engine,
    memory,
    words,
    regions,
    cqes,
    events,
    reported: reports.reported,
    naks: reports.naks,
    flushes: reports.flushes,
    peer: reports.peer,
    sent,
    dmaCalls,
    faults,
    invalidated,
    binds,
    sink,
    port,
    queues,
    receivedIp,
    /**
     * Creates a QP in RESET, with protection domain 1, send CQ 1 and receive CQ 2; returns its row. An XRC target has
     * domain 0, which no region has, because it uses its SRQ's domain and CQ.
     */
    createQp(
      qpn: number,
      init: { service?: number; sqSigAll?: boolean; maxSge?: number; owner?: number } = {},
    ): number {
      const maxSge = init.maxSge ?? 4
      const row = engine.create({
        service: init.service ?? Service.RC,
        qpn,
        pd: init.service === Service.XRC_TGT ? 0 : 1,
        sendCq: 1,
        recvCq: 2,
        maxSendSge: maxSge,
        maxRecvSge: maxSge,
        hasSrq: init.service === Service.XRC_TGT,
        sqSigAll: init.sqSigAll ?? false,
        owner: init.owner,
      })
      queues[row] = { sends: [], receives: [], retired: 0 }
      return row
    },
    /** Moves a QP from RESET to RTS. Absent attributes have defaults. */
    connect(row: number, attributes: QpAttributes): void {
      engine.modify(row, INIT, { pkeyIndex: 0, access: REMOTE_ACCESS })
      const { sqPsn, timeout, retryCnt, rnrRetry, maxRdAtomic, ...rtr } = attributes
      engine.modify(row, RTR, { minRnrTimer: 12, maxDestRdAtomic: 4, flow: 0, peer: 0, pathMtu: 1024, ...rtr })
      const rts = { timeout: timeout ?? 14, retryCnt: retryCnt ?? 7, rnrRetry: rnrRetry ?? 7 }
      engine.modify(row, RTS, { sqPsn: sqPsn ?? 0, maxRdAtomic: maxRdAtomic ?? 4, ...rts })
    },
    post(row: number, ...specs: SendSpec[]): void {
      queues[row].sends.push(...specs)
      engine.onDoorbell(row)
    },
    postReceive(row: number, ...specs: ReceiveSpec[]): void {
      queues[row].receives.push(...specs)
    },
    /** Hands a packet to the engine. In the arena, the packet follows the previous packet of the burst. */
    inject(row: number, bytes: Uint8Array, now: number, peer = 0): void {
      engine.onPacket(row, receiveArena, storeReceived(bytes), bytes.length, peer, now)
    },
    /**
     * Hands packets to the engine as one run. Only the last may be shorter. `rowOf` returns the row of a packet's QP.
     * Returns the number of packets that each step of the engine has handled.
     */
    injectRun(packets: readonly Uint8Array[], rowOf: (bytes: Uint8Array) => number, now: number, peer = 0): number[] {
      const total = packets.reduce((sum, bytes) => sum + bytes.length, 0)
      const run = new Uint8Array(total)
      const size = packets[0].length
      packets.forEach((bytes, i) => {
        if (i < packets.length - 1 ? bytes.length !== size : bytes.length > size)
          throw new Error('the packets do not form a run')
        run.set(bytes, i * size)
      })
      let at = storeReceived(run)
      const steps: number[] = []
      for (let i = 0; i < packets.length; ) {
        const count = packets.length - i
        const handled = engine.onRun(
          rowOf(packets[i]),
          receiveArena,
          at,
          size,
          count,
          packets[packets.length - 1].length,
          peer,
          now,
        )
        if (handled < 1 || handled > count) throw new Error(`${handled} of ${count} packets were handled`)
        i += handled
        at += handled * size
        steps.push(handled)
      }
      return steps
    },
    /** Ends the burst, and overwrites its packets, which the engine must not use any more. */
    endBurst(): void {
      engine.endBurst()
      receiveArena.bytes.fill(0xee, 0, receiveAt)
      receiveAt = 0
    },
    /** Lets the engine send until it has nothing to send or the port is full. */
    transmit(now: number): void {
      while (engine.pollTransmit(sink, now) !== PollResult.DONE && port.freeRuns > 0) {}
    },
  }
}

/** Names of affiliated asynchronous events, by ibv_event_type. */
const EVENTS: Record<number, string> = {
  1: 'QP_FATAL',
  2: 'QP_REQ_ERR',
  3: 'QP_ACCESS_ERR',
  4: 'COMM_EST',
  5: 'SQ_DRAINED',
  16: 'LAST_WQE_REACHED',
}
