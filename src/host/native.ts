/*
 * Native calls, and the only file that loads koffi.
 *
 * koffi is optional: it is loaded at the first native call, not at import. Modules declare C functions as prototypes.
 * Pointers are declared int64_t and passed as Numbers: user addresses have at most 48 bits, and this is koffi's fastest
 * way. Layouts of C structs in host/ are those of 64-bit little-endian Linux; loading fails elsewhere.
 */
import { createRequire } from 'node:module'
import { endianness } from 'node:os'
import { SystemError } from './errno.ts'

type Koffi = typeof import('koffi')
type Library = ReturnType<Koffi['load']>

/** Integers and pointers are Numbers, `const char *` takes a string. */
export type NativeFunction = (...args: (number | string)[]) => number

/** koffi's version in package.json. */
const VERSION = '3.3.4'

/** Loads koffi's native module directly if possible: much faster than the package's own loader. */
const loadKoffi = (require: NodeJS.Require): Koffi => {
  const library = `@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`
  try {
    const direct = require(library) as Koffi & { readonly version?: string }
    if (direct.version === VERSION) return direct
  } catch {
    // Another libc or package manager: koffi's loader finds the module or reports the error.
  }
  return require('koffi') as Koffi
}

let loaded: Koffi | undefined
let libc: Library | undefined

/** Throws an Error if koffi is missing, or if the system is not 64-bit little-endian Linux. */
export const koffi = (): Koffi => {
  if (loaded) return loaded
  const { platform, arch } = process
  if (platform !== 'linux' || endianness() !== 'LE' || !/64/.test(arch)) {
    throw new Error(`native calls need 64-bit little-endian Linux; this is ${platform} on ${arch} (${endianness()})`)
  }
  try {
    // A CommonJS bundle has no URL: koffi is looked up from the program's path.
    loaded = loadKoffi(createRequire(import.meta.url ?? process.argv[1] ?? `${process.cwd()}/`))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : String(cause)
    throw new Error(
      `this needs the npm package "koffi", which could not be loaded (npm install koffi@${VERSION}): ${why}`,
      {
        cause,
      },
    )
  }
  return loaded
}

/** Whether native calls are possible here. Never throws. */
export const hasNative = (): boolean => {
  try {
    koffi()
    return true
  } catch {
    return false
  }
}

const declare = <K extends string>(library: Library, prototypes: Record<K, string>): Record<K, NativeFunction> => {
  const functions: Record<string, NativeFunction> = {}
  for (const [name, prototype] of Object.entries<string>(prototypes)) functions[name] = library.func(prototype)
  return functions
}

/**
 * Functions of the C library by their prototypes, for example { close: 'int close(int fd)' }. They are loaded at the
 * first call of the returned function.
 */
export const libcFunctions = <K extends string>(prototypes: Record<K, string>): (() => Record<K, NativeFunction>) => {
  let functions: Record<K, NativeFunction> | undefined
  return () => {
    if (functions) return functions
    libc ??= koffi().load(null)
    functions = declare(libc, prototypes)
    return functions
  }
}

/** Functions of a shared library at `path`. Throws if the library or a symbol is missing. */
export const libraryFunctions = <K extends string>(path: string, prototypes: Record<K, string>) =>
  declare(koffi().load(path), prototypes)

/** The positive error number of the last native call. */
export const lastErrno = (): number => koffi().errno()

/** `result`, or -errno if `result` is negative: for hot functions. */
export const orErrno = (result: number): number => (result < 0 ? -koffi().errno() : result)

/** Returns `result`; throws SystemError if it is negative: for set-up functions. */
export const check = (call: string, result: number, detail?: string): number => {
  if (result < 0) throw new SystemError(call, lastErrno(), detail)
  return result
}
