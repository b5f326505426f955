/*
 * Linux's structs in memory (`userdma trace --abi`, R46): lines with offset, name and value of the cells in spec/linux
 * and of the attribute mask.
 */
import { hex } from '../../../base/text.ts'
import type { Cell } from '../../../spec/linux/layout.ts'
import type { BoundCell, CompiledLayout } from '../../../uapi/linux/cells.ts'
import { readScalar, readUint, viewOf } from '../../../uapi/scalar.ts'
import { type Style, valueText } from '../values.ts'

/**
 * Numbers of the descriptors that a call has created, by attribute; undefined: unknown. They are inserted into the
 * answer only after the answer was traced.
 */
export type NewDescriptors = ReadonlyMap<string, number | undefined>

export const fdText = (newDescriptors: NewDescriptors, attribute: string): string =>
  `fd ${newDescriptors.get(attribute) ?? '?'}`

const cellText = (
  { cell, type, where }: BoundCell,
  view: DataView,
  style: Style,
  newDescriptors: NewDescriptors,
): string => {
  const { at, size, kind, name } = cell
  const isWide = size === 8 && type.kind !== 'u64' && type.kind !== 'bytes'
  if (kind === 'value' && !isWide) return valueText(name, type, readScalar(view, at, size, type, where), style)
  // Values in cells wider than their type, and cells of other kinds, are plain numbers.
  if (kind !== 'fd') return String(size === 8 ? view.getBigUint64(at, true) : readUint(view, at, size))
  if (newDescriptors.has(name)) return fdText(newDescriptors, name)
  const fd = view.getInt32(at, true)
  return fd < 0 ? 'none' : `fd ${fd}`
}

/** Shown names of cells that are not a whole attribute, by kind. */
const CELL_NAMES: Readonly<Partial<Record<Cell['kind'], string>>> = { class: 'type', zero: 'reserved', bit: 'flag' }

/**
 * Lines `+offset name value` of the nonzero fields, or of all if `style.showsZeros`. No lines for a single value that
 * is no descriptor: the bytes already show the value.
 */
export const structLines = (
  { layout, boundCells }: CompiledLayout,
  bytes: Uint8Array,
  style: Style,
  newDescriptors: NewDescriptors = new Map(),
): string[] => {
  const { maskAt } = layout
  if (boundCells.some(({ cell }) => cell.size === layout.size && cell.kind !== 'fd')) return []
  const view = viewOf(bytes)
  const cells = boundCells.map(bound => {
    const { at, size, kind, name } = bound.cell
    return { at, size, name: CELL_NAMES[kind] ?? name, text: () => cellText(bound, view, style, newDescriptors) }
  })
  if (maskAt !== undefined)
    cells.push({ at: maskAt, size: 4, name: 'attributeMask', text: () => hex(view.getUint32(maskAt, true)) })
  const shown = cells
    .filter(
      ({ at, size }) =>
        at + size <= bytes.length && (style.showsZeros || bytes.subarray(at, at + size).some(byte => byte !== 0)),
    )
    .sort((a, b) => a.at - b.at)
  const lines = shown.slice(0, style.fields).map(({ at, name, text }) => `+${at} ${name} ${text()}`)
  return shown.length > lines.length ? [...lines, `… ${shown.length - lines.length} more fields`] : lines
}
