/*
 * Handles the messages OPEN and ATTACH of a session (spec/session.ts). OPEN opens a uverbs node, the system-wide
 * device, an rdma_cm channel or a umad file. ATTACH lets the session use another session's context, if the client has
 * the context's memory file.
 */

import { constants } from 'node:fs'
import { closeContext, openContext } from '../../core/devices/registry.ts'
import { systemDevice } from '../../core/devices/system.ts'
import { invokeNow } from '../../core/dispatch/invoke.ts'
import type { Context, Core, Device } from '../../core/model.ts'
import { closeDescriptor, findDescriptor } from '../../core/objects/descriptors.ts'
import { EINVAL, SystemError } from '../../host/errno.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { pidfdGetfd } from '../../host/memory/process.ts'
import { close } from '../../host/net/sockets.ts'
import { CmChannel } from '../../spec/classes/connections/cm_channel.ts'
import { MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import { CallError, callError, Errno } from '../../spec/errno.ts'
import {
  CHANNEL_NUMBERS,
  CM_NODE,
  ISSM_NAME,
  ISSM_NODES,
  OpenWants,
  SYSTEM_NODE,
  UMAD_NAME,
  UMAD_NODES,
} from '../../spec/session.ts'
import type { Result } from '../../uapi/call.ts'
import { type Request, writeOpenReply } from '../../uapi/session-codec.ts'
import type { Containment } from '../containment.ts'
import type { Contexts, OpenContext } from '../context/contexts.ts'
import type { EventSocket } from '../context/event-socket.ts'
import type { EventSockets } from '../context/event-sockets.ts'
import type { FileSizes } from '../context/file-sizes.ts'
import type { Devices } from '../devices/devices.ts'
import type { DeviceNamespaces } from '../devices/namespaces.ts'
import type { FailureReports } from '../failures.ts'
import { nodeRdev } from '../files/tree.ts'
import { type Client, MAX_DESCRIPTORS } from './client.ts'

/** Maximum number of open contexts of a session. rdma_cm channels and umad files do not count. */
const MAX_CONTEXTS = 1024

const { O_RDONLY, O_WRONLY, O_RDWR } = constants

/** The access mode for open(2) of a context's file. */
const accessOf = (wants: number): number => {
  if ((wants & OpenWants.READ_ONLY) !== 0) return O_RDONLY
  return (wants & OpenWants.WRITE_ONLY) !== 0 ? O_WRONLY : O_RDWR
}

/** What the opening of devices uses. */
export interface OpenParts {
  readonly core: Core
  readonly devices: Devices
  readonly namespaces: DeviceNamespaces
  readonly contexts: Contexts
  readonly fileSizes: FileSizes
  readonly events: EventSockets
  readonly failures: FailureReports
  readonly containment: Containment
  /** Resolves when the objects of the user's already closed contexts are destroyed. */
  untilContextsDestroyed(user: number): Promise<void>
}

export class NodeOpening {
  readonly #client: Client
  readonly #request: Request
  readonly #daemon: OpenParts
  readonly #onAttached: (open: OpenContext) => void
  /** Numbers of the contexts that the session opened. Ended contexts are removed at the next open. */
  readonly #opened = new Set<number>()
  /** The context of all rdma_cm channels of the session. */
  #cmContext: Context | undefined

  /** `onAttached` is called for each context that the client attaches, before the reply. */
  constructor(client: Client, daemon: OpenParts, onAttached: (open: OpenContext) => void) {
    this.#client = client
    this.#onAttached = onAttached
    this.#request = client.request
    this.#daemon = daemon
  }

  /** Handles a message of type OPEN. */
  open(): void {
    this.#openLater(this.#openerOf(this.#request.node))
  }

  /** Handles a message of type ATTACH. */
  attach(): void {
    this.#openNow(() => this.#attachFile())
  }

  /** Answers with the errno of `error`. An exception that is a bug is logged and answered EIO. */
  #refuseOpen(error: unknown): void {
    const isExpected = error instanceof CallError || error instanceof SystemError
    if (!isExpected) this.#daemon.containment.report('the opening of a device', error)
    const errno = isExpected ? error.errno : Errno.EIO
    this.#client.reply(
      writeOpenReply(this.#client.outgoing, this.#request, { error: errno, context: 0, rdev: 0, inode: 0 }),
    )
  }

  #setOwner(context: Context): void {
    this.#daemon.failures.setOwner(context, {
      pid: this.#client.process.pid,
      command: this.#client.name(),
      tag: this.#client.tag,
      life: this.#client.life,
      guest: this.#client.guest,
    })
  }

  #grantOpen(open: OpenContext, doorbell: number, fds: readonly number[]): void {
    const client = this.#client
    client.contexts.add(open)
    if (client.guest !== undefined)
      this.#daemon.fileSizes.watch(
        open,
        () => !client.isClosed,
        surplus => client.filled(surplus),
      )
    const { number: context, node, memory } = open
    if (this.#client.guest !== undefined) memory.heldByGuest(this.#client.guest)
    try {
      this.#client.reply(
        writeOpenReply(this.#client.outgoing, this.#request, {
          error: 0,
          context,
          rdev: nodeRdev(node),
          inode: memory.inode,
        }),
        [...fds, doorbell],
      )
    } finally {
      close(doorbell)
    }
  }

  /** Answers with the program's end of the event socket of a new channel or umad file. */
  #grantChannel(node: number, { descriptors = [] }: Result): void {
    const { object: number } = descriptors[0]!
    const rdev = nodeRdev(node)
    let socket: EventSocket
    try {
      const channel = findDescriptor(this.#daemon.core, number)
      socket = this.#daemon.events.create(channel, this.#client.account, rdev)
      this.#client.channels.add(channel)
    } catch (error) {
      closeDescriptor(this.#daemon.core, number)
      throw error
    }
    this.#client.reply(
      writeOpenReply(this.#client.outgoing, this.#request, {
        error: 0,
        context: CHANNEL_NUMBERS + number,
        rdev,
        inode: 0,
      }),
      [socket.peerEnd],
    )
    socket.closePeerEnd()
  }

  #openNode(): void {
    const device =
      this.#request.node === SYSTEM_NODE
        ? systemDevice(this.#daemon.core)
        : this.#daemon.devices.atNode(this.#request.node)?.device
    if (!device) throw callError.ENOENT`there is no device node uverbs${this.#request.node}`
    if (this.#request.node !== SYSTEM_NODE) this.#requireSeen(device)
    for (const number of this.#opened) if (!this.#daemon.contexts.byNumber(number)) this.#opened.delete(number)
    if (this.#opened.size >= MAX_CONTEXTS)
      throw callError.EMFILE`this session has ${MAX_CONTEXTS} contexts open already, the maximum`
    const isPacked = (this.#request.wants & OpenWants.PACKED_RINGS) !== 0
    const { open, doorbell } = this.#daemon.contexts.open(device, this.#request.node, this.#client.account, isPacked)
    this.#opened.add(open.number)
    this.#setOwner(open.context)
    let file: number
    try {
      file = open.memory.share(accessOf(this.#request.wants))
    } catch (error) {
      close(doorbell)
      throw error
    }
    try {
      this.#grantOpen(open, doorbell, [file])
    } finally {
      close(file)
    }
  }

  /** As in Linux, a device of another network namespace cannot be opened. Throws CallError EPERM. */
  #requireSeen(device: Device): void {
    if (!this.#daemon.namespaces.processSees(this.#client.process.pid, device))
      throw callError.EPERM`device ${device.name} belongs to another network namespace`
  }

  /** All rdma_cm channels of a session belong to one context, so that identifiers can migrate between channels. */
  #openChannel(): void {
    if (this.#cmContext === undefined || this.#cmContext.isClosed) {
      this.#cmContext = openContext(systemDevice(this.#daemon.core), { isOpened: true, account: this.#client.account })
      this.#setOwner(this.#cmContext)
    }
    const context = this.#cmContext
    if (context.descriptors.size >= MAX_DESCRIPTORS)
      throw callError.EMFILE`this session has ${MAX_DESCRIPTORS} channels of rdma_cm open already, the maximum`
    try {
      this.#grantChannel(CM_NODE, invokeNow(context, CmChannel, 'create', 0, {}, this.#client.caller))
    } catch (error) {
      // The context ends with its last descriptor, but has none yet.
      if (context.descriptors.size === 0) closeContext(context)
      throw error
    }
  }

  /** Only the daemon's own user may open a umad or issm file; Linux's nodes have mode 0600. */
  #openUmad(): void {
    const { node } = this.#request
    const isManager = node >= ISSM_NODES
    const number = node - (isManager ? ISSM_NODES : UMAD_NODES)
    const name = `${isManager ? ISSM_NAME : UMAD_NAME}${number}`
    const device = this.#daemon.devices.atNode(number)?.device
    if (!device || (isManager && device.driver.link !== 'ib')) throw callError.ENOENT`there is no device node ${name}`
    this.#requireSeen(device)
    if (this.#client.standing !== 'owner') throw callError.EACCES`${name} is allowed for the user of this daemon only`
    const context = openContext(device, { isOpened: true, account: this.#client.account })
    this.#setOwner(context)
    try {
      // The method requires CAP_NET_RAW. On Linux only the node's mode decides.
      this.#grantChannel(
        node,
        invokeNow(context, MadChannel, 'create', 0, isManager ? { isManager: 1 } : {}, {
          ...this.#client.caller,
          allows: () => true,
        }),
      )
    } catch (error) {
      closeContext(context)
      throw error
    }
  }

  #openerOf(node: number): () => void {
    if (node === CM_NODE) return () => this.#openChannel()
    const isUmad = node >= UMAD_NODES && node !== SYSTEM_NODE
    return isUmad ? () => this.#openUmad() : () => this.#openNode()
  }

  #attachFile(): void {
    const fd = pidfdGetfd(this.#client.process, this.#request.fd)
    // `pidfdGetfd` takes only memory files from another user's process.
    if (fd === -EINVAL) throw callError.ENODEV`descriptor ${this.#request.fd} does not belong to a context`
    if (fd < 0)
      throw new SystemError('pidfd_getfd', fd, `descriptor ${this.#request.fd} of process ${this.#client.process.pid}`)
    try {
      const open = this.#daemon.contexts.byFile(fd)
      if (!open) throw callError.ENODEV`descriptor ${this.#request.fd} does not belong to a context`
      const doorbell = this.#daemon.contexts.addDoorbell(open, this.#client.account)
      this.#onAttached(open)
      this.#grantOpen(open, doorbell, [])
    } finally {
      // The program may have closed its own descriptor of the file, whatever file it is.
      closeElsewhere(fd, this.#client.account.payer)
    }
  }

  /**
   * Opens when the objects of all closed contexts of the user are destroyed. On Linux, too, the objects of an ended
   * program or closed context are destroyed before a later open.
   */
  #openLater(opener: () => void): void {
    this.#client.answerLater(
      { ...this.#request },
      this.#daemon.untilContextsDestroyed(this.#client.account.user).then(
        () => {
          if (!this.#client.isClosed) this.#openNow(opener)
        },
        // The client expects a reply of OPEN, not the callReply of `answerLater`.
        error => this.#refuseOpen(error),
      ),
    )
  }

  #openNow(opener: () => void): void {
    try {
      if (!this.#client.isReachable)
        throw callError.EACCES`the memory of process ${this.#client.process.pid} is not accessible`
      opener()
    } catch (error) {
      this.#refuseOpen(error)
    }
  }
}
