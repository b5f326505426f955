/*
 * The object dialect (R1–R6, docs/reference/object-dialect.md).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AttributeFlag, CallNumber, CommonAttribute, DRIVER_FIRST, MessageFlag } from '../../../src/spec/classes/ids.ts'
import { CallError, Errno, errnoName } from '../../../src/spec/errno.ts'
import { type AnyValues, CHAIN, CREATE, CREATE_FD, MODIFY, QUERY } from '../../../src/spec/schema/schema.ts'
import { type Answer, type Call, type Decoded, isAnswer, type Result } from '../../../src/uapi/call.ts'
import { decodeResult, encodeCall } from '../../../src/uapi/object/client.ts'
import { callOfRequest, decodeMessage, decodeObject, ioctlRequest } from '../../../src/uapi/object/dialect.ts'
import { callsOf, everyMethod } from '../../spec/arbitrary.ts'
import { fakeMemory } from '../abilog.ts'
import { fakeView, rxeClasses, rxeSchema } from '../fake-view.ts'

const callOf = (className: string, methodName: string, args: AnyValues, object = 0): Call => {
  const cls = rxeSchema.classByName(className)!
  return { class: cls, methodName, method: cls.methods[methodName], object, args }
}
/** The errno name of the CallError that `body` throws, or OK. */
const code = (body: () => unknown): string => {
  try {
    body()
  } catch (error) {
    assert.ok(error instanceof CallError, String(error))
    return errnoName(error.errno)
  }
  return 'OK'
}
const view = fakeView()
const u16 = (bytes: Uint8Array, at: number, value: number): void =>
  new DataView(bytes.buffer).setUint16(at, value, true)
const u32 = (bytes: Uint8Array, at: number, value: number): void =>
  new DataView(bytes.buffer).setUint32(at, value, true)

/** Offsets of the header's fields. */
const [LENGTH, OBJECT_ID, OP_CTRL, FLAGS] = [0, 4, 8, 12]
/** Offsets in an attribute: flags, payload, and in an indirect payload the length field. */
const [ATTRIBUTE_FLAGS, PAYLOAD, INDIRECT_LENGTH] = [4, 8, 16]
/** The flags of the attribute at `at`; a filled output has its number of written bytes in the upper half. */
const flagsAt = (message: Uint8Array, at: number): number =>
  new DataView(message.buffer).getUint32(at + ATTRIBUTE_FLAGS, true)

/** Offset of the header of the attribute with this id. */
const find = (message: Uint8Array, id: number): number => {
  const m = new DataView(message.buffer)
  for (let at = 16; at < message.length; at += (m.getUint16(at, true) + 7) & ~7)
    if (m.getUint16(at + 2, true) === id) return at
  throw new Error(`no attribute ${id}`)
}
/** A message in which `other` replaces the attribute. */
const replaced = (message: Uint8Array, id: number, other: Uint8Array): Uint8Array => {
  const at = find(message, id)
  const length = (new DataView(message.buffer).getUint16(at, true) + 7) & ~7
  const bytes = Uint8Array.from([...message.subarray(0, at), ...other, ...message.subarray(at + length)])
  u16(bytes, 0, bytes.length)
  return bytes
}
const without = (message: Uint8Array, id: number): Uint8Array => replaced(message, id, new Uint8Array())
const attribute = (id: number, flags: number, payload: readonly number[]): Uint8Array => {
  const bytes = new Uint8Array(8 + ((payload.length + 7) & ~7))
  u16(bytes, 0, 8 + payload.length)
  u16(bytes, 2, id)
  u32(bytes, 4, flags)
  bytes.set(payload, 8)
  return bytes
}
/** A message with appended attributes. */
const plus = (message: Uint8Array, ...more: Uint8Array[]): Uint8Array => {
  const bytes = Uint8Array.from([...message, ...more.flatMap(part => [...part])])
  u16(bytes, 0, bytes.length)
  return bytes
}

