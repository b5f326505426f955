/*
 * Commands as data, and the parser that is made of them.
 */
import { Command, Option } from 'commander'
import { UsageError } from '../fail.ts'
import { examples, type HelpText, helpLayout } from '../help-layout.ts'
import type { Kind } from './kinds.ts'
import { flagsOf, helpOf, type OptionSpec, type OptionSpecs, type OptionsOf, requireRules } from './option.ts'

/** What a command is called with. */
export interface Invocation<S> {
  readonly options: OptionsOf<S>
  /** The names of the options that were given, not those with defaults. */
  readonly given: ReadonlySet<string>
  /** Parses words as arguments and further options of the command. */
  parseAgain(words: readonly string[]): { readonly options: OptionsOf<S>; readonly words: readonly string[] }
  /** Wrong usage: ends with this message, and where the help is. */
  fail(message: string): never
}

export interface CommandSpec<S = OptionSpecs> {
  readonly description: string
  /** `<name>`, `[name]` or `[names...]`, and what it is. A command with `program` passes all that follows to it. */
  readonly arguments?: readonly (readonly [name: string, help: string, kind?: Kind<string>])[]
  readonly options?: S
  readonly examples?: readonly string[]
  /** Of the help, before the examples. */
  readonly text?: HelpText
  readonly commands?: Readonly<Record<string, CommandSpec>>
  /** Not shown. */
  readonly isHidden?: true
  /** What is said about wrong words, lines. */
  readonly remedy?: string
  /** `words`: its arguments; an optional one that is absent is undefined. */
  run?(invocation: Invocation<S>, ...words: string[]): Promise<void>
}

/** An option with its declaration. */
export class DeclaredOption extends Option {
  readonly spec: OptionSpec

  constructor(name: string, spec: OptionSpec) {
    super(flagsOf(name, spec), helpOf(spec))
    this.spec = spec
    const { kind, isRepeated, isHidden = false, isRequired = false, default: byDefault } = spec
    const flag = this.long ?? ''
    if (kind !== undefined)
      this.argParser<unknown>((text, before) =>
        isRepeated ? [...((before ?? []) as readonly unknown[]), kind.read(text, flag)] : kind.read(text, flag),
      )
    if (byDefault !== undefined) this.default(byDefault, String(byDefault))
    this.hideHelp(isHidden).makeOptionMandatory(isRequired)
  }
}

const addOptions = (command: Command, specs: OptionSpecs): void => {
  for (const [name, spec] of Object.entries(specs)) {
    const option = new DeclaredOption(name, spec)
    command.addOption(option)
    if (spec.refusal !== undefined)
      command.on(`option:${option.name()}`, () => {
        throw new UsageError(spec.refusal)
      })
  }
}

const givenOf = (command: Command): string[] =>
  Object.keys(command.opts()).filter(name => command.getOptionValueSource(name) === 'cli')

const invocationOf = (command: Command, specs: OptionSpecs): Invocation<OptionSpecs> => {
  const options = command.opts()
  const given = new Set(givenOf(command))
  requireRules(specs, given)
  return {
    options,
    given,
    fail: message => command.error(`error: ${message}`),
    parseAgain(words) {
      const again = new Command(command.name()).copyInheritedSettings(command).argument('[words...]')
      addOptions(again, specs)
      again.parse([...words], { from: 'user' })
      const further = givenOf(again)
      for (const name of further) given.add(name)
      requireRules(specs, given)
      const values = again.opts()
      return {
        options: { ...options, ...Object.fromEntries(further.map(name => [name, values[name]])) },
        words: again.args,
      }
    },
  }
}

const addCommand = (parent: Command, name: string, spec: CommandSpec, writeHelp: (text: string) => void): void => {
  const command = parent.command(name, { hidden: spec.isHidden ?? false }).description(spec.description)
  const { options = {}, remedy = '', run } = spec
  for (const [argument, help, kind] of spec.arguments ?? [])
    if (kind === undefined) command.argument(argument, help)
    else command.argument(argument, help, (text: string) => kind.read(text, argument))
  if (spec.arguments?.some(([argument]) => /^.program.$/.test(argument))) command.passThroughOptions()
  addOptions(command, options)
  const words = `${parent.parent === null ? '' : `${parent.name()} `}${name}`
  command.helpOption('-h, --help', 'print this help').configureOutput({
    writeOut: writeHelp,
    outputError: (text, write) =>
      write(`${text.replace(/^error: /, `userdma ${words}: `)}${remedy}see \`userdma ${words} --help\`\n`),
  })
  if (spec.text !== undefined) command.addHelpText('after', spec.text)
  if (spec.examples !== undefined) command.addHelpText('after', examples(...spec.examples))
  for (const [inner, innerSpec] of Object.entries(spec.commands ?? {})) addCommand(command, inner, innerSpec, writeHelp)
  if (run !== undefined) command.action(() => run(invocationOf(command, options), ...command.processedArgs.flat()))
}

/** The command line with these commands. */
export const commandLine = (
  description: string,
  commands: Readonly<Record<string, CommandSpec>>,
  shown: readonly string[],
  writeHelp: (text: string) => void,
): Command => {
  const program = new Command('userdma')
    .description(description)
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command, or a page: `userdma help pages` lists them')
    .configureHelp(helpLayout)
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'userdma: ')),
    })
    .addHelpText('after', examples(...shown))
  for (const [name, spec] of Object.entries(commands)) addCommand(program, name, spec, writeHelp)
  return program
}
