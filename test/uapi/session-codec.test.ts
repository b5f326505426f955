/*
 * The session codec.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { because, decodeReason } from '../../src/spec/reason.ts'
import {
  InstallKind,
  MappingKind,
  Messages,
  MessageType,
  SESSION_VERSION,
  SessionLimits,
} from '../../src/spec/session.ts'
import {
  messageBuffer,
  newReply,
  newRequest,
  type Reply,
  type Request,
  readReply,
  readRequest,
  writeCallReply,
  writeHello,
  writeHelloReply,
  writeOpenReply,
  writeRequest,
  writeTool,
  writeToolReply,
  writeTrace,
  writeWrittenReply,
} from '../../src/uapi/session-codec.ts'

const buffer = messageBuffer()
const u32 = fc.nat({ max: 2 ** 32 - 1 })
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const header = fc.record({
  serial: u32,
  context: u32,
  fd: fc.integer({ min: -1, max: 2 ** 20 }),
  pid: u32,
  tid: u32,
  stack: u32,
})
/** The fields of a header, except type and size. */
type HeaderFields = { serial: number; context: number; fd: number; pid: number; tid: number; stack: number }

const request = (length: number): Request => {
  const into = newRequest()
  assert.equal(readRequest(buffer, length, into), undefined)
  return into
}
const reply = (length: number): Reply => {
  const into = newReply()
  assert.equal(readReply(buffer, length, into), undefined)
  return into
}

test('requests survive a round trip', () => {
  fc.assert(
    fc.property(
      header,
      u32,
      u64,
      u64,
      fc.stringMatching(/^[ -~]{0,63}$/),
      (fields: HeaderFields, word, first, second, tag) => {
        assert.deepEqual(request(writeHello(buffer, fields, tag, word)), {
          ...newRequest(),
          ...fields,
          type: MessageType.HELLO,
          version: SESSION_VERSION,
          wants: word,
          tag,
        })
        assert.deepEqual(request(writeRequest(buffer, 'OPEN', fields, { node: word })), {
          ...newRequest(),
          ...fields,
          type: MessageType.OPEN,
          node: word,
        })
        assert.deepEqual(request(writeRequest(buffer, 'ATTACH', fields)), {
          ...newRequest(),
          ...fields,
          type: MessageType.ATTACH,
        })
        assert.deepEqual(request(writeRequest(buffer, 'IOCTL', fields, { request: word, argument: first })), {
          ...newRequest(),
          ...fields,
          type: MessageType.IOCTL,
          request: word,
          argument: first,
        })
        assert.deepEqual(
          request(writeRequest(buffer, 'MAP', fields, { offset: first, length: second, protection: word })),
          {
            ...newRequest(),
            ...fields,
            type: MessageType.MAP,
            offset: first,
            length: second,
            protection: word,
          },
        )
        assert.deepEqual(request(writeRequest(buffer, 'WRITE', fields, { buffer: first, length: second })), {
          ...newRequest(),
          ...fields,
          type: MessageType.WRITE,
          buffer: first,
          length: second,
        })
        assert.deepEqual(request(writeTool(buffer, fields, tag)), {
          ...newRequest(),
          ...fields,
          type: MessageType.TOOL,
          text: tag,
        })
      },
    ),
  )
})

