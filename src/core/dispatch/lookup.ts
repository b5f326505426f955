/*
 * Look-ups in a device's compiled table (R5, R20): array reads without hashing, because each call makes them.
 */
import { DRIVER_FIRST } from '../../spec/classes/ids.ts'
import { DESTROY } from '../../spec/schema/schema.ts'
import type { ClassTable, DispatchTable, Entry } from '../model.ts'

/** The class with this id; undefined if the device has none. */
export const classTable = (table: DispatchTable, id: number): ClassTable | undefined =>
  id >= DRIVER_FIRST ? table.private[id - DRIVER_FIRST] : table.common[id]

/** The method with this class id and call number (0 … 255, in blocks of 32); undefined if the device has none. */
export const findEntry = (table: DispatchTable, classId: number, call: number): Entry | undefined =>
  classTable(table, classId)?.blocks[call >> 5]?.[call & 31]

/** The destroy method of a class; undefined if it has none. */
export const findDestroy = (table: ClassTable): Entry | undefined => table.blocks[DESTROY >> 5]?.[DESTROY & 31]

/** Number of pointers in all arrays of a table. */
export const tableSlots = (table: DispatchTable): number => {
  let slots = table.common.length + table.private.length
  for (const cls of table.byName.values()) for (const block of cls.blocks) slots += 1 + (block?.length ?? 0)
  return slots
}