const someLegacy = fc.option(fc.uint8Array({ maxLength: 40, size: 'max' }))

for (const { cls, name } of everyMethod(rxeClasses)) {
  test(`${cls.name}.${name}: calls and results survive the round trip`, () => {
    fc.assert(
      fc.property(callsOf(cls, name), someLegacy, ({ call, result }, legacy) => {
        const message = encodeCall(call, legacy === null ? {} : { legacy })
        // A copy: the answer is written into the decoded bytes.
        const there = decodeMessage(view, call.method.call, message.slice())
        assert.deepEqual(there.call, call)
        assert.deepEqual(there.legacy, legacy ?? undefined)
        const { message: answered } = there.answer(result)
        const decodedResult = decodeResult(call, answered)
        assert.deepEqual(decodedResult.out, result.out)
        if (cls.identity === 'handle') assert.equal(decodedResult.object, result.object)
        assert.deepEqual(encodeCall(there.call, legacy === null ? {} : { legacy }), message)
      }),
      { numRuns: 40 },
    )
  })
}

test('a message has the layout of docs/reference/object-dialect.md', () => {
  const message = encodeCall(callOf('cq', 'modify', { cqe: 100 }, 7))
  assert.equal(
    Buffer.from(message).toString('hex'),
    [
      '48000500' + '07000000' + '00000000' + '00000000', // 72 bytes, class 5, object 7, op_ctrl, flags
      '0c000100' + '01000000' + '6400000000000000', // cqe, mandatory
      '0c004000' + '02000000' + '0000000000000000', // room for cqe
      '14000080' + '02000000', // room for the driver's queue: its 12 bytes end the message, padded
    ].join('') + '00'.repeat(16),
  )
})

test('the ioctl request of a call is _IOWR(0xdb, call, u64)', () => {
  assert.equal(ioctlRequest(0), 0xc008db00)
  assert.equal(ioctlRequest(64), 0xc008db40)
  assert.equal(callOfRequest(0xc008db40), 64)
  assert.equal(callOfRequest(0xc0181b01), undefined, 'RDMA_VERBS_IOCTL')
  assert.equal(callOfRequest(0xc008dc40), undefined, 'type 0xdc')
})

test('the first dword and the call number are enough to decode (R6)', () => {
  for (const { cls, name } of everyMethod(rxeClasses)) {
    const [{ call }] = fc.sample(callsOf(cls, name), 1)
    const first = new DataView(encodeCall(call).buffer).getUint32(0, true)
    assert.equal(first >>> 16, cls.id)
    assert.equal(first & 0xffff, encodeCall(call).length)
  }
})

// ---- errors ----

/** Attribute ids of mr.create. */
const PD = 1
const START = 2
const ACCESS = 5
const LKEY = 64
/** Attribute id of cq.modify. */
const CQE = 1
/** Attribute ids of queue pairs: of create, and of modify. */
const CAP = 4
const QKEY = 7
/** Attribute ids of the outputs of device.query, device.queryHandles and device.open. */
const EXTENDED = 65
const HANDLES = 64
const ASYNC_FD = 66
const UNKNOWN_ATTRIBUTE = 99
const { MANDATORY, OUT } = AttributeFlag
const UNKNOWN_FLAG = 32

const create = encodeCall(callOf('mr', 'create', { pd: 1, start: 4096n, length: 8192n, iova: 4096n, access: 1 }))
const decode = (message: Uint8Array, call: number = CREATE): string => code(() => decodeMessage(view, call, message))

test('a class or method that does not exist is EOPNOTSUPP', () => {
  const other = create.slice()
  for (const classId of [77, 0x8001]) {
    u16(other, 2, classId)
    assert.equal(decode(other), 'EOPNOTSUPP', `class ${classId}`)
  }
  for (const method of [CREATE_FD, CHAIN, 255])
    assert.equal(decode(create, method), 'EOPNOTSUPP', `mr method ${method}`)
})

