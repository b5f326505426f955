/*
 * Podman with images of its own (podman.sh): an unchanged Debian with ibverbs-utils, and the image of `npm run
 * package`.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../paths.ts'
import {
  assertGood,
  type Finished,
  lacking,
  type Running,
  run,
  type Scope,
  start,
  temporaryFolder,
} from './programs.ts'

const PODMAN = join(repoRoot, 'test', 'system', 'podman.sh')
export const DEBIAN = 'debian-rdma'
export const OWN = 'localhost/userdma:0.1.0'
/** Where the limits of the machine are low. */
export const LIMITS = ['--rm', '--network=host', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=4096:4096']
const PINGPONG = 'ibv_rc_pingpong -d rxe0 -g 1 -e -n 100'
/** A server and its client, which tries until the server listens. */
export const PAIR = `${PINGPONG} & until ${PINGPONG} localhost 2>/dev/null; do sleep 0.1; done; wait`

/** The reason why there are no containers here, for `skip`; false if there are. */
export const noContainers = (...programs: readonly string[]): string | false =>
  (process.geteuid?.() !== 0 && 'needs root') || lacking('podman', 'mmdebstrap', 'unshare', 'mountpoint', ...programs)

interface Podman {
  /** A folder for images and containers. */
  readonly storage: string
  /** The folder that is /etc/cdi. */
  readonly cdi: string
  /** The archive of DEBIAN's root. */
  readonly archive: string
  run(...args: readonly string[]): Promise<Finished>
  start(scope: Scope, ...args: readonly string[]): Running
}

/** Podman with both images. Nothing is done if `skip`. */
export const newPodman = (scope: Scope, skip: string | false): Podman & { prepare(): Promise<void> } => {
  const storage = skip ? '' : temporaryFolder(scope)
  const cdi = join(storage, 'cdi')
  const archive = join(storage, 'root.tar')
  const words = (args: readonly string[]): string[] => [storage, cdi, '--', ...args]
  const podman = (...args: readonly string[]): Promise<Finished> => run(scope, PODMAN, words(args))
  return {
    storage,
    cdi,
    archive,
    run: podman,
    start: (inner, ...args) => start(inner, PODMAN, words(args)),
    async prepare() {
      chmodSync(storage, 0o755)
      mkdirSync(cdi)
      const makeRoot = join(repoRoot, 'test', 'project', 'install', 'make-root.sh')
      const root = execFileSync(makeRoot, ['bookworm', 'amd64', 'ibverbs-utils', 'ibverbs-providers'], {
        encoding: 'utf8',
      })
      copyFileSync(root.trim(), archive)
      assertGood(await podman('import', '--quiet', archive, DEBIAN))
      const script = join(repoRoot, 'scripts', 'package.mjs')
      execFileSync(process.execPath, [script, 'image', '--arch', 'x64', '--output', storage], { stdio: 'pipe' })
      assertGood(await podman('load', '--quiet', '--input', join(storage, 'userdma-0.1.0-oci.tar')))
    },
  }
}
