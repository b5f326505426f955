/*
 * Commands on rdma_cm files: errors, lengths, responses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CmEventType, CmOptionLevel } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { UCMA_HEADER_BYTES, type UcmaCommand, ucmaCommands } from '../../../src/spec/linux/ucma.ts'
import type { AnyValues } from '../../../src/spec/schema/schema.ts'
import type { CallerView } from '../../../src/uapi/call.ts'
import { decodeUcma, type UcmaChannel } from '../../../src/uapi/linux/ucma.ts'
import { ARENA, AT, arena, fakeView, UNWRITTEN } from '../fake-view.ts'

const IDENTIFIER = 7
const UNKNOWN_IDENTIFIER = 8
const CHANNEL: UcmaChannel = { object: 1, fd: 3, reportsTo: () => true, kindOf: () => 'channel' }

const commandNamed = (wanted: string): UcmaCommand => ucmaCommands.find(({ name }) => name === wanted)!

/** Offset and size of a field of a request struct: a cell of its layout, or one of three that have no cell. */
const fieldOf = ({ name, in: { cells }, option, userMemory }: UcmaCommand, field: string) => {
  const cell = cells.find(one => one.name === field)
  if (cell !== undefined) return cell
  if (field === 'query option' && option) return { at: option.at, size: 4 }
  if (field === 'memory address' && userMemory) return { at: userMemory.address, size: 8 }
  if (field === 'memory length' && userMemory) return { at: userMemory.length, size: 4 }
  throw new Error(`${name} has no field ${field}`)
}

/**
 * Decodes a command. `fields`: values in the struct by name; the others are 0. `out`: bytes of the response buffer,
 * which is at ARENA. `inLength`: bytes of the struct as in the header.
 */
const decodeCommand = (
  name: string,
  {
    fields = {},
    out = 0,
    inLength,
  }: { fields?: Readonly<Record<string, number | bigint>>; out?: number; inLength?: number },
) => {
  const command = commandNamed(name)
  const written = new Uint8Array(UCMA_HEADER_BYTES + command.in.size)
  const header = new DataView(written.buffer)
  const struct = new DataView(written.buffer, UCMA_HEADER_BYTES)
  header.setUint32(0, command.number, true)
  header.setUint16(4, inLength ?? command.in.size, true)
  header.setUint16(6, out, true)
  if (command.response !== undefined) struct.setBigUint64(command.response, ARENA, true)
  if (command.option !== undefined) struct.setUint32(command.option.at, command.option.value, true)
  for (const [field, value] of Object.entries(fields)) {
    const { at, size } = fieldOf(command, field)
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt.asIntN(64, BigInt(value)))
    written.set(bytes.subarray(0, size), UCMA_HEADER_BYTES + at)
  }
  const memory = arena()
  memory.map(AT, written)
  const view = fakeView(memory, new Map([[IDENTIFIER, 'cm_id']]))
  return { decoded: decodeUcma(view, CHANNEL, AT, written.length), view }
}

/** Errno of a refused command, or 0. */
const errorOf = (...args: Parameters<typeof decodeCommand>): number => {
  const { decoded } = decodeCommand(...args)
  return 'ret' in decoded ? -decoded.ret : 0
}

/** The decoded call; the command must not be refused. */
const callOf = (...args: Parameters<typeof decodeCommand>) => {
  const { decoded } = decodeCommand(...args)
  assert.ok('call' in decoded)
  return decoded.call
}

/** The first `length` bytes of the response buffer after a call that returned `out`. */
const responseOf = ({ decoded, view }: ReturnType<typeof decodeCommand>, out: AnyValues, length: number) => {
  assert.ok('call' in decoded)
  assert.ok(decoded.answer({ out }).ret > 0)
  return view.copyIn(ARENA, length)
}

test('CONNECT with parameters that are not marked as valid is refused', () => {
  const { decoded } = decodeCommand('CONNECT', { fields: { 'parameters.valid': 0 } })
  assert.ok('ret' in decoded)
  assert.deepEqual([decoded.ret, String(decoded.reason)], [-Errno.EINVAL, 'CONNECT: the byte at 271 is 0, not nonzero'])
})

