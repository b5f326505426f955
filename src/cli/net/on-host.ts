/*
 * The host of a net on which this process runs, as `net exec` tells its programs.
 */
import { existsSync } from 'node:fs'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { SessionEnv } from '../../spec/session.ts'

/** A host with a daemon. */
interface OnHost {
  readonly name: string
  /** Of the host's daemon. */
  readonly socket: string
  /** The path of the net's topology. */
  readonly file: string
  /** The sockets of the other hosts' daemons, by name. */
  readonly others: ReadonlyMap<string, string>
}

/** Undefined on the machine itself, on hosts without a daemon, and where a command has set another daemon. */
export const hostOfNet = async (): Promise<OnHost | undefined> => {
  const socket = process.env[SessionEnv.socket] ?? ''
  const net = dirname(dirname(socket))
  if (!existsSync(join(net, 'net.json'))) return undefined
  // Loaded only here, because every command asks.
  const [{ NetFolder }, { hasDaemon }] = await Promise.all([import('./state.ts'), import('./plan.ts')])
  const folder = new NetFolder(basename(net), net)
  if (socket !== folder.socketOfThisHost || !folder.isOnHost) return undefined
  const state = folder.read()
  if (state === undefined) return undefined
  const name = hostname()
  const others = state.plan.hosts.filter(host => hasDaemon(host) && host.name !== name)
  return {
    name,
    socket,
    file: state.file,
    others: new Map(others.map(host => [host.name, folder.socket(host.name)])),
  }
}
