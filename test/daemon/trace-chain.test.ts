/*
 * The trace record of a chain has the memory that its entries read or wrote (R16, R46).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createCore } from '../../src/core/devices/registry.ts'
import { dispatch } from '../../src/core/dispatch/dispatch.ts'
import { invokeNow, openContext } from '../../src/core/index.ts'
import { ioctlDialect } from '../../src/daemon/session/dialects.ts'
import { TraceHub } from '../../src/daemon/trace/trace-hub.ts'
import { recordingCaller } from '../../src/daemon/trace/trace-messages.ts'
import { createNullDevice, Sink } from '../../src/drivers/null/device.ts'
import { ChainErrors, Interface } from '../../src/spec/classes/device/interface.ts'
import { Pd } from '../../src/spec/classes/pd.ts'
import type { TraceRecord } from '../../src/spec/records.ts'
import type { Access } from '../../src/tools/trace/call-messages.ts'
import { callJson, callLine } from '../../src/tools/trace/calls.ts'
import type { Call } from '../../src/uapi/call.ts'
import { encodeChain } from '../../src/uapi/object/chain.ts'
import { encodeCall } from '../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../src/uapi/object/format.ts'
import { testCaller } from '../core/fixture.ts'

/** Addresses in the program's memory. */
const [MESSAGE, CHAIN, RESULTS, DATA, REASON] = [0x0, 0x1000, 0x2000, 0x3000, 0x4000]

/** Bytes of the argument of `take`. */
const DATA_BYTES = 600
const LIST_BYTES = 0x8000
const listAddress = (i: number): bigint => BigInt(0x10000 + i * LIST_BYTES)

test('indirect values of a chain’s entries are shown as they were at the time of the entry', () => {
  const device = createNullDevice(createCore(), 'null0')
  const context = openContext(device, { isOpened: true })
  const memory = new Uint8Array(0x100000)
  const caller = {
    ...testCaller(),
    copyIn: (address: bigint, length: number) => memory.slice(Number(address), Number(address) + length),
    copyOut: (address: bigint, bytes: Uint8Array) => memory.set(bytes, Number(address)),
  }
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const sink = invokeNow(context, Sink, 'create', 0, { pd }, caller).object!

  const take: Call = {
    class: Sink,
    methodName: 'take',
    method: Sink.methods.take,
    object: sink,
    args: { data: new Uint8Array(DATA_BYTES) },
  }
  const query: Call = { class: Interface, methodName: 'query', method: Interface.methods.query, object: 0, args: {} }
  // All output lists need buffers. The query writes `classes` to DATA, which the next entry reads.
  const lists = Object.fromEntries(
    Object.keys(Interface.methods.query.out).map((name, i) => [name, { address: listAddress(i), length: LIST_BYTES }]),
  )
  const outputs = { ...lists, classes: { address: BigInt(DATA), length: 0x1000 } }
  const inputs = { data: BigInt(DATA) }
  const noSink = 99
  const entries = encodeChain([
    { call: take, options: { inputAddresses: inputs } },
    { call: query, options: { outputBuffers: outputs } },
    { call: take, options: { inputAddresses: inputs } },
    { call: { ...take, object: noSink }, options: { inputAddresses: inputs } },
  ])
  memory.fill(0xab, DATA, DATA + DATA_BYTES)
  memory.set(entries, CHAIN)
  const chain: Call = {
    class: Interface,
    methodName: 'chain',
    method: Interface.methods.chain,
    object: 0,
    args: { entries, onError: ChainErrors.values.STOP },
  }
  const outputBuffers = {
    results: { address: BigInt(RESULTS), length: 0x1000 },
    reason: { address: BigInt(REASON), length: 256 },
  }
  memory.set(encodeCall(chain, { inputAddresses: { entries: BigInt(CHAIN) }, outputBuffers }), MESSAGE)

  const hub = new TraceHub(() => 0)
  const records: TraceRecord[] = []
  hub.subscribe({ tag: '', abi: true, post: record => records.push(JSON.parse(JSON.stringify(record))) })
  const facts = () => ({ pid: 1, tid: 1, fd: 3, command: 'x', device: 'null0', dialect: 'object' as const })
  const accesses: Access[] = []
  const request = ioctlRequest(Interface.methods.chain.call)
  const watched = hub.watch(ioctlDialect(request).dialect, '', facts, () => [], accesses)
  dispatch(context, watched, [request, BigInt(MESSAGE)], recordingCaller(caller, accesses))

  const [record] = records
  const shown = callJson(record).chain as { args: { data?: string }; out?: { classes?: unknown[] }; error?: string }[]
  assert.equal(shown.length, 4)
  assert.equal(shown[0].args.data, 'ab'.repeat(DATA_BYTES))
  assert.equal(shown[1].out?.classes?.length, device.sharedTable.byName.size)
  assert.ok(!shown[2].args.data?.startsWith('abab'), 'what the previous entry wrote')
  assert.equal(shown[2].args.data?.length, 2 * DATA_BYTES, 'hexadecimal digits')
  assert.equal(shown[3].error, 'ENOENT')
  assert.ok(shown.every(entry => !('undecoded' in entry)))
  assert.match(
    callLine(record),
    /entries \[sink\.take\(object \d, data (ab){32}… \(600 bytes\)\), interface\.query\(\)/,
  )
  // --abi shows once each address that was read: the chain's message, its entries, and the data of the entries.
  assert.deepEqual(
    record.raw?.in.map(([address]) => Number(address)),
    [MESSAGE, CHAIN, DATA],
  )
})
