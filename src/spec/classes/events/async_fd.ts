/*
 * Class `async_fd`: a descriptor that receives the asynchronous events of a context's objects, ports and device (R32,
 * R37, R39). read(2) returns records of 16 bytes {u64 element, u32 type, u32 0}; `getEvent` returns one event.
 * `element` is an object's user handle, a port's number, a device's index (DEVICE_ADDED, DEVICE_REMOVED), or 0.
 */
import { AsyncEventType } from '../../enums.ts'
import { CREATE_FD, enumOf, method, objectClass, QUERY, u8, u32, u64 } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'

export const AsyncFd = objectClass('async_fd', ClassId.async_fd, {
  identity: 'fd',
  global: true,
  methods: {
    create: method(CREATE_FD, { in: {}, out: {} }),
    /** `unread`: number of unread events. `isDefault` 1: receives the events of objects created without `asyncFd`. */
    query: method(QUERY, { in: {}, out: { unread: u32(64), isDefault: u8(65, { max: 1 }) } }),
    /** Takes the oldest event. EAGAIN if there is none, EIO if the device was removed and no event can follow. */
    getEvent: method(CallNumber.async_fd.getEvent, {
      role: 'waits',
      in: {},
      out: { element: u64(64), type: enumOf(65, AsyncEventType) },
    }),
  },
})
