/*
 * A device without verbs. Like Linux's hfi1, the ctx driver assigns contexts, and delivers messages into queues that
 * the owner of a context maps. One context is used through ioctl, write and mmap of the driver's descriptor, the other
 * through the driver's private class `ctx_context`.
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
/** Size of the queues of a context, and the key that contexts of one job share. */
const contextOptions = { eagerCount: 16, eagerBytes: 1024, expectedCount: 0, expectedBytes: 64, jobKey: 7 }
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

/** Consumes and returns the messages of a context's eager queue, oldest first. */
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
const receiverDevice = await open({ network, device: 'ctx0' })
const senderDevice = await open({ network, device: 'ctx0' })

// The receiver is a context that is assigned and mapped through the driver's descriptor.
const ops = receiverDevice.driverOps(CtxInterface.V2, CtxInterface.V1)
ops.ioctl(CtxIoctl.ASSIGN, encodeRecords(CtxAssign, [{ ...contextOptions, handle: 0 }]))
const answer = new Uint8Array(recordSize(CtxInfo))
ops.ioctl(CtxIoctl.INFO, answer)
const info = readRecord(viewOf(answer), 0, CtxInfo, 'info') as Info
const memory = ops.map(info.bytes)

// The sender is an object of the private class. ARM requests a record for the next message; `wait` waits for the
// record.
const sender = senderDevice.create(CtxContext, contextOptions)
ops.ioctl(CtxIoctl.ARM)
for (const [i, word] of ['contexts', 'without', 'verbs'].entries())
  sender.send({ destination: info.number, tag: BigInt(i), data: bytes(word) })
await ops.wait()
show(memory, info)

// The reply is a header and the message, written to the descriptor.
const senderInfo = sender.createOutput.info
const header = encodeRecords(CtxSend, [{ destination: senderInfo.number, flags: 0, slot: 0, offset: 0, tag: 9n }])
ops.write(Uint8Array.of(...header, ...bytes('answer')))
// The object's memory is mapped through another descriptor. USE attaches the descriptor to the object.
const senderOps = senderDevice.driverOps(CtxInterface.V2)
senderOps.ioctl(CtxIoctl.USE, Uint8Array.of(sender.handle, 0, 0, 0))
show(senderOps.map(senderInfo.bytes), senderInfo)

await receiverDevice.close()
await senderDevice.close()
