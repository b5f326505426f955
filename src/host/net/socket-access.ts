/*
 * Who may connect to a socket, by the permissions of its file: its owner, and some users and groups. A backlog has no
 * order by user, so those whom a server does not serve must not reach it. One group is the file's own; users, and
 * several groups, are in an access list (acl(5)), where the file system has these.
 */
import { chmodSync, chownSync } from 'node:fs'
import { EPERM, SystemError } from '../errno.ts'
import { mapArena, releaseArena } from '../memory/mapping.ts'
import { check, libcFunctions } from '../native.ts'

const sys = libcFunctions({
  setxattr: 'int setxattr(const char *path, const char *name, int64_t value, uint64_t size, int flags)',
  getxattr: 'int64_t getxattr(const char *path, const char *name, int64_t value, uint64_t size)',
  removexattr: 'int removexattr(const char *path, const char *name)',
})

// The list as an extended attribute (linux/posix_acl_xattr.h): a version, and entries {tag u16, permissions u16, id
// u32}, in the order of tags and ids.
const NAME = 'system.posix_acl_access'
const VERSION = 2
const ENTRY_BYTES = 8
const Tag = { OWNER: 0x01, USER: 0x02, OWNING_GROUP: 0x04, GROUP: 0x08, MASK: 0x10, OTHERS: 0x20 } as const
const READ_WRITE = 6
const NO_ID = 0xffff_ffff

/** Numbers in this process's user namespace. */
interface Allowed {
  readonly users: readonly number[]
  readonly groups: readonly number[]
}

const inOrder = (ids: readonly number[]): number[] => [...new Set(ids)].sort((a, b) => a - b)

/**
 * Lets these and the owner connect, by an access list alone. Throws SystemError: EOPNOTSUPP if the file system has
 * none, EINVAL for a number that this user namespace does not have, EPERM for another user's file.
 */
export const setAccessList = (path: string, { users, groups }: Allowed): void => {
  const entries = [
    [Tag.OWNER, READ_WRITE, NO_ID],
    ...inOrder(users).map(id => [Tag.USER, READ_WRITE, id]),
    [Tag.OWNING_GROUP, 0, NO_ID],
    ...inOrder(groups).map(id => [Tag.GROUP, READ_WRITE, id]),
    [Tag.MASK, READ_WRITE, NO_ID],
    [Tag.OTHERS, 0, NO_ID],
  ] as [number, number, number][]
  const size = 4 + ENTRY_BYTES * entries.length
  const arena = mapArena(size)
  const { address, view } = arena
  view.setUint32(0, VERSION, true)
  for (const [i, [tag, permissions, id]] of entries.entries()) {
    view.setUint16(4 + ENTRY_BYTES * i, tag, true)
    view.setUint16(6 + ENTRY_BYTES * i, permissions, true)
    view.setUint32(8 + ENTRY_BYTES * i, id, true)
  }
  try {
    check('setxattr', sys().setxattr(path, NAME, address, size, 0), path)
  } finally {
    releaseArena(arena)
  }
}

export const hasAccessList = (path: string): boolean => sys().getxattr(path, NAME, 0, 0) >= 0

/** Lets every user connect. Throws the system's error. */
export const allowAll = (path: string): void => {
  sys().removexattr(path, NAME)
  chmodSync(path, 0o666)
}

/** False if this process may not give the file the group. */
const setGroup = (path: string, group: number): boolean => {
  try {
    chownSync(path, -1, group)
    chmodSync(path, 0o660)
    return true
  } catch {
    return false
  }
}

/**
 * Lets these and the owner connect to the socket at `path`, and nobody else. The folder must be one that others cannot
 * write to. Returns undefined, or why every user may connect now, if the file cannot have such permissions. Throws the
 * system's error if the file is another user's.
 */
export const allowConnects = (path: string, allowed: Allowed): string | undefined => {
  const { users, groups } = allowed
  if (users.length === 0 && groups.length === 0) {
    chmodSync(path, 0o600)
    return undefined
  }
  if (users.length === 0 && groups.length === 1 && setGroup(path, groups[0]!)) return undefined
  try {
    setAccessList(path, allowed)
    return undefined
  } catch (error) {
    if (!(error instanceof SystemError) || error.errno === EPERM) throw error
    allowAll(path)
    return error.message
  }
}
