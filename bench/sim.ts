/*
 * Rows "sim …": how fast `userdma sim` is, with few and with 1,000 devices (docs/decisions/simulation.md).
 */
import { join } from 'node:path'
import { readScenario } from '../src/cli/sim/scenario-file.ts'
import { type Result, type Scenario, simulate } from '../src/tools/sim/scenario.ts'
import { repoRoot } from '../test/paths.ts'
import type { Row } from './harness/harness.ts'

/** Processor time, ms: a simulation has one thread and waits for nothing, so other processes matter less. */
const clock = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const run = (file: string, changes: Partial<Scenario>): Result => {
  const { scenario } = readScenario(join(repoRoot, 'examples', 'sim', file))
  const steps = simulate({ ...scenario, ...changes, warmUp: 0 }, 'dcqcn', clock)
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

const common = { reference: 'none', cores: 1, rounds: 3 } as const
const perSecond = { ...common, unit: 'packets/s', better: 'higher', floor: 150_000, aim: 300_000 } as const
const LARGE = { time: 400 }

export const simRows: readonly Row[] = [
  {
    ...perSecond,
    name: 'sim incast',
    quantity: 'simulated packets: 64 hosts send to one, DCQCN',
    prepare: () => ({ ours: () => run('incast.yaml', { time: 40_000 }).packetsPerSecond }),
  },
  {
    ...perSecond,
    name: 'sim large',
    quantity: 'simulated packets: 1,000 devices, 10,000 queue pairs, DCQCN',
    prepare: () => ({ ours: () => run('large.yaml', LARGE).packetsPerSecond }),
  },
  {
    ...common,
    name: 'sim large time',
    quantity: 'seconds per simulated second: the same',
    unit: 's',
    better: 'lower',
    floor: 30_000,
    aim: 15_000,
    prepare: () => ({ ours: () => run('large.yaml', LARGE).secondsPerSimulated }),
  },
]
