/*
 * What the parts of a session share (client-session.ts): the client, its message in progress, and how to answer it.
 */
import type { Caller, MemoryAccount } from '../../core/model.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import type { Header, MessageBuffer, Request } from '../../uapi/session-codec.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { FdQuota } from '../fd-quota.ts'
import type { DaemonState } from '../state.ts'

/** A client of the daemon's own user, of another user that it serves, or of one that it does not serve. */
export type ClientStanding = 'owner' | 'guest' | 'refused'

/** Maximum event descriptors of a context: more than programs need, fewer than the daemon has. */
export const MAX_DESCRIPTORS = 8192

export interface Client {
  readonly daemon: DaemonState
  readonly process: ProcessHandle
  /** Its quota of descriptors. */
  readonly share: FdQuota
  readonly account: MemoryAccount
  readonly standing: ClientStanding
  readonly caller: Caller
  /** The message in progress; the next one overwrites it. */
  readonly request: Request
  /** Where replies are written; all sessions share it. */
  readonly outgoing: MessageBuffer
  /** Contexts that the session may use, including closed ones. */
  readonly contexts: WeakSet<OpenContext>
  /** From HELLO: the tag of its traces, and whether it requests the reasons of refusals. */
  tag: string
  wantsReasons: boolean
  /** Its memory, or the file that it passed, is accessible. */
  reachable: boolean
  closed: boolean
  /** The name of its process now, or the last known one. */
  name(): string
  /** Sends the first `length` bytes of `outgoing`, with descriptors. */
  reply(length: number, fds?: readonly number[]): void
  /** Answers a call with a failure; `reason` only if the client wants reasons. */
  refuse(to: Header, errno: number, reason?: string): void
  /** The handler of exceptions of a call: it fails with EIO, and the log has the stack. */
  failed(to: Header): (error: unknown) => void
  /** The client's next message waits until `sent` is settled. */
  answerLater(to: Header, sent: Promise<void>): void
}
