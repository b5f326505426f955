/*
 * Redaction keeps what belongs together: pages, addresses of hosts, and offsets.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { opcodeNumber } from '../../../src/spec/wire/opcodes.ts'
import { createRedactor } from '../../../src/tools/record/redact.ts'
import { LEFT, packets, posted } from '../../web/events.ts'

const PAGE = 0x7f12_3456_7000
const gid = (last: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 168, 3, last)
const request = (wrId: bigint, remote: number, ...addresses: number[]): SessionEvent => {
  const event = posted(LEFT, 1, 'RDMA_WRITE', 8, 1)
  const elements = addresses.map(address => ({ address, length: 8, lkey: 1 }))
  return { ...event, request: { ...event.request, wrId, elements, remote: { address: remote, length: 8, rkey: 2 } } }
}

describe('redaction', () => {
  it('gives each page a pseudonym, and keeps offsets and small numbers', () => {
    const redact = createRedactor()
    const of = (event: SessionEvent) => {
      const redacted = redact(event)
      assert.ok(redacted.kind === 'posted')
      const { wrId, elements, remote } = redacted.request
      return [Number(wrId), remote?.address ?? 0, ...elements.map(({ address }) => address)]
    }
    const [cookie, remote, first, small] = of(request(BigInt(PAGE + 8), PAGE + 0x1010, PAGE + 0x20, 4096))
    assert.equal(small, 4096)
    assert.deepEqual([cookie % 4096, remote % 4096, first % 4096], [8, 0x10, 0x20])
    assert.equal(Math.floor(cookie / 4096), Math.floor(first / 4096))
    assert.notEqual(Math.floor(cookie / 4096), Math.floor(remote / 4096))
    for (const value of [cookie, remote]) assert.ok(value >= 2 ** 20 && value < 2 ** 21, `${value}`)
    assert.deepEqual(of(request(77n, PAGE + 0x1010, PAGE + 0x20)), [77, remote, first])
  })

  it('leaves nothing of a path in frames, whatever characters it has', () => {
    const redact = createRedactor()
    const frames = [
      '/home/Jane Doe/c++/secret (old)/my+app+0x12 main',
      '/home/Jane Doe/c++/secret (old)/my+app+0x40 ',
      'at post (/home/Jane Doe/secret\'s "app"/a.js:3:14)',
      'at async file:///home/Jane%20Doe/secret/a.mjs:3:14',
      'post (/home/Jane: Doe/secret,app/a.py:3)',
      'at eval (eval at f (/home/Jane Doe/a.js:1:1), <anonymous>:2:3)',
    ]
    const event = redact({ kind: 'call', object: 1, stack: frames, call: {} as never, time: 3 })
    assert.ok(event.kind === 'call')
    assert.deepEqual(event.stack.slice(0, 5), [
      '/file1+0x12 main',
      '/file1+0x40 ',
      'at post (/file2:3:14)',
      'at async /file3:3:14',
      'post (/file4:3)',
    ])
    assert.doesNotMatch(event.stack.join('\n'), /Doe|secret|c\+\+|old|my|app|Jane/)
    const symbol = redact({ kind: 'symbol', frame: frames[0]!, frames: [{ function: frames[2]! }], time: 3 })
    assert.ok(symbol.kind === 'symbol')
    assert.equal(symbol.frame, event.stack[0])
    assert.equal(symbol.frames[0]?.function, 'at post (/file2:3:14)')
  })

  it('gives packets the pseudonyms of their memory and hosts, and cuts their payload', () => {
    const redact = createRedactor()
    const sent = packets(LEFT, 'RC_WRITE_ONLY', 5, 1)
    const bytes = new Uint8Array(sent.headerBytes + 4).fill(0xaa, sent.headerBytes)
    bytes.set(sent.bytes)
    const view = new DataView(bytes.buffer)
    view.setBigUint64(12, BigInt(PAGE + 0x10))
    view.setUint32(20, 0x1234)
    const flow = { ...sent.flow, source: gid(4), destination: gid(5) }
    const [memory, device, write] = [
      request(1n, PAGE + 0x10),
      { kind: 'device', time: 1, change: 'added', device: 0, name: 'rxe0', address: '192.168.3.5' } as const,
      { ...sent, flow, bytes },
    ].map(redact)
    assert.ok(memory.kind === 'posted' && device.kind === 'device' && write.kind === 'packets')
    assert.equal(device.address, '10.0.0.1')
    assert.deepEqual([...write.flow.destination.subarray(12)], [10, 0, 0, 1])
    assert.deepEqual([...write.flow.source.subarray(12)], [10, 0, 0, 2])
    const redacted = new DataView(write.bytes.buffer)
    assert.equal(redacted.getBigUint64(12), BigInt(memory.request.remote?.address ?? 0))
    assert.deepEqual(
      [write.bytes.length, write.bytes[0], redacted.getUint32(8), redacted.getUint32(20)],
      [sent.headerBytes, opcodeNumber.RC_WRITE_ONLY, 5, 0x1234],
    )
    assert.equal(view.getBigUint64(12), BigInt(PAGE + 0x10), 'the event itself is as it was')
  })
})
