/*
 * The lines of `userdma trace --abi` below a call of the object dialect or of a driver.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { recordingView } from '../../../../src/daemon/trace/trace-messages.ts'
import { MessageFlag } from '../../../../src/spec/classes/ids.ts'
import { CtxAssign, CtxIoctl, CtxSend } from '../../../../src/spec/drivers/ctx.ts'
import { type CallError, Errno } from '../../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../../src/spec/records.ts'
import { type AnyValues, CHAIN, CREATE, CREATE_FD, QUERY } from '../../../../src/spec/schema/schema.ts'
import { rawLines } from '../../../../src/tools/trace/abi/raw.ts'
import { messagesOf } from '../../../../src/tools/trace/call-messages.ts'
import { callJson, callLine } from '../../../../src/tools/trace/calls.ts'
import { ABRIDGED, WHOLE } from '../../../../src/tools/trace/values.ts'
import { type Call, isAnswer, type Result } from '../../../../src/uapi/call.ts'
import { type ChainLink, ENTRY_HEADER, encodeChain } from '../../../../src/uapi/object/chain.ts'
import { encodeCall } from '../../../../src/uapi/object/client.ts'
import { decodeObject, ioctlRequest } from '../../../../src/uapi/object/dialect.ts'
import { ATTRIBUTE, HEADER } from '../../../../src/uapi/object/format.ts'
import { encodeRecords } from '../../../../src/uapi/scalar.ts'
import { ARENA, AT, arena, fakeView, rxeSchema } from '../../../uapi/fake-view.ts'

const base = { time: 0, duration: 1, pid: 1, tid: 1, fd: 3, command: 'x', device: 'rxe0', dialect: 'object' } as const

const callOf = (className: string, methodName: string, args: AnyValues = {}, object = 0): Call => {
  const cls = rxeSchema.classByName(className)!
  return { class: cls, methodName, method: cls.methods[methodName], object, args }
}

/** The daemon's record of a message with call number `call` and answer `outcome`. */
const recordOf = (
  call: number,
  message: Uint8Array,
  outcome: Result | CallError = { out: {} },
  fields: Partial<TraceRecord> = {},
  memory = arena(),
): TraceRecord => {
  memory.map(AT, message.slice())
  const view = fakeView(memory)
  const recording = recordingView(view)
  const decoded = decodeObject(recording.view, call, AT)
  const record = { ...base, request: ioctlRequest(call), ...fields }
  if (isAnswer(decoded))
    return { ...record, ret: decoded.ret, reason: decoded.reason?.toJSON() ?? '', raw: recording.raw() }
  const { ret } = decoded.answer(outcome)
  return { ...record, ret, call: messagesOf(view, decoded.call, outcome), raw: recording.raw() }
}

const linesOf = (record: TraceRecord, style = ABRIDGED): string[] => rawLines(record, style).map(line => line.slice(4))

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)
const cq = callOf('cq', 'create', { cqe: 100, userHandle: 7n, compVector: 0, channel: 5 })
const cqResult: Result = { object: 9, out: { cqe: 127, queue: { offset: 0x2000n, size: 4096 } } }

const links: readonly ChainLink[] = [
  { call: callOf('pd', 'create') },
  { call: callOf('mr', 'create', { pd: 0, start: 1n, length: 4096n, iova: 1n, access: 1 }), refs: { pd: 0 } },
  { call: callOf('mr', 'query'), object: 1, options: { outputBuffers: { length: 0, iova: 0, kind: 0 } } },
]
const entries = encodeChain(links)
const ENTRIES = 0x300000n
const chain = callOf('interface', 'chain', { entries, onError: 0 })
/** The daemon's record of a chain whose entries are `bytes` at ENTRIES. */
const chainRecordOf = (bytes: Uint8Array, outcome?: Result): TraceRecord => {
  const memory = arena()
  memory.map(ENTRIES, bytes)
  const message = encodeCall(
    { ...chain, args: { ...chain.args, entries: bytes } },
    { inputAddresses: { entries: ENTRIES }, outputBuffers: { results: { address: ARENA, length: 4096 } } },
  )
  return recordOf(CHAIN, message, outcome, {}, memory)
}
/** Offsets in the header of a message. */
const [CLASS_OFFSET, OBJECT_OFFSET, OP_CTRL_OFFSET] = [2, 4, 8]
/** The first entry is answered: object 5, op_ctrl 0, flags ANSWERED. */
const results = entries.slice()
new Uint32Array(results.buffer, ENTRY_HEADER + OBJECT_OFFSET, 3).set([5, 0, MessageFlag.ANSWERED])
const chainRecord = chainRecordOf(entries, {
  out: { results, done: 1, error: Errno.ENOENT, reason: bytesOf('no way') },
})

