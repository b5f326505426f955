/*
 * Helpers of the scripts, without npm packages: setup-steps.mjs runs before packages are installed.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, realpathSync, statSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isatty, WriteStream } from 'node:tty'
import { fileURLToPath } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

export const inRoot = (...parts) => join(root, ...parts)

/** A failure whose message has the cause and the remedy. The scripts print it without a stack. */
export class StepError extends Error {}

/** Prints to standard error. Standard output is for programs that the scripts run. */
export const say = text => process.stderr.write(`userdma: ${text}\n`)

/** Milliseconds between two lines of progress where they cannot be rewritten in place. */
const INTERVAL = 10_000

/**
 * Progress of a long step on standard error: one line that is rewritten on a terminal, elsewhere a line every 10 s.
 * `end` removes the line; before any other output.
 */
export const progressLine = () => {
  const isTerminal = isatty(2)
  const columns = (isTerminal && new WriteStream(2).columns) || 80
  let last = performance.now()
  return {
    show(text) {
      // Without process.stderr, whose output in a thread waits for the main thread.
      if (isTerminal) return writeSync(2, `\r${`userdma: ${text}`.slice(0, columns - 1)}\x1b[K`)
      if (performance.now() - last < INTERVAL) return
      last = performance.now()
      writeSync(2, `userdma: ${text}\n`)
    },
    end() {
      if (isTerminal) writeSync(2, '\r\x1b[K')
    },
  }
}

/** stat(2), or undefined if the file is not accessible. */
const statOf = path => {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

/** Modification time in milliseconds; 0 for a file that does not exist. */
export const modified = path => statOf(path)?.mtimeMs ?? 0

/** Sorted paths of all files below `folder` (absolute) that `keep` accepts; none if the folder does not exist. */
export const filesBelow = (folder, keep) => {
  if (!existsSync(folder)) return []
  const found = []
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) found.push(...filesBelow(path, keep))
    else if (keep(path)) found.push(path)
  }
  return found.sort()
}

/** The full path of a program in PATH, or undefined. */
export const findProgram = name => {
  for (const folder of (process.env.PATH ?? '').split(':')) {
    const path = join(folder || '.', name)
    const stat = statOf(path)
    if (stat?.isFile() && stat.mode & 0o111) return path
  }
  return undefined
}

/** Runs a program in the checkout, and shows its output. True on success. */
export const run = (program, args, options = {}) => {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', ...options })
  if (error) say(`${program}: ${error.message}`)
  return status === 0
}

/** As `run`, beside other work. */
export const runBeside = async (program, args, options = {}) => {
  const child = spawn(program, args, { cwd: root, stdio: 'inherit', ...options })
  return once(child, 'close').then(
    ([status]) => status === 0,
    error => {
      say(`${program}: ${error.message}`)
      return false
    },
  )
}

/** Runs a script's main function; its result is the exit status. A StepError is printed, and the status is 1. */
export const main = async body => {
  try {
    process.exitCode = (await body(process.argv.slice(2))) || 0
  } catch (error) {
    if (!(error instanceof StepError)) throw error
    say(error.message)
    process.exitCode = 1
  }
}

/** True if the module was started as a script, not imported. */
export const isMain = url => Boolean(process.argv[1]) && fileURLToPath(url) === realpathSync(process.argv[1])
