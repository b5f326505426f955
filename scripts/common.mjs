/*
 * What the scripts of this folder share: where the checkout is, how a step is announced and run, and how to look for
 * files. Plain Node without packages, since setup.mjs runs before any are installed. Syntax that old versions of Node
 * still parse, so that setup.mjs gets as far as saying which version is needed.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout's folder. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** A path below the checkout. */
export const inRoot = (...parts) => join(root, ...parts)

/** A failure that is explained: what failed, and what to do about it. The scripts print it without a stack. */
export class StepError extends Error {}

/** Says on standard error what the scripts do; the programs' own output goes to standard output. */
export const say = text => process.stderr.write(`userdma: ${text}\n`)

/** What stat(2) says; undefined for a file that does not exist or that we may not see. */
const look = path => {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

/** Milliseconds of last change; 0 for a file that does not exist. */
export const modified = path => {
  const found = look(path)
  return found ? found.mtimeMs : 0
}

/** Paths of all files below `folder` (absolute) for which `keep` says so, sorted; none if the folder does not exist. */
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

/** Full path of a program in PATH, or undefined. */
export const findProgram = name => {
  for (const folder of (process.env.PATH || '').split(':')) {
    const path = join(folder || '.', name)
    const found = look(path)
    if (found?.isFile() && found.mode & 0o111) return path
  }
  return undefined
}

/** Runs a program in the checkout with its output shown. True if it succeeded. */
export const run = (program, args, options = {}) => {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', ...options })
  if (error) say(`${program}: ${error.message}`)
  return status === 0
}

/** Runs a script's main function; an explained failure ends the process with status 1 and its sentence. */
export const main = async body => {
  try {
    process.exitCode = (await body(process.argv.slice(2))) || 0
  } catch (error) {
    if (!(error instanceof StepError)) throw error
    say(error.message)
    process.exitCode = 1
  }
}

/** Whether this module is the script that was started, not one that another imports. */
export const isMain = url => Boolean(process.argv[1]) && fileURLToPath(url) === realpathSync(process.argv[1])
