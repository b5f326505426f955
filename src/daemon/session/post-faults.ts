/*
 * Answers POST messages of a session (spec/session.ts): whether a fault rule refuses a request that the program is
 * about to post. Remembers the refused ones, because the preload library reports them to `userdma check` like posts
 * that the provider has refused.
 */

import type { CoreObject } from '../../core/model.ts'
import { findHandle } from '../../core/objects/handles.ts'
import { Errno } from '../../spec/errno.ts'
import { EventKind, PostInline, PostQueue, UNKNOWN_LENGTH, UNKNOWN_OPCODE } from '../../spec/session.ts'
import type { InjectedFaults } from '../../tools/clients/faults/inject.ts'
import { type Request, writeCallReply } from '../../uapi/session-codec.ts'
import type { DaemonChecker } from '../check/checker.ts'
import type { Contexts } from '../context/contexts.ts'
import type { Devices } from '../devices/devices.ts'
import type { Client } from './client.ts'

type Refused = Pick<Request, 'tid' | 'queue' | 'number' | 'wrId'>

/** Maximum remembered requests: a program may have any number of threads. */
const MAX_REFUSED = 1024

/** What decides about posts. */
export interface PostFaultParts {
  readonly contexts: Contexts
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
  readonly devices: Devices
  /** Fault rules for programs. */
  readonly faults: InjectedFaults
}

export class PostFaults {
  readonly #client: Client
  readonly #daemon: PostFaultParts
  /** By thread: the last request that a rule has refused. */
  readonly #refused = new Map<number, Omit<Refused, 'tid'>>()

  constructor(client: Client, daemon: PostFaultParts) {
    this.#client = client
    this.#daemon = daemon
  }

  /** The queue pair with this number, or the SRQ or CQ (EventKind.POLL) with this handle, of the request's context. */
  queueOf({
    context: number,
    queue,
    number: queueNumber,
  }: Pick<Request, 'context' | 'queue' | 'number'>): CoreObject | undefined {
    const { contexts } = this.#client
    const open = this.#daemon.contexts.byNumber(number)
    if (open === undefined || !contexts.has(open)) return undefined
    const { context } = open
    if (queue === PostQueue.SHARED || queue === EventKind.POLL) return findHandle(context.handles, queueNumber)
    const device = this.#daemon.devices.of(context.device)?.network
    const qp = device?.queues?.qpOfNumber(queueNumber)
    return qp?.context === context ? qp : undefined
  }

  /** Handles a message of type POST. */
  answer(): void {
    const daemon = this.#daemon
    const { request, outgoing, caller, process } = this.#client
    const { queue, number, wrId, opcode, tid, stack, length, inlined } = request
    const object = this.queueOf(request)
    const refused =
      object?.context &&
      caller.process &&
      daemon.faults.onPost(
        {
          context: object.context,
          object,
          qpn: queue === PostQueue.SHARED ? undefined : number,
          isSend: queue === PostQueue.SEND,
          opcode: opcode === UNKNOWN_OPCODE ? undefined : opcode,
          wrId,
          ...(length !== UNKNOWN_LENGTH && { length }),
          ...(inlined !== PostInline.UNKNOWN && { isInline: inlined === PostInline.YES }),
          stack: daemon.check?.stacks.of(process.pid, stack),
        },
        caller.process,
      )
    if (refused !== undefined) {
      if (this.#refused.size >= MAX_REFUSED) this.#refused.clear()
      this.#refused.set(tid, { queue, number, wrId })
    }
    this.#client.reply(writeCallReply(outgoing, request, refused === undefined ? 0 : -Errno[refused]))
  }

  /** Whether a fault rule has refused the request that a `refusedPost` is about. Forgets it. */
  take({ tid, queue, number, wrId }: Refused): boolean {
    const last = this.#refused.get(tid)
    if (last === undefined || last.queue !== queue || last.number !== number || last.wrId !== wrId) return false
    return this.#refused.delete(tid)
  }
}
