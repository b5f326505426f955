/*
 * perftest over RC between programs of one daemon.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { isEmpty, lacking, startDaemon, suiteScope, type TestDaemon, TWO_DEVICES } from '../programs.ts'
import { type PairOptions, runPerftest } from './pingpong.ts'

interface PerftestCase {
  readonly program: string
  readonly args: readonly string[]
  /** Bytes of a message: the result line starts with this number. */
  readonly size: number
}

const perftest = (program: string, size: number, iterations: number, ...args: string[]): PerftestCase => ({
  program,
  size,
  args: ['-s', String(size), '-n', String(iterations), ...args],
})

const cases: readonly PerftestCase[] = [
  perftest('ib_write_bw', 65536, 500),
  perftest('ib_write_bw', 1048576, 50, '-m', '1024'),
  perftest('ib_write_bw', 4096, 500, '-q', '4'),
  perftest('ib_write_bw', 65536, 200, '-b'),
  perftest('ib_send_bw', 65536, 500),
  perftest('ib_send_bw', 4096, 500, '-e'),
  perftest('ib_send_bw', 1000, 500, '-b', '-m', '256'),
  perftest('ib_read_bw', 65536, 500),
  perftest('ib_read_bw', 1048576, 30, '-m', '2048'),
  perftest('ib_read_bw', 4096, 300, '-b'),
  { program: 'ib_atomic_bw', args: ['-n', '500', '-A', 'FETCH_AND_ADD'], size: 8 },
  { program: 'ib_atomic_bw', args: ['-n', '500', '-A', 'CMP_AND_SWAP'], size: 8 },
  // Few iterations: ib_write_lat polls memory without calling the device, so that each message waits for the scheduler.
  perftest('ib_write_lat', 64, 100),
  perftest('ib_send_lat', 64, 500),
  perftest('ib_send_lat', 8192, 200, '-e'),
  perftest('ib_read_lat', 4096, 300),
  { program: 'ib_atomic_lat', args: ['-n', '300'], size: 8 },
]

describe('perftest', { skip: lacking('ib_write_bw', 'ib_atomic_lat') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: TWO_DEVICES })
  })

  // `npm test` has the last of each program.
  const isLast = (one: PerftestCase) => cases.findLast(({ program }) => program === one.program) === one
  casesOf(cases, isLast).forEach(({ program, args, size }, i) => {
    it(`${program} ${args.join(' ')}`, async t => {
      const devices = i % 2 === 0 ? (['rxe0', 'rxe0'] as const) : (['rxe0', 'rxe1'] as const)
      const options: PairOptions = { program, devices }
      const { client } = await runPerftest(t, daemon, args, options)
      // The bandwidth may be 0, and the latency inf: on a busy machine perftest cannot measure the CPU frequency.
      assert.match(client.stdout, new RegExp(`^ ${size} +\\d+ +([\\d.]+|inf) `, 'm'))
    })
  })

  it('leaves nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})
