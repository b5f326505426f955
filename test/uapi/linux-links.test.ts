/*
 * Linux's calls with addresses (MODIFY_QP, CREATE_AH, QUERY_QP) on devices of every link (R10, R27). Linux's structs
 * have fields for the addresses of all links; only the fields of the device's link reach the driver.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { callerView, type Driver, dispatch, driverClass, invokeNow } from '../../src/core/index.ts'
import { qpAttributes } from '../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../src/spec/classes.ts'
import { RXE_DRIVER_ID, RxeAbi } from '../../src/spec/drivers/rxe.ts'
import { QpState } from '../../src/spec/enums.ts'
import type { LinkName } from '../../src/spec/links.ts'
import { WriteCommands } from '../../src/spec/linux/names.ts'
import type { AnyRecord, AnyValues } from '../../src/spec/schema/schema.ts'
import { type Answer, type Decoded, isAnswer } from '../../src/uapi/call.ts'
import { encodeLinux } from '../../src/uapi/linux/encode.ts'
import { decodeWriteBytes } from '../../src/uapi/linux/write.ts'
import { cap, openTestDevice, type TestState, testClasses, testDriver } from '../core/fixture.ts'

const { ah: Ah, cq: Cq, pd: Pd, rc_qp: RcQp } = Classes
const LINKS = ['ib', 'roce', 'iwarp', 'opa'] as const
/** A driver that Linux does not know has no driver structs. */
const NO_DRIVER = 0

const DLID = 0x1234
const SOURCE_BITS = 3
const path = { sl: 5, port: 1, isGlobal: 0 }

/** `handled`: the arguments that the driver's handlers of MODIFY_QP and CREATE_AH got. */
const deviceOn = (link: LinkName, own: Partial<Driver<TestState>> = { id: NO_DRIVER }) => {
  const handled: AnyValues[] = []
  const note = (_call: unknown, _object: unknown, args: AnyValues) => {
    handled.push(args)
    return {}
  }
  let queryResult: AnyRecord = {}
  const query = () => queryResult
  const overrides = { [RcQp.name]: { modify: note, query }, [Ah.name]: { create: note } }
  const classes = testClasses.map(entry => {
    const handlers = (overrides as Record<string, object>)[entry.class.name]
    return handlers === undefined ? entry : driverClass(entry.class, { ...entry.handlers, ...handlers } as never)
  })
  const driver: Driver<TestState> = { ...testDriver(classes), ...own, link }
  const setup = openTestDevice({}, driver)
  const make = (cls: typeof Pd | typeof Cq | typeof RcQp, args: object) =>
    invokeNow(setup.context, cls, 'create', 0, args as never, setup.caller).object as number
  const pd = make(Pd, {})
  const cq = make(Cq, { cqe: 1, userHandle: 0n, compVector: 0 })
  const qp = make(RcQp, { pd, sendCq: cq, recvCq: cq, cap, userHandle: 0n })
  const setQueryResult = (result: AnyRecord): void => {
    queryResult = result
  }
  return { ...setup, pd, qp, handled, setQueryResult }
}

/** A command with `length` bytes after the header; the response buffer has `words` words of 4 bytes. */
const command = (number: number, length: number, words: number, fill: (view: DataView) => void): Uint8Array => {
  const bytes = new Uint8Array(8 + length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, number, true)
  view.setUint16(4, bytes.length / 4, true)
  view.setUint16(6, words, true)
  fill(new DataView(bytes.buffer, 8))
  return bytes
}

/** IB_QP_STATE, and IB_QP_AV and IB_QP_ALT_PATH, of ib_qp_attr_mask. */
const STATE_BIT = 1
const ADDRESS_BITS = (1 << (qpAttributes.address.id - 1)) | (1 << (qpAttributes.alternatePath.id - 1))

/** MODIFY_QP to RTR, with a primary and an alternate path (offsets of struct ib_uverbs_modify_qp). */
const modify = (qp: number): Uint8Array =>
  command(WriteCommands.MODIFY_QP, 112, 0, view => {
    for (const at of [0, 32]) {
      view.setUint16(at + 20, DLID + at, true)
      view.setUint8(at + 27, path.sl)
      view.setUint8(at + 28, SOURCE_BITS)
      view.setUint8(at + 31, path.port)
    }
    view.setUint32(64, qp, true)
    view.setUint32(68, STATE_BIT | ADDRESS_BITS, true)
    view.setUint16(94, alternate.pkeyIndex, true)
    view.setUint8(96, QpState.values.RTR)
    view.setUint8(108, alternate.altPort)
    view.setUint8(109, alternate.timeout)
  })

