/*
 * The lines of `userdma trace --abi` below a call of Linux's dialects.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { recordingView } from '../../../../src/daemon/trace/trace-messages.ts'
import { Errno } from '../../../../src/spec/errno.ts'
import { UHW_IN } from '../../../../src/spec/linux/ioctl.ts'
import type { TraceRecord } from '../../../../src/spec/records.ts'
import { rawLines } from '../../../../src/tools/trace/abi/raw.ts'
import { callJson, callLine } from '../../../../src/tools/trace/calls.ts'
import { ABRIDGED } from '../../../../src/tools/trace/values.ts'
import { isAnswer } from '../../../../src/uapi/call.ts'
import { IoctlAttr, IoctlHeader } from '../../../../src/uapi/linux/ioctl-message.ts'
import { decodeWrite, HEADER, requestStart, WriteHeader } from '../../../../src/uapi/linux/write.ts'
import { readAbilog } from '../../../uapi/abilog.ts'
import { ARENA, AT, arena, fakeView } from '../../../uapi/fake-view.ts'
import { recordsOf } from '../records.ts'

const textOf = (record: TraceRecord): string => rawLines(record, ABRIDGED).join('\n')
/** The first record of a log with a matching line. */
const findRecord = (log: string, line: RegExp): TraceRecord => {
  const found = recordsOf(log).find(record => line.test(callLine(record)))
  assert.ok(found, String(line))
  return found
}

const base = { time: 0, duration: 1, pid: 1, tid: 1, fd: 3, command: 'x', device: 'rxe0', ret: 0 } as const
const made = (dialect: 'write' | 'ioctl', raw: NonNullable<TraceRecord['raw']>): TraceRecord => ({
  ...base,
  dialect,
  raw,
})
const rangeOf = (address: bigint, bytes: Uint8Array) =>
  [`0x${address.toString(16)}`, Buffer.from(bytes).toString('base64'), bytes.length] as const
