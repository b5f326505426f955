/*
 * Options as data: rules name options that exist, kinds of values, words of options, the tables of
 * docs/reference/cli.md.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { CommandSpec } from '../../src/cli/command-line/command.ts'
import { commands } from '../../src/cli/command-line/commands.ts'
import { decimal, integer, type Kind, list, size } from '../../src/cli/command-line/kinds.ts'
import { optionWords } from '../../src/cli/command-line/option.ts'
import { daemonOptions, netPlayOptions, walkOptions } from '../../src/cli/command-line/options.ts'
import { difference, fullConfig, type WantedConfig } from '../../src/cli/config.ts'
import { UsageError } from '../../src/cli/fail.ts'
import { repoRoot } from '../paths.ts'
import { BEGIN, END, optionTables } from '../project/docs/cli-options.ts'

const withOptions = (all: Readonly<Record<string, CommandSpec>>): readonly CommandSpec[] =>
  Object.values(all).flatMap(one => [one, ...withOptions(one.commands ?? {})])

describe('declarations', () => {
  it('name in rules only options of some command that has the option', () => {
    const all = withOptions(commands).map(({ options = {} }) => options)
    for (const options of all)
      for (const [name, { needs = [], excludes = {} }] of Object.entries(options)) {
        const beside = all.filter(one => Object.hasOwn(one, name))
        for (const other of [...needs, ...Object.keys(excludes)])
          assert.ok(
            beside.some(one => Object.hasOwn(one, other)),
            `${name}: ${other}`,
          )
        assert.ok(needs.length === 0 || needs.some(other => Object.hasOwn(options, other)), `${name} cannot be given`)
      }
  })

  it('have no letter twice', () => {
    for (const { options = {} } of withOptions(commands)) {
      const letters = Object.values(options).flatMap(({ short = [] }) => short)
      assert.equal(new Set(letters).size, letters.length, `${letters}`)
    }
  })
})

it('a wrong value is refused with the option, the value and what is allowed', () => {
  const cases: readonly (readonly [
    kind: Kind<unknown>,
    right: readonly string[],
    wrong: readonly string[],
    allowed: string,
  ])[] = [
    [integer(1, 7), ['1', '07', '0x7'], ['0', '8', '1.5', '-1', '', 'x', '1e0'], ': give an integer from 1 to 7'],
    [
      decimal(0.1, 3600, ' of seconds'),
      ['.5', '3600', '1.'],
      ['0', '-1', '', '1h', '3601', '.'],
      ': give a number of seconds from 0.1 to 3600',
    ],
    [size, ['1M', '1048576', '2g'], ['1K', '', '1T', '1.5M'], ': give bytes, such as 64M or 1G; at least 1M'],
    [list(['a', 'b']), ['a', 'b, a'], ['', 'c'], ' is not one of a, b'],
  ]
  for (const [kind, right, wrong, allowed] of cases) {
    for (const text of right) assert.doesNotThrow(() => kind.read(text, '--it'))
    for (const text of wrong) assert.throws(() => kind.read(text, '--it'), new UsageError(`--it "${text}"${allowed}`))
  }
  assert.deepEqual(list(['a', 'b']).read('b, a,b', '--it'), ['b', 'a'])
})

it('the value that help calls the default is what a daemon has without the option', async () => {
  const running = fullConfig({})
  for (const name of ['link', 'path', 'clock', 'buffers', 'lent'] as const) {
    const { kind } = daemonOptions[name]
    assert.ok(kind?.isFirstDefault, name)
    const [byDefault, ...others] = Object.keys(kind.values ?? {})
    const differenceOf = (value?: string) => difference({ [name]: value } as WantedConfig, running)
    assert.equal(await differenceOf(byDefault), undefined, `${name} ${byDefault}`)
    for (const other of others) assert.ok(await differenceOf(other), `${name} ${other}`)
  }
})

it('options become words again', () => {
  const options = {
    kinds: ['links', 'calls'],
    points: 200,
    timeLimit: 5,
    json: true,
    html: 'x.html',
    output: undefined,
  }
  const words = ['--kinds', 'links,calls', '--time-limit', '5', '--json', '--html', 'x.html']
  assert.deepEqual(optionWords(walkOptions, options), words)
  assert.deepEqual(optionWords(netPlayOptions, { events: false, fault: ['a:x', 'b:y'] }), [
    ...['--fault', 'a:x', '--fault', 'b:y'],
    '--no-events',
  ])
  assert.deepEqual(optionWords(netPlayOptions, { events: true }), [])
})

it('docs/reference/cli.md has the options of each command', () => {
  const file = join(repoRoot, 'docs', 'reference', 'cli.md')
  const page = readFileSync(file, 'utf8')
  const begin = page.indexOf(BEGIN) + BEGIN.length
  const end = page.indexOf(END, begin)
  assert.ok(begin >= BEGIN.length && end >= 0)
  if (process.env.UPDATE_GOLDEN) writeFileSync(file, page.slice(0, begin) + optionTables() + page.slice(end))
  else assert.equal(page.slice(begin, end), optionTables(), '`npm run docs` writes it')
})
