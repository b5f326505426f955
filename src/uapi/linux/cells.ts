/*
 * Structs of Linux ⇄ attribute values, by the layouts of spec/linux (docs/decisions/one-table-per-fact.md). A cell is a
 * field of a struct.
 *
 * A layout is compiled once for the attributes of a method. The residue of a struct has the bytes that reading did not
 * use, and zeros in place of the bytes that it used. `writeCells` over the residue restores the struct.
 */
import { CallError, callError } from '../../spec/errno.ts'
import type { LinkName } from '../../spec/links.ts'
import type { Cell, Layout } from '../../spec/linux/layout.ts'
import { because, coded, type Place, the } from '../../spec/reason.ts'
import type { AnyRecord, AnyValue, AnyValues, Attributes, Kind } from '../../spec/schema/schema.ts'
import { checkValue, readScalar, readUint, viewOf, writeScalar, writeUint } from '../scalar.ts'

/** The contents of a struct that are not attributes. */
export interface Facts {
  object?: number
  /** The value of a `class` cell. */
  class?: number
}

/** A descriptor number in a struct: offset and attribute. */
interface FdSlot {
  readonly at: number
  readonly attribute: string
}

/** The name of a cell's attribute. The cell may be a field of the attribute's record. */
export const attributeOf = ({ name }: Cell): string => name.split('.', 1)[0]!

/** A cell, bound to an attribute of the method, or to a field of an attribute's record. */
export interface BoundCell {
  readonly cell: Cell
  /** The cell's name if the cell is no attribute. */
  readonly attribute: string
  readonly field: string | undefined
  readonly type: Kind
  /** Beginning of error messages. */
  readonly where: Place
  /** The attribute's bit in the attribute mask; 0: none. */
  readonly maskBit: number
}

export interface CompiledLayout {
  readonly layout: Layout
  readonly boundCells: readonly BoundCell[]
  readonly fds: readonly FdSlot[]
  /** Cells of attributes that the class lacks: they get `Cell.fallback`. */
  readonly constants: readonly Cell[]
  /** Cells for one handle, at one offset: the class of the handle's object selects the attribute (`byClass`). */
  readonly choices: readonly BoundCell[]
  /** All mask bits of the method's attributes. */
  readonly attributeBits: number
  /** Mask bits that the kernel ignores for this class, and bits of attributes of other links. */
  readonly ignoredBits: number
  /** Attributes of other classes, with their mask bits, for the message of a refusal. */
  readonly lacking: readonly { readonly name: string; readonly bit: number }[]
  readonly className: string
}

const NUMBER: Kind = { kind: 'u32' }
const FD: Kind = { kind: 'fd', class: '' }

/** Throws an Error if the method lacks the attribute. */
const requireKind = (where: Place, attributes: Attributes, attribute: string, field: string | undefined): Kind => {
  const type = attributes[attribute]?.type
  const fields = type?.kind === 'record' ? type.fields : undefined
  const kind = field === undefined ? type : fields?.[field]?.type
  if (kind === undefined) throw new Error(`${where}: the method has no such attribute`)
  return kind
}

/** Whether a cell is an attribute's value, or a bit of the value. */
export const isAttributeValue = ({ kind }: Cell): boolean => kind === 'value' || kind === 'bool' || kind === 'bit'

/**
 * Binds a layout to the attributes of a method. Throws an Error if they do not fit, which is a bug. `path`: beginning
 * of error messages. `otherClasses`: attributes of the method in other classes; their cells are skipped, or get
 * `Cell.fallback`. `link`: the device's; cells of other links are skipped.
 */
export const compileLayout = (
  path: Place,
  layout: Layout,
  attributes: Attributes,
  otherClasses: Attributes = {},
  className = '',
  link: LinkName = 'roce',
): CompiledLayout => {
  const boundCells: BoundCell[] = []
  const fds: FdSlot[] = []
  const constants: Cell[] = []
  const lacking: { readonly name: string; readonly bit: number }[] = []
  let foreignBits = 0
  for (const cell of layout.cells) {
    if (cell.link !== undefined && cell.link !== link) {
      if (attributes[attributeOf(cell)] !== undefined) foreignBits |= cell.maskBit ?? 0
      continue
    }
    const [attribute, field] = cell.name.split('.') as [string, string | undefined]
    if (attributes[attribute] === undefined && otherClasses[attribute] !== undefined) {
      if (cell.fallback !== undefined) constants.push(cell)
      lacking.push({ name: attribute, bit: cell.maskBit ?? 1 << (otherClasses[attribute].id - 1) })
      continue
    }
    const where = because`${path}: ${attribute === 'object' ? cell.name : the.attribute(cell.name)}`
    if (cell.at + cell.size > layout.size) throw new Error(`${where}: it ends beyond the struct`)
    let type: Kind = NUMBER
    let maskBit = 0
    if (cell.kind === 'fd') {
      type = FD
      fds.push({ at: cell.at, attribute })
    } else if (isAttributeValue(cell)) {
      type = requireKind(where, attributes, attribute, field)
      if (layout.maskAt !== undefined) maskBit = cell.maskBit ?? 1 << (attributes[attribute]!.id - 1)
    }
    boundCells.push({ cell, attribute, field, type, where, maskBit })
  }
  if (layout.tail !== undefined) requireKind(path, attributes, layout.tail, undefined)
  const attributeBits = boundCells.reduce((bits, bound) => bits | bound.maskBit, 0)
  const choices = boundCells.filter(({ cell }) => cell.byClass)
  const ignoredBits = ((layout.ignored?.[className] ?? 0) | foreignBits) & ~attributeBits
  return { layout, boundCells, fds, constants, choices, attributeBits, ignoredBits, lacking, className }
}

