/*
 * Correct programs (test/programs/check/correct.c) have no finding, whatever a device does under `--torment`: each kind
 * on each device that has its services. The long form has 100 seeds, and ten with each of some kinds alone, at each
 * opportunity.
 */
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../programs.ts'
import { checkScript, isOf } from './checking.ts'

const program = ownProgram('correct')

const everywhere = ['ping-pong', 'credits', 'reads', 'datagrams', 'renewal', 'tear-down', 'events', 'extended-polls']
const withThreads = [...everywhere, 'threads', 'own-stacks', 'processes', 'budgets', 'forks']
const ofInfiniBand = [
  ...withThreads,
  ...['unsignaled', 'inline', 'linked', 'batches', 'fenced-add', 'atomics', 'multicast', 'uc', 'srq', 'xrc', 'windows'],
  ...['cm', 'streams', 'rings', 'zero-based', 'moderated', 'pool'],
]
/** The kinds that run on a device. */
const kinds: Readonly<Record<'rxe' | 'mlx5' | 'efa', readonly string[]>> = {
  rxe: ofInfiniBand,
  mlx5: [...ofInfiniBand, 'dynamic'],
  efa: withThreads,
}

const numbersTo = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i + 1)
const alone = ['keys', 'relaxed', 'late'].flatMap(kind => numbersTo(10).map(seed => `${seed}:kinds=${kind}`))
const seeds = casesOf([...numbersTo(100).map(String), ...alone], one => one === '1')
/** Programs at the same time: most of the time they wait. */
const PARALLEL = 8

describe('correct programs under torment', { skip: lacking(program) }, () => {
  for (const [driver, names] of Object.entries(kinds))
    describe(driver, () => {
      const suite = suiteScope()
      /** What each program has against it. */
      const complaints = new Map<string, string[]>(names.map(name => [name, []]))

      before(async () => {
        const folder = temporaryFolder(suite)
        for (const name of names) symlinkSync(program, join(folder, name))
        const run = `${folder}/$0 $0 2>&1 || echo "FAILED $0"`
        const script = `echo ${names.join(' ')} | xargs -n1 -P${PARALLEL} sh -c 'printf "%s\\n" "$(${run})"'`
        for (const seed of seeds) {
          const options = ['--torment', seed, '--device', `${driver}_0@127.0.0.1,driver=${driver}`]
          const { found, stdout } = await checkScript(suite, script, options)
          for (const [name, against] of complaints) {
            for (const { id, severity, text } of found.filter(isOf(name)))
              if (severity !== 'note') against.push(`seed ${seed}: ${severity} ${id}: ${text}`)
            if (stdout.includes(`FAILED ${name}\n`)) against.push(`seed ${seed}: it fails: ${stdout}`)
          }
        }
      })

      for (const name of names)
        it(`${name}: silent with ${seeds.length} seeds`, () => assert.deepEqual(complaints.get(name), []))
    })
})
