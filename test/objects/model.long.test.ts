/*
 * As model.test.ts, thousands of programs, others each time.
 */
import { it } from 'node:test'
import { checkPrograms } from './run.ts'

it('the object model agrees with its reference in 5,000 programs', () => checkPrograms(5000))
