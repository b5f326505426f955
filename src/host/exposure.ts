/*
 * Checks whether other users can replace files in a folder, as sshd does with StrictModes.
 *
 * A folder is safe if only this user and root can create, rename and remove entries in it and in every folder above it.
 * A symbolic link in its path must belong to one of them, and the link's target must be as safe. A parent may be
 * writable by all if it is sticky, as /tmp is: then only the owner of an entry can rename or remove it. The folder
 * itself may not be: any user could create a file there that does not exist yet.
 */
import { lstatSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
/** The length of the only user id mapping of the initial user namespace: all ids but -1. */
const ALL_USERS = 2 ** 32 - 1

/**
 * The user id mappings of this user namespace (user_namespaces(7)), each as the first id inside it, the first id in the
 * parent namespace, and the number of ids; empty if they cannot be read.
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
 * The id that stat(2) shows for files of users without an id in this user namespace (overflowuid). The files of the
 * machine's root may show it too, so it is accepted as an owner. Undefined if all users have ids.
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

/** A user for messages: `user 1000`. `uid`: as stat(2) shows it in this user namespace. */
export const userText = (uid: number): string =>
  uid === unmappedUser() ? 'a user outside this user namespace' : `user ${uid}`

/** The id that a user of this user namespace has in the parent namespace; `uid` itself if that is unknown. */
export const outerUser = (uid: number): number => {
  const mapping = userMap().find(([inside, , count]) => uid >= inside && uid < inside + count)
  return mapping === undefined ? uid : uid - mapping[0] + mapping[1]
}

/**
 * As `exposure`, for `path` and all its parents. `isLast`: whether `path` is the folder in question, not one of its
 * parents. `owners`: the users who may replace files.
 */
const exposureOf = (path: string, isLast: boolean, owners: readonly (number | undefined)[]): string | undefined => {
  const folder = dirname(path)
  const parentExposure = folder === path ? undefined : exposureOf(folder, false, owners)
  if (parentExposure !== undefined) return parentExposure
  const stat = lstatSync(path)
  if (!owners.includes(stat.uid)) return `${path} belongs to ${userText(stat.uid)}`
  if (stat.isSymbolicLink()) return exposureOf(resolve(realpathSync(folder), readlinkSync(path)), isLast, owners)
  if ((stat.mode & WRITABLE_BY_OTHERS) === 0 || (!isLast && (stat.mode & STICKY) !== 0)) return undefined
  return `others may write to ${path} (mode ${(stat.mode & 0o7777).toString(8).padStart(4, '0')})`
}

/**
 * Why users besides this one and root can replace files in `folder`, for a message; undefined if they cannot. Throws
 * the error of lstat(2).
 */
export const exposure = (folder: string): string | undefined =>
  exposureOf(resolve(folder), true, [0, process.geteuid?.(), unmappedUser()])
