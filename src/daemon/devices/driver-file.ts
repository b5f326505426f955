/*
 * Loads drivers from files, for `userdma daemon --driver FILE` (docs/how-to/drivers.md). A driver runs in the daemon
 * with all its rights, so its file must be as trusted as the daemon's own: nobody else may be able to write or replace
 * it. The same goes for what it imports (driver-modules.ts).
 */
import { realpathSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import type { RegisteredDriver } from '../../core/driver-contract.ts'
import { registeredDrivers } from '../../drivers/registered.ts'
import { exposureOf, guardModules } from './driver-modules.ts'

/** Names of devices begin with the name, and a number usually follows. */
const NAME = /^[a-z][a-z_]{0,31}$/

const isDriver = (value: unknown): value is RegisteredDriver => {
  const { name, id, classes, createDevice } = (value ?? {}) as Partial<Record<keyof RegisteredDriver, unknown>>
  const isNamed = typeof name === 'string' && NAME.test(name)
  return isNamed && Number.isInteger(id) && Array.isArray(classes) && typeof createDevice === 'function'
}

/** Loads one file. Throws an Error with a message for people. */
const loadDriver = async (path: string): Promise<RegisteredDriver> => {
  const refuse = (reason: string, cause?: unknown): Error => new Error(`--driver "${path}": ${reason}`, { cause })
  if (!path.endsWith('.mjs')) throw refuse('a driver is a module of JavaScript, whose name ends with .mjs')
  let file: string
  let reason: string | undefined
  try {
    file = realpathSync(path)
    reason = exposureOf(file)
  } catch (error) {
    throw refuse((error as Error).message, error)
  }
  if (reason !== undefined)
    throw refuse(`${reason}, so it could be changed by them; a driver must be a file that only you and root can write`)
  let module: { readonly driver?: unknown }
  guardModules()
  try {
    module = await import(pathToFileURL(file).href)
  } catch (error) {
    throw refuse(`it cannot be loaded: ${error instanceof Error ? error.message : String(error)}`, error)
  }
  const { driver } = module
  if (!isDriver(driver))
    throw refuse(
      'it exports no `driver` with a `name` of small letters and underscores, an `id`, `classes`, and a function `createDevice(core, name, site)`',
    )
  return driver
}

/** Loads drivers. Throws an Error with a message for people. */
export const loadDrivers = async (paths: readonly string[]): Promise<readonly RegisteredDriver[]> => {
  const drivers: RegisteredDriver[] = []
  for (const path of paths) {
    const driver = await loadDriver(path)
    const { name } = driver
    const other = [...registeredDrivers, ...drivers].find(one => one.name.startsWith(name) || name.startsWith(one.name))
    if (other !== undefined)
      throw new Error(`--driver "${path}": its name "${name}" cannot be told from that of driver ${other.name}`)
    drivers.push(driver)
  }
  return drivers
}
