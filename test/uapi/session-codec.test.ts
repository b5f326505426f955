/*
 * The session codec: each side decodes what the other encodes, and anything else is refused.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InstallKind, Messages, MessageType, SESSION_VERSION, SessionLimits } from '../../src/spec/session.ts'
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
type From = { serial: number; context: number; fd: number; pid: number; tid: number; stack: number }

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
    fc.property(header, u32, u64, u64, fc.stringMatching(/^[ -~]{0,63}$/), (from: From, word, first, second, tag) => {
      assert.deepEqual(request(writeHello(buffer, from, tag, word)), {
        ...newRequest(),
        ...from,
        type: MessageType.HELLO,
        version: SESSION_VERSION,
        wants: word,
        tag,
      })
      assert.deepEqual(request(writeRequest(buffer, 'OPEN', from, { node: word })), {
        ...newRequest(),
        ...from,
        type: MessageType.OPEN,
        node: word,
      })
      assert.deepEqual(request(writeRequest(buffer, 'ATTACH', from)), {
        ...newRequest(),
        ...from,
        type: MessageType.ATTACH,
      })
      assert.deepEqual(request(writeRequest(buffer, 'IOCTL', from, { request: word, argument: first })), {
        ...newRequest(),
        ...from,
        type: MessageType.IOCTL,
        request: word,
        argument: first,
      })
      assert.deepEqual(
        request(writeRequest(buffer, 'MAP', from, { offset: first, length: second, protection: word })),
        {
          ...newRequest(),
          ...from,
          type: MessageType.MAP,
          offset: first,
          length: second,
          protection: word,
        },
      )
      assert.deepEqual(request(writeRequest(buffer, 'WRITE', from, { buffer: first, length: second })), {
        ...newRequest(),
        ...from,
        type: MessageType.WRITE,
        buffer: first,
        length: second,
      })
      assert.deepEqual(request(writeTool(buffer, from, tag)), {
        ...newRequest(),
        ...from,
        type: MessageType.TOOL,
        text: tag,
      })
    }),
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
  const ret = fc.oneof(fc.integer(), fc.maxSafeInteger())
  fc.assert(
    fc.property(
      header,
      fc.nat({ max: 200 }),
      fc.nat(),
      ret,
      fc.array(install, { maxLength: SessionLimits.descriptors }),
      fc.stringMatching(/^\/[ -~]{0,238}$/),
      (from: From, error, number, value, installs, root) => {
        const to = { ...from, type: MessageType.IOCTL }
        assert.deepEqual(reply(writeCallReply(buffer, to, value, installs)), {
          ...newReply(),
          ...to,
          type: MessageType.REPLY | MessageType.IOCTL,
          ret: BigInt(value),
          installCount: installs.length,
          installs,
        })
        const refused = reply(writeCallReply(buffer, to, -1 - error, installs, root))
        assert.deepEqual([refused.ret, refused.text, refused.installs], [BigInt(-1 - error), root, installs])
        const attach = { ...from, type: MessageType.ATTACH }
        const opened = { error, context: number, rdev: number, inode: number * 2 ** 20 }
        assert.deepEqual(reply(writeOpenReply(buffer, attach, opened)), {
          ...newReply(),
          ...from,
          type: MessageType.REPLY | MessageType.ATTACH,
          error,
          context: number,
          rdev: BigInt(number),
          inode: BigInt(opened.inode),
        })
        assert.deepEqual(reply(writeHelloReply(buffer, { ...from, type: MessageType.HELLO }, { error, root })), {
          ...newReply(),
          ...from,
          type: MessageType.REPLY | MessageType.HELLO,
          version: SESSION_VERSION,
          error,
          root,
        })
        const ranges = installs.map(({ address }) => ({ address: Number(address & 0xfffff000n), length: number }))
        const written = reply(writeWrittenReply(buffer, { ...from, type: MessageType.WRITTEN }, ranges))
        assert.deepEqual([written.ret, written.ranges], [BigInt(ranges.length), ranges])
        const failed = reply(writeCallReply(buffer, { ...from, type: MessageType.WRITTEN }, -1 - error, [], root))
        assert.deepEqual([failed.ret, failed.text], [BigInt(-1 - error), root])
        assert.equal(reply(writeToolReply(buffer, to, `{"root":"${root}é"}`)).text, `{"root":"${root}é"}`)
        assert.equal(reply(writeTrace(buffer, root)).text, root)
      },
    ),
  )
})

test('a reply to OPEN carries the new context, whatever context the request named', () => {
  const to = { type: MessageType.OPEN, serial: 3, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  const length = writeOpenReply(buffer, to, { error: 0, context: 9, rdev: 59328, inode: 5 })
  assert.equal(reply(length).context, 9)
  assert.equal(reply(length).serial, 3)
})

test('a reused buffer leaves no bytes in a shorter text', () => {
  const to = { type: MessageType.HELLO, serial: 1, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  writeHelloReply(buffer, to, { error: 0, root: `/${'x'.repeat(238)}` })
  assert.equal(reply(writeHelloReply(buffer, to, { error: 0, root: '/a' })).root, '/a')
  assert.throws(() => writeHelloReply(buffer, to, { error: 0, root: `/${'x'.repeat(239)}` }), /longer than 239 bytes/)
})

test('a text too long for one message has length 0, too many descriptors are an internal error', () => {
  assert.equal(writeTrace(buffer, 'x'.repeat(SessionLimits.bytes)), 0)
  const to = { type: MessageType.IOCTL, serial: 1, context: 0, fd: -1, pid: 1, tid: 1, stack: 0 }
  const installs = Array.from({ length: 9 }, () => ({ address: 1n, width: 4 as const }))
  assert.throws(() => writeCallReply(buffer, to, 0, installs), /9 descriptors in one reply; at most 8/)
})

test('garbage is refused with a message and never throws', () => {
  const into = newRequest()
  const answer = newReply()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, correctLength) => {
      const garbage = messageBuffer(new Uint8Array(256))
      garbage.bytes.set(bytes)
      if (correctLength && bytes.length >= 8) garbage.view.setUint32(4, bytes.length, true)
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
    readRequest(buffer, writeCallReply(buffer, { ...into, type: 4 }, 0), into) ?? '',
    /type 32772 is not a request/,
  )
  assert.match(readReply(buffer, writeRequest(buffer, 'OPEN', {}, { node: 0 }), answer) ?? '', /type 2 is not a reply/)
})

test('the header has the size of its C struct', () => {
  assert.equal(Messages.header.size, 32)
  assert.equal(writeRequest(buffer, 'ATTACH', {}), 32)
})
