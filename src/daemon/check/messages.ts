/*
 * Passes the messages of a session for `userdma check` (STACK, REFUSED, REFUSAL, BATCH, ORDER, GONE, DIED, FORK, BENIGN,
 * UNMAP, LENDS, FINDINGS, DIRECT, END and those of `PreloadEvents` in spec/preload-events.ts) to the daemon's checker, if there is
 * one, and replies.
 */

import { constants as os } from 'node:os'
import { commandName } from '../../host/process-status.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { type ProgramEvent, preloadFields } from '../../spec/check/program-events.ts'
import { Errno } from '../../spec/errno.ts'
import { PreloadEvents, preloadEventNames } from '../../spec/preload-events.ts'
import { CM_NAME, MessageType } from '../../spec/session.ts'
import { headerOf, writeCallReply, writeFindingReply } from '../../uapi/session-codec.ts'
import type { Contexts } from '../context/contexts.ts'
import type { Client } from '../session/client.ts'
import type { PostFaults } from '../session/post-faults.ts'
import type { DaemonChecker } from './checker.ts'

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

  const senderNow = () => ({ pid: process.pid, command: commandName(process.pid) ?? '?' })

  const preloadEvents = preloadEventNames.map(name => [
    PreloadEvents[name].type,
    () => {
      const context = contextOfRequest()
      // The check of a fork reads the process's smaps. A guest (host/memory/guest.ts) could make the daemon wait there.
      const isRefused = process.guest !== undefined && name === 'forkedOutstanding'
      if (context !== undefined && door !== undefined && !isRefused) {
        // The detectors must see the posts and polls before the mistake, which is told late.
        door.scan(context)
        const origin = door.originOf(context)
        // Nanoseconds; the event's time is in microseconds.
        const time = origin.time - Number(request.age) / 1000
        const fields = preloadFields(name, { ...request })
        door.event({ ...fields, ...origin, stack: stackOfRequest(), time, program: senderNow() } as ProgramEvent)
      }
      reply(0)
    },
  ])

  /** Reads what the program has declared of lent memory. Returns how many requests of peers to the bytes are outstanding. */
  const expectFinished = (): number => {
    const { address, length } = request
    daemon.check?.lends.read()
    if (door === undefined || length === 0n) return 0
    const [start, end] = [Number(address), Number(address + length)]
    return door.expectsFinished({ pid: process.pid, start, end, stack: stackOfRequest() })
  }

  return {
    ...Object.fromEntries(preloadEvents),
    /** Stores no stacks of other users' programs: printing a stack runs addr2line on files that the program chose. */
    [MessageType.STACK]() {
      const { pid, id, frames } = request
      const isWanted = daemon.check !== undefined && standing === 'owner'
      const hasSpace =
        !isWanted || daemon.check.stacks.define(client, { pid: process.pid, namespacePid: pid }, id, frames)
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.REFUSED]() {
      const context = contextOfRequest()
      const isInjected = postFaults.take(request)
      if (context !== undefined && door !== undefined && !isInjected)
        door.event({
          event: 'refusedPost',
          ...request,
          ...door.originOf(context),
          stack: stackOfRequest(),
          request: { ...request },
        })
      reply(0)
    },
    [MessageType.REFUSAL]() {
      const { function: name, object, error, fact0, fact1, fact2, fact3 } = request
      const context = contextOfRequest()
      // The program names a channel by its descriptor.
      const channel = name === 'ibv_destroy_comp_channel' ? client.caller.descriptor?.(Number(object)) : undefined
      door?.event({
        event: 'refusedByLibrary',
        function: name,
        object: channel === undefined ? object : BigInt(channel),
        errno: error,
        facts: [fact0, fact1, fact2, fact3],
        ...(context === undefined
          ? { time: door.now(), device: CM_NAME, deviceNumber: -1, context: undefined }
          : door.originOf(context)),
        program: senderNow(),
        stack: stackOfRequest(),
      })
      reply(0)
    },
    [MessageType.GONE]() {
      const { age, destroyed, owner, function: name, kind, number, use } = request
      const time = door?.now() ?? 0
      door?.event({
        event: 'usedGone',
        ...{ function: name, kind, number, use },
        time,
        program: senderNow(),
        isOwner: owner !== 0,
        stack: stackOfRequest(),
        // `age` is in nanoseconds, `time` in microseconds.
        destroyedAt: time - Number(age) / 1000,
        destroyedStack: stackWith(destroyed),
        value: age,
      })
      reply(0)
    },
    [MessageType.DIED]() {
      const { signal, ours, fault, address, function: lastCall } = request
      door?.event({
        event: 'died',
        time: door.now(),
        program: senderNow(),
        signal: signalName(signal),
        isInOurs: ours !== 0,
        stack: stackOfRequest(),
        lastCall,
        fault,
        address,
      })
      reply(0)
    },
    [MessageType.BATCH]() {
      const context = contextOfRequest()
      const since = stackWith(request.since)
      if (context !== undefined && door !== undefined)
        door.event({ event: 'batchMistaken', ...request, ...door.originOf(context), stack: stackOfRequest(), since })
      reply(0)
    },
    [MessageType.ORDER]() {
      const context = contextOfRequest()
      const since = stackWith(request.since)
      if (context !== undefined && door !== undefined)
        door.event({ event: 'misordered', ...request, ...door.originOf(context), stack: stackOfRequest(), since })
      reply(0)
    },
    [MessageType.FORK]() {
      door?.event({ event: 'forked', pid: process.pid, stack: stackOfRequest() })
      reply(0)
    },
    [MessageType.BENIGN]() {
      const hasSpace = daemon.check?.door.allowRaces(client, process.pid, request.address, request.length) ?? true
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.UNMAP]() {
      daemon.check?.unmappings.add(process.pid, stackOfRequest(), request)
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
    [MessageType.DIRECT]() {
      door?.event({ event: 'postsDirectly', pid: process.pid, name: request.function })
      reply(0)
    },
    [MessageType.END]() {
      daemon.check?.ends.told(process.pid, contextOfRequest())
      reply(0)
    },
  }
}
