/* Logs of users: files, folders, tar archives, each also as gzip or zstd, and standard input. */
import { type Dirent, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type LogBytes, logsIn, NO_LOG, type Reading, type Unread } from '../tools/logs/archive.ts'
import { openCapture, plainBytes, startOf, startsCapture } from './capture-file.ts'
import { UsageError } from './fail.ts'

/** An argument of the command: `node1=FILE` has a host. */
export interface NamedFile {
  readonly name: string
  readonly host?: string
}

/** A log that is read now. `read` of `size` bytes are the archive's or file's, for progress. */
interface OpenLog extends LogBytes {
  readonly host: string | undefined
  readonly read: () => number
  readonly size: number
  /** Why the bytes ended before their end. */
  readonly damage: () => string | undefined
}

/** Files in a folder, at most. */
const MAX_FILES = 100_000

/** The files below a folder, in the order of their names. */
const below = (folder: string, unread: Unread[]): readonly string[] => {
  const files: string[] = []
  const visit = (path: string): void => {
    let entries: Dirent[]
    try {
      entries = readdirSync(path, { withFileTypes: true })
    } catch (error) {
      unread.push({ name: path, reason: String((error as NodeJS.ErrnoException).code) })
      return
    }
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (files.length >= MAX_FILES)
        throw new UsageError(`"${folder}" has more than ${MAX_FILES} files: give a folder of logs`)
      const name = join(path, entry.name)
      if (entry.isDirectory()) visit(name)
      else if (entry.isFile() && !NO_LOG.test(entry.name)) files.push(name)
    }
  }
  visit(folder)
  return files
}

/** The files that arguments mean, folders with what is in them, as far as they can be read. Throws UsageError. */
export const filesOf = (named: readonly NamedFile[], unread: Unread[]): readonly NamedFile[] =>
  named.flatMap(({ name, host }) => {
    if (name === '-' || !statSync(name).isDirectory()) return [{ name, ...(host !== undefined && { host }) }]
    const files = below(name, unread)
    if (files.length === 0 && unread.length === 0) throw new UsageError(`"${name}" has no files that are logs`)
    return files.map(file => ({ name: file, ...(host !== undefined && { host }) }))
  })

type Content = 'log' | 'capture' | 'recording'

/** What a file has, by its first bytes; by its name if that says it. Throws UsageError if it cannot be read. */
export const contentOf = async (name: string): Promise<Content> => {
  if (/\.udr$/i.test(name)) return 'recording'
  if (/\.(?:pcap(?:ng)?|cap|dmp|erf|ntar|snoop)(?:\.(?:gz|zst))?\d*$/i.test(name)) return 'capture'
  const start = await startOf(name)
  return startsCapture(start) ? 'capture' : 'log'
}

/** Opens one log after the other. What cannot be read is added to `unread`. */
export const openLogs = async function* (files: readonly NamedFile[], unread: Unread[]): AsyncGenerator<OpenLog> {
  for (const { name, host } of files) {
    const reading: Reading = { unpack: plainBytes, unread }
    const { chunks, read, size } = await openCapture(name, reason => {
      reading.damage ??= reason
    })
    for await (const log of logsIn(name === '-' ? 'standard input' : name, chunks, reading))
      yield { ...log, host, read, size, damage: () => reading.damage }
  }
}
