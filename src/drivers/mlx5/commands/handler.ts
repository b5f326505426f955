/*
 * What a handler of a firmware command gets and returns; table.ts lists the handlers, execute.ts runs them. An object
 * that a command creates is of class `devx_obj`. If it is an object of the model, too, such as a queue pair, that one
 * is its `target`, made by core/dispatch/owned.ts, and commands about it get the target: so a handler serves queues of
 * verbs and of commands alike.
 */
import type { CallContext, CoreObject } from '../../../core/model.ts'
import type { CommandName, Commands, FirmwareCommand } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import type { PartOf, RecordOf, Struct } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import { type Syndrome, type SyndromeName, Syndromes } from './status.ts'

/** The device refuses a command. */
export class CommandRefused extends Error {
  readonly syndrome: Syndrome
  constructor(syndrome: Syndrome, detail: string) {
    super(`${syndrome.text}: ${detail}`)
    this.syndrome = syndrome
  }
}

/** Refuses the command. `detail`: the field with its value, and what is allowed. */
export const refuseCommand = (syndrome: SyndromeName, detail: string): never => {
  throw new CommandRefused(Syndromes[syndrome], detail)
}

/** State of a `devx_obj`. */
export interface DevxObject {
  /** The command that created it. */
  readonly command: CommandName
  readonly number: number
  readonly target: CoreObject | undefined
  /** Of objects without target. */
  readonly own: unknown
  /** Ends what the device has for it, before its target is destroyed. Cannot refuse. */
  readonly end: ((call: CallContext) => void) | undefined
}

type InputOf<C> = C extends { readonly in: infer S extends Struct } ? RecordOf<S> : never
type OutputOf<C> = C extends { readonly out: infer S extends Struct } ? PartOf<S> : never

/** A command as its handler gets it. */
export interface Given<C> {
  readonly call: CallContext
  readonly input: InputOf<C>
  readonly opMod: number
  /** The whole input. */
  readonly bytes: Uint8Array
  /** Bytes of the program's buffer for the output. */
  readonly outBytes: number
}

/** What a create handler returns. */
export interface Made<C> {
  /** With the object's number. */
  readonly out: OutputOf<C>
  readonly target?: CoreObject
  readonly own?: unknown
  readonly end?: (call: CallContext) => void
}

/** The object of a command. */
export interface Subject {
  /** The target of a `devx_obj`, or an object of verbs; without target the `devx_obj`. */
  readonly object: CoreObject
  /** Of a `devx_obj`. */
  readonly own: unknown
}

/** A handler with its types erased. `object`: the `devx_obj` that a create makes. */
type AnyCommandHandler = (
  given: Given<never>,
  object: CoreObject,
  subject: Subject | undefined,
) => unknown | Promise<unknown>

export type CommandHandlers = ReadonlyMap<number, AnyCommandHandler>

type Supported<M> = {
  [K in CommandName]: (typeof Commands)[K] extends { readonly method: M; readonly in: Struct }
    ? (typeof Commands)[K]
    : never
}[CommandName]

type Entry = readonly [number, AnyCommandHandler]
const entry = (command: FirmwareCommand, run: unknown): Entry => [command.opcode, run as AnyCommandHandler]

export const creation = <C extends Supported<'create'>>(
  command: C,
  run: (given: Given<C>, object: CoreObject) => Made<C> | Promise<Made<C>>,
): Entry => entry(command, run)

export const generalCommand = <C extends Supported<'general'>>(
  command: C,
  run: (given: Given<C>) => OutputOf<C>,
): Entry => entry(command, run)

/** A command about an object: `modify` or `query`. */
export const objectCommand = <C extends Supported<'modify' | 'query'>>(
  command: C,
  run: (given: Given<C>, subject: Subject) => OutputOf<C> | Promise<OutputOf<C>>,
): Entry => entry(command, (given: Given<C>, _object: CoreObject, subject: Subject) => run(given, subject))
