/*
 * Codec of RDMA_NLDEV messages, with recordings of Linux and iproute2 and with random bytes.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { CallError } from '../../../src/spec/errno.ts'
import { NldevCommands, NlmsgFlags, NlmsgType, nldevType } from '../../../src/spec/linux/nldev.ts'
import { decodeAttributes, type Entries, encodeAttributes, readAttributes } from '../../../src/uapi/nldev/attributes.ts'
import {
  MESSAGE_HEADER,
  type Message,
  readMessages,
  writeAcknowledgement,
  writeDone,
  writeMessage,
} from '../../../src/uapi/nldev/messages.ts'
import { type Recorded, recorded } from './recorded.ts'

const logs = ['nldev-6.1.abilog.gz', 'nldev-6.12.abilog.gz', 'monitor-6.12.abilog.gz']
/** Values of the argument `strict` of readAttributes. */
const [STRICT, LIBERAL] = [true, false]
const isControl = ({ type }: Message): boolean => type < NlmsgType.FIRST

describe('messages that Linux sent and received', () => {
  for (const name of logs)
    it(`survive decoding and encoding: ${name}`, () => {
      const messages = recorded(name)
      assert.ok(messages.length > 5)
      for (const message of messages.filter(one => !isControl(one))) {
        const entries = decodeAttributes(message.body)
        assert.deepEqual(encodeAttributes(entries), new Uint8Array(message.body), JSON.stringify(message.type))
        assert.deepEqual(writeMessage(message), new Uint8Array(message.bytes))
      }
    })

  it('get the acknowledgements and DONE messages of Linux, if they are requests', () => {
    for (const name of logs) {
      const requests = new Map<string, Recorded>()
      for (const message of recorded(name)) {
        // iproute2's sequence numbers are seconds. An answer belongs to the last request with the same number.
        if (message.sent) requests.set(String(message.sequence), message)
        const request = requests.get(String(message.sequence))
        if (message.sent || request === undefined) continue
        const errno = -new DataView(message.body.buffer, message.body.byteOffset).getInt32(0, true)
        if (message.type === NlmsgType.DONE)
          assert.deepEqual(writeDone(request, message.port, errno), new Uint8Array(message.bytes))
        // A longer body has Linux's text about a refusal (NETLINK_EXT_ACK).
        const errorBytes = 4 + MESSAGE_HEADER
        if (message.type === NlmsgType.ERROR && message.body.length === errorBytes)
          assert.deepEqual(
            writeAcknowledgement(request, message.port, { errno, isCapped: true }),
            new Uint8Array(message.bytes),
          )
      }
    }
  })

  it('have only commands and attributes of the tables, if they are requests', () => {
    const known = new Set(Object.values(NldevCommands).map(({ number }) => nldevType(number)))
    for (const message of logs.slice(0, 2).flatMap(recorded)) {
      if (isControl(message) || !message.sent) continue
      assert.ok(known.has(message.type), String(message.type))
      try {
        readAttributes(message.body, STRICT)
      } catch (error) {
        assert.match(String(error), /DEV_NAME has more than 64 characters/, 'a recorded mistake')
      }
    }
  })
})

describe('requests', () => {
  it('that Linux refuses are refused with a message', () => {
    const read = (entries: Entries) => readAttributes(encodeAttributes(entries), STRICT)
    assert.deepEqual(
      read([
        ['DEV_INDEX', 7],
        ['DEV_NAME', 'rxe0'],
      ]),
      { DEV_INDEX: 7, DEV_NAME: 'rxe0' },
    )
    assert.deepEqual(
      read([
        ['DEV_INDEX', 7],
        ['DEV_INDEX', 8],
      ]),
      { DEV_INDEX: 8 },
      'the last one counts',
    )
    // Encoded attributes: u16 length, u16 type, then the value.
    for (const [hex, strict, message] of [
      ['0600010000000000', LIBERAL, /DEV_INDEX has 2 bytes; 4 are right/],
      ['0c0001000000000000000000', STRICT, /DEV_INDEX has 8 bytes; 4 are right/],
      ['08000200ffffffff', LIBERAL, /DEV_NAME is a text without NUL/],
      ['08002f01ffffffff', STRICT, /attribute 303 is unknown/],
      ['0300010000000000', STRICT, /8 bytes at the end are not an attribute/],
      ['ffff010000000000', STRICT, /8 bytes at the end/],
    ] as const)
      assert.throws(() => readAttributes(new Uint8Array(Buffer.from(hex, 'hex')), strict), message)
    assert.throws(() => read([['LINK_TYPE', 'x'.repeat(17)]]), /LINK_TYPE has more than 16 characters/)
    const length = 4 + 68
    const nameWithTail = Uint8Array.of(length, 0, 2, 0, ...Buffer.from('a\0'.padEnd(68, 'b')))
    assert.throws(
      () => readAttributes(nameWithTail, LIBERAL),
      { code: 'ERANGE' },
      'a NUL within the maximum, bytes beyond it',
    )
    // A liberal reader skips unknown attributes, and accepts longer ones.
    assert.deepEqual(readAttributes(new Uint8Array(Buffer.from('08002f01ffffffff', 'hex')), LIBERAL), {})
    const longer = new Uint8Array(Buffer.from('0c0001000700000000000000', 'hex'))
    assert.deepEqual(readAttributes(longer, LIBERAL), { DEV_INDEX: 7 })
  })

  it('of random bytes are read or refused, and no decoded message exceeds the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200, size: 'max' }), fc.boolean(), (bytes, strict) => {
        try {
          readAttributes(bytes, strict)
        } catch (error) {
          if (!(error instanceof CallError)) throw error
        }
        decodeAttributes(bytes)
        for (const { body } of readMessages(bytes)) assert.ok(body.length <= bytes.length - MESSAGE_HEADER)
      }),
    )
  })

  it('and answers survive a round trip', () => {
    const leaf: fc.Arbitrary<Entries[number]> = fc.oneof(
      fc.tuple(fc.constant('DEV_INDEX' as const), fc.nat(0xffffffff)),
      fc.tuple(fc.constant('CAP_FLAGS' as const), fc.bigInt(0n, 2n ** 64n - 1n)),
      fc.tuple(fc.constant('DEV_NAME' as const), fc.stringMatching(/^[a-z0-9_]{0,40}$/)),
      fc.tuple(fc.constant('DEV_NODE_TYPE' as const), fc.nat(255)),
    )
    const entries = fc.array(leaf, { maxLength: 5 })
    const nested = fc.oneof(
      leaf,
      fc.tuple(fc.constant('RES_QP' as const), entries),
      fc.tuple(
        fc.constant('STAT_HWCOUNTERS' as const),
        entries.map(flagged => ({ flagged })),
      ),
    )
    fc.assert(
      fc.property(fc.array(nested, { maxLength: 5 }), all =>
        assert.deepEqual(decodeAttributes(encodeAttributes(all)), all),
      ),
    )
  })
})

it('an acknowledgement of success repeats only the header of the request, with and without NETLINK_CAP_ACK', () => {
  const request = { type: 1, flags: 0, sequence: 2, port: 3, body: new Uint8Array(8) }
  for (const isCapped of [false, true]) {
    const [{ flags, body }] = readMessages(writeAcknowledgement(request, 4, { errno: 0, isCapped }))
    assert.deepEqual([flags, body.length], [NlmsgFlags.CAPPED, 4 + MESSAGE_HEADER])
  }
})