test('an option with unknown identifier, invalid memory or unknown level is refused, checked in this order', () => {
  const errorWith = (object: number, level: number, address: bigint): number =>
    errorOf('SET_OPTION', { fields: { object, level, 'memory address': address, 'memory length': 4 } })
  const NOWHERE = 0x10n
  assert.equal(errorWith(IDENTIFIER, CmOptionLevel.values.IB, ARENA), 0)
  for (const level of [2, 0x100, 0x101, 0xffff_ffff]) {
    assert.equal(errorWith(IDENTIFIER, level, ARENA), Errno.ENOSYS, `level ${level}`)
    assert.equal(errorWith(IDENTIFIER, level, NOWHERE), Errno.EFAULT)
    assert.equal(errorWith(UNKNOWN_IDENTIFIER, level, NOWHERE), Errno.ENOENT)
  }
})

test('an event fits a buffer without the padding of 64-bit programs', () => {
  // Linux's struct without `ece` has 328 bytes, with 4 bytes of padding.
  const bytes = 324
  assert.deepEqual(
    [bytes - 1, bytes].map(out => errorOf('GET_EVENT', { out })),
    [Errno.ENOSPC, 0],
  )
})

test('a query with an unknown option is ENOSYS, and without its identifier ENOENT', () => {
  const errorWith = (object: number) => errorOf('QUERY', { fields: { object, 'query option': 4 } })
  assert.deepEqual([errorWith(IDENTIFIER), errorWith(UNKNOWN_IDENTIFIER)], [Errno.ENOSYS, Errno.ENOENT])
})

test('paths are written whole, and nothing after them', () => {
  const paths = [{ flags: 0x2b, reserved: 0, record: new Uint8Array(64).fill(5) }]
  // struct rdma_ucm_query_path_resp: u32 num_paths, u32 reserved, and 6 paths of 72 bytes
  const [headBytes, endOfPath, bytesOfAll] = [8, 80, 440]
  const bytesWritten = (out: number): number => {
    const response = responseOf(
      decodeCommand('QUERY_PATH', { fields: { object: IDENTIFIER }, out }),
      { paths },
      bytesOfAll,
    )
    assert.equal(response[0], 1, 'number of paths')
    return response.indexOf(UNWRITTEN)
  }
  // As in Linux, a path needs one byte more than it has.
  for (const [out, bytes] of [
    [headBytes, headBytes],
    [endOfPath - 1, headBytes],
    [endOfPath, headBytes],
    [endOfPath + 1, endOfPath],
    [bytesOfAll, endOfPath],
  ] as const)
    assert.equal(bytesWritten(out), bytes, `a buffer of ${out} bytes`)
})

/** Offsets in struct rdma_ucm_query_route_resp, which has two paths. */
const RouteResponse = { DGID: 8, SGID: 24, PKEY: 60, END_OF_PATHS: 136, PATH_COUNT: 192 }

test('QUERY_ROUTE before the route is resolved has the GIDs of the addresses', () => {
  // sockaddr_in 10.77.0.2, and sockaddr_in6 with all bytes of the address 9
  const source = new Uint8Array(128)
  source.set([2, 0, 0, 0, 10, 77, 0, 2])
  const destination = new Uint8Array(128)
  destination.set([10, 0])
  destination.fill(9, 8, 24)
  const bytes = commandNamed('QUERY_ROUTE').out!.size
  const respond = (port: number) => {
    const sizes = { sourceSize: 16, destinationSize: 28 }
    const addresses = { nodeGuid: new Uint8Array(8), port, pkey: 0, ...sizes, source, destination, deviceIndex: 0 }
    const command = decodeCommand('QUERY_ROUTE', { fields: { object: IDENTIFIER }, out: bytes })
    return responseOf(command, { addresses }, bytes)
  }
  const { DGID, SGID, PKEY, END_OF_PATHS, PATH_COUNT } = RouteResponse
  const bound = respond(1)
  assert.deepEqual([...bound.subarray(DGID, DGID + 16)], new Array(16).fill(9))
  assert.deepEqual(
    [...bound.subarray(SGID, SGID + 16)],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 2],
    '::ffff:10.77.0.2',
  )
  assert.deepEqual([...bound.subarray(PKEY, PKEY + 2)], [0xff, 0xff], 'P_Key')
  assert.equal(bound[PATH_COUNT], 0, 'number of paths')
  const unbound = respond(0)
  assert.ok(
    unbound.subarray(DGID, END_OF_PATHS).every(byte => byte === 0),
    'without a device',
  )
})

