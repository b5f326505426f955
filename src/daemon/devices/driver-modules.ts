/*
 * What the modules of a driver file import and require (driver-file.ts). Their code gets all rights of the daemon too.
 * So each file must be as trusted as the daemon's own: nobody but this user and root may be able to write or replace
 * it, or to choose it. Node looks for packages in `node_modules` of all folders above, and one of those may be writable
 * by all, as /tmp is. The package userdma is always the running one.
 *
 * This file is loaded twice: in this thread, where `guardModules` replaces the function by which `require` finds a
 * file, and in Node's thread for hooks (module.register), where `resolve` sees what is imported.
 */
import { existsSync, lstatSync, readFileSync, statSync } from 'node:fs'
import Module, { isBuiltin, type ResolveHook, register } from 'node:module'
import { dirname, isAbsolute, join, resolve as resolvePath } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { exposure, userText } from '../../host/exposure.ts'

const WRITABLE_BY_OTHERS = 0o022

/** This package, and its folder with the running modules: dist/src of a checkout, dist/program of a package. */
const [, ROOT = '', RUNNING = ''] = /^(.*\/)dist\/(src|program)\//.exec(import.meta.url) ?? []
const OWN_FILES = `${ROOT}dist/`
const ownModule = (name: string): string => `${OWN_FILES}${RUNNING}/${name}.js`

/** Why others than this user and root could change a file or folder, for a message; undefined if they cannot. */
export const exposureOf = (path: string): string | undefined => {
  const stat = statSync(path)
  if (stat.isDirectory()) return exposure(path)
  if (stat.uid !== 0 && stat.uid !== process.geteuid?.()) return `${path} belongs to ${userText(stat.uid)}`
  if ((stat.mode & WRITABLE_BY_OTHERS) !== 0)
    return `others may write to ${path} (mode ${(stat.mode & 0o7777).toString(8).padStart(4, '0')})`
  return exposure(dirname(path))
}

const exists = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined

/** Whether `specifier` is looked for in `node_modules` and package.json. */
const isPackage = (specifier: string): boolean => !/^(\.|\/|[a-z][a-z+.-]*:)/i.test(specifier)

const manifestsIn = (folders: readonly string[]): string[] =>
  folders.map(folder => join(folder, 'package.json')).filter(path => existsSync(path))

/**
 * What decides which file Node finds for an import of `file`: the package.json of a folder; of a package, the
 * package.json of `file`, which may name itself or other files, and the package's first folder, with its package.json.
 */
function* lookups(specifier: string, file: string): Generator<string> {
  if (!isPackage(specifier)) {
    yield* manifestsIn([resolvePath(dirname(file), specifier)])
    return
  }
  const [name] = /^(@[^/]*\/)?[^/]*/.exec(specifier) ?? ['']
  let hasScope = false
  for (let folder = dirname(file), last = ''; folder !== last; last = folder, folder = dirname(folder)) {
    const scope = join(folder, 'package.json')
    if (!hasScope && exists(scope)) yield scope
    hasScope ||= exists(scope)
    const found = join(folder, 'node_modules', name)
    if (!exists(found)) continue
    yield found
    yield* manifestsIn([found, join(folder, 'node_modules', specifier)])
    return
  }
}

const requireSafe = (specifier: string, path: string): void => {
  const reason = exposureOf(path)
  if (reason !== undefined)
    throw new Error(`its import of "${specifier}" is refused: ${reason}; only you and root may be able to write there`)
}

/** URLs of what this package's files have imported, and so on. */
const ownImports = new Set<string>()

/** How an import is resolved: unchecked, as one of this package's files would, or with a check of what was found. */
type Way = 'unchecked' | 'own' | 'checked'

/** The way for an import of the module `parent`, a URL. Throws if others decide which file Node finds. */
const wayOf = (specifier: string, parent: string): Way => {
  // Only a driver is imported by its URL (driver-file.ts).
  if (parent.startsWith(OWN_FILES) && !specifier.startsWith('file:')) return 'unchecked'
  if (ownImports.has(parent) || isBuiltin(specifier)) return 'unchecked'
  if (specifier === 'userdma' || specifier.startsWith('userdma/')) return 'own'
  if (parent.startsWith('file:'))
    for (const path of lookups(specifier, fileURLToPath(parent))) requireSafe(specifier, path)
  return 'checked'
}

/** After an import was resolved to `url`. */
const onResolved = (way: Way, specifier: string, url: string): void => {
  if (way === 'unchecked') ownImports.add(url)
  if (way === 'checked' && url.startsWith('file:')) requireSafe(specifier, fileURLToPath(url))
}

/**
 * The file of the running package that an import of userdma means: the daemon's own module, not the bundle of it for
 * other programs (scripts/bundle.mjs), whose objects the daemon does not know. Throws if the package does not export
 * it.
 */
const ownFile = (specifier: string): string => {
  const manifest = new URL(`${ROOT}package.json`)
  const { exports } = JSON.parse(readFileSync(manifest, 'utf8')) as {
    readonly exports: Readonly<Record<string, { readonly types?: string }>>
  }
  const [, name] = /^\.\/dist\/\w+\/(.*)\.d\.ts$/.exec(exports[specifier.replace(/^userdma/, '.')]?.types ?? '') ?? []
  if (name === undefined) {
    const names = Object.keys(exports).filter(name => exports[name]?.types !== undefined)
    throw new Error(
      `the package has no "${specifier}"; it has ${names.map(name => name.replace('.', 'userdma')).join(', ')}`,
    )
  }
  return ownModule(name)
}

export const resolve: ResolveHook = async (specifier, context, next) => {
  if (context.parentURL === undefined) return next(specifier, context)
  const way = wayOf(specifier, context.parentURL)
  if (way === 'own') return { url: ownFile(specifier), shortCircuit: true }
  const resolved = await next(specifier, context)
  onResolved(way, specifier, resolved.url)
  return resolved
}

/** The function of Node by which every `require` finds its file. */
interface Resolver {
  _resolveFilename(request: string, parent: { readonly filename?: string } | undefined, ...rest: unknown[]): string
}

let isGuarded = false

/** From the first call on, what drivers import and require is checked. */
export const guardModules = (): void => {
  if (isGuarded) return
  isGuarded = true
  register(ownModule('daemon/devices/driver-modules'))
  const resolver = Module as unknown as Resolver
  const plain = resolver._resolveFilename
  resolver._resolveFilename = (request, parent, ...rest) => {
    if (!parent?.filename) return plain.call(resolver, request, parent, ...rest)
    const way = wayOf(request, pathToFileURL(parent.filename).href)
    if (way === 'own') return fileURLToPath(ownFile(request))
    const resolved = plain.call(resolver, request, parent, ...rest)
    if (isAbsolute(resolved)) onResolved(way, request, pathToFileURL(resolved).href)
    return resolved
  }
}
