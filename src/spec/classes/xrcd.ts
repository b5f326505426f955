/*
 * Class `xrcd`: one opening of an XRC domain (IBA annex A14), to which XRC receive queues and target queue pairs
 * belong. Processes that open the domain of the same file share it: it lives until the last of them closes it. Without
 * a file the domain is the caller's alone. Closing one with receive queues or queue pairs is EBUSY.
 */
import { XrcdFlags } from '../enums.ts'
import { CREATE, DESTROY, flagsOf, method, objectClass, optional, QUERY, u8, u32 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Xrcd = objectClass('xrcd', ClassId.xrcd, {
  methods: {
    /** EAGAIN if the file has no domain and CREAT is not set, EINVAL if it has one and EXCL is set, EBADF. */
    create: method(CREATE, {
      in: {
        /** Number of one of the caller's file descriptors, of any kind: the file behind it names the domain. */
        file: optional(u32(1, { max: 0x7fffffff })),
        flags: flagsOf(2, XrcdFlags),
      },
      out: {},
    }),
    /**
     * `shared` 1: a file names the domain, and others may open it; `openers`: how often it is open, in all processes;
     * `users`: queues and queue pairs that belong to this opening.
     */
    query: method(QUERY, { in: {}, out: { shared: u8(64, { max: 1 }), openers: u32(65), users: u32(66) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
