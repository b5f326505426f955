/*
 * Packet scripts: one engine, with the test as its peer. Packets are written as short text, `SEND_ONLY@0 ackreq [5]`,
 * with PSNs relative to the start of each direction, so that a test reads like a capture.
 */
import assert from 'node:assert/strict'
import { CREDITS_NONE, SYNDROME_KIND_MASK, SYNDROME_VALUE_MASK, syndromeKind } from '../../src/spec/wire/headers.ts'
import { psnDifference } from '../../src/transport/psn.ts'
import type { QpAttributes } from '../../src/transport/types.ts'
import { emitPacket, type Packet, parsePacket } from '../../src/wire/packet.ts'
import { createNode, MEMORY_BASE, type NodeOptions, REMOTE_KEY, type SendSpec, SHARED_QUEUE } from './node.ts'

/** First PSN of the engine's requests (it wraps soon), and of the peer's. */
export const SQ = 0xff_fffe
export const RQ = 0x00_0200
const QPN = 0x11
const PEER_QPN = 0x22

export interface PacketSpec {
  ackReq?: boolean
  solicited?: boolean
  payload?: Uint8Array | number
  /** Offset in client memory. */
  remote?: number
  rkey?: number
  dmaLen?: number
  imm?: number
  swap?: bigint
  compare?: bigint
  syndrome?: number
  msn?: number
  original?: bigint
  pkey?: number
  tver?: number
  /** FLUSH: selectivity and placement. */
  sel?: number
  plt?: number
  migReq?: boolean
  /** Datagrams: Q_Key and source QPN. */
  qkey?: number
  from?: number
  /** XRC: SRQ number. */
  srq?: number
}

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
    AETH: { syndrome: spec.syndrome ?? syndromeKind.ACK | CREDITS_NONE, msn: spec.msn ?? 0 },
    AtomicAckETH: { origRemDt: spec.original ?? 0n },
    ImmDt: { immDt: spec.imm ?? 0 },
    IETH: { rkey: spec.imm ?? 0 },
    FETH: { resv26: 0, sel: spec.sel ?? 0, plt: spec.plt ?? 1 },
    DETH: { qkey: spec.qkey ?? 0, resv8: 0, srcQp: spec.from ?? 0 },
    XRCETH: { resv8: 0, xrcSrq: spec.srq ?? SHARED_QUEUE },
    payload,
    icrc: 0,
  } as unknown as Packet)
}

/** Names of NAK codes, by value. */
const NAKS = ['PSN_SEQUENCE', 'INVALID_REQUEST', 'REMOTE_ACCESS', 'REMOTE_OPERATION']

