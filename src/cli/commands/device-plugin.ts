/*
 * `userdma device-plugin`: offers the devices of a daemon on this machine to pods of Kubernetes, as a device plugin of
 * kubelet (docs/how-to/kubernetes.md). One process serves any number of resources, all of one daemon, which may start
 * later, end and come back.
 */
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { devicePluginOptions } from '../command-line/options.ts'
import { cdiText, type Edits, editsFor } from '../container-edits.ts'
import { onEndSignal } from '../end-signals.ts'
import { messageOf, UsageError } from '../fail.ts'
import { joinKubelet, type Kubelet } from '../kubernetes/kubelet.ts'
import { createPlugin } from '../kubernetes/plugin.ts'
import { copyPreload } from '../kubernetes/preload-copy.ts'
import { parseResources, socketName } from '../kubernetes/resources.ts'
import { watchDaemon } from '../kubernetes/watched-daemon.ts'
import { openReport } from '../output-file.ts'
import { shimLibrary } from '../paths.ts'

type DevicePluginOptions = OptionsOf<typeof devicePluginOptions>

const say = (sentence: string): void => {
  process.stderr.write(`userdma device-plugin: ${sentence}\n`)
}

/** Not by `recursive`, which never ends in /proc on Node 20. */
const makeAll = (folder: string): void => {
  if (existsSync(folder)) return
  makeAll(dirname(folder))
  mkdirSync(folder, { mode: 0o755 })
}

/** Makes the folder of an option. Throws UsageError. */
const makeFolder = (option: string, path: string): string => {
  const folder = resolve(path)
  try {
    makeAll(folder)
    if (!statSync(folder).isDirectory()) throw new UsageError(`${option} "${path}" is no folder`)
    accessSync(folder, constants.W_OK | constants.X_OK)
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new UsageError(`${option} "${path}" cannot be made or written: ${(error as NodeJS.ErrnoException).code}`)
  }
  return folder
}

/** The command. */
export const devicePlugin = async (options: DevicePluginOptions): Promise<void> => {
  const resources = parseResources(options.resource)
  const socket = namedSocket(options.socket) ?? userSocket()
  const library =
    options.libraryFolder === undefined
      ? shimLibrary()
      : copyPreload(shimLibrary(), makeFolder('--library-folder', options.libraryFolder))
  const cdiFile = options.cdi === undefined ? undefined : join(makeFolder('--cdi', options.cdi), 'userdma.json')
  const edits = (): Edits => editsFor(socket, library)
  let kubelet: Kubelet | undefined

  const update = (): void => {
    // before kubelet may ask for what is in it
    if (daemon.isUp && cdiFile !== undefined) writeCdi(cdiFile)
    for (const plugin of plugins) plugin.update()
    if (!daemon.isUp) return
    for (const [i, { name }] of resources.entries()) say(`${name}: ${plugins[i]!.describe()}`)
  }
  const writeCdi = (file: string): void => {
    try {
      const names = daemon.devices.map(({ name }) => name)
      openReport(file).write(cdiText(names, edits()))
    } catch (error) {
      say(messageOf(error))
    }
  }
  // before there is a socket that must be removed
  const ended = new Promise<void>(done => onEndSignal(() => done()))
  const daemon = watchDaemon(socket, update, say)
  const settings = { edits, hasCdi: cdiFile !== undefined }
  const plugins = resources.map(resource => createPlugin(resource, daemon, settings, () => kubelet?.streamEnded()))
  const close = (): void => {
    kubelet?.close()
    for (const plugin of plugins) plugin.close()
    daemon.close()
  }
  try {
    const folder = resolve(options.kubelet)
    kubelet = await joinKubelet(
      folder,
      resources.map((resource, i) => ({
        resource: resource.name,
        endpoint: socketName(resource),
        serve: connection => plugins[i]!.serve(connection),
        get streams() {
          return plugins[i]!.streams
        },
      })),
      say,
    )
  } catch (error) {
    close()
    throw error
  }
  await ended
  close()
}
