/*
 * Runs a case of the catalogue in a userland, with a daemon that has three devices.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assertGood, type Scope, type TestDaemon, temporaryFolder } from '../../system/programs.ts'
import {
  assertGoodRdmacm,
  type Placeholders,
  type RdmacmOptions,
  runRdmacm,
  startLine,
} from '../../system/rdmacm/rdmacm.ts'
import type { ProgramCase } from './cases.ts'
import { rsocketsLibrary, type UserlandRoot } from './userland.ts'

export const CATALOGUE_DEVICES = ['rxe0@127.0.0.1', 'rxe1@127.0.0.2', 'rxe2@::1']

/** Size of the file that rcopy copies. */
const FILE_BYTES = 100_000

const valuesFor = (scope: Scope, { root }: UserlandRoot): Placeholders => {
  const folder = temporaryFolder(scope)
  const [FILE, COPY] = [join(folder, 'file'), join(folder, 'copy')]
  const library = rsocketsLibrary(root)
  const addresses = { SERVER: '127.0.0.1', SERVER6: '::1', CLIENT: '127.0.0.2' }
  return { ...addresses, FILE, COPY, ...(library !== undefined && { RSOCKETS: library }) }
}

/** Rejects with the output of the programs if the case fails. */
export const runProgram = async (
  scope: Scope,
  daemon: TestDaemon,
  userland: UserlandRoot,
  programCase: ProgramCase,
): Promise<void> => {
  const values = valuesFor(scope, userland)
  const options: RdmacmOptions = { values, command: userland.command }
  const { server, client } = programCase
  if (server === undefined) {
    assertGood(await startLine(scope, daemon, client, options).ended)
    return
  }
  // rcopy copies FILE to COPY.
  const copiesFile = client.includes('COPY')
  const content = Buffer.alloc(FILE_BYTES, 'the content of a file, ')
  if (copiesFile) writeFileSync(values.FILE!, content)
  assertGoodRdmacm(programCase, await runRdmacm(scope, daemon, { ...programCase, server }, options))
  if (copiesFile) assert.deepEqual(readFileSync(values.COPY!), content)
}
