/*
 * The object model against its reference: random programs (random-program.ts) on core and soft devices.
 * model.long.test.ts runs more of them, daemon.test.ts runs some through sessions of a daemon.
 */
import { it } from 'node:test'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference for random programs and device events', () => checkPrograms(120))
