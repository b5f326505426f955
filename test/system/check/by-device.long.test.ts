/*
 * What `userdma check` tells on each kind of device: runs the programs of docs/findings on those that they can run on,
 * and compares with the table (spec/by-device.ts), of which docs/reference/findings-by-device.md is made. An empty cell
 * has a reason there.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type FindingId, findings } from '../../../src/spec/check/findings.ts'
import { scaled } from '../../limits.ts'
import { repoRoot } from '../../paths.ts'
import { absenceOf, type Column, columns } from '../../spec/by-device.ts'
import { cleanEnvironment, lacking, run, type Scope, startDaemon, temporaryFolder, userdma } from '../programs.ts'
import {
  programNames as allPrograms,
  type FindingJson,
  faulty,
  isHanging,
  NEED_MORE,
  optionsOf,
  sources,
  withOptions,
} from './checking.ts'

/** Those that need options of their own run one at a time. */
const programNames = allPrograms.filter(name => !withOptions.includes(name))

const idOf = (name: string) => name.split('--')[0] as FindingId
const usesCm = (name: string): boolean => readFileSync(join(sources, `${name}.c`), 'utf8').includes('"cm.h"')

/** A shell script that runs the programs; those that hang at the same time. */
const scriptOf = (programs: readonly string[], command: (name: string) => string): string =>
  [
    ...programs.filter(isHanging).map(name => `${command(name)} >&2 &`),
    ...programs.filter(name => !isHanging(name)).map(name => `timeout ${scaled(10)} ${command(name)} >&2;`),
    'wait; true',
  ].join(' ')

const read = (output: string): readonly FindingJson[] =>
  readFileSync(output, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line) as FindingJson)
    .filter(one => 'id' in one)

/** The findings whose programs have them. */
const toldBy = (programs: readonly string[], found: readonly FindingJson[]): ReadonlySet<FindingId> =>
  new Set(
    programs
      .filter(name => found.some(({ id, program }) => id === idOf(name) && program.command === name.slice(0, 15)))
      .map(idOf),
  )

const check = async (scope: Scope, options: readonly string[], programs: readonly string[], command = faulty) => {
  const output = join(temporaryFolder(scope), 'findings')
  const args = ['check', '--notes', '--leaks', '--json', '-o', output, ...options, '--', 'sh', '-c']
  await run(scope, userdma, [...args, scriptOf(programs, command)], { env: cleanEnvironment() })
  return toldBy(programs, read(output))
}

/** As `check` on a device, with the programs that need options of their own, too: if they have its kind of device. */
const checkAll = async (scope: Scope, device: string | undefined, programs: readonly string[], command = faulty) => {
  const onDevice = device === undefined ? [] : ['--device', device]
  const told = new Set(await check(scope, ['--races', ...onDevice], programs, command))
  for (const name of withOptions) {
    const own = optionsOf(name)
    const devices = own.filter((_, i) => own[i - 1] === '--device')
    const isOfKind = devices.every(one => kindOf(device ?? '').startsWith(kindOf(one)))
    if (isOfKind && (command === faulty || existsSync(command(name)))) {
      const ofColumn = own.map(word => (devices.includes(word) && kindOf(word) !== kindOf(device!) ? device! : word))
      const options = ['--races', ...(devices.length === 0 ? onDevice : []), ...ofColumn]
      for (const id of await check(scope, options, [name], command)) told.add(id)
    }
  }
  return told
}

/** The driver of a device of the command line, and its link. */
const kindOf = (device: string): string => device.match(/driver=\w+|layer=\w+/g)?.join() ?? ''

/** What is told in each column. */
const runs: Readonly<Record<Column, (scope: Scope) => Promise<ReadonlySet<FindingId>>>> = {
  rxe: scope => checkAll(scope, undefined, programNames),
  mlx5: scope => checkAll(scope, 'mlx5_0@127.0.0.1,driver=mlx5', programNames),
  infiniband: scope => checkAll(scope, 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband', programNames),
  efa: scope => {
    const srd = (name: string): string => join(repoRoot, 'build', 'findings', 'srd', name)
    return checkAll(
      scope,
      'efa_0@127.0.0.1,driver=efa',
      programNames.filter(name => existsSync(srd(name)) && !usesCm(name)),
      srd,
    )
  },
  async examples(scope) {
    const folder = temporaryFolder(scope)
    for (const name of ['loop.mjs', 'wire.mjs'])
      copyFileSync(join(repoRoot, 'examples', 'drivers', name), join(folder, name))
    const told = async (driver: string, device: string, programs: readonly string[]) => {
      const options = ['--check', '--driver', join(folder, driver), '--device', device]
      const { socket } = await startDaemon(scope, { devices: [], options })
      return check(scope, ['--socket', socket, '--races'], programs)
    }
    const verbs = await told(
      'loop.mjs',
      'loop0',
      programNames.filter(name => !usesCm(name)),
    )
    const cm = await told('wire.mjs', 'wire0@127.0.0.1,driver=wire', programNames.filter(usesCm))
    return new Set([...verbs, ...cm])
  },
  /**
   * The observed devices are those of a daemon, which stand for the machine's own. adapter-error allocates a memory
   * window: from then on no key is unknown for certain, so it runs with the programs that have no finding here.
   */
  async host(scope) {
    const isApart = (id: FindingId): boolean => findings[id].needs.includes('device') || id === 'adapter-error'
    const told = async (apart: boolean): Promise<ReadonlySet<FindingId>> => {
      const programs = programNames.filter(name => isApart(idOf(name)) === apart)
      const output = join(temporaryFolder(scope), 'findings')
      const inner = [userdma, 'check', '--host', '--notes', '--leaks', '--json', '-o', output, '--', 'sh', '-c']
      const args = ['run', '--private', '--', ...inner, scriptOf(programs, faulty)]
      await run(scope, userdma, args, { env: cleanEnvironment() })
      return toldBy(programs, read(output))
    }
    return new Set([...(await told(false)), ...(await told(true))])
  },
}

const ids = (Object.keys(findings) as FindingId[]).filter(id => allPrograms.some(name => idOf(name) === id))

describe('findings on each device', { skip: lacking(faulty('leak')) }, () => {
  for (const column of columns)
    it(column, async t => {
      const told = await runs[column](t)
      const expected = ids.filter(id => !NEED_MORE.includes(id))
      assert.deepEqual(
        {
          missing: expected.filter(id => !told.has(id) && absenceOf(column, id) === undefined),
          toldNow: expected.filter(id => told.has(id) && absenceOf(column, id) !== undefined),
        },
        { missing: [], toldNow: [] },
      )
    })
})
