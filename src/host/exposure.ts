/*
 * Whether others can exchange the files in a folder: the question that sshd asks as StrictModes.
 *
 * A folder is safe if only this user and root can make, rename and remove entries in it, and in every folder and
 * symbolic link on the way there. A folder above may be sticky and open to all, as /tmp is: its entries stay their
 * owners'. The folder itself may not, since names in it that are free are everybody's.
 */
import { lstatSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
const ALL_USERS = 2 ** 32 - 1

/** Numbers of users in this user namespace, those that they have outside, and how many in a row; empty if unknown. */
const userMap = (): readonly (readonly [inside: number, outside: number, count: number])[] => {
  try {
    const lines = readFileSync('/proc/self/uid_map', 'utf8').trim().split('\n')
    return lines.map(line => line.trim().split(/\s+/).map(Number) as [number, number, number])
  } catch {
    return []
  }
}

/**
 * The owner that files of users without a number here have: in a user namespace these are root's too, and nobody can
 * tell them apart. Undefined where all users have numbers.
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

/** A user of this user namespace, in a sentence. */
export const userText = (uid: number): string =>
  uid === unmappedUser() ? 'a user outside this user namespace' : `user ${uid}`

/** The number that a user of this namespace has outside. */
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
 * Why users besides this one and root can exchange files in `folder`, as half a sentence; undefined if they cannot.
 * Throws what lstat(2) says of a folder that cannot be looked at.
 */
export const exposure = (folder: string): string | undefined =>
  exposureOf(resolve(folder), true, [0, process.geteuid?.(), unmappedUser()])
