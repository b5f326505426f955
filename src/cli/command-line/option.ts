/*
 * Options as data: the name of a field is the option's, `recordDepth` that of `--record-depth`. The parser, the types
 * of options, help, completions, the manual page and the tables of docs/reference/cli.md come from them.
 */
import { UsageError } from '../fail.ts'
import { type Kind, valuesText } from './kinds.ts'

export interface OptionSpec<T = unknown> {
  /** What it does; may be '' for hidden ones. */
  readonly help: string
  /** Its letter: `o` of `-o`. */
  readonly short?: string
  /** The name of its value, as in `--output <file>`; absent: it has none. */
  readonly value?: string
  readonly kind?: Kind<unknown>
  /** Its value may be absent: then it is `true`. */
  readonly isOptional?: true
  /** It may be given several times. */
  readonly isRepeated?: true
  /** It is `--no-NAME`, and sets the option to false. */
  readonly isNegative?: true
  readonly isRequired?: true
  readonly default?: T
  /** Options of which one must be given too. */
  readonly needs?: readonly string[]
  /** What to do without them, as the end of a sentence. */
  readonly instead?: string
  /** Options that exclude it, with the reason. */
  readonly excludes?: Readonly<Record<string, string>>
  /** Not shown. */
  readonly isHidden?: true
  /** It always fails, with this sentence. */
  readonly refusal?: string
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>

type ValueOf<S> = S extends OptionSpec<infer T> ? T : never
type DefaultedOf<S> = { [K in keyof S]: S[K] extends { readonly default: unknown } ? K : never }[keyof S]

/** The options as the parser gives them; those without a default may be absent. */
export type OptionsOf<S> = {
  readonly [K in Exclude<keyof S, DefaultedOf<S>>]?: ValueOf<S[K]>
} & { readonly [K in DefaultedOf<S>]: ValueOf<S[K]> }

type Rules = Pick<OptionSpec, 'short' | 'needs' | 'instead' | 'excludes' | 'isHidden'>

export const flag = (help: string, rules: Rules = {}): OptionSpec<boolean> => ({ help, ...rules })

/** `--no-NAME`. */
export const negative = (help: string): OptionSpec<boolean> => ({ help, isNegative: true })

export const valued = <T>(value: string, kind: Kind<T>, help: string, rules: Rules = {}): OptionSpec<T> => ({
  help,
  value,
  kind,
  ...rules,
})

export const defaulted = <T>(
  value: string,
  kind: Kind<T>,
  by: NoInfer<T>,
  help: string,
  rules: Rules = {},
): OptionSpec<T> & { readonly default: T } => ({ help, value, kind, default: by, ...rules })

export const required = <T>(value: string, kind: Kind<T>, help: string): OptionSpec<T> & { readonly default: T } => ({
  help,
  value,
  kind,
  isRequired: true,
  // The parser refuses the command without it.
  default: undefined as T,
})

export const repeated = <T>(
  value: string,
  kind: Kind<T>,
  help: string,
  rules: Rules = {},
): OptionSpec<readonly T[]> => ({ help, value, kind, isRepeated: true, ...rules })

export const maybeValued = <T>(
  value: string,
  kind: Kind<T>,
  help: string,
  rules: Rules = {},
): OptionSpec<T | true> => ({
  help,
  value,
  kind,
  isOptional: true,
  ...rules,
})

/** Words of a name, as in an option. */
const flagName = (name: string): string => name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)

/** `--record`. */
export const flagOf = (name: string, { isNegative }: OptionSpec = { help: '' }): string =>
  `--${isNegative ? 'no-' : ''}${flagName(name)}`

/** As commander declares it: `-o, --output <file>`. */
export const flagsOf = (name: string, spec: OptionSpec): string => {
  const { short, value, isOptional } = spec
  const shown = value === undefined ? '' : isOptional ? ` [${value}]` : ` <${value}>`
  return `${short === undefined ? '' : `-${short}, `}${flagOf(name, spec)}${shown}`
}

/** Its help, without its default. */
export const helpOf = ({ help, kind, needs, isRepeated }: OptionSpec): string => {
  const condition = needs === undefined ? '' : `with ${needs.map(name => flagOf(name)).join(' or ')}: `
  return `${condition}${help}${kind === undefined ? '' : valuesText(kind)}${isRepeated ? '; may be given several times' : ''}`
}

/** `--record FILE`. */
const shownFlag = (name: string, spec: OptionSpec | undefined): string =>
  spec?.value === undefined || spec.isOptional
    ? flagOf(name, spec)
    : `${flagOf(name, spec)} ${spec.value.replace(/[^\w-].*/, '').toUpperCase()}`

/** Throws UsageError if options exclude each other, or lack another. `given`: the names of those that were given. */
export const requireRules = (specs: OptionSpecs, given: ReadonlySet<string>): void => {
  for (const [name, spec] of Object.entries(specs)) {
    if (!given.has(name)) continue
    const flag = flagOf(name, spec)
    const { needs, instead, excludes = {} } = spec
    for (const [other, reason] of Object.entries(excludes))
      if (given.has(other))
        throw new UsageError(`${flag} and ${flagOf(other, specs[other])} exclude each other: ${reason}`)
    if (needs !== undefined && !needs.some(other => given.has(other)))
      throw new UsageError(
        `${flag} is for ${needs.map(other => shownFlag(other, specs[other])).join(' or ')}${instead === undefined ? '' : `; ${instead}`}`,
      )
  }
}

/** The words that give a command these options; defaults need none. */
export const optionWords = (specs: OptionSpecs, options: Readonly<Record<string, unknown>>): string[] =>
  Object.entries(specs).flatMap(([name, spec]) => {
    const value = options[name]
    const flag = flagOf(name, spec)
    if (value === undefined || value === spec.default || value === (spec.isNegative === true)) return []
    if (spec.value === undefined || value === true) return [flag]
    const values = spec.isRepeated ? (value as readonly unknown[]) : [value]
    return values.flatMap(one => [flag, String(one)])
  })
