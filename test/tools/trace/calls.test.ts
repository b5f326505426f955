/*
 * Calls as lines and as JSON.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { AttributeFlag, ClassId, DRIVER_FIRST } from '../../../src/spec/classes/ids.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { Mlx5Attributes } from '../../../src/spec/drivers/mlx5.ts'
import { Errno } from '../../../src/spec/errno.ts'
import type { TraceRecord } from '../../../src/spec/records.ts'
import type { Attributes, Method, ObjectClass } from '../../../src/spec/schema/schema.ts'
import { callJson, callLine } from '../../../src/tools/trace/calls.ts'
import type { Call, CallerView } from '../../../src/uapi/call.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { decodeMessage } from '../../../src/uapi/object/dialect.ts'

/** An attribute and its payload. */
type Raw = readonly [id: number, hex: string]
type Named = readonly [attribute: string | number, hex: string]

/** A message of the object dialect in base64. `isAnswer`: the attributes are filled outputs. */
const message = (classId: number, object: number, attributes: readonly Raw[], isAnswer = false): string => {
  const parts = attributes.map(([id, hex]) => {
    const payload = Buffer.from(hex.replaceAll(' ', ''), 'hex')
    const bytes = Buffer.alloc(8 + ((payload.length + 7) & ~7))
    bytes.writeUInt16LE(8 + payload.length, 0)
    bytes.writeUInt16LE(id, 2)
    bytes.writeUInt32LE(isAnswer ? (AttributeFlag.OUT | AttributeFlag.FILLED | (payload.length << 16)) >>> 0 : 0, 4)
    payload.copy(bytes, 8)
    return bytes
  })
  const header = Buffer.alloc(16)
  header.writeUInt16LE(16 + parts.reduce((sum, part) => sum + part.length, 0), 0)
  header.writeUInt16LE(classId, 2)
  header.writeUInt32LE(object, 4)
  return Buffer.concat([header, ...parts]).toString('base64')
}

const base: TraceRecord = {
  time: 1_700_000_000_000,
  duration: 34,
  pid: 123,
  tid: 123,
  fd: 3,
  command: 'ibv_rc_pingpong',
  device: 'rxe0',
  dialect: 'ioctl',
  ret: 0,
}

const withIds = (attributes: Attributes, named: readonly Named[]): Raw[] =>
  named.map(([attribute, hex]) => [typeof attribute === 'number' ? attribute : attributes[attribute]!.id, hex])

/** A call and its answer. An attribute that the method does not declare is given by its id. */
const recordOf = (
  cls: ObjectClass,
  method: Method,
  object: number,
  attributes: readonly Named[],
  answer: { object?: number; out?: readonly Named[]; ret?: number; reason?: string } = {},
): TraceRecord => ({
  ...base,
  call: {
    classId: cls.id,
    call: method.call,
    message: message(cls.id, object, withIds(method.in, attributes)),
    answer: message(cls.id, answer.object ?? object, withIds(method.out, answer.out ?? []), true),
  },
  ret: answer.ret ?? 0,
  ...(answer.reason !== undefined && { reason: answer.reason }),
})

const { ah: Ah, cq: Cq, rc_qp: RcQp, mr: Mr, device: Device, comp_channel: CompChannel } = Classes