test('a header with a wrong length, op_ctrl or flags, or with an object_id in create, is refused', () => {
  assert.equal(decode(create), 'OK')
  for (const [at, value, expected] of [
    [LENGTH, 15, 'EINVAL'],
    [LENGTH, 20, 'EINVAL'],
    [LENGTH, create.length + 8, 'EINVAL'],
    [OBJECT_ID, 1, 'EINVAL'],
    [OP_CTRL, 1, 'EOPNOTSUPP'],
    [FLAGS, 2, 'EOPNOTSUPP'],
  ] as const) {
    const bad = create.slice()
    if (at === LENGTH) u16(bad, at, value)
    else u32(bad, at, value)
    assert.equal(decode(bad), expected, `${value} at ${at}`)
  }
  assert.equal(decode(create.subarray(0, 12)), 'EINVAL')
})

test('a call before device.open is EINVAL', () => {
  const fresh = fakeView()
  fresh.hasContext = false
  assert.equal(
    code(() => decodeMessage(fresh, CREATE, create)),
    'EINVAL',
  )
  const open = encodeCall(callOf('device', 'open', {}))
  assert.equal(
    code(() => decodeMessage(fresh, CallNumber.device.open, open)),
    'OK',
  )
})

test('missing, duplicate, unknown mandatory, and misdirected attributes are refused (R3)', () => {
  assert.equal(decode(without(create, START)), 'EINVAL')
  assert.equal(decode(plus(create, attribute(PD, MANDATORY, [1, 0, 0, 0]))), 'EINVAL')
  assert.equal(decode(plus(create, attribute(UNKNOWN_ATTRIBUTE, MANDATORY, [1]))), 'EPROTONOSUPPORT')
  assert.equal(decode(plus(create, attribute(UNKNOWN_ATTRIBUTE, 0, [1]))), 'OK')
  assert.equal(decode(plus(create, attribute(DRIVER_FIRST, MANDATORY, [1]))), 'EPROTONOSUPPORT')
  assert.equal(decode(plus(create, attribute(DRIVER_FIRST, 0, [1]))), 'OK')
  assert.equal(decode(replaced(create, LKEY, attribute(LKEY, 0, [1, 2, 3, 4]))), 'EINVAL')
  assert.equal(decode(replaced(create, PD, attribute(PD, OUT, [1, 2, 3, 4]))), 'EINVAL')
  assert.equal(decode(plus(create, attribute(UNKNOWN_ATTRIBUTE, UNKNOWN_FLAG, []))), 'EINVAL')
})

test('values of wrong length, out of limits, or with unknown flags are refused with the name of the attribute', () => {
  assert.equal(decode(replaced(create, PD, attribute(PD, MANDATORY, [1, 0]))), 'EINVAL')
  assert.equal(decode(replaced(create, PD, attribute(PD, MANDATORY, [1, 0, 0, 0, 0]))), 'EINVAL')
  assert.equal(decode(replaced(create, ACCESS, attribute(ACCESS, MANDATORY, [0, 0, 8, 0]))), 'EINVAL', 'bit 19')
  assert.equal(decode(replaced(create, ACCESS, attribute(ACCESS, MANDATORY, [1, 0, 16, 0]))), 'OK', 'RELAXED_ORDERING')
  const resize = encodeCall(callOf('cq', 'modify', { cqe: 1 }))
  const none = replaced(resize, CQE, attribute(CQE, MANDATORY, [0, 0, 0, 0]))
  assert.throws(() => decodeMessage(view, MODIFY, none), { message: 'cq.modify: attribute cqe: 0 is below 1' })
  const bad = callOf('rc_qp', 'modify', { pathMtu: 9 }, 1)
  assert.throws(() => encodeCall(bad), {
    message:
      'rc_qp.modify: attribute pathMtu: 9 is not a value of mtu (1 MTU_256, 2 MTU_512, 3 MTU_1024, 4 MTU_2048, 5 MTU_4096)',
  })
  assert.throws(
    () => encodeCall(callOf('rc_qp', 'modify', { rqPsn: 0x1000000 }, 1)),
    /rqPsn: 16777216 is above 16777215/,
  )
  assert.throws(
    () => encodeCall(callOf('cq', 'create', { cqe: 1, userHandle: 1n })),
    /cq\.create: attribute compVector is missing/,
  )
})