test('replies survive a round trip', () => {
  const install = fc.record(
    {
      address: u64,
      width: fc.constantFrom(4 as const, 8 as const),
      kind: fc.constantFrom(...Object.values(InstallKind)),
    },
    { noNullPrototype: true },
  )
  const mapping = fc.record(
    {
      address: fc.maxSafeNat(),
      length: fc.maxSafeNat(),
      offset: fc.maxSafeNat(),
      context: fc.nat(),
      kind: fc.constantFrom(...Object.values(MappingKind)),
    },
    { noNullPrototype: true },
  )
  fc.assert(
    fc.property(
      fc.integer(),
      fc.array(install, { maxLength: SessionLimits.descriptors }),
      fc.array(mapping, { maxLength: 2 * SessionLimits.mappings }),
      fc.stringMatching(/^[ -~]{0,99}$/),
      (value, installs, mappings, reason) => {
        const refused = value < 0 ? because`${reason}` : undefined
        const requestHeader = { ...newRequest(), type: MessageType.IOCTL }
        const read = reply(writeCallReply(buffer, requestHeader, value, installs, refused, mappings))
        assert.deepEqual([read.ret, read.installs, read.mappings], [BigInt(value), installs, mappings])
        assert.equal(read.text, value < 0 ? JSON.stringify(reason) : '')
      },
    ),
  )
  const ret = fc.oneof(fc.integer(), fc.maxSafeInteger())
  fc.assert(
    fc.property(
      header,
      fc.nat({ max: 200 }),
      fc.nat(),
      ret,
      fc.array(install, { maxLength: SessionLimits.descriptors }),
      fc.stringMatching(/^\/[ -~]{0,238}$/),
      (fields: HeaderFields, error, number, value, installs, root) => {
        const requestHeader = { ...fields, type: MessageType.IOCTL }
        assert.deepEqual(reply(writeCallReply(buffer, requestHeader, value, installs)), {
          ...newReply(),
          ...requestHeader,
          type: MessageType.REPLY | MessageType.IOCTL,
          ret: BigInt(value),
          installCount: installs.length,
          installs,
        })
        const refused = reply(writeCallReply(buffer, requestHeader, -1 - error, installs, because`${root}`))
        assert.deepEqual(
          [refused.ret, decodeReason(refused.text).text(), refused.installs],
          [BigInt(-1 - error), root, installs],
        )
        const attach = { ...fields, type: MessageType.ATTACH }
        const opened = { error, context: number, rdev: number, inode: number * 2 ** 20 }
        assert.deepEqual(reply(writeOpenReply(buffer, attach, opened)), {
          ...newReply(),
          ...fields,
          type: MessageType.REPLY | MessageType.ATTACH,
          error,
          context: number,
          rdev: BigInt(number),
          inode: BigInt(opened.inode),
        })
        assert.deepEqual(reply(writeHelloReply(buffer, { ...fields, type: MessageType.HELLO }, { error, root })), {
          ...newReply(),
          ...fields,
          type: MessageType.REPLY | MessageType.HELLO,
          version: SESSION_VERSION,
          error,
          root,
        })
        const ranges = installs.map(({ address }) => ({
          address: Number(address & 0xfffff000n),
          length: number,
          isPeers: number % 2 === 1,
        }))
        const written = reply(writeWrittenReply(buffer, { ...fields, type: MessageType.WRITTEN }, ranges))
        assert.deepEqual([written.ret, written.ranges], [BigInt(ranges.length), ranges])
        const failed = reply(
          writeCallReply(buffer, { ...fields, type: MessageType.WRITTEN }, -1 - error, [], because`${root}`),
        )
        assert.deepEqual([failed.ret, decodeReason(failed.text).text()], [BigInt(-1 - error), root])
        assert.equal(reply(writeToolReply(buffer, requestHeader, `{"root":"${root}é"}`)).text, `{"root":"${root}é"}`)
        assert.equal(reply(writeTrace(buffer, root)).text, root)
      },
    ),
  )
})

test('a reply to OPEN has the new context, not the context of the request', () => {
  const requestHeader = { type: MessageType.OPEN, serial: 3, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  const length = writeOpenReply(buffer, requestHeader, { error: 0, context: 9, rdev: 59328, inode: 5 })
  assert.equal(reply(length).context, 9)
  assert.equal(reply(length).serial, 3)
})

test('a shorter text in a reused buffer has no old bytes; a root has at most 239 bytes', () => {
  const requestHeader = { type: MessageType.HELLO, serial: 1, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  writeHelloReply(buffer, requestHeader, { error: 0, root: `/${'x'.repeat(238)}` })
  assert.equal(reply(writeHelloReply(buffer, requestHeader, { error: 0, root: '/a' })).root, '/a')
  assert.throws(
    () => writeHelloReply(buffer, requestHeader, { error: 0, root: `/${'x'.repeat(239)}` }),
    /longer than 239 bytes/,
  )
})

test('a message with a text that is too long has length 0; too many descriptors are an internal error', () => {
  assert.equal(writeTrace(buffer, 'x'.repeat(SessionLimits.bytes)), 0)
  const requestHeader = { type: MessageType.IOCTL, serial: 1, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  const installs = Array.from({ length: SessionLimits.descriptors + 1 }, () => ({ address: 1n, width: 4 as const }))
  assert.throws(() => writeCallReply(buffer, requestHeader, 0, installs), /9 descriptors in one reply; at most 8/)
})

test('garbage is decoded, or refused with a message', () => {
  const into = newRequest()
  const answer = newReply()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200, size: 'max' }), fc.boolean(), (bytes, hasCorrectLength) => {
      const garbage = messageBuffer(new Uint8Array(256))
      garbage.bytes.set(bytes)
      if (hasCorrectLength && bytes.length >= 8) garbage.view.setUint32(4, bytes.length, true)
      for (const fault of [readRequest(garbage, bytes.length, into), readReply(garbage, bytes.length, answer)])
        assert.ok(fault === undefined || fault.length > 10)
    }),
  )
  const length = writeRequest(buffer, 'IOCTL', {}, { request: 1, argument: 2n })
  assert.match(readRequest(buffer, length - 1, into) ?? '', /47 bytes has length 48 in its header/)
  buffer.view.setUint32(4, length - 8, true)
  assert.match(readRequest(buffer, length - 8, into) ?? '', /type 4 has 40 bytes; 48 are right/)
  assert.match(readRequest(buffer, 8, into) ?? '', /8 bytes; the header alone has 32/)
  assert.match(
    readRequest(buffer, writeCallReply(buffer, { ...into, type: MessageType.IOCTL }, 0), into) ?? '',
    /type 32772 is not a request/,
  )
  assert.match(readReply(buffer, writeRequest(buffer, 'OPEN', {}, { node: 0 }), answer) ?? '', /type 2 is not a reply/)
})

test('the header has the size of its C struct', () => {
  assert.equal(Messages.header.size, 32)
  assert.equal(writeRequest(buffer, 'ATTACH', {}), 32)
})
