#!/usr/bin/env node
/*
 * Runs the checks and the tests: biome, then Node's test runner over the compiled test files.
 *
 *   npm test                        everything but the long tests
 *   npm test -- wire core           only files whose path below test/ contains one of the words; no biome
 *   npm test -- --long              the *.long.test files too
 *   npm test -- wire --test-name-pattern 'P_Key'
 *                                   only tests whose names match (node --test-name-pattern); several may be given
 *   npm run test:long -- --list [WORD ...], --for 40m [WORD ...], --record [WORD ...]
 *                                   the files with long tests one after another (long-jobs.mjs)
 *
 * The exit status is 0 if the checks and all tests succeed, else 1. A run of all tests lists the test files
 * that docs/reference/requirements.md names and of which no test ran; with CI in the environment this is a failure.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { filesBelow, inRoot, isMain, main, root, run, StepError, say } from './common.mjs'
import { longJobs, secondsOf } from './long-jobs.mjs'
import { step } from './progress.mjs'

/**
 * test-watchdog.cjs ends a test after these seconds without movement, of processor time, and at all. Long tests wait
 * for other machines, and run whole suites.
 */
const LIMITS = { withoutLong: '180 600 3600', withLong: '900 7200 21600' }

/**
 * Tests wait for other processes during a quarter of their time: one file more than processors keeps all processors
 * busy. With more than 4 files, tests of network namespaces and guests would wait for each other.
 */
const FILES_AT_ONCE = Math.min(availableParallelism() + 1, 4)

/**
 * Folders of test/ whose files run in one process in a run of all: they change nothing that others in the process see.
 * Most of them take less time than the start of a process with their imports, and later ones find compiled code: the
 * files of library/ take 0.7 of the processor time.
 */
const LONG_TOGETHER = ['library', 'drivers/soft', 'drivers/mlx5']
const TOGETHER = [
  ...['base', 'core', 'drivers/rings', 'faults', 'services', 'settings', 'spec', 'transport', 'uapi', 'web'],
  ...['check', 'record', 'trace', 'captures'].map(name => `tools/${name}`),
]

/**
 * `files` for the runner: those of a folder of LONG_TOGETHER or TOGETHER are replaced by one that imports them, written
 * into `folder`. What takes longest comes first, so that no processor waits for it at the end.
 */
const grouped = (files, folder) => {
  const groupOf = file => [...LONG_TOGETHER, ...TOGETHER].find(name => file.startsWith(join('dist', 'test', name, '/')))
  const groupsOf = names =>
    names.flatMap(name => {
      const own = files.filter(file => groupOf(file) === name)
      if (own.length === 0) return []
      const path = join(folder, `${name.replaceAll('/', '-')}.mjs`)
      writeFileSync(path, own.map(file => `import ${JSON.stringify(pathToFileURL(inRoot(file)).href)}\n`).join(''))
      return [path]
    })
  return [...groupsOf(LONG_TOGETHER), ...files.filter(file => groupOf(file) === undefined), ...groupsOf(TOGETHER)]
}

/** Why no file of `paths`, paths of sources, has `word` in its path, with the nearest word that would be. */
const noTestText = async (word, paths) => {
  const files = paths.map(path => path.slice('test/'.length, -'.test.ts'.length))
  const names = new Set(files.flatMap(file => [...file.split('/'), file]))
  const folders = new Set(files.map(file => file.split('/')[0]))
  // A checkout that was never built has no such module.
  const suggest = await import('../dist/src/base/suggest.js').catch(() => undefined)
  const near =
    suggest?.didYouMean(word, [...names]) || `; folders and files of test/ are ${[...folders].sort().join(', ')}`
  return `no test file has "${word}" in its path${near}`
}

/** The test files whose paths have one of the words, or all. Rejects with StepError if a word is in no path. */
const testSources = async (isLong, words) => {
  const sources = filesBelow(inRoot('test'), path => path.endsWith('.test.ts')).map(path => relative(root, path))
  const wanted = sources.filter(path => isLong || !path.endsWith('.long.test.ts'))
  if (words.length === 0) return wanted
  const has = (path, word) => path.slice('test/'.length, -'.ts'.length).includes(word)
  for (const word of words) {
    if (wanted.some(path => has(path, word))) continue
    throw new StepError(await noTestText(word, wanted))
  }
  return wanted.filter(path => words.some(word => has(path, word)))
}

/** As `testSources`: those that were compiled, by their paths below dist/. */
export const testFiles = async (isLong, words) =>
  (await testSources(isLong, words))
    .map(path => join('dist', path.replace(/\.ts$/, '.js')))
    .filter(path => existsSync(inRoot(path)))

/** A test's source path, from the runner's path. */
const sourceOf = path =>
  (path.startsWith(root) ? relative(root, path) : path)
    .replace(/^(.*\/)?dist\/(?:quick\/)?(?=test\/)/, '')
    .replace(/\.js$/, '.ts')

