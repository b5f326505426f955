/*
 * A device without verbs: the ctx driver assigns contexts, as hfi1 does, and moves messages through memory that their
 * owners map. One context is used through the driver's own descriptor (its ops interface), the other through the
 * driver's private class.
 *
 *   node dist/examples/ctx-messages.js
 */
import {
  type Caller,
  type Context,
  createCore,
  createLocalSpace,
  type FdObject,
  invokeNow,
  type MappedPiece,
  openContext,
  opsIoctl,
  opsMap,
  opsWrite,
} from '../src/core/index.ts'
import { createCtxDevice } from '../src/drivers/ctx/device.ts'
import { Classes } from '../src/spec/classes.ts'
import {
  CTX_HEADER_BYTES,
  CtxAssign,
  CtxContext,
  CtxHeader,
  CtxInfo,
  CtxInterface,
  CtxIoctl,
  CtxSend,
  CtxWord,
} from '../src/spec/drivers/ctx.ts'
import type { RecordOf } from '../src/spec/schema.ts'
import { encodeRecords, readRecord, viewOf } from '../src/uapi/scalar.ts'

/** A caller in this process: addresses are places in `bytes`. */
const bytes = new Uint8Array(1 << 16)
const caller: Caller = {
  memory: createLocalSpace(),
  copyIn: (address, length) => bytes.slice(Number(address), Number(address) + length),
  copyOut: (address, from) => bytes.set(from, Number(address)),
  descriptor: number => number,
}

const shape = { eagerCount: 16, eagerBytes: 1024, expectedCount: 0, expectedBytes: 64, jobKey: 7 }
const core = createCore()
const device = createCtxDevice(core, 'ctx0')

/** Asks the driver for its interface by name: a descriptor with ioctl, write and memory of its own. */
const openOps = (context: Context): FdObject => {
  const name = new TextEncoder().encode(CtxInterface.V2)
  const made = invokeNow(context, Classes.driver_ops, 'create', 0, { name }, caller)
  return core.descriptors.get(made.descriptors?.[0].object as number) as FdObject
}
const ioctl = (ops: FdObject, request: number, argument: Uint8Array): Uint8Array => {
  bytes.set(argument)
  opsIoctl(ops, caller, request, 0n)
  return bytes.slice(0, argument.length)
}

/** What lies in a context's eager queue, oldest first; it is consumed. */
function* messages(piece: MappedPiece, info: RecordOf<typeof CtxInfo>) {
  const words = piece.words.subarray(piece.at >> 2)
  for (; words[CtxWord.HEADER_CONSUMER] !== words[CtxWord.HEADER_PRODUCER]; words[CtxWord.HEADER_CONSUMER]++) {
    const at = piece.at + info.headersAt + (words[CtxWord.HEADER_CONSUMER] % info.headerCount) * CTX_HEADER_BYTES
    const header = readRecord(viewOf(piece.bytes), at, CtxHeader, 'header') as RecordOf<typeof CtxHeader>
    const start = piece.at + info.eagerAt + header.slot * info.eagerBytes
    yield { ...header, text: new TextDecoder().decode(piece.bytes.subarray(start, start + header.length)) }
    words[CtxWord.EAGER_CONSUMER]++
  }
}

// The receiver: a context assigned and mapped through the descriptor.
const ops = openOps(openContext(device, { opened: true }))
ioctl(ops, CtxIoctl.ASSIGN, encodeRecords(CtxAssign, [{ ...shape, handle: 0 }]))
const info = readRecord(viewOf(ioctl(ops, CtxIoctl.INFO, new Uint8Array(56))), 0, CtxInfo, 'info') as RecordOf<
  typeof CtxInfo
>
const memory = opsMap(ops, caller, 0, info.bytes, true)

// The sender: a context by the private class, in the words of the object model.
const other = openContext(device, { opened: true })
const { object: sender = 0, out } = invokeNow(other, CtxContext, 'create', 0, shape, caller)
for (const [i, word] of ['contexts', 'without', 'verbs'].entries()) {
  const data = new TextEncoder().encode(word)
  invokeNow(other, CtxContext, 'send', sender, { to: info.number, tag: BigInt(i), data }, caller)
}

const show = (piece: MappedPiece, of: RecordOf<typeof CtxInfo>): void => {
  for (const { source, tag, text } of messages(piece, of))
    console.log(`context ${of.number} got "${text}", tag ${tag}, from context ${source}`)
}
show(memory, info)

// And back, as a program writes to its descriptor: a head and the message. A context of the class is mapped through a
// descriptor too, which is told to use it.
const head = encodeRecords(CtxSend, [{ to: out.info.number, flags: 0, slot: 0, offset: 0, tag: 9n }])
bytes.set(head)
bytes.set(new TextEncoder().encode('answer'), head.length)
opsWrite(ops, caller, 0n, head.length + 'answer'.length)
const theirs = openOps(other)
ioctl(theirs, CtxIoctl.USE, Uint8Array.of(sender, 0, 0, 0))
show(opsMap(theirs, caller, 0, out.info.bytes, true), out.info)