describe('call lines', () => {
  it('a modify has the names of attributes and states', () => {
    const record = recordOf(RcQp, RcQp.methods.modify, 3, [
      ['state', '02'],
      ['pathMtu', '03'],
      ['destQpn', '11000000'],
      ['address', `${'00'.repeat(10)}ffff 0a4d0003 00000000 01 40 00 00 00 01 01 00`],
    ])
    assert.equal(
      callLine(record),
      '[pid 123 ibv_rc_pingpong] fd 3 rc_qp.modify(object 3, state RTR, address {dgid ::ffff:10.77.0.3, sgidIndex 1, hopLimit 64, isGlobal 1, port 1}, pathMtu MTU_1024, destQpn 0x11) = 0 <0.000034>',
    )
  })

  it('a call with an address says the DSCP and TTL of its packets, where they are not the default', () => {
    // hop limit 5, traffic class 0x6a: DSCP 26 and ECT
    const address: Named = ['address', `${'00'.repeat(10)}ffff 0a4d0003 00000000 01 05 6a 00 00 01 01 00`]
    const shown = 'dgid ::ffff:10.77.0.3, sgidIndex 1, hopLimit 5, trafficClass 106, isGlobal 1, port 1'
    assert.equal(
      callLine(recordOf(RcQp, RcQp.methods.modify, 3, [['state', '02'], address])),
      `[pid 123 ibv_rc_pingpong] fd 3 rc_qp.modify(object 3, state RTR, address {${shown}}) = 0: packets have DSCP 26 <0.000034>`,
    )
    const { create } = Ah.methods
    const record = recordOf(Ah, create, 0, [address], { object: 4, out: [[0x8011, '020000000001']] })
    const created = (declared: NonNullable<TraceRecord['call']>['declared']): string =>
      callLine({ ...record, call: { ...record.call!, ...(declared && { declared }) } }).replace(/.* = /, '')
    assert.equal(created([]), '0 {object 4, attribute 0x8011 020000000001}: packets have DSCP 26 <0.000034>')
    // of libmlx5, which puts the hop limit into its requests
    const ofMlx5 = { class: Ah.name, classId: Ah.id, identity: Ah.identity, method: 'create', call: create.call }
    assert.equal(
      created([{ ...ofMlx5, in: create.in, out: { ...create.out, ...Mlx5Attributes.ah.create.out } }]),
      '0 {object 4, nextHop 020000000001}: packets have DSCP 26, TTL 5 <0.000034>',
    )
  })

  it('a create has the new object and the outputs, including the driver’s attributes', () => {
    const record = recordOf(
      Cq,
      Cq.methods.create,
      0,
      [
        ['cqe', 'f5010000'],
        ['userHandle', '10a02b1e5e550000'],
        ['channel', '05000000'],
        ['compVector', '00000000'],
      ],
      {
        object: 1,
        out: [
          ['cqe', 'ff010000'],
          [DRIVER_FIRST, '0010000000000000 80010000'],
        ],
      },
    )
    assert.equal(
      callLine(record),
      '[pid 123 ibv_rc_pingpong] fd 3 cq.create(cqe 501, userHandle 0x555e1e2ba010, channel fd 5, compVector 0) = 0 {object 1, cqe 511, queue {offset 4096, size 384}} <0.000034>',
    )
  })

  it('flags are shown by name, and keys in hexadecimal', () => {
    const record = recordOf(
      Mr,
      Mr.methods.create,
      0,
      [
        ['pd', '00000000'],
        ['start', '00f0e51e5e550000'],
        ['length', '0010000000000000'],
        ['iova', '00f0e51e5e550000'],
        ['access', '01001000'],
      ],
      { object: 2, out: [['lkey', '3f1a0000']] },
    )
    assert.match(
      callLine(record),
      /mr\.create\(pd 0, start 0x555e1ee5f000, length 4096, .*access LOCAL_WRITE\|RELAXED_ORDERING\) = 0 {object 2, lkey 0x1a3f}/,
    )
  })

  it('a refused call has the name of the errno, and the reason', () => {
    const record = recordOf(Cq, Cq.methods.create, 0, [['cqe', '00000000']], {
      ret: -Errno.EINVAL,
      reason: 'cq.create: attribute cqe: 0 is below 1',
    })
    assert.equal(
      callLine({ ...record, tid: 125 }),
      '[pid 123 tid 125 ibv_rc_pingpong] fd 3 cq.create(cqe 0) = -1 EINVAL (cq.create: attribute cqe: 0 is below 1) <0.000034>',
    )
    assert.match(callLine({ ...base, ret: -4095 }), /= -1 errno 4095 </)
  })

  it('undecodable calls are shown as ?, unknown classes and unreadable attributes as bytes', () => {
    assert.equal(
      callLine({ ...base, dialect: 'write', ret: -Errno.EINVAL, reason: 'the command is truncated' }),
      '[pid 123 ibv_rc_pingpong] fd 3 write(?) = -1 EINVAL (the command is truncated) <0.000034>',
    )
    const unknown = { classId: 0x7777, call: 9, message: message(0x7777, 1, []), answer: '' }
    assert.match(
      callLine({ ...base, call: unknown, ret: -Errno.EOPNOTSUPP }),
      /ioctl\(class 30583, call 9, [0-9a-f]+\) = -1 EOPNOTSUPP/,
    )
    const unknownAttribute = recordOf(Cq, Cq.methods.modify, 1, [
      ['cqe', '0000'],
      [77, 'aabb'],
    ])
    assert.match(callLine(unknownAttribute), /cq\.modify\(object 1, cqe 0000, attribute 0x4d aabb\) = 0/)
    const long = recordOf(Cq, Cq.methods.modify, 1, [[77, 'aa'.repeat(40)]])
    assert.match(callLine(long), /attribute 0x4d (aa){32}… \(40 bytes\)\)/)
    assert.match(callLine(long, { verbose: true }), /attribute 0x4d (aa){40}\)/)
  })

  it('objects are shown by handle or descriptor; objects without either are not shown', () => {
    const query = recordOf(Device, Device.methods.query, 0, [], { out: [['numCompVectors', '02000000']] })
    assert.match(callLine(query), /device\.query\(\) = 0 {numCompVectors 2} /)
    const channel = recordOf(CompChannel, CompChannel.methods.create, 0, [])
    assert.match(callLine(channel), /comp_channel\.create\(\) = 0 </)
    const numbered: TraceRecord = { ...channel, descriptors: [{ attribute: 'object', fd: 7 }] }
    assert.match(callLine(numbered), /comp_channel\.create\(\) = 0 {object fd 7} </)
    assert.deepEqual(callJson(numbered).out, { object: 7 })
    const unknown: TraceRecord = { ...channel, descriptors: [{ attribute: 'object' }] }
    assert.match(callLine(unknown), /comp_channel\.create\(\) = 0 {object fd \?} </)
    assert.deepEqual(callJson(unknown).out, { object: null })
    const destroy = recordOf(Cq, Cq.methods.destroy, 0, [], { out: [['compEvents', '03000000']] })
    assert.match(callLine(destroy), /cq\.destroy\(object 0\) = 0 {compEvents 3} /)
  })

  it('a line has no control characters', () => {
    const line = callLine({ ...base, command: 'a\u001b[2J\nb' })
    assert.equal(line, '[pid 123 a [2J b] fd 3 ioctl(?) = 0 <0.000034>')
  })

  it('JSON has names for numbers', () => {
    const record = recordOf(RcQp, RcQp.methods.modify, 3, [
      ['state', '02'],
      ['accessFlags', '05000000'],
    ])
    const { call: _, ...fields } = record
    assert.deepEqual(callJson(record), {
      ...fields,
      class: 'rc_qp',
      method: 'modify',
      object: 3,
      args: { state: 'RTR', accessFlags: ['LOCAL_WRITE', 'REMOTE_READ'] },
      out: {},
    })
    assert.deepEqual(callJson({ ...base, ret: -Errno.EINVAL, reason: 'no' }), {
      ...base,
      ret: -Errno.EINVAL,
      error: 'EINVAL',
      reason: 'no',
    })
    assert.doesNotThrow(() =>
      JSON.stringify(callJson(recordOf(Mr, Mr.methods.create, 0, [['start', '00f0e51e5e550000']]))),
    )
  })

  it('messages of the object dialect’s codec are decoded', () => {
    const { create } = RcQp.methods
    const cap = { maxSendWr: 16, maxRecvWr: 500, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
    const args = { pd: 0, sendCq: 1, recvCq: 1, cap, userHandle: 0x7fff00000001n }
    const call: Call = { class: RcQp, methodName: 'create', method: create, object: 0, args }
    const request = encodeCall(call)
    const view: CallerView = {
      schema: { driverId: 14, classById: () => RcQp, classByName: () => RcQp },
      copyIn: () => new Uint8Array(0),
      copyOut: () => {},
      classOf: () => undefined,
      hasContext: true,
    }
    const { message: answer } = decodeMessage(view, create.call, request).answer({
      object: 3,
      out: { cap: { ...cap, maxInlineData: 64 }, qpNum: 0x11 },
    })
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
    assert.equal(
      callLine({
        ...base,
        call: { classId: RcQp.id, call: create.call, message: base64(request), answer: base64(answer) },
      }),
      '[pid 123 ibv_rc_pingpong] fd 3 rc_qp.create(pd 0, sendCq 1, recvCq 1, cap {maxSendWr 16, maxRecvWr 500, maxSendSge 1, maxRecvSge 1}, userHandle 0x7fff00000001) = 0 {object 3, cap {maxSendWr 16, maxRecvWr 500, maxSendSge 1, maxRecvSge 1, maxInlineData 64}, qpNum 0x11} <0.000034>',
    )
  })

  it('a message that is not base64 is ignored', () => {
    const call = { classId: ClassId.cq, call: 3, message: '***', answer: '%' }
    assert.match(callLine({ ...base, call }), /cq\.destroy\(\) = 0 </)
  })

  it('any contents of a message are shown without an exception', () => {
    const anyId = fc.constantFrom(...Object.values(ClassId), 1, 0x8000)
    const bytes = fc.uint8Array({ maxLength: 200, size: 'max' })
    const built = fc.array(
      fc.tuple(
        fc.oneof(fc.integer({ min: 1, max: 34 }), fc.integer({ min: 64, max: 68 }), fc.constant(0x8000)),
        fc.uint8Array({ maxLength: 40, size: 'max' }).map(b => Buffer.from(b).toString('hex')),
      ),
      { maxLength: 6 },
    )
    fc.assert(
      fc.property(
        anyId,
        fc.integer({ min: 0, max: 70 }),
        bytes,
        built,
        fc.boolean(),
        (classId, call, garbage, raw, isAnswer) => {
          const garbled = Buffer.from(garbage).toString('base64')
          const built64 = message(classId, 1, raw, isAnswer)
          for (const [request, answer] of [
            [garbled, built64],
            [built64, garbled],
          ]) {
            const record = { ...base, call: { classId, call, message: request, answer } }
            assert.ok(callLine(record).length < 10000)
            JSON.stringify(callJson(record))
          }
        },
      ),
    )
  })
})
