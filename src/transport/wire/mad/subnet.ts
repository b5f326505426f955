/*
 * The codecs of subnet management and administration, by name of attribute (tables in spec/wire/subnet.ts).
 */
import { type Layout, noticeData, saMad, saRecords, smAttributes, smp } from '../../../spec/wire/subnet.ts'
import { RecordCodec, type RecordOf } from './records.ts'

type Table = Readonly<Record<string, { readonly id: number; readonly layout: Layout }>>
type Codecs<T extends Table> = { readonly [N in keyof T]: RecordCodec<T[N]['layout']> }

const codecsOf = <const T extends Table>(table: T): Codecs<T> =>
  Object.fromEntries(Object.entries(table).map(([name, { layout }]) => [name, new RecordCodec(layout)])) as Codecs<T>

const namesOf = <const T extends Table>(table: T): ReadonlyMap<number, keyof T> =>
  new Map(Object.entries(table).map(([name, { id }]) => [id, name]))

export const smpCodec = new RecordCodec(smp)
export type Smp = RecordOf<typeof smp>
export const smCodecs = codecsOf(smAttributes)
export const smAttributeNames = namesOf(smAttributes)
export type SmAttributeName = keyof typeof smAttributes
export type SmAttribute<N extends SmAttributeName> = RecordOf<(typeof smAttributes)[N]['layout']>

export const saCodec = new RecordCodec(saMad)
export type SaMad = RecordOf<typeof saMad>
export const saCodecs = codecsOf(saRecords)
export const saRecordNames = namesOf(saRecords)
export type SaRecordName = keyof typeof saRecords
export type SaRecord<N extends SaRecordName> = RecordOf<(typeof saRecords)[N]['layout']>

export const noticeCodecs = Object.fromEntries(
  Object.entries(noticeData).map(([trap, layout]) => [trap, new RecordCodec(layout as Layout)]),
) as unknown as { readonly [T in keyof typeof noticeData]: RecordCodec<(typeof noticeData)[T]> }
