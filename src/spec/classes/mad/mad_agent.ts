/*
 * Class `mad_agent`: sends management datagrams of the general services (Linux: an agent of ib_user_mad.h; IBA 13.4,
 * 13.6). The agent's channel receives the requests of its management class and methods, and the responses to its own
 * requests.
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
import { IbAddress, QpAddress } from '../qp/qp.ts'
import { MAD_MESSAGE_BYTES, MAD_TAG_BYTES } from './mad_channel.ts'

export const MadAgentClass = objectClass('mad_agent', ClassId.mad_agent, {
  methods: {
    /**
     * Fails with EINVAL if another agent or userdma itself has one of the methods, or if agents cannot have the class;
     * with EPROTONOSUPPORT for queue pair 0 of RoCE; with ENOMEM if the channel has its maximum of agents.
     */
    create: method(CREATE, {
      in: {
        channel: fd(1, 'mad_channel'),
        /** 0: the agent receives responses only. */
        mgmtClass: u8(2),
        classVersion: u8(3),
        /** The methods whose requests the agent receives, one bit each; bit 0 of the first byte is method 0. */
        methods: blob(4, 16),
        /** The OUI of an agent of a vendor class, 0x30 to 0x4f. */
        oui: optional(u32(5, { max: 0xff_ffff })),
        /** 1: messages longer than a datagram are segmented by RMPP; 0 or absent: no RMPP. */
        rmppVersion: optional(u8(6)),
        flags: optional(flagsOf(7, MadAgentFlags)),
        /** 1, the queue pair of the general services, which is the default; 0 on InfiniBand: of subnet management. */
        qpn: optional(u32(8)),
      },
      out: {},
    }),
    /** `outstanding`: number of sent messages that wait for their response. */
    query: method(QUERY, { in: {}, out: { outstanding: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Sends a message. The device replaces the upper 32 bits of a request's transaction id. Fails with EINVAL if
     * another message of the management class with the same transaction id waits for its response; with ENOMEM if too
     * many messages wait.
     */
    send: method(CallNumber.mad_agent.send, {
      role: 'transfers',
      in: {
        /** Of the device's link (spec/links.ts). */
        address: record(1, QpAddress),
        ibAddress: optional(record(8, IbAddress)),
        qpn: u32(2),
        pkeyIndex: optional(u16(3)),
        /** Milliseconds to wait for a response; 0: do not wait. */
        timeout: optional(u32(4)),
        /** Maximum number of retransmissions, each after `timeout` without a response; 0 or absent: none. */
        retries: optional(u32(5)),
        /** The channel returns these bytes with the request if no response comes. */
        tag: optional(bytes(6, MAD_TAG_BYTES)),
        data: blob(7, MAD_MESSAGE_BYTES),
      },
      out: {},
    }),
  },
})
