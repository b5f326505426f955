/*
 * The object model against its reference: random programs on core and soft devices (random-program.ts). model.long.test.ts runs
 * more of them, daemon.test.ts the same through sessions of a daemon.
 */
import { it } from 'node:test'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference for random programs and device events', () => checkPrograms(120))
