/*
 * Structs of Linux as they are in memory (`userdma trace --abi`, R46): each cell of the layout in spec/linux with its
 * offset, attribute name and value. Bytes without a cell are padding, pointers or unused; they appear in the hex bytes
 * above these lines.
 */
import type { Cell } from '../../spec/linux/layout.ts'
import type { CompiledLayout } from '../../uapi/linux/cells.ts'
import { readScalar, readUint, viewOf } from '../../uapi/scalar.ts'
import { type Style, valueText } from '../values.ts'
import { hex } from './piece.ts'

/** Numbers of the program's new descriptors, by attribute; the answer's own fields do not have them yet. */
export type Numbers = ReadonlyMap<string, number | undefined>

/** The number of one of the new descriptors, if known. */
export const fdText = (numbers: Numbers, attribute: string): string => `fd ${numbers.get(attribute) ?? '?'}`

type Op = CompiledLayout['ops'][number]

const opText = ({ cell, of, where }: Op, view: DataView, style: Style, numbers: Numbers): string => {
  const { at, size, as, name } = cell
  const isWide = size === 8 && of.kind !== 'u64' && of.kind !== 'bytes'
  if (as === 'value' && !isWide) return valueText(name, of, readScalar(view, at, size, of, where), style)
  // A number wider than its kind is shown in any case.
  if (as !== 'fd') return String(size === 8 ? view.getBigUint64(at, true) : readUint(view, at, size))
  if (numbers.has(name)) return fdText(numbers, name)
  const fd = view.getInt32(at, true)
  return fd < 0 ? 'none' : `fd ${fd}`
}

/** The label of a cell without an attribute. */
const NAMES: Readonly<Partial<Record<Cell['as'], string>>> = { class: 'type', zero: 'reserved', bit: 'flag' }

/**
 * Lines `+offset name value` of the nonzero fields, or of all if `style` says so. None if the bytes are a single value,
 * except a descriptor.
 */
export const structLines = (
  { layout, ops }: CompiledLayout,
  bytes: Uint8Array,
  style: Style,
  numbers: Numbers = new Map(),
): string[] => {
  const { mask } = layout
  if (ops.some(({ cell }) => cell.size === layout.size && cell.as !== 'fd')) return []
  const view = viewOf(bytes)
  const cells = ops.map(op => {
    const { at, size, as, name } = op.cell
    return { at, size, name: NAMES[as] ?? name, text: () => opText(op, view, style, numbers) }
  })
  if (mask !== undefined)
    cells.push({ at: mask, size: 4, name: 'attributeMask', text: () => hex(view.getUint32(mask, true)) })
  const shown = cells
    .filter(
      ({ at, size }) =>
        at + size <= bytes.length && (style.zeros || bytes.subarray(at, at + size).some(byte => byte !== 0)),
    )
    .sort((a, b) => a.at - b.at)
  const lines = shown.slice(0, style.fields).map(({ at, name, text }) => `+${at} ${name} ${text()}`)
  return shown.length > lines.length ? [...lines, `… ${shown.length - lines.length} more fields`] : lines
}