/** A sent packet as text, with its PSN relative to `sq` (a request) or `rq` (a response). */
export const describe = (bytes: Uint8Array, sq = SQ, rq = RQ): string => {
  const p = parsePacket(bytes)
  if (p.kind === 'opaque') return `opaque (${p.reason})`
  const record = p as unknown as Record<string, Record<string, number | bigint>>
  const { BTH, AETH, RETH, ImmDt, IETH, AtomicAckETH, AtomicETH, FETH, XRCETH } = record
  assert.equal(p.BTH.destQp, PEER_QPN)
  assert.equal(p.BTH.pkey, 0xffff)
  const name = p.name.replace(/^(RC|UC|XRC)_/, '')
  const isResponse = AETH !== undefined || name === 'READ_RESP_MIDDLE'
  const at = `@${psnDifference(Number(BTH.psn), isResponse ? rq : sq)}`
  const words: string[] = []
  if (name === 'ACKNOWLEDGE') {
    const kind = Number(AETH.syndrome) & SYNDROME_KIND_MASK
    const value = Number(AETH.syndrome) & SYNDROME_VALUE_MASK
    const isRnr = kind === syndromeKind.RNR_NAK
    words.push(isRnr ? `RNR(${value})${at}` : kind === syndromeKind.NAK ? `NAK(${NAKS[value]})${at}` : `ACK${at}`)
    if (kind === syndromeKind.ACK) assert.equal(value, CREDITS_NONE, 'credits')
    words.push(`msn ${AETH.msn}`)
  } else {
    words.push(name + at)
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
  return words.join(' ')
}

/** Short names of completion statuses, by ibv_wc_status. */
const STATUS = [
  'ok',
  'LOC_LEN',
  'LOC_QP_OP',
  '',
  'LOC_PROT',
  'FLUSH',
  'MW_BIND',
  'BAD_RESP',
  'LOC_ACCESS',
  'REM_INV_REQ',
  'REM_ACCESS',
]
const MORE_STATUS: Record<number, string> = { 11: 'REM_OP', 12: 'RETRY_EXC', 13: 'RNR_RETRY_EXC', 15: 'REM_INV_RD' }

/** An engine with one connected QP; the test is its peer. */
export const startScript = (
  attributes: QpAttributes = {},
  options: NodeOptions & { service?: number; signalAll?: boolean; maxSge?: number } = {},
) => {
  const node = createNode(options)
  const row = node.createQp(QPN, options)
  node.connect(row, { destQpn: PEER_QPN, sqPsn: SQ, rqPsn: RQ, ...attributes })
  node.events.length = 0
  let now = 0
  let seen = 0
  let completed = 0
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
    /** Posts `count` receive WQEs of `length` bytes at `at`, ids from 100 on. */
    receives(count: number, length: number, at = 0): void {
      for (let i = 0; i < count; i++) node.postReceive(row, { id: 100 + i, sges: [{ at: at + i * length, length }] })
    },
    /** The peer sends a request (PSN relative to RQ); `sent` collects the response. */
    request: (name: string, psn: number, spec: PacketSpec = {}) => node.inject(row, packet(name, RQ + psn, spec), now),
    /** The peer sends several requests, `name psn spec`, which arrive as one run. */
    run: (...packets: (readonly [name: string, psn: number, spec?: PacketSpec])[]) =>
      node.injectRun(
        packets.map(([name, psn, spec]) => packet(name, RQ + psn, spec)),
        () => row,
        now,
      ),
    /** Several responses of the peer as one run, PSNs relative to SQ. */
    responses: (...packets: (readonly [name: string, psn: number, spec?: PacketSpec])[]) =>
      node.injectRun(
        packets.map(([name, psn, spec]) => packet(name, SQ + psn, spec)),
        () => row,
        now,
      ),
    /** The peer sends a response (PSN relative to SQ). */
    response: (name: string, psn: number, spec: PacketSpec = {}) => node.inject(row, packet(name, SQ + psn, spec), now),
    raw: (bytes: Uint8Array, peer = 0) => node.inject(row, bytes, now, peer),
    /** Packets that the engine sent since the last call. */
    sent(): string[] {
      node.endBurst(now)
      node.transmit(now)
      const fresh = node.sent.slice(seen)
      seen = node.sent.length
      return fresh.map(p => describe(p.bytes))
    },
    /** The payloads of all packets sent. */
    payloads: () =>
      node.sent.map(p => parsePacket(p.bytes)).map(p => (p.kind === 'packet' ? p.payload : new Uint8Array())),
    /** Advances time; a timer that expires meanwhile is served at its time. */
    sleep(micros: number): void {
      const end = now + micros
      for (let next = node.engine.nextTimeout(); next <= end; next = node.engine.nextTimeout()) {
        now = Math.max(now, next)
        node.engine.onTimeout(now)
      }
      now = end
    },
    /** Completions since the last call, as `id status`, with the byte count of receives. */
    completions(): string[] {
      const fresh = node.cqes.slice(completed)
      completed = node.cqes.length
      return fresh.map(c => {
        const status = STATUS[c.status] ?? MORE_STATUS[c.status] ?? String(c.status)
        const receive = c.status === 0 && c.opcode >= 128
        const extra = receive ? ` ${c.opcode === 129 ? 'recv-imm' : 'recv'} ${c.bytes}` : ''
        return `${c.id} ${status}${extra}${(c.flags & 2) !== 0 ? ` imm ${c.imm}` : ''}${(c.flags & 8) !== 0 ? ` inv ${c.imm}` : ''}`
      })
    },
  }
}
