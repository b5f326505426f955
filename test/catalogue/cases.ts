/*
 * Programs as users call them, with documented and undocumented option combinations: the rows of
 * docs/reference/programs.md. A row is a single program or a server and its client. A case that does not work gives the
 * reason, and the test fails if it works nevertheless.
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
  readonly only?: Userland
}

/** Why a case fails in a userland; undefined if it works. */
export const reasonOf = ({ fails }: ProgramCase, userland: Userland): string | undefined =>
  typeof fails === 'string' ? fails : fails?.[userland]

export const isIn = ({ only }: ProgramCase, userland: Userland): boolean => only === undefined || only === userland

/** The command line, for titles and for the page. */
export const titleOf = ({ server, client }: ProgramCase): string =>
  server === undefined ? client : `${server} | ${client}`

export const singleProgram = (client: string, fails?: ProgramCase['fails']): ProgramCase => ({
  client,
  ...(fails !== undefined && { fails }),
})

/** The case with other or more properties. */
export const withProperties = (programCase: ProgramCase, more: Partial<ProgramCase>): ProgramCase => ({
  ...programCase,
  ...more,
})
