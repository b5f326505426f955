/*
 * Suppressions, in the form of valgrind's files: blocks of
 *
 *   {
 *      a name for people
 *      stale-rkey
 *      fun:ibv_post_send
 *      ...
 *      src:client.c:42
 *   }
 *
 * The second line is the finding's id, or `*`. The others match the innermost frames of its stack in order: `fun:` a
 * function, `obj:` a program or library, `src:` a source file, with or without a line; `*` and `?` are wildcards, `...`
 * is any number of frames. A block without frames matches every stack. Lines that begin with `#` are comments.
 */
import { type Finding, findingIds } from '../../spec/check/findings.ts'
import type { Frame, Symbols } from '../../trace/findings.ts'
import { printable } from '../../trace/printable.ts'

type FramePattern = '...' | { readonly kind: 'fun' | 'obj' | 'src'; readonly pattern: RegExp }

export interface Suppression {
  readonly name: string
  /** An id, or `*`. */
  readonly id: string
  readonly frames: readonly FramePattern[]
}

const wildcard = (text: string): RegExp =>
  new RegExp(
    `^${text
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replace(/\*/g, '.*')
      .replace(/\?/g, '.')}$`,
  )

/** `where`: file and line, which begin each error message. */
const parseFrame = (text: string, where: string): FramePattern => {
  if (text === '...') return '...'
  const [, kind, pattern] = /^(fun|obj|src):(.+)$/.exec(text) ?? []
  if (kind === undefined || pattern === undefined)
    throw new Error(`${where}: "${text}" is not a frame; write fun:FUNCTION, obj:FILE, src:FILE[:LINE] or ...`)
  return { kind: kind as 'fun' | 'obj' | 'src', pattern: wildcard(pattern) }
}

/** Parses a file's text. Throws an Error with a message that names the line. */
export const parseSuppressions = (text: string, file: string): Suppression[] => {
  const found: Suppression[] = []
  let block: string[] | undefined
  let begin = 0
  text.split('\n').forEach((raw, i) => {
    const line = raw.trim()
    const where = `${file}:${i + 1}`
    if (line === '' || line.startsWith('#')) return
    if (line === '{') {
      if (block !== undefined) throw new Error(`${where}: "{" within the block of line ${begin}`)
      block = []
      begin = i + 1
    } else if (block === undefined) throw new Error(`${where}: "${line}" is outside a block of { and }`)
    else if (line !== '}') block.push(line)
    else {
      const [name, id, ...frames] = block
      if (name === undefined || id === undefined)
        throw new Error(`${where}: the block of line ${begin} needs a name and the id of a finding`)
      if (id !== '*' && !findingIds.some(known => known === id))
        throw new Error(`${where}: there is no finding "${id}"; \`userdma check --explain\` lists them`)
      found.push({ name, id, frames: frames.map(frame => parseFrame(frame, where)) })
      block = undefined
    }
  })
  if (block !== undefined) throw new Error(`${file}:${begin}: the block has no end`)
  return found
}

const fits = (pattern: Exclude<FramePattern, '...'>, frame: Frame): boolean => {
  switch (pattern.kind) {
    case 'fun':
      return pattern.pattern.test(frame.function)
    case 'obj':
      return frame.object !== undefined && pattern.pattern.test(frame.object)
    case 'src': {
      const { file = '', line } = frame
      const names = [file, file.slice(file.lastIndexOf('/') + 1)]
      return file !== '' && names.some(name => pattern.pattern.test(name) || pattern.pattern.test(`${name}:${line}`))
    }
  }
}

const matchFrames = (patterns: readonly FramePattern[], frames: readonly Frame[]): boolean => {
  const [first, ...rest] = patterns
  if (first === undefined) return true
  if (first === '...') return matchFrames(rest, frames) || (frames.length > 0 && matchFrames(patterns, frames.slice(1)))
  const [frame, ...outer] = frames
  return frame !== undefined && fits(first, frame) && matchFrames(rest, outer)
}

/** The first suppression that matches a finding with this stack. */
export const suppressionOf = (
  all: readonly Suppression[],
  id: string,
  frames: readonly Frame[],
): Suppression | undefined =>
  all.find(known => (known.id === '*' || known.id === id) && matchFrames(known.frames, frames))

/** The stack that suppressions match: of all moments, one behind the other. */
export const framesOfFinding = ({ moments }: Pick<Finding, 'moments'>, symbols: Symbols): Frame[] =>
  moments.flatMap(({ stack }) => symbols.framesOf(stack))

/** Innermost frames of a generated block: enough to tell places apart. */
const MAX_FRAMES = 24

const frameLine = ({ function: name, object, file, line }: Frame): string => {
  if (name !== '' && name !== '<anonymous>') return `fun:${name}`
  if (file !== undefined) return `src:${file}:${line}`
  return object === undefined ? '...' : `obj:${object}`
}

/** A block that suppresses this finding at this place. */
export const suppressionBlock = (
  finding: Pick<Finding, 'id' | 'device' | 'moments' | 'program'>,
  symbols: Symbols,
): string => {
  const frames = framesOfFinding(finding, symbols).slice(0, MAX_FRAMES)
  const lines = [`${finding.id} of ${finding.program?.command ?? finding.device}`, finding.id, ...frames.map(frameLine)]
  return `{\n${lines.map(line => `   ${printable(line)}\n`).join('')}}\n`
}
