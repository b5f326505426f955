/*
 * A NETLINK_RDMA socket of a daemon, for tests.
 */
import assert from 'node:assert/strict'
import { EAGAIN } from '../../../src/host/errno.ts'
import { recvBytes, sendBytes } from '../../../src/host/net/sockets.ts'
import {
  type NldevCommandName,
  NldevCommands,
  NlmsgFlags,
  NlmsgType,
  nldevType,
} from '../../../src/spec/linux/nldev.ts'
import { NetlinkOperation } from '../../../src/spec/session.ts'
import { decodeAttributes, type Entries, encodeAttributes } from '../../../src/uapi/nldev/attributes.ts'
import { type Message, readMessages, writeMessage } from '../../../src/uapi/nldev/messages.ts'
import type { Client } from '../client.ts'

export interface NetlinkTestSocket {
  readonly fd: number
  /** `extra` and `argument`: see NetlinkOperation. Returns the result of the operation, or -errno. */
  call(operation: keyof typeof NetlinkOperation, extra?: number, argument?: bigint): Promise<number>
  /** Sends a datagram through the session; returns its length, or -errno. */
  send(datagram: Uint8Array): Promise<number>
  /** Sends a datagram on the descriptor itself; returns its length, or -errno. */
  sendDirectly(datagram: Uint8Array): number
  /** Returns and removes the received messages. */
  received(): Message[]
  /** Sends a request, and returns the whole answer. */
  request(command: NldevCommandName, attributes?: Entries, flags?: number): Promise<Answer>
}

export interface Answer {
  /** 0, or the errno of a refusal or of an incomplete dump. */
  readonly errno: number
  /** Attributes of the messages except NLMSG_ERROR and NLMSG_DONE. */
  readonly entries: Entries[]
}

const SOCK_RAW = 3
const BUFFER = new Uint8Array(65536)

export const requestOf = (command: NldevCommandName, attributes: Entries = [], flags = 0, sequence = 7): Uint8Array =>
  writeMessage({
    type: nldevType(NldevCommands[command].number),
    flags: NlmsgFlags.REQUEST | flags,
    sequence,
    port: 0,
    body: encodeAttributes(attributes),
  })

/** Errno of NLMSG_ERROR and NLMSG_DONE. */
export const errnoOf = ({ body }: Message): number =>
  Math.abs(new DataView(body.buffer, body.byteOffset, body.byteLength).getInt32(0, true))

const endsAnswer = ({ type, flags }: Message): boolean => type < NlmsgType.FIRST || !(flags & NlmsgFlags.MULTI)

/** Opens a socket through the session of `client`, which must have sent HELLO. */
export const openTestSocket = async (client: Client): Promise<NetlinkTestSocket> => {
  const { ret, descriptors } = await client.netlink(-1, NetlinkOperation.OPEN, SOCK_RAW, 0n)
  assert.equal(ret, 0n)
  assert.equal(descriptors.length, 1)
  client.keep(descriptors)
  const [fd] = descriptors
  const socket: NetlinkTestSocket = {
    fd,
    call: async (operation, extra = 0, argument = 0n) =>
      Number((await client.netlink(fd, NetlinkOperation[operation], extra, argument)).ret),
    send(datagram) {
      client.memory.bytes.set(datagram)
      return socket.call('SEND', datagram.length, BigInt(client.memory.address))
    },
    sendDirectly: datagram => sendBytes(fd, datagram),
    received() {
      const messages: Message[] = []
      for (;;) {
        const length = recvBytes(fd, BUFFER)
        if (length === -EAGAIN) return messages
        assert.ok(length > 0, `recv: ${length}`)
        messages.push(...readMessages(BUFFER.slice(0, length)))
      }
    },
    async request(command, attributes = [], flags = 0) {
      const request = requestOf(command, attributes, flags)
      assert.equal(await socket.send(request), request.length)
      const messages = socket.received()
      // A dump continues while the program reads.
      while (messages.length === 0 || !endsAnswer(messages[messages.length - 1])) {
        await new Promise(setImmediate)
        messages.push(...socket.received())
      }
      const control = messages.filter(({ type }) => type < NlmsgType.FIRST)
      return {
        errno: control.reduce((errno, message) => errno || errnoOf(message), 0),
        entries: messages.filter(({ type }) => type >= NlmsgType.FIRST).map(({ body }) => decodeAttributes(body)),
      }
    },
  }
  return socket
}

/**
 * The value of an attribute; undefined if it is absent. The value of a nested attribute, with or without NLA_F_NESTED,
 * is the list of its attributes.
 */
export const attributeOf = (entries: Entries, name: Entries[number][0]): unknown => {
  const value = entries.find(([found]) => found === name)?.[1]
  return typeof value === 'object' && 'flagged' in value ? value.flagged : value
}
