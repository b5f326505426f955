/*
 * `userdma completion`: scripts that complete the command line in bash, zsh and fish, made from the declarations that
 * `--help` shows.
 */
import type { Command, Help, Option } from 'commander'
import { DeclaredOption } from '../command-line/command.ts'
import type { OptionSpec } from '../command-line/option.ts'
import { UsageError } from '../fail.ts'

/** A command of the command line, as the scripts need it. */
interface Completed {
  /** Its words after `userdma`; none for userdma itself. */
  readonly words: readonly string[]
  readonly description: string
  readonly options: readonly Option[]
  readonly commands: readonly Completed[]
  /** Whether it runs a program, whose arguments follow. */
  readonly hasProgram: boolean
  /** Names of its arguments before the program, which then follows `--`. */
  readonly before: readonly string[]
}

const describe = (command: Command, help: Help, words: readonly string[] = []): Completed => ({
  ...programOf(command.registeredArguments.map(argument => argument.name())),
  words,
  description: firstSentence(help.subcommandDescription(command)),
  options: help.visibleOptions(command),
  commands: help
    .visibleCommands(command)
    .filter(inner => inner.name() !== 'help')
    .map(inner => describe(inner, help, [...words, inner.name()])),
})

const programOf = (names: readonly string[]): Pick<Completed, 'hasProgram' | 'before'> => {
  const hasProgram = names.includes('program')
  return { hasProgram, before: hasProgram ? names.slice(0, names.indexOf('program')) : [] }
}

