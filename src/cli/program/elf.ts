/*
 * Reads what the dynamic linker finds in a program (ELF, elf(5)): its processor, its linker, the libraries that it
 * needs. The file may be anything: what is out of bounds counts as absent.
 */
import { closeSync, openSync, readSync } from 'node:fs'

/** \x7fELF, big-endian. */
const ELF_MAGIC = 0x7f454c46
const ELFCLASS64 = 2
/** Offsets in the file header (Elf64_Ehdr): e_ident[EI_CLASS], e_machine, e_phoff, e_phentsize, e_phnum; its size. */
const FILE_HEADER = { CLASS: 4, MACHINE: 18, PHOFF: 32, PHENTSIZE: 54, PHNUM: 56, BYTES: 64 } as const
/** Offsets in a program header (Elf64_Phdr): p_type, p_offset, p_vaddr, p_filesz. */
const PROGRAM_HEADER = { TYPE: 0, OFFSET: 8, ADDRESS: 16, FILESZ: 32, MIN_BYTES: 40 } as const
const PT_LOAD = 1
const PT_DYNAMIC = 2
const PT_INTERP = 3
const PT_NOTE = 4
/** After the sizes in a note's header (Elf64_Nhdr): its owner. */
const NOTE = { OWNER: 12, BYTES: 16 } as const
/** An entry of the dynamic section (Elf64_Dyn): d_tag, d_val; tags. */
const DYNAMIC = { TAG: 0, VALUE: 8, BYTES: 16, NEEDED: 1n, STRTAB: 5n } as const
/** Maximum lengths of a path or name, and of a dynamic section, bytes; the rest is not read. */
const MAX_NAME = 256
const MAX_DYNAMIC = 1 << 16

/** What a program's file says of how it is started. */
interface ElfProgram {
  readonly is64Bit: boolean
  /** EM_X86_64 and so on. */
  readonly machine: number
  /** The path of its dynamic linker; undefined if it has none. */
  readonly linker: string | undefined
  /** The libraries that it needs, such as libibverbs.so.1; not those of its libraries. */
  readonly needed: readonly string[]
  /** It was built by Go. */
  readonly isGo: boolean
}

interface Segment {
  readonly type: number
  readonly offset: number
  readonly address: bigint
  readonly size: number
}

/** Reads up to `length` bytes of a file; fewer at its end. */
const read = (fd: number, length: number, position: number): Buffer => {
  const bytes = Buffer.alloc(length)
  return bytes.subarray(0, readSync(fd, bytes, 0, length, position))
}

const readName = (fd: number, position: number, length = MAX_NAME): string =>
  read(fd, Math.min(length, MAX_NAME), position).toString('latin1').replace(/\0.*$/s, '')

const segmentsOf = (fd: number, header: Buffer): readonly Segment[] => {
  const start = Number(header.readBigUInt64LE(FILE_HEADER.PHOFF))
  const size = header.readUInt16LE(FILE_HEADER.PHENTSIZE)
  if (size < PROGRAM_HEADER.MIN_BYTES) return []
  const table = read(fd, size * header.readUInt16LE(FILE_HEADER.PHNUM), start)
  return Array.from({ length: Math.floor(table.length / size) }, (_, i) => {
    const entry = table.subarray(i * size)
    return {
      type: entry.readUInt32LE(PROGRAM_HEADER.TYPE),
      offset: Number(entry.readBigUInt64LE(PROGRAM_HEADER.OFFSET)),
      address: entry.readBigUInt64LE(PROGRAM_HEADER.ADDRESS),
      size: Number(entry.readBigUInt64LE(PROGRAM_HEADER.FILESZ)),
    }
  })
}

const neededLibraries = (fd: number, segments: readonly Segment[]): readonly string[] => {
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC)
  if (!dynamic) return []
  const table = read(fd, Math.min(dynamic.size, MAX_DYNAMIC), dynamic.offset)
  const entries = Array.from({ length: Math.floor(table.length / DYNAMIC.BYTES) }, (_, i) => ({
    tag: table.readBigUInt64LE(i * DYNAMIC.BYTES + DYNAMIC.TAG),
    value: table.readBigUInt64LE(i * DYNAMIC.BYTES + DYNAMIC.VALUE),
  }))
  const strings = entries.find(({ tag }) => tag === DYNAMIC.STRTAB)?.value
  if (strings === undefined) return []
  // The table's address in memory; its segment has its place in the file.
  const inFile = segments.find(
    ({ type, address, size }) => type === PT_LOAD && strings >= address && strings < address + BigInt(size),
  )
  if (!inFile) return []
  const start = inFile.offset + Number(strings - inFile.address)
  return entries
    .filter(({ tag, value }) => tag === DYNAMIC.NEEDED && value < inFile.size)
    .map(({ value }) => readName(fd, start + Number(value)))
}

const parse = (fd: number): ElfProgram | undefined => {
  const header = read(fd, FILE_HEADER.BYTES, 0)
  if (header.length < FILE_HEADER.BYTES || header.readUInt32BE(0) !== ELF_MAGIC) return undefined
  const is64Bit = header[FILE_HEADER.CLASS] === ELFCLASS64
  const machine = header.readUInt16LE(FILE_HEADER.MACHINE)
  if (!is64Bit) return { is64Bit, machine, linker: undefined, needed: [], isGo: false }
  const segments = segmentsOf(fd, header)
  const linker = segments.find(({ type }) => type === PT_INTERP)
  return {
    is64Bit,
    machine,
    linker: linker && readName(fd, linker.offset, linker.size),
    needed: neededLibraries(fd, segments),
    isGo: segments.some(
      ({ type, offset }) =>
        type === PT_NOTE && read(fd, NOTE.BYTES, offset).toString('latin1', NOTE.OWNER) === 'Go\0\0',
    ),
  }
}

/** Undefined if the file is no ELF file or cannot be read: a file can be executable and not readable. */
export const readElf = (path: string): ElfProgram | undefined => {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch {
    return undefined
  }
  try {
    return parse(fd)
  } catch {
    // A read beyond what a file can have.
    return undefined
  } finally {
    closeSync(fd)
  }
}