test('an attribute that RC queue pairs lack is refused (R9)', () => {
  const modify = encodeCall(callOf('rc_qp', 'modify', { state: 1 }, 1))
  const qkey = attribute(QKEY, MANDATORY, [1, 1, 1, 1])
  assert.equal(decode(plus(modify, qkey), MODIFY), 'EPROTONOSUPPORT')
})

test('an attribute that is shorter than its header or ends outside the message is EINVAL', () => {
  const at = find(create, ACCESS)
  for (const length of [0, 7, 200, 0xffff]) {
    const bad = create.slice()
    u16(bad, at, length)
    assert.equal(decode(bad), 'EINVAL', `length ${length}`)
  }
})

test('a shorter record is accepted, a longer one only if the tail is zero; a nonzero tail is E2BIG (R4)', () => {
  const cap = { maxSendWr: 1, maxRecvWr: 2, maxSendSge: 3, maxRecvSge: 4, maxInlineData: 5 }
  const qp = encodeCall(callOf('rc_qp', 'create', { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 1n }))
  const at = find(qp, CAP)
  // Five u32.
  const bytes = [...qp.subarray(at + PAYLOAD, at + PAYLOAD + 20)]
  const decoded = (payload: number[]): unknown =>
    decodeMessage(view, CREATE, replaced(qp, CAP, attribute(CAP, MANDATORY, payload))).call.args.cap
  assert.deepEqual(decoded(bytes), cap)
  assert.deepEqual(decoded([...bytes, 0, 0, 0, 0]), cap)
  assert.deepEqual(decoded(bytes.slice(0, 12)), { ...cap, maxRecvSge: 0, maxInlineData: 0 })
  // The record ends after the first byte of maxSendSge.
  assert.deepEqual(decoded(bytes.slice(0, 9)), { ...cap, maxRecvSge: 0, maxInlineData: 0 })
  assert.equal(
    code(() => decoded([...bytes, 0, 0, 1])),
    'E2BIG',
  )
})

// ---- outputs ----

const AT = 0x10000n
/** Decodes a message at address AT, and answers it. */
const run = (message: Uint8Array, call: number, result: Result | CallError, memory = fakeMemory()) => {
  memory.map(AT, message)
  const decoded = decodeObject(fakeView(memory), call, AT) as Decoded
  assert.ok(!isAnswer(decoded), String((decoded as unknown as Answer).reason))
  return { answer: decoded.answer(result), bytes: memory.copyIn(AT, message.length), memory }
}

test('outputs have their length; a longer buffer is padded with zeros', () => {
  const call = callOf('mr', 'create', { pd: 1, start: 0n, length: 0n, iova: 0n, access: 0 })
  const message = encodeCall(call, { outputBuffers: { lkey: 16, rkey: 0 } })
  const at = find(message, LKEY)
  message.fill(0xcc, at + PAYLOAD, at + PAYLOAD + 16)
  const { answer, bytes } = run(message, CREATE, { object: 9, out: { lkey: 0x1234, rkey: 5 } })
  assert.equal(answer.ret, 0)
  const after = new DataView(bytes.buffer)
  assert.equal(after.getUint32(OBJECT_ID, true), 9)
  assert.equal(after.getUint32(FLAGS, true), MessageFlag.ANSWERED)
  assert.equal(flagsAt(bytes, at), AttributeFlag.OUT | AttributeFlag.FILLED | (4 << 16))
  assert.deepEqual([...bytes.subarray(at + PAYLOAD, at + PAYLOAD + 16)], [0x34, 0x12, ...new Array(14).fill(0)])
  // `rkey: 0`: the message has no buffer for the rkey.
  assert.deepEqual(decodeResult(call, bytes), { object: 9, out: { lkey: 0x1234 } })
})

