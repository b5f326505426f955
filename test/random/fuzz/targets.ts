/*
 * All fuzz targets.
 */
import { callTargets } from './calls.ts'
import { codecTargets } from './codecs.ts'
import { connectionTargets } from './connections.ts'
import { datagramTargets } from './datagrams.ts'
import { engineTarget } from './engine.ts'
import type { Target } from './fuzzer.ts'
import { ipTarget } from './ip.ts'
import { protocolTargets } from './protocol.ts'

export const targets: readonly Target[] = [
  ...codecTargets,
  engineTarget,
  ...callTargets,
  ...connectionTargets,
  ...datagramTargets,
  ipTarget,
  ...protocolTargets,
]
