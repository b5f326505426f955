/*
 * Linux's calls on a soft device (R36, R41, R42). Calls that the device lacks are refused before any other check, as in
 * Linux.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLocalSpace, dispatch, type FileMemory, invokeNow } from '../../../../src/core/index.ts'
import { Cq } from '../../../../src/spec/classes/cq.ts'
import { Interface } from '../../../../src/spec/classes/device/interface.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { classes } from '../../../../src/spec/classes.ts'
import { RXE_DRIVER_ID } from '../../../../src/spec/drivers/rxe.ts'
import { MrKind } from '../../../../src/spec/enums.ts'
import { errnoName } from '../../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../../src/spec/linux/ioctl.ts'
import { EXTENDED } from '../../../../src/spec/linux/write.ts'
import { decodeReason } from '../../../../src/spec/reason.ts'
import type { Answer } from '../../../../src/uapi/call.ts'
import { type LinuxCall, linuxCalls } from '../../../../src/uapi/linux/coverage.ts'
import { decodeVerbsIoctl } from '../../../../src/uapi/linux/ioctl.ts'
import { decodeWrite } from '../../../../src/uapi/linux/write.ts'
import { decodeObject } from '../../../../src/uapi/object/dialect.ts'
import { type FakeMemory, fakeMemory } from '../../../uapi/abilog.ts'
import { machine, makeCq, type Program, program } from '../../rxe/machine.ts'

/** Address of the call's buffer in the program's memory. */
const AT = 0x1000n

/** Makes a Linux call with buffer `bytes`. Returns 'OK', or errno and reason. */
const run = (
  p: Program,
  dialect: 'write' | 'ioctl',
  bytes: Uint8Array,
  { memory = fakeMemory(), ...callerFunctions }: { memory?: FakeMemory; openFile?: (fd: number) => FileMemory } = {},
): string => {
  memory.map(AT, bytes)
  const caller = { ...p.caller, ...callerFunctions, copyIn: memory.copyIn, copyOut: memory.copyOut }
  const answer =
    dialect === 'write'
      ? dispatch(p.context, decodeWrite, [AT, bytes.length], caller)
      : dispatch(p.context, decodeVerbsIoctl, [RDMA_VERBS_IOCTL, AT], caller)
  const { ret, reason } = answer as Answer
  return ret < 0 ? `${errnoName(-ret)} ${reason}` : 'OK'
}

/** The call without arguments: a struct ib_uverbs_cmd_hdr (8 bytes) or ib_uverbs_ioctl_hdr (24 bytes). */
const bare = ({ dialect, number, methodNumber = 0 }: LinuxCall): Uint8Array => {
  const bytes = new Uint8Array(dialect === 'write' ? 8 : 24)
  const view = new DataView(bytes.buffer)
  if (dialect === 'write') {
    view.setUint32(0, number, true) // command
    view.setUint16(4, 2, true) // in_words, of 4 bytes
  } else {
    view.setUint16(0, 24, true) // length
    view.setUint16(2, number, true) // object_id
    view.setUint16(4, methodNumber, true) // method_id
    view.setUint32(16, RXE_DRIVER_ID, true) // driver_id
  }
  return bytes
}

const p = program(machine(1))
const deviceHas = (name: string, method: string): boolean =>
  p.rxe.device.sharedTable.byName.get(name)?.class.methods[method] !== undefined

for (const call of linuxCalls.filter(
  ({ classes, method }) => method && classes.every(name => !deviceHas(name, method)),
))
  test(`${call.name}: not supported by the device`, () => {
    const code = call.dialect === 'write' ? 'EOPNOTSUPP' : 'EPROTONOSUPPORT'
    // the name is COMMAND or OBJECT.METHOD
    const lastName = call.name.split('.').at(-1)
    assert.equal(
      run(p, call.dialect, bare(call)),
      `${code} ${lastName}: this device has no ${call.classes[0]}.${call.method}`,
    )
  })

