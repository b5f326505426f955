/*
 * `userdma inspect`: serves a page that shows a session file, or what happens on a daemon or the hosts of a net.
 */

import { commandAt, namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { openFile } from '../../tools/inspect/file.ts'
import { type LiveClient, openLive } from '../../tools/inspect/live.ts'
import { readPage } from '../../tools/inspect/page-files.ts'
import { type PageData, servePage } from '../../tools/inspect/server.ts'
import { openedSession } from '../capture-session.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { inspectOptions } from '../command-line/options.ts'
import { beforeEndBySignal, onEndSignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { listenAddress } from '../listen-address.ts'
import { ranInside } from '../net/inside.ts'
import { hostsWithDaemon } from '../net/plan.ts'
import { type ChosenNet, type NetFolder, type NetState, runningNet } from '../net/state.ts'
import { openChosenSession } from '../own-daemon.ts'
import { packageVersion, pageFolder } from '../paths.ts'
import { newSymbols } from '../recorded-symbols.ts'
import { openSessionFile } from '../session-file.ts'

type InspectOptions = OptionsOf<typeof inspectOptions>

/** NAME or NAME:PORT. */
const hostNames = (names: readonly string[] = []): readonly string[] => {
  const wrong = names.find(name => !/^[\w.-]{1,253}(?::\d{1,5})?$/.test(name))
  if (wrong === undefined) return names
  throw new UsageError(
    `--host-name "${wrong}": give a name, such as lab7.example.org, or with a port lab7.example.org:80`,
  )
}

/** The temporary file of a live page has at most so many bytes. */
const LIVE_LIMIT = 128 * 2 ** 20
/** The files of all hosts of a net share LIVE_LIMIT, but have at least so many bytes each. */
const MIN_LIVE_LIMIT = 8 * 2 ** 20

interface Opened {
  readonly data: PageData
  close(): Promise<void>
}

/** `socket`: as for `--socket`. `run`: the command line by which a program uses this daemon, without the program. */
const openDaemon = (
  name: string,
  socket: string | undefined,
  run: string,
  limit: number,
  allowsFaults = false,
): Promise<Opened> =>
  openLive({
    name,
    run,
    application: `userdma ${packageVersion()}`,
    limit,
    allowsFaults,
    async connect(): Promise<LiveClient> {
      const client = await openChosenSession(socket)
      return Object.assign(client, { newSymbols: newSymbols(client) })
    },
  })

/** Throws UsageError if the file cannot be read, or is no session file. */
const openReadable = async (path: string): ReturnType<typeof openFile> => {
  openSessionFile(path).close()
  return openFile(path).catch(error => {
    throw new UsageError(error.message)
  })
}

/** A session file, or a capture as one. Throws UsageError. */
const openSessionOrCapture = async (file: string, capture: string | undefined): Promise<Opened> => {
  const { path, remove } = await openedSession(file, capture, 'inspect')
  const removeHandlers = beforeEndBySignal(remove)
  try {
    const { data, close } = await openReadable(path)
    return {
      data: { ...data, name: file },
      async close(): Promise<void> {
        await close()
        removeHandlers()
        remove()
      },
    }
  } catch (error) {
    removeHandlers()
    remove()
    throw error
  }
}

/** The daemons of all hosts of the net `name`. */
const openNet = async (
  name: string,
  folder: NetFolder,
  { plan }: NetState,
  allowsFaults = false,
): Promise<Opened[]> => {
  const hosts = hostsWithDaemon(plan)
  const limit = Math.max(MIN_LIVE_LIMIT, Math.floor(LIVE_LIMIT / hosts.length))
  const opening = hosts.map(({ name: host }) =>
    openDaemon(host, folder.socket(host), `userdma net exec --net ${name} ${host} --`, limit, allowsFaults),
  )
  return Promise.all(opening)
}

const open = async (file: string | undefined, options: InspectOptions, net?: ChosenNet): Promise<Opened[]> => {
  if (file !== undefined) return [await openSessionOrCapture(file, options.capture)]
  if (net !== undefined) return openNet(options.net ?? '', net.folder, net.state, options.allowFaults)
  const socket = namedSocket(options.socket) ?? userSocket()
  return [await openDaemon(socket, options.socket, `${commandAt('run', socket)} --`, LIVE_LIMIT, options.allowFaults)]
}

/** The command. Without `file`: of a daemon. */
export const inspect = async (file: string | undefined, options: InspectOptions): Promise<void> => {
  const address = { ...listenAddress(options.listen), names: hostNames(options.hostName) }
  if (file !== undefined && options.socket !== undefined)
    throw new UsageError('--socket is for a daemon; a session file has none')
  if (file === undefined && options.capture !== undefined)
    throw new UsageError('--capture shows packets beside a recording: name its session file')
  if (file !== undefined && options.allowFaults) throw new UsageError('--allow-faults is for a daemon')
  if (file !== undefined && options.net !== undefined)
    throw new UsageError('--net shows the daemons of a net; leave out the file')
  const net = options.net === undefined ? undefined : runningNet(options.net, options.at)
  if (net !== undefined && (await ranInside(net.folder, net.state, process.argv.slice(2)))) return
  const page = readPage(pageFolder)
  const opened = await open(file, options, net)
  const [first, ...others] = opened.map(({ data }) => data)
  const server = await servePage(page, [first!, ...others], address)
  process.stdout.write(`userdma inspect: open this link, which works once: ${server.link()}\n`)
  await new Promise<void>(resolve => onEndSignal(() => resolve()))
  await server.close()
  await Promise.all(opened.map(each => each.close()))
}
