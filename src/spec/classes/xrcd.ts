/*
 * Class `xrcd`: one opening of an XRC domain (IBA annex A14), to which XRC SRQs and target queue pairs belong.
 * Processes that open the domain of the same file share it until the last of them closes it. Without a file the domain
 * is private. Closing a domain that is in use is refused with EBUSY.
 */
import { XrcdFlags } from '../enums.ts'
import { CREATE, DESTROY, flagsOf, method, objectClass, optional, QUERY, u8, u32 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

export const Xrcd = objectClass('xrcd', ClassId.xrcd, {
  methods: {
    /**
     * Fails with EAGAIN if the domain does not exist and CREAT is not set (without a file it never exists), with EINVAL
     * if it exists and EXCL is set, with EBADF if the descriptor is invalid.
     */
    create: method(CREATE, {
      in: {
        /** A file descriptor of the caller, of any kind; its inode identifies the domain. */
        file: optional(u32(1, { max: 0x7fffffff })),
        flags: flagsOf(2, XrcdFlags),
      },
      out: {},
    }),
    /**
     * `shared` 1: the domain has a file, so that others can open it; `openers`: openings in all processes; `users`:
     * SRQs and queue pairs of this opening.
     */
    query: method(QUERY, { in: {}, out: { shared: u8(64, { max: 1 }), openers: u32(65), users: u32(66) } }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
