/*
 * Class `comp_channel`: a descriptor on which the completion events of any number of CQs arrive (R35, R37). It is read
 * in records of 8 bytes, the CQ's user handle, or by `getEvent`, and lives by its descriptor: closing it is its
 * destruction.
 */
import { at, CREATE_FD, list, method, objectClass, QUERY, u32, u64 } from '../schema/schema.ts'
import { CallNumber, ClassId } from './ids.ts'

const MANY = 0xffff

export const CompChannel = objectClass('comp_channel', ClassId.comp_channel, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** The completion queues whose events come here, and how many events nobody has read yet. */
    query: method(QUERY, { in: {}, out: { cqs: list(64, { handle: at(0, u32(0)) }, MANY), unread: u32(65) } }),
    /** Takes the oldest event. EAGAIN if there is none, EIO if none will come any more. */
    getEvent: method(CallNumber.comp_channel.getEvent, { in: {}, out: { userHandle: u64(64) } }),
  },
})
