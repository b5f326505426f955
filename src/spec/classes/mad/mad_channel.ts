/*
 * Class `mad_channel`: a descriptor on which management datagrams of a device's port arrive (Linux: an opened umad
 * file). The descriptor is readable while a message waits. A message is a datagram of 256 bytes, or was reassembled
 * from segments. Closing the descriptor destroys the channel and its agents.
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
  u8,
  u16,
  u32,
} from '../../schema/schema.ts'
import { MAD_BYTES } from '../../wire/mad.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { IbAddress, QpAddress } from '../qp/qp.ts'

/** Maximum agents of a channel, as in a umad file on Linux. */
export const MAD_CHANNEL_AGENTS = 32
/** Maximum bytes of a message that a program sends. */
export const MAD_MESSAGE_BYTES = 2 ** 20
/** Maximum RMPP segments of a received message. */
export const MAD_RECEIVED_SEGMENTS = 8192
/** Maximum bytes of a received message. */
export const MAD_RECEIVED_BYTES = MAD_RECEIVED_SEGMENTS * MAD_BYTES
export const MAD_TAG_BYTES = 64

export const MadChannel = objectClass('mad_channel', ClassId.mad_channel, {
  identity: 'fd',
  methods: {
    /**
     * Agents can send any management datagram: the program needs CAP_NET_RAW. `isManager` 1: the port is that of a
     * subnet manager (IsSM) until the channel is closed, which fails with EAGAIN if it is one already, and with
     * EOPNOTSUPP if it is not an InfiniBand port.
     */
    create: method(CREATE_FD, { in: { isManager: optional(u8(1, { max: 1 })) }, out: {}, needs: 'NET_RAW' }),
    /** Number of unread messages. */
    query: method(QUERY, { in: {}, out: { unread: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Takes the oldest message, if it has at most `bufferBytes` bytes. If the message is longer, returns only the first
     * datagram, and the message stays the oldest. Fails with EAGAIN if there is no message, with EIO if no message can
     * follow, with EINVAL if the first datagram is longer than `bufferBytes`.
     */
    receive: method(CallNumber.mad_channel.receive, {
      role: 'transfers',
      in: { bufferBytes: u32(1) },
      out: {
        /** Handle of the agent. */
        agent: u32(64),
        /** 0, or ETIMEDOUT: a request got no response; the message is the header of the request. */
        status: u32(65),
        /** Bytes of the whole message. */
        length: u32(66),
        data: blob(67, MAD_RECEIVED_BYTES),
        /** The sender's address; absent for a request that timed out. */
        address: optional(record(68, QpAddress)),
        qpn: optional(u32(69)),
        pkeyIndex: optional(u16(70)),
        /** For a request that timed out: the `tag` of its `send`. */
        tag: optional(bytes(71, MAD_TAG_BYTES)),
        /** Instead of `address`, on InfiniBand. */
        ibAddress: optional(record(72, IbAddress)),
      },
    }),
  },
})
