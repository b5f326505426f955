/*
 * User and group ids by name, from the system's name services (getpwnam_r(3), getgrnam_r(3)).
 */
import { errnoName } from './errno.ts'
import { type Arena, mapArena } from './memory/mapping.ts'
import { libcFunctions } from './native.ts'

const sys = libcFunctions({
  getpwnam_r: 'int getpwnam_r(const char *name, int64_t entry, int64_t text, uint64_t length, int64_t found)',
  getgrnam_r: 'int getgrnam_r(const char *name, int64_t entry, int64_t text, uint64_t length, int64_t found)',
})

/**
 * Offset of the id. The entry is at 0: struct passwd and struct group both begin {char *name, char *password, u32 id}.
 */
const ENTRY_ID = 16
/** Offset of the pointer to the entry, null if there is none. */
const FOUND = 64
/** Offset of the entry's strings. */
const TEXT = 128
/** Bytes for the strings of an entry: enough for the members of a large group. */
const TEXT_BYTES = 1 << 20

let arena: Arena | undefined

/** The id of a user or group; undefined if there is none of this name. Throws an Error if the lookup fails. */
export const accountId = (kind: 'user' | 'group', name: string): number | undefined => {
  arena ??= mapArena(TEXT + TEXT_BYTES)
  const { address, u32 } = arena
  const lookUp = kind === 'user' ? sys().getpwnam_r : sys().getgrnam_r
  const error = lookUp(name, address, address + TEXT, TEXT_BYTES, address + FOUND)
  if (error !== 0) throw new Error(`${kind} "${name}" cannot be looked up (${errnoName(error)})`)
  return u32[FOUND >> 2] === 0 && u32[(FOUND >> 2) + 1] === 0 ? undefined : u32[ENTRY_ID >> 2]
}
