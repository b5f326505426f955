/*
 * The long run as a list of jobs: each test file with long cases is one (*.long.test.ts, and what imports
 * test/long-run.ts). RECORD tells when each ran last, at which commit, for how long, and with which result, so that
 * none is forgotten.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { affectedTests, importersBelow } from './affected-tests.mjs'
import { filesBelow, inRoot, root, StepError, say } from './common.mjs'
import { needsMore } from './quick-build.mjs'

const RECORD = 'test/long-runs.tsv'

/**
 * Columns of RECORD. result: passed, failed, or skipped if no test ran; tests: those that ran; seconds: the job's size;
 * commit: its first digits, with a + if the tree had other changes.
 */
const COLUMNS = ['job', 'result', 'tests', 'seconds', 'date', 'commit']
const ROW =
  /^(?<job>\S+)\t(?<result>passed|failed|skipped)\t(?<tests>\d+)\t(?<seconds>\d+)\t(?<date>[\d-]+T[\d:]+Z)\t(?<commit>[\da-f]+\+?)$/

const UNITS = { s: 1, m: 60, h: 3600 }

/** The seconds of `--for`. Throws StepError. */
export const secondsOf = text => {
  const [, count, unit] = /^(\d+)([smh])$/.exec(text) ?? []
  if (!(Number(count) > 0))
    throw new StepError(`--for "${text}": a whole number above 0 with its unit is needed, such as 90s, 40m or 2h`)
  return Number(count) * UNITS[unit]
}

