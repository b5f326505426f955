/*
 * Class `comp_channel`: a descriptor that receives the completion events of any number of CQs (R35, R37). read(2)
 * returns records of 8 bytes, the CQ's user handle; `getEvent` returns one event. The channel is destroyed when its
 * descriptor is closed and no CQ uses the channel.
 */
import { at, CREATE_FD, list, method, objectClass, QUERY, u32, u64 } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'

const MAX_CQS = 0xffff

export const CompChannel = objectClass('comp_channel', ClassId.comp_channel, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** `unread`: number of unread events. */
    query: method(QUERY, { in: {}, out: { cqs: list(64, { handle: at(0, u32(0)) }, MAX_CQS), unread: u32(65) } }),
    /** Takes the oldest event. EAGAIN if there is none, EIO if the device was removed and no event can follow. */
    getEvent: method(CallNumber.comp_channel.getEvent, { role: 'waits', in: {}, out: { userHandle: u64(64) } }),
  },
})