/** Without apostrophes and brackets, which the shells would interpret. */
const firstSentence = (text: string): string => (/^[^.;(]*/.exec(text)?.[0] ?? '').replaceAll(/['`[\]:]/g, '').trim()

const flatten = (command: Completed): readonly Completed[] => [command, ...command.commands.flatMap(flatten)]

const flagsOf = ({ short, long }: Option): readonly string[] => [short, long].filter(flag => flag !== undefined)

/** The name of an option's value: `path` of `--socket <path>`. */
const valueName = ({ flags }: Option): string | undefined => /[<[]([\w-]+)/.exec(flags)?.[1]

const kindOf = (option: Option): OptionSpec['kind'] => (option instanceof DeclaredOption ? option.spec.kind : undefined)
const isFile = (option: Option): boolean => kindOf(option)?.isPath === true
/** The values of an option, if it has one of a few. */
const valuesOf = (option: Option): readonly string[] => Object.keys(kindOf(option)?.values ?? {})

/** A name of a shell function. */
const functionOf = ({ words }: Completed): string => ['_userdma', ...words].join('_')

const bash = (root: Completed): string => {
  const all = flatten(root)
  const key = ({ words }: Completed): string => words.join(' ')
  const withValue = (keep: (option: Option) => boolean): string =>
    all
      .flatMap(command =>
        command.options.filter(keep).flatMap(option => flagsOf(option).map(flag => `"${key(command)}/${flag}"`)),
      )
      .join('|')
  const programs = all.filter(({ hasProgram }) => hasProgram).map(key)
  const first = all.filter(({ hasProgram, before }) => hasProgram && before.length === 0).map(key)
  const descents = all
    .filter(({ words }) => words.length > 0)
    .map(
      command =>
        `      "${command.words.slice(0, -1).join(' ')}/${command.words.at(-1)}") command="${key(command)}" ;;`,
    )
  const valuesText = (option: Option): string => (option.required ? valuesOf(option).join(' ') : '')
  const valueCases = [...new Set(all.flatMap(({ options }) => options.map(valuesText)))]
    .filter(values => values !== '')
    .map(
      values =>
        `      ${withValue(option => valuesText(option) === values)}) COMPREPLY=($(compgen -W "${values}" -- "$current")) ;;`,
    )
  const words = all.map(
    command =>
      `    "${key(command)}") words="${[...command.commands.map(inner => inner.words.at(-1)), ...command.options.flatMap(flagsOf)].join(' ')}" ;;`,
  )
  return `# Completion of userdma for bash, made by \`userdma completion bash\`.
_userdma_program() {
  if declare -F _comp_command_offset >/dev/null; then _comp_command_offset "$1"
  elif declare -F _command_offset >/dev/null; then _command_offset "$1"
  else COMPREPLY=($(compgen -c -- "\${COMP_WORDS[COMP_CWORD]}"))
  fi
}
_userdma() {
  local current=\${COMP_WORDS[COMP_CWORD]} command= option= words= i word
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ -n $option ]]; then option=; continue; fi
    case "$command/$word" in
${descents.join('\n')}
      ${withValue(option => option.required)}) option="$command/$word" ;;
      ${programs.map(name => `"${name}/--"`).join('|')}) _userdma_program $((i + 1)); return ;;
      ${first.map(name => `"${name}/"-*`).join('|')}) ;;
      ${first.map(name => `"${name}/"*`).join('|')}) _userdma_program "$i"; return ;;
    esac
  done
  if [[ -n $option ]]; then
    case $option in
      ${withValue(option => option.required && isFile(option))}) COMPREPLY=($(compgen -f -- "$current")) ;;
${valueCases.join('\n')}
    esac
    return
  fi
  case $command in
${words.join('\n')}
  esac
  case "$command/$current" in
    ${first.map(name => `"${name}/"-*`).join('|')}) ;;
    ${first.map(name => `"${name}/"*`).join('|')}) _userdma_program "$COMP_CWORD"; return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o filenames -F _userdma userdma
`
}

/** A specification of `_arguments`. An optional value is left out. */
const zshOption = (option: Option): string => {
  const value = option.required ? valueName(option) : undefined
  const flags = flagsOf(option).map(flag =>
    value === undefined ? flag : `${flag}${flag.startsWith('--') ? '=' : '+'}`,
  )
  const argument =
    value === undefined
      ? ''
      : `:${value}:${isFile(option) ? '_files' : valuesOf(option).length > 0 ? `(${valuesOf(option).join(' ')})` : ' '}`
  return `'*'${flags.length > 1 ? `{${flags.join(',')}}` : flags[0]}'[${firstSentence(option.description)}]${argument}'`
}

const zsh = (root: Completed): string => {
  const functions = flatten(root).map(command => {
    const options = command.options.map(zshOption)
    const rest = command.hasProgram
      ? [
          ...command.before.map((name, i) => `'${i + 1}:${name}: '`),
          `'(-)${command.before.length + 1}:program:_command_names -e'`,
          "'*::argument:_normal'",
        ]
      : command.commands.length > 0
        ? ["'1:command:->command'", "'*::argument:->argument'"]
        : []
    const lines = [`  _arguments -S -C ${[...options, ...rest].join(' \\\n    ')}`]
    if (command.commands.length > 0) {
      const listed = command.commands.map(inner => `'${inner.words.at(-1)}:${inner.description}'`)
      const cases = command.commands.map(inner => `        ${inner.words.at(-1)}) ${functionOf(inner)} ;;`)
      lines.push(
        '  case $state in',
        `    command) local -a commands=(${listed.join(' ')}); _describe command commands ;;`,
        `    argument)\n      case $words[1] in\n${cases.join('\n')}\n      esac ;;`,
        '  esac',
      )
    }
    return `${functionOf(command)}() {\n  local state line\n${lines.join('\n')}\n}`
  })
  return `#compdef userdma\n# Completion of userdma for zsh, made by \`userdma completion zsh\`.\n${functions.join('\n')}\n_userdma "$@"\n`
}

const fish = (root: Completed): string => {
  const lines = flatten(root).flatMap(command => {
    const seen = command.words.map(word => `__fish_seen_subcommand_from ${word}`)
    const names = command.commands.map(inner => inner.words.at(-1)).join(' ')
    const isHere = [...seen, ...(names === '' ? [] : [`not __fish_seen_subcommand_from ${names}`])].join('; and ')
    const complete = `complete -c userdma -n '${isHere}'`
    return [
      ...command.commands.map(inner => `${complete} -a ${inner.words.at(-1)} -d '${inner.description}'`),
      ...command.options.map(option => {
        const names = [option.short && ` -s ${option.short.slice(1)}`, option.long && ` -l ${option.long.slice(2)}`]
        const values = valuesOf(option)
        const value = !option.required
          ? ''
          : isFile(option)
            ? ' -r -F'
            : ` -x${values.length > 0 ? ` -a '${values.join(' ')}'` : ''}`
        return `${complete}${names.filter(Boolean).join('')}${value} -d '${firstSentence(option.description)}'`
      }),
      ...(command.hasProgram ? [`${complete} -a '(__fish_complete_subcommand)'`] : []),
    ]
  })
  return `# Completion of userdma for fish, made by \`userdma completion fish\`.\ncomplete -c userdma -f\n${lines.join('\n')}\n`
}

const SHELLS: Readonly<Record<string, (root: Completed) => string>> = { bash, zsh, fish }

/** The command. `program`: the whole command line. */
export const completion = (shell: string, program: Command): void => {
  const script = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined
  if (script === undefined)
    throw new UsageError(`there is no completion for "${shell}"; there is for ${Object.keys(SHELLS).join(', ')}`)
  process.stdout.write(script(describe(program, program.createHelp())))
}
