/*
 * The machine files that userdma has, and the file that `--machine` names.
 */
import { existsSync, readdirSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { didYouMean } from '../../base/suggest.ts'
import { packageRoot } from '../paths.ts'

const FOLDER = join(packageRoot, 'examples', 'machines')
const ENDING = '.machine'

/** By their names. */
export const shippedMachines = (): ReadonlyMap<string, string> =>
  new Map(
    readdirSync(FOLDER)
      .filter(file => file.endsWith(ENDING))
      .sort()
      .map(file => [basename(file, ENDING), join(FOLDER, file)]),
  )

/** The absolute path of a machine file, or of the machine with this name. Throws an Error. */
export const machineFile = (name: string): string => {
  if (name.includes('/') || existsSync(name)) return resolve(name)
  const shipped = shippedMachines()
  const found = shipped.get(name)
  if (found !== undefined) return found
  const names = [...shipped.keys()]
  throw new Error(
    `machine "${name}": there is no such file, and no machine of this name; there are ${names.join(', ')}${didYouMean(name, names)}`,
  )
}
