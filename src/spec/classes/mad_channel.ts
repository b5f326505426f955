/*
 * Class `mad_channel`: a descriptor on which management datagrams of a device's port arrive (Linux: an opened umad
 * file). It is readable while a message waits, which `receive` takes: a datagram of 256 bytes, or a longer message that
 * came in segments. It lives by its descriptor: closing it ends the agents that report to it.
 */
import {
  blob,
  bytes,
  CREATE_FD,
  DESTROY,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  u16,
  u32,
} from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'
import { QpAddress } from './qp.ts'

/** Maximum agents of a channel, as of a umad file on Linux. */
export const MAD_CHANNEL_AGENTS = 32
/** Most bytes of a message. */
export const MAD_MESSAGE_BYTES = 2 ** 20
/** Bytes that come back with what became of a send. */
export const MAD_TAG_BYTES = 64

export const MadChannel = objectClass('mad_channel', ClassId.mad_channel, {
  identity: 'fd',
  methods: {
    /** With its agents a program sends as the system itself: it needs the right to raw packets. */
    create: method(CREATE_FD, { in: {}, out: {}, needs: 'NET_RAW' }),
    /** Number of unread messages. */
    query: method(QUERY, { in: {}, out: { unread: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Takes the oldest message. EAGAIN if there is none, EIO if none will come any more, EINVAL without room for its first
     * datagram. If there is no room for all of it, only its first datagram comes out, and it stays the oldest one.
     */
    receive: method(CallNumber.mad_channel.receive, {
      in: { room: u32(1) },
      out: {
        /** Handle of the agent. */
        agent: u32(64),
        /** 0, or ETIMEDOUT: nothing has answered a send, of which this is the header. */
        status: u32(65),
        /** Bytes of the whole message. */
        length: u32(66),
        data: blob(67, MAD_MESSAGE_BYTES),
        /** Where it came from; absent of a send. */
        address: optional(record(68, QpAddress)),
        qpn: optional(u32(69)),
        pkeyIndex: optional(u16(70)),
        /** Of a send: its own. */
        tag: optional(bytes(71, MAD_TAG_BYTES)),
      },
    }),
  },
})
