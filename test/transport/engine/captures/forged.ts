/*
 * Reads forged packets and Linux's replies (inject.pcap, linux612_inject.pcap), and runs the cases on our engine.
 * test/fixtures/wire/responder.md describes the cases.
 */
import { readFileSync } from 'node:fs'
import { opcodeNumber } from '../../../../src/spec/wire/opcodes.ts'
import { Access } from '../../../../src/transport/engine/types.ts'
import { SHORTEST_PACKET } from '../../../../src/transport/phy/runs/limits.ts'
import { arenaOver } from '../../../../src/transport/wire/arena.ts'
import { bthDestQp } from '../../../../src/transport/wire/bth.ts'
import { type Frame, type Ipv4Frame, parseFrame } from '../../../../src/transport/wire/frame.ts'
import { makeFlow, verifyIcrc } from '../../../../src/transport/wire/icrc.ts'
import { parsePacket, type WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import { readCapture } from '../../../captures.ts'
import { fixture } from '../../../paths.ts'
import { ALL_ACCESS, createNode, LOCAL_KEY, MEMORY_BASE, REMOTE_ACCESS } from '../node.ts'
import type { Recorded } from './compare.ts'
import { headersOf } from './conversation.ts'
import type { Sent } from './play.ts'

export type Linux = '6.1' | '6.12'

/** A row of a table in responder.md. */
interface TableRow {
  readonly name: string
  /** Number of forged packets. */
  readonly sent: number
  /** Completions, state and word, in the table's form. */
  readonly after: string
}

export interface Case extends TableRow {
  readonly frames: readonly Ipv4Frame[]
  readonly replies: readonly Recorded[]
}

/** Address of the queue pair's peer. */
const ATTACKER = [10, 77, 0, 1]
const WORD_OFFSET = 40960
const REGION_BYTES = 0x1_0000
const FIRST_PSN = 0x200
/** Region offset of the first remote address, for the cases in which `run` cannot derive it. */
const FIRST_OFFSETS: Readonly<Record<string, number>> = {
  read_past_end: REGION_BYTES - 10,
  atomic_unaligned: WORD_OFFSET + 4,
  atomic_write_unaligned: WORD_OFFSET + 4,
  flush_whole_region: 0,
}

/** A table of responder.md, by the start of its heading. */
export const tableOf = (heading: string): TableRow[] => {
  const text = readFileSync(fixture('wire', 'responder.md'), 'utf8')
  const part = text.split('\n## ').find(section => section.startsWith(heading))!
  return part
    .split('\n')
    .map(line => line.split(' | '))
    .filter(cells => cells.length === 4 && !cells[0].startsWith('| case'))
    .map(([name, sent, , after]) => ({
      name: name.replace('| ', ''),
      sent: sent.split(' ').filter(word => word.includes('@')).length,
      after: after.replace(/\s*\|\s*$/, ''),
    }))
}

/** Malformed cases are only in the table. */
export const notCaptured = ['bad_icrc', 'short_packet', 'pad_more_than_body']

/**
 * The rows in the order of the capture. The table of 6.12 has only rows that differ from 6.1; additional cases of 6.12
 * were captured after `opcode_flush`.
 */
const rowsOf = (linux: Linux): TableRow[] => {
  const rows = tableOf('Linux 6.1.192').filter(row => !notCaptured.includes(row.name))
  if (linux === '6.1') return rows
  const changed = tableOf('Linux 6.12.117')
  const added = changed.filter(({ name }) => !rows.some(row => row.name === name))
  return rows.flatMap(row => {
    const current = changed.find(({ name }) => name === row.name) ?? row
    return row.name === 'opcode_flush' ? [current, ...added] : [current]
  })
}

const isIpv4 = (frame: Frame): frame is Ipv4Frame => frame.kind === 'ipv4'

export const readCases = (linux: Linux): Case[] => {
  const file = linux === '6.1' ? 'inject.pcap' : 'linux612_inject.pcap'
  const frames = readCapture(readFileSync(fixture('wire', file)))
    .map(p => parseFrame(p.bytes))
    .filter(isIpv4)
  let next = 0
  return rowsOf(linux).map(row => {
    const sent: Ipv4Frame[] = []
    const replies: Recorded[] = []
    for (; next < frames.length; next++) {
      const frame = frames[next]
      if (frame.destination.join() === ATTACKER.join()) {
        const packet = parsePacket(frame.payload)
        if (packet.kind === 'opaque') throw new Error(`reply ${next + 1} is not a valid packet`)
        replies.push({ packet, timing: 'immediate', waited: 0, number: next + 1 })
      } else if (sent.length < row.sent) sent.push(frame)
      else break
    }
    return { ...row, frames: sent, replies }
  })
}

export interface Result {
  readonly replies: readonly Sent[]
  /** Completions, state, rq_psn and word, such as 'status 0 opcode 128 len 1; state 3 rq_psn 0x000201; word 5'. */
  readonly after: string
}

/** A failed completion has no opcode and length. */
const completionText = (status: number, opcode: number, length: number): string =>
  status === 0 ? `status 0 opcode ${opcode} len ${length}` : `status ${status}`

const qpnOf = ({ payload }: Ipv4Frame): number => bthDestQp(arenaOver(payload).view, 0)

/** The remote address and key of a packet, if it has them. */
const remoteOf = (bytes: Uint8Array): { va: bigint; rkey: number } | undefined => {
  const packet = parsePacket(bytes)
  if (packet.kind === 'opaque') return undefined
  const { RETH, AtomicETH } = headersOf(packet)
  const header = RETH ?? AtomicETH
  return header === undefined ? undefined : { va: BigInt(header.va), rkey: Number(header.rkey) }
}

/** Opcodes of requests to the word at WORD_OFFSET. */
const WORD_OPCODES: readonly number[] = [
  opcodeNumber.RC_COMPARE_SWAP,
  opcodeNumber.RC_FETCH_ADD,
  opcodeNumber.RC_FLUSH,
  opcodeNumber.RC_ATOMIC_WRITE,
]
const isToWord = (packet: Uint8Array): boolean => WORD_OPCODES.includes(packet[0])
/** The rkey of forged packets that names no region. */
const WRONG_KEY = 0xdeadbeef

/** Drops frames with a wrong ICRC, as a port does, and frames for other queue pairs, as a device does. */
export const run = (linux: Linux, name: string, frames: readonly Ipv4Frame[]): Result => {
  const frameWithAddress = frames.find(f => remoteOf(f.payload) !== undefined)
  const first = frameWithAddress && remoteOf(frameWithAddress.payload)
  // flush_global starts with a WRITE to the word
  const startsAtWord = name === 'flush_global' || (frameWithAddress !== undefined && isToWord(frameWithAddress.payload))
  const offset = FIRST_OFFSETS[name] ?? (startsAtWord ? WORD_OFFSET : 0)
  /** Remote address of region offset 0 in the capture. */
  const base = first === undefined ? MEMORY_BASE : first.va - BigInt(offset)
  const node = createNode({
    memoryBytes: REGION_BYTES,
    locate: address => {
      const isLocal = address >= MEMORY_BASE && address < MEMORY_BASE + BigInt(REGION_BYTES)
      return Number(address - (isLocal ? MEMORY_BASE : base))
    },
  })
  for (let i = 0; i < REGION_BYTES; i++) node.memory[i] = 'a'.charCodeAt(0) + (i % 26)
  node.words.setBigUint64(WORD_OFFSET, 5n, true)
  node.regions.length = 0
  const flushAccess = linux === '6.12' ? Access.FLUSH_GLOBAL : 0
  if (first !== undefined && first.rkey !== WRONG_KEY)
    node.regions.push({ key: first.rkey, pd: 1, offset: 0, length: REGION_BYTES, access: ALL_ACCESS | flushAccess })
  node.regions.push({ key: LOCAL_KEY, pd: 1, offset: 0, length: REGION_BYTES, access: Access.LOCAL_WRITE })
  const qpn = name === 'unknown_qp' ? 1 : qpnOf(frames[0])
  const row = node.createQp(qpn, { maxSge: 1 })
  // The attributes in responder.md.
  node.connect(row, {
    destQpn: 0x77,
    sqPsn: 0x1100,
    rqPsn: FIRST_PSN,
    minRnrTimer: 27,
    maxDestRdAtomic: 4,
    access: REMOTE_ACCESS | flushAccess,
  })
  for (let i = 0; i < 8; i++) node.postReceive(row, { id: i, sges: [{ at: i * 4096, length: 4096 }] })
  for (const frame of frames) {
    const arena = arenaOver(frame.payload)
    const isIcrcCorrect = verifyIcrc(arena, 0, frame.payload.length, makeFlow(frame), frame.identification)
    const isTooShort = frame.payload.length < SHORTEST_PACKET
    if (isTooShort || !isIcrcCorrect || qpnOf(frame) !== qpn) continue
    const peer = frame.source.join() === ATTACKER.join() ? 0 : 1
    node.inject(row, frame.payload, 0, peer)
    node.endBurst()
    node.transmit(0)
  }
  const replies = node.sent.map(({ bytes }): Sent => {
    const packet = parsePacket(bytes)
    if (packet.kind === 'opaque') throw new Error(`our engine sent an invalid packet: ${packet.reason}`)
    return { packet: packet as WellFormedPacket, timing: 'immediate', waited: 0 }
  })
  const { state, rqPsn } = node.engine.query(row)
  const hex = rqPsn.toString(16).padStart(6, '0')
  const word = node.words.getBigUint64(WORD_OFFSET, true)
  const lines = node.cqes.map(c => completionText(c.status, c.opcode, c.bytes))
  return { replies, after: [...lines, `state ${state} rq_psn 0x${hex}`, `word ${word}`].join('; ') }
}

/**
 * The table's last column in the form of `Result.after`, without sq_psn, and without opcode and length of failed
 * completions.
 */
export const plainAfter = (after: string): string =>
  after
    .split('; ')
    .flatMap(part => {
      const wc = /^(?:(\d+) x \()?wc status (\d+) \(.*?\) opcode (\d+) len (\d+)/.exec(part)
      if (wc !== null) {
        const [, count, status, opcode, length] = wc
        return Array<string>(Number(count ?? 1)).fill(completionText(Number(status), Number(opcode), Number(length)))
      }
      const qp = /^qp state (\d) sq_psn \S+ rq_psn (\S+)/.exec(part)
      return [qp === null ? part : `state ${qp[1]} rq_psn ${qp[2]}`]
    })
    .join('; ')
