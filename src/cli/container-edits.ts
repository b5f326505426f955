/*
 * What a container gets for the devices of a daemon on its host: environment and mounts, for files of the Container
 * Device Interface (`userdma cdi`) and for kubelet (`userdma device-plugin`).
 *
 * Of the socket's folder only the socket and the tree of files are mounted, read-only: the folder may also have the
 * log, and root of a container could write to it.
 */
import { realpathSync } from 'node:fs'
import { SessionEnv } from '../spec/session.ts'

/** The vendor and class of devices: `podman run --device userdma.dev/rdma=rxe0`. */
export const KIND = 'userdma.dev/rdma'
/** The device that stands for all. All give the same: a session has all devices of its daemon. */
const ALL = 'all'
/** Where containers find the preload library. */
const LIBRARY = '/opt/userdma/libuserdma_shim.so'

export interface Edits {
  readonly env: Readonly<Record<string, string>>
  /** Read-only. `options`: of mount(8), beside those that all have. */
  readonly mounts: readonly { readonly hostPath: string; readonly containerPath: string; readonly options: string[] }[]
}

/** The edits for the daemon at `socket`. `library`: the preload library on the host. Throws the system's error. */
export const editsFor = (socket: string, library: string): Edits => {
  const real = realpathSync(socket)
  return {
    env: { [SessionEnv.socket]: real, LD_PRELOAD: LIBRARY },
    mounts: [
      { hostPath: real, containerPath: real, options: ['noexec'] },
      { hostPath: `${real}.tree`, containerPath: `${real}.tree`, options: ['noexec'] },
      { hostPath: realpathSync(library), containerPath: LIBRARY, options: [] },
    ],
  }
}

/** The text of a file of the Container Device Interface, version 0.3.0, with the devices and one for all. */
export const cdiText = (names: readonly string[], { env, mounts }: Edits): string => {
  const containerEdits = {
    env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
    mounts: mounts.map(({ options, ...paths }) => ({
      ...paths,
      options: ['ro', 'rbind', 'rprivate', 'nosuid', 'nodev', ...options],
    })),
  }
  const devices = [...new Set([...names, ALL])].map(name => ({ name, containerEdits }))
  return `${JSON.stringify({ cdiVersion: '0.3.0', kind: KIND, devices }, null, 2)}\n`
}
