/*
 * The text of `userdma --version`: the package, Node.js, and the preload library with its session protocol.
 */
import { readFileSync } from 'node:fs'
import { SESSION_VERSION } from '../spec/session.ts'
import { packageVersion, shimLibrary } from './paths.ts'

/** The preload library as text; if it is missing, the reason. */
const libraryText = (): string => {
  let path: string
  try {
    path = shimLibrary()
  } catch (error) {
    return `no preload library: ${(error as Error).message}`
  }
  // version_text of shim/session/connect.c
  const [, protocol] = /userdma session protocol (\d+)/.exec(readFileSync(path, 'latin1')) ?? []
  const differs =
    Number(protocol) === SESSION_VERSION ? '' : `, but this package has ${SESSION_VERSION}: install both again`
  return `preload library ${path}, session protocol ${protocol ?? 'unknown'}${differs}`
}

export const versionText = (): string =>
  `userdma ${packageVersion()}\nNode.js ${process.versions.node}\n${libraryText()}`
