/*
 * The counters of ports (spec/counters.ts) as files with Linux's paths: `hw_counters` and `counters` of each port in
 * the tree (tree.ts).
 *
 * The files are updated when the shim reports that a program is about to read them (REFRESH, spec/session.ts), so that
 * an idle daemon does no work. As in Linux's `hw_counters`, values younger than `lifespan` milliseconds are not
 * renewed, and programs may write `lifespan`.
 *
 * Files are replaced atomically, so that readers never see part of a number. If a write fails, the file is removed, so
 * that no outdated number stays.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { LayerCounts } from '../../core/driver-contract.ts'
import { type CounterFolder, counterValues } from '../../spec/counters.ts'
import { portFolder, type TreeDevice } from './tree.ts'
import { linkFile, makeFolder, replaceFile } from './tree-files.ts'

/** Counters have the names of spec/counters.ts. */
export interface CountedDevice extends Pick<TreeDevice, 'name' | 'pci'> {
  /** The current values. */
  counted(): LayerCounts
}

interface CounterFiles {
  /** Creates the files of a device. Throws the system's error. */
  add(device: CountedDevice): void
  /** Stops updating the files of a device; leaves the files. */
  remove(name: string): void
  /** Updates the files of all devices, then throws the system's first error, if any. */
  refresh(): void
}

const folders: readonly CounterFolder[] = ['hw_counters', 'counters']
/** Milliseconds: Linux's default. */
const DEFAULT_LIFESPAN = 10
/** The maximum that a program may write, in milliseconds. */
const MAX_LIFESPAN = 10_000

/** Calls `action` for all items, then throws the first error, if any. */
const forAll = <T>(items: Iterable<T>, action: (item: T) => void): void => {
  const errors: unknown[] = []
  for (const item of items)
    try {
      action(item)
    } catch (error) {
      errors.push(error)
    }
  if (errors.length > 0) throw errors[0]
}

/**
 * Creates the files in the tree at `root`, readable by all users; only `lifespan` is writable, by the daemon's user.
 * `now`: milliseconds of a monotonic clock.
 */
export const createCounterFiles = (
  root: string,
  devices: readonly CountedDevice[],
  now: () => number,
): CounterFiles => {
  const folderOf = (device: CountedDevice, folder: CounterFolder): string => join(portFolder(device), folder)
  const write = (path: string, value: number, mode: number): void => replaceFile(root, path, `${value}\n`, mode)
  /**
   * Returns the function that writes a device's counter files. Each call creates folders and `lifespan`, until a call
   * has succeeded in that.
   */
  const updaterOf = (device: CountedDevice): (() => void) => {
    const lifespan = join(folderOf(device, 'hw_counters'), 'lifespan')
    let isCreated = false
    const create = (): void => {
      for (const folder of folders) makeFolder(join(root, folderOf(device, folder)))
      // The files of a renamed device keep their lifespan.
      if (!existsSync(join(root, lifespan))) write(lifespan, DEFAULT_LIFESPAN, 0o644)
      isCreated = true
    }
    const written = new Map<string, number>()
    let renewedAt = Number.NEGATIVE_INFINITY

    /** The last valid value, with which an invalid value in the file is replaced. */
    let validLifespan = DEFAULT_LIFESPAN
    const readLifespan = (): number => {
      const text = readFileSync(join(root, lifespan), 'utf8').trim()
      if (/^\d+$/.test(text) && Number(text) <= MAX_LIFESPAN) validLifespan = Number(text)
      else write(lifespan, validLifespan, 0o644)
      return validLifespan
    }
    const renew = (): void => {
      /** Of this call, by value: new files with equal text are one with several names, as in the tree (tree.ts). */
      const equal = new Map<number, string>()
      const { engine, port, hardware } = device.counted()
      const valuesOf = (folder: CounterFolder) =>
        folder === 'hw_counters' && hardware !== undefined ? hardware : counterValues(folder, engine, port)
      forAll(folders, folder =>
        forAll(Object.entries(valuesOf(folder)), ([name, value]) => {
          const path = join(folderOf(device, folder), name)
          if (written.get(path) === value) return
          const [full, known] = [join(root, path), equal.get(value)]
          try {
            if (known === undefined || existsSync(full) || !linkFile(known, full)) write(path, value, 0o444)
            equal.set(value, full)
            written.set(path, value)
          } catch (error) {
            written.delete(path)
            rmSync(join(root, path), { force: true })
            throw error
          }
        }),
      )
    }
    return (): void => {
      if (!isCreated) create()
      const time = now()
      if (time - renewedAt < readLifespan()) return
      renew()
      renewedAt = time
    }
  }
  const updaters = new Map<string, () => void>()
  const add = (device: CountedDevice): void => {
    const update = updaterOf(device)
    // First, so that `refresh` tries again if the first update fails.
    updaters.set(device.name, update)
    update()
  }
  for (const device of devices) add(device)
  return {
    add,
    remove(name) {
      updaters.delete(name)
    },
    refresh() {
      forAll(updaters.values(), update => update())
    },
  }
}
