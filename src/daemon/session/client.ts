/*
 * State that the parts of a session share (client-session.ts): the client, its message in progress, and the functions
 * that answer it.
 */
import type { Caller, MemoryAccount } from '../../core/model.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import type { Header, MessageBuffer, Request } from '../../uapi/session-codec.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { FdQuota } from '../fd-quota.ts'
import type { DaemonState } from '../state.ts'

/** A client of the daemon's own user, of another user that the daemon serves, or of a user that it does not serve. */
export type ClientStanding = 'owner' | 'guest' | 'refused'

/** Maximum number of event descriptors of a context: more than programs need, fewer than the daemon has. */
export const MAX_DESCRIPTORS = 8192

export interface Client {
  readonly daemon: DaemonState
  readonly process: ProcessHandle
  /** Its quota of descriptors. */
  readonly quota: FdQuota
  readonly account: MemoryAccount
  readonly standing: ClientStanding
  readonly caller: Caller
  /** The message in progress; the next one overwrites it. */
  readonly request: Request
  /** The buffer into which replies are written; all sessions share it. */
  readonly outgoing: MessageBuffer
  /** Contexts that the session may use, including closed ones. */
  readonly contexts: WeakSet<OpenContext>
  /** From HELLO: the tag of its traces, and whether the client wants the reasons of refusals. */
  tag: string
  wantsReasons: boolean
  /** The daemon can access its memory, or a file that it passed. */
  reachable: boolean
  closed: boolean
  /** The current name of its process, or the last known one. */
  name(): string
  /** Sends the first `length` bytes of `outgoing`, with descriptors. */
  reply(length: number, fds?: readonly number[]): void
  /** Answers a call with a failure; `reason` only if the client wants reasons. */
  refuse(to: Header, errno: number, reason?: string): void
  /** Returns a handler for exceptions of a call: the call fails with EIO, and the exception is logged. */
  failed(to: Header): (error: unknown) => void
  /** Does not read the client's next message until `sent` is settled. */
  answerLater(to: Header, sent: Promise<void>): void
}
