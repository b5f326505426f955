/*
 * Class `mad_agent`: sends management datagrams of the general services and receives those of its class and methods,
 * and the responses to its own requests (Linux: an agent of ib_user_mad.h; IBA 13.4, 13.6). Received datagrams wait in
 * its channel.
 */
import { MadAgentFlags } from '../../enums.ts'
import {
  blob,
  bytes,
  CREATE,
  DESTROY,
  fd,
  flagsOf,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  u8,
  u16,
  u32,
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { QpAddress } from '../qp/qp.ts'
import { MAD_MESSAGE_BYTES, MAD_TAG_BYTES } from './mad_channel.ts'

export const MadAgent = objectClass('mad_agent', ClassId.mad_agent, {
  methods: {
    /**
     * EINVAL for methods that another agent has, or a class that agents cannot have; EPROTONOSUPPORT for queue pair 0.
     */
    create: method(CREATE, {
      in: {
        channel: fd(1, 'mad_channel'),
        /** 0: the agent receives responses only. */
        mgmtClass: u8(2),
        classVersion: u8(3),
        /** A bit for each method whose requests the agent receives; the lowest bit of the first byte is method 0. */
        methods: blob(4, 16),
        /** The OUI, for the vendors' classes 0x30 to 0x4f. */
        oui: optional(u32(5, { max: 0xff_ffff })),
        /** 1: messages may be longer than a datagram. */
        rmppVersion: optional(u8(6)),
        flags: optional(flagsOf(7, MadAgentFlags)),
        /** Default 1, the general services. */
        qpn: optional(u32(8)),
      },
      out: {},
    }),
    query: method(QUERY, { in: {}, out: { outstanding: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Sends a message; the upper half of a request's transaction id is changed. EINVAL for a request like another one
     * that waits for its response, ENOMEM if very many wait.
     */
    send: method(CallNumber.mad_agent.send, {
      in: {
        address: record(1, QpAddress),
        qpn: u32(2),
        pkeyIndex: optional(u16(3)),
        /** Milliseconds to wait for a response; 0: do not wait. */
        timeout: optional(u32(4)),
        /** Maximum retransmissions without a response. */
        retries: optional(u32(5)),
        tag: optional(bytes(6, MAD_TAG_BYTES)),
        data: blob(7, MAD_MESSAGE_BYTES),
      },
      out: {},
    }),
  },
})
