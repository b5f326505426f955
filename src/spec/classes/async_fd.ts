/*
 * Class `async_fd`: a descriptor on which the asynchronous events of a context's objects, ports and device arrive (R32,
 * R37). It is read in records of 16 bytes {u64 element, u32 type, u32 0}; element is an object's user handle, a port's
 * number, or 0.
 */
import { CREATE_FD, method, objectClass } from '../schema.ts'
import { ClassId } from './ids.ts'

export const AsyncFd = objectClass('async_fd', ClassId.async_fd, {
  identity: 'fd',
  global: true,
  methods: { create: method(CREATE_FD, { in: {}, out: {} }) },
})