describe('a message of the object dialect', () => {
  it('is shown with its header and attributes, followed by the outputs of the answer', () => {
    assert.deepEqual(linesOf(recordOf(CREATE, encodeCall(cq, { ignorable: ['compVector'] }), cqResult)), [
      'object cq.create at 0x100000, 120 bytes: length 120, class 5, call 0, object 0, op_ctrl 0, flags 0',
      '  cqe 0x1 mandatory, 4 bytes: 64000000 = 100',
      '  userHandle 0x2 mandatory, 8 bytes: 0700000000000000 = 7',
      '  channel 0x3 mandatory, 4 bytes: 05000000 = fd 5',
      '  compVector 0x4 optional, 4 bytes: 00000000 = 0',
      '  cqe 0x40 out, room for 4 bytes',
      '  queue 0x8000 out, room for 12 bytes',
      '  answer length 120, class 5, call 0, object 9, op_ctrl 0, flags ANSWERED',
      '    cqe 0x40 out filled, 4 of 4 bytes: 7f000000 = 127',
      '    queue 0x8000 out filled, 12 of 12 bytes: 002000000000000000100000',
      '      +0 offset 8192',
      '      +8 size 4096',
    ])
  })

  it('is shown with indirect values, and with nonzero fields of records, or all fields in the style WHOLE', () => {
    const message = encodeCall(callOf('device', 'query'), {
      outputBuffers: { attributes: { address: ARENA, length: 232 } },
    })
    const record = recordOf(QUERY, message, { out: { attributes: { maxQp: 5, vendorId: 7 } } })
    const lines = linesOf(record)
    assert.equal(lines[1], '  attributes 0x40 out indirect, room for 232 bytes at 0x200000')
    const at = lines.findIndex(line =>
      line.startsWith('    attributes 0x40 out filled indirect at 0x200000, 172 bytes: '),
    )
    assert.deepEqual(lines.slice(at + 1, at + 4), [
      '      +40 vendorId 7',
      '      +52 maxQp 5',
      '    extended 0x41 out, not filled, 116 bytes',
    ])
    const whole = linesOf(record, WHOLE)
    assert.ok(whole.includes('      +8 nodeGuid 0000:0000:0000:0000'))
    assert.match(whole.find(line => line.includes('172 bytes')) as string, /: [0-9a-f]{344}$/)
  })

  it('marks an indirect output as filled even if its memory was not traced', () => {
    const message = encodeCall(callOf('device', 'query'), {
      outputBuffers: { attributes: { address: ARENA, length: 232 } },
    })
    const record = recordOf(QUERY, message, { out: { attributes: { maxQp: 5 } } })
    const out = record.raw!.out.filter(([address]) => BigInt(address) !== ARENA)
    const lines = linesOf({ ...record, raw: { ...record.raw!, out } })
    assert.ok(lines.includes('    attributes 0x40 out filled indirect, 172 bytes at 0x200000'), lines.join('\n'))
  })

  it('shows the length of each indirect value, also of two at one address', () => {
    const message = encodeCall(cq, { inputAddresses: { cqe: ARENA, userHandle: ARENA } })
    const range = [`0x${ARENA.toString(16)}`, Buffer.from([100, 0, 0, 0, 1, 0, 0, 0]).toString('base64'), 8] as const
    const read = [['0x100000', Buffer.from(message).toString('base64'), message.length] as const, range]
    const record = { ...base, request: ioctlRequest(CREATE), ret: 0, raw: { in: read, out: [] } }
    const lines = linesOf(record)
    assert.equal(lines[1], '  cqe 0x1 mandatory indirect at 0x200000, 4 bytes: 64000000 = 100')
    assert.match(lines[2], /^ {2}userHandle 0x2 mandatory indirect at 0x200000, 8 bytes: 6400000001000000 = /)
  })

  it('shows the numbers of new descriptors', () => {
    const descriptors = [{ attribute: 'object', fd: 12 }]
    const channel = encodeCall(callOf('comp_channel', 'create'))
    const lines = linesOf(recordOf(CREATE_FD, channel, { out: {} }, { descriptors }))
    assert.match(lines.at(-1) as string, /^ {2}answer length 16, class 7, call 4, object 0, then fd 12, op_ctrl 0, /)
  })

  it('of a refused call is decoded by the call number of the request, and marks a buffer that is too short', () => {
    const wrong = encodeCall(cq)
    // The value of the first attribute, cqe: 0 instead of 100.
    wrong[HEADER + ATTRIBUTE] = 0
    const record = recordOf(CREATE, wrong)
    assert.equal(record.call, undefined)
    assert.match(
      callLine(record),
      /object\(\?\) = -1 EINVAL \(cq\.create: .*\) <.*>\n {4}object cq\.create at 0x100000/,
    )
    assert.ok(linesOf(record).includes('  cqe 0x1 mandatory, 4 bytes: 00000000 = 0'))
    const tooShort = recordOf(CREATE, encodeCall(cq, { outputBuffers: { queue: 4 } }))
    assert.ok(linesOf(tooShort).includes('    queue 0x8000 out, needs 12 bytes, has 4'), linesOf(tooShort).join('\n'))
  })

  it('shows unknown classes, attributes and flags by number, and bytes with wrong lengths undecoded', () => {
    const unknownBytes = encodeCall(cq)
    const view = new DataView(unknownBytes.buffer)
    // Each of the first four attributes has 16 bytes: {u16 length, u16 id, u32 flags} and 8 bytes for the value.
    const [first, second, third, fourth] = [HEADER, HEADER + 16, HEADER + 32, HEADER + 48]
    const [LENGTH, ID, FLAGS] = [0, 2, 4]
    view.setUint16(first + ID, 0x77, true)
    view.setUint32(second + FLAGS, 0x21, true)
    view.setUint16(third + LENGTH, 11, true)
    view.setUint16(fourth + LENGTH, 4, true)
    view.setUint32(OP_CTRL_OFFSET, 3, true)
    const lines = linesOf(recordOf(CREATE, unknownBytes))
    assert.match(lines[0], / op_ctrl 3, flags 0$/)
    assert.deepEqual(lines.slice(1), [
      '  attribute 0x77 mandatory, 4 bytes: 64000000',
      '  userHandle 0x2 mandatory 0x20, 8 bytes: 0700000000000000 = 7',
      '  channel 0x3 mandatory, 3 bytes: 050000 (undecodable)',
      `  undecodable ${Buffer.from(unknownBytes.subarray(fourth, fourth + 32)).toString('hex')}… (56 bytes)`,
    ])
    view.setUint16(CLASS_OFFSET, 999, true)
    assert.match(
      linesOf(recordOf(CREATE, unknownBytes))[0],
      /^object unknown at 0x100000, 120 bytes: length 120, class 999, /,
    )
    // a message that is shorter than a header
    view.setUint16(LENGTH, 8, true)
    const short = unknownBytes.subarray(0, 8)
    assert.deepEqual(linesOf(recordOf(CREATE, short)), [
      `object at 0x100000, 8 bytes: ${Buffer.from(short).toString('hex')}`,
    ])
  })
})

