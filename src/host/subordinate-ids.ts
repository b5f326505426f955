/*
 * Ranges of subordinate uids, which users may give to their programs in a user namespace (subuid(5), newuidmap(1)).
 * Only the file /etc/subuid is read: ranges from other sources of nsswitch.conf are unknown here.
 */
import { readFileSync, statSync } from 'node:fs'
import { accountId } from './accounts.ts'

const FILE = '/etc/subuid'

interface SubordinateRange {
  readonly first: number
  readonly count: number
  /** The uid of the user who has the range; undefined if the system has no such user. */
  readonly user: number | undefined
}

/** A line of the file: `user` is a name or number. */
interface Line {
  readonly user: string
  readonly first: number
  readonly count: number
}

/** Lines that are no range are ignored, as newuidmap does. */
const parse = (text: string): Line[] =>
  text.split('\n').flatMap(line => {
    const [, user, first, count] = /^([^:]+):(\d+):(\d+)\s*$/.exec(line) ?? []
    return user === undefined ? [] : [{ user, first: Number(first), count: Number(count) }]
  })

/** Of one version of the file. `users`: uids by name. */
let cache = { version: '', lines: [] as readonly Line[], users: new Map<string, number>() }

/** Reads the file only after a change. */
const readLines = (): readonly Line[] => {
  const stat = statSync(FILE, { bigint: true, throwIfNoEntry: false })
  const version = `${stat?.ino} ${stat?.size} ${stat?.mtimeNs}`
  if (version !== cache.version)
    cache = { version, lines: stat === undefined ? [] : parse(readFileSync(FILE, 'utf8')), users: new Map() }
  return cache.lines
}

const uidOf = (user: string): number | undefined => {
  const uid = /^\d+$/.test(user) ? Number(user) : (cache.users.get(user) ?? accountId('user', user))
  if (uid !== undefined) cache.users.set(user, uid)
  return uid
}

/** The range that contains a uid; undefined: it is no subordinate uid. Throws an Error if the file cannot be read. */
export const subordinateRange = (uid: number): SubordinateRange | undefined => {
  const line = readLines().find(({ first, count }) => uid >= first && uid < first + count)
  if (line === undefined) return undefined
  const { user, first, count } = line
  return { first, count, user: uidOf(user) }
}
