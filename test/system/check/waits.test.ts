/*
 * `userdma check` explains every wait that does not end (spec/waits-by-device.ts): runs the kinds of
 * test/programs/check/waits.c on each device until each is told, without `--notes`.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { casesOf, longOnly } from '../../long-run.ts'
import { explanationOf, type WaitColumn, type WaitKind, waitColumns, waitKinds } from '../../spec/waits-by-device.ts'
import { cleanEnvironment, lacking, ownProgram, type Scope, start, userdma } from '../programs.ts'

const program = (column: WaitColumn): string => ownProgram(column === 'efa' ? 'waits_srd' : 'waits')
const devices: Readonly<Record<WaitColumn, readonly string[]>> = {
  rxe: [],
  mlx5: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
  infiniband: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband'],
  efa: ['--device', 'efa_0@127.0.0.1,driver=efa'],
}

/** Programs of one run: more of them take long to begin on a busy machine. */
const BATCH = 14
/** Milliseconds between two looks at the findings. */
const INTERVAL = 200
const MAX_LOOKS = 200

/** The texts of idle-queues whose facts say what to do; others have no advice. */
const ADVISED =
  /not polled|delivered and not read|not moved to RTR|connected \(ibv_modify_qp|is in SQD|doorbell record|flushes none of an SRQ/

/** The findings of a report in text, each with its lines. */
const findingsIn = (report: string): readonly string[] => report.split(/^userdma check: /m).slice(1)

const hasRightAdvice = (text: string): boolean => {
  const [head = ''] = text.split('\n', 1)
  return !head.includes(' idle-queues: ') || text.includes('\n  advice: ') === ADVISED.test(head)
}

const batchesOf = (kinds: readonly WaitKind[]): WaitKind[][] => {
  const shared = kinds.filter(({ options }) => options === undefined)
  const groups = [shared.filter(({ hasError }) => hasError), shared.filter(({ hasError }) => !hasError)]
  const batches = groups.flatMap(group =>
    Array.from({ length: Math.ceil(group.length / BATCH) }, (_, i) => group.slice(i * BATCH, (i + 1) * BATCH)),
  )
  return [...batches, ...kinds.filter(({ options }) => options !== undefined).map(kind => [kind])]
}

/** What the block "who waits for whom:" says of the threads of a kind, each with the lines that follow. */
const threadsOf = (report: string, { kind, options }: WaitKind): string =>
  // Of a kind that runs alone, threads are named without their process.
  options !== undefined
    ? report
    : report
        .split(/^ {4}(?=\S)/m)
        .filter(text => text.split('\n', 1)[0]?.includes(`(${kind.slice(0, 15)}) `))
        .join('')

/** Runs the kinds until each is told; returns those that are not, with what is told of them instead. */
const untold = async (t: Scope, column: WaitColumn, kinds: readonly WaitKind[]): Promise<readonly string[]> => {
  const own = kinds.flatMap(({ options = [] }) => options)
  const notes = kinds.some(({ hasError }) => hasError) ? ['--notes'] : []
  const hang = own.includes('--hang') ? [] : ['--hang', '1']
  const options = ['check', ...hang, ...notes, ...own, ...devices[column]]
  const running = start(t, userdma, [...options, '--', program(column), ...kinds.map(({ kind }) => kind)], {
    env: cleanEnvironment(),
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let hasEnded = false
  void running.ended.then(() => {
    hasEnded = true
  })
  const missing = (): readonly string[] => {
    const found = findingsIn(running.output())
    return kinds.flatMap(one => {
      const told = explanationOf(one, column)
      const own = found.filter(text => text.split('\n', 1)[0]?.includes(`(${one.kind.slice(0, 15)}), `))
      const isTold = (text: string): boolean =>
        typeof told !== 'string' &&
        text.includes(` ${told.finding}: `) &&
        text.includes(told.says) &&
        hasRightAdvice(text)
      // Where a finding is of one process only, threads are named without it.
      const isThreadTold =
        one.thread === undefined || [threadsOf(running.output(), one), ...own].some(text => text.includes(one.thread!))
      return own.some(isTold) && isThreadTold ? [] : [`${one.kind}: ${own.join('') || 'nothing'}`]
    })
  }
  for (let looks = 0; missing().length > 0 && !hasEnded && looks < MAX_LOOKS; looks++) await delay(INTERVAL)
  running.child.stdin?.end()
  await running.ended
  return missing()
}

describe('waits are explained', { concurrency: 3, skip: lacking(...waitColumns.map(program)) }, () => {
  for (const column of waitColumns) {
    const kinds = casesOf(waitKinds, ({ isLong }) => isLong !== true).filter(
      one => typeof explanationOf(one, column) !== 'string',
    )
    // What waits for an InfiniBand port waits for one of RoCE too.
    for (const batch of batchesOf(kinds))
      it(`on ${column}: ${batch.map(({ kind }) => kind).join(' ')}`, {
        skip: column === 'infiniband' && longOnly,
      }, async t => {
        assert.deepEqual(await untold(t, column, batch), [])
      })
  }
})
