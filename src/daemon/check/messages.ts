/*
 * Passes the messages of a session for `userdma check` to the daemon's checker, if there is one, and replies: the
 * events of `PreloadEvents` (spec/preload-events.ts), all by one function, and STACK, BENIGN, UNMAP, TOLD, LENDS,
 * FINDINGS and END.
 */

import { constants as os } from 'node:os'
import type { Context } from '../../core/model.ts'
import { commandName } from '../../host/process-status.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { type ProgramEvent, preloadFields } from '../../spec/check/program-events.ts'
import { Errno } from '../../spec/errno.ts'
import {
  type PreloadEventRow,
  PreloadEvents,
  type PreloadMessageName,
  preloadMessageNames,
} from '../../spec/preload-events.ts'
import { CM_NAME, EventKind, MessageType, PostQueue } from '../../spec/session.ts'
import { headerOf, writeCallReply, writeFindingReply } from '../../uapi/session-codec.ts'
import type { Contexts } from '../context/contexts.ts'
import type { Client } from '../session/client.ts'
import type { PostFaults } from '../session/post-faults.ts'
import type { DaemonChecker } from './checker.ts'
import type { CheckerDoor } from './door.ts'

/** What the messages are passed to. */
interface CheckParts {
  readonly contexts: Contexts
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
  /** Resolves when the objects of the user's already closed contexts are destroyed. */
  untilContextsDestroyed(user: number): Promise<void>
}

const signalName = (number: number): string =>
  Object.entries(os.signals).find(([, value]) => value === number)?.[0] ?? `signal ${number}`

/** Returns the functions that handle the client's current request, by message type. */
export const createCheckMessages = (
  client: Client,
  daemon: CheckParts,
  postFaults: PostFaults,
): Readonly<Record<number, () => void>> => {
  const { process, standing, request, outgoing } = client
  const reply = (ret: number): void => client.reply(writeCallReply(outgoing, request, ret))
  const contextOfRequest = () => {
    const open = daemon.contexts.byNumber(request.context)
    return open !== undefined && client.contexts.has(open) ? open.context : undefined
  }
  const door = daemon.check?.door
  const stackWith = (id: number): Stack => daemon.check?.stacks.of(process.pid, id) ?? []
  const stackOfRequest = (): Stack => stackWith(request.stack)

  const resolveAt = (time: number): Parameters<typeof preloadFields>[2] => ({
    stack: id => stackWith(Number(id)),
    ago: nanoseconds => time - Number(nanoseconds) / 1000,
    signal: number => signalName(Number(number)),
    handle(object) {
      const isDescriptor = request.function === 'ibv_destroy_comp_channel'
      const channel = isDescriptor ? client.caller.descriptor?.(Number(object)) : undefined
      return BigInt(channel ?? (object as bigint))
    },
  })

  /**
   * The detectors must see the posts and polls before the mistake, which is told late: there may be very many queues.
   */
  const scan = (door: CheckerDoor, context: Context, about: NonNullable<PreloadEventRow['about']>): void => {
    if (about === 'mr' || about === 'context') {
      door.scan(context)
      return
    }
    const queue = about === 'qp' ? PostQueue.SEND : about === 'cq' ? EventKind.POLL : request.queue
    const found = postFaults.queueOf({ ...request, queue })
    if (found !== undefined) door.scanQueue(found)
  }

  const passOn = (name: PreloadMessageName): void => {
    const { context: needed, about, layout }: PreloadEventRow = PreloadEvents[name]
    const context = needed === 'none' ? undefined : contextOfRequest()
    // The check of a fork reads the process's smaps. A guest (host/memory/guest.ts) could make the daemon wait there.
    if (name === 'forkedOutstanding' && process.guest !== undefined) return
    if (name === 'refusedPost' && postFaults.take(request)) return
    if (door === undefined || (context === undefined && needed === undefined)) return
    if (context !== undefined && about !== undefined) scan(door, context, about)
    const { pid } = process
    const ofProcess = needed === 'none' ? { pid } : { device: CM_NAME, deviceNumber: -1, context: undefined }
    const origin = context === undefined ? { ...ofProcess, time: door.now() } : door.originOf(context)
    // Posts may be refused often, and the name of a program is read from /proc: that of the context is known.
    const owner = needed === undefined && about === undefined && 'program' in origin ? origin.program : undefined
    const isLate = layout.fields.some(field => field.name === 'age')
    door.event({
      ...preloadFields(name, { ...request }, resolveAt(origin.time)),
      ...origin,
      // `age` is in nanoseconds, `time` in microseconds.
      time: isLate ? origin.time - Number(request.age) / 1000 : origin.time,
      program: owner?.pid === pid ? owner : { pid, command: commandName(pid) ?? '?' },
      stack: stackOfRequest(),
    } as ProgramEvent)
  }

  /**
   * Reads what the program has declared of lent memory. Returns how many requests of peers to the bytes are
   * outstanding.
   */
  const expectFinished = (): number => {
    const { address, length } = request
    daemon.check?.lends.read()
    if (door === undefined || length === 0n) return 0
    const [start, end] = [Number(address), Number(address + length)]
    return door.expectsFinished({ pid: process.pid, start, end, stack: stackOfRequest() })
  }

  return {
    ...Object.fromEntries(
      preloadMessageNames.map(name => [
        PreloadEvents[name].type,
        () => {
          passOn(name)
          reply(0)
        },
      ]),
    ),
    /** Stores no stacks of other users' programs: printing a stack runs addr2line on files that the program chose. */
    [MessageType.STACK]() {
      const { pid, id, frames } = request
      const isWanted = daemon.check !== undefined && standing === 'owner'
      const hasSpace =
        !isWanted || daemon.check.stacks.define(client, { pid: process.pid, namespacePid: pid }, id, frames)
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.BENIGN]() {
      const hasSpace = daemon.check?.door.allowRaces(client, process.pid, request.address, request.length) ?? true
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.UNMAP]() {
      daemon.check?.unmappings.add(process.pid, stackOfRequest(), request)
      reply(0)
    },
    [MessageType.TOLD]() {
      const program = { pid: process.pid, command: commandName(process.pid) ?? '?' }
      if (door !== undefined && standing === 'owner') {
        door.scan()
        door.event({ event: 'told', time: door.now(), program, stack: stackOfRequest(), text: request.told })
      }
      reply(0)
    },
    [MessageType.LENDS]() {
      reply(standing === 'owner' ? expectFinished() : 0)
    },
    [MessageType.FINDINGS]() {
      const { check } = daemon
      const header = headerOf(request)
      const { from, fresh } = request
      if (check === undefined || standing !== 'owner') {
        client.reply(writeFindingReply(outgoing, header, -Errno.ENOSYS))
        return
      }
      // What has ended may have findings too.
      const settled = daemon.untilContextsDestroyed(client.account.user).then(() => check.hosts.untilAnswered())
      const answer = (): void => {
        // Also settles what is found late.
        const { length } = check.door.counts
        if (fresh !== 0 && from >= length) check.door.beginFresh()
        client.reply(writeFindingReply(outgoing, header, length, check.door.findings[from]))
      }
      client.answerLater(header, settled.then(answer))
    },
    [MessageType.END]() {
      daemon.check?.ends.told(process.pid, contextOfRequest())
      reply(0)
    },
  }
}
