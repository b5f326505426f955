/*
 * Captures as pcapng.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createPcapng, frameOf, macFor, type PcapngPacket } from '../../../src/tools/trace/pcapng.ts'
import { lidAddress } from '../../../src/transport/wire/address.ts'
import { bthPsn } from '../../../src/transport/wire/bth.ts'
import { parseFrame } from '../../../src/transport/wire/frame.ts'
import { readCapture } from '../../captures.ts'
import { findTool, inCi } from '../../tools.ts'
import { capturedPackets } from './captures.ts'

const LINKTYPE_ETHERNET = 1
/** Microseconds since 1970. */
const START = 1_700_000_000_123_456

const captureOf = (packets: readonly PcapngPacket[], interfaces: readonly string[] = ['rxe0', 'rxe1']): Buffer => {
  const blocks: Uint8Array[] = []
  const write = createPcapng(bytes => blocks.push(bytes), { interfaces })
  packets.forEach(write)
  return Buffer.concat(blocks)
}

const packets: PcapngPacket[] = capturedPackets.map(({ flow, identification, frame }, i) => ({
  interface: i % 2,
  time: START + i * 7,
  flow,
  identification,
  payload: frame.payload,
  direction: i % 3 === 0 ? 'received' : 'sent',
  ...(i % 5 === 0 && { comment: `number ${i}` }),
}))

