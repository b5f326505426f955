/*
 * Class `xrcd`: one opening of an XRC domain (IBA annex A14). XRC SRQs and target queue pairs belong to a domain.
 * Processes that name the same file share a domain, which ends when the last process closes it. Without a file the
 * domain is private. `destroy` is refused with EBUSY while objects use the domain.
 */
import { XrcdFlags } from '../enums.ts'
import { CREATE, DESTROY, flagsOf, method, objectClass, optional, QUERY, u8, u32 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Xrcd = objectClass('xrcd', ClassId.xrcd, {
  methods: {
    /**
     * Fails with EAGAIN if the file has no domain and CREAT is not set, with EINVAL if it has one and EXCL is set, with
     * EBADF if the descriptor is invalid. Without a file, a new domain is created whatever the flags.
     */
    create: method(CREATE, {
      in: {
        /** A file descriptor of the caller, of any kind. The inode identifies the domain. */
        file: optional(u32(1, { max: 0x7fffffff })),
        flags: flagsOf(2, XrcdFlags),
      },
      out: {},
    }),
    /**
     * `shared` 1: the domain has a file. `openers`: openings in all processes. `users`: SRQs and queue pairs of this
     * opening.
     */
    query: method(QUERY, { in: {}, out: { shared: u8(64, { max: 1 }), openers: u32(65), users: u32(66) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
