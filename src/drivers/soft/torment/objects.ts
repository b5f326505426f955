/*
 * Names of objects in identities of decisions (spec/check/torment.ts): DEVICE/PROCESS/OBJECT, where OBJECT is the class
 * and how many objects of the class the process had created on the device. Handles and queue pair numbers do not do:
 * they differ from run to run, or depend on other processes.
 */
import type { CoreObject, Hook } from '../../../core/model.ts'

/** An object that decisions are about. */
export interface TormentedObject {
  /** DEVICE/PROCESS/OBJECT. */
  readonly name: string
  /** Counts what happens to the object, by what it is: 1, 2, … */
  next(what: string): number
}

export interface ObjectNames {
  /** The hook that names the objects of a device when they are created. */
  hook(device: string): Hook
  /**
   * DEVICE/PROCESS/OBJECT of one of the newest MAX_NAMES objects of programs, by `CoreObject.id`, also when it is
   * destroyed.
   */
  nameOf(id: number): string | undefined
  /** `fallback`: the name after DEVICE, if the object was not created by a call of a program. */
  of(device: string, object: CoreObject | undefined, fallback: string): TormentedObject
}

const createObject = (name: string): TormentedObject => {
  const counts = new Map<string, number>()
  return {
    name,
    next(what) {
      const count = (counts.get(what) ?? 0) + 1
      counts.set(what, count)
      return count
    },
  }
}

/** Of objects that no process has created. */
export const NO_PROCESS = '-'

/** Names of destroyed objects are kept too. */
const MAX_NAMES = 2 ** 14

export const createObjectNames = (): ObjectNames => {
  const names = new WeakMap<CoreObject, TormentedObject>()
  const byId = new Map<number, string>()
  const unnamed = new Map<string, TormentedObject>()
  /** By DEVICE/PROCESS/CLASS: the number of creations. */
  const creations = new Map<string, number>()
  return {
    hook: device => ({
      pre({ entry, caller }, object) {
        if (entry.kind !== 'create') return
        const { process } = caller
        const place = process === undefined ? NO_PROCESS : (process.place?.() ?? 'program')
        const group = `${device}/${place}/${object.class.name}`
        const count = (creations.get(group) ?? 0) + 1
        creations.set(group, count)
        names.set(object, createObject(`${group}${count}`))
        byId.set(object.id, `${group}${count}`)
        if (byId.size > MAX_NAMES) byId.delete(byId.keys().next().value as number)
      },
    }),
    nameOf: id => byId.get(id),
    of(device, object, fallback) {
      const named = object && names.get(object)
      if (named !== undefined) return named
      const name = `${device}/${NO_PROCESS}/${fallback}`
      let other = unnamed.get(name)
      if (other === undefined) {
        other = createObject(name)
        unnamed.set(name, other)
      }
      return other
    },
  }
}
