#!/usr/bin/env node
/*
 * Compares what `userdma check` says in two builds: for changes after which nothing is to be different.
 *
 *   node scripts/compare-check.mjs OLD NEW [WORD ...]           OLD: a checkout that is built, or what --save wrote of
 *                                                               one; NEW: a checkout that is built
 *   node scripts/compare-check.mjs --save FOLDER OLD [WORD ...]
 *
 * WORD: only the runs whose names contain one of the words; `surface` is help, types and the package's files. OLD's
 * runs are made until a further round says nothing new of any program, and NEW's until they have said of each program
 * what OLD's have. So what depends on a race is no difference, and the same checkout as OLD and NEW has none. NEW reads
 * recordings of OLD's runs too, whose findings, with their stories, must be the same to the byte. --save goes on where
 * it was ended.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { main, progressLine, StepError, say } from './common.mjs'
import { byProgram } from './compare-check/normalise.mjs'
import { runsOf } from './compare-check/runs.mjs'
import { surfaceOf } from './compare-check/surface.mjs'

const MIN_ROUNDS = 2
const MAX_ROUNDS = 6
/** Runs at the same time: most of the time their programs wait. */
const JOBS = 2
const LIMIT_MS = 900_000
const RECORDING = 'run.udr'

/** Of this process; removed with what it has started, also when a signal ends it. */
const scratch = mkdtempSync(join(tmpdir(), 'userdma-compare-'))
const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill()
  rmSync(scratch, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1))
const newFolder = () => mkdtempSync(join(scratch, 'run-'))

const READS = { text: ['--notes', '--races'], json: ['--notes', '--races', '--json', '--story', 'all'] }

