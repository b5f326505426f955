/*
 * The language in which the structs of mlx5's firmware commands are declared, as mlx5_ifc.h of Linux and rdma-core
 * describes them: fields by name, offset in bits from the struct's beginning, and width in bits. Big-endian. The names
 * are those of mlx5_ifc.h. Reserved bits are not listed: they are ignored in requests and 0 in answers.
 * uapi/firmware/fields.ts reads and writes them.
 */

/** `T` is for inference only. `at`: offset in bits. */
export type Field<T = unknown> = { readonly at: number; readonly __type?: T } & (
  | { readonly kind: 'bits'; readonly width: number }
  | { readonly kind: 'long' }
  | { readonly kind: 'raw'; readonly bytes: number }
  | { readonly kind: 'nested'; readonly struct: Struct }
  | { readonly kind: 'rest' }
)
type Fields = Readonly<Record<string, Field>>

export interface Struct<F extends Fields = Fields> {
  /** Bytes without `rest`. */
  readonly bytes: number
  readonly fields: F
}

/** At most 32 bits that do not cross a boundary of 32 bits: a number. */
export const bits = (at: number, width: number): Field<number> => ({ kind: 'bits', at, width })
/** 64 bits: a bigint. */
export const long = (at: number): Field<bigint> => ({ kind: 'long', at })
export const raw = (at: number, bytes: number): Field<Uint8Array> => ({ kind: 'raw', at, bytes })
/** All bytes from here on. */
export const rest = (at: number): Field<Uint8Array> => ({ kind: 'rest', at })
export const nested = <F extends Fields>(at: number, struct: Struct<F>): Field<RecordOf<Struct<F>>> => ({
  kind: 'nested',
  at,
  struct,
})

export const struct = <const F extends Fields>(bytes: number, fields: F): Struct<F> => ({ bytes, fields })

type TypeOf<X> = X extends Field<infer T> ? NonNullable<T> : never

/** The values of a struct. */
export type RecordOf<S> = S extends Struct<infer F> ? { -readonly [K in keyof F]: TypeOf<F[K]> } : never
/** Some of its values, the others being 0. */
export type PartOf<S> =
  S extends Struct<infer F>
    ? {
        -readonly [K in keyof F]?: F[K] extends { readonly kind: 'nested'; readonly struct: infer N }
          ? PartOf<N>
          : DeepPart<TypeOf<F[K]>>
      }
    : never
type DeepPart<T> = T extends number | bigint | Uint8Array ? T : { -readonly [K in keyof T]?: DeepPart<T[K]> }

export type FieldValue = number | bigint | Uint8Array | FieldValues
export interface FieldValues {
  [field: string]: FieldValue | undefined
}
