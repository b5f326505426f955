/*
 * The list of long tests, in a checkout of two commits with four test files: scripts/long-jobs.mjs and .ci/run.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

const write = (name: string, text: string): void => {
  mkdirSync(dirname(join(folder, name)), { recursive: true })
  writeFileSync(join(folder, name), text)
}

/** A source and its compiled file. */
const source = (name: string, text: string): void => {
  write(name, text)
  write(join('dist', name.replace(/\.ts$/, '.js')), text)
}

const bare = { PATH: process.env.PATH, HOME: folder, TMPDIR: folder }

const run = (program: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: folder, encoding: 'utf8', env: bare })
  return { status, stdout, stderr: stderr.trimEnd().split('\n') }
}

const git = (...args: string[]): string => {
  const { status, stdout, stderr } = run('git', '-c', 'user.name=a', '-c', 'user.email=a@example.com', ...args)
  assert.equal(status, 0, stderr.join('\n'))
  return stdout.trim()
}

const commit = (): string => {
  git('add', '-A')
  git('commit', '-qm', 'one')
  return git('rev-parse', '--short=12', 'HEAD')
}

const long = (...args: string[]) => run(process.execPath, join('scripts', 'test.mjs'), '--long', ...args)

/** Job, result, number of tests and commit of each row of the record. */
const recorded = (): string[] =>
  readFileSync(join(folder, 'test', 'long-runs.tsv'), 'utf8')
    .trimEnd()
    .split('\n')
    .slice(1)
    .map(line => line.replace(/\t\d+\t20\d\d-\d\d-\d\dT\d\d:\d\dZ\t/, ' ').replaceAll('\t', ' '))

/** Jobs in the order of `--list`. */
const listed = (): string[] =>
  long('--list')
    .stdout.trimEnd()
    .split('\n')
    .slice(1)
    .map(line => line.split(' ')[0]!)

const row = (job: string, seconds: number, date: string, at: string): string =>
  `${[job, 'passed', 1, seconds, `${date}T00:00Z`, at].join('\t')}\n`
const HEADER = 'job\tresult\ttests\tseconds\tdate\tcommit\n'

cpSync(join(repoRoot, 'scripts'), join(folder, 'scripts'), { recursive: true })
const passes = "import { test } from 'node:test'\ntest('one', () => {})\n"
write('package.json', '{ "type": "module" }\n')
write('.gitignore', 'dist/\n')
source('src/used.ts', '')
source('test/long-run.ts', '')
source('test/a.long.test.ts', `${passes}test('two', { skip: true })\n`)
source('test/b/part.test.ts', `import '../long-run.js'\nimport '../../src/used.js'\n${passes}`)
source('test/c.long.test.ts', "import { test } from 'node:test'\ntest('one', () => { throw new Error('no') })\n")
source('test/d.long.test.ts', "import { test } from 'node:test'\ntest('one', { skip: true }, () => {})\n")
source('test/ordinary.test.ts', passes)
git('init', '-q')
const first = commit()

test('a job is a file with long tests; its run is recorded with commit and result, and else leaves the tree clean', () => {
  assert.deepEqual(listed(), ['a.long', 'b/part', 'c.long', 'd.long'])
  assert.equal(long('--list').stderr[0], 'userdma: 4 jobs, 0 s one after another as last measured, 4 of unknown size')

  const { status, stderr } = long('--for', '1h', 'a.long')
  assert.equal(status, 0)
  assert.equal(stderr.at(-1), 'userdma: 1 of 1 jobs ran, 0 failed')
  assert.equal(git('status', '--porcelain'), '')

  const all = long('--record')
  assert.equal(all.status, 1)
  assert.equal(all.stderr.at(-1), 'userdma: 4 of 4 jobs ran, 1 failed')
  const rows = [`a.long passed 1 ${first}`, `b/part passed 1 ${first}`, `c.long failed 1 ${first}`]
  assert.deepEqual(recorded(), [...rows, `d.long skipped 0 ${first}`])
  // The record is no change of a source. A removed job leaves it; a tree with changes is no commit.
  assert.deepEqual(listed(), ['a.long', 'b/part', 'c.long', 'd.long'])
  run('rm', 'test/a.long.test.ts')
  assert.equal(long('--record', 'd.long').status, 0)
  assert.deepEqual(recorded(), [...rows.slice(1), `d.long skipped 0 ${first}+`])
  git('checkout', '-q', 'test/a.long.test.ts')
})