/** CREATE_AH with an address (offsets of struct ib_uverbs_create_ah). */
const createAh = (pd: number): Uint8Array =>
  command(WriteCommands.CREATE_AH, 56, 1, view => {
    view.setUint32(16, pd, true)
    const address = 24
    view.setUint16(address + 24, DLID, true)
    view.setUint8(address + 26, path.sl)
    view.setUint8(address + 27, SOURCE_BITS)
    view.setUint8(address + 30, path.port)
  })

const plain = { dgid: new Uint8Array(16), flowLabel: 0, sgidIndex: 0, hopLimit: 0, trafficClass: 0, staticRate: 0 }
const lids = { dlid: DLID, srcPathBits: SOURCE_BITS }
const alternate = { ...plain, ...path, altPort: 2, timeout: 14, pkeyIndex: 7 }
const alternateLids = { ...lids, dlid: DLID + 32 }

/** The driver's arguments for MODIFY_QP and CREATE_AH, by link. */
const expected: Readonly<Record<LinkName, { modify: object; create: object }>> = {
  ib: {
    modify: { ibAddress: { ...plain, ...path, ...lids }, ibAlternatePath: { ...alternate, ...alternateLids } },
    create: { ibAddress: { ...plain, ...path, ...lids } },
  },
  roce: {
    modify: { address: { ...plain, ...path }, alternatePath: alternate },
    create: { address: { ...plain, ...path } },
  },
  iwarp: { modify: {}, create: {} },
  opa: {
    modify: { opaAddress: { ...plain, ...path, ...lids }, opaAlternatePath: { ...alternate, ...alternateLids } },
    create: { opaAddress: { ...plain, ...path, ...lids } },
  },
}

for (const link of LINKS)
  test(`the driver of an ${link} device gets the address fields of this link`, () => {
    const { context, caller, pd, qp, handled } = deviceOn(link)
    for (const [bytes, wanted] of [
      [modify(qp), { ...expected[link].modify, state: QpState.values.RTR }],
      [createAh(pd), { ...expected[link].create, userHandle: 0n }],
    ] as const) {
      const answer = dispatch(context, decodeWriteBytes, [bytes], caller) as Answer
      assert.equal(answer.ret, bytes.length, String(answer.reason))
      const { pd: _, ...args } = handled.pop() as AnyValues
      assert.deepEqual(args, wanted)
    }
  })

for (const link of LINKS)
  test(`a decoded call on an ${link} device is encoded to the same bytes`, () => {
    const { context, caller, pd, qp } = deviceOn(link)
    for (const bytes of [modify(qp), createAh(pd)]) {
      const decoded = decodeWriteBytes(callerView(context, caller), bytes)
      assert.ok(!isAnswer(decoded))
      const { call, legacy } = decoded as Decoded
      assert.deepEqual(encodeLinux(call, legacy() as Uint8Array).bytes, bytes)
    }
  })

for (const link of ['ib', 'roce', 'opa'] as const)
  test(`QUERY_QP on an ${link} device returns the driver’s path`, () => {
    const { context, caller, qp, setQueryResult } = deviceOn(link)
    setQueryResult({ ...expected[link].modify, state: 2 })
    let answered: Uint8Array | undefined
    const copyOut = (_address: bigint, bytes: Uint8Array): void => {
      answered = bytes
    }
    const query = command(WriteCommands.QUERY_QP, 16, 32, view => view.setUint32(8, qp, true))
    const answer = dispatch(context, decodeWriteBytes, [query], { ...caller, copyOut }) as Answer
    assert.equal(answer.ret, query.length, String(answer.reason))
    const view = new DataView((answered as Uint8Array).buffer)
    const hasLids = link !== 'roce'
    // Path: dlid, sl, src_path_bits. Alternate path: dlid, alt_port_num.
    assert.deepEqual(
      [view.getUint16(20, true), view.getUint8(27), view.getUint8(28), view.getUint16(52, true), view.getUint8(120)],
      [hasLids ? DLID : 0, path.sl, hasLids ? SOURCE_BITS : 0, hasLids ? DLID + 32 : 0, 2],
    )
  })

test('a driver that uses rxe’s ABI without rxe’s outputs answers with zeros', () => {
  const { context, caller, pd } = deviceOn('roce', { id: RXE_DRIVER_ID, linux: RxeAbi })
  const bytes = createAh(pd)
  new DataView(bytes.buffer).setUint16(6, 3, true) // length of the response buffer, in words
  let driverPart: Uint8Array | undefined
  // The driver's part of the response follows the 4 bytes of CREATE_AH at address 0.
  const copyOut = (address: bigint, written: Uint8Array): void => {
    if (address === 4n) driverPart = written
  }
  const answer = dispatch(context, decodeWriteBytes, [bytes], { ...caller, copyOut }) as Answer
  assert.equal(answer.ret, bytes.length, String(answer.reason))
  assert.deepEqual(driverPart, new Uint8Array(8))
})
