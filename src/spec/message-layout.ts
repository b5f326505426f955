/*
 * How a struct of a message is declared: its fields in their order, from which come offsets, the types of values, and
 * the struct for C (scripts/generate-protocol.mjs).
 */
/** Types of fields. `bytes`: NUL-terminated text, declared as `[name, length]`. */
type IntegerType = 'u32' | 's32' | 'u64' | 's64'
type FieldType = IntegerType | 'bytes'

export interface MessageField {
  readonly name: string
  readonly offset: number
  readonly type: FieldType
  readonly size: number
}

/** A number in place of the type is the length of a `bytes` field. */
type DeclaredFields = readonly (readonly [name: string, type: IntegerType | number])[]

/** A struct. `MessageValues` is inferred from `D`. */
export interface MessageLayout<D extends DeclaredFields = DeclaredFields> {
  readonly declared: D
  readonly fields: readonly MessageField[]
  readonly size: number
}

type FieldName<M extends MessageLayout> = M['declared'][number][0]

/** The values of a struct's fields, without reserved fields: text, bigint for 64 bits, otherwise number. */
export type MessageValues<M extends MessageLayout> = {
  -readonly [F in M['declared'][number] as Exclude<F[0], 'reserved'>]: F[1] extends number
    ? string
    : F[1] extends 'u64' | 's64'
      ? bigint
      : number
}

const SIZES: Record<IntegerType, number> = { u32: 4, s32: 4, u64: 8, s64: 8 }

/** A struct without padding. A test checks that all fields are naturally aligned. */
export const layout = <const D extends DeclaredFields>(...declared: D): MessageLayout<D> => {
  let size = 0
  const fields = declared.map(([name, type]): MessageField => {
    const field: MessageField =
      typeof type === 'number'
        ? { name, offset: size, type: 'bytes', size: type }
        : { name, offset: size, type, size: SIZES[type] }
    size += field.size
    return field
  })
  return { declared, fields, size }
}

export const offsetsOf = <M extends MessageLayout>({ fields }: M): Readonly<Record<FieldName<M>, number>> =>
  Object.fromEntries(fields.map(({ name, offset }) => [name, offset])) as Record<FieldName<M>, number>
