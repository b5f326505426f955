/*
 * The arguments of `userdma check`: recordings to read, or a program to run.
 */
import type { Invocation } from './command-line/command.ts'
import type { checkOptions } from './command-line/options.ts'

/**
 * `check FILE…`: reads recordings, if all arguments are such files, or options that follow them. False: the argument is
 * a program, as after `--`.
 */
export const readsFiles = async (
  name: string,
  args: readonly string[],
  { given, parseAgain, fail }: Invocation<typeof checkOptions>,
): Promise<boolean> => {
  const words = process.argv
  const at = words.indexOf('--')
  if (at >= 0 && at < words.indexOf(name)) return false
  const { checkFiles, isRecordingFile } = await import('./commands/check-files.ts')
  if (!isRecordingFile(name)) return false
  const { words: files, options } = parseAgain([name, ...args])
  const other = files.find(file => !isRecordingFile(file))
  if (other !== undefined) fail(`"${other}" is neither a session file nor a capture`)
  await checkFiles(files, options, given)
  return true
}
