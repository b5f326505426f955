/*
 * The table of findings, its programs in docs/findings, and docs/findings.md (UPDATE_GOLDEN=1 rewrites it).
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CauseName, causes } from '../../src/spec/check/causes.ts'
import { adviceOfKind, type FindingId, findingIds, findingOfCause, findings } from '../../src/spec/check/findings.ts'
import { LACKING } from '../../src/spec/check/needs.ts'
import { hasStory } from '../../src/spec/check/story.ts'
import { repoRoot } from '../paths.ts'
import { knownFindings } from '../system/check/known-findings.ts'
import { absenceOf, type Column, columns, columnTitles, lacks } from './by-device.ts'
import { type AccessName, accesses, toldOf, type WayName, ways } from './given-back.ts'
import { explanationOf, netWaits, waitColumns, waitKinds } from './waits-by-device.ts'

const programs = join(repoRoot, 'docs', 'findings')
const sources = readdirSync(programs)
  .filter(name => name.endsWith('.c'))
  .sort()
/** The programs of a finding: ID.c, and ID--VARIANT.c for other faults with the same finding. */
const sourcesOf = (id: string): string[] => sources.filter(name => name === `${id}.c` || name.startsWith(`${id}--`))

/** No mistakes of programs: what is injected, and what users share. */
const noMistakes: readonly CauseName[] = ['INJECTED', 'NO_SHARE']

test('an error cause belongs to one finding unless it is no mistake, a note cause to at most one note', () => {
  const counts = new Map<string, number>()
  for (const id of findingIds)
    for (const cause of findings[id].causes ?? []) counts.set(cause, (counts.get(cause) ?? 0) + 1)
  for (const name of Object.keys(causes) as CauseName[]) {
    const id = findingOfCause(name)
    assert.equal(counts.get(name) ?? 0, id === undefined ? 0 : 1, name)
    if (id === undefined) assert.ok(causes[name].isNote || noMistakes.includes(name), name)
    else if (causes[name].isNote) assert.equal(findings[id].severity, 'note', name)
  }
})

/** Findings with several causes that have one advice, which is right for each of them. */
const withOneAdvice: readonly FindingId[] = ['rkey-no-right', 'slow-memory', 'cq-overrun']

test('the advice of a finding with several causes is that of the cause', () => {
  for (const id of findingIds) {
    const { advice, causes: names = [] } = findings[id]
    if (names.length > 1) assert.equal(advice !== undefined, withOneAdvice.includes(id), id)
    // Advice of a cause that nobody shows.
    if (advice !== undefined) for (const name of names) assert.equal(causes[name].advice, undefined, name)
    for (const line of adviceOfKind(id)) assert.doesNotMatch(line, /[.!]$/, id)
  }
})

