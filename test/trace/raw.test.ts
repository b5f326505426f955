/*
 * The bytes of calls below their lines (`userdma trace --abi`): names and structs are Linux's, bytes the program's.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { callJson, callLine } from '../../src/trace/calls.ts'
import { rawLines } from '../../src/trace/raw.ts'
import { ABRIDGED } from '../../src/trace/values.ts'
import type { TraceRecord } from '../../src/uapi/tool.ts'
import { readAbilog } from '../uapi/abilog.ts'
import { recordsOf } from './records.ts'

const textOf = (record: TraceRecord): string => rawLines(record, ABRIDGED).join('\n')
const find = (log: string, what: RegExp): TraceRecord => {
  const found = recordsOf(log).find(record => what.test(callLine(record)))
  assert.ok(found, String(what))
  return found
}

describe('bytes of a call', () => {
  it('that is a command within an ioctl: the command, its structs, what went in and came out', () => {
    const record = find('ibv_rc_pingpong.client.abilog', / mr\.create\(/)
    const lines = textOf(record).split('\n')
    assert.match(
      lines[0],
      /^ {4}ioctl DEVICE\.INVOKE_WRITE \(object 0, method 0, driver 14\) at 0x[0-9a-f]+, 72 bytes$/,
    )
    const rest = lines.slice(1).sort()
    assert.match(rest[0], /^ {6}CORE_IN struct ib_uverbs_reg_mr at 0x[0-9a-f]+, 40 bytes: [0-9a-f]{64}… \(40 bytes\)$/)
    assert.match(rest[1], /^ {6}CORE_OUT struct ib_uverbs_reg_mr_resp out at 0x[0-9a-f]+, 12 bytes: [0-9a-f]{24}$/)
    assert.equal(rest[2], '      WRITE_CMD 9 REG_MR')
    assert.equal(rest.length, 3)
  })

  it('that is an ioctl: each attribute by its name; what shares memory with an output is shown as it went in', () => {
    const record = find('ibv_rc_pingpong.client.abilog', / rc_qp\.create\(/)
    const text = textOf(record)
    assert.match(text, /ioctl QP\.QP_CREATE \(object 4, method 0, driver 14\)/)
    assert.match(text, /^ {6}CREATE_QP_TYPE 8 bytes: 0x2$/m)
    assert.match(text, /^ {6}CREATE_QP_CAP at 0x[0-9a-f]+, 20 bytes: 01000000f4010000/m)
    assert.match(text, /^ {6}CREATE_QP_RESP_CAP out at 0x[0-9a-f]+, 20 bytes: 01000000f4010000/m)
    assert.match(text, /^ {6}UHW_OUT out at 0x[0-9a-f]+, 32 bytes: /m)
    assert.match(text, /^ {6}CREATE_QP_PD_HANDLE 0x0$/m)
  })

  it('that was written: the command, its struct and the response', () => {
    const record = find('raw.abilog', / port\.query\(object 1\) = \d/)
    assert.equal(record.dialect, 'write')
    const lines = textOf(record).split('\n')
    assert.match(lines[0], /^ {4}write 2 QUERY_PORT struct ib_uverbs_query_port at 0x[0-9a-f]+, 24 bytes: 02000000/)
    assert.match(lines[1], /^ {6}out struct ib_uverbs_query_port_resp at 0x[0-9a-f]+, 40 bytes: /)
  })

  it('are those that the program had, every one', () => {
    const written = readAbilog('raw.abilog').filter(call => call.kind === 'write')
    const hex = new Set(written.map(({ data }) => Buffer.from(data).toString('hex')))
    const records = recordsOf('raw.abilog').filter(({ dialect, raw }) => dialect === 'write' && raw!.in.length > 0)
    assert.ok(records.length > 30, `${records.length} records`)
    for (const record of records) {
      const { abi } = callJson(record) as { abi: { in: { bytes: string; length: number }[] } }
      assert.ok(hex.has(abi.in[0].bytes), callLine(record))
      assert.equal(abi.in[0].length * 2, abi.in[0].bytes.length)
    }
  })

  it('that decodes to nothing are shown in any case, those of one that Linux names when all is asked for', () => {
    const unknown = find('raw.abilog', /object 4095 method 0/)
    assert.match(
      callLine(unknown),
      /ioctl\(\?\) = -1 EPROTONOSUPPORT .*\n {4}ioctl unknown \(object 4095, method 0, driver 14\)/,
    )
    const named = find('raw.abilog', /POLL_CQ/)
    assert.doesNotMatch(callLine(named), /\n/)
    assert.match(callLine(named, { verbose: true }), /\n {4}write 21 POLL_CQ struct ib_uverbs_poll_cq at /)
    const decoded = find('raw.abilog', / pd\.create\(/)
    assert.doesNotMatch(callLine(decoded, { verbose: true }), /\n/)
    assert.match(callLine(decoded, { abi: true }), /\n {4}write 3 ALLOC_PD/)
  })

  it('as JSON: names, and memory with its addresses', () => {
    const { abi } = callJson(find('ibv_rc_pingpong.client.abilog', / pd\.create\(/)) as { abi: Record<string, unknown> }
    assert.deepEqual(Object.keys(abi), ['ioctl', 'command', 'struct', 'in', 'out'])
    assert.equal(abi.ioctl, 'DEVICE.INVOKE_WRITE')
    assert.equal(abi.command, 'ALLOC_PD')
    assert.equal(abi.struct, 'ib_uverbs_alloc_pd')
    assert.deepEqual(Object.keys((abi.out as object[])[0]), ['address', 'length', 'bytes'])
  })

  it('never throw, whatever they are', () => {
    const piece = fc.tuple(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), fc.uint8Array({ maxLength: 80 }), fc.nat(100))
    const pieces = fc.array(piece, { maxLength: 4 }).map(all =>
      all.map(([at, bytes, more]) => {
        const base64 = Buffer.from(bytes).toString('base64')
        return [`0x${at.toString(16)}`, base64, bytes.length + more] as const
      }),
    )
    fc.assert(
      fc.property(fc.constantFrom('write', 'ioctl', 'object'), pieces, pieces, (dialect, read, written) => {
        const record = { ...recordsOf('raw.abilog')[0], dialect, raw: { in: read, out: written } } as TraceRecord
        callLine(record, { abi: true })
        JSON.stringify(callJson(record))
      }),
      { numRuns: 40 },
    )
  })
})
