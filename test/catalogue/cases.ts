/*
 * Programs as users call them, with options that are named anywhere and options that are not: the rows of
 * docs/reference/programs.md. A row is a program alone or a server and its client. What does not work says why, and
 * the test fails when it works after all.
 */
import type { RdmacmCase } from '../system/rdmacm.ts'

/** Whose programs are run: those of the machine, and those of a newer release in a folder of their own. */
export const userlands = ['Debian 12', 'Debian 13'] as const
export type Userland = (typeof userlands)[number]

export interface ProgramCase extends Omit<RdmacmCase, 'server'> {
  /** Absent: `client` is a program alone. */
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

/** As it is called, for titles and for the page. */
export const titleOf = ({ server, client }: ProgramCase): string =>
  server === undefined ? client : `${server} | ${client}`

export const alone = (client: string, fails?: ProgramCase['fails']): ProgramCase => ({
  client,
  ...(fails !== undefined && { fails }),
})

/** A case with more properties. */
export const but = (one: ProgramCase, more: Partial<ProgramCase>): ProgramCase => ({ ...one, ...more })
