#!/usr/bin/env node
/*
 * Builds the C libraries of an installed npm package whose platform package is missing: into build/native of this
 * package. A checkout uses build.mjs.
 */
import { main, say } from './common.mjs'
import { compileStale } from './compile.mjs'
import { nativeTargets } from './native-targets.mjs'

main(async () => {
  const { isComplete, blocked } = await compileStale(nativeTargets())
  if (!isComplete || blocked > 0) return 1
  say('the C libraries are built')
  return 0
})
