/*
 * The counters of ports as files, where Linux has them: `hw_counters` and `counters` below each port of the tree that
 * programs read (tree.ts). The values must be true when a program reads them, and a daemon that does nothing must cost
 * nothing: so they are written when the shim says that a program is about to read (REFRESH, spec/session.ts), and only
 * those that have changed. As on Linux, values younger than `lifespan` milliseconds are not renewed, so that reading
 * all files renews them once; programs may write that file.
 *
 * A file is replaced by one that is complete, so that no reader ever sees half of a number. One that cannot be (the disk
 * is full) is removed: no reader sees a number that is not true any more. Which counters there are is
 * spec/counters.ts' business.
 */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type CounterFolder, counterValues } from '../../spec/counters.ts'
import { makeFolder, replaceFile } from './tree-files.ts'

/** What one device's counters are made from, by name as in spec/counters.ts. */
export interface CountedDevice {
  readonly name: string
  counted(): { readonly engine: Readonly<Record<string, number>>; readonly port: Readonly<Record<string, number>> }
}

export interface CounterFiles {
  /** One more device, whose folder is in the tree; one less. */
  add(device: CountedDevice): void
  remove(name: string): void
  /** Brings the files of all devices up to date. Throws what the system says of the first that cannot be. */
  refresh(): void
}

const folders: readonly CounterFolder[] = ['hw_counters', 'counters']
/** Milliseconds, as Linux begins with; the most that it takes. */
const LIFESPAN = 10
const LONGEST_LIFESPAN = 10_000

/**
 * Makes the files in the tree at `root`; they can be read by all, and but for `lifespan` written by nobody. `now`:
 * milliseconds of any clock that only goes forward.
 */
export const createCounterFiles = (
  root: string,
  devices: readonly CountedDevice[],
  now: () => number,
): CounterFiles => {
  const folderOf = (device: CountedDevice, folder: CounterFolder): string =>
    join('sys/class/infiniband', device.name, 'ports/1', folder)
  const write = (path: string, value: number, mode: number): void => replaceFile(root, path, `${value}\n`, mode)
  const partOf = (device: CountedDevice): (() => void) => {
    const lifespan = join(folderOf(device, 'hw_counters'), 'lifespan')
    for (const folder of folders) makeFolder(join(root, folderOf(device, folder)))
    write(lifespan, LIFESPAN, 0o644)
    const shown = new Map<string, number>()
    let since = Number.NEGATIVE_INFINITY

    /** What stands in the file; nonsense is replaced by what was there before. */
    let known = LIFESPAN
    const readLifespan = (): number => {
      const text = readFileSync(join(root, lifespan), 'utf8').trim()
      if (/^\d+$/.test(text) && Number(text) <= LONGEST_LIFESPAN) known = Number(text)
      else write(lifespan, known, 0o644)
      return known
    }
    const renew = (): void => {
      const { engine, port } = device.counted()
      const errors: unknown[] = []
      for (const folder of folders)
        for (const [name, value] of Object.entries(counterValues(folder, engine, port))) {
          const path = join(folderOf(device, folder), name)
          if (shown.get(path) === value) continue
          try {
            write(path, value, 0o444)
            shown.set(path, value)
          } catch (error) {
            errors.push(error)
            shown.delete(path)
            rmSync(join(root, path), { force: true })
          }
        }
      if (errors.length > 0) throw errors[0]
    }
    return (): void => {
      const time = now()
      if (time - since < readLifespan()) return
      renew()
      since = time
    }
  }
  const parts = new Map<string, () => void>()
  const add = (device: CountedDevice): void => {
    const part = partOf(device)
    parts.set(device.name, part)
    part()
  }
  for (const device of devices) add(device)
  return {
    add,
    remove(name) {
      parts.delete(name)
    },
    refresh() {
      for (const part of parts.values()) part()
    },
  }
}
