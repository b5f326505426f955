/*
 * The memory of the keys of recorded regions, for `ProgramProbes.memoryOf`, where the recorder was not asked for it. Of
 * memory windows, whose binds are no calls, it is unknown.
 */
import type { KeyedMemory } from '../../../spec/check/probes.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import { AccessFlags, MrKind } from '../../../spec/enums.ts'

const numberOf = (value: unknown): number | undefined =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined

export class RecordedRegions {
  /** By device and key. */
  readonly #memory = new Map<string, KeyedMemory>()
  /** Keys by the id of the region. */
  readonly #keys = new Map<number, readonly string[]>()

  called({ class: name, method, object, args, out, refused, deviceNumber, program }: ProgramEvent<'called'>): void {
    if (name !== 'mr' || object === undefined || refused !== undefined) return
    if (method === 'destroy') {
      for (const key of this.#keys.get(object.id) ?? []) this.#memory.delete(key)
      this.#keys.delete(object.id)
      return
    }
    const [start, lkey, rkey] = [numberOf(args.start), numberOf(out.lkey), numberOf(out.rkey)]
    if (method !== 'create' || start === undefined || lkey === undefined) return
    if ((args.kind ?? MrKind.values.MEMORY) !== MrKind.values.MEMORY) return
    const isZeroBased = ((numberOf(args.access) ?? 0) & AccessFlags.values.ZERO_BASED) !== 0
    const iova = isZeroBased ? 0 : (numberOf(args.iova) ?? start)
    const memory = { space: program?.pid ?? 0, shift: start - iova, region: lkey }
    const keys = [lkey, rkey].flatMap(key => (key === undefined ? [] : [`${deviceNumber} ${key}`]))
    for (const key of keys) this.#memory.set(key, memory)
    this.#keys.set(object.id, keys)
  }

  memoryOf(device: number, key: number): KeyedMemory | undefined {
    return this.#memory.get(`${device} ${key}`)
  }
}
