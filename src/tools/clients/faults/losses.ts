/*
 * Which fault rules lose packets of a network, for the checker. By core, so that network and checker need not know each
 * other.
 */
import type { Core } from '../../../core/model.ts'
import type { CheckerSources } from '../../check/detector.ts'

export const lossesOf = new WeakMap<Core, NonNullable<CheckerSources['lossTo']>>()
