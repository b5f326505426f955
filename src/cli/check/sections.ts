/*
 * Reads the sections of an ELF file (elf(5)). Programs choose the files: one may be anything, and be replaced while it
 * is read, so what is out of bounds counts as absent.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { inflateSync } from 'node:zlib'

const ELF_MAGIC = 0x7f454c46
/** Offsets in the file header (Elf64_Ehdr): e_shoff, e_shentsize, e_shnum, e_shstrndx; its size. */
const FILE_HEADER = { SHOFF: 40, SHENTSIZE: 58, SHNUM: 60, SHSTRNDX: 62, BYTES: 64 } as const
/** Offsets in a section header (Elf64_Shdr): sh_name, sh_type, sh_flags, sh_offset, sh_size; its size. */
const SECTION_HEADER = { NAME: 0, TYPE: 4, FLAGS: 8, OFFSET: 24, SIZE: 32, BYTES: 64 } as const
const SHF_COMPRESSED = 0x800n
/** Offset of ch_type in the header of a compressed section (Elf64_Chdr); its size. */
const COMPRESSION_HEADER = { TYPE: 0, BYTES: 24 } as const
const ELFCOMPRESS_ZLIB = 1
/** Maximum bytes of a section, also after decompression. */
const MAX_SECTION = 2 ** 28

export interface Section {
  /** SHT_SYMTAB and so on. */
  readonly type: number
  /** Its bytes, decompressed; undefined if it is too long or its compression is unknown. */
  read(): Buffer | undefined
}

/** The bytes of a NUL-terminated string. */
export const stringAt = (bytes: Buffer, start: number): string => {
  const end = bytes.indexOf(0, start)
  return bytes.toString('utf8', start, end < 0 ? bytes.length : end)
}

const readAt = (fd: number, length: number, position: number): Buffer | undefined => {
  if (length > MAX_SECTION || position + length > fstatSync(fd).size) return undefined
  const bytes = Buffer.alloc(length)
  return readSync(fd, bytes, 0, length, position) < length ? undefined : bytes
}

const inflate = (bytes: Buffer): Buffer | undefined =>
  bytes.readUInt32LE(COMPRESSION_HEADER.TYPE) === ELFCOMPRESS_ZLIB
    ? inflateSync(bytes.subarray(COMPRESSION_HEADER.BYTES), { maxOutputLength: MAX_SECTION })
    : undefined

const sectionsIn = (fd: number): ReadonlyMap<string, Section> | undefined => {
  const header = readAt(fd, FILE_HEADER.BYTES, 0)
  if (header?.readUInt32BE(0) !== ELF_MAGIC) return undefined
  if (header.readUInt16LE(FILE_HEADER.SHENTSIZE) !== SECTION_HEADER.BYTES) return undefined
  const length = SECTION_HEADER.BYTES * header.readUInt16LE(FILE_HEADER.SHNUM)
  const table = readAt(fd, length, Number(header.readBigUInt64LE(FILE_HEADER.SHOFF)))
  if (table === undefined) return undefined
  const bytesOf = (entry: Buffer): Buffer | undefined =>
    readAt(fd, Number(entry.readBigUInt64LE(SECTION_HEADER.SIZE)), Number(entry.readBigUInt64LE(SECTION_HEADER.OFFSET)))
  const entries = Array.from({ length: length / SECTION_HEADER.BYTES }, (_, i) =>
    table.subarray(i * SECTION_HEADER.BYTES, (i + 1) * SECTION_HEADER.BYTES),
  )
  const nameEntry = entries[header.readUInt16LE(FILE_HEADER.SHSTRNDX)]
  const names = (nameEntry && bytesOf(nameEntry)) ?? Buffer.alloc(0)
  return new Map(
    entries.map(entry => [
      stringAt(names, entry.readUInt32LE(SECTION_HEADER.NAME)),
      {
        type: entry.readUInt32LE(SECTION_HEADER.TYPE),
        read() {
          const bytes = bytesOf(entry)
          const isCompressed = (entry.readBigUInt64LE(SECTION_HEADER.FLAGS) & SHF_COMPRESSED) !== 0n
          return bytes !== undefined && isCompressed ? inflate(bytes) : bytes
        },
      },
    ]),
  )
}

/**
 * What `use` makes of a file's sections by name; undefined if the file has none, is not a regular file, or cannot be
 * read. Sections are read only while `use` runs.
 */
export const withSections = <T>(
  path: string,
  use: (sections: ReadonlyMap<string, Section>) => T | undefined,
): T | undefined => {
  let fd: number | undefined
  try {
    // Not blocked by a FIFO that has replaced the file.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const sections = fstatSync(fd).isFile() ? sectionsIn(fd) : undefined
    return sections && use(sections)
  } catch {
    // No such file, or a read beyond the end of a section.
    return undefined
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
