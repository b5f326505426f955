/*
 * A case of the catalogue: a program as users call it, alone or as server and client, a row of
 * docs/reference/programs.md. A case that does not work has the reason, and its test fails if it works.
 */
import type { RdmacmCase } from '../system/rdmacm/rdmacm.ts'

/** Where the programs come from: this machine, or a newer Debian release in its own folder. */
export const userlands = ['Debian 12', 'Debian 13'] as const
export type Userland = (typeof userlands)[number]

export interface ProgramCase extends Omit<RdmacmCase, 'server'> {
  /** Absent: `client` is a single program. */
  readonly server?: string
  /** Why it does not work, in one userland or in both. */
  readonly fails?: string | Partial<Readonly<Record<Userland, string>>>
  /** The only userland whose program has these options. */
  readonly onlyIn?: Userland
}

/** Why a case fails in a userland; undefined: it works. */
export const reasonOf = ({ fails }: ProgramCase, userland: Userland): string | undefined =>
  typeof fails === 'string' ? fails : fails?.[userland]

/** Whether a case is run in a userland. */
export const isRunIn = ({ onlyIn }: ProgramCase, userland: Userland): boolean =>
  onlyIn === undefined || onlyIn === userland

/** The command lines, as the title of a test. */
export const titleOf = ({ server, client }: ProgramCase): string =>
  server === undefined ? client : `${server} | ${client}`

export const singleProgram = (client: string, fails?: ProgramCase['fails']): ProgramCase => ({
  client,
  ...(fails !== undefined && { fails }),
})

/** A copy of the case with these properties. */
export const withProperties = (programCase: ProgramCase, properties: Partial<ProgramCase>): ProgramCase => ({
  ...programCase,
  ...properties,
})
