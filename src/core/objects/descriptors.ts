/*
 * Fd objects for carriers (R37): sessions of the daemon, and the library in this process. A carrier gets the number of
 * an fd object in `Result.descriptors` or `Install` (uapi/call.ts). It attaches its sink (`attachSink`), and closes the
 * fd object after the client has closed the last copy of the descriptor.
 */
import { callError } from '../../spec/errno.ts'
import { closeEvents } from '../events/events.ts'
import type { Core, FdObject } from '../model.ts'
import { destroyNow } from './lifetime.ts'

/** The fd object with this number. EBADF if it no longer exists. */
export const findDescriptor = (core: Core, number: number): FdObject => {
  const fd = core.descriptors.get(number)
  if (fd === undefined) throw callError.EBADF`there is no descriptor object ${number}`
  return fd
}

/**
 * The client has closed its last copy of a descriptor. While other objects use the fd object, it remains without
 * events. An unknown number is no error: the context may have been closed first.
 */
export const closeDescriptor = (core: Core, number: number): void => {
  const fd = core.descriptors.get(number)
  if (fd === undefined) return
  closeEvents(fd)
  if (fd.uses === 0) destroyNow(fd, 'close')
}
