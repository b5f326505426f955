/*
 * What a host of checked programs, the daemon or the library, tells the producer of program events (check-client.ts).
 */

import type { Context, CoreObject } from '../../../core/model.ts'
import type { Program, Stack } from '../../../spec/check/finding.ts'
import type { ProgramProbes } from '../../../spec/check/probes.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import type { CheckerSources } from '../../check/detector.ts'

/** What the daemon or library provides. `CheckerSources`, for the checker, has the ids of contexts instead. */
export interface HostSources
  extends Pick<
    CheckerSources,
    | 'adapters'
    | 'buffers'
    | 'lent'
    | 'who'
    | 'tormentName'
    | 'findsWaits'
    | 'isClosed'
    | 'lockLimit'
    | 'lossTo'
    | 'isCopiedByFork'
    | 'privateFile'
    | 'unmapStack'
    | 'clock'
    | 'askPeer'
  > {
  /** An arena of SCRATCH_BYTES (spec/check/requests.ts). The driver reads programs' memory into it, for hashes. */
  readonly scratch: Arena
  /** Whether the calls and failures of a context are checked. */
  isChecked(context: Context): boolean
  /** The program of a context; undefined for the process that runs the checker. */
  program(context: Context): Program | undefined
  /** Captures the stack of the current call. The returned function returns the stack, also after the call. */
  callStack(): () => Stack
  /** The thread that makes the current call; undefined, or absent: unknown. */
  callThread?(): number | undefined
  /** As in `ProgramProbes`. `number`: the QPN, or the handle of the SRQ. */
  postStack(context: Context, queue: number, number: number, wrId: bigint, index?: number): Stack
  /** As in `ProgramProbes`. */
  postHash?(context: Context, request: WorkRequest): { readonly hash: number; readonly isWhole: boolean } | undefined
  /** Whether a signal ended the program of a context that is being closed. Absent: never. */
  wasKilled?(context: Context): boolean
  /** A context is about to be closed: no object is destroyed yet. May be called several times. */
  closing?(context: Context): void
  /** A program has closed a channel of a context that is open, or ends. */
  channelCloses?(context: Context, channel: CoreObject): void
  /** Gives the stream what programs have declared so far of lent memory. Absent: nobody declares, or by events. */
  readLends?(): void
  /** Why an address is in another subnet than one of this host; undefined: it is not, or that is not known. */
  otherSubnet?(own: Uint8Array, address: Uint8Array): string | undefined
  /** The event logs of programs. Absent: no search for races. */
  readonly events?: Required<Pick<ProgramProbes, 'logStack' | 'readLog'>>
}
