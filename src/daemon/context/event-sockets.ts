/*
 * All event sockets, by the inode of the program's end. By the inode the daemon finds core's fd object for a descriptor
 * of a program. The end's send timeout tells the kind of the fd object, also to a program that receives the descriptor
 * from another program.
 */

import { attachSink } from '../../core/events/events.ts'
import type { Account, Core, FdObject } from '../../core/model.ts'
import { closeDescriptor } from '../../core/objects/descriptors.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { oneSlice } from '../../host/event-loop/slices.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import { setSendTimeout } from '../../host/net/sockets.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { DriverOps } from '../../spec/classes/driver_ops.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { DescriptorMark, InstallKind } from '../../spec/session.ts'
import { EventSocket, type EventSocketParts } from './event-socket.ts'

export interface EventSockets {
  /**
   * Creates a socket for an fd object; the caller passes `peerEnd` to the program. `rdev`: st_rdev, if opening a node
   * created the object. Throws CallError EMFILE, ENFILE beyond the share of descriptors; SystemError if the system
   * refuses a descriptor.
   */
  create(fd: FdObject, account: Account, rdev?: number): EventSocket
  /**
   * The handle of the fd object behind 'socket:[inode]', which is descriptor `number` of `process`; undefined if it is
   * no event socket. The event socket remembers this descriptor (`setPeerEnd`).
   */
  find(target: string, process: ProcessHandle, number: number): number | undefined
  readonly count: number
  closeAll(): void
}

/** InstallKind by class; default: EVENT. */
const kinds: Readonly<Record<string, number>> = {
  [DriverOps.name]: InstallKind.DRIVER,
  [CmChannel.name]: InstallKind.CM,
  [MadChannel.name]: InstallKind.UMAD,
}

export const installKindOf = ({ class: { name } }: FdObject): number => kinds[name] ?? InstallKind.EVENT

/** `holders`: as in EventSocket. `onClosed` is called when a program's end was closed. */
export const createEventSockets = (
  core: Core,
  holders: () => Iterable<ProcessHandle>,
  parts?: EventSocketParts,
  onClosed: (fd: FdObject) => void = () => {},
): EventSockets => {
  // Both by `EventSocket.target`.
  const handles = new Map<string, number>()
  const sockets = new Map<string, EventSocket>()
  return {
    create(fd, account, rdev = 0) {
      const releaseDescriptor = take(account.descriptors, account, fd.class.name)
      const socket = orRelease(
        releaseDescriptor,
        () => new EventSocket(holders, () => core.runJob(oneSlice(peerClosed)), parts),
      )
      const mark = DescriptorMark.FIRST + installKindOf(fd) + DescriptorMark.RDEV * rdev
      setSendTimeout(socket.peerEnd, mark, DescriptorMark.MICROSECONDS)
      const peerClosed = (): void => {
        closeDescriptor(core, fd.handle)
        removeSocket()
        onClosed(fd)
      }
      const removeSocket = (): void => {
        handles.delete(socket.target)
        sockets.delete(socket.target)
        socket.close()
        releaseDescriptor()
      }
      handles.set(socket.target, fd.handle)
      sockets.set(socket.target, socket)
      attachSink(fd, socket)
      return socket
    },
    find(target, process, number) {
      sockets.get(target)?.setPeerEnd(process, number)
      return handles.get(target)
    },
    get count() {
      return handles.size
    },
    closeAll() {
      for (const socket of sockets.values()) socket.close()
      sockets.clear()
      handles.clear()
    },
  }
}
