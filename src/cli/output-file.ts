/*
 * Output files of commands (host/output-file.ts). A file that cannot be opened is a usage error, and so is a file that
 * the command also reads.
 */
import { closeSync, fstatSync, lstatSync, realpathSync, type Stats, statSync, writeSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { waitWritable } from '../host/event-loop/wait.ts'
import { holdFile, removeHeld } from '../host/held-file.ts'
import { createResultFile, emptyOutputFile, openOutputFile, type ResultFile } from '../host/output-file.ts'
import { beforeEndBySignal } from './end-signals.ts'
import { UsageError } from './fail.ts'

const orUsageError = <T>(open: () => T): T => {
  try {
    return open()
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** The files that this process has created, by name, each held by a descriptor (held-file.ts). */
const created = new Map<string, number>()

/** Removes the created files that are empty: the command ended before there was anything to write. */
const removeEmpty = (): void => {
  for (const [name, held] of created) if (fstatSync(held).size === 0) removeHeld(name, held)
  created.clear()
}

const noteCreated = (name: string): void => {
  if (created.size === 0) {
    process.once('exit', removeEmpty)
    beforeEndBySignal(removeEmpty)
  }
  created.set(name, holdFile(name))
}

/**
 * A file that is written in place: its descriptor, as `openOutputFile`. A new file is removed at the end of this
 * process if it is still empty, unless `keepEmpty`. Throws UsageError with a message.
 */
export const openInPlace = (name: string): number => {
  const isNew = lstatSync(name, { throwIfNoEntry: false }) === undefined
  const fd = orUsageError(() => openOutputFile(name))
  if (isNew && fstatSync(fd).isFile()) noteCreated(resolve(name))
  return fd
}

/** A new file stays, also if it is empty: what belongs in it is complete. */
const keepEmpty = (name: string): void => {
  const held = created.get(resolve(name))
  created.delete(resolve(name))
  if (held !== undefined) closeSync(held)
}

/** A file for a result, as `createResultFile`. Throws UsageError with a message. */
export const createResult = (name: string): ResultFile => orUsageError(() => createResultFile(name))

/**
 * The path without symbolic links in its folder. The last name stays: an output file that is a symbolic link is
 * refused.
 */
const pathOf = (name: string): string => {
  try {
    return join(realpathSync(dirname(resolve(name))), basename(name))
  } catch {
    return resolve(name)
  }
}

/** The file's stat; undefined if there is none, or if this user may not search its folder. */
const statOf = (name: string): Stats | undefined => {
  try {
    return statSync(name)
  } catch {
    return undefined
  }
}

/** A file with what the user calls it: an option, for example. `name` undefined: the option is not set. */
export type NamedFile = readonly [what: string, name: string | undefined]

const requireDifferent = ([what, name]: NamedFile, [otherWhat, otherName]: NamedFile): void => {
  if (name === undefined || otherName === undefined) return
  const stat = statOf(name)
  const other = statOf(otherName)
  // /dev/stdout and /dev/fd/1 are two names of one file.
  const isSame = stat && other ? stat.dev === other.dev && stat.ino === other.ino : pathOf(name) === pathOf(otherName)
  if (!isSame || stat?.isFile() === false) return
  throw new UsageError(`${what} and ${otherWhat} are the same file ${name}`)
}

/**
 * Throws UsageError if an output is the same file as another output, or as an input, by whatever names: one would
 * overwrite what the other has. Devices and FIFOs may be named twice.
 */
export const requireDifferentFiles = (outputs: readonly NamedFile[], inputs: readonly NamedFile[] = []): void => {
  for (const [i, output] of outputs.entries())
    for (const other of [...outputs.slice(i + 1), ...inputs]) requireDifferent(output, other)
}

/** A program and its arguments, as inputs. An argument may name a file. */
export const programFiles = (program: string, args: readonly string[]): NamedFile[] => [
  ['the program', program.includes('/') ? program : undefined],
  ...args.map((arg): NamedFile => ['the argument of the program', arg === '' ? undefined : arg]),
]

/** Text output of a command that runs a program. */
export interface Output {
  /**
   * Never throws: reports the first failure to write a file on standard error, and drops later text. That the reader of
   * a pipe has closed it is no failure.
   */
  write(text: string): void
  /** Whether a write failed. */
  readonly hasFailed: boolean
  /** The output is complete, also if it is empty: a new file stays. */
  close(): void
}

/** `put` throws an Error. */
const outputOf = (name: string | undefined, put: (text: string) => void, close: () => void): Output => {
  let hasFailed = false
  return {
    write(text) {
      if (hasFailed) return
      try {
        put(text)
      } catch (error) {
        hasFailed = true
        if (name !== undefined)
          process.stderr.write(
            `userdma: cannot write to ${name}: ${(error as NodeJS.ErrnoException).code}; the rest is missing\n`,
          )
      }
    },
    get hasFailed() {
      return hasFailed
    },
    close,
  }
}

const STDERR = 2

/**
 * The output of a command that runs a program: the file, which is written in place, or standard error. An older file is
 * emptied by the first write, or by `close`. Throws UsageError.
 */
export const openOutput = (name: string | undefined): Output => {
  if (name === undefined)
    return outputOf(
      name,
      text => writeAll(STDERR, text),
      () => {},
    )
  const fd = openInPlace(name)
  let isEmptied = false
  const empty = (): void => {
    if (!isEmptied) emptyOutputFile(fd)
    isEmptied = true
  }
  const put = (text: string): void => {
    empty()
    writeAll(fd, text)
  }
  return outputOf(name, put, () => {
    empty()
    keepEmpty(name)
    closeSync(fd)
  })
}

/** A report that one `write` writes as a whole: a result. Throws UsageError. */
export const openReport = (name: string): Pick<Output, 'write' | 'hasFailed'> => {
  const result = createResult(name)
  return outputOf(
    name,
    text => {
      try {
        writeAll(result.open(), text)
        result.commit()
      } catch (error) {
        result.discard()
        throw error
      }
    },
    () => {},
  )
}

/** Writes everything, and waits while a pipe is full. If the reader of the pipe has closed it, the rest is dropped. */
export const writeAll = (fd: number, data: string | Uint8Array): void => {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(fd, bytes, written)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      // The command continues without this output.
      if (code === 'EPIPE') return
      if (code !== 'EAGAIN') throw error
      waitWritable(fd)
    }
  }
}
