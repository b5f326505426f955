/*
 * The programs and options that are tested: the sections of docs/reference/programs.md, except that of pyverbs.
 */
import type { ProgramCase } from './cases.ts'
import { perftestPrograms } from './perftest-cases.ts'
import { rdmacmPrograms } from './rdmacm-cases.ts'
import { diagsPrograms, ibverbsPrograms, iproutePrograms } from './verbs-cases.ts'

interface Section {
  /** The Debian package. */
  readonly name: string
  readonly cases: readonly ProgramCase[]
}

export const catalogue: readonly Section[] = [
  { name: 'rdmacm-utils', cases: rdmacmPrograms },
  { name: 'ibverbs-utils', cases: ibverbsPrograms },
  { name: 'infiniband-diags', cases: diagsPrograms },
  { name: 'perftest', cases: perftestPrograms },
  { name: 'iproute2', cases: iproutePrograms },
]