test('a method that the device lacks is refused with one error text in a message, in a chain and in this process', () => {
  const missing = classes.flatMap(cls =>
    Object.keys(cls.methods).flatMap(name => (deviceHas(cls.name, name) ? [] : [{ cls, name }])),
  )
  assert.ok(missing.some(({ cls, name }) => `${cls.name}.${name}` === 'flow.create'))
  for (const { cls, name } of missing) {
    const text = `this device has no ${cls.name}.${name}`
    const { call } = cls.methods[name]
    // A message of the object dialect without arguments: u16 length, u16 class, and the rest of its header.
    const message = new Uint8Array(16)
    const view = new DataView(message.buffer)
    view.setUint16(0, 16, true)
    view.setUint16(2, cls.id, true)
    const memory = fakeMemory()
    memory.map(AT, message)
    const caller = { ...p.caller, copyIn: memory.copyIn, copyOut: memory.copyOut }
    const { ret, reason } = dispatch(p.context, decodeObject, [call, AT], caller) as Answer
    assert.deepEqual([errnoName(-ret), String(reason)], ['EOPNOTSUPP', text])

    // A chain of one entry: u8 call, u32 size at offset 4, the message.
    const entries = new Uint8Array(24)
    entries[0] = call
    entries[4] = 16
    entries.set(message, 8)
    const { out } = invokeNow(p.context, Interface, 'chain', 0, { entries, onError: 0 }, p.caller)
    assert.deepEqual(
      [errnoName(out.error), decodeReason(new TextDecoder().decode(out.reason)).text()],
      ['EOPNOTSUPP', text],
    )

    assert.throws(() => invokeNow(p.context, cls, name, 0, {}, p.caller), { code: 'EOPNOTSUPP', message: text })
  }
})

test('a method with an object of a class that the device lacks is refused with the name of the class', () => {
  const call = linuxCalls.find(({ name }) => name === 'MR.DM_MR_REG')!
  assert.equal(run(p, 'ioctl', bare(call)), 'EPROTONOSUPPORT DM_MR_REG: this device has no objects of class dm')
})

test('a method that the device has is not refused as missing', () => {
  // refused for the class of its object (above)
  for (const call of linuxCalls.filter(
    ({ classes, method }) => method && classes.some(name => deviceHas(name, method)),
  ))
    if (call.name !== 'MR.DM_MR_REG')
      assert.doesNotMatch(run(p, call.dialect, bare(call)), /this device has no/, call.name)
})

test('MODIFY_CQ sets the moderation of a CQ, and refuses masks without IB_CQ_MODERATE', () => {
  const IB_USER_VERBS_EX_CMD_MODIFY_CQ = 57
  const IB_CQ_MODERATE = 1
  const cq = makeCq(p)
  const modify = (mask: number, count: number, period: number): string => {
    // ib_uverbs_cmd_hdr and ib_uverbs_ex_cmd_hdr, 24 bytes together, and ib_uverbs_ex_modify_cq, 16 bytes
    const bytes = new Uint8Array(24 + 16)
    const view = new DataView(bytes.buffer)
    view.setUint32(0, EXTENDED + IB_USER_VERBS_EX_CMD_MODIFY_CQ, true)
    view.setUint16(4, 2, true) // in_words, of 8 bytes
    view.setUint32(24, cq.handle, true) // cq_handle
    view.setUint32(28, mask, true) // attr_mask
    view.setUint16(32, count, true) // cq_count
    view.setUint16(34, period, true) // cq_period
    return run(p, 'write', bytes)
  }
  const moderation = (): [number, number] => {
    const { count, period } = invokeNow(p.context, Cq, 'query', cq.handle, {}, p.caller).out
    return [count, period]
  }
  assert.equal(modify(IB_CQ_MODERATE, 16, 100), 'OK')
  assert.deepEqual(moderation(), [16, 100])
  const UNKNOWN_MASK = 2
  assert.match(modify(UNKNOWN_MASK, 3, 4), /^EOPNOTSUPP/)
  assert.match(modify(0, 3, 4), /^EINVAL .*nothing to change/)
  assert.deepEqual(moderation(), [16, 100])
})

type PassedAttributes = readonly (readonly [id: number, length: number, data: bigint])[]
const DMABUF = 7
const RESPONSE_AT = 0x8000n

