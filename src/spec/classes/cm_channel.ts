/*
 * Class `cm_channel`: a descriptor on which the events of connection identifiers arrive (Linux: an opened rdma_cm
 * file). It is read in records of 24 bytes {u64 user handle, u32 id, u32 type, u64 sequence number} or, with all that an
 * event says, by `getEvent`. It lives by its descriptor: closing it destroys the identifiers that report to it.
 */
import { CmEventType } from '../enums.ts'
import { CREATE_FD, DESTROY, enumOf, method, objectClass, optional, QUERY, record, u32, u64 } from '../schema/schema.ts'
import { CmConnectionParameters, CmDatagramParameters, CmEce } from './cm_parameters.ts'
import { CallNumber, ClassId } from './ids.ts'

export const CmChannel = objectClass('cm_channel', ClassId.cm_channel, {
  identity: 'fd',
  global: true,
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** How many events nobody has read yet. */
    query: method(QUERY, { in: {}, out: { unread: u32(64) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
    /**
     * Takes the oldest event. EAGAIN if there is none, EIO if none will come any more. `status`: 0, minus an errno, or
     * the reason of a REJ; as two's complement. `object`: the identifier, or the membership of a group. `unread`: how
     * many are left.
     */
    getEvent: method(CallNumber.cm_channel.getEvent, {
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
      },
    }),
  },
})
