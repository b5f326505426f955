/*
 * The drivers null and ctx use only the public driver interface (R19, R29): the exports of `userdma/core` and
 * `userdma/spec`.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { networkDrivers } from '../../src/drivers/registered.ts'
import { DEFAULT_DRIVER } from '../../src/spec/drivers/known.ts'
import { repoRoot } from '../paths.ts'

const read = (...path: string[]): string => readFileSync(join(repoRoot, 'src', ...path), 'utf8')

/** Imported names by module, values and types. */
const importsOf = (source: string): { names: string[]; module: string }[] =>
  [...source.matchAll(/import (?:type )?\{([^}]+)\} from '([^']+)'/g)].map(([, names, module]) => ({
    names: names.split(',').flatMap(name => name.replace('type ', '').trim() || []),
    module,
  }))

/** Names that an entry point exports, listed or through `export *`. */
const exportsOf = (folder: string): Set<string> => {
  const source = read(folder, 'index.ts')
  const listed = [...source.matchAll(/export (?:type )?\{([^}]+)\} from/g)].flatMap(([, names]) => names.split(','))
  const whole = [...source.matchAll(/export \* from '\.\/([^']+)'/g)].flatMap(([, module]) =>
    [...read(folder, module).matchAll(/^export (?:const|class|type|interface) (\w+)/gm)].map(([, name]) => name),
  )
  return new Set([...listed.map(name => name.replace('type ', '').trim()), ...whole])
}

const core = exportsOf('core')
const spec = exportsOf('spec')
const publicNames = (module: string): Set<string> | undefined => {
  if (module === '../../core/index.ts') return core
  return module.startsWith('../../spec/') ? spec : undefined
}

for (const driver of ['null', 'ctx'])
  test(`${driver} imports only what userdma/core and userdma/spec export`, () => {
    const files = readdirSync(join(repoRoot, 'src/drivers', driver))
    let imported = 0
    for (const file of files)
      for (const { names, module } of importsOf(read('drivers', driver, file))) {
        if (module.startsWith('./')) continue
        const known = publicNames(module)
        assert.ok(known, `${file} imports ${module}`)
        for (const name of names) assert.ok(known.has(name), `${file} imports ${name} of ${module}`)
        imported += names.length
      }
    assert.ok(imported > 0)
  })

test('programs that load no drivers know the default one', () => {
  assert.equal(networkDrivers[0], DEFAULT_DRIVER)
})