/** A message for method 0 of an object. */
const ioctlMessage = (
  object: number,
  attributes: readonly { id: number; length: number; data: bigint }[],
): Uint8Array => {
  const bytes = new Uint8Array(IoctlHeader.bytes + IoctlAttr.bytes * attributes.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(IoctlHeader.length, bytes.length, true)
  view.setUint16(IoctlHeader.object, object, true)
  view.setUint16(IoctlHeader.attributeCount, attributes.length, true)
  for (const [i, { id, length, data }] of attributes.entries()) {
    const at = IoctlHeader.bytes + IoctlAttr.bytes * i
    view.setUint16(at + IoctlAttr.id, id, true)
    view.setUint16(at + IoctlAttr.length, length, true)
    view.setBigUint64(at + IoctlAttr.data, data, true)
  }
  return bytes
}

describe('the lines below a call', () => {
  it('have the write command of INVOKE_WRITE, with its structs, inputs and outputs', () => {
    const record = findRecord('ibv_rc_pingpong.client.abilog', / mr\.create\(/)
    const lines = textOf(record).split('\n')
    assert.match(
      lines[0],
      /^ {4}ioctl DEVICE\.INVOKE_WRITE \(object 0, method 0, driver 14\) at 0x[0-9a-f]+, 72 bytes$/,
    )
    const fields = lines.filter(line => /^ {8}\+/.test(line)).map(line => line.trim())
    assert.deepEqual(
      fields.map(line => line.replace(/0x[0-9a-f]+/g, '0x…')),
      ['+8 start 0x…', '+16 length 64', '+24 iova 0x…', '+36 access LOCAL_WRITE', '+0 object 1', '+4 lkey 0x…'],
    )
    const attributes = lines.filter(line => /^ {6}\S/.test(line)).sort()
    assert.match(
      attributes[0],
      /^ {6}CORE_IN struct ib_uverbs_reg_mr at 0x[0-9a-f]+, 40 bytes: [0-9a-f]{64}… \(40 bytes\)$/,
    )
    assert.match(
      attributes[1],
      /^ {6}CORE_OUT struct ib_uverbs_reg_mr_resp out at 0x[0-9a-f]+, 12 bytes: [0-9a-f]{24}$/,
    )
    assert.equal(attributes[2], '      WRITE_CMD 9 REG_MR')
    assert.equal(attributes.length, 3)
  })

  it('have the attributes of an ioctl by name, and the sent bytes of an input that an output overwrites', () => {
    const record = findRecord('ibv_rc_pingpong.client.abilog', / rc_qp\.create\(/)
    const text = textOf(record)
    assert.match(text, /ioctl QP\.QP_CREATE \(object 4, method 0, driver 14\)/)
    assert.match(text, /^ {6}CREATE_QP_TYPE 8 bytes: 0x2$/m)
    assert.match(text, /^ {6}CREATE_QP_CAP at 0x[0-9a-f]+, 20 bytes: 01000000f4010000/m)
    assert.match(text, /^ {6}CREATE_QP_RESP_CAP out at 0x[0-9a-f]+, 20 bytes: 01000000f4010000/m)
    assert.match(text, /^ {6}UHW_OUT out at 0x[0-9a-f]+, 32 bytes: /m)
    assert.match(text, /^ {6}CREATE_QP_PD_HANDLE 0x0$/m)
    assert.match(text, /^ {6}CREATE_QP_CAP .*\n {8}\+0 cap\.maxSendWr 1\n {8}\+4 cap\.maxRecvWr 500$/m)
  })

  it('have the handle or descriptor that a create returns', () => {
    const queue = findRecord('ibv_rc_pingpong.client.abilog', / cq\.create\(.* \{object 2,/)
    assert.match(textOf(queue), /^ {6}CREATE_CQ_HANDLE 0x0, then 2$/m)
    const refused = { ...queue, ret: -Errno.EINVAL }
    assert.match(textOf(refused), /^ {6}CREATE_CQ_HANDLE 0x0$/m)
    const events = findRecord('ibv_rc_pingpong.client.abilog', / async_fd\.create\(/)
    const newDescriptors = [{ attribute: 'object', fd: 77 }]
    assert.match(
      textOf({ ...events, descriptors: newDescriptors }),
      /^ {6}ASYNC_EVENT_ALLOC_FD_HANDLE 0x0, then fd 77$/m,
    )
    const channel = findRecord('ibv_rc_pingpong_events.client.abilog', / comp_channel\.create\(/)
    assert.match(textOf({ ...channel, descriptors: newDescriptors }), /CORE_OUT .*\n {8}\+0 object fd 77$/m)
  })

  it('have the rdma_cm command of a write on an rdma_cm file', () => {
    const range = (bytes: number[]) => rangeOf(AT, Uint8Array.from(bytes))
    const record = { ...findRecord('raw.abilog', / port\.query\(/), dialect: 'rdma_cm' } as const
    const text = (bytes: number[]) =>
      textOf({ ...record, raw: { in: [range(bytes)], out: [range([7])] } }).replace(/ at .*/g, '')
    /** struct rdma_ucm_cmd_hdr: `in` is 24 bytes, `out` 4. */
    const header = (command: number) => [command, 0, 0, 0, 24, 0, 4, 0]
    assert.equal(text(header(0)), '    rdma_cm CREATE_ID\n      out')
    assert.equal(text(header(13)), '    rdma_cm GET_OPTION\n      out')
    assert.equal(text([0]), '    rdma_cm\n      out', 'a short header')
  })

  it('have the command of a write, its struct and its response', () => {
    const record = findRecord('raw.abilog', / port\.query\(object 1\) = \d/)
    assert.equal(record.dialect, 'write')
    const lines = textOf(record).split('\n')
    assert.match(lines[0], /^ {4}write 2 QUERY_PORT struct ib_uverbs_query_port at 0x[0-9a-f]+, 24 bytes: 02000000/)
    const out = lines.findIndex(line => / out /.test(line))
    assert.match(lines[out], /^ {6}out struct ib_uverbs_query_port_resp at 0x[0-9a-f]+, 40 bytes: /)
    assert.deepEqual(lines.slice(1, out), ['      +8 object 1'])
    assert.match(lines[out + 1], /^ {8}\+0 attributes\.portCapFlags CM_SUP$/)
    const device = textOf(findRecord('raw.abilog', /fd \d+ device\.query\(\) = \d/))
    assert.match(device, /^ {8}\+8 attributes\.nodeGuid ([0-9a-f]{4}:){3}[0-9a-f]{4}$/m)
  })

  it('have the responses of a write by their addresses: the driver writes first', () => {
    const CREATE_CQ = 18
    const [CQE, COMP_CHANNEL] = [16, 24] // offsets in struct ib_uverbs_create_cq
    const [RESPONSE_BYTES, DRIVER_BYTES] = [8, 16]
    const view = fakeView(arena())
    const bytes = new Uint8Array(HEADER + 32)
    const command = new DataView(bytes.buffer)
    command.setUint32(WriteHeader.command, CREATE_CQ, true)
    command.setUint16(WriteHeader.inWords, bytes.length / 4, true)
    command.setUint16(WriteHeader.outWords, (RESPONSE_BYTES + DRIVER_BYTES) / 4, true)
    command.setBigUint64(WriteHeader.response, ARENA, true)
    command.setUint32(HEADER + CQE, 100, true)
    command.setInt32(HEADER + COMP_CHANNEL, -1, true)
    view.memory.map(AT, bytes)
    const recording = recordingView(view)
    const decoded = decodeWrite(recording.view, AT, bytes.length)
    if (isAnswer(decoded)) assert.fail(String(decoded.reason))
    const { ret } = decoded.answer({ object: 9, out: { cqe: 127, queue: { offset: 0x2000n, size: 4096 } } })
    assert.equal(ret, bytes.length)
    const out = textOf(made('write', recording.raw()))
      .split('\n')
      .filter(line => !/^ {6}\+/.test(line))
    assert.deepEqual(out.slice(1), [
      '      out driver at 0x200008, 16 bytes: 00200000000000000010000000000000',
      '      out struct ib_uverbs_create_cq_resp at 0x200000, 8 bytes: 090000007f000000',
      '        +0 object 9',
      '        +4 cqe 127',
    ])
  })

  it('have no bytes of the driver in the struct of an extended write', () => {
    const EX_CREATE_CQ = 0x80000012
    const CQE = 8 // offset in struct ib_uverbs_ex_create_cq, of which the request has the first 16 bytes
    const [REQUEST_BYTES, DRIVER_BYTES] = [16, 8]
    const start = requestStart(true)
    const bytes = new Uint8Array(start + REQUEST_BYTES + DRIVER_BYTES).fill(0x11, start + REQUEST_BYTES)
    const command = new DataView(bytes.buffer)
    command.setUint32(WriteHeader.command, EX_CREATE_CQ, true)
    command.setUint16(WriteHeader.inWords, REQUEST_BYTES / 8, true)
    command.setUint32(start + CQE, 100, true)
    const lines = textOf(made('write', { in: [rangeOf(AT, bytes)], out: [] })).split('\n')
    assert.deepEqual(lines.slice(1), ['      +8 cqe 100'])
  })

  it('have the number of an unknown command with all its bits', () => {
    const textOfCommand = (number: number): string => {
      const bytes = new Uint8Array(8)
      new DataView(bytes.buffer).setUint32(0, number, true)
      return textOf(made('write', { in: [rangeOf(AT, bytes)], out: [] })).replace(/ at .*/, '')
    }
    assert.equal(textOfCommand(0x80000103), '    write 0x80000103')
    assert.equal(textOfCommand(0x800000fe), '    write ex 254')
    assert.equal(textOfCommand(0xfe), '    write 254')
    const [DEVICE, WRITE_CMD] = [0, 2]
    const invoke = ioctlMessage(DEVICE, [{ id: WRITE_CMD, length: 8, data: 0x1_0000_0003n }])
    const record = made('ioctl', { in: [rangeOf(AT, invoke)], out: [] })
    assert.match(textOf(record), /^ {6}WRITE_CMD \(optional\) 8 bytes: 0x100000003$/m)
    assert.equal((callJson(record) as { abi: { command?: string } }).abi.command, undefined)
  })

  it('have the value in an attribute of at most 8 bytes, also if it is the address of another', () => {
    const caps = new Uint8Array(20).fill(1)
    const QP = 4
    const [USER_HANDLE, CAP, FLAGS] = [7, 8, 10]
    const attributes = [
      { id: USER_HANDLE, length: 8, data: ARENA },
      { id: CAP, length: 20, data: ARENA },
      { id: FLAGS, length: 4, data: 0xffff_ffff_0000_0002n },
      { id: UHW_IN, length: 12, data: ARENA },
    ]
    const inputs = [rangeOf(AT, ioctlMessage(QP, attributes)), rangeOf(ARENA, caps)]
    const lines = textOf(made('ioctl', { in: inputs, out: [] }))
      .split('\n')
      .filter(line => /^ {6}\S/.test(line))
    assert.deepEqual(lines, [
      '      CREATE_QP_USER_HANDLE (optional) 8 bytes: 0x200000',
      `      CREATE_QP_CAP (optional) at 0x200000, 20 bytes: ${'01'.repeat(20)}`,
      '      CREATE_QP_FLAGS (optional) 4 bytes: 0x2',
      `      UHW_IN (optional) at 0x200000, 12 bytes: ${'01'.repeat(12)}`,
    ])
  })

  it('have exactly the bytes that the program wrote', () => {
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

  it('are shown with `abi`; for an undecoded call also with `verbose`; for a call without a name always', () => {
    const unknown = findRecord('raw.abilog', /object 4095 method 0/)
    assert.match(
      callLine(unknown),
      /ioctl\(\?\) = -1 EPROTONOSUPPORT .*\n {4}ioctl unknown \(object 4095, method 0, driver 14\)/,
    )
    const named = findRecord('raw.abilog', /POLL_CQ/)
    assert.doesNotMatch(callLine(named), /\n/)
    assert.match(callLine(named, { verbose: true }), /\n {4}write 21 POLL_CQ struct ib_uverbs_poll_cq at /)
    const decoded = findRecord('raw.abilog', / pd\.create\(/)
    assert.doesNotMatch(callLine(decoded, { verbose: true }), /\n/)
    assert.match(callLine(decoded, { abi: true }), /\n {4}write 3 ALLOC_PD/)
  })

  it('are in JSON with names, and with the addresses of memory', () => {
    const { abi } = callJson(findRecord('ibv_rc_pingpong.client.abilog', / pd\.create\(/)) as {
      abi: Record<string, unknown>
    }
    assert.deepEqual(Object.keys(abi), ['ioctl', 'command', 'struct', 'in', 'out'])
    assert.equal(abi.ioctl, 'DEVICE.INVOKE_WRITE')
    assert.equal(abi.command, 'ALLOC_PD')
    assert.equal(abi.struct, 'ib_uverbs_alloc_pd')
    assert.deepEqual(Object.keys((abi.out as object[])[0]), ['address', 'length', 'bytes'])
  })

  it('are formatted without an exception, for random bytes', () => {
    const range = fc.tuple(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.uint8Array({ maxLength: 80, size: 'max' }),
      fc.nat(100),
    )
    const ranges = fc.array(range, { maxLength: 4 }).map(all =>
      all.map(([address, bytes, missing]) => {
        const base64 = Buffer.from(bytes).toString('base64')
        return [`0x${address.toString(16)}`, base64, bytes.length + missing] as const
      }),
    )
    fc.assert(
      fc.property(fc.constantFrom('write', 'ioctl', 'object'), ranges, ranges, (dialect, read, written) => {
        const record = { ...recordsOf('raw.abilog')[0], dialect, raw: { in: read, out: written } } as TraceRecord
        callLine(record, { abi: true })
        JSON.stringify(callJson(record))
      }),
      { numRuns: 40 },
    )
  })

  it('are formatted without an exception, for damaged or truncated bytes', () => {
    const records = [...recordsOf('raw.abilog'), ...recordsOf('ibv_rc_pingpong.client.abilog')]
    const damage = fc.record({ index: fc.nat(), range: fc.nat(), at: fc.nat(), byte: fc.nat(255), isCut: fc.boolean() })
    fc.assert(
      fc.property(damage, ({ index, range, at, byte, isCut }) => {
        const record = records[index % records.length]
        const read = [...(record.raw?.in ?? [])]
        if (read.length === 0) return
        const [address, base64, length] = read[range % read.length]
        const bytes = Buffer.from(base64, 'base64')
        bytes[at % bytes.length] = byte
        const damaged = isCut ? bytes.subarray(0, at % (bytes.length + 1)) : bytes
        read[range % read.length] = [address, damaged.toString('base64'), length]
        const changed = { ...record, raw: { in: read, out: record.raw?.out ?? [] } }
        callLine(changed, { abi: true })
        JSON.stringify(callJson(changed))
      }),
      { numRuns: 500 },
    )
  })
})
