/*
 * Source files and lines of addresses, from the line table of a program (.debug_line, DWARF 5, section 6.2). addr2line
 * of binutils 2.40 takes file 0 for file 1 where a table names no file, as gcc does for functions of headers
 * (docs/decisions/line-table.md). Units of older versions are left to it. It knows no functions, and runs no tool.
 */
import { setImmediate } from 'node:timers/promises'
import { type Section, stringAt, withSections } from './sections.ts'

interface SourceLine {
  /** Relative if the folder of the compilation is. */
  readonly file: string
  readonly line: number
}

const DWARF_5 = 5
const DW_LNCT = { PATH: 1, DIRECTORY_INDEX: 2 } as const
const DW_FORM = {
  BLOCK: 0x09,
  DATA1: 0x0b,
  DATA2: 0x05,
  DATA4: 0x06,
  DATA8: 0x07,
  DATA16: 0x1e,
  STRING: 0x08,
  STRP: 0x0e,
  UDATA: 0x0f,
  LINE_STRP: 0x1f,
} as const
const DW_LNS = {
  COPY: 1,
  ADVANCE_PC: 2,
  ADVANCE_LINE: 3,
  SET_FILE: 4,
  CONST_ADD_PC: 8,
  FIXED_ADVANCE_PC: 9,
} as const
const DW_LNE = { END_SEQUENCE: 1, SET_ADDRESS: 2 } as const

/** Reads fields of a table one after the other. Reads beyond its end throw a RangeError. */
const readerOf = (bytes: Buffer, start: number) => {
  let at = start
  const take = (length: number): number => {
    at += length
    return at - length
  }
  const leb = (isSigned: boolean): number => {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = bytes.readUInt8(at++)
      value += (byte & 0x7f) * scale
      scale *= 0x80
      if ((byte & 0x80) === 0) return isSigned && (byte & 0x40) !== 0 ? value - scale : value
    }
  }
  return {
    get at() {
      return at
    },
    skip: take,
    u8: () => bytes.readUInt8(take(1)),
    i8: () => bytes.readInt8(take(1)),
    u16: () => bytes.readUInt16LE(take(2)),
    u32: () => bytes.readUInt32LE(take(4)),
    u64: () => Number(bytes.readBigUInt64LE(take(8))),
    uleb: () => leb(false),
    sleb: () => leb(true),
    string() {
      const text = stringAt(bytes, at)
      at += Buffer.byteLength(text) + 1
      return text
    },
  }
}
type Reader = ReturnType<typeof readerOf>

/** The strings to which forms refer. */
interface Strings {
  readonly line: Buffer
  readonly info: Buffer
}

/** Reads a value of a form. Throws an Error for forms that line tables do not have. */
const readForm = (reader: Reader, form: number, is64: boolean, strings: Strings): number | string => {
  const offset = () => (is64 ? reader.u64() : reader.u32())
  switch (form) {
    case DW_FORM.STRING:
      return reader.string()
    case DW_FORM.LINE_STRP:
      return stringAt(strings.line, offset())
    case DW_FORM.STRP:
      return stringAt(strings.info, offset())
    case DW_FORM.UDATA:
      return reader.uleb()
    case DW_FORM.DATA1:
      return reader.u8()
    case DW_FORM.DATA2:
      return reader.u16()
    case DW_FORM.DATA4:
      return reader.u32()
    case DW_FORM.DATA8:
      return reader.u64()
    case DW_FORM.DATA16:
      return reader.skip(16)
    case DW_FORM.BLOCK:
      return reader.skip(reader.uleb())
    default:
      throw new Error(`unknown form ${form}`)
  }
}

interface Entry {
  readonly path: string
  readonly directory: number
}

/** The table of directories or that of files. */
const readEntries = (reader: Reader, is64: boolean, strings: Strings): readonly Entry[] => {
  const format = Array.from({ length: reader.u8() }, () => [reader.uleb(), reader.uleb()] as const)
  const entries: Entry[] = []
  // Each value has at least a byte, so a false count ends at the end of the table.
  for (let left = format.length === 0 ? 0 : reader.uleb(); left > 0; left--) {
    const values = new Map(format.map(([content, form]) => [content, readForm(reader, form, is64, strings)]))
    entries.push({
      path: String(values.get(DW_LNCT.PATH) ?? ''),
      directory: Number(values.get(DW_LNCT.DIRECTORY_INDEX) ?? 0),
    })
  }
  return entries
}

/** Index of the first address that is not below `address`. `sorted`: ascending. */
const lowerBound = (sorted: readonly number[], address: number): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! < address) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * Moves the addresses of one unit from `sorted` to `found`. `reader`: behind the unit's version; `end`: the end of the
 * unit.
 */
