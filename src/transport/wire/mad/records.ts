/*
 * Records of the layouts of subnet management and administration (spec/wire/subnet.ts): bytes ⇄ fields. `parse` and
 * `emit` are inverses for bytes whose reserved fields are zero.
 */
import type { BitField } from '../../../spec/wire/headers.ts'
import type { Field, Layout } from '../../../spec/wire/subnet.ts'
import { type BitValue, getBits, misfit, putBits } from '../bits.ts'

type IntegerOf<W> = W extends 1 ? boolean : W extends 64 ? bigint : number
type ValueOf<F> = F extends readonly [number, infer W]
  ? readonly IntegerOf<W>[]
  : F extends readonly [number]
    ? Uint8Array
    : IntegerOf<F>

/** A record of a layout, without the reserved fields. */
export type RecordOf<L extends Layout> = {
  -readonly [K in keyof L as K extends `_${string}` ? never : K]: ValueOf<L[K]>
}

/** An integer of a layout: the byte that `bits` count from, so that all are in one word. */
interface Place {
  readonly at: number
  readonly bits: BitField
}

/** A field with the places of its integers; `length` is the bytes of an array, which begins at the first place. */
interface Entry {
  readonly name: string
  readonly kind: 'integer' | 'bytes' | 'list'
  readonly places: readonly Place[]
  readonly length: number
  readonly isReserved: boolean
}

const widthOf = (field: Field): number => {
  if (typeof field === 'number') return field
  return field.length === 1 ? field[0] * 8 : field[0] * field[1]
}

export class RecordCodec<L extends Layout> {
  readonly bytes: number
  readonly #entries: readonly Entry[]
  /** Components: index of the entry, and of the element in a list. */
  readonly #components: readonly (readonly [entry: Entry, element: number])[]

  constructor(layout: L) {
    const fields = Object.entries(layout)
    this.bytes = fields.reduce((bits, [, field]) => bits + widthOf(field), 0) / 8
    const placeOf = (first: number, width: number): Place => {
      const at = width === 64 ? first >> 3 : Math.max(0, Math.min(first >> 3, this.bytes - 4))
      return { at, bits: [first - at * 8, width] }
    }
    let bit = 0
    this.#entries = fields.map(([name, field]) => {
      const [first, isReserved] = [bit, name.startsWith('_')]
      bit += widthOf(field)
      if (typeof field === 'number' && isReserved) return { name, kind: 'integer', places: [], length: 0, isReserved }
      if (typeof field === 'number')
        return { name, kind: 'integer', places: [placeOf(first, field)], length: 0, isReserved }
      if (field.length === 1)
        return { name, kind: 'bytes', places: [{ at: first >> 3, bits: [0, 8] }], length: field[0], isReserved }
      const [count, width] = field
      const places = Array.from({ length: count }, (_, i) => placeOf(first + i * width, width))
      return { name, kind: 'list', places, length: 0, isReserved }
    })
    this.#components = this.#entries.flatMap(entry =>
      entry.kind === 'list' ? entry.places.map((_, i) => [entry, i] as const) : [[entry, 0] as const],
    )
  }

  /** Arrays of bytes are copies. Throws RangeError if `bytes` is too short. */
  parse(bytes: Uint8Array, at = 0): RecordOf<L> {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, this.bytes)
    const record: Record<string, unknown> = {}
    for (const { name, kind, places, length, isReserved } of this.#entries) {
      if (isReserved) continue
      const first = places[0]!
      if (kind === 'integer') record[name] = getBits(view, first.at, first.bits)
      else if (kind === 'bytes') record[name] = bytes.slice(at + first.at, at + first.at + length)
      else record[name] = places.map(place => getBits(view, place.at, place.bits))
    }
    return record as RecordOf<L>
  }

  /**
   * Writes a record to bytes that are zero so far. Absent fields stay zero, short arrays and lists end with zeros.
   * Throws a RangeError that names the field if a value does not fit.
   */
  emit(record: Partial<RecordOf<L>>, bytes: Uint8Array = new Uint8Array(this.bytes), at = 0): Uint8Array {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, this.bytes)
    const values = record as Readonly<Record<string, unknown>>
    const put = (name: string, { at: offset, bits }: Place, value: unknown): void => {
      const wrong = misfit(bits[1], value)
      if (wrong !== undefined) throw new RangeError(`${name} ${wrong}`)
      putBits(view, offset, bits, value as BitValue)
    }
    for (const { name, kind, places, length, isReserved } of this.#entries) {
      const value = values[name]
      if (isReserved || value === undefined) continue
      if (kind === 'integer') put(name, places[0]!, value)
      else if ((value as ArrayLike<unknown>).length > (kind === 'bytes' ? length : places.length))
        throw new RangeError(`${name} has ${(value as ArrayLike<unknown>).length} elements`)
      else if (kind === 'bytes') bytes.set(value as Uint8Array, at + places[0]!.at)
      else for (const [i, each] of (value as readonly unknown[]).entries()) put(name, places[i]!, each)
    }
    return bytes
  }

  /** Names of the fields whose bits a component mask has. Bits of no field and of reserved fields are ignored. */
  names(mask: bigint): string[] {
    const names = new Set<string>()
    for (const [i, [{ name, isReserved }]] of this.#components.entries())
      if (!isReserved && (mask >> BigInt(i)) & 1n) names.add(name)
    return [...names]
  }

  /** The component mask of fields. */
  mask(...names: readonly (keyof RecordOf<L>)[]): bigint {
    let mask = 0n
    for (const [i, [{ name }]] of this.#components.entries())
      if (names.includes(name as keyof RecordOf<L>)) mask |= 1n << BigInt(i)
    return mask
  }

  /** Whether `record` has the values of `query` in the components of `mask`. */
  matches(record: RecordOf<L>, query: RecordOf<L>, mask: bigint): boolean {
    for (const [i, [{ name, kind, isReserved }, element]] of this.#components.entries()) {
      if (isReserved || !((mask >> BigInt(i)) & 1n)) continue
      const [a, b] = [record, query].map(each => (each as Readonly<Record<string, unknown>>)[name])
      if (kind === 'integer' ? a !== b : kind === 'list' && (a as unknown[])[element] !== (b as unknown[])[element])
        return false
      if (kind === 'bytes' && !isEqual(a as Uint8Array, b as Uint8Array)) return false
    }
    return true
  }
}

const isEqual = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])