test('a short buffer is ENOSPC before the call runs; the message gets only the needed length and ANSWERED', () => {
  const call = callOf('device', 'query', {})
  const message = encodeCall(call, { outputBuffers: { extended: 8 } })
  const memory = fakeMemory()
  memory.map(AT, message)
  const answer = decodeObject(fakeView(memory), QUERY, AT)
  assert.ok(isAnswer(answer))
  assert.equal(answer.ret, -Errno.ENOSPC)
  assert.match(String(answer.reason), /device\.query: attribute extended: it needs 116 bytes, there is room for 8/)
  const bytes = memory.copyIn(AT, message.length)
  const at = find(message, EXTENDED)
  assert.equal(flagsAt(bytes, at), AttributeFlag.OUT | (116 << 16))
  assert.equal(new DataView(bytes.buffer).getUint32(FLAGS, true), MessageFlag.ANSWERED)
  // The rest is unchanged.
  u32(bytes, at + ATTRIBUTE_FLAGS, AttributeFlag.OUT)
  u32(bytes, FLAGS, 0)
  assert.deepEqual(bytes, message)
})

test('a list that does not fit is ENOSPC after the call', () => {
  const call = callOf('device', 'queryHandles', { classes: [] })
  const message = encodeCall(call, { outputBuffers: { handles: 8 } })
  const { answer, bytes } = run(message, CallNumber.device.queryHandles, {
    out: { handles: [{ handle: 1 }, { handle: 2 }, { handle: 3 }] },
  })
  assert.equal(answer.ret, -Errno.ENOSPC)
  assert.equal(flagsAt(bytes, find(message, HANDLES)) >>> 16, 3 * 4)
})

test('a descriptor without an attribute for its number is ENOSPC', () => {
  const message = encodeCall(callOf('device', 'open', { wantAsyncFd: 1 }), { outputBuffers: { asyncFd: 0 } })
  const descriptors = [{ object: 78, attribute: 'asyncFd' }]
  const { answer } = run(message, CallNumber.device.open, { out: { numCompVectors: 2, coreSupport: 1n }, descriptors })
  assert.equal(answer.ret, -Errno.ENOSPC)
})

test('an answered message can be sent again', () => {
  const call = callOf('device', 'query', {})
  const out = { attributes: {}, extended: {}, numCompVectors: 2, coreSupport: 1n }
  const { bytes } = run(encodeCall(call), QUERY, { out })
  assert.equal(run(bytes, QUERY, { out }).answer.ret, 0)
})

test('a message sent again has only the outputs of its last answer', () => {
  const call = callOf('device', 'query', {})
  const out = { attributes: {}, extended: {}, numCompVectors: 2, coreSupport: 1n }
  const { bytes: first } = run(encodeCall(call), QUERY, { out })
  const { bytes: second } = run(first.slice(), QUERY, { out: { coreSupport: 3n } })
  assert.deepEqual(decodeResult(call, second).out, { coreSupport: 3n })
  const { bytes: refused } = run(first.slice(), QUERY, new CallError('EIO', 'refused'))
  assert.deepEqual(decodeResult(call, refused).out, {})

  const list = callOf('device', 'queryHandles', { classes: [] })
  const handles = (...numbers: number[]): Result => ({ out: { handles: numbers.map(handle => ({ handle })) } })
  const method = CallNumber.device.queryHandles
  const { bytes: filled } = run(encodeCall(list, { outputBuffers: { handles: 8 } }), method, handles(1, 2))
  const { answer, bytes: tooShort } = run(filled, method, handles(1, 2, 3))
  assert.equal(answer.ret, -Errno.ENOSPC)
  assert.equal(flagsAt(tooShort, find(tooShort, HANDLES)), AttributeFlag.OUT | ((3 * 4) << 16))

  const unknown = plus(encodeCall(call), attribute(0x7000, AttributeFlag.OUT | AttributeFlag.FILLED, [1, 2, 3, 4]))
  const { bytes: answered } = run(unknown, QUERY, { out })
  assert.equal(flagsAt(answered, find(answered, 0x7000)), AttributeFlag.OUT)
})

