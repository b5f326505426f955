/*
 * The text of `userdma --version`: the package, Node.js, and the preload library with its session protocol.
 */
import { readFileSync } from 'node:fs'
import { SESSION_VERSION } from '../spec/session.ts'
import { packageVersion, shimLibrary } from './paths.ts'

/** The preload library as text, or why it is missing. `isUsable`: it has this package's session protocol. */
export const preloadLibraryVersion = (): { readonly text: string; readonly isUsable: boolean } => {
  let path: string
  try {
    path = shimLibrary()
  } catch (error) {
    return { text: `no preload library: ${(error as Error).message}`, isUsable: false }
  }
  // version_text of shim/session/connect.c
  const [, protocol] = /userdma session protocol (\d+)/.exec(readFileSync(path, 'latin1')) ?? []
  const isUsable = Number(protocol) === SESSION_VERSION
  const differs = isUsable ? '' : `, but this package has ${SESSION_VERSION}: install both again`
  return { text: `preload library ${path}, session protocol ${protocol ?? 'unknown'}${differs}`, isUsable }
}

export const versionText = (): string =>
  `userdma ${packageVersion()}\nNode.js ${process.versions.node}\n${preloadLibraryVersion().text}`