const readUnit = (
  reader: Reader,
  end: number,
  is64: boolean,
  strings: Strings,
  sorted: number[],
  found: Map<number, SourceLine>,
): void => {
  // Sizes of addresses and of segment selectors, the length of the header.
  reader.skip(is64 ? 10 : 6)
  const step = reader.u8()
  // Operations per instruction (1 where userdma runs), and whether a row begins a statement.
  reader.skip(2)
  const lineBase = reader.i8()
  const lineRange = reader.u8()
  const firstSpecial = reader.u8()
  const lengths = Array.from({ length: firstSpecial - 1 }, () => reader.u8())
  const directories = readEntries(reader, is64, strings)
  const files = readEntries(reader, is64, strings)
  const base = directories[0]?.path ?? ''
  const pathOf = (index: number): string | undefined => {
    const entry = files[index]
    if (entry === undefined) return undefined
    const folder = directories[entry.directory]?.path ?? ''
    // As addr2line prints it: not normalised.
    return [base, folder, entry.path].reduce((path, part) => (part.startsWith('/') ? part : `${path}/${part}`))
  }

  let address = 0
  let file = 1
  let line = 1
  /** The row before; its address is 0 at the start of a sequence, and in functions that the linker has removed. */
  const row = { address: 0, file: 0, line: 0 }
  const addRow = (): void => {
    const first = row.address > 0 && address > row.address ? lowerBound(sorted, row.address) : sorted.length
    if (first < sorted.length && sorted[first]! < address) {
      const path = pathOf(row.file)
      // Once: a false table cannot name an address again and again.
      for (const known of sorted.splice(first, lowerBound(sorted, address) - first))
        if (path !== undefined) found.set(known, { file: path, line: row.line })
    }
    row.address = address
    row.file = file
    row.line = line
  }
  while (reader.at < end && sorted.length > 0) {
    const opcode = reader.u8()
    if (opcode >= firstSpecial) {
      const adjusted = opcode - firstSpecial
      address += Math.floor(adjusted / lineRange) * step
      line += lineBase + (adjusted % lineRange)
      addRow()
    } else if (opcode === 0) {
      const length = reader.uleb()
      const next = reader.at + length
      const extended = reader.u8()
      if (extended === DW_LNE.END_SEQUENCE) {
        addRow()
        row.address = 0
        address = 0
        file = 1
        line = 1
      } else if (extended === DW_LNE.SET_ADDRESS) address = reader.u64()
      reader.skip(next - reader.at)
    } else if (opcode === DW_LNS.COPY) addRow()
    else if (opcode === DW_LNS.ADVANCE_PC) address += reader.uleb() * step
    else if (opcode === DW_LNS.ADVANCE_LINE) line += reader.sleb()
    else if (opcode === DW_LNS.SET_FILE) file = reader.uleb()
    else if (opcode === DW_LNS.CONST_ADD_PC) address += Math.floor((255 - firstSpecial) / lineRange) * step
    else if (opcode === DW_LNS.FIXED_ADVANCE_PC) address += reader.u16()
    else for (let left = lengths[opcode - 1] ?? 0; left > 0; left--) reader.uleb()
  }
}

/** Where Debian's packages of debug information have that of a program: by the identifier in its note. */
const debugFileOf = (note: Buffer): string => {
  // After the header of the note (Elf64_Nhdr) and its owner, "GNU\0".
  const id = note.toString('hex', 16)
  return `/usr/lib/debug/.build-id/${id.slice(0, 2)}/${id.slice(2)}.debug`
}

interface LineTable {
  readonly table: Buffer
  readonly strings: Strings
}

const tableIn = (sections: ReadonlyMap<string, Section>): LineTable => {
  const bytesOf = (name: string): Buffer => sections.get(name)?.read() ?? Buffer.alloc(0)
  return {
    table: bytesOf('.debug_line'),
    strings: { line: bytesOf('.debug_line_str'), info: bytesOf('.debug_str') },
  }
}

const tableOf = (path: string): LineTable | undefined =>
  withSections(path, sections => {
    if (sections.has('.debug_line')) return tableIn(sections)
    const note = sections.get('.note.gnu.build-id')?.read()
    return note && withSections(debugFileOf(note), tableIn)
  })

/**
 * Milliseconds of a table's units that are read without a pause: the event loop of a command must not stand for long.
 */
const SLICE = 20

/** The files and lines of addresses of an ELF file; none without a line table of DWARF 5. */
export const readLines = async (
  path: string,
  addresses: readonly number[],
): Promise<ReadonlyMap<number, SourceLine>> => {
  const found = new Map<number, SourceLine>()
  const lineTable = tableOf(path)
  if (lineTable === undefined) return found
  const { table, strings } = lineTable
  const sorted = [...addresses].sort((a, b) => a - b)
  let pause = performance.now() + SLICE
  for (let start = 0; start + 4 <= table.length && sorted.length > 0; ) {
    const reader = readerOf(table, start)
    const first = start
    try {
      const short = reader.u32()
      const is64 = short === 0xffffffff
      const length = is64 ? reader.u64() : short
      start = reader.at + length
      const end = Math.min(start, table.length)
      if (reader.u16() === DWARF_5) readUnit(reader, end, is64, strings, sorted, found)
    } catch {
      // A unit that is damaged, or newer: its lines stay unknown. Without a length there is no next one.
      if (start === first) break
    }
    if (performance.now() < pause) continue
    await setImmediate()
    pause = performance.now() + SLICE
  }
  return found
}
