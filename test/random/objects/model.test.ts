/*
 * Random programs on core and soft devices, compared with the reference of the object model.
 */
import { it } from 'node:test'
import { inLongRun } from '../../long-run.ts'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference for random programs and device events', () =>
  checkPrograms(inLongRun(120, 60)))
