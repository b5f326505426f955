/*
 * A device without verbs: the ctx driver assigns contexts, as hfi1 does, and moves messages through memory that their
 * owners map. One context is used through the driver's own descriptor (its ops interface), the other through the
 * driver's private class.
 *
 *   node dist/examples/ctx-messages.js
 */

import { createNetwork, open } from 'userdma'
import { createCtxDevice } from 'userdma/drivers'
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
  type RecordOf,
  recordSize,
} from 'userdma/spec'
import { encodeRecords, readRecord, viewOf } from 'userdma/uapi'

type Info = RecordOf<typeof CtxInfo>
const shape = { eagerCount: 16, eagerBytes: 1024, expectedCount: 0, expectedBytes: 64, jobKey: 7 }
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** The messages in a context's eager queue, oldest first; consumes them. */
function* messages(memory: Uint8Array, info: Info) {
  const words = new Int32Array(memory.buffer, memory.byteOffset, 3)
  for (; words[CtxWord.HEADER_CONSUMER] !== words[CtxWord.HEADER_PRODUCER]; words[CtxWord.HEADER_CONSUMER]++) {
    const at = info.headersAt + (words[CtxWord.HEADER_CONSUMER] % info.headerCount) * CTX_HEADER_BYTES
    const header = readRecord(viewOf(memory), at, CtxHeader, 'header') as RecordOf<typeof CtxHeader>
    const start = info.eagerAt + header.slot * info.eagerBytes
    yield { ...header, text: text(memory.subarray(start, start + header.length)) }
    words[CtxWord.EAGER_CONSUMER]++
  }
}
const show = (memory: Uint8Array, info: Info): void => {
  for (const { source, tag, text } of messages(memory, info))
    console.log(`context ${info.number} got "${text}", tag ${tag}, from context ${source}`)
}

const network = createNetwork()
network.addDevice(core => createCtxDevice(core, 'ctx0'))
const one = await open({ network, device: 'ctx0' })
const other = await open({ network, device: 'ctx0' })

// The receiver: a context assigned and mapped through the driver's own descriptor.
const ops = one.driverOps(CtxInterface.V2, CtxInterface.V1)
ops.ioctl(CtxIoctl.ASSIGN, encodeRecords(CtxAssign, [{ ...shape, handle: 0 }]))
const answer = new Uint8Array(recordSize(CtxInfo))
ops.ioctl(CtxIoctl.INFO, answer)
const info = readRecord(viewOf(answer), 0, CtxInfo, 'info') as Info
const memory = ops.map(info.bytes)

// The sender: a context of the private class, used through the object model. The receiver is notified.
const sender = other.create(CtxContext, shape)
ops.ioctl(CtxIoctl.ARM)
for (const [i, word] of ['contexts', 'without', 'verbs'].entries())
  sender.send({ to: info.number, tag: BigInt(i), data: bytes(word) })
await ops.wait()
show(memory, info)

// The reply, by writing a header and the message to the descriptor. A context of the class is mapped through a
// descriptor too, which must be attached to it.
const to = sender.made.info
const head = encodeRecords(CtxSend, [{ to: to.number, flags: 0, slot: 0, offset: 0, tag: 9n }])
ops.write(Uint8Array.of(...head, ...bytes('answer')))
const theirs = other.driverOps(CtxInterface.V2)
theirs.ioctl(CtxIoctl.USE, Uint8Array.of(sender.handle, 0, 0, 0))
show(theirs.map(to.bytes), to)

await one.close()
await other.close()