describe('pcapng', () => {
  it('our reader finds the written packets with their times', () => {
    const read = readCapture(captureOf(packets))
    assert.equal(read.length, packets.length)
    assert.ok(read.length > 1500)
    read.forEach(({ time, linkType, bytes, length }, i) => {
      assert.equal(time, BigInt(START + i * 7) * 1000n)
      assert.equal(linkType, LINKTYPE_ETHERNET)
      assert.equal(length, bytes.length)
      assert.deepEqual(Buffer.from(bytes), Buffer.from(frameOf(packets[i])))
    })
  })

  it('built headers equal the captured ones, except for Ethernet addresses', () => {
    for (const { frame, flow, identification } of capturedPackets) {
      const { destinationMac: _d, sourceMac: _s, trailer: _t, ...original } = frame
      const built = parseFrame(frameOf({ flow, identification, payload: frame.payload }))
      assert.ok(built.kind !== 'opaque')
      const { destinationMac, sourceMac, ...fields } = built
      assert.deepEqual(fields, original)
      assert.notDeepEqual(destinationMac, sourceMac)
    }
  })

  it('the Ethernet address of an IP address is locally administered, or the group address of a multicast address', () => {
    const mac = (...address: number[]): string => Buffer.from(macFor(Uint8Array.from(address))).toString('hex')
    const mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    // 0200 or 0206 (IPv6), and the last four bytes of the address
    assert.equal(mac(...mapped, 127, 0, 0, 1), '02007f000001')
    assert.equal(mac(...mapped, 239, 205, 0, 1), '01005e4d0001')
    assert.equal(mac(0xfd, ...Array(13).fill(0), 1, 2), '020600000102')
    assert.equal(mac(0xff, 0x0e, ...Array(12).fill(0), 0x77, 9), '333300007709')
  })

  it('refuses an interface that the capture does not have', () => {
    assert.throws(() => captureOf([{ ...packets[0], interface: 2 }]), /interface 2: this capture has 2/)
  })

  it('refuses a comment that is longer than an option can be', () => {
    const withComment = (comment: string) => () => captureOf([{ ...packets[0]!, comment }])
    assert.doesNotThrow(withComment('a'.repeat(0xffff)))
    assert.throws(withComment('ä'.repeat(0x8000)), /RangeError: a pcapng option has 65536 bytes, allowed are 65535/)
  })

  const hasTshark = inCi() || findTool('tshark') !== undefined
  it('tshark reads a capture as RoCEv2 without a malformed packet', {
    skip: hasTshark ? false : 'tshark is not installed',
  }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'userdma-pcapng-'))
    try {
      const file = join(folder, 'test.pcapng')
      // Forged packets are malformed, and tshark may be older than FLUSH.
      const wellFormed = packets.filter((_, i) => !/inject|new_operations/.test(capturedPackets[i].file))
      writeFileSync(file, captureOf(wellFormed))
      const fields = [
        '_ws.malformed',
        'frame.protocols',
        'frame.interface_name',
        'infiniband.bth.psn',
        'frame.time_epoch',
      ]
      const { stdout, status, stderr } = spawnSync(
        'tshark',
        // tshark decodes some random payloads as RPC over RDMA (rpcordma).
        ['-r', file, '--disable-protocol', 'rpcordma', '-T', 'fields', ...fields.flatMap(field => ['-e', field])],
        { encoding: 'utf8', maxBuffer: 1 << 26 },
      )
      assert.equal(status, 0, stderr)
      const lines = stdout.trimEnd().split('\n')
      assert.equal(lines.length, wellFormed.length)
      lines.forEach((line, i) => {
        const [malformed, protocols, name, psn, time] = line.split('\t')
        assert.equal(malformed, '', `packet ${i + 1}`)
        assert.match(protocols, /:udp:infiniband/)
        assert.equal(name, ['rxe0', 'rxe1'][wellFormed[i].interface])
        const { buffer, byteOffset, length } = wellFormed[i].payload
        assert.equal(Number(psn), bthPsn(new DataView(buffer, byteOffset, length), 0))
        assert.equal(Math.round(Number(time) * 1e6), wellFormed[i].time)
      })
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('packets with LIDs are those of InfiniBand, on an interface of their own, for tshark too', {
    skip: hasTshark ? false : 'tshark is not installed',
  }, () => {
    const gid = (last: number): Uint8Array => Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last)
    const local = { source: lidAddress(2), destination: lidAddress(3), sourcePort: 0, trafficClass: 0, hopLimit: 0 }
    const flow = { ...local, flowLabel: 0, sl: 5 }
    const [first] = packets.filter((_, i) => /send_imm/.test(capturedPackets[i].file))
    const given = [
      first,
      { ...first, flow },
      { ...first, flow: { ...flow, hopLimit: 9, grh: { source: gid(2), destination: gid(3) } } },
      { ...first, flow, captured: 20 },
    ]
    const bytes = captureOf(given)
    assert.deepEqual(
      readCapture(bytes).map(({ linkType, bytes: { length }, length: whole }) => [linkType, whole - length]),
      [
        [1, 0],
        [197, 0],
        [197, 0],
        [197, first.payload.length + 2 - 20],
      ],
    )
    const folder = mkdtempSync(join(tmpdir(), 'userdma-pcapng-'))
    try {
      const file = join(folder, 'test.pcapng')
      writeFileSync(file, captureOf(given.slice(0, 3)))
      const fields = ['lrh.slid', 'lrh.dlid', 'lrh.sl', 'grh.sgid', 'grh.dgid', 'bth.psn', 'variant.crc']
      const columns = ['_ws.malformed', ...fields.map(field => `infiniband.${field}`)]
      const options = ['-r', file, '-T', 'fields', ...columns.flatMap(column => ['-e', column])]
      const { stdout, status, stderr } = spawnSync('tshark', options, { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
      const rows = stdout
        .trimEnd()
        .split('\n')
        .slice(1)
        .map(line => line.split('\t'))
      const psn = String(bthPsn(new DataView(first.payload.buffer, first.payload.byteOffset), 0))
      assert.deepEqual(
        rows.map(row => row.slice(0, 7)),
        [
          ['', '2', '3', '5', '', '', psn],
          ['', '2', '3', '5', 'fe80::2', 'fe80::3', psn],
        ],
      )
      for (const row of rows) assert.match(row[7], /^(0x)?[0-9a-f]+$/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
