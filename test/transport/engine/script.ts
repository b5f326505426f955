/*
 * Packet scripts: an engine with one connected queue pair; the test is the peer. Sent packets are shown as text, such
 * as `SEND_ONLY@0 ackreq [5]`: opcode, PSN, flags, header fields, payload length. PSNs are relative to SQ_PSN in the
 * engine's requests and in the responses to them, otherwise to RQ_PSN.
 */
import assert from 'node:assert/strict'
import {
  CREDITS_UNLIMITED,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../../src/spec/wire/headers.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../../src/spec/work.ts'
import { psnDifference } from '../../../src/transport/engine/psn.ts'
import type { QpAttributes } from '../../../src/transport/engine/types.ts'
import { emitPacket, type Packet, parsePacket } from '../../../src/transport/wire/packet.ts'
import {
  createNode,
  MEMORY_BASE,
  type NodeOptions,
  REMOTE_KEY,
  type SendSpec,
  SHARED_QUEUE,
  type TestNode,
} from './node.ts'

/** First PSN of the engine's requests; wraps after two packets. */
export const SQ_PSN = 0xff_fffe
/** First PSN of the peer's requests. */
export const RQ_PSN = 0x00_0200
const QPN = 0x11
export const PEER_QPN = 0x22

/** Fields of a packet. `packet` has the defaults. */
export interface PacketSpec {
  ackReq?: boolean
  solicited?: boolean
  /** The bytes of the payload, or their number. */
  payload?: Uint8Array | number
  /** The remote address, as an offset in client memory. */
  remote?: number
  rkey?: number
  /** The default is the length of the payload. */
  dmaLen?: number
  /** Immediate data, or the key to invalidate. */
  imm?: number
  swap?: bigint
  compare?: bigint
  syndrome?: number
  msn?: number
  original?: bigint
  pkey?: number
  tver?: number
  /** The selectivity and placement of a FLUSH. */
  sel?: number
  plt?: number
  migReq?: boolean
  /** The Q_Key and source QPN of a datagram. */
  qkey?: number
  srcQpn?: number
  /** The SRQ number of an XRC request. */
  srqn?: number
}

/** A payload given by its length has the pattern of `patternOf` (responding.ts). */
const bytesOf = (payload: Uint8Array | number | undefined): Uint8Array =>
  typeof payload === 'number'
    ? Uint8Array.from({ length: payload }, (_, i) => i * 7 + 1)
    : (payload ?? new Uint8Array())

/** The bytes of a packet for QP `qpn`; a `name` without transport is RC. */
export const packet = (name: string, psn: number, spec: PacketSpec = {}, qpn = QPN): Uint8Array => {
  const payload = bytesOf(spec.payload)
  const full = /^(RC|UC|UD|XRC)_|^CNP/.test(name) ? name : `RC_${name}`
  const va = MEMORY_BASE + BigInt(spec.remote ?? 0)
  const rkey = spec.rkey ?? REMOTE_KEY
  return emitPacket({
    kind: 'packet',
    name: full,
    BTH: {
      se: spec.solicited ?? false,
      migReq: spec.migReq ?? false,
      tver: spec.tver ?? 0,
      pkey: spec.pkey ?? 0xffff,
      fecn: false,
      becn: false,
      resv6: 0,
      destQp: qpn,
      ackReq: spec.ackReq ?? false,
      resv7: 0,
      psn: psn & 0xffffff,
    },
    RETH: { va, rkey, dmaLen: spec.dmaLen ?? payload.length },
    AtomicETH: { va, rkey, swapDt: spec.swap ?? 0n, cmpDt: spec.compare ?? 0n },
    AETH: { syndrome: spec.syndrome ?? syndromeKind.ACK | CREDITS_UNLIMITED, msn: spec.msn ?? 0 },
    AtomicAckETH: { origRemDt: spec.original ?? 0n },
    ImmDt: { immDt: spec.imm ?? 0 },
    IETH: { rkey: spec.imm ?? 0 },
    FETH: { resv26: 0, sel: spec.sel ?? 0, plt: spec.plt ?? 1 },
    DETH: { qkey: spec.qkey ?? 0, resv8: 0, srcQp: spec.srcQpn ?? 0 },
    XRCETH: { resv8: 0, xrcSrq: spec.srqn ?? SHARED_QUEUE },
    payload,
    icrc: 0,
  } as unknown as Packet)
}

/** Names of NAK codes. */
const NAKS = ['PSN_SEQUENCE', 'INVALID_REQUEST', 'REMOTE_ACCESS', 'REMOTE_OPERATION']

/** BTH fields that are the same in all packets. Linux's rxe also sends MigReq 0. */
export const CONSTANT_BTH = { migReq: false, tver: 0, pkey: 0xffff, fecn: false, becn: false, resv6: 0, resv7: 0 }

/** The transport in names of opcodes, by service. */
const transportOf: Record<number, string> = {
  [Service.RC]: 'RC',
  [Service.UC]: 'UC',
  [Service.XRC_INI]: 'XRC',
  [Service.XRC_TGT]: 'XRC',
}

/** The text of a packet. Also checks transport, DestQP, CONSTANT_BTH, and that an ACK has no credit count. */
const describePacket = (bytes: Uint8Array, service: number): string => {
  const p = parsePacket(bytes)
  if (p.kind === 'opaque') return `opaque (${p.reason})`
  assert.equal(p.name.slice(0, p.name.indexOf('_')), transportOf[service])
  const record = p as unknown as Record<string, Record<string, number | bigint>>
  const { BTH, AETH, RETH, ImmDt, IETH, AtomicAckETH, AtomicETH, FETH, XRCETH } = record
  assert.equal(p.BTH.destQp, PEER_QPN)
  const { se: _se, destQp: _destQp, ackReq: _ackReq, psn: _psn, ...constant } = p.BTH
  assert.deepEqual(constant, CONSTANT_BTH)
  const name = p.name.replace(/^(RC|UC|XRC)_/, '')
  const isResponse = AETH !== undefined || name === 'READ_RESP_MIDDLE'
  const psn = `@${psnDifference(Number(BTH.psn), isResponse ? RQ_PSN : SQ_PSN)}`
  const words: string[] = []
  if (name === 'ACKNOWLEDGE') {
    const kind = Number(AETH.syndrome) & SYNDROME_KIND_MASK
    const value = Number(AETH.syndrome) & SYNDROME_VALUE_MASK
    const isRnr = kind === syndromeKind.RNR_NAK
    if (isRnr) words.push(`RNR(${value})${psn}`)
    else words.push(kind === syndromeKind.NAK ? `NAK(${NAKS[value]})${psn}` : `ACK${psn}`)
    if (kind === syndromeKind.ACK) assert.equal(value, CREDITS_UNLIMITED, 'credits')
    words.push(`msn ${AETH.msn}`)
  } else {
    words.push(name + psn)
    if (AETH !== undefined) words.push(`msn ${AETH.msn}`)
  }
  if (p.BTH.ackReq) words.push('ackreq')
  if (p.BTH.se) words.push('se')
  if (XRCETH !== undefined) words.push(`srq ${XRCETH.xrcSrq}`)
  if (FETH !== undefined) words.push(`sel ${FETH.sel} plt ${FETH.plt}`)
  if (RETH !== undefined) words.push(`reth +${BigInt(RETH.va) - MEMORY_BASE}:${RETH.dmaLen}`)
  if (AtomicETH !== undefined)
    words.push(`+${BigInt(AtomicETH.va) - MEMORY_BASE} swap ${AtomicETH.swapDt} cmp ${AtomicETH.cmpDt}`)
  if (AtomicAckETH !== undefined) words.push(`= ${AtomicAckETH.origRemDt}`)
  if (ImmDt !== undefined) words.push(`imm ${ImmDt.immDt}`)
  if (IETH !== undefined) words.push(`inv ${IETH.rkey}`)
  if (p.payload.length > 0) words.push(`[${p.payload.length}]`)
  assert.equal(p.pad, undefined, 'pads are zero')
  return words.join(' ')
}

const statuses = WcStatus.values
/** Short names of completion statuses. */
const STATUS: Readonly<Record<number, string>> = {
  [statuses.SUCCESS]: 'ok',
  [statuses.LOC_LEN_ERR]: 'LOC_LEN',
  [statuses.LOC_QP_OP_ERR]: 'LOC_QP_OP',
  [statuses.LOC_PROT_ERR]: 'LOC_PROT',
  [statuses.WR_FLUSH_ERR]: 'FLUSH',
  [statuses.MW_BIND_ERR]: 'MW_BIND',
  [statuses.BAD_RESP_ERR]: 'BAD_RESP',
  [statuses.LOC_ACCESS_ERR]: 'LOC_ACCESS',
  [statuses.REM_INV_REQ_ERR]: 'REM_INV_REQ',
  [statuses.REM_ACCESS_ERR]: 'REM_ACCESS',
  [statuses.REM_OP_ERR]: 'REM_OP',
  [statuses.RETRY_EXC_ERR]: 'RETRY_EXC',
  [statuses.RNR_RETRY_EXC_ERR]: 'RNR_RETRY_EXC',
  [statuses.REM_INV_RD_REQ_ERR]: 'REM_INV_RD',
}
const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { WITH_IMM, WITH_INV } = WcFlags.values

export const startScript = (
  attributes: QpAttributes = {},
  options: NodeOptions & { service?: number; sqSigAll?: boolean; maxSge?: number } = {},
) => {
  const node: TestNode = createNode(options)
  const row = node.createQp(QPN, options)
  node.connect(row, { destQpn: PEER_QPN, sqPsn: SQ_PSN, rqPsn: RQ_PSN, ...attributes })
  node.events.length = 0
  let now = 0
  let returnedPackets = 0
  let returnedCqes = 0
  return {
    node,
    row,
    get now() {
      return now
    },
    get state(): number {
      return node.engine.query(row).state
    },
    post: (...specs: SendSpec[]) => node.post(row, ...specs),
    /** Posts `count` receive WQEs with contiguous buffers of `length` bytes, and IDs from 100. */
    postReceives(count: number, length: number, at = 0): void {
      for (let i = 0; i < count; i++) node.postReceive(row, { id: 100 + i, sges: [{ at: at + i * length, length }] })
    },
    /** The peer sends a request. */
    request: (name: string, psn: number, spec: PacketSpec = {}) =>
      node.inject(row, packet(name, RQ_PSN + psn, spec), now),
    /** The peer's requests arrive as one run. Returns the number of packets that each step of the engine handled. */
    requestRun: (...packets: (readonly [name: string, psn: number, spec?: PacketSpec])[]) =>
      node.injectRun(
        packets.map(([name, psn, spec]) => packet(name, RQ_PSN + psn, spec)),
        () => row,
        now,
      ),
    /** The peer's responses arrive as one run. Returns as `requestRun`. */
    responseRun: (...packets: (readonly [name: string, psn: number, spec?: PacketSpec])[]) =>
      node.injectRun(
        packets.map(([name, psn, spec]) => packet(name, SQ_PSN + psn, spec)),
        () => row,
        now,
      ),
    /** The peer sends a response. */
    response: (name: string, psn: number, spec: PacketSpec = {}) =>
      node.inject(row, packet(name, SQ_PSN + psn, spec), now),
    /** `peer` is the source's number in the port. */
    injectRaw: (bytes: Uint8Array, peer = 0) => node.inject(row, bytes, now, peer),
    /** Ends the burst, lets the engine send, and returns the packets sent since the last call. */
    sent(): string[] {
      node.endBurst()
      node.transmit(now)
      const fresh = node.sent.slice(returnedPackets)
      returnedPackets = node.sent.length
      return fresh.map(p => describePacket(p.bytes, options.service ?? Service.RC))
    },
    /** The payloads of all sent packets. */
    payloads: () =>
      node.sent.map(p => parsePacket(p.bytes)).map(p => (p.kind === 'packet' ? p.payload : new Uint8Array())),
    /** Advances time, and runs the timers that expire. */
    sleep(micros: number): void {
      const end = now + micros
      for (let next = node.engine.nextTimeout(); next <= end; next = node.engine.nextTimeout()) {
        now = Math.max(now, next)
        node.engine.onTimeout(now)
      }
      now = end
    },
    /**
     * Completions since the last call, as `id status`. A successful receive has also `recv` (`recv-imm` for a WRITE),
     * the byte count, and the immediate or the invalidated key.
     */
    completions(): string[] {
      const fresh = node.cqes.slice(returnedCqes)
      returnedCqes = node.cqes.length
      return fresh.map(c => {
        const status = STATUS[c.status] ?? String(c.status)
        const isReceive = c.status === 0 && c.opcode >= RECV
        const receive = isReceive ? ` ${c.opcode === RECV_RDMA_WITH_IMM ? 'recv-imm' : 'recv'} ${c.bytes}` : ''
        const imm = (c.flags & WITH_IMM) !== 0 ? ` imm ${c.imm}` : ''
        const inv = (c.flags & WITH_INV) !== 0 ? ` inv ${c.imm}` : ''
        if (imm === '' && inv === '') assert.equal(c.imm, 0)
        return `${c.id} ${status}${receive}${imm}${inv}`
      })
    },
  }
}
