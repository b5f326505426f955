/*
 * Class `driver_ops`: a descriptor for the calls that only one driver knows (R28, R30; GET_DRIVER_OPS_FD).
 *
 * `create` asks for one of the driver's interfaces by its versioned name ("ctx.userdma.2"). A driver may have several,
 * and drops or adds them as it changes: ENOENT for a name that it does not have lets the caller ask for an older one;
 * EOPNOTSUPP says that the device has none at all. Without a name it is the driver's provider channel: the interface
 * that has the driver's own name, of which nothing is agreed but how to get it. What the descriptor's ioctl, write
 * and mmap do, and what can be read from it, is the interface's business. It lives by its descriptor, as its context
 * does, whose objects it can use.
 */
import { blob, CREATE_FD, DESTROY, method, objectClass, optional, QUERY } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

/** Most bytes of a name. */
const NAME = 128

export const DriverOps = objectClass('driver_ops', ClassId.driver_ops, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, { in: { name: optional(blob(1, NAME)) }, out: {} }),
    query: method(QUERY, { in: {}, out: { name: blob(64, NAME) } }),
    /** Before the descriptor is closed: it hangs up. */
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