const store = (values: AnyValues, bound: BoundCell, value: AnyValue): void => {
  if (bound.field === undefined) {
    values[bound.attribute] = value
    return
  }
  const record = (values[bound.attribute] as AnyRecord | undefined) ?? {}
  record[bound.field] = value
  values[bound.attribute] = record
}

const load = (values: AnyValues, bound: BoundCell): AnyValue | undefined =>
  bound.field === undefined
    ? values[bound.attribute]
    : (values[bound.attribute] as AnyRecord | undefined)?.[bound.field]

/** The attribute mask of a struct; 0 without a mask. `isChecked`, `known`: as for `readCells`. */
const readMask = (
  compiled: CompiledLayout,
  view: DataView,
  isChecked: boolean,
  known: readonly string[] | undefined,
): number => {
  const { maskAt, maskBits } = compiled.layout
  if (maskAt === undefined) return 0
  const bits = view.getUint32(maskAt, true)
  if (!isChecked) return bits
  const unknown = (bits & ~(maskBits ?? 0)) >>> 0
  if (unknown !== 0) throw callError.EOPNOTSUPP`${the.mask()}: bits 0x${unknown.toString(16)} are unknown`
  const lackingBits = (bits & ~compiled.attributeBits & ~compiled.ignoredBits) >>> 0
  if (lackingBits !== 0) {
    const { lacking, className } = compiled
    const names = new Set(lacking.filter(({ bit }) => (bit & lackingBits) !== 0).map(({ name }) => name))
    const isKnown = known === undefined || [...names].every(name => known.includes(name))
    throw new CallError(
      isKnown ? 'EINVAL' : 'EOPNOTSUPP',
      coded(
        'attributes-not-taken',
      )`${the.mask()}: bits 0x${lackingBits.toString(16)} (${the.attributes(...names)}) are of attributes that ${className} lacks`,
    )
  }
  return bits
}

/**
 * Reads a struct into `values` and `facts`; `bytes` has at least the layout's size. `isChecked`: refuses values outside
 * their limits and wrong mask bits; `known`: attributes that may be in the mask for some class (default all), others
 * are EOPNOTSUPP. Cells that must be 0 are always checked. Throws CallError.
 */
export const readCells = (
  compiled: CompiledLayout,
  bytes: Uint8Array,
  values: AnyValues,
  facts: Facts,
  isChecked: boolean,
  known?: readonly string[],
): void => {
  const view = viewOf(bytes)
  const mask = readMask(compiled, view, isChecked, known)
  for (const bound of compiled.boundCells) {
    const { cell, type } = bound
    if (bound.maskBit !== 0 && (mask & bound.maskBit) === 0) continue
    switch (cell.kind) {
      case 'value': {
        if (cell.presentAt !== undefined && bytes[cell.presentAt] === 0) break
        let value = readScalar(view, cell.at, cell.size, type, bound.where)
        if (cell.mask !== undefined) value = ((value as number) & cell.mask) >>> 0
        if (isChecked) checkValue(bound.where, type, value)
        store(values, bound, value)
        break
      }
      case 'bool':
        store(values, bound, readUint(view, cell.at, cell.size) === 0 ? 0 : 1)
        break
      case 'bit':
        store(values, bound, readUint(view, cell.at, cell.size) === 0 ? 0 : cell.bit!)
        break
      case 'object':
        facts.object = readScalar(view, cell.at, cell.size, NUMBER, bound.where) as number
        break
      case 'class':
        facts.class = readScalar(view, cell.at, cell.size, NUMBER, bound.where) as number
        break
      case 'fd': {
        const fd = view.getInt32(cell.at, true)
        if (fd >= 0) store(values, bound, fd)
        else if (fd !== -1 && cell.errno !== undefined)
          throw new CallError(cell.errno, because`${fd} is not a file descriptor`)
        break
      }
      case 'zero': {
        const bits = (readUint(view, cell.at, cell.size) & (cell.mask ?? ~0)) >>> 0
        if (bits !== 0)
          throw new CallError(
            cell.errno ?? 'EINVAL',
            because`at byte ${cell.at} of the request 0x${bits.toString(16)} is not 0`,
          )
        break
      }
      case 'length':
        break
    }
  }
}

