/*
 * A case of the catalogue: a program, alone or as server and client. It is a row of docs/reference/programs.md.
 */
import type { RdmacmCase } from '../../system/rdmacm/rdmacm.ts'

/** This machine, or a newer Debian release in a folder. */
export const userlands = ['Debian 12', 'Debian 13'] as const
export type Userland = (typeof userlands)[number]

export interface ProgramCase extends Omit<RdmacmCase, 'server'> {
  /** Absent: `client` is a single program. */
  readonly server?: string
  /** The reason of a failure, in one userland or in both; the test fails if the case works. */
  readonly fails?: string | Partial<Readonly<Record<Userland, string>>>
  /** The other userland's program lacks these options. */
  readonly onlyIn?: Userland
}

/** Why the case fails; undefined: it works. */
export const reasonOf = ({ fails }: ProgramCase, userland: Userland): string | undefined =>
  typeof fails === 'string' ? fails : fails?.[userland]

export const isRunIn = ({ onlyIn }: ProgramCase, userland: Userland): boolean =>
  onlyIn === undefined || onlyIn === userland

/** The title of a test. */
export const titleOf = ({ server, client }: ProgramCase): string =>
  server === undefined ? client : `${server} | ${client}`

export const singleProgram = (client: string, fails?: ProgramCase['fails']): ProgramCase => ({
  client,
  ...(fails !== undefined && { fails }),
})

export const withProperties = (programCase: ProgramCase, properties: Partial<ProgramCase>): ProgramCase => ({
  ...programCase,
  ...properties,
})
