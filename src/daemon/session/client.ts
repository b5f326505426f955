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

/**
 * The client's user is the daemon's own (`owner`), another one that the daemon serves (`guest`), or one that it does
 * not serve (`refused`).
 */
export type ClientStanding = 'owner' | 'guest' | 'refused'

/** Maximum number of event and driver descriptors, or of rdma_cm channels, of a context: more than programs need. */
export const MAX_DESCRIPTORS = 8192

export interface Client {
  readonly daemon: DaemonState
  readonly process: ProcessHandle
  /** The process's quota of the daemon's descriptors. */
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
  /** From HELLO: the tag by which traces select the client's calls, and whether it wants the reasons of refusals. */
  tag: string
  wantsReasons: boolean
  /** Whether arguments of calls are accessible: in the process's memory, or in the memory file passed with HELLO. */
  isReachable: boolean
  /** Whether the session has ended. */
  isClosed: boolean
  /** The current name of the process, or the last known one. */
  name(): string
  /** Sends the first `length` bytes of `outgoing`, with descriptors. Ends the session if that fails. */
  reply(length: number, fds?: readonly number[]): void
  /** Answers a call with an errno, and with the reason if the client wants reasons. */
  refuse(header: Header, errno: number, reason?: string): void
  /** Returns a handler for an exception of a call: it logs the exception, and answers EIO. */
  failureHandler(header: Header): (error: unknown) => void
  /** Does not read the client's next message until `answered` is settled; answers EIO if it is rejected. */
  answerLater(header: Header, answered: Promise<void>): void
}
