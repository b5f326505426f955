/*
 * `userdma cdi`: writes a file of the Container Device Interface (github.com/cncf-tags/container-device-interface, version
 * 0.3.0), by which podman and others give containers the devices of a daemon on the host: environment, socket and preload
 * library (docs/how-to/containers.md).
 *
 * Of the socket's folder only the socket and the tree of files are mounted, read-only: the folder may also have the log,
 * and root of a container could write to it.
 */
import { realpathSync } from 'node:fs'
import { SessionEnv } from '../../spec/session.ts'
import { openReport } from '../output-file.ts'
import { openChosenSession } from '../own-daemon.ts'
import { shimLibrary } from '../paths.ts'

/** As commander parses them. */
export interface CdiOptions {
  readonly socket?: string
  readonly output?: string
}

/** The vendor and class of devices: `podman run --device userdma.dev/rdma=rxe0`. */
const KIND = 'userdma.dev/rdma'
/** The device that stands for all. All give the same: a session has all devices of its daemon. */
const ALL = 'all'
/** Where containers find the preload library. */
const LIBRARY = '/opt/userdma/libuserdma_shim.so'

/** Edits of a container. `socket`: a path without symbolic links. */
const editsFor = (socket: string) => {
  const mount = (hostPath: string, containerPath: string, ...options: readonly string[]) => ({
    hostPath,
    containerPath,
    options: ['ro', 'rbind', 'rprivate', 'nosuid', 'nodev', ...options],
  })
  return {
    env: [`${SessionEnv.socket}=${socket}`, `LD_PRELOAD=${LIBRARY}`],
    mounts: [
      mount(socket, socket, 'noexec'),
      mount(`${socket}.tree`, `${socket}.tree`, 'noexec'),
      mount(realpathSync(shimLibrary()), LIBRARY),
    ],
  }
}

/** The command. */
export const cdi = async ({ socket, output }: CdiOptions): Promise<void> => {
  const client = await openChosenSession(socket)
  try {
    const { devices } = await client.config()
    if (devices.length === 0)
      throw new Error(`the daemon at ${client.socket} has no device; add one, such as rxe0@127.0.0.1`)
    const edits = editsFor(realpathSync(client.socket))
    const names = [...new Set([...devices.map(({ name }) => name), ALL])]
    const file = {
      cdiVersion: '0.3.0',
      kind: KIND,
      devices: names.map(name => ({ name, containerEdits: edits })),
    }
    const text = `${JSON.stringify(file, null, 2)}\n`
    if (output === undefined) process.stdout.write(text)
    else {
      const report = openReport(output)
      report.write(text)
      if (report.hasFailed) process.exitCode = 1
    }
  } finally {
    client.close()
  }
}
