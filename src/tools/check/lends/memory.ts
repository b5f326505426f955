/*
 * The memory of programs that requests may access, and what is lent of it. A region is looked at from the first lend of
 * bytes of it on. Without lends nothing is kept and asked.
 */
import type { Detector, DetectorServices } from '../detector.ts'
import { Keys } from '../keys.ts'
import { getOrAdd, type KnownObject } from '../objects.ts'
import { shared } from '../shared.ts'
import { type Interval, Intervals } from './intervals.ts'
import { LendTable } from './table.ts'

/** Maximum keys over keys over keys. */
const MAX_DEPTH = 4

/** A region of a program, in addresses of its process. */
export interface Region {
  readonly object: KnownObject
  readonly start: number
  readonly end: number
  /** Bytes of it were lent. */
  isLent: boolean
  /** Among those whose bytes were not lent yet. */
  place: Interval<Region> | undefined
}

/** Bytes of a process. */
interface Accessed {
  readonly region: Region
  readonly start: number
  readonly end: number
}

/** What a key grants access to. `shift`: address in the process minus address in requests. */
interface Keyed {
  readonly region: Region
  readonly shift: number
}

const createLentMemory = ({ objects, sources, omit }: DetectorServices) => {
  const { memoryOf } = sources
  if (memoryOf === undefined || sources.lent === 'off') return undefined
  const table = new LendTable(omit)
  /** By `KnownObject.id`. */
  const regions = new Map<number, Region>()
  /** Regions without a lent byte, by process. */
  const unlent = new Map<number | undefined, Intervals<Region>>()

  /** Undefined: a key of no memory of a process. */
  const keys = new Keys<Keyed>((device, key) => {
    // The rkey of EFA is another number than the lkey.
    const memory = memoryOf(device, objects.region(device, key)?.lkey ?? key)
    const region = memory && regions.get(objects.region(device, memory.region)?.id ?? -1)
    return memory && region && { region, shift: memory.shift }
  })

  const forgetRegion = ({ id, program }: KnownObject): void => {
    const region = regions.get(id)
    regions.delete(id)
    if (region?.place !== undefined) unlent.get(program?.pid)?.remove(region.place)
    if (unlent.get(program?.pid)?.size === 0) unlent.delete(program?.pid)
  }

  const addRegion = (object: KnownObject): void => {
    const { start, size, program } = object
    if (start === undefined || size === undefined || size === 0) return
    const region: Region = { object, start, end: start + size, isLent: false, place: undefined }
    regions.set(object.id, region)
    if (table.find(program?.pid)?.hasLasting(start, region.end)) region.isLent = true
    else region.place = getOrAdd(unlent, program?.pid, () => new Intervals<Region>()).add(start, region.end, region)
  }

  /** The memory of programs that requests with a key access, also one over other keys. `depth`: of these. */
  const rangesOf = (
    device: number,
    { rkey, address, length }: { readonly rkey: number; readonly address: number; readonly length: number },
    depth = 0,
  ): Accessed[] => {
    const plain = keys.of(device, rkey)
    if (plain !== undefined)
      return [{ region: plain.region, start: address + plain.shift, end: address + plain.shift + length }]
    const over = depth < MAX_DEPTH ? memoryOf(device, rkey) : undefined
    const from = address + (over?.shift ?? 0)
    let at = 0
    return (over?.parts ?? []).flatMap(({ key, address: start, length: bytes }) => {
      const [first, last] = [Math.max(from, at), Math.min(from + length, at + bytes)]
      const part = { rkey: key, address: start + first - at, length: last - first }
      at += bytes
      return part.length > 0 ? rangesOf(device, part, depth + 1) : []
    })
  }

  const on: Detector['on'] = {
    called({ class: name, method, refused }, object) {
      if (refused !== undefined || (name !== 'mw' && name !== 'mr')) return
      keys.forget()
      if (name === 'mw') return
      if (method === 'destroy' || method === 'modify') forgetRegion(object)
      if (method === 'create' || method === 'modify') addRegion(object)
    },
  }

  return {
    on,
    table,
    /** Whether a program has ever declared anything. */
    hasLends: false,
    keys,
    /** The existing regions. */
    regions: () => regions.values(),
    /** Bytes of a process are lent. */
    lent(pid: number | undefined, start: number, end: number): void {
      const before = unlent.get(pid)
      if (before === undefined) return
      for (const region of before.overlapping(start, end)) {
        region.isLent = true
        if (region.place !== undefined) before.remove(region.place)
        region.place = undefined
      }
    },
    rangesOf,
  }
}

export const lentMemory = shared({ name: 'lent memory' }, createLentMemory)