const spanText = seconds => {
  if (seconds < 60) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

const ageText = seconds => (seconds < 2 * 86_400 ? spanText(seconds) : `${Math.floor(seconds / 86_400)} days`)

/** Output of git, or undefined if it fails: there is none, this is no checkout, or a commit is not known. */
const git = (...args) => {
  const { status, stdout } = spawnSync('git', args, { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28 })
  return status === 0 ? stdout : undefined
}

const linesOf = text => text.split('\n').filter(line => line !== '')

/** The rows of RECORD by the names of jobs. Throws StepError. */
const readRecord = () => {
  const path = inRoot(RECORD)
  const [, ...lines] = existsSync(path) ? linesOf(readFileSync(path, 'utf8')) : []
  return new Map(
    lines.map((line, index) => {
      const row = ROW.exec(line)?.groups
      if (row === undefined) throw new StepError(`${RECORD} line ${index + 2}: "${line}" is not ${COLUMNS.join(', ')}`)
      return [row.job, { ...row, tests: Number(row.tests), seconds: Number(row.seconds) }]
    }),
  )
}

/** Puts a row into RECORD, and removes those of jobs that are no longer `known`. */
const record = (row, known) => {
  const rows = readRecord().set(row.job, row)
  const names = [...rows.keys()].filter(name => known.has(name)).sort()
  const lines = [COLUMNS, ...names.map(name => COLUMNS.map(column => rows.get(name)[column]))]
  const path = inRoot(RECORD)
  writeFileSync(`${path}.new`, lines.map(line => `${line.join('\t')}\n`).join(''))
  renameSync(`${path}.new`, path)
}

/** The commit of the checkout for RECORD. Throws StepError. */
const commitHere = () => {
  const commit = git('rev-parse', '--short=12', 'HEAD')?.trim()
  if (commit === undefined) throw new StepError('--record needs git, and a checkout with a commit')
  return git('status', '--porcelain', '--', '.', `:!${RECORD}`, `:!${RECORD}.new`) === '' ? commit : `${commit}+`
}

const compiledOf = source => inRoot('dist', source.replace(/\.tsx?$/, '.js'))
const isScript = path => /\.tsx?$/.test(path)
const nameOf = file => file.slice(join('dist', 'test', '/').length, -'.test.js'.length)

/**
 * Functions that tell which jobs there are, and whether a source of one changed: since `commit`, a file that its test
 * imports; if the test starts programs or reads files, also anything else but tests. Pages count for jobs below
 * project/.
 */
const dependencies = () => {
  const dist = inRoot('dist')
  const importers = importersBelow(dist)
  const testsOf = sources =>
    new Set(affectedTests(dist, sources.map(compiledOf), importers).map(path => relative(root, path)))
  const inParts = new Set(testsOf(['test/long-run.ts']))
  const sources = ['src', 'test'].flatMap(name => filesBelow(inRoot(name), path => path.endsWith('.ts')))
  const readers = testsOf(sources.map(path => relative(root, path)).filter(needsMore))

  const changesSince = commit => {
    const changed = git('diff', '--name-only', '--relative', commit)
    if (changed === undefined) return undefined
    const files = linesOf(changed + git('ls-files', '--others', '--exclude-standard'))
    const others = files.filter(path => path !== RECORD && !(path.startsWith('test/') && isScript(path)))
    return {
      tests: testsOf(files.filter(isScript)),
      hasOther: others.some(path => !path.endsWith('.md')),
      hasPage: others.some(path => path.endsWith('.md')),
    }
  }
  const changes = new Map()
  const known = commit => {
    if (!changes.has(commit)) changes.set(commit, changesSince(commit))
    return changes.get(commit)
  }
  return {
    isJob: file => file.endsWith('.long.test.js') || inParts.has(file),
    hasChanged(file, commit) {
      // A commit that is not known, or had other changes, says nothing about the sources.
      const since = commit.endsWith('+') ? undefined : known(commit)
      if (since === undefined || since.tests.has(file)) return true
      return readers.has(file) && (since.hasOther || (since.hasPage && nameOf(file).startsWith('project/')))
    },
  }
}

/** The jobs among `files`, compiled test files, the stalest first: `last`, the row of RECORD; `age` in seconds. */
const jobsOf = files => {
  const { isJob, hasChanged } = dependencies()
  const rows = readRecord()
  const now = Date.now()
  const jobs = files.filter(isJob).map(file => {
    const last = rows.get(nameOf(file))
    const age = last === undefined ? Infinity : (now - Date.parse(last.date)) / 1000
    return { name: nameOf(file), file, last, age, isChanged: last === undefined || hasChanged(file, last.commit) }
  })
  return jobs.sort((a, b) => b.isChanged - a.isChanged || (a.age === b.age ? 0 : b.age - a.age))
}

/** `12 jobs, 1 h 5 min one after another as last measured, 2 of unknown size`. */
const sumText = jobs => {
  const known = jobs.filter(({ last }) => last !== undefined)
  const sum = spanText(known.reduce((total, { last }) => total + last.seconds, 0))
  const unknown = jobs.length - known.length
  return `${jobs.length} jobs, ${sum} one after another as last measured${unknown > 0 ? `, ${unknown} of unknown size` : ''}`
}

const listText = jobs => {
  const table = [
    ['job', 'size', 'age', 'result', 'tests', 'commit', 'sources'],
    ...jobs.map(({ name, last, age, isChanged }) =>
      last === undefined
        ? [name, 'unknown', 'never run', '', '', '', '']
        : [
            name,
            spanText(last.seconds),
            ageText(age),
            last.result,
            last.tests,
            last.commit,
            isChanged ? 'changed' : '',
          ],
    ),
  ].map(cells => cells.map(String))
  const widths = table[0].map((_, column) => Math.max(...table.map(cells => cells[column].length)))
  return table
    .map(
      cells =>
        `${cells
          .map((cell, column) => cell.padEnd(widths[column]))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/**
 * Lists or runs jobs among `files`, all compiled test files: those whose names have one of `words`, or all. With
 * `seconds`, a job starts only if it is expected to end within what is left of them. `run` runs a file, as runFiles of
 * test.mjs. Returns the exit status.
 */
export const longJobs = (files, { words, isList, isRecord, seconds = Infinity }, run) => {
  const all = jobsOf(files)
  const has = ({ name }, word) => `${name}.test`.includes(word)
  for (const word of words) {
    if (all.some(job => has(job, word))) continue
    throw new StepError(`no file with long tests has "${word}" in its path; \`npm run test:long -- --list\` shows them`)
  }
  const jobs = words.length === 0 ? all : all.filter(job => words.some(word => has(job, word)))
  if (isList) {
    process.stdout.write(listText(jobs))
    say(sumText(jobs))
    return 0
  }
  if (isRecord) commitHere()
  const known = new Set(all.map(({ name }) => name))
  say(
    `${sumText(jobs)}${seconds < Infinity ? `; those that fit into ${spanText(seconds)} run, the stalest first` : ''}`,
  )
  const end = performance.now() + seconds * 1000
  const results = []
  for (const [index, { name, file, last }] of jobs.entries()) {
    const left = (end - performance.now()) / 1000
    if (left <= 0 || (last?.seconds ?? 0) > left) continue
    say(
      `job ${index + 1} of ${jobs.length}: ${name}, ${last === undefined ? 'of unknown size' : spanText(last.seconds)}`,
    )
    const commit = isRecord && commitHere()
    const start = Date.now()
    const { hasSucceeded, ran } = run(file)
    const row = {
      job: name,
      result: hasSucceeded ? (ran === '' ? 'skipped' : 'passed') : 'failed',
      tests: linesOf(ran).length,
      seconds: Math.ceil((Date.now() - start) / 1000),
      date: `${new Date(start).toISOString().slice(0, 16)}Z`,
      commit,
    }
    if (isRecord) record(row, known)
    results.push(row)
  }
  for (const { job, result, tests, seconds: size } of results)
    say(`${result}: ${job}, ${tests} tests, ${spanText(size)}`)
  const failed = results.filter(({ result }) => result === 'failed').length
  const rest = results.length < jobs.length ? '; the others did not fit into the time' : ''
  say(`${results.length} of ${jobs.length} jobs ran, ${failed} failed${rest}`)
  return failed > 0 ? 1 : 0
}
