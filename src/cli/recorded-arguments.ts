/*
 * The arguments of `userdma check`: recordings to read, or a program to run.
 */
import type { Command } from 'commander'

/**
 * `check FILE…`: reads recordings, if all arguments are such files, or options that follow them. False: the argument is a
 * program, as after `--`. `again`: a command with the options of `command`, which ends at its first argument.
 */
export const readsFiles = async (
  name: string,
  args: readonly string[],
  command: Command,
  again: Command,
): Promise<boolean> => {
  const given = process.argv
  const at = given.indexOf('--')
  if (at >= 0 && at < given.indexOf(name)) return false
  const { checkFiles, isRecordingFile } = await import('./commands/check-files.ts')
  if (!isRecordingFile(name)) return false
  again.argument('<file...>').parse([name, ...args], { from: 'user' })
  const files = again.args
  const other = files.find(file => !isRecordingFile(file))
  if (other !== undefined) command.error(`error: "${other}" is neither a session file nor a capture`)
  const own = (one: Command): object =>
    Object.fromEntries(Object.entries(one.opts()).filter(([option]) => one.getOptionValueSource(option) === 'cli'))
  await checkFiles(files, { ...command.opts(), ...own(again) })
  return true
}
