/*
 * Commands on rdma_cm files: errors, lengths, responses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Errno } from '../../../src/spec/errno.ts'
import { UCMA_HEADER_BYTES, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import type { AnyValues } from '../../../src/spec/schema/schema.ts'
import type { CallerView } from '../../../src/uapi/call.ts'
import { decodeUcma, type UcmaChannel } from '../../../src/uapi/linux/ucma.ts'
import { ARENA, AT, arena, fakeView } from '../fake-view.ts'

const IDENTIFIER = 7
const CHANNEL: UcmaChannel = { object: 1, fd: 3, reportsTo: () => true, kindOf: () => 'channel' }

/** The error of a command whose struct has only zeros. */
const errorOfZeros = (name: string): { ret: number; reason?: string } => {
  const command = ucmaCommands.find(one => one.name === name)!
  const written = new Uint8Array(UCMA_HEADER_BYTES + command.in.size)
  const header = new DataView(written.buffer)
  header.setUint32(0, command.number, true)
  header.setUint16(4, command.in.size, true)
  const view = { copyIn: () => written } as unknown as CallerView
  const answer = decodeUcma(view, {} as UcmaChannel, 0n, written.length)
  assert.ok('ret' in answer)
  return { ret: answer.ret, ...(answer.reason !== undefined && { reason: answer.reason }) }
}

test('CONNECT with parameters that are not marked as valid is refused', () => {
  assert.deepEqual(errorOfZeros('CONNECT'), { ret: -22, reason: 'CONNECT: the byte at 271 is 0, not nonzero' })
})

test('an option with unknown identifier, invalid memory or unknown level is refused, checked in this order', () => {
  const SET_OPTION = ucmaCommands.find(({ name }) => name === 'SET_OPTION')!
  const errorOf = (id: number, level: number, address: bigint): number => {
    const written = new Uint8Array(UCMA_HEADER_BYTES + SET_OPTION.in.size)
    const view = new DataView(written.buffer)
    view.setUint32(0, SET_OPTION.number, true)
    view.setUint16(4, SET_OPTION.in.size, true)
    view.setBigUint64(8, address, true)
    view.setUint32(16, id, true)
    view.setUint32(20, level, true)
    view.setUint32(28, 4, true) // bytes of the option
    const memory = arena()
    memory.map(AT, written)
    const answer = decodeUcma(fakeView(memory, new Map([[IDENTIFIER, 'cm_id']])), CHANNEL, AT, written.length)
    return 'ret' in answer ? -answer.ret : 0
  }
  const NOWHERE = 0x10n
  assert.equal(errorOf(IDENTIFIER, 1, ARENA), 0)
  for (const level of [2, 0x100, 0x101, 0xffff_ffff]) {
    assert.equal(errorOf(IDENTIFIER, level, ARENA), Errno.ENOSYS, `level ${level}`)
    assert.equal(errorOf(IDENTIFIER, level, NOWHERE), Errno.EFAULT)
    assert.equal(errorOf(IDENTIFIER + 1, level, NOWHERE), Errno.ENOENT)
  }
})

/** Decodes a command. `set` fills its struct. `out`: bytes of the response, which is at ARENA. */
const decodeCommand = (
  name: string,
  { out = 0, responseAt, set }: { out?: number; responseAt?: number; set?: (struct: DataView) => void },
  inLength?: number,
) => {
  const command = ucmaCommands.find(one => one.name === name)!
  const written = new Uint8Array(UCMA_HEADER_BYTES + command.in.size)
  const header = new DataView(written.buffer)
  const struct = new DataView(written.buffer, UCMA_HEADER_BYTES)
  header.setUint32(0, command.number, true)
  header.setUint16(4, inLength ?? command.in.size, true)
  header.setUint16(6, out, true)
  if (responseAt !== undefined) struct.setBigUint64(responseAt, ARENA, true)
  set?.(struct)
  const memory = arena()
  memory.map(AT, written)
  const view = fakeView(memory, new Map([[IDENTIFIER, 'cm_id']]))
  return { decoded: decodeUcma(view, CHANNEL, AT, written.length), view }
}

const errorOf = ({ decoded }: ReturnType<typeof decodeCommand>): number => ('ret' in decoded ? -decoded.ret : 0)

/** The response, and the bytes after it up to `length`, which are 0xcc. */
const responseOf = ({ decoded, view }: ReturnType<typeof decodeCommand>, out: AnyValues, length: number) => {
  assert.ok('call' in decoded)
  assert.ok(decoded.answer({ out }).ret > 0)
  return view.copyIn(ARENA, length)
}

test('an event fits a buffer without the padding of 64-bit programs', () => {
  const errorWith = (out: number) => errorOf(decodeCommand('GET_EVENT', { out, responseAt: 0 }))
  assert.deepEqual([errorWith(323), errorWith(324)], [Errno.ENOSPC, 0])
})

test('a query with an unknown option is ENOSYS, and without its identifier ENOENT', () => {
  const errorWith = (id: number) =>
    errorOf(
      decodeCommand('QUERY', {
        set(struct) {
          struct.setUint32(8, id, true)
          struct.setUint32(12, 3, true)
        },
      }),
    )
  assert.deepEqual([errorWith(IDENTIFIER), errorWith(IDENTIFIER + 1)], [Errno.ENOSYS, Errno.ENOENT])
})

