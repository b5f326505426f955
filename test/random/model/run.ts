/*
 * One run of the model test. A failure has the command that reproduces it, and the last steps.
 */
import { createRandomSource } from './random.ts'
import { createSimulation, type SimulationOptions } from './simulation.ts'

/** The seed also determines the size of the simulation. */
const optionsOf = (seed: number): SimulationOptions => {
  const random = createRandomSource(seed ^ 0x5eed)
  const hasSmallWindows = random.hits(0.4)
  return {
    seed,
    nodes: 1 + random.int(3),
    pairs: 1 + random.int(12),
    ...(hasSmallWindows && {
      windowBytes: 4500 + random.int(40_000),
      boundReads: random.hits(0.7),
      pacingInterval: random.int(2) * 50,
    }),
    ...(random.hits(0.4) && { sharedWindowBytes: 4500 + random.int(80_000) }),
    ...(random.hits(0.3) && { maxPackets: 1 + random.int(8) }),
    ...(random.hits(0.3) && { maxBytes: 4400 + random.int(20_000) }),
  }
}

/** Posts `operations` requests. Throws with the seed and the last events. */
export const runModel = (seed: number, operations: number) => {
  const simulation = createSimulation(optionsOf(seed))
  try {
    simulation.run(operations)
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    const command = `USERDMA_MODEL_SEED=${seed} USERDMA_MODEL_OPERATIONS=${operations} npm test -- model/model`
    throw new Error(
      `${text}\nseed ${seed}; again: ${command}\nat ${simulation.now} µs, last:\n  ${simulation.lines.join('\n  ')}`,
    )
  }
  return simulation.statistics
}
