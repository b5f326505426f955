/*
 * The users that a daemon serves: its own, and the users of `--allow-user` and `--allow-group`
 * (docs/why/threat-model.md). The kernel reports the user and groups of a client at the time of connect(2).
 */
import { type PeerCredentials, peerGroups } from '../../host/net/sockets.ts'

/** Numbers of users and groups, besides the daemon's own user. */
export interface Served {
  readonly users: readonly number[]
  readonly groups: readonly number[]
}

export const ownUserOnly: Served = { users: [], groups: [] }

/** Whether the daemon serves other users than its own. */
export const isShared = ({ users, groups }: Served): boolean => users.length > 0 || groups.length > 0

/** Whether the daemon serves the client at the other end of `fd`. */
export const isServed = ({ users, groups }: Served, fd: number, { uid, gid }: PeerCredentials): boolean =>
  uid === process.geteuid?.() ||
  users.includes(uid) ||
  groups.includes(gid) ||
  (groups.length > 0 && peerGroups(fd).some(group => groups.includes(group)))
