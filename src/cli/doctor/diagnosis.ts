/*
 * What `userdma doctor` says: diagnoses, each of one check. Every check has a section in docs/how-to/doctor.md.
 */

/** The checks by name, in the order of the output, with what they look at. */
export const doctorChecks = {
  node: 'Node.js and the processor',
  libraries: 'the preload libraries and native calls',
  library: 'a TypeScript program with a device in its own process',
  programs: 'an unmodified program with a device of a daemon',
  providers: 'libibverbs, its rxe provider, librdmacm, and programs of Debian',
  limits: 'limits of this process',
  kernel: 'whether the kernel lets the daemon reach memory of programs',
  container: 'the container around this process',
  udp: 'whether devices can have a network (`--link udp`)',
  environment: 'variables that programs inherit',
  daemon: 'your daemon',
  adapters: "the machine's own devices",
  program: 'a program that you name',
} as const

export type CheckName = keyof typeof doctorChecks

/** `note`: a fact; `limited`: something works in part; `fails`: something does not work. */
export type Verdict = 'ok' | 'note' | 'limited' | 'fails'

export interface Diagnosis {
  readonly check: CheckName
  readonly verdict: Verdict
  readonly text: string
  /** What to do. */
  readonly advice?: string | undefined
}

/** The diagnoses of one check. */
export const diagnoser =
  (check: CheckName) =>
  (verdict: Verdict, text: string, advice?: string): Diagnosis => ({ check, verdict, text, ...(advice && { advice }) })

/** The section of a check, for `userdma help`. */
export const pageOf = (check: CheckName): string => `how-to/doctor#${check}`
