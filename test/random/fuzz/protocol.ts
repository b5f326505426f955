/*
 * Fuzz targets for data between a daemon and its clients: session messages, and devices' descriptions
 * (`interface.query`). Decoded data must be equal after encoding and decoding again; invalid data must be refused with
 * a message.
 */
import assert from 'node:assert/strict'
import { Interface } from '../../../src/spec/classes/device/interface.ts'
import { classes } from '../../../src/spec/classes.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { MessageType } from '../../../src/spec/session.ts'
import { type Description, declare, describe } from '../../../src/uapi/object/description.ts'
import { payloadOf, valueIn } from '../../../src/uapi/object/format.ts'
import * as codec from '../../../src/uapi/session-codec.ts'
import type { Target } from './fuzzer.ts'

// ---- messages ----

const { OPEN, ATTACH, IOCTL, WRITE, MAP, REFRESH, REPLY, TRACE } = MessageType

/** Encodes a decoded request again; undefined for a type that is not listed here. */
const encodeAgain = (to: codec.MessageBuffer, request: codec.Request): number | undefined => {
  const { type } = request
  if (type === OPEN) return codec.writeRequest(to, 'OPEN', request, { node: request.node, wants: request.wants })
  if (type === ATTACH) return codec.writeRequest(to, 'ATTACH', request)
  if (type === IOCTL)
    return codec.writeRequest(to, 'IOCTL', request, { request: request.request, argument: request.argument })
  if (type === WRITE)
    return codec.writeRequest(to, 'WRITE', request, { buffer: request.buffer, length: request.length })
  if (type === MAP) {
    const { offset, length, protection } = request
    return codec.writeRequest(to, 'MAP', request, { offset, length, protection })
  }
  if (type === REFRESH) return codec.writeRequest(to, 'REFRESH', request)
  return undefined
}

const buffer = codec.messageBuffer()
/** The buffer for requests that are encoded again. */
const secondBuffer = codec.messageBuffer()

const encoded = (write: (to: codec.MessageBuffer) => number): Uint8Array => buffer.bytes.slice(0, write(buffer))
const header = { type: IOCTL, serial: 7, context: 1, fd: 3, pid: 4, tid: 5, stack: 0 }

const requests = (): Uint8Array[] => [
  encoded(to => codec.writeHello(to, header, 'tag', 1)),
  encoded(to => codec.writeRequest(to, 'OPEN', header, { node: 0 })),
  encoded(to => codec.writeRequest(to, 'ATTACH', header)),
  encoded(to => codec.writeRequest(to, 'IOCTL', header, { request: 0xc0181b01, argument: 0x7fff_0000_1000n })),
  encoded(to => codec.writeRequest(to, 'WRITE', header, { buffer: 0x1000n, length: 24n })),
  encoded(to => codec.writeRequest(to, 'MAP', header, { offset: 4096n, length: 8192n, protection: 3 })),
  encoded(to => codec.writeRequest(to, 'REFRESH', header)),
  encoded(to => codec.writeTool(to, header, '{"kind":"stat"}')),
]
const replies = (): Uint8Array[] => [
  encoded(to => codec.writeHelloReply(to, header, { error: 0, root: '/tmp/x.tree' })),
  encoded(to => codec.writeOpenReply(to, { ...header, type: OPEN }, { error: 0, context: 2, rdev: 3, inode: 4 })),
  encoded(to => codec.writeCallReply(to, header, 0, [{ address: 0x1000n, width: 4 }])),
  encoded(to => codec.writeCallReply(to, header, -22, [], because`a reason`)),
  encoded(to => codec.writeToolReply(to, header, '{}')),
  encoded(to => codec.writeTrace(to, '{}')),
]

/** `fault` must be a sentence with which the codec refuses bytes. */
const assertMessage = (fault: string): void => assert.match(fault, /^(a|message) .+/)

const sessionTarget: Target = {
  name: 'session',
  seeds: () => [...requests(), ...replies()],
  run(bytes, feature) {
    buffer.bytes.fill(0xee)
    buffer.bytes.set(bytes)
    const request: codec.Request = codec.newRequest()
    const fault = codec.readRequest(buffer, bytes.length, request)
    // features: request types, from 1000 on lengths of refusals, from 2000 on reply types
    feature(fault === undefined ? request.type : 1000 + fault.length)
    if (fault !== undefined) assertMessage(fault)
    else {
      const length = encodeAgain(secondBuffer, request)
      if (length !== undefined) {
        assert.equal(length, bytes.length)
        const second: codec.Request = codec.newRequest()
        assert.equal(codec.readRequest(secondBuffer, bytes.length, second), undefined)
        assert.deepEqual(second, request)
      }
      assert.ok(request.text.length <= bytes.length && request.tag.length <= bytes.length)
    }
    const reply: codec.Reply = codec.newReply()
    const replyFault = codec.readReply(buffer, bytes.length, reply)
    if (replyFault !== undefined) assertMessage(replyFault)
    else {
      feature(2000 + (reply.type & 0xff))
      assert.ok(reply.type === TRACE || (reply.type & REPLY) !== 0)
      assert.ok(reply.installs.length * 16 <= bytes.length && reply.text.length <= bytes.length)
    }
  },
}

// ---- descriptions ----

const LISTS = Object.entries(Interface.methods.query.out)

/** The lists of a description in their order, each after its length in bytes (u32). */
const pack = (description: Description): Uint8Array =>
  new Uint8Array(
    Buffer.concat(
      LISTS.flatMap(([name, { type }]) => {
        const payload = payloadOf(type, description[name as 'names'])
        const length = new Uint8Array(4)
        new DataView(length.buffer).setUint32(0, payload.length, true)
        return [length, payload]
      }),
    ),
  )

/** The inverse of `pack`, for any bytes. */
const unpack = (bytes: Uint8Array): Description => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let offset = 0
  return Object.fromEntries(
    LISTS.map(([name, { type }]) => {
      const length = offset + 4 <= bytes.length ? view.getUint32(offset, true) : 0
      const payload = bytes.subarray(offset + 4, offset + 4 + length)
      offset += 4 + length
      return [name, valueIn(name, type, new DataView(payload.buffer, payload.byteOffset), 0, payload.length)]
    }),
  ) as unknown as Description
}

/** Lists of one small class each. */
const smallClasses = ['pd', 'xrcd', 'mw', 'async_fd', 'counters'].map(name => classes.filter(cls => cls.name === name))

const descriptionTarget: Target = {
  name: 'description',
  seeds: () => smallClasses.map(declared => pack(describe(declared))),
  run(bytes, feature) {
    try {
      const declared = declare(unpack(bytes))
      feature(declared.length)
      assert.deepEqual(declare(describe(declared)), declared)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
      assert.equal(error.code, 'EINVAL')
      assert.ok(error.message.length > 20)
      feature(100 + (error.message.length & 0xff))
    }
  },
}

export const protocolTargets: readonly Target[] = [sessionTarget, descriptionTarget]
