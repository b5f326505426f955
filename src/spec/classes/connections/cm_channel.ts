/*
 * Class `cm_channel`: a descriptor that receives the events of connection identifiers (Linux: an opened rdma_cm file).
 * read(2) returns records of 24 bytes {u64 user handle, u32 handle, u32 type, u64 sequence number}; `getEvent` returns
 * the whole event. Closing the descriptor destroys the channel and its identifiers.
 */
import { CmEventType } from '../../enums.ts'
import {
  CREATE_FD,
  DESTROY,
  enumOf,
  method,
  objectClass,
  optional,
  QUERY,
  record,
  u32,
  u64,
} from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { CmConnectionParameters, CmDatagramParameters, CmEce } from './cm_parameters.ts'

export const CmChannel = objectClass('cm_channel', ClassId.cm_channel, {
  identity: 'fd',
  global: true,
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** Number of unread events. */
    query: method(QUERY, { in: {}, out: { unread: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Takes the oldest event. EAGAIN if there is none, EIO if no event can follow. `status`: 0, a negative errno in
     * two's complement, the reason of a REJ, or the status of a SIDR_REP; for an event of `cm_id.writeEvent`, the
     * `status` of that call. `object`: handle of the identifier (of CONNECT_REQUEST, the new one) or of the multicast
     * membership. `unread`: number of remaining events. `argument`: of an event of `cm_id.writeEvent`.
     */
    getEvent: method(CallNumber.cm_channel.getEvent, {
      role: 'waits',
      in: {},
      out: {
        userHandle: u64(64),
        object: u32(65),
        type: enumOf(66, CmEventType),
        status: u32(67),
        connection: optional(record(68, CmConnectionParameters)),
        datagram: optional(record(69, CmDatagramParameters)),
        ece: optional(record(70, CmEce)),
        unread: u32(71),
        argument: optional(u64(72)),
      },
    }),
  },
})
