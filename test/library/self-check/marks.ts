/*
 * Lines of stacks, and marked lines of a test file, as `file:line`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'

/** `file:line` of a stack's frame, or ''. */
export const lineOf = (frame = ''): string => /[^/]*:\d+(?=:\d+\)?$)/.exec(frame)?.[0] ?? ''

/** Lines of a file of this folder that end with a mark. */
export const markedLines = (file: string, mark: string): string[] =>
  readFileSync(join(repoRoot, 'test', 'library', 'self-check', file), 'utf8')
    .split('\n')
    .flatMap((text, i) => (text.endsWith(mark) ? [`${file}:${i + 1}`] : []))