test('jobs whose sources changed come first, then the oldest; one that is longer than the time is left out', () => {
  const rows = [
    row('a.long', 1, '2026-03-01', first),
    row('b/part', 1, '2026-04-01', first),
    row('c.long', 1, '2026-02-01', first),
    row('d.long', 3000, '2026-01-01', first),
  ]
  write('test/long-runs.tsv', HEADER + rows.join(''))
  assert.deepEqual(listed(), ['d.long', 'c.long', 'a.long', 'b/part'])
  write('src/used.ts', 'export {}\n')
  assert.deepEqual(listed(), ['b/part', 'd.long', 'c.long', 'a.long'])
  const second = commit()
  const { status, stderr } = long('--for', '40m', '--record', 'a.long', 'b/part', 'd.long')
  assert.equal(status, 0)
  const lines = stderr.filter(line => /^userdma: (job )?\d/.test(line))
  assert.deepEqual(lines, [
    'userdma: 3 jobs, 50 min one after another as last measured; those that fit into 40 min run, the stalest first',
    'userdma: job 1 of 3: b/part, 1 s',
    'userdma: job 3 of 3: a.long, 1 s',
    'userdma: 2 of 3 jobs ran, 0 failed; the others did not fit into the time',
  ])
  assert.deepEqual(
    recorded().filter(line => line.endsWith(second)),
    [`a.long passed 1 ${second}`, `b/part passed 1 ${second}`],
  )
  // The sources of a commit that nobody has any more, or of one with other changes, are not known.
  const unknown = [row('c.long', 1, '2026-05-01', '0123456789ab'), row('d.long', 1, '2026-06-01', `${second}+`)]
  write('test/long-runs.tsv', HEADER + row('a.long', 1, '2026-01-01', second) + unknown.join(''))
  assert.deepEqual(listed(), ['b/part', 'c.long', 'd.long', 'a.long'])
})

test('what is wrong with the arguments or the record is said', () => {
  const refusal = (...args: string[]): string => {
    const { status, stdout, stderr } = long(...args)
    assert.deepEqual([status, stdout, stderr.length], [1, '', 1])
    return stderr[0]!.slice('userdma: '.length)
  }
  for (const time of ['40', '0m', '1.5h'])
    assert.equal(
      refusal(`--for=${time}`),
      `--for "${time}": a whole number above 0 with its unit is needed, such as 90s, 40m or 2h`,
    )
  assert.match(refusal('--list', 'ordinry'), /^no test file has "ordinry" in its path/)
  assert.match(
    refusal('--record', 'ordinary'),
    /^no file with long tests has "ordinary" in its path; .* --list` shows /,
  )
  assert.match(refusal('--for', '1m', '--test-name-pattern', 'one'), /^--list, --for and --record are of whole files/)
  const { stderr } = run(process.execPath, join('scripts', 'test.mjs'), '--record')
  assert.deepEqual(stderr, ['userdma: --list, --for and --record are options of `npm run test:long`'])
  write('test/long-runs.tsv', `${HEADER}<<<<<<< HEAD\n`)
  assert.match(refusal('--list'), /^test\/long-runs\.tsv line 2: "<<<<<<< HEAD" is not job, result, tests, /)
})

test('.ci/run runs the tests; --long adds long ones, whose result does not count', () => {
  cpSync(join(repoRoot, '.ci'), join(folder, '.ci'), { recursive: true })
  write('npm/npm', '#!/bin/sh\necho "$@"\n[ "$1" = test ] && exit "$TESTS"\nexit 9\n')
  run('chmod', '+x', 'npm/npm')
  const ci = (tests: number, ...args: string[]) => {
    const env = { ...bare, PATH: `${join(folder, 'npm')}:${bare.PATH}`, TESTS: String(tests) }
    const { status, stdout, stderr } = spawnSync(join(folder, '.ci', 'run'), args, { encoding: 'utf8', env })
    return { status, stdout, stderr }
  }
  const both = 'test\nrun test:long -- --for 15m\n'
  assert.deepEqual(ci(0), { status: 0, stdout: 'test\n', stderr: '' })
  assert.deepEqual(ci(1), { status: 1, stdout: 'test\n', stderr: '' })
  assert.deepEqual(ci(0, '--long', '15m'), { status: 0, stdout: both, stderr: '' })
  assert.deepEqual(ci(1, '--long', '15m'), { status: 1, stdout: both, stderr: '' })
  for (const args of [['--long'], ['--long', '15'], ['--long', '0m'], ['15m']]) {
    const stderr = `userdma: .ci/run ${args.join(' ')}: there is only --long with a time, such as --long 15m\n`
    assert.deepEqual(ci(0, ...args), { status: 1, stdout: '', stderr })
  }
})
