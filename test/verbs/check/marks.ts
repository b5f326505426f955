/*
 * Lines of a test file with a mark at their end, and lines in stacks, both as `name:line`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'

/** The line of a stack's frame; empty if it has none. */
export const lineOf = (frame = ''): string => /[^/]*:\d+(?=:\d+\)?$)/.exec(frame)?.[0] ?? ''

/** Lines of a file of this folder that end with a mark. */
export const markedLines = (file: string, mark: string): string[] =>
  readFileSync(join(repoRoot, 'test', 'verbs', 'check', file), 'utf8')
    .split('\n')
    .flatMap((text, i) => (text.endsWith(mark) ? [`${file}:${i + 1}`] : []))
