/*
 * tshark decodes a capture, made by our pcapng writer, of packets of every opcode that the engine sends.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { type Opcode, opcodeByNumber, opcodes } from '../../../src/spec/wire/opcodes.ts'
import { packetLine } from '../../../src/tools/trace/packets.ts'
import { createPcapng, frameOf } from '../../../src/tools/trace/pcapng.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { parseFrame } from '../../../src/transport/wire/frame.ts'
import { makeFlow, sealIcrc, verifyIcrc } from '../../../src/transport/wire/icrc.ts'
import { parsePacket } from '../../../src/transport/wire/packet.ts'
import { readCapture } from '../../captures.ts'
import { findTool, inCi, scratchFolder } from '../../tools.ts'
import { SHARED_QUEUE } from '../../transport/engine/node.ts'
import { everyPacket } from './every-packet.ts'

const SERVICES = ['RC', 'UC', 'UD', 'XRC']

/** Debian 12's tshark may lack names and headers of these newer opcodes. */
const NEW_OPCODES = /_(FLUSH|ATOMIC_WRITE)$/
/** tshark names XRC's opcodes, but shows the headers after the BTH as bytes. */
const HEADERS_UNKNOWN = /^XRC_|_(FLUSH|ATOMIC_WRITE)$/

const addresses = [0, 1].map(last => Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last + 1]))
const flows = [0, 1].map(sender => ({
  source: addresses[sender],
  destination: addresses[1 - sender],
  sourcePort: 49152 + sender,
  trafficClass: 0,
  hopLimit: 64,
  flowLabel: 0,
}))

const packets = everyPacket().map(({ sender, bytes }, i) => {
  const payload = bytes.slice()
  const flow = flows[sender]
  sealIcrc(arenaOver(payload), 0, payload.length, makeFlow({ ...flow, destinationPort: ROCE_UDP_PORT }), i & 0xffff)
  return { flow, payload, identification: i & 0xffff, interface: sender, time: 1_700_000_000_000_000 + i }
})

const capture = (): Buffer => {
  const blocks: Uint8Array[] = []
  const write = createPcapng(bytes => blocks.push(bytes), { interfaces: ['rxe0', 'rxe1'] })
  packets.forEach(write)
  return Buffer.concat(blocks)
}

const TRANSPORTS: Readonly<Record<string, string>> = {
  RC: 'Reliable Connection (RC)',
  UC: 'Unreliable Connection (UC)',
  UD: 'Unreliable Datagram (UD)',
  XRC: 'Extended Reliable Connection (XRC)',
}

/** Wireshark's name of an opcode, in lower case: Wireshark's capitals vary. */
const wiresharkName = ({ name, transport }: Opcode): string => {
  const operation = name
    .slice(name.indexOf('_') + 1)
    .replace(/^WRITE/, 'RDMA_WRITE')
    .replace(/^READ_RESP/, 'RDMA_READ_response')
    .replace(/^READ_REQUEST/, 'RDMA_READ_Request')
    .replace(/^ATOMIC_ACK/, 'ATOMIC_Acknowledge')
    .replace(/^COMPARE_SWAP/, 'CmpSwap')
    .replace(/^FETCH_ADD/, 'FetchAdd')
    .replace(/_IMM$/, '_with_Immediate')
    .replace(/_INV$/, '_with_Invalidate')
    .replaceAll('_', ' ')
  return `${TRANSPORTS[transport ?? '']} - ${operation}`.toLowerCase()
}

const FIELDS: readonly (readonly [theirs: string, header: string, ours: string])[] = [
  ['infiniband.bth.se', 'BTH', 'se'],
  ['infiniband.bth.m', 'BTH', 'migReq'],
  ['infiniband.bth.tver', 'BTH', 'tver'],
  ['infiniband.bth.p_key', 'BTH', 'pkey'],
  ['infiniband.bth.destqp', 'BTH', 'destQp'],
  ['infiniband.bth.a', 'BTH', 'ackReq'],
  ['infiniband.bth.psn', 'BTH', 'psn'],
  ['infiniband.reth.va', 'RETH', 'va'],
  ['infiniband.reth.r_key', 'RETH', 'rkey'],
  ['infiniband.reth.dmalen', 'RETH', 'dmaLen'],
  ['infiniband.atomiceth.swapdt', 'AtomicETH', 'swapDt'],
  ['infiniband.atomiceth.cmpdt', 'AtomicETH', 'cmpDt'],
  ['infiniband.aeth.syndrome', 'AETH', 'syndrome'],
  ['infiniband.aeth.msn', 'AETH', 'msn'],
  ['infiniband.atomicacketh.origremdt', 'AtomicAckETH', 'origRemDt'],
  ['infiniband.immdt', 'ImmDt', 'immDt'],
  ['infiniband.ieth', 'IETH', 'rkey'],
  ['infiniband.deth.q_key', 'DETH', 'qkey'],
  ['infiniband.deth.srcqp', 'DETH', 'srcQp'],
]

/** Fields that tshark shows as hexadecimal bytes, several times. */
const BYTES = new Set(['infiniband.immdt', 'infiniband.ieth'])

/** A field of tshark as a number. */
const numberOf = (field: string, text: string): bigint => {
  if (BYTES.has(field)) return BigInt(`0x${text.split(',')[0].replaceAll(':', '')}`)
  if (/^(true|false)$/i.test(text)) return /true/i.test(text) ? 1n : 0n
  return BigInt(text)
}

