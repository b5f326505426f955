/*
 * Class `driver_ops`: a descriptor for driver-specific calls (R28, R30, which names it GET_DRIVER_OPS_FD).
 *
 * `create` opens one of the driver's interfaces by its versioned name, for example "ctx.userdma.2". A driver may have
 * several, and a later release may add or drop versions: ENOENT for an unknown name lets the caller try an older one;
 * EOPNOTSUPP means that the device has no interface. Without a name, `create` opens the driver's provider channel: the
 * interface whose name is the driver's, and whose protocol only the driver defines. The interface defines the
 * descriptor's ioctl, read, write and mmap, which may use the context's objects. The object is destroyed with its
 * context, or once the descriptor is closed and no object uses it.
 */
import { blob, CREATE_FD, DESTROY, method, objectClass, optional, QUERY } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

const MAX_NAME_BYTES = 128

export const DriverOps = objectClass('driver_ops', ClassId.driver_ops, {
  identity: 'fd',
  methods: {
    create: method(CREATE_FD, { in: { name: optional(blob(1, MAX_NAME_BYTES)) }, out: {} }),
    query: method(QUERY, { in: {}, out: { name: blob(64, MAX_NAME_BYTES) } }),
    /** Disables the descriptor before it is closed: poll(2) then reports POLLHUP. */
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
