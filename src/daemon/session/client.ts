/*
 * What the parts of a session share (client-session.ts): the client, its current message, and functions to answer it.
 */
import type { Account, Caller, FdObject } from '../../core/model.ts'
import type { ProcessHandle } from '../../host/memory/process.ts'
import type { Reason } from '../../spec/reason.ts'
import type { Header, MessageBuffer, Request } from '../../uapi/session-codec.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { ToolShare } from '../tool-time.ts'
import type { Adoptions } from './adoptions.ts'

/**
 * `owner`: the daemon's own user; `guest`: another user that the daemon serves, or its own user in a container
 * (`confinementOf`). Others get no session.
 */
export type ClientStanding = 'owner' | 'guest'

/** Maximum number of descriptors of a context: event and driver descriptors, or rdma_cm channels. */
export const MAX_DESCRIPTORS = 8192

export interface Client {
  readonly process: ProcessHandle
  readonly account: Account
  readonly standing: ClientStanding
  /** Of a guest: the uid whose share it uses. */
  readonly guest: number | undefined
  /** For requests of tools and netlink. */
  readonly time: ToolShare
  readonly caller: Caller
  /** The current message. The next message overwrites it. */
  readonly request: Request
  /** The buffer for replies, which all sessions share. */
  readonly outgoing: MessageBuffer
  /** Pages of its program that the client shares with devices. */
  readonly adoptions: Adoptions
  /** The contexts that the session opened or attached (ATTACH), and so may use. */
  readonly contexts: WeakSet<OpenContext>
  /** The channels of rdma_cm and umad files that the session opened. */
  readonly channels: WeakSet<FdObject>
  /** From HELLO, may be empty: traces select calls by the tag. */
  tag: string
  /** From HELLO: whether the client wants the reasons of refusals. */
  wantsReasons: boolean
  /**
   * Whether the daemon can read arguments of calls: in the memory of the process, or in the memory file that the
   * process passed with HELLO (../memory/passed-memory.ts).
   */
  isReachable: boolean
  isClosed: boolean
  /** Of the process. It ends with the session, also at exec(2). */
  readonly life: { readonly hasEnded: boolean }
  /** The memory file of one of its contexts holds so many bytes more than it should. Ends the session. */
  filled(surplus: number): void
  /** The current or last known name of the process. */
  name(): string
  /**
   * Sends the first `length` bytes of `outgoing`, with descriptors. If that fails, ends the session. No effect if the
   * session has ended.
   */
  reply(length: number, fds?: readonly number[]): void
  /** Answers a call with -`errno`, and with the reason if the client wants reasons. */
  refuse(header: Header, errno: number, reason?: Reason): void
  /** Returns a handler for an exception of a call. The handler logs the exception and answers EIO. */
  failureHandler(header: Header): (error: unknown) => void
  /** Reads no message of the client until `answered` is settled. If `answered` is rejected, answers EIO. */
  answerLater(header: Header, answered: Promise<void>): void
}
