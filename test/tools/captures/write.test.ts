/*
 * Captures written from captures: filtered packets are the same bytes; redacted ones have the same causes, right ICRCs,
 * and no payloads, private data or addresses.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { opcodeByNumber } from '../../../src/spec/wire/opcodes.ts'
import { CaptureAnalysis } from '../../../src/tools/captures/analysis.ts'
import type { CaptureFilter } from '../../../src/tools/captures/filter.ts'
import { CaptureRedactor, CaptureWriter } from '../../../src/tools/captures/write.ts'
import { mappedIpv4 } from '../../../src/transport/wire/address.ts'
import { readCapture } from '../../captures.ts'
import { fixture } from '../../paths.ts'
import { findTool, inCi, scratchFolder } from '../../tools.ts'
import { analyse, causesIn, packetsOfFixture, pcapOf } from './build.ts'

const written = (file: Uint8Array, isRedacted: boolean, filter: CaptureFilter = {}): Uint8Array => {
  const parts: Uint8Array[] = []
  const holder: { writer?: CaptureWriter } = {}
  const analysis = new CaptureAnalysis({
    filter,
    onPacket: (packet, located, kind) => holder.writer?.add(packet, located, kind),
  })
  const redactor = isRedacted ? new CaptureRedactor(analysis.addresses) : undefined
  holder.writer = new CaptureWriter(bytes => parts.push(bytes), redactor)
  analysis.reader.push(file)
  return new Uint8Array(Buffer.concat(parts))
}

test('a filter keeps the bytes and times of the packets that it accepts', () => {
  const packets = packetsOfFixture('nak_access_write')
  assert.deepEqual(readCapture(written(pcapOf(packets), false)), packets)
  const server = { hosts: [mappedIpv4(Uint8Array.of(10, 77, 0, 3), 0)] }
  assert.equal(readCapture(written(pcapOf(packets), false, server)).length, packets.length)
  const other = { hosts: [mappedIpv4(Uint8Array.of(10, 77, 0, 4), 0)] }
  assert.equal(readCapture(written(pcapOf(packets), false, other)).length, 0)
  assert.deepEqual(readCapture(written(pcapOf(packets), false, { from: 0, to: 0 })), packets.slice(0, 1))
})

test('redacted captures have the same causes and queue pairs, whole and cut', () => {
  for (const file of readdirSync(fixture('wire')).filter(name => name.endsWith('.pcap') && !name.includes('inject'))) {
    for (const snap of [262_144, 96]) {
      const source = pcapOf(packetsOfFixture(file.replace('.pcap', '')), { snap })
      const result = written(source, true)
      assert.deepEqual(causesIn(result), causesIn(source), file)
      const flows = (bytes: Uint8Array): unknown[] =>
        analyse(bytes).flows.map(({ qpn, packets, icrcWrong, repeated }) => [qpn, packets, icrcWrong, repeated])
      assert.deepEqual(flows(result), flows(source), file)
    }
  }
})

test('redacted captures have no address, payload or private data of the source', () => {
  const has = (bytes: Uint8Array, text: string): boolean => Buffer.from(bytes).includes(Buffer.from(text, 'latin1'))
  const secrets: readonly (readonly [capture: string, secret: string])[] = [
    ['cm_reject', 'no, thank you'],
    ['cm_reject', '\x0a\x4d\x00\x02'],
    ['rping', 'rdma-ping'],
    ['rping_ipv6', '\xfd\x77'],
  ]
  for (const [capture, secret] of secrets) {
    const source = pcapOf(packetsOfFixture(capture))
    assert.ok(has(source, secret), `${capture} has ${secret}`)
    assert.ok(!has(written(source, true), secret), `${capture}: ${secret}`)
  }
  const sent = readCapture(written(pcapOf(packetsOfFixture('send_bw')), true)).filter(({ length }) => length > 1000)
  for (const { bytes } of sent) assert.ok(bytes.subarray(54, bytes.length - 4).every(byte => byte === 0))
})

/** Of each packet: opcode, destination queue pair, PSN, and bytes of the pad, as we read them. */
const ourFields = (file: Uint8Array): string[] => {
  const rows: string[] = []
  const analysis = new CaptureAnalysis({
    onPacket({ arena: { view } }, { at }) {
      const pad = (view.getUint8(at + 1) >> 4) & 3
      rows.push([view.getUint8(at), view.getUint32(at + 4) & 0xff_ffff, view.getUint32(at + 8) & 0xff_ffff, pad].join())
    },
  })
  analysis.reader.push(file)
  return rows
}

test('tshark reads what is written, and agrees in each field', {
  skip: findTool('tshark') === undefined && !inCi,
}, () => {
  const packets = readdirSync(fixture('wire'))
    .filter(name => name.endsWith('.pcap') && !name.includes('inject'))
    .flatMap(name => packetsOfFixture(name.replace('.pcap', '')))
  const folder = scratchFolder()
  for (const isRedacted of [false, true]) {
    const result = written(pcapOf(packets), isRedacted)
    const file = join(folder, `${isRedacted}.pcapng`)
    writeFileSync(file, result)
    const fields = ['opcode', 'destqp', 'psn', 'padcnt'].flatMap(name => ['-e', `infiniband.bth.${name}`])
    const { stdout, status, stderr } = spawnSync(
      'tshark',
      ['-r', file, '-Y', 'infiniband', '-T', 'fields', '-E', 'separator=,', ...fields, '-e', '_ws.malformed'],
      { encoding: 'utf8', maxBuffer: 2 ** 26 },
    )
    assert.equal(status, 0, stderr)
    const theirs = stdout
      .trim()
      .split('\n')
      .map(line => line.split(',').slice(0, 4).map(Number).join())
    assert.deepEqual(theirs, ourFields(result))
    // tshark guesses what the payload of a SEND is, and calls those malformed in which it is wrong: also in Linux's
    // captures.
    for (const line of stdout.split('\n').filter(one => /malformed/i.test(one)))
      assert.match(opcodeByNumber[Number(line.split(',')[0])]?.name ?? '', /SEND/, line)
  }
})