/** The test files that are in the text `page`, but not in `ran`, the output of ran-reporter.cjs. */
export const namedButNotRun = (page, ran) => {
  const named = new Set([...page.matchAll(/`(test\/[^`]+\.test\.ts)`/g)].map(match => match[1]))
  for (const path of ran.split('\n')) named.delete(sourceOf(path))
  return [...named].sort()
}

/**
 * Lists the test files that the requirements name and of which no test ran. False if one does not exist, or if CI is in
 * the environment and the list is not empty. Without CI the machine may lack what a test needs.
 */
const ranAllNamed = ran => {
  const absent = namedButNotRun(readFileSync(inRoot('docs', 'reference', 'requirements.md'), 'utf8'), ran)
  if (absent.length === 0) return true
  say(`docs/reference/requirements.md names tests of which none ran: ${absent.join(', ')}`)
  return !process.env.CI && absent.every(path => existsSync(inRoot(path)))
}

/** Free space that temporary files of tests need, in bytes. */
const TEMPORARY_SPACE = 4 * 2 ** 30

/**
 * A folder in memory for temporary files, as a variable. A daemon creates a hundred files, and the file systems of
 * disks look for long for an inode that was not used in the last minute. Nothing if the machine's is small or runs no
 * programs.
 */
const fastTemporaryFolder = () => {
  const folder = '/dev/shm'
  if (process.env.TMPDIR !== undefined || !existsSync(folder)) return {}
  const mount = new RegExp(`^\\S+ ${folder} tmpfs (\\S+)`, 'm').exec(readFileSync('/proc/mounts', 'utf8'))
  const { bavail, bsize } = statfsSync(folder)
  const isGood = mount !== null && !mount[1].split(',').includes('noexec') && bavail * bsize >= TEMPORARY_SPACE
  return isGood ? { TMPDIR: folder } : {}
}

/**
 * Runs compiled test files (testFiles). `names`: patterns of the tests to run, none for all; `isAll`: the files are all
 * there are (`TOGETHER`). Returns whether they succeeded, and the output of ran-reporter.cjs.
 */
export const runFiles = (files, { isLong = false, names = [], isAll = false } = {}) => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-ran-'))
  const ranFile = join(folder, 'ran')
  const options = [
    '--enable-source-maps',
    '--test',
    `--test-concurrency=${FILES_AT_ONCE}`,
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${inRoot('scripts', 'ran-reporter.cjs')}`,
    `--test-reporter-destination=${ranFile}`,
    ...names.map(name => `--test-name-pattern=${name}`),
  ]
  // test/long-run.ts
  const env = { ...process.env, ...fastTemporaryFolder(), USERDMA_LONG_RUN: isLong ? '1' : '' }
  env.USERDMA_TEST_LIMITS = isLong ? LIMITS.withLong : LIMITS.withoutLong
  // Each start of Node.js reads them, 40 ms; only long tests download packages.
  if (!isLong) delete env.NODE_EXTRA_CA_CERTS
  const { status, signal, error } = spawnSync(
    process.execPath,
    [...options, ...(isAll ? grouped(files, folder) : files)],
    {
      cwd: root,
      env,
      stdio: 'inherit',
    },
  )
  const ran = existsSync(ranFile) ? readFileSync(ranFile, 'utf8') : ''
  rmSync(folder, { recursive: true, force: true })
  if (error) throw error
  if (signal) say(`the test runner was ended by ${signal}`)
  return { hasSucceeded: status === 0, ran }
}

const OPTIONS = {
  long: { type: 'boolean', default: false },
  'test-name-pattern': { type: 'string', multiple: true },
  list: { type: 'boolean', default: false },
  for: { type: 'string' },
  record: { type: 'boolean', default: false },
}

const readArguments = args => {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true })
  } catch (error) {
    const [problem] = error.message.split(/\. |\n/)
    throw new StepError(
      `${problem}; there are --long, --test-name-pattern PATTERN, and words that select files by their paths; ` +
        'for long tests also --list, --for TIME and --record',
    )
  }
}

const readChoice = args => {
  const { values, positionals } = readArguments(args)
  const { long: isLong, 'test-name-pattern': names = [], list: isList, for: time, record: isRecord } = values
  const words = positionals.map(word => word.replace(/^test\//, '').replace(/\.(test\.)?ts$/, ''))
  if (!isList && !isRecord && time === undefined) return { isLong, names, words }
  if (!isLong) throw new StepError('--list, --for and --record are options of `npm run test:long`')
  if (names.length > 0)
    throw new StepError('--list, --for and --record are of whole files, without --test-name-pattern')
  if (isList && (isRecord || time !== undefined)) throw new StepError('--list runs nothing: without --for and --record')
  return {
    isLong,
    names,
    words,
    jobs: { words, isList, isRecord, seconds: time === undefined ? time : secondsOf(time) },
  }
}

/** The sources of the tests that arguments choose; undefined if these may be all. */
export const chosenSources = async args => {
  const { isLong, words, jobs } = readChoice(args)
  const sources = words.length === 0 ? undefined : await testSources(isLong, words)
  return jobs === undefined ? sources : undefined
}

/** `quick`: files of quick-build.mjs, which run instead of the compiled ones. */
export const runTests = async (args, quick) => {
  const { isLong, names, words, jobs } = readChoice(args)
  const files = quick ?? (await testFiles(isLong, words))
  if (files.length === 0) throw new StepError('there are no compiled tests: run `npm run build`')
  if (jobs !== undefined) return longJobs(await testFiles(isLong, []), jobs, file => runFiles([file], { isLong }))
  const isAll = words.length === 0 && names.length === 0
  const tidy = () => run(inRoot('node_modules', '.bin', 'biome'), ['check', '--error-on-warnings', '.'])
  const isTidy = !isAll || (await step('biome', tidy))
  const { hasSucceeded, ran } = runFiles(files, { isLong, names, isAll })
  const isComplete = !isAll || ranAllNamed(ran)
  const hasMatch = names.length === 0 || ran !== ''
  if (!hasMatch) say(`no test ran: no name matches ${names.join(', ')}`)
  if (!isTidy) say('biome found the problems above, before the tests; `npm run format` fixes most of them')
  return hasSucceeded && isTidy && isComplete && hasMatch ? 0 : 1
}

if (isMain(import.meta.url)) main(args => runTests(args))