test('decodeResult: an indirect output of which fewer bytes can be read than its length says is EINVAL', () => {
  const call = callOf('device', 'query', {})
  const message = encodeCall(call, { outputBuffers: { extended: { address: 0x2000n, length: 116 } } })
  const at = find(message, EXTENDED)
  u32(message, at + ATTRIBUTE_FLAGS, AttributeFlag.OUT | AttributeFlag.FILLED | AttributeFlag.INDIRECT)
  for (const length of [117n, 2n ** 32n, 2n ** 64n - 1n]) {
    new DataView(message.buffer).setBigUint64(at + INDIRECT_LENGTH, length, true)
    assert.equal(
      code(() => decodeResult(call, message, () => new Uint8Array(116))),
      'EINVAL',
    )
  }
})

test('an output buffer that does not fit a message is EMSGSIZE', () => {
  const call = callOf('device', 'query', {})
  for (const extended of [65_528, 2 ** 31, 2 ** 32, 2 ** 53 - 8])
    assert.equal(
      code(() => encodeCall(call, { outputBuffers: { extended } })),
      'EMSGSIZE',
      String(extended),
    )
})

test('indirect inputs are read from, and indirect outputs written to, their addresses', () => {
  const memory = fakeMemory()
  memory.map(0x50000n, Uint8Array.from([4, 0, 5, 0]))
  memory.map(0x60000n, new Uint8Array(64))
  const call = callOf('device', 'queryHandles', { classes: [{ id: 4 }, { id: 5 }] })
  const message = encodeCall(call, {
    inputAddresses: { classes: 0x50000n },
    outputBuffers: { handles: { address: 0x60000n, length: 64 } },
  })
  memory.map(AT, message)
  const decoded = decodeObject(fakeView(memory), CallNumber.device.queryHandles, AT) as Decoded
  assert.deepEqual(decoded.call.args, call.args)
  const handles = [{ handle: 3 }, { handle: 1 }]
  assert.equal(decoded.answer({ out: { handles } }).ret, 0)
  const bytes = memory.copyIn(AT, message.length)
  assert.deepEqual(decodeResult(call, bytes, memory.copyIn), { out: { handles } })
  // If the list does not fit, the length field has the needed size.
  const many = Array.from({ length: 17 }, (_, i) => ({ handle: i }))
  const shortMessage = encodeCall(call, {
    inputAddresses: { classes: 0x50000n },
    outputBuffers: { handles: { address: 0x60000n, length: 8 } },
  })
  memory.map(AT, shortMessage)
  const short = decodeObject(fakeView(memory), CallNumber.device.queryHandles, AT) as Decoded
  assert.equal(short.answer({ out: { handles: many } }).ret, -Errno.ENOSPC)
  const lengthAt = find(shortMessage, HANDLES) + INDIRECT_LENGTH
  assert.equal(new DataView(memory.copyIn(AT, shortMessage.length).buffer).getBigUint64(lengthAt, true), 17n * 4n)
})

test('an indirect record has at most 65,535 bytes', () => {
  const args = {
    pd: 0,
    sendCq: 1,
    recvCq: 1,
    cap: { maxSendWr: 1, maxRecvWr: 2, maxSendSge: 3, maxRecvSge: 4, maxInlineData: 5 },
    userHandle: 1n,
  }
  const message = encodeCall(callOf('rc_qp', 'create', args), { inputAddresses: { cap: 0x2000n } })
  const lengths: number[] = []
  const reader = {
    ...view,
    copyIn: (_: bigint, length: number) => {
      lengths.push(length)
      return new Uint8Array(length)
    },
  }
  const read = (length: bigint): string => {
    new DataView(message.buffer).setBigUint64(find(message, CAP) + INDIRECT_LENGTH, length, true)
    return code(() => decodeMessage(reader, CREATE, message.slice()))
  }
  assert.equal(read(0xffffn), 'OK')
  for (const length of [0x1_0000n, 2n ** 20n, 2n ** 32n, 2n ** 53n, 2n ** 64n - 1n])
    assert.equal(read(length), 'EINVAL')
  assert.deepEqual(lengths, [0xffff])
})

