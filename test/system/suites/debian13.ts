/*
 * Programs of Debian 13 on a machine with an older userland: apt-get fetches packages into a folder of build/, and
 * Debian 13's dynamic linker runs them. Nothing is installed.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'
import { inCi } from '../../tools.ts'

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const FOLDER = join(repoRoot, 'build', 'debian13')

const runOrThrow = (command: string, args: readonly string[]): void => {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr ?? 'it cannot be started'}`)
}

/** The folder with these packages and their dependencies, unpacked. */
export const fetchDebian13 = (packages: readonly string[]): string => {
  if (!existsSync(KEYRING)) throw new Error(`there is no ${KEYRING}: programs of Debian 13 are fetched on Debian only`)
  const root = join(FOLDER, packages.join('+'))
  if (existsSync(root)) return root
  // Several test files may fetch at the same time: the folder is renamed to `root` when it is complete.
  const folder = `${root}.${process.pid}`
  for (const path of ['lists/partial', 'archives/partial', 'root']) mkdirSync(join(folder, path), { recursive: true })
  const sources = join(folder, 'sources.list')
  writeFileSync(sources, `deb [signed-by=${KEYRING}] http://deb.debian.org/debian trixie main\n`)
  writeFileSync(join(folder, 'status'), '')
  const options = [
    ['Dir::Etc::sourcelist', sources],
    ['Dir::Etc::sourceparts', '/dev/null'],
    ['Dir::State::lists', join(folder, 'lists')],
    ['Dir::State::status', join(folder, 'status')],
    ['Dir::Cache', folder],
    ['APT::Sandbox::User', ''],
  ].flatMap(([name, value]) => ['-o', `${name}=${value}`])
  try {
    runOrThrow('apt-get', ['-qq', ...options, 'update'])
    runOrThrow('apt-get', ['-qq', '-y', '-d', '--no-install-recommends', ...options, 'install', ...packages])
    const archives = join(folder, 'archives')
    for (const name of readdirSync(archives).filter(one => one.endsWith('.deb')))
      runOrThrow('dpkg-deb', ['-x', join(archives, name), join(folder, 'root')])
    if (!existsSync(root)) renameSync(join(folder, 'root'), root)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return root
}

/**
 * A folder for PATH with Debian 13's program `name`, or the reason why there is none. In CI it throws if the packages
 * cannot be fetched.
 */
export const debian13 = (
  packages: readonly string[],
  name: string,
): { readonly path: string } | { readonly skip: string } => {
  if (process.arch !== 'x64') return { skip: 'programs of Debian 13 are tried on x86-64 only' }
  try {
    const root = fetchDebian13(packages)
    const path = join(root, 'wrapped')
    mkdirSync(path, { recursive: true })
    const linker = join(root, 'usr/lib64/ld-linux-x86-64.so.2')
    const libraries = join(root, 'usr/lib/x86_64-linux-gnu')
    const line = [linker, '--library-path', libraries, join(root, 'usr/bin', name)].map(part => `'${part}'`).join(' ')
    writeFileSync(join(path, name), `#!/bin/sh\nexec ${line} "$@"\n`)
    chmodSync(join(path, name), 0o755)
    return { path }
  } catch (error) {
    if (inCi()) throw error
    return { skip: `programs of Debian 13 cannot be fetched: ${String(error)}` }
  }
}
