/*
 * All fuzz targets, by name.
 */
import { codecTargets } from './codecs.ts'
import { engineTarget } from './engine.ts'
import type { Target } from './fuzzer.ts'

export const targets: readonly Target[] = [...codecTargets, engineTarget]
