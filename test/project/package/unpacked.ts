/*
 * The npm packages in a folder of their own: made by scripts/package.mjs, and unpacked into node_modules, for the tests
 * of a file.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { repoRoot } from '../../paths.ts'

export const folder = mkdtempSync(join(tmpdir(), 'userdma-package-'))
export const installed = (name: string): string => join(repoRoot, 'node_modules', name)
export const pathOf = (name: string): string => join(folder, name)
// With NODE_TEST_CONTEXT, Node would take the programs for test files.
const { NODE_TEST_CONTEXT: _, ...environment } = process.env
export const env = environment
export const node = (...args: string[]): string =>
  execFileSync(process.execPath, args, { cwd: folder, env, encoding: 'utf8' })
export const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as { version: string }
export const write = (name: string, text: string): string => {
  writeFileSync(pathOf(name), text)
  return name
}

/** The archive of `userdma`. */
export let tarball: Uint8Array<ArrayBuffer>

/** Unpacks the archive of a package into node_modules. */
export const unpack = (archive: string, name: string): void => {
  mkdirSync(pathOf(`node_modules/${name}`), { recursive: true })
  execFileSync('tar', ['-xzf', archive, '-C', pathOf(`node_modules/${name}`), '--strip-components=1'])
}

/** Makes `userdma` with scripts/package.mjs, and unpacks it; returns the archive. */
const install = (): string => {
  const output = mkdtempSync(join(folder, 'packed-'))
  const script = join(repoRoot, 'scripts', 'package.mjs')
  execFileSync(process.execPath, [script, 'npm', '--arch', process.arch, '--output', output], { env, stdio: 'pipe' })
  const archive = join(output, `userdma-${version}.tgz`)
  unpack(archive, 'userdma')
  return archive
}

before(() => {
  tarball = Uint8Array.from(readFileSync(install()))
  for (const name of ['koffi', '@koromix', '@types', 'undici-types', 'commander', 'yaml'])
    if (existsSync(installed(name))) symlinkSync(installed(name), pathOf(`node_modules/${name}`))
  write('package.json', '{ "type": "module" }')
})
after(() => rmSync(folder, { recursive: true }))

/** Options of tsc. */
export const strict = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2022,esnext.disposable']
/** Options of tsc for programs of Node. */
export const nodeModules = [...strict, '--module', 'nodenext', '--moduleResolution', 'nodenext']

/** The end of a program that has imported `open`. */
export const openAndClose = (link: string) => `
  open(${link === 'memory' ? '' : `{ link: '${link}', address: '127.0.0.71' }`}).then(async device => {
    console.log(device.name)
    await device.close()
  })`
