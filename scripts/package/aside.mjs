/*
 * A package gets its name when it is complete: it is made in a hidden folder beside the packages, and then renamed. An
 * interrupted run leaves its folder, which the next run removes. The folder's name has the id of the process: another
 * run that still makes packages keeps its own.
 */
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'

const NAME = /^\.making-(\d+)$/

const isOthers = pid => {
  if (pid === process.pid) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/**
 * The folder for packages in the making in `output`, which exists. `finish` gives a complete file its place, and
 * returns its path.
 */
export const openAside = output => {
  for (const name of readdirSync(output)) {
    const [, pid] = NAME.exec(name) ?? []
    if (pid !== undefined && !isOthers(Number(pid))) rmSync(join(output, name), { recursive: true })
  }
  const folder = join(output, `.making-${process.pid}`)
  mkdirSync(folder)
  return {
    folder,
    finish(file) {
      const path = join(output, basename(file))
      renameSync(file, path)
      return path
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  }
}