describe('the bytes of a chain', () => {
  it('are shown as entries with messages and answers', () => {
    const lines = linesOf(chainRecord)
    assert.match(lines[1], /^ {2}entries 0x1 mandatory indirect at 0x300000, 264 bytes: 00000000100000/)
    assert.deepEqual(lines.slice(2, 13), [
      '    entry 0 pd.create: call 0, flags 0, ref 0, size 16; length 16, class 4, object 0, op_ctrl 0, flags 0',
      '    entry 1 mr.create: call 0, flags 0, ref 0, size 128; length 128, class 6, object 0, op_ctrl 0, flags 0',
      '      pd 0x1 mandatory chained, 4 bytes: 00000000 = entry 0',
      '      start 0x2 mandatory, 8 bytes: 0100000000000000 = 1',
      '      length 0x3 mandatory, 8 bytes: 0010000000000000 = 4096',
      '      iova 0x4 mandatory, 8 bytes: 0100000000000000 = 1',
      '      access 0x5 mandatory, 4 bytes: 01000000 = LOCAL_WRITE',
      '      lkey 0x40 out, room for 4 bytes',
      '      rkey 0x41 out, room for 4 bytes',
      '    entry 2 mr.query: call 1, flags OBJECT, ref 1, size 96; length 96, class 6, object 0, op_ctrl 0, flags 0',
      '      lkey 0x40 out, room for 4 bytes',
    ])
    const answer = lines.slice(lines.findIndex(line => line.startsWith('  answer ')) + 1)
    assert.match(answer[0], /^ {4}results 0x40 out filled indirect at 0x200000, 264 bytes: /)
    assert.match(answer[1], /^ {6}entry 0 pd\.create: .* object 5, op_ctrl 0, flags ANSWERED$/)
    assert.match(answer[2], /^ {6}entry 1 mr\.create: .* object 0, op_ctrl 0, flags 0$/)
    assert.equal(answer[3], '        lkey 0x40 out, room for 4 bytes')
    assert.equal(answer.at(-1), '    reason 0x43 out filled, 6 of 1024 bytes: 6e6f20776179 = "no way"')
  })

  it('are abridged, and end at the first undecodable entry', () => {
    const many = encodeChain(Array.from({ length: 9 }, () => links[0]))
    const lines = linesOf(recordOf(CHAIN, encodeCall({ ...chain, args: { entries: many, onError: 0 } })))
    assert.ok(lines.includes('    … 5 more entries'))
    const broken = entries.slice()
    // The first entry, pd.create, is a message without attributes.
    const [secondEntry, SIZE] = [ENTRY_HEADER + HEADER, 4]
    broken[secondEntry + SIZE] = 3
    const shown = linesOf(chainRecordOf(broken))
    assert.match(shown[3], /^ {4}undecodable 00000000030000.*… \(240 bytes\) \(its size is 3; a multiple of 8 from 16 /)
  })

  it('are shown as cut if the tracer keeps only a part', () => {
    const many = encodeChain(Array.from({ length: 1000 }, () => links[0]))
    const lines = linesOf(chainRecordOf(many), WHOLE)
    // 16 KiB are kept: 682 entries of 24 bytes, and 16 bytes.
    assert.ok(lines.some(line => line.startsWith('    entry 681 pd.create')))
    assert.match(lines.find(line => line.startsWith('    cut off')) as string, /^ {4}cut off [0-9a-f]{32}…$/)
  })

  it('have the length of the whole range if the tracer keeps only a part', () => {
    const many = encodeChain(Array.from({ length: 1000 }, () => links[0]))
    const lines = linesOf(chainRecordOf(many))
    assert.match(
      lines[1],
      /^ {2}entries 0x1 mandatory indirect at 0x300000, 24000 bytes: [0-9a-f]{64}… \(24000 bytes\)$/,
    )
  })

  it('are finite if the chain points to itself', () => {
    const selfReferring = encodeChain([{ call: chain, options: { inputAddresses: { entries: ENTRIES } } }])
    const lines = linesOf(chainRecordOf(selfReferring), WHOLE)
    assert.equal(lines.filter(line => line.includes('entry 0 interface.chain')).length, 1)
  })
})

describe('the bytes of calls', () => {
  it('are in JSON as message and answer, with flags, lengths and values', () => {
    const { abi } = callJson(chainRecord) as { abi: Record<'message' | 'answer', Record<string, unknown>> }
    const { attributes, ...header } = abi.message
    assert.deepEqual(header, {
      name: 'interface.chain',
      call: 5,
      length: 1144,
      classId: 1,
      object: 0,
      opCtrl: 0,
      flags: [],
    })
    const [first, second] = attributes as { name: string; entries: { ref: number | null; attributes: object[] }[] }[]
    assert.deepEqual([first.name, first.entries.map(({ ref }) => ref)], ['entries', [null, null, 1]])
    assert.deepEqual(first.entries[1].attributes[0], {
      name: 'pd',
      id: 1,
      flags: ['mandatory', 'chained'],
      length: 4,
      value: { entry: 0 },
    })
    assert.deepEqual(second, { name: 'onError', id: 2, flags: ['mandatory'], length: 1, value: 'STOP' })
    assert.deepEqual(abi.answer.flags, ['ANSWERED'])
  })

  it('on a driver’s descriptor are inputs and outputs, with the field names of spec/', () => {
    const range = (bytes: Uint8Array) => ['0x1000', Buffer.from(bytes).toString('base64'), bytes.length] as const
    const driver = { ...base, dialect: 'driver', ret: 0 } as const
    const send = [...encodeRecords(CtxSend, [{ destination: 1, flags: 1, slot: 2, offset: 0, tag: 4n }]), 1, 2, 3]
    const write = { attempt: 'ctx.userdma.2: write(27)', raw: { in: [range(Uint8Array.from(send))], out: [] } }
    assert.deepEqual(linesOf({ ...driver, ...write }).slice(2), [
      '    +0 destination 1',
      '    +4 flags 1',
      '    +8 slot 2',
      '    +16 tag 4',
      '    +24 data, 3 bytes: 010203',
    ])
    const contextOptions = { eagerCount: 4, eagerBytes: 4096, expectedCount: 0, expectedBytes: 64, jobKey: 9 }
    const assign = (handle: number) => range(encodeRecords(CtxAssign, [{ ...contextOptions, handle }]))
    const attempt = 'ctx.userdma.2: ioctl(ASSIGN, 0x1000)'
    const record = { ...driver, attempt, request: CtxIoctl.ASSIGN, raw: { in: [assign(0)], out: [assign(3)] } }
    const lines = linesOf(record)
    assert.equal(lines[0], `driver request 0x${CtxIoctl.ASSIGN.toString(16)}`)
    assert.equal(lines.filter(line => line === '    +16 jobKey 9').length, 2)
    assert.equal(lines.at(-1), '    +20 handle 3')
    const info = { ...driver, request: CtxIoctl.INFO, raw: { in: [], out: [range(new Uint8Array(56).fill(1))] } }
    assert.match(callLine(info, { abi: true }), /\n {6}out at 0x1000, 56 bytes: .*\n {8}\+0 number 16843009\n/)
    // of an unknown request only the bytes
    assert.match(linesOf({ ...driver, request: 1, raw: { in: [assign(0)], out: [] } }).join(), /^driver.*00$/)
  })

  it('can be modified without an exception', () => {
    const change = fc.array(fc.tuple(fc.nat(1200), fc.nat(255)), { minLength: 1, maxLength: 6 })
    const changed = ([address, text, length]: readonly [string, string, number], changes: [number, number][]) => {
      const bytes = Buffer.from(text, 'base64')
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % Math.min(bytes.length, 300)] = byte
      return [address, bytes.toString('base64'), length] as const
    }
    const { raw } = chainRecord
    assert.ok(raw)
    fc.assert(
      fc.property(change, change, fc.boolean(), (messageChange, answerChange, verbose) => {
        const changedRaw = {
          in: raw.in.map(access => changed(access, messageChange)),
          out: raw.out.map(access => changed(access, answerChange)),
        }
        const record = { ...chainRecord, raw: changedRaw }
        assert.ok(callLine(record, { abi: true, verbose }).length < 100_000)
        JSON.stringify(callJson(record))
        callLine({ ...record, dialect: 'driver', request: CtxIoctl.ASSIGN }, { abi: true, verbose })
      }),
    )
  })
})
