/*
 * Passes the messages of a session for `userdma check` (STACK, REFUSED, REFUSAL, BATCH, ORDER, GONE, DIED, FORK, BENIGN,
 * UNMAP, LENDS, FINDINGS, DIRECT, END and those of `PreloadEvents` in spec/preload-events.ts) to the daemon's checker, if there is
 * one, and replies.
 */
import { preloadFields } from '../../spec/check/program-events.ts'
import { Errno } from '../../spec/errno.ts'
import { PreloadEvents, preloadEventNames } from '../../spec/preload-events.ts'
import { MessageType } from '../../spec/session.ts'
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
  const stackOfRequest = () => daemon.check?.stackOf(process.pid, request.stack)

  const preloadEvents = preloadEventNames.map(name => [
    PreloadEvents[name].type,
    () => {
      const context = contextOfRequest()
      const event = preloadFields(name, { ...request })
      if (context !== undefined)
        daemon.check?.preloadEvent(context, process, stackOfRequest() ?? [], event, request.age)
      reply(0)
    },
  ])

  return {
    ...Object.fromEntries(preloadEvents),
    /** Stores no stacks of other users' programs: printing a stack runs addr2line on files that the program chose. */
    [MessageType.STACK]() {
      const { pid, id, frames } = request
      const isWanted = daemon.check !== undefined && standing === 'owner'
      const hasSpace =
        !isWanted || daemon.check.defineStack(client, { pid: process.pid, namespacePid: pid }, id, frames)
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.REFUSED]() {
      const context = contextOfRequest()
      const isInjected = postFaults.take(request)
      if (context !== undefined && !isInjected)
        daemon.check?.refusedPost(context, stackOfRequest() ?? [], { ...request })
      reply(0)
    },
    [MessageType.REFUSAL]() {
      const { function: name, object, error, fact0, fact1, fact2, fact3 } = request
      const context = contextOfRequest()
      // The program names a channel by its descriptor.
      const channel = name === 'ibv_destroy_comp_channel' ? client.caller.descriptor?.(Number(object)) : undefined
      daemon.check?.refusedByLibrary(process.pid, context, stackOfRequest() ?? [], {
        function: name,
        object: channel === undefined ? object : BigInt(channel),
        errno: error,
        facts: [fact0, fact1, fact2, fact3],
      })
      reply(0)
    },
    [MessageType.GONE]() {
      daemon.check?.usedGone(process.pid, stackOfRequest() ?? [], { ...request })
      reply(0)
    },
    [MessageType.DIED]() {
      daemon.check?.died(process.pid, stackOfRequest() ?? [], request)
      reply(0)
    },
    [MessageType.BATCH]() {
      const context = contextOfRequest()
      const since = daemon.check?.stackOf(process.pid, request.since) ?? []
      if (context !== undefined) daemon.check?.batchMistaken(context, stackOfRequest() ?? [], since, { ...request })
      reply(0)
    },
    [MessageType.ORDER]() {
      const context = contextOfRequest()
      const since = daemon.check?.stackOf(process.pid, request.since) ?? []
      if (context !== undefined) daemon.check?.misordered(context, stackOfRequest() ?? [], since, { ...request })
      reply(0)
    },
    [MessageType.FORK]() {
      daemon.check?.forked(process.pid, stackOfRequest() ?? [])
      reply(0)
    },
    [MessageType.BENIGN]() {
      const hasSpace = daemon.check?.allowRaces(client, process.pid, request.address, request.length) ?? true
      reply(hasSpace ? 0 : -Errno.ENOSPC)
    },
    [MessageType.UNMAP]() {
      daemon.check?.unmaps(process.pid, stackOfRequest() ?? [], request)
      reply(0)
    },
    [MessageType.LENDS]() {
      reply(standing === 'owner' ? (daemon.check?.lends(process.pid, stackOfRequest() ?? [], request) ?? 0) : 0)
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
      const settled = daemon.untilContextsDestroyed(client.account.user).then(() => check.untilPeersAnswered())
      const answer = (): void => {
        // Also settles what is found late.
        const { length } = check.counts
        if (fresh !== 0 && from >= length) check.beginFresh()
        client.reply(writeFindingReply(outgoing, header, length, check.findings[from]))
      }
      client.answerLater(header, settled.then(answer))
    },
    [MessageType.DIRECT]() {
      daemon.check?.postsDirectly(process.pid, request.function)
      reply(0)
    },
    [MessageType.END]() {
      daemon.check?.ends(process.pid, contextOfRequest())
      reply(0)
    },
  }
}