/** An ioctl of object MR. */
const mrIoctl = (method: number, attributes: PassedAttributes): Uint8Array => {
  const bytes = new Uint8Array(24 + 16 * attributes.length)
  const view = new DataView(bytes.buffer)
  for (const [offset, value] of [
    [0, bytes.length],
    [2, 7], // object_id: UVERBS_OBJECT_MR
    [4, method],
    [6, attributes.length],
    [16, RXE_DRIVER_ID],
  ] as const)
    view.setUint16(offset, value, true)
  attributes.forEach(([id, length, data], i) => {
    view.setUint16(24 + 16 * i, id, true)
    view.setUint16(26 + 16 * i, length, true)
    view.setUint16(28 + 16 * i, 1, true) // UVERBS_ATTR_F_MANDATORY
    view.setBigUint64(32 + 16 * i, data, true)
  })
  return bytes
}

const [UVERBS_METHOD_REG_DMABUF_MR, UVERBS_METHOD_REG_MR] = [4, 5]
/** Attributes of REG_MR without a place. */
const regMr = (...place: PassedAttributes): PassedAttributes => [
  [0, 0, 0n], // UVERBS_ATTR_REG_MR_HANDLE, an output
  [1, 0, BigInt(p.pd)], // PD_HANDLE
  [3, 8, 0x70000n], // IOVA
  [5, 8, 4096n], // LENGTH
  [6, 4, 7n], // ACCESS_FLAGS
  [9, 4, RESPONSE_AT], // RESP_LKEY
  [10, 4, RESPONSE_AT + 4n], // RESP_RKEY
  ...place,
]
const [ADDR, FD, FD_OFFSET] = [
  [4, 8, 8192n],
  [7, 0, BigInt(DMABUF)],
  [8, 8, 8192n],
] as const

/** REG_DMABUF_MR, and REG_MR with a descriptor. */
const fileRegistrations: readonly (readonly [name: string, message: () => Uint8Array])[] = [
  [
    'REG_DMABUF_MR',
    () =>
      mrIoctl(UVERBS_METHOD_REG_DMABUF_MR, [
        [0, 0, 0n], // UVERBS_ATTR_REG_DMABUF_MR_HANDLE, an output
        [1, 0, BigInt(p.pd)], // PD_HANDLE
        [2, 8, 8192n], // OFFSET
        [3, 8, 4096n], // LENGTH
        [4, 8, 0x70000n], // IOVA
        [5, 4, BigInt(DMABUF)], // FD
        [6, 4, 7n], // ACCESS_FLAGS: LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ
        [7, 4, RESPONSE_AT], // RESP_LKEY, the address of the output
        [8, 4, RESPONSE_AT + 4n], // RESP_RKEY, the address of the output
      ]),
  ],
  ['REG_MR', () => mrIoctl(UVERBS_METHOD_REG_MR, regMr(FD, FD_OFFSET))],
]

test('REG_MR takes either an address, or a descriptor with an offset', () => {
  const memory = fakeMemory()
  memory.map(RESPONSE_AT, new Uint8Array(8))
  for (const place of [[], [FD], [FD_OFFSET], [ADDR, FD], [ADDR, FD_OFFSET], [ADDR, FD, FD_OFFSET]])
    assert.match(
      run(p, 'ioctl', mrIoctl(UVERBS_METHOD_REG_MR, regMr(...place)), { memory }),
      /^EINVAL REG_MR: pass attribute 4, or 7 and 8$/,
    )
})

for (const [name, message] of fileRegistrations)
  test(`${name} registers pages of the descriptor’s file`, () => {
    const log: string[] = []
    const space = { ...createLocalSpace(), check: () => true }
    const openFile = (fd: number): FileMemory => {
      log.push(`open ${fd}`)
      return { space, close: () => log.push(`close ${fd}`) }
    }
    const memory = fakeMemory()
    memory.map(RESPONSE_AT, new Uint8Array(8))
    assert.equal(run(p, 'ioctl', message(), { memory, openFile }), 'OK')
    // the handle of the region is in `data` of the first attribute
    const handle = Number(new DataView(memory.copyIn(AT + 32n, 8).buffer).getBigUint64(0, true))
    const { lkey, length, iova, kind } = invokeNow(p.context, Mr, 'query', handle, {}, p.caller).out
    assert.deepEqual([length, iova, kind], [4096n, 0x70000n, MrKind.values.FILE])
    assert.equal(new DataView(memory.copyIn(RESPONSE_AT, 4).buffer).getUint32(0, true), lkey)
    invokeNow(p.context, Mr, 'destroy', handle, {}, p.caller)
    assert.deepEqual(log, [`open ${DMABUF}`, `close ${DMABUF}`])
  })
