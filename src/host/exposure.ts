/*
 * Checks whether other users can replace files in a folder, as sshd does with StrictModes.
 *
 * A folder is safe if only this user and root can create, rename and remove entries in it, and in every folder and
 * symbolic link of its path. A parent may be sticky and writable by all, as /tmp is: its entries stay their owners'.
 * The folder itself may not, since any user could create its missing names.
 */
import { lstatSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
const ALL_USERS = 2 ** 32 - 1

/**
 * One mapping of user ids: the first id in this user namespace, the first id outside, and their number; empty if
 * unknown.
 */
const userMap = (): readonly (readonly [inside: number, outside: number, count: number])[] => {
  try {
    const lines = readFileSync('/proc/self/uid_map', 'utf8').trim().split('\n')
    return lines.map(line => line.trim().split(/\s+/).map(Number) as [number, number, number])
  } catch {
    return []
  }
}

/**
 * The owner shown for files of users without an id in this namespace. In a user namespace root's files may show it too.
 * Undefined if all users have ids.
 */
const unmappedUser = (): number | undefined => {
  const [first] = userMap()
  if (first === undefined || first[2] >= ALL_USERS) return undefined
  try {
    return Number(readFileSync('/proc/sys/kernel/overflowuid', 'utf8'))
  } catch {
    return undefined
  }
}

/** The name of a user of this user namespace, for messages. */
export const userText = (uid: number): string =>
  uid === unmappedUser() ? 'a user outside this user namespace' : `user ${uid}`

/** The id outside of the namespace of a user in it. */
export const outerUser = (uid: number): number => {
  const found = userMap().find(([inside, , count]) => uid >= inside && uid < inside + count)
  return found === undefined ? uid : uid - found[0] + found[1]
}

const exposureOf = (path: string, isLast: boolean, owners: readonly (number | undefined)[]): string | undefined => {
  const folder = dirname(path)
  const above = folder === path ? undefined : exposureOf(folder, false, owners)
  if (above !== undefined) return above
  const found = lstatSync(path)
  if (!owners.includes(found.uid)) return `${path} belongs to ${userText(found.uid)}`
  if (found.isSymbolicLink()) return exposureOf(resolve(realpathSync(folder), readlinkSync(path)), isLast, owners)
  if ((found.mode & WRITABLE_BY_OTHERS) === 0 || (!isLast && (found.mode & STICKY) !== 0)) return undefined
  return `others may write to ${path} (mode ${(found.mode & 0o7777).toString(8).padStart(4, '0')})`
}

/**
 * Why users besides this one and root can replace files in `folder`, for a message; undefined if they cannot. Throws
 * the error of lstat(2).
 */
export const exposure = (folder: string): string | undefined =>
  exposureOf(resolve(folder), true, [0, process.geteuid?.(), unmappedUser()])