/**
 * Writes values into a struct of zeros, or over a residue. `length`: length of the response for the caller. Numbers of
 * new descriptors are not known yet: their cells get −1.
 */
export const writeCells = (
  compiled: CompiledLayout,
  bytes: Uint8Array,
  values: AnyValues,
  facts: Facts,
  length = bytes.length,
): void => {
  const view = viewOf(bytes)
  let mask = 0
  for (const bound of compiled.boundCells) {
    const { cell, type } = bound
    const value = load(values, bound)
    switch (cell.kind) {
      case 'value':
        if (value === undefined) break
        if (cell.mask !== undefined)
          writeUint(
            view,
            cell.at,
            cell.size,
            ((readUint(view, cell.at, cell.size) & ~cell.mask) | (value as number)) >>> 0,
          )
        else writeScalar(view, cell.at, cell.size, type, value)
        if (cell.presentAt !== undefined && bytes[cell.presentAt] === 0) bytes[cell.presentAt] = 1
        mask |= bound.maskBit
        break
      case 'bool':
        // a residue has the caller's value for true if that is not 1
        if (value !== undefined && readUint(view, cell.at, cell.size) === 0)
          writeUint(view, cell.at, cell.size, value === 0 ? 0 : 1)
        break
      case 'bit':
        if ((((value as number | undefined) ?? 0) & cell.bit!) !== 0 && readUint(view, cell.at, cell.size) === 0)
          writeUint(view, cell.at, cell.size, 1)
        break
      case 'object':
        if (facts.object !== undefined) writeScalar(view, cell.at, cell.size, NUMBER, facts.object)
        break
      case 'class':
        if (facts.class !== undefined) writeScalar(view, cell.at, cell.size, NUMBER, facts.class)
        break
      case 'fd':
        if (value !== undefined) view.setInt32(cell.at, value as number, true)
        // a residue has the caller's negative number if that is not -1
        else if (view.getInt32(cell.at, true) >= 0) view.setInt32(cell.at, -1, true)
        break
      case 'zero':
        break
      case 'length':
        view.setUint32(cell.at, Math.min(length, compiled.layout.size), true)
        break
    }
  }
  for (const { at, size, fallback } of compiled.constants) writeUint(view, at, size, fallback!)
  const { layout, ignoredBits } = compiled
  if (layout.maskAt !== undefined)
    view.setUint32(layout.maskAt, (mask | (view.getUint32(layout.maskAt, true) & ignoredBits)) >>> 0, true)
}

/** The struct with zeros for the bytes that `values` and `facts` restore. */
export const residue = (compiled: CompiledLayout, bytes: Uint8Array, values: AnyValues, facts: Facts): Uint8Array => {
  const kept = bytes.slice()
  const view = viewOf(kept)
  const clear = (cell: Cell): void => {
    kept.fill(0, cell.at, cell.at + cell.size)
  }
  for (const bound of compiled.boundCells) {
    const { cell } = bound
    const value = load(values, bound)
    switch (cell.kind) {
      case 'value':
        if (value === undefined) break
        if (cell.presentAt !== undefined && kept[cell.presentAt] === 1) kept[cell.presentAt] = 0
        if (cell.mask === undefined) clear(cell)
        else writeUint(view, cell.at, cell.size, (readUint(view, cell.at, cell.size) & ~cell.mask) >>> 0)
        break
      case 'bool':
      case 'bit':
        if (value !== undefined && readUint(view, cell.at, cell.size) <= 1) clear(cell)
        break
      case 'object':
        if (facts.object !== undefined) clear(cell)
        break
      case 'class':
        if (facts.class !== undefined) clear(cell)
        break
      case 'fd':
        if (value !== undefined || view.getInt32(cell.at, true) === -1) clear(cell)
        break
      case 'zero':
      case 'length':
        break
    }
  }
  const { layout, ignoredBits } = compiled
  if (layout.maskAt !== undefined)
    view.setUint32(layout.maskAt, (view.getUint32(layout.maskAt, true) & ignoredBits) >>> 0, true)
  return kept
}