describe('a packet of every opcode that we send', () => {
  it('is in the test data', () => {
    const sent = new Set(packets.map(({ payload }) => opcodeByNumber[payload[0]]!.name))
    const expected = opcodes.filter(({ transport }) => SERVICES.includes(transport ?? '')).map(({ name }) => name)
    assert.deepEqual([...sent].sort(), [...expected].sort())
    const syndromes = new Set(
      packets
        .map(({ payload }) => parsePacket(payload))
        .map(packet => (packet.kind === 'packet' && packet.name === 'RC_ACKNOWLEDGE' ? packet.AETH.syndrome : -1)),
    )
    // ACK without credits, RNR NAK with timer 12, NAKs INVALID_REQUEST, REMOTE_ACCESS, REMOTE_OPERATIONAL.
    for (const syndrome of [0x1f, 0x20 | 12, 0x61, 0x62, 0x63])
      assert.ok(syndromes.has(syndrome), `syndrome ${syndrome}`)
  })

  it('is unchanged in a capture file, has the right ICRC, and has its name in a trace', () => {
    const read = readCapture(capture())
    assert.equal(read.length, packets.length)
    for (const [i, { bytes }] of read.entries()) {
      const frame = parseFrame(bytes)
      assert.ok(frame.kind === 'ipv4')
      assert.deepEqual(new Uint8Array(bytes), frameOf(packets[i]))
      assert.deepEqual(frame.payload, packets[i].payload)
      assert.ok(verifyIcrc(arenaOver(frame.payload), 0, frame.payload.length, makeFlow(frame), frame.identification))
      const packet = parsePacket(frame.payload)
      assert.ok(packet.kind === 'packet')
      assert.equal(packetLine(packet).split(' ')[0], packet.name.replace(/^RC_/, ''))
      if ('XRCETH' in packet) assert.match(packetLine(packet), new RegExp(` xrcSrq 0x${SHARED_QUEUE.toString(16)}\\b`))
    }
  })
})

const skip = findTool('tshark') || inCi() ? false : 'tshark is not installed here (Debian: apt-get install tshark)'

/** Without these options tshark decodes some payloads as RPC over RDMA or Ethernet over InfiniBand. */
const PLAIN = [
  '--disable-protocol',
  'rpcordma',
  '--disable-heuristic',
  'rpcrdma_infiniband',
  '--disable-protocol',
  'infiniband.eoib',
]

describe('tshark', { skip }, () => {
  const folder = scratchFolder()
  const file = join(folder, 'every.pcapng')
  let lines: string[][] = []
  const tshark = (args: readonly string[]): string => {
    const { status, stdout, stderr } = spawnSync('tshark', args, { encoding: 'utf8', maxBuffer: 1 << 26 })
    assert.equal(status, 0, stderr)
    return stdout
  }

  before(() => {
    writeFileSync(file, capture())
    const fields = [
      '_ws.malformed',
      'infiniband.bth.opcode',
      'infiniband.bth.padcnt',
      ...FIELDS.map(([theirs]) => theirs),
    ]
    const stdout = tshark(['-r', file, ...PLAIN, '-T', 'fields', ...fields.flatMap(field => ['-e', field])])
    lines = stdout
      .replace(/\n$/, '')
      .split('\n')
      .map(line => line.split('\t'))
  })

  it('finds no packet malformed, and decodes the fields that we wrote', () => {
    assert.equal(lines.length, packets.length)
    for (const [i, [malformed, opcode, pad, ...values]] of lines.entries()) {
      const packet = parsePacket(packets[i].payload)
      assert.ok(packet.kind === 'packet')
      const title = `packet ${i + 1}, ${packet.name}`
      assert.equal(malformed, '', title)
      assert.equal(Number(opcode), packets[i].payload[0], title)
      assert.equal(Number(pad), -packet.payload.length & 3, title)
      const records = packet as unknown as Record<string, Record<string, number | bigint | boolean> | undefined>
      for (const [k, [theirs, header, ours]] of FIELDS.entries()) {
        // Wireshark also shows va and rkey of an AtomicETH as fields of a RETH.
        const record = records[header] ?? (header === 'RETH' ? records.AtomicETH : undefined)
        const expected = record?.[ours]
        if (header !== 'BTH' && HEADERS_UNKNOWN.test(packet.name)) continue
        if (expected === undefined) assert.equal(values[k], '', `${title}: ${theirs}`)
        else assert.equal(numberOf(theirs, values[k]), BigInt(expected), `${title}: ${theirs}`)
      }
    }
  })

  it('uses our names of opcodes', () => {
    const names = [...tshark(['-r', file, ...PLAIN, '-V', '-O', 'infiniband']).matchAll(/^ {8}Opcode: (.*) \(\d+\)$/gm)]
    assert.equal(names.length, packets.length)
    for (const [i, { payload }] of packets.entries()) {
      const opcode = opcodeByNumber[payload[0]]!
      if (NEW_OPCODES.test(opcode.name) && names[i][1] === 'Unknown') continue
      assert.equal(names[i][1].toLowerCase(), wiresharkName(opcode), `packet ${i + 1}`)
    }
  })
})
