/*
 * Regions with on-demand paging on the devices that have it (src/core/memory/on-demand.ts).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { queriedRanges } from '../../../src/host/memory/ranges.ts'
import { lacking, NOBODY, noGuests, ownProgram, run, runUserdma, startDaemon } from '../programs.ts'

const program = ownProgram('on_demand')

const isRoot = process.geteuid?.() === 0
/** Each access of a guest's region needs a query of its mappings. */
const noQueries = queriedRanges(process.pid) === undefined && 'needs Linux 6.11'
/** Without CAP_IPC_LOCK, which lifts the limit. */
const UNPRIVILEGED = isRoot ? ['setpriv', '--bounding-set=-ipc_lock'] : []

const ACCESSES = [
  'WRITE to a page that was never touched: success, 7',
  'READ of another: success, 0',
  'atomic: success, 7, then 8',
  'READ after MADV_DONTNEED: success, 0',
  'READ after munmap: remote operation error',
  'READ of the next mapping: success, 9',
  'WRITE after mprotect: remote operation error',
  'READ beyond the region: remote access error',
  'READ after mremap: remote operation error',
  'implicit, WRITE from the stack to data: success, 5',
  'implicit, READ of address 0: remote operation error',
]

const PREFETCHES = [
  ['prefetch', 'OK, 256 pages in memory'],
  ['for writing', 'OK'],
  ['without faults', 'OK'],
  ['later', 'OK'],
  ['unknown advice', 'EOPNOTSUPP'],
  ['unknown flag', 'EINVAL'],
  ['beyond the region', 'EFAULT'],
  ['beyond the region, later', 'OK'],
  ['a pinned region', 'ENOENT'],
  ['for writing without the right', 'EPERM'],
  ['of another domain', 'EPERM'],
  ['of a window', 'EINVAL'],
  ['an unknown key', 'ENOENT'],
  ['a range with a hole', 'EFAULT'],
] as const

describe('a region with on-demand paging', { skip: lacking(program, 'rdma', ...UNPRIVILEGED.slice(0, 1)) }, () => {
  // librxe of Debian 12 has no ibv_advise_mr
  for (const [name, prefetches] of [
    ['rxe0', PREFETCHES.map(([step]) => `${step}: EOPNOTSUPP${step === 'prefetch' ? ', 0 pages in memory' : ''}`)],
    ['mlx5_0', PREFETCHES.map(([step, result]) => `${step}: ${result}`)],
  ] as const)
    it(`uses the pages that are mapped at each access (${name})`, async t => {
      const device = name === 'rxe0' ? 'rxe0@127.0.0.1' : 'mlx5_0@127.0.0.1,driver=mlx5'
      const daemon = await startDaemon(t, { devices: [device] })
      const { status, stdout, stderr } = await run(t, program, [name], { env: daemon.env })
      assert.equal(status, 0, stderr)
      const lines = stdout.trimEnd().split('\n')
      const isStatistic = (line: string): boolean => line.startsWith('dev ')
      assert.deepEqual(
        lines.filter(line => !isStatistic(line)),
        [`pinned beyond the limit: ${isRoot ? 'OK' : 'ENOMEM'}`, ...ACCESSES, ...prefetches],
      )
      const counters = lines.flatMap(line => {
        const [, faults, prefetched] = /page_faults (\d+) page_faults_handled \d+ page_prefetch (\d+)/.exec(line) ?? []
        return faults === undefined ? [] : [{ faults: Number(faults), prefetched: Number(prefetched) }]
      })
      // of `accesses`, two of `implicit`, two of `prefetches`; two pages were never touched before an access
      assert.equal(counters.length, 5, stdout)
      assert.ok(counters[0]!.faults >= 2, stdout)
      // two with FLUSH; the third may still run
      const prefetched = counters[3]!.prefetched
      assert.ok(name === 'rxe0' ? prefetched === 0 : prefetched === 512 || prefetched === 768, stdout)
    })

  it("obeys the protection of a guest's pages", { skip: noGuests() || noQueries }, async t => {
    const daemon = await startDaemon(t, { guest: NOBODY })
    const args = [`--reuid=${NOBODY}`, '--clear-groups', program, 'rxe0']
    const { stdout, stderr } = await run(t, 'setpriv', args, { env: daemon.env })
    assert.deepEqual(stdout.split('\n').slice(1, ACCESSES.length + 1), ACCESSES, stderr)
  })

  it('finds no page at an access that a fault rule selects', async t => {
    for (const [device, rule] of [
      ['rxe0@127.0.0.1', 'page=gone,program=on_demand,nth=2'],
      ['mlx5_0@127.0.0.1,driver=mlx5', 'page=gone,nth=2'],
    ] as const) {
      const daemon = await startDaemon(t, { devices: [device], fault: rule })
      const { stdout } = await run(t, program, [device.replace(/@.*/, '')], { env: daemon.env })
      const [, first, second] = stdout.split('\n')
      assert.equal(first, ACCESSES[0])
      assert.match(second!, /^READ of another: remote operation error/)
      const shown = await runUserdma(t, ['fault', 'show', '--socket', daemon.socket])
      assert.match(shown.stdout, /nth=2,page=gone.*injected 1\b/)
    }
  })

  it('does not count against RLIMIT_MEMLOCK', async t => {
    const daemon = await startDaemon(t)
    const [command, ...args] = [...UNPRIVILEGED, program, 'rxe0']
    const { status, stdout, stderr } = await run(t, command!, args, { env: daemon.env })
    assert.equal(status, 0, stderr)
    assert.deepEqual(stdout.split('\n').slice(0, 2), ['pinned beyond the limit: ENOMEM', ACCESSES[0]])
  })
})
