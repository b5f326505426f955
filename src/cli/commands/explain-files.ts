/* `userdma explain FILE…`: logs, captures and recordings, in any mixture. Each kind has its own report. */
import { statSync } from 'node:fs'
import { jsonText, printable } from '../../spec/printable.ts'
import type { Unread } from '../../tools/logs/archive.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { explainOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'
import { contentOf, filesOf, type NamedFile } from '../log-files.ts'

type ExplainOptions = OptionsOf<typeof explainOptions>

/** The exit status if something could not be read. */
const UNREAD = 2

/** Options that only captures have. */
const PACKETS = ['port', 'host', 'qp', 'from', 'until'] as const

/** Throws UsageError if nothing can be read. `fail`: of the command line. */
export const explainFiles = async (
  named: readonly NamedFile[],
  options: ExplainOptions,
  fail: (message: string) => never,
): Promise<void> => {
  if (options.redact && (options.json || options.html !== undefined))
    fail(`--redact writes the log itself, and --${options.json ? 'json objects' : 'html a page'} of the report`)
  const unread: Unread[] = []
  const files = filesOf(named, unread)
  const kinds = { log: [] as NamedFile[], capture: [] as NamedFile[], recording: [] as NamedFile[] }
  // A pipe is looked into last: opening one waits for its writer, and captures read each file twice.
  const isPipe = ({ name }: NamedFile): boolean => name !== '-' && !statSync(name).isFile()
  for (const file of [...files.filter(one => !isPipe(one)), ...files.filter(isPipe)])
    try {
      kinds[isPipe(file) && kinds.capture.length > 0 ? 'capture' : await contentOf(file.name)].push(file)
    } catch (error) {
      if (!(error instanceof UsageError) || files.length === 1) throw error
      unread.push({ name: file.name, reason: error.message })
    }
  const { log, capture, recording } = kinds
  if (log.length > 0 && capture.length === 0) {
    const option = PACKETS.find(name => options[name] !== undefined)
    if (option !== undefined) fail(`--${option} is for captures, and ${log[0]!.name} is a log`)
  }
  if (log.length === 0 && (options.quiet || options.redact || options.html !== undefined))
    fail('--quiet, --html and --redact are for logs')
  const separate = (isFirst: boolean): void => void (isFirst || options.json || process.stdout.write('\n'))
  if (log.length > 0) await (await import('./explain-log.ts')).explainLogs(log, options, unread)
  if (unread.length > 0) {
    process.exitCode = UNREAD
    for (const { name, reason } of unread) {
      process.stderr.write(`userdma: not read: ${printable(`${name}: ${reason}`)}\n`)
      if (options.json) process.stdout.write(`${jsonText({ kind: 'unread', file: name, reason })}\n`)
    }
  }
  if (options.redact || options.quiet) return
  if (capture.length > 0) {
    separate(log.length === 0)
    await (await import('./explain-capture.ts')).explainCaptures(
      capture.map(({ name }) => name),
      options,
    )
  }
  for (const [i, { name }] of recording.entries()) {
    separate(log.length + capture.length + i === 0)
    await (await import('./explain-slow.ts')).explainSlow(name, options)
  }
}
