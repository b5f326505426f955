/*
 * Class `driver_ops`: a descriptor for driver-specific calls (R28, R30).
 *
 * `create` opens an interface of the driver by its versioned name, for example "ctx.userdma.2". ENOENT: the name is
 * unknown, and the caller may try an older version. EOPNOTSUPP: the device has no interface. Without a name, `create`
 * opens the provider channel, the interface with the driver's name.
 *
 * The interface defines ioctl, read, write and mmap of the descriptor; these calls may use the context's objects. The
 * `driver_ops` is destroyed with its context, or when the descriptor is closed and no object uses the `driver_ops`.
 */
import { blob, CREATE_FD, DESTROY, method, objectClass, optional, QUERY } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

const MAX_NAME_BYTES = 128

export const DriverOps = objectClass('driver_ops', ClassId.driver_ops, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, { in: { name: optional(blob(1, MAX_NAME_BYTES)) }, out: {} }),
    query: method(QUERY, { in: {}, out: { name: blob(64, MAX_NAME_BYTES) } }),
    /** Disables the descriptor, which stays open: poll(2) then reports POLLHUP. */
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
