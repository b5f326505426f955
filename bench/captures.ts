/*
 * Row "capture": how fast `userdma explain FILE` analyses a capture of 100,000 queue pairs. Its packets are made here, a
 * chunk at a time: WRITEs of 1 KiB, each acknowledged.
 *
 * `node dist/bench/captures.js GIGABYTES | userdma explain -` writes such a capture of any length.
 */
import { writeSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { opcodeNumber } from '../src/spec/wire/opcodes.ts'
import { CaptureAnalysis } from '../src/tools/captures/analysis.ts'
import { parseAddress } from '../src/transport/wire/address.ts'
import { arenaOver } from '../src/transport/wire/arena.ts'
import { emitFrame } from '../src/transport/wire/frame.ts'
import { makeFlow, sealIcrc } from '../src/transport/wire/icrc.ts'
import type { Row } from './harness/harness.ts'

const QUEUE_PAIRS = 100_000
const PACKETS = 1_000_000
const PAYLOAD = 1024
/** Requests and answers of a chunk. */
const PAIRS = 1000
const RECORD = 16
/** Ethernet, IPv4 and UDP. */
const BEFORE_BTH = 42
const RETH_BYTES = 16

const frame = (from: number, to: number, opcode: number, rest: Uint8Array): Uint8Array => {
  const payload = new Uint8Array(12 + rest.length + 4)
  payload[0] = opcode
  payload[2] = payload[3] = 0xff
  payload.set(rest, 12)
  const [source, destination] = [`10.0.0.${from}`, `10.0.0.${to}`].map(text => parseAddress(text)!)
  const ports = { sourcePort: 0xc000, destinationPort: 4791, dontFragment: true }
  sealIcrc(arenaOver(payload), 0, payload.length, makeFlow({ source, destination, ...ports }), 0)
  return emitFrame({
    kind: 'ipv4',
    destinationMac: Uint8Array.of(2, 0, 0, 0, 0, to),
    sourceMac: Uint8Array.of(2, 0, 0, 0, 0, from),
    source,
    destination,
    ...ports,
    trafficClass: 0,
    hopLimit: 64,
    identification: 0,
    payload,
  })
}

/** The head of a pcap file with nanoseconds. */
const HEAD = Buffer.alloc(24)
for (const [at, word] of [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144, 1].entries()) HEAD.writeUInt32LE(word, 4 * at)

/** Fills the same chunk again and again. ICRCs are those of the first packets: checked, they are wrong. */
const chunks = (): (() => Uint8Array) => {
  const reth = new Uint8Array(RETH_BYTES + PAYLOAD)
  new DataView(reth.buffer).setUint32(12, PAYLOAD)
  const request = frame(1, 2, opcodeNumber.RC_WRITE_ONLY, reth)
  const answer = frame(2, 1, opcodeNumber.RC_ACKNOWLEDGE, Uint8Array.of(0x1f, 0, 0, 1))
  const pair = 2 * RECORD + request.length + answer.length
  const bytes = Buffer.alloc(PAIRS * pair)
  for (let i = 0; i < PAIRS; i++) {
    let at = i * pair
    for (const one of [request, answer]) {
      bytes.writeUInt32LE(one.length, at + 8)
      bytes.writeUInt32LE(one.length, at + 12)
      bytes.set(one, at + RECORD)
      at += RECORD + one.length
    }
  }
  let sent = 0
  return () => {
    for (let i = 0; i < PAIRS; i++, sent++) {
      const [qp, psn] = [sent % QUEUE_PAIRS, Math.floor(sent / QUEUE_PAIRS) & 0x7f_ffff]
      const time = sent * 1000
      let at = i * pair
      for (const [one, qpn, delay] of [
        [request, 0x10_0000, 0],
        [answer, 0x20_0000, 500],
      ] as const) {
        bytes.writeUInt32LE(Math.floor((time + delay) / 1e9), at)
        bytes.writeUInt32LE((time + delay) % 1e9, at + 4)
        const bth = at + RECORD + BEFORE_BTH
        bytes.writeUInt32BE(qpn + qp, bth + 4)
        bytes.writeUInt32BE(((one === request ? 0x8000_0000 : 0) | ((psn + qp * 16) & 0xff_ffff)) >>> 0, bth + 8)
        at += RECORD + one.length
      }
    }
    return bytes
  }
}

/** Packets per second of processor time. */
const analyse = (): number => {
  const next = chunks()
  const analysis = new CaptureAnalysis()
  analysis.reader.push(HEAD)
  let used = 0
  for (let done = 0; done < PACKETS; done += 2 * PAIRS) {
    const chunk = next()
    const before = process.cpuUsage()
    analysis.reader.push(chunk)
    const { user, system } = process.cpuUsage(before)
    used += user + system
  }
  analysis.finish()
  return PACKETS / (used / 1e6)
}

export const captureRows: readonly Row[] = [
  {
    name: 'capture',
    quantity: 'packets of a capture with 100,000 queue pairs that are analysed',
    unit: 'packets/s',
    better: 'higher',
    reference: 'none',
    cores: 1,
    rounds: 3,
    floor: 500_000,
    aim: 800_000,
    prepare: () => ({ ours: analyse }),
  },
]

/** Writes a capture to standard output. */
const write = (gigabytes: number): void => {
  const all = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length; )
      try {
        at += writeSync(1, bytes, at)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      }
  }
  const next = chunks()
  all(HEAD)
  for (let written = 0; written < gigabytes * 1e9; ) {
    const chunk = next()
    all(chunk)
    written += chunk.length
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href)
  write(Number(process.argv[2] ?? 1))