/** What each program of a run says, by its command. `recording`: the path of a file to record into; undefined: none. */
const roundOf = async (checkout, { options, commands, isLimited }, recording) => {
  const folder = newFolder()
  try {
    const build = join(checkout, 'build')
    const lines = commands.map(line => line.replace(/(^| )(findings|programs)\//, `$1${build}/$2/`))
    const script = isLimited ? `exec ${lines[0]}` : `${lines.map(line => `${line} >&2`).join('; ')}; true`
    const output = join(folder, 'findings')
    const record = recording === undefined ? [] : ['--record', recording, '--record-depth', 'check']
    const report = ['--notes', '--json', '--story', 'off', '-o', output]
    const words = ['check', ...report, ...record, ...options, '--', 'sh', '-c', script]
    // Its input stays open: waits last as long. Without settings for the session or the devices of a user.
    const { USERDMA_SOCKET: _, ...env } = process.env
    const child = spawn(join(checkout, 'bin', 'userdma'), words, {
      cwd: folder,
      env,
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    children.add(child)
    const timer = setTimeout(() => child.kill(), LIMIT_MS)
    const status = await new Promise((done, failed) => child.once('error', failed).once('close', done))
    clearTimeout(timer)
    children.delete(child)
    const found = existsSync(output) ? readFileSync(output, 'utf8') : ''
    return new Map([...byProgram(found), ['status', `${status}\n`]])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The findings of a recording, in the form `how`. */
const readingOf = (checkout, folder, how) => {
  const words = ['check', ...READS[how], RECORDING]
  return spawnSync(join(checkout, 'bin', 'userdma'), words, { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 28 })
    .stderr
}

/** Of what a report says beside findings. */
const REPORT = '-'
/** The rounds of a saved run, and whether the last one said something new. */
const STATE = 'rounds.json'
const variantFile = (command, i) => `${encodeURIComponent(command) || REPORT}.${i + 1}.txt`

/** On a busy machine the time for functions and lines is over before all are found: such a text says nothing. */
const isComplete = text => !/"function": "",\s+"object": "build\//.test(text)

/**
 * What a saved run has: the rounds so far, whether the last one said something new, and the variants of each program.
 */
const savedRun = folder => {
  const variants = new Map()
  for (const name of existsSync(folder) ? readdirSync(folder).sort() : []) {
    const [, encoded] = /^(.*)\.\d+\.txt$/.exec(name) ?? []
    if (encoded === undefined) continue
    const command = encoded === REPORT ? '' : decodeURIComponent(encoded)
    variants.set(command, [...(variants.get(command) ?? []), readFileSync(join(folder, name), 'utf8')])
  }
  const state = existsSync(join(folder, STATE)) ? JSON.parse(readFileSync(join(folder, STATE), 'utf8')) : { rounds: 0 }
  return { ...state, variants }
}

/** Runs OLD once more, and adds what is new to `folder`. The first round is recorded. */
const saveRound = async (checkout, run, folder) => {
  mkdirSync(folder, { recursive: true })
  const { rounds, variants } = savedRun(folder)
  const isRecorded = rounds === 0 && !run.isSilent
  const round = await roundOf(checkout, run, isRecorded ? join(folder, RECORDING) : undefined)
  let isNew = false
  for (const command of new Set([...variants.keys(), ...round.keys()])) {
    // A program that has said nothing in other rounds.
    const known = variants.get(command) ?? (rounds === 0 ? [] : [''])
    const all = [...new Set([...known, round.get(command) ?? ''])]
    if (!all.some(isComplete)) isNew = true
    if (all.length === variants.get(command)?.length) continue
    isNew ||= isComplete(all.at(-1))
    for (const [i, text] of all.entries()) writeFileSync(join(folder, variantFile(command, i)), text)
  }
  if (isRecorded)
    for (const how of Object.keys(READS))
      writeFileSync(join(folder, `reading.${how}`), readingOf(checkout, folder, how))
  writeFileSync(join(folder, STATE), JSON.stringify({ rounds: rounds + 1, isNew }))
}

/** Prints the lines that differ. */
const printDifference = (title, old, now) => {
  const folder = newFolder()
  for (const [name, text] of [
    ['old', old],
    ['new', now],
  ])
    writeFileSync(join(folder, name), text)
  const { stdout } = spawnSync('diff', ['-U1', 'old', 'new'], { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 28 })
  rmSync(folder, { recursive: true, force: true })
  process.stdout.write(`--- ${title}\n${stdout.split('\n').slice(2, 60).join('\n')}\n`)
}

/** Compares a run of NEW with what OLD has said; returns the number of differences. */
const compareRun = async (checkout, run, folder) => {
  const variants = new Map(
    [...savedRun(folder).variants].map(([command, texts]) => [command, texts.filter(isComplete)]),
  )
  const unmatched = new Map([...variants.keys()].map(command => [command, undefined]))
  for (let round = 0; round < MAX_ROUNDS && unmatched.size > 0; round++) {
    const said = await roundOf(checkout, run)
    for (const command of said.keys()) if (!variants.has(command)) unmatched.set(command, undefined)
    for (const command of [...unmatched.keys()]) {
      const text = said.get(command) ?? ''
      if ((variants.get(command) ?? ['']).includes(text)) unmatched.delete(command)
      else unmatched.set(command, text)
    }
  }
  const isUnclear = ([command, text]) => variants.get(command)?.length === 0 || !isComplete(text)
  const unclear = [...unmatched].filter(isUnclear)
  if (unclear.length > 0)
    say(`compare-check: ${run.name}: without functions, not compared: ${unclear.map(([command]) => command).join(' ')}`)
  const different = [...unmatched].filter(one => !isUnclear(one))
  for (const [command, text] of different)
    printDifference(`${run.name}: ${command || 'the report'}`, variants.get(command)?.[0] ?? '', text)
  const readings = (run.isSilent ? [] : Object.keys(READS)).filter(how => {
    const [old, now] = [readFileSync(join(folder, `reading.${how}`), 'utf8'), readingOf(checkout, folder, how)]
    if (old !== now) printDifference(`${run.name}: the recording, as ${how}`, old, now)
    return old !== now
  })
  return different.length + readings.length
}

/** Calls `work` with each run, JOBS at a time; the sum of its results. */
const overAll = async (runs, work) => {
  const line = progressLine()
  const waiting = [...runs]
  let sum = 0
  const worker = async () => {
    for (let run = waiting.shift(); run !== undefined; run = waiting.shift()) {
      line.show(`${runs.length - waiting.length} of ${runs.length}: ${run.name}`)
      const count = await work(run)
      sum += count ?? 0
    }
  }
  await Promise.all(Array.from({ length: JOBS }, worker))
  line.end()
  return sum
}

const isChosen = words => name => words.length === 0 || words.some(word => name.includes(word))

const SURFACE = 'surface'

/** Can be repeated: what `folder` has is not made again. */
const save = async (checkout, folder, words) => {
  const isWanted = isChosen(words)
  mkdirSync(folder, { recursive: true })
  const surface = join(folder, `${SURFACE}.json`)
  if (isWanted(SURFACE) && !existsSync(surface)) writeFileSync(surface, JSON.stringify(await surfaceOf(checkout)))
  const runs = runsOf(checkout).filter(({ name }) => isWanted(name))
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const lacking = runs.filter(run => {
      const { rounds, isNew } = savedRun(join(folder, run.name))
      return rounds === round && (rounds < MIN_ROUNDS || isNew)
    })
    await overAll(lacking, run => saveRound(checkout, run, join(folder, run.name)))
  }
}

const compare = async (folder, checkout, words) => {
  const isWanted = isChosen(words)
  let differences = 0
  if (isWanted(SURFACE)) {
    const old = JSON.parse(readFileSync(join(folder, `${SURFACE}.json`), 'utf8'))
    for (const [name, text] of Object.entries(await surfaceOf(checkout)))
      if (text !== old[name]) {
        differences++
        printDifference(`${SURFACE}: ${name}`, `${old[name] ?? ''}\n`, `${text}\n`)
      }
  }
  const runs = runsOf(checkout).filter(({ name }) => isWanted(name))
  const known = runs.filter(({ name }) => existsSync(join(folder, name, STATE)))
  for (const { name } of runs.filter(run => !known.includes(run))) say(`compare-check: ${name} is not in ${folder}`)
  return differences + (await overAll(known, run => compareRun(checkout, run, join(folder, run.name))))
}

const isCheckout = path => existsSync(join(path, 'bin', 'userdma'))

const checkoutAt = path => {
  if (!isCheckout(path)) throw new StepError(`compare-check: "${path}" is no checkout`)
  return path
}

const USAGE = 'usage: node scripts/compare-check.mjs OLD NEW [WORD ...], or --save FOLDER OLD [WORD ...]'

main(async args => {
  const [first, second, ...rest] = args
  if (second === undefined) throw new StepError(USAGE)
  if (first === '--save') {
    if (rest.length === 0) throw new StepError(USAGE)
    await save(checkoutAt(resolve(rest[0])), resolve(second), rest.slice(1))
    return 0
  }
  const [old, now] = [resolve(first), checkoutAt(resolve(second))]
  const folder = isCheckout(old) ? newFolder() : old
  if (folder !== old) await save(old, folder, rest)
  const differences = await compare(folder, now, rest)
  say(`compare-check: ${differences === 0 ? 'no difference' : `${differences} differences`}`)
  return differences === 0 ? 0 : 1
})