test('vendor options count only if the struct has them whole', () => {
  const ece = { vendorId: 0x15b3, attrMod: 4 }
  const fields = {
    object: IDENTIFIER,
    'parameters.valid': 1,
    'ece.vendorId': ece.vendorId,
    'ece.attrMod': ece.attrMod,
  }
  const { size } = commandNamed('CONNECT').in
  assert.deepEqual(callOf('CONNECT', { fields }).args.ece, ece)
  for (const inLength of [size - 8, size - 4, size - 1])
    assert.deepEqual(callOf('CONNECT', { fields, inLength }).args.ece, { vendorId: 0, attrMod: 0 })
})

const { USER, ESTABLISHED } = CmEventType.values

test("WRITE_CM_EVENT of Linux 6.17 has an event's type, status and argument", () => {
  assert.deepEqual(
    commandNamed('WRITE_CM_EVENT').in.cells.map(({ name, at, size }) => [name, at, size]),
    [
      ['object', 0, 4],
      ['type', 8, 4],
      ['status', 12, 4],
      ['argument', 16, 8],
    ],
    'struct rdma_ucm_write_cm_event',
  )
  const argument = 0x0102_0304_0506_0708n
  const fields = { object: IDENTIFIER, type: USER, status: -Errno.ETIMEDOUT, argument }
  const { object, args } = callOf('WRITE_CM_EVENT', { fields })
  assert.equal(object, IDENTIFIER)
  assert.deepEqual(args, { type: USER, status: -Errno.ETIMEDOUT >>> 0, argument })
})

test('the type of WRITE_CM_EVENT is checked before the identifier, as in Linux', () => {
  const errorWith = (type: number) => errorOf('WRITE_CM_EVENT', { fields: { object: UNKNOWN_IDENTIFIER, type } })
  assert.deepEqual([errorWith(ESTABLISHED), errorWith(USER)], [Errno.EINVAL, Errno.ENOENT])
})

test('an event of WRITE_CM_EVENT has status and argument', () => {
  const event = decodeCommand('GET_EVENT', { out: commandNamed('GET_EVENT').out!.size })
  const out = { userHandle: 1n, object: 2, type: USER, status: 3, argument: 0x0102n, unread: 0 }
  const response = responseOf(event, out, 40)
  const [status, argument] = [response.subarray(16, 20), response.subarray(20, 28)]
  assert.deepEqual([...status], [3, 0, 0, 0])
  assert.deepEqual([...argument], [2, 1, 0, 0, 0, 0, 0, 0])
})

test('commands that Linux has and userdma has not are refused by name', () => {
  const errorOfNumber = (number: number) => {
    const written = new Uint8Array(UCMA_HEADER_BYTES)
    new DataView(written.buffer).setUint32(0, number, true)
    const answer = decodeUcma({ copyIn: () => written } as unknown as CallerView, CHANNEL, 0n, written.length)
    return 'ret' in answer ? [-answer.ret, String(answer.reason)] : []
  }
  assert.deepEqual(errorOfNumber(13), [
    Errno.ENOSYS,
    'GET_OPTION: Linux reserves its number and has never implemented it',
  ])
  assert.deepEqual(errorOfNumber(25), [Errno.EINVAL, 'rdma_cm command 25: there are 0 to 24'])
})