test('every finding has a program with marked faults, and a variant without faults', () => {
  for (const id of findingIds) assert.ok(sources.includes(`${id}.c`), id)
  assert.deepEqual(sources, findingIds.flatMap(sourcesOf).sort())
  for (const name of sources) {
    const text = readFileSync(join(programs, name), 'utf8')
    assert.match(text, /\/\* FAULT \*\//, name)
    // FAULT_OR (pair.h) chooses by FIXED
    assert.match(text, /FIXED|FAULT_OR/, name)
  }
})

test('a row has only fields of FindingRow, and is in the file of its id, or in one of several', () => {
  const check = join(repoRoot, 'src', 'spec', 'check')
  const declared = readFileSync(join(check, 'finding-row.ts'), 'utf8').matchAll(/^ {2}readonly (\w+)/gm)
  const fields = new Set([...declared].map(([, name]) => name))
  for (const id of findingIds)
    for (const field of Object.keys(findings[id])) assert.ok(fields.has(field), `${id}: ${field}`)
  const inFiles = readdirSync(join(check, 'findings')).flatMap(name => {
    const names = readFileSync(join(check, 'findings', name), 'utf8').matchAll(/^export const (\w+)/gm)
    const ids = [...names].map(([, id]) => id.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`))
    if (ids.length === 1) assert.equal(name, `${ids[0]}.ts`)
    return ids
  })
  assert.deepEqual(inFiles.sort(), [...findingIds].sort())
})

test('titles and advice do not end with a full stop, explanations do', () => {
  for (const id of findingIds) {
    assert.doesNotMatch(findings[id].title, /[.!]$/, id)
    assert.doesNotMatch(findings[id].advice ?? '', /[.!]$/, id)
    assert.match(findings[id].why, /\.$/, id)
  }
})

/**
 * A link to a program of docs/findings with what its first comment says; on the site its text (scripts/site/pages.mjs).
 */
const linkOfProgram = (name: string): string => {
  const [, comment] = readFileSync(join(programs, name), 'utf8').match(/^\/\*([\s\S]*?)\*\//) ?? []
  assert.ok(comment, `${name} begins with a comment`)
  const [about, options] = comment
    .replace(/\s*\n \*\s*/g, ' ')
    .trim()
    .split(' Options: ')
  return `- [\`${name}\`](findings/${name}): ${about}${options === undefined ? '' : ` Options: \`${options}\`.`}`
}

const page = (): string =>
  `${[
    '# Findings',
    '',
    'The findings that [`userdma check`](reference/cli.md#check) reports. Each has example programs in `docs/findings`. The line that',
    'the finding names is marked by `/* FAULT */`. `-DFIXED` compiles the program without the fault. To try one:',
    '',
    '```sh',
    'cc -g -o stale-rkey docs/findings/stale-rkey.c -libverbs',
    'userdma check -- ./stale-rkey',
    '```',
    '',
    'Programs that include `cm.h` also need `-lrdmacm`. Some need options of `userdma check`, which stand beside them.',
    '',
    'Error: a request failed, or the program cannot work. Warning: the program works here, but leaks, or fails on other',
    'adapters. Notes are printed with `--notes`, and if their program fails and nothing else was found.',
    '',
    '| finding | severity | meaning |',
    '|---|---|---|',
    ...findingIds.map(id => `| [\`${id}\`](#${id}) | ${findings[id].severity} | ${findings[id].title} |`),
    ...findingIds.flatMap(id => {
      const { title, why, causes: causeNames = [] } = findings[id]
      const advice = adviceOfKind(id)
      return [
        '',
        `## ${id}`,
        '',
        `${title[0].toUpperCase()}${title.slice(1)}. ${why}`,
        ...(advice.length === 1 ? ['', `What to do: ${advice[0]}.`] : []),
        ...(advice.length > 1
          ? [
              '',
              'What to do:',
              '',
              ...advice.map(
                line => `- ${line.replace(/^[A-Z_, ]+:/, names => `${names.slice(0, -1).replace(/\w+/g, '`$&`')}:`)}`,
              ),
            ]
          : []),
        ...(causeNames.length > 0
          ? ['', `[Causes](reference/vendor-errors.md): ${causeNames.map(one => `\`${one}\``).join(', ')}.`]
          : []),
        '',
        ...sourcesOf(id).map(linkOfProgram),
      ]
    }),
    '',
    '## Found in real programs',
    '',
    'All commands of [programs](reference/programs.md) on Debian 12, the tests of pyverbs and programs of `test/programs`, with',
    'and without `--races`, have these findings of severity error and warning, and no others (`npm run test:long --',
    'check/real-programs`). Each is true. Lines are those of rdma-core 44.0 and perftest 4.5-0.17.',
    '',
    '| program | finding | severity | source | why it is true |',
    '|---|---|---|---|---|',
    ...knownFindings.map(
      ({ programs: names, id, severity, source, why }) =>
        `| ${names.map(name => `\`${name}\``).join(', ')} | [\`${id}\`](#${id}) | ${severity} | ${source} | ${why} |`,
    ),
  ].join('\n')}\n`

/** `name`: below docs/. */
const assertPage = (name: string, text: string): void => {
  const path = join(repoRoot, 'docs', name)
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, text)
  assert.equal(existsSync(path) && readFileSync(path, 'utf8'), text, '`npm run docs` regenerates it')
}

test('docs/findings.md has the tables and links to the programs', () => {
  assertPage('findings.md', page())
})

test('docs/reference/findings-by-device.md is generated from spec/by-device.ts', () => {
  const notes: string[] = []
  const noteOf = (column: Column, reason: string): number => {
    const note = `${columnTitles[column]}: ${reason}`
    return notes.indexOf(note) + 1 || notes.push(note)
  }
  const cell = (column: Column, id: FindingId): string => {
    const reason = absenceOf(column, id)
    return reason === undefined ? 'yes' : `no (${noteOf(column, reason)})`
  }
  for (const column of columns) {
    const reasons = new Set(findingIds.map(id => absenceOf(column, id)))
    for (const reason of Object.values(lacks[column])) assert.ok(reasons.has(reason), `${column}: ${reason}`)
  }
  assert.deepEqual(
    findingIds.filter(id => absenceOf('host', id) !== undefined),
    findingIds.filter(id => LACKING.observed.some(need => findings[id].needs.includes(need))),
  )
  const rows = findingIds.map(
    id =>
      `| [\`${id}\`](../findings.md#${id}) | ${columns.map(column => cell(column, id)).join(' | ')} | ${hasStory(id) ? 'yes' : ''} |`,
  )
  const text = [
    '# Findings by device',
    '',
    'Which findings of [`userdma check`](../findings.md) are told on which device, as the programs of `docs/findings` show it:',
    '`npm run test:long -- check/by-device` runs them on each device that they can run on, with queue',
    'pairs of SRD on EFA (`-DSRD`), and with the drivers of `examples/drivers`. A cell with `no` has its reason below. Findings that need another daemon, rights or `--like` are run on rxe only.',
    'The last column: whether the finding ends with [what happened before](../how-to/check.md#what-happened-before), on each of these devices.',
    '',
    `| finding | ${columns.map(column => columnTitles[column]).join(' | ')} | story |`,
    `|---${'|---'.repeat(columns.length + 1)}|`,
    ...rows,
    '',
    'Why not:',
    '',
    ...notes.map((note, i) => `${i + 1}. ${note}.`),
    '',
    'Generated from `test/spec/by-device.ts` by `npm run docs`.',
    '',
  ].join('\n')
  assertPage('reference/findings-by-device.md', text)
})

test('docs/reference/waits-by-device.md is generated from spec/waits-by-device.ts', () => {
  const notes: string[] = []
  const noteOf = (reason: string): number => notes.indexOf(reason) + 1 || notes.push(reason)
  const linkOf = (id: FindingId): string => `[\`${id}\`](../findings.md#${id})`
  const rows = waitKinds.map(one => {
    const cells = waitColumns.map(column => {
      const told = explanationOf(one, column)
      return typeof told === 'string' ? `no (${noteOf(told)})` : linkOf(told.finding)
    })
    const { says } = one.told
    return `| ${one.does} | ${cells.join(' | ')} | ${says} |`
  })
  const text = [
    '# Waits by device',
    '',
    'A program that hangs, or that a signal ends while it waits: which finding of [`userdma check`](../findings.md) says why,',
    'on each device, and what its text says, on EFA in other words. No option is needed; after an error of another program',
    'queues that stand still are notes. `npm run test:long -- system/check/waits` runs a program of each kind.',
    '',
    `| the program | ${waitColumns.map(column => columnTitles[column]).join(' | ')} | the text has |`,
    `|---${'|---'.repeat(waitColumns.length)}|---|`,
    ...rows,
    '',
    'Why not:',
    '',
    ...notes.map((note, i) => `${i + 1}. ${note}.`),
    '',
    '## Across hosts of a net',
    '',
    'With `check: true` in the file of a net, threads that wait for each other on two hosts are named together, and where they',
    'wait on each. SRD has no connections, so on EFA each host tells of its own threads (`idle-queues`).',
    '`npm run test:long -- check/net-waits` runs these on each device.',
    '',
    '| the server | the client | rxe, mlx5 |',
    '|---|---|---|',
    ...netWaits.map(({ does, connected: [id] }) => `| ${does.join(' | ')} | ${linkOf(id)} |`),
    '',
    'Generated from `test/spec/waits-by-device.ts` by `npm run docs`.',
    '',
  ].join('\n')
  assertPage('reference/waits-by-device.md', text)
})

test('docs/reference/memory-given-back.md is generated from spec/given-back.ts', () => {
  const accessNames = Object.keys(accesses) as AccessName[]
  const rows = (Object.keys(ways) as WayName[]).map(way => {
    const cells = accessNames.map(access => {
      const { finding, severity } = toldOf(way, access)
      return `[\`${finding}\`](../findings.md#${finding})${severity === 'error' ? '' : ` (${severity})`}`
    })
    return `| ${ways[way].does} | ${cells.join(' | ')} |`
  })
  const text = [
    '# Memory that was given back',
    '',
    'A region outlives its memory: which finding of [`userdma check`](../findings.md) tells of an access by the device after the',
    'program has given the memory back, with the stacks of the access and of the fault. The cells are errors unless they say',
    'otherwise, and hold on rxe and mlx5; on EFA too, but for WRITEs and atomics of a peer.',
    '`npm run test:long -- system/check/given-back` runs a program of each cell.',
    '',
    `| given back by | ${accessNames.map(access => accesses[access]).join(' | ')} |`,
    `|---${'|---'.repeat(accessNames.length)}|`,
    ...rows,
    '',
    'The preload library frees a block of less than 1 MiB that a region lies in only when the region is deregistered, of at most 64',
    'such blocks and 16 MiB, and `realloc` moves such a block: so nothing else gets its memory, and the access is certainly one',
    'to free memory. Later the program may have allocated the block again, as registration caches do: the finding is then a',
    'note if the program has used the region since. That a function has returned shows at the next post or poll of its thread.',
    '',
    'A peer of another daemon, or on another machine: the daemon of the memory tells it on rxe and mlx5, with the queue pair that',
    'the access came by, instead of the request. EFA tells it for peers of its daemon only.',
    '',
    'Generated from `test/spec/given-back.ts` by `npm run docs`.',
    '',
  ].join('\n')
  assertPage('reference/memory-given-back.md', text)
})
