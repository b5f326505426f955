/*
 * Records that the preload library writes, field by field.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RecordKind } from '../../../src/tools/observe/file-layout.ts'
import { type ObservedRecord, recordOf } from '../../../src/tools/observe/records.ts'
import { recordBytes, structBytes } from './structs.ts'

const text = (value: string): Uint8Array => Buffer.from(`${value}\0`)
const call = {
  request: 0xc018_1b01,
  argument: 0x7fff_0000_1000n,
  result: -12,
  started: 5,
  fd: 9,
  entry: 1,
  fileKind: 1,
  number: 17,
}
const range = (address: number, bytes: readonly number[]): Uint8Array[] => [
  structBytes('rangeRecord', { address, length: bytes.length }),
  Uint8Array.from({ length: (bytes.length + 7) & ~7 }, (_, i) => bytes[i] ?? 0xee),
]
const request = { wrId: 2n ** 64n - 1n, remoteAddress: 2n ** 47n, opcode: -1, flags: 2, rkey: 3, destQpn: 5 }
const elements = [
  { address: 2 ** 46, length: 7, lkey: 8 },
  { address: 16, length: 2 ** 31, lkey: 10 },
]
const completion = { wrId: 1n, status: 2, opcode: 3, vendorErr: 4, bytes: 5, qpn: 6 }

const cases: readonly (readonly [Uint8Array, Record<string, unknown>])[] = [
  [recordBytes(RecordKind.STACK, {}, text('f (a)\ng (b)')), { kind: 'stack', frames: ['f (a)', 'g (b)'] }],
  [
    recordBytes(RecordKind.START, {}, structBytes('openRecord', { fd: 3, fileKind: 77 }), text('server')),
    { kind: 'start', parent: 77, fork: 3, command: 'server' },
  ],
  [
    recordBytes(RecordKind.OPEN, {}, structBytes('openRecord', { fd: -1, fileKind: 2 }), text('/dev/x')),
    { kind: 'open', fd: -1, fileKind: 2, path: '/dev/x' },
  ],
  [
    recordBytes(RecordKind.DUPLICATE, {}, structBytes('openRecord', { fd: 4, fileKind: 3 })),
    { kind: 'duplicate', fd: 4, from: 3 },
  ],
  [
    recordBytes(
      RecordKind.RETURN,
      {},
      structBytes('callRecord', { ...call, ranges: 2 }),
      ...range(0x1000, [1, 2, 3]),
      ...range(0x2000, [4]),
    ),
    {
      kind: 'return',
      call: {
        ...call,
        request: 0xc018_1b01n,
        started: 5n,
        ranges: [
          { address: 0x1000n, bytes: Uint8Array.of(1, 2, 3) },
          { address: 0x2000n, bytes: Uint8Array.of(4) },
        ],
      },
    },
  ],
  [
    recordBytes(
      RecordKind.POST,
      {},
      structBytes('postRecord', { fd: 9, queue: 2, number: 0x11, count: 2 }),
      structBytes('requestRecord', { ...request, elements: 2 }),
      ...elements.map(element => structBytes('elementRecord', element)),
      structBytes('requestRecord', { ...request, wrId: 1, opcode: 4 }),
    ),
    {
      kind: 'post',
      fd: 9,
      queue: 2,
      number: 0x11,
      requests: [
        { ...request, elements },
        { ...request, wrId: 1n, opcode: 4, elements: [] },
      ],
    },
  ],
  [
    recordBytes(
      RecordKind.REFUSED,
      {},
      structBytes('postRecord', { fd: 9, queue: 1, number: 0x11, count: 3, error: -22 }),
    ),
    { kind: 'refused', fd: 9, queue: 1, number: 0x11, count: 3, error: -22 },
  ],
  [
    recordBytes(
      RecordKind.REFUSAL,
      {},
      structBytes('refusalRecord', { fd: 9, error: 22, object: 3, fact0: 1, fact3: 2n ** 40n }, 'ibv_rereg_mr'),
    ),
    {
      kind: 'refusal',
      fd: 9,
      function: 'ibv_rereg_mr',
      object: 3n,
      error: 22,
      facts: [1n, 0n, 0n, 2n ** 40n],
    },
  ],
  [
    recordBytes(
      RecordKind.POLL,
      {},
      structBytes('pollRecord', { fd: 9, cq: 4, count: 2 }),
      structBytes('completionRecord', completion),
      structBytes('completionRecord', { ...completion, wrId: 8 }),
    ),
    { kind: 'poll', fd: 9, cq: 4, completions: [completion, { ...completion, wrId: 8n }] },
  ],
  [
    recordBytes(RecordKind.NOTIFY, {}, structBytes('pollRecord', { fd: 9, cq: 4, solicitedOnly: 1 })),
    { kind: 'notify', fd: 9, cq: 4, solicitedOnly: true },
  ],
]

for (const [bytes, expected] of cases)
  test(`a record "${expected.kind}" has its fields`, () => {
    const view = new DataView(bytes.buffer)
    view.setBigUint64(8, 123n, true)
    view.setUint32(16, 42, true)
    view.setUint32(20, 6, true)
    assert.deepEqual(recordOf(bytes, 7), {
      pid: 7,
      tid: 42,
      time: 123n,
      stack: 6,
      ...expected,
    } as unknown as ObservedRecord)
  })
