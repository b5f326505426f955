/*
 * Handles the messages OPEN and ATTACH of a session (spec/session.ts). OPEN opens a uverbs node, an rdma_cm channel or
 * a umad file. ATTACH lets the session use a context of another session whose memory file the client has.
 */
import { closeContext, openContext } from '../../core/devices/registry.ts'
import { systemDevice } from '../../core/devices/system.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import type { Context } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { EINVAL, SystemError } from '../../host/errno.ts'
import { pidfdGetfd } from '../../host/memory/process.ts'
import { close } from '../../host/net/sockets.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { CallError, Errno } from '../../spec/errno.ts'
import { CM_NODE, OpenWants, SYSTEM_NODE, UMAD_NAME, UMAD_NODES } from '../../spec/session.ts'
import type { Result } from '../../uapi/call.ts'
import { writeOpenReply } from '../../uapi/session-codec.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { EventSocket } from '../context/event-socket.ts'
import { nodeRdev } from '../files/tree.ts'
import { type Client, MAX_DESCRIPTORS } from './client.ts'

/** Maximum number of open uverbs contexts of a session: more than programs need. */
const MAX_CONTEXTS = 256

export interface NodeOpening {
  /** Opens the node of the request. */
  open(): void
  /** Attaches the context whose memory file is the descriptor in the request. */
  attach(): void
}

export const createNodeOpening = (client: Client): NodeOpening => {
  const { daemon, process, quota, account, standing, caller, request, outgoing, reply } = client
  /** Numbers of the uverbs contexts that the session opened; the next open removes those that have ended. */
  const opened = new Set<number>()
  /** The context of all rdma_cm channels of the session. */
  let cmContext: Context | undefined

  const refuseOpen = (errno: number): void =>
    reply(writeOpenReply(outgoing, request, { error: errno, context: 0, rdev: 0, inode: 0 }))

  /** From now on failures of the context's objects are attributed to the client's program. */
  const setOwner = (context: Context): void =>
    daemon.failures.setOwner(context, { pid: process.pid, command: client.name(), tag: client.tag })

  const grantOpen = (open: OpenContext, doorbell: number, fds: readonly number[]): void => {
    client.contexts.add(open)
    const { number: context, node, memory } = open
    reply(writeOpenReply(outgoing, request, { error: 0, context, rdev: nodeRdev(node), inode: memory.inode }), [
      ...fds,
      doorbell,
    ])
    close(doorbell)
  }

  /** Answers with the program's end of the event socket of a new channel or umad file. */
  const grantChannel = (node: number, { descriptors = [] }: Result): void => {
    const { object: number } = descriptors[0]!
    let socket: EventSocket
    try {
      socket = daemon.events.create(findDescriptor(daemon.core, number), quota)
    } catch (error) {
      closeDescriptor(daemon.core, number)
      throw error
    }
    reply(writeOpenReply(outgoing, request, { error: 0, context: 0, rdev: nodeRdev(node), inode: 0 }), [socket.peerEnd])
    socket.closePeerEnd()
  }

  const openNode = (): void => {
    const device = request.node === SYSTEM_NODE ? systemDevice(daemon.core) : daemon.devices.atNode(request.node)
    if (!device) throw new CallError('ENXIO', `there is no device node uverbs${request.node}`)
    for (const number of opened) if (!daemon.contexts.byNumber(number)) opened.delete(number)
    if (opened.size >= MAX_CONTEXTS)
      throw new CallError('EMFILE', `this process has ${MAX_CONTEXTS} contexts open already, the maximum`)
    const isPacked = (request.wants & OpenWants.PACKED_RINGS) !== 0
    const { open, doorbell } = daemon.contexts.open(device, request.node, quota, isPacked, account)
    opened.add(open.number)
    setOwner(open.context)
    try {
      const file = open.memory.share()
      grantOpen(open, doorbell, [file])
      close(file)
    } catch (error) {
      close(doorbell)
      throw error
    }
  }

  /**
   * Opens an rdma_cm channel. All channels of a session belong to one context, so that identifiers can migrate between
   * them.
   */
  const openChannel = (): void => {
    if (cmContext === undefined || cmContext.isClosed) {
      cmContext = openContext(systemDevice(daemon.core), { isOpened: true, account })
      setOwner(cmContext)
    }
    if (cmContext.descriptors.size >= MAX_DESCRIPTORS)
      throw new CallError('EMFILE', `this process has ${MAX_DESCRIPTORS} channels of rdma_cm open already, the maximum`)
    grantChannel(CM_NODE, invokeNow(cmContext, CmChannel, 'create', 0, {}, caller))
  }

  /** Opens a umad file of a device: only for the daemon's own user, like Linux's nodes with mode 0600. */
  const openUmad = (): void => {
    const { node } = request
    const device = daemon.devices.atNode(node - UMAD_NODES)
    if (!device) throw new CallError('ENXIO', `there is no device node ${UMAD_NAME}${node - UMAD_NODES}`)
    if (standing !== 'owner')
      throw new CallError('EACCES', `${UMAD_NAME}${node - UMAD_NODES} is allowed for the user of this daemon only`)
    const context = openContext(device, { isOpened: true, account })
    setOwner(context)
    try {
      // As on Linux the node's mode decides, not CAP_NET_RAW, which the method requires.
      grantChannel(node, invokeNow(context, MadChannel, 'create', 0, {}, { ...caller, allows: () => true }))
    } catch (error) {
      closeContext(context)
      throw error
    }
  }

  const openers: Readonly<Record<number, () => void>> = { [CM_NODE]: openChannel, [SYSTEM_NODE]: openNode }
  const openerOf = (node: number): (() => void) => openers[node] ?? (node >= UMAD_NODES ? openUmad : openNode)

  const attach = (): void => {
    const fd = pidfdGetfd(process, request.fd)
    if (fd === -EINVAL) throw new CallError('ENODEV', `descriptor ${request.fd} does not belong to a context`)
    if (fd < 0) throw new SystemError('pidfd_getfd', fd, `descriptor ${request.fd} of process ${process.pid}`)
    try {
      const open = daemon.contexts.byFile(fd)
      if (!open) throw new CallError('ENODEV', `descriptor ${request.fd} does not belong to a context`)
      grantOpen(open, daemon.contexts.addDoorbell(open, quota), [])
    } finally {
      close(fd)
    }
  }

  /**
   * On Linux the objects of an ended program or a closed context are destroyed before a later open. So this open waits
   * until the objects of all closed contexts of the user are destroyed.
   */
  const openingLater = (opener: () => void): void =>
    client.answerLater(
      { ...request },
      daemon.untilContextsDestroyed(account.user).then(() => {
        if (!client.isClosed) openNow(opener)
      }),
    )

  const openNow = (opener: () => void): void => {
    try {
      if (!client.isReachable) throw new CallError('EACCES', `the memory of process ${process.pid} is not accessible`)
      opener()
    } catch (error) {
      const isExpected = error instanceof CallError || error instanceof SystemError
      if (!isExpected) daemon.containment.report('the opening of a device', error)
      refuseOpen(isExpected ? error.errno : Errno.EIO)
    }
  }

  return { open: () => openingLater(openerOf(request.node)), attach: () => openNow(attach) }
}
