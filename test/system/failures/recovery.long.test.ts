/*
 * What well-known programs do after each kind of failure: `userdma walk` of each, and the table of
 * docs/reference/recovery.md. With WRITE_DOCS=1 it writes the page; otherwise what is bad must be bad on the page.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { walkKinds } from '../../../src/spec/walk-kinds.ts'
import { repoRoot } from '../../paths.ts'
import { lacking, runUserdma, suiteScope, temporaryFolder } from '../programs.ts'

/** Failures that are tried of each program, and the seconds for them. */
const POINTS = 48
const SECONDS = 420

const page = join(repoRoot, 'docs', 'reference', 'recovery.md')

interface Program {
  readonly name: string
  /** What tells wrong bytes. */
  readonly bytes: string
  readonly tools: readonly string[]
  /** A shell command; $FOLDER has files of its own. */
  readonly command: string
}

/** Ends with the client's status. The server is ended if it is endless, or if its client has failed. */
const pair = (server: string, client: string, isEndless = false): string =>
  `${server} & server=$!; sleep 0.3; ${client}; status=$?; ${isEndless ? '' : '[ $status = 0 ] || '}kill -9 $server; wait $server; exit $status`

const fioJob = 'fio --thread --name=job --ioengine=rdma --port=18600 --bs=64k --size=4m'

const programs: readonly Program[] = [
  {
    name: 'rsockets: `rcopy` of a file',
    bytes: 'compared with the file',
    tools: ['rcopy'],
    command: pair('rcopy', '{ rcopy $FOLDER/file localhost:$FOLDER/copy && cmp $FOLDER/file $FOLDER/copy; }', true),
  },
  {
    name: 'fio, `ioengine=rdma`: WRITEs of 64 KiB',
    bytes: 'not looked at',
    tools: ['fio'],
    command: `cd $FOLDER; ${pair(`${fioJob} --rw=read --iodepth=64`, `${fioJob} --hostname=127.0.0.1 --verb=write --rw=write --iodepth=4`)}`,
  },
  {
    name: 'UCX: `ucx_perftest -t tag_lat` over `rc_verbs`',
    bytes: 'not looked at',
    tools: ['ucx_perftest'],
    command: `export UCX_TLS=rc_verbs,ud:aux,self UCX_NET_DEVICES=rxe0:1; ${pair('ucx_perftest -p 18601', 'ucx_perftest -p 18601 -n 50 -w 5 -t tag_lat 127.0.0.1')}`,
  },
  {
    name: 'Open MPI, 2 ranks, pml ucx over `rc_verbs`: ring, all-reduce, one-sided',
    bytes: 'checked by the program',
    tools: ['mpirun.openmpi', 'mpicc.openmpi'],
    command:
      'mpirun.openmpi --allow-run-as-root --oversubscribe -n 2 --mca pml ucx --mca osc ucx -x UCX_TLS=rc_verbs,ud_verbs,self $FOLDER/check',
  },
]

interface Result {
  readonly kind: string
  readonly outcome: string
  readonly isFinding: boolean
  readonly text: string
  readonly rule: string
  readonly program: string
  readonly frames: readonly { readonly function?: string; readonly file?: string; readonly line?: number }[]
  readonly recovery?: number
}

/** Words for outcomes; those of `walk` that are not here stay. */
const words: Readonly<Record<string, string>> = {
  recovered: 'recovers',
  ended: 'ends',
  hang: 'hangs',
  wrong: 'wrong bytes or status',
  leak: 'leaks',
  crash: 'crashes',
  swallowed: 'fails silently',
  left: 'leaves its peer connected',
}

const cellText = (results: readonly Result[]): string => {
  if (results.length === 0) return ''
  const counts = new Map<string, Result[]>()
  for (const result of results) counts.set(result.outcome, [...(counts.get(result.outcome) ?? []), result])
  return [...counts]
    .sort(([a], [b]) => Object.keys(words).indexOf(a) - Object.keys(words).indexOf(b))
    .map(([outcome, all]) => {
      const longest = Math.max(...all.map(({ recovery = 0 }) => recovery))
      const seconds = outcome === 'recovered' && longest >= 100 ? ` (${(longest / 1000).toFixed(1)} s)` : ''
      const text = `${words[outcome] ?? outcome} ${all.length}${seconds}`
      return all.some(({ isFinding }) => isFinding) ? `**${text}**` : text
    })
    .join(', ')
}

/** Its innermost line of source, else the object file. */
const placeOf = ({ frames, program }: Result): string => {
  const known = frames.find(({ line }) => line !== undefined)
  const [first] = frames
  if (known !== undefined) return `${program}, ${known.function} (${known.file}:${known.line})`
  return first?.file === undefined ? program : `${program}, ${first.function ?? '?'} (${first.file})`
}

describe('recovery after failures', () => {
  const scope = suiteScope()
  const rows: string[] = []
  const details: string[] = []
  const written = (): string => readFileSync(page, 'utf8')
  const isWriting = process.env.WRITE_DOCS !== undefined
  let folder = ''
  before(() => {
    folder = temporaryFolder(scope)
    writeFileSync(join(folder, 'file'), Buffer.alloc(200_000, 'userdma '))
    const source = join(repoRoot, 'test', 'system', 'suites', 'mpi_check.c')
    spawnSync('mpicc.openmpi', ['-g', '-O1', '-o', join(folder, 'check'), source])
  })

  for (const { name, bytes, tools, command } of programs)
    it(name, { skip: lacking(...tools), timeout: 2 * SECONDS * 1000 }, async t => {
      const output = join(temporaryFolder(t), 'results')
      const limits = ['--points', `${POINTS}`, '--time-limit', `${SECONDS}`, '--jobs', '1', '--clock', 'skip']
      const full = `FOLDER=${folder}; ${command}`
      const { stderr } = await runUserdma(
        t,
        ['walk', ...limits, '--json', '--output', output, '--', 'sh', '-c', full],
        {
          limit: 2 * SECONDS * 1000,
        },
      )
      const results = readFileSync(output, 'utf8')
        .split('\n')
        .filter(line => line.startsWith('{'))
        .map(line => JSON.parse(line) as Result)
      assert.ok(results.length > 8, stderr)
      const ofKind = (kind: string) => results.filter(result => result.kind === kind)
      rows.push(
        `| ${[name, results.length, ...Object.keys(walkKinds).map(kind => cellText(ofKind(kind))), bytes].join(' | ')} |`,
      )
      details.push(`\n### ${name}\n\n    userdma run --private --fault RULES -- sh -c '${command}'\n`)
      for (const result of results.filter(({ isFinding }) => isFinding)) {
        const line = `${words[result.outcome] ?? result.outcome}: ${result.text}, ${placeOf(result)}`
        details.push(`- ${line}: \`--fault '${result.rule}'\``)
        if (!isWriting) assert.ok(written().includes(line), `not on the page: ${line}`)
      }
    })

  it('is the page', { skip: !isWriting }, () => {
    const kinds = Object.keys(walkKinds)
    const head = [
      `| program | failures | ${kinds.join(' | ')} | bytes |`,
      `|---|---|${kinds.map(() => '---|').join('')}---|`,
    ]
    const text = written()
    const [before = ''] = text.split('| program |')
    writeFileSync(page, `${before}${[...head, ...rows].join('\n')}\n\n## What is bad\n\n${details.join('\n')}`)
  })
})