test('unmapped memory is EFAULT, for inputs and for outputs', () => {
  const memory = fakeMemory()
  assert.equal((decodeObject(fakeView(memory), CREATE, AT) as Answer).ret, -Errno.EFAULT)
  const call = callOf('device', 'queryHandles', { classes: [] })
  const message = encodeCall(call, { outputBuffers: { handles: { address: 0x60000n, length: 64 } } })
  memory.map(AT, message)
  const decoded = decodeObject(fakeView(memory), CallNumber.device.queryHandles, AT) as Decoded
  assert.equal(decoded.answer({ out: { handles: [{ handle: 1 }] } }).ret, -Errno.EFAULT)
})

test('new descriptors are installed in the header and in attributes', () => {
  const channel = encodeCall(callOf('comp_channel', 'create', {}))
  const { answer } = run(channel, CREATE_FD, { out: {}, descriptors: [{ object: 77, attribute: 'object' }] })
  assert.deepEqual(answer.installs, [{ descriptor: { object: 77, attribute: 'object' }, address: AT + 4n, width: 4 }])
  const message = encodeCall(callOf('device', 'open', { wantAsyncFd: 1 }))
  const descriptors = [{ object: 78, attribute: 'asyncFd' }]
  const opened = run(message, CallNumber.device.open, { out: { numCompVectors: 2, coreSupport: 1n }, descriptors })
  assert.deepEqual(opened.answer.installs, [
    { descriptor: descriptors[0], address: AT + BigInt(find(message, ASYNC_FD) + PAYLOAD), width: 4 },
  ])
})

test('a refusal has an errno and a reason', () => {
  const refused = new CallError('ENOENT', 'there is no pd 1')
  const { answer } = run(create, CREATE, refused)
  assert.deepEqual(answer, { ret: -Errno.ENOENT, installs: [], reason: refused.reason })
})

// ---- hostile messages ----

test('garbage, truncated and mutated messages throw only CallError', () => {
  const bytes = fc.uint8Array({ maxLength: 200, size: 'max' })
  const seeds = everyMethod(rxeClasses).map(({ cls, name }) => {
    const [{ call }] = fc.sample(callsOf(cls, name), { numRuns: 1, seed: 7 })
    return { call: call.method.call, message: encodeCall(call) }
  })
  const mutated = fc
    .tuple(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(400), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
      fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(100) }),
    )
    .map(([{ call, message }, changes, cutBytes]) => {
      const bad = message.slice(0, Math.max(0, message.length - cutBytes))
      for (const [at, byte] of changes) if (at < bad.length) bad[at] = byte
      return { call, message: bad }
    })
  const any = fc.oneof(fc.record({ call: fc.nat(255), message: bytes }), mutated)
  fc.assert(
    fc.property(any, ({ call, message }) => {
      try {
        const decoded = decodeMessage(view, call, message)
        decodeResult(decoded.call, message)
        decoded.answer({ out: {} })
      } catch (error) {
        if (!(error instanceof CallError)) throw error
      }
    }),
    { numRuns: 3000 },
  )
})

test('the legacy attribute is optional and has a reserved id', () => {
  const { LEGACY } = CommonAttribute
  assert.equal(LEGACY, 0x7ff0)
  const bytes = encodeCall(callOf('pd', 'create', {}), { legacy: Uint8Array.from([1, 2, 3]) })
  assert.equal(flagsAt(bytes, find(bytes, LEGACY)), 0, 'not MANDATORY')
})
