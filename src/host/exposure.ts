/*
 * Checks whether other users can replace files in a folder, as sshd does with StrictModes.
 *
 * A folder is safe if only this user and root can create, rename and remove entries in it and in every folder above it.
 * A symbolic link in the path must belong to one of them, and its target must be safe. Folders above may be writable by
 * all if they are sticky, as /tmp is: then only the owner of an entry can rename or remove it. The folder itself may
 * not, because any user could create a file in it.
 */
import { lstatSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { isAbsolute, resolve } from 'node:path'

const WRITABLE_BY_OTHERS = 0o022
const STICKY = 0o1000
/** Number of ids in the user id mapping of the initial user namespace: all but -1. */
const ALL_USERS = 2 ** 32 - 1

/**
 * The user id mappings of this user namespace (user_namespaces(7)): first id inside, first id in the parent namespace,
 * number of ids. Empty if they cannot be read.
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
 * The uid that stat(2) shows for files of users without an id in this user namespace (overflowuid). Accepted as an
 * owner, because the files of the machine's root may show it too. Undefined if all users have ids.
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

/** A user for messages: `user 1000`. `uid`: as from stat(2). */
export const userText = (uid: number): string =>
  uid === unmappedUser() ? 'a user outside this user namespace' : `user ${uid}`

/** The id of a user in the parent namespace; `uid` itself if unknown. */
export const outerUser = (uid: number): number => {
  const mapping = userMap().find(([inside, , count]) => uid >= inside && uid < inside + count)
  return mapping === undefined ? uid : uid - mapping[0] + mapping[1]
}

/**
 * Why users other than this user and root can replace files in `folder`, for a message. Undefined if they cannot.
 * Throws the error of stat(2) or lstat(2).
 */
export const exposure = (folder: string): string | undefined => {
  // Throws for a loop of links, so the walk below ends.
  statSync(folder)
  const owners = [0, process.geteuid?.(), unmappedUser()]
  /** The components not walked yet, the next one last. */
  const names = resolve(folder).split('/').reverse()
  /** The folder reached so far, without links: so `..` is its parent, as for the kernel. */
  let path = '/'
  while (names.length > 0) {
    const next = resolve(path, names.pop()!)
    const stat = lstatSync(next)
    if (!owners.includes(stat.uid)) return `${next} belongs to ${userText(stat.uid)}`
    if (stat.isSymbolicLink()) {
      const target = readlinkSync(next)
      names.push(...target.split('/').reverse())
      if (isAbsolute(target)) path = '/'
      continue
    }
    path = next
    const isWritable = (stat.mode & WRITABLE_BY_OTHERS) !== 0
    const isProtectedBySticky = names.length > 0 && (stat.mode & STICKY) !== 0
    if (isWritable && !isProtectedBySticky)
      return `others may write to ${path} (mode ${(stat.mode & 0o7777).toString(8).padStart(4, '0')})`
  }
  return undefined
}
