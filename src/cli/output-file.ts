/*
 * Output files of commands (host/output-file.ts). A file that cannot be opened is a usage error.
 */
import { closeSync, fstatSync, realpathSync, type Stats, statSync, writeSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { waitWritable } from '../host/event-loop/wait.ts'
import { removeHeld } from '../host/held-file.ts'
import { createOutputFile } from '../host/output-file.ts'
import { beforeEndBySignal } from './end-signals.ts'
import { UsageError } from './fail.ts'

/** Names of the files that do not stay yet, by descriptor. */
const unfinished = new Map<number, string>()

/** Whether `removeUnfinished` is called at the end of this process. */
let isCleaning = false

const removeUnfinished = (): void => {
  for (const [fd, name] of unfinished) removeHeld(name, fd)
  unfinished.clear()
}

/** Closes a file of `createOutput`, and removes it unless it stays. */
export const closeOutput = (fd: number): void => {
  const name = unfinished.get(fd)
  unfinished.delete(fd)
  if (name !== undefined) removeHeld(name, fd)
  closeSync(fd)
}

/** The file stays: it is complete, or what is still written into it completes it. */
export const keepOutput = (fd: number): void => void unfinished.delete(fd)

/**
 * Creates an empty file, or opens a device or FIFO, for writing; returns its descriptor. The file is removed if this
 * process ends before `keepOutput`. Throws UsageError with a message.
 */
export const createOutput = (name: string): number => {
  try {
    const fd = createOutputFile(name)
    if (!fstatSync(fd).isFile()) return fd
    if (!isCleaning) {
      process.once('exit', removeUnfinished)
      beforeEndBySignal(removeUnfinished)
      isCleaning = true
    }
    unfinished.set(fd, name)
    return fd
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/**
 * The path without symbolic links in its folder. The last name stays: `createOutput` refuses a file that is a symbolic
 * link.
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

/**
 * Throws UsageError if two options name one file: each would overwrite what the other has written. Devices and FIFOs
 * may be named twice.
 */
export const requireDifferentFiles = (
  [option, name]: readonly [option: string, name: string | undefined],
  [otherOption, otherName]: readonly [option: string, name: string | undefined],
): void => {
  if (name === undefined || otherName === undefined) return
  const stat = statOf(name)
  const other = statOf(otherName)
  // /dev/stdout and /dev/fd/1 are two names of one file.
  const isSame = stat && other ? stat.dev === other.dev && stat.ino === other.ino : pathOf(name) === pathOf(otherName)
  if (!isSame || stat?.isFile() === false) return
  throw new UsageError(`${option} and ${otherOption} name the same file ${name}`)
}

/** Text output of a command that runs a program. */
export interface Output {
  /**
   * Never throws: reports the first failure to write a file on standard error, and drops later text. That the reader of
   * a pipe has closed it is no failure.
   */
  write(text: string): void
  /** Whether a write failed. */
  readonly hasFailed: boolean
  /** As `keepOutput`. */
  keep(): void
  close(): void
}

const STDERR = 2

/** The output of a command that runs a program: the file, or standard error. Throws UsageError as `createOutput`. */
export const openOutput = (name: string | undefined): Output => {
  const fd = name === undefined ? STDERR : createOutput(name)
  let hasFailed = false
  return {
    write(text) {
      if (hasFailed) return
      try {
        writeAll(fd, text)
      } catch (error) {
        hasFailed = true
        if (fd !== STDERR)
          process.stderr.write(
            `userdma: cannot write to ${name}: ${(error as NodeJS.ErrnoException).code}; the rest is missing\n`,
          )
      }
    },
    get hasFailed() {
      return hasFailed
    },
    keep: () => keepOutput(fd),
    close() {
      if (fd !== STDERR) closeOutput(fd)
    },
  }
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
