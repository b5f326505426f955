/*
 * Random programs in sessions of a daemon, compared with the reference of the object model.
 */
import { it } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import { daemonOf } from '../../daemon/client.ts'
import { scratchFolder } from '../../tools.ts'
import { createRandomSource } from '../model/random.ts'
import { daemonCarrier } from './carriers/daemon-carrier.ts'
import { run } from './random-program.ts'

const folder = scratchFolder()
const STEPS = 400
/** Steps between comparisons of the daemon's state. */
const COMPARE_EVERY = 10

for (const seed of [1, 2, 3])
  it(`sessions agree with the reference, seed ${seed}`, { skip: !hasNative() && 'koffi is missing' }, async t => {
    const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
    const { facts, perform } = await daemonCarrier(t, daemon)
    const random = createRandomSource(seed)
    const seeds = Array.from({ length: STEPS }, () => random.u32() >>> 1)
    const steps = run(facts, seeds, COMPARE_EVERY)
    for (let next = steps.next(); !next.done; ) next = steps.next(await perform(next.value))
  })
