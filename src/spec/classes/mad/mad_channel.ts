/*
 * Class `mad_channel`: a descriptor on which management datagrams of a device's port arrive (Linux: an opened umad
 * file). It is readable while a message waits, which `receive` takes: a datagram of 256 bytes, or a longer message that
 * was reassembled from segments. It exists as long as its descriptor: closing the descriptor destroys the agents of the
 * channel.
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
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { QpAddress } from '../qp/qp.ts'

/** Maximum agents of a channel, as of a umad file on Linux. */
export const MAD_CHANNEL_AGENTS = 32
/** Maximum bytes of a message. */
export const MAD_MESSAGE_BYTES = 2 ** 20
/** Bytes of a sent message that are returned with its failure. */
export const MAD_TAG_BYTES = 64

export const MadChannel = objectClass('mad_channel', ClassId.mad_channel, {
  identity: 'fd',
  methods: {
    /** Its agents send with the authority of the system, so a program needs the right to raw packets. */
    create: method(CREATE_FD, { in: {}, out: {}, needs: 'NET_RAW' }),
    /** Number of unread messages. */
    query: method(QUERY, { in: {}, out: { unread: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Takes the oldest message. EAGAIN if there is none, EIO if none can follow, EINVAL without room for its first
     * datagram. If the room is too small for the whole message, only its first datagram is returned, and it stays the
     * oldest message.
     */
    receive: method(CallNumber.mad_channel.receive, {
      in: { room: u32(1) },
      out: {
        /** Handle of the agent. */
        agent: u32(64),
        /** 0, or ETIMEDOUT: a request without a response; the message is its header. */
        status: u32(65),
        /** Bytes of the whole message. */
        length: u32(66),
        data: blob(67, MAD_MESSAGE_BYTES),
        /** The sender's address; absent for a request that timed out. */
        address: optional(record(68, QpAddress)),
        qpn: optional(u32(69)),
        pkeyIndex: optional(u16(70)),
        /** For a request that timed out: its own transaction id. */
        tag: optional(bytes(71, MAD_TAG_BYTES)),
      },
    }),
  },
})
