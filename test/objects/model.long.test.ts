/*
 * As model.test.ts, with thousands of programs, different ones in each run.
 */
import { it } from 'node:test'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference in 5,000 programs', () => checkPrograms(5000))
