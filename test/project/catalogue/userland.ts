/*
 * Where programs come from: this machine (Debian 12), or a folder with Debian 13, entered by chroot in a mount
 * namespace. Nothing is installed, and nothing stays mounted.
 */
import { existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { repoRoot } from '../../paths.ts'
import { fetchDebian13 } from '../../system/suites/debian13.ts'
import type { Userland } from './cases.ts'

export type Words = readonly [string, ...string[]]

export interface UserlandRoot {
  readonly root: string
  /** Returns the command that runs a program of the userland. */
  readonly command: (words: Words) => Words
}

/** Packages of Debian 13; their dependencies are fetched too. */
const PACKAGES = [
  ...['ibverbs-utils', 'ibverbs-providers', 'rdmacm-utils', 'infiniband-diags', 'iproute2', 'perftest'],
  ...['python3-pyverbs', 'rdma-core', 'base-files', 'coreutils', 'dash', 'grep', 'sed', 'libstdc++6'],
]

/** Shared with the userland: the system's own folders, the daemons' (in the temporary folder), and this checkout. */
const FOLDERS = ['/proc', '/sys', '/dev', tmpdir(), repoRoot, realpathSync(join(repoRoot, 'node_modules'))]
/** The folders, and the executable of Node.js. */
const SHARED = [...FOLDERS, process.execPath]
/** `$0`: the root folder; the arguments are the command. */
const ENTER = `for path in ${SHARED.map(path => `'${path}'`).join(' ')}; do mount --rbind "$path" "$0$path" || exit 125; done
exec chroot "$0" "$@"`

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** Prepares a folder with the packages of a release for being entered. */
export const enterable = (root: string): UserlandRoot => {
  for (const path of [...FOLDERS, dirname(process.execPath)]) mkdirSync(join(root, path), { recursive: true })
  if (!existsSync(join(root, process.execPath))) writeFileSync(join(root, process.execPath), '') // only a mount point
  writeFileSync(join(root, 'etc', 'hosts'), '127.0.0.1 localhost\n')
  writeFileSync(join(root, 'etc', 'nsswitch.conf'), 'hosts: files\n')
  const enter = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', ENTER, root] as const
  return { root, command: words => [...enter, ...words] }
}

/** `skip`: the reason why the userland cannot be used here. */
export const userlandRoot = (userland: Userland): UserlandRoot | { readonly skip: string } => {
  if (userland === 'Debian 12') return { root: '/', command: words => words }
  if (process.getuid?.() !== 0) return { skip: "Debian 13's userland is entered by chroot, which needs root" }
  if (process.arch !== 'x64') return { skip: "Debian 13's userland is tried on x86-64 only" }
  try {
    return enterable(fetchDebian13(PACKAGES))
  } catch (error) {
    return { skip: `Debian 13's userland cannot be fetched: ${String(error)}` }
  }
}

/** The path of librspreload within the userland; undefined: not installed. */
export const rsocketsLibrary = (root: string): string | undefined =>
  existsSync(join(root, LIBRARIES, 'rsocket', 'librspreload.so')) ? `/${LIBRARIES}/rsocket/librspreload.so` : undefined
