/*
 * The test of model.test.ts with more random programs.
 */
import { it } from 'node:test'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference in 5,000 programs', () => checkPrograms(5000))
