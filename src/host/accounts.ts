/*
 * User and group ids by name, from the system's name services (getpwnam_r(3), getgrnam_r(3)).
 */
import { errnoName } from './errno.ts'
import { mapArena } from './memory/mapping.ts'
import { libcFunctions } from './native.ts'

const sys = libcFunctions({
  getpwnam_r: 'int getpwnam_r(const char *name, int64_t entry, int64_t text, uint64_t length, int64_t found)',
  getgrnam_r: 'int getgrnam_r(const char *name, int64_t entry, int64_t text, uint64_t length, int64_t found)',
})

/** struct passwd and struct group both begin {char *name, char *password, u32 number}. */
const NUMBER = 16
const FOUND = 64
const TEXT = 128
/** Buffer for the strings of an entry; the members of a large group need the most. */
const ROOM = 1 << 20

/** The id of an account; undefined if no account has that name. Throws an Error with a message. */
export const accountNumber = (kind: 'user' | 'group', name: string): number | undefined => {
  const { address, u32 } = mapArena(TEXT + ROOM)
  const lookUp = kind === 'user' ? sys().getpwnam_r : sys().getgrnam_r
  const error = lookUp(name, address, address + TEXT, ROOM, address + FOUND)
  if (error !== 0) throw new Error(`${kind} "${name}" cannot be looked up (${errnoName(error)})`)
  return u32[FOUND >> 2] === 0 && u32[(FOUND >> 2) + 1] === 0 ? undefined : u32[NUMBER >> 2]
}