test('paths are written whole, and nothing after them', () => {
  const record = new Uint8Array(64).fill(5)
  const paths = [{ flags: 0x2b, reserved: 0, record }]
  const bytesWritten = (out: number): number => {
    const command = decodeCommand('QUERY_PATH', {
      out,
      responseAt: 0,
      set(struct) {
        struct.setUint32(8, IDENTIFIER, true)
        struct.setUint32(12, 1, true)
      },
    })
    const response = responseOf(command, { paths }, 440)
    assert.equal(response[0], 1, 'number of paths')
    return response.indexOf(0xcc)
  }
  // As in Linux, a path needs one byte more than it has.
  for (const [out, bytes] of [
    [8, 8],
    [79, 8],
    [80, 8],
    [81, 80],
    [440, 80],
  ] as const)
    assert.equal(bytesWritten(out), bytes, `a buffer of ${out} bytes`)
})

test('QUERY_ROUTE before the route is resolved has the GIDs of the addresses', () => {
  const source = new Uint8Array(128)
  source.set([2, 0, 0, 0, 10, 77, 0, 2])
  const destination = new Uint8Array(128)
  destination.set([10, 0])
  destination.fill(9, 8, 24)
  const respond = (port: number) => {
    const addresses = {
      nodeGuid: new Uint8Array(8),
      port,
      pkey: 0,
      sourceSize: 16,
      destinationSize: 28,
      source,
      destination,
    }
    const set = (struct: DataView) => struct.setUint32(8, IDENTIFIER, true)
    const command = decodeCommand('QUERY_ROUTE', { out: 208, responseAt: 0, set })
    return responseOf(command, { addresses: { ...addresses, deviceIndex: 0 } }, 208)
  }
  const bound = respond(1)
  assert.deepEqual([...bound.subarray(8, 24)], new Array(16).fill(9))
  assert.deepEqual([...bound.subarray(24, 40)], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 2])
  assert.deepEqual([...bound.subarray(60, 62)], [0xff, 0xff], 'P_Key')
  assert.equal(bound[192], 0, 'number of paths')
  assert.ok(
    respond(0)
      .subarray(8, 136)
      .every(byte => byte === 0),
    'without a device',
  )
})

test('vendor options count only if the struct has them whole', () => {
  const eceOf = (inLength: number) => {
    const set = (struct: DataView) => {
      struct.setUint8(271, 1)
      struct.setUint32(272, IDENTIFIER, true)
      struct.setUint32(280, 0x15b3, true)
      struct.setUint32(284, 4, true)
    }
    const { decoded } = decodeCommand('CONNECT', { set }, inLength)
    assert.ok('call' in decoded)
    return decoded.call.args.ece
  }
  assert.deepEqual(eceOf(288), { vendorId: 0x15b3, attrMod: 4 })
  for (const inLength of [280, 284, 287]) assert.deepEqual(eceOf(inLength), { vendorId: 0, attrMod: 0 })
})

test('the commands of Linux 6.17', () => {
  const { decoded } = decodeCommand('WRITE_CM_EVENT', {
    set(struct) {
      struct.setUint32(0, IDENTIFIER, true)
      struct.setUint32(8, 18, true) // RDMA_CM_EVENT_USER
      struct.setInt32(12, -110, true)
      struct.setBigUint64(16, 0x0102_0304_0506_0708n, true)
    },
  })
  assert.ok('call' in decoded)
  const { object, args } = decoded.call
  assert.deepEqual(
    { object, args },
    {
      object: IDENTIFIER,
      args: { type: 18, status: 0xffff_ff92, argument: 0x0102_0304_0506_0708n },
    },
  )
  // As in Linux, the type is checked before the identifier.
  const withType = (type: number, id: number) =>
    errorOf(
      decodeCommand('WRITE_CM_EVENT', {
        set(struct) {
          struct.setUint32(0, id, true)
          struct.setUint32(8, type, true)
        },
      }),
    )
  assert.deepEqual([withType(9, IDENTIFIER + 1), withType(19, IDENTIFIER + 1)], [Errno.EINVAL, Errno.ENOENT])
  const event = decodeCommand('GET_EVENT', { out: 336, responseAt: 0 })
  const response = responseOf(
    event,
    { userHandle: 1n, object: 2, type: 18, status: 3, argument: 0x0102n, unread: 0 },
    40,
  )
  assert.deepEqual([...response.subarray(16, 32)], [3, 0, 0, 0, 2, 1, ...Array(10).fill(0)])
})

test('commands that Linux has and userdma has not are refused by name', () => {
  const errorOfNumber = (number: number) => {
    const written = new Uint8Array(UCMA_HEADER_BYTES)
    new DataView(written.buffer).setUint32(0, number, true)
    const answer = decodeUcma({ copyIn: () => written } as unknown as CallerView, CHANNEL, 0n, written.length)
    return 'ret' in answer ? [-answer.ret, answer.reason] : []
  }
  assert.deepEqual(errorOfNumber(13), [
    Errno.ENOSYS,
    'GET_OPTION: Linux reserves its number and has never implemented it',
  ])
  assert.deepEqual(errorOfNumber(23), [
    Errno.EOPNOTSUPP,
    'RESOLVE_IB_SERVICE: it asks the subnet administrator, which RoCE does not have',
  ])
  assert.deepEqual(errorOfNumber(25), [Errno.EINVAL, 'rdma_cm command 25: there are 0 to 24'])
})
