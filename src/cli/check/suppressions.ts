/*
 * Suppression files of `userdma check --suppressions`, in the form of valgrind's. A file has blocks such as
 *
 *   {
 *      the name of the block
 *      stale-rkey
 *      fun:ibv_post_send
 *      ...
 *      src:client.c:42
 *   }
 *
 * The first line is free text. The second line is the id of a finding, or `*` for all. The further lines match the
 * frames of its stack in order, from the innermost on: `fun:` a function, `obj:` a program or library, `src:` the path
 * or the name of a source file, with or without a line, `...` any number of frames. `*` and `?` are wildcards.
 * Frames after the last matched one may be any, so a block of two lines matches every stack. After a line `posted:`
 * the frames match the stack of any one post or call of the finding, after a line `registered:` the stack of the call
 * that created one of its objects, such as a region. Lines that begin with `#` are comments.
 */
import { resolve } from 'node:path'
import type { Finding } from '../../spec/check/finding.ts'
import { findingIds } from '../../spec/check/findings.ts'
import type { Frame } from '../../spec/check/frames.ts'
import { printable } from '../../spec/printable.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { librarySuppressions } from './library-suppressions.ts'

type FramePattern = '...' | { readonly kind: 'fun' | 'obj' | 'src'; readonly pattern: string }

/** Which stacks of a finding patterns match. `all`: those of all moments, concatenated. */
type StackKind = 'all' | 'posted' | 'registered'

interface StackPattern {
  readonly of: StackKind
  readonly frames: FramePattern[]
}

/** The stacks of a finding. `all`: one. `posted`: of each moment. `registered`: of the creation of each object. */
type FindingStacks = Readonly<Record<StackKind, readonly (readonly Frame[])[]>>

interface Suppression {
  readonly name: string
  /** The library whose findings a suppression of userdma itself matches; absent in those of files. */
  readonly library?: string
  /** The id of a finding, or `*`. */
  readonly id: string
  /** Each matches one of the stacks of its kind. */
  readonly stacks: readonly StackPattern[]
}

/**
 * Whether a pattern matches the whole of a text; `*` and `?` are wildcards. The text between two `*` is taken where it
 * first can be: a regular expression would try all places, which for a few `*` takes hours.
 */
const matches = (pattern: string, text: string): boolean => {
  /** After the last `*`, and where in the text it was last tried; undefined: there was none. */
  let retry: { readonly pattern: number; text: number } | undefined
  let p = 0
  for (let t = 0; t < text.length || p < pattern.length; ) {
    if (pattern[p] === '*') retry = { pattern: ++p, text: t }
    else if (t < text.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++
      t++
    } else if (retry === undefined || retry.text >= text.length) return false
    else {
      p = retry.pattern
      t = ++retry.text
    }
  }
  return true
}

/** `position`: FILE:LINE, with which error messages begin. */
const parseFrame = (text: string, position: string): FramePattern => {
  if (text === '...') return '...'
  const [, kind, pattern] = /^(fun|obj|src):(.+)$/.exec(text) ?? []
  if (kind === undefined || pattern === undefined)
    throw new Error(
      `${position}: "${text}" is not a frame; write fun:FUNCTION, obj:FILE, src:FILE[:LINE], ..., posted: or registered:`,
    )
  return { kind: kind as 'fun' | 'obj' | 'src', pattern }
}

/** The patterns of a block's lines after the id. */
const parseStacks = (lines: readonly { readonly line: string; readonly position: string }[]): StackPattern[] => {
  const stacks: StackPattern[] = [{ of: 'all', frames: [] }]
  for (const { line, position } of lines)
    if (line === 'posted:' || line === 'registered:')
      stacks.push({ of: line === 'posted:' ? 'posted' : 'registered', frames: [] })
    else stacks.at(-1)!.frames.push(parseFrame(line, position))
  return stacks
}

/** Parses a file's text. Throws an Error with a message that names the line. */
export const parseSuppressions = (text: string, file: string): Suppression[] => {
  const suppressions: Suppression[] = []
  /** The lines of the block that is being read, with their positions, and the line number of its `{`. */
  let block: { readonly line: string; readonly position: string }[] | undefined
  let blockStart = 0
  text.split('\n').forEach((raw, i) => {
    const line = raw.trim()
    const position = `${file}:${i + 1}`
    if (line === '' || line.startsWith('#')) return
    if (line === '{') {
      if (block !== undefined) throw new Error(`${position}: "{" within the block of line ${blockStart}`)
      block = []
      blockStart = i + 1
    } else if (block === undefined) throw new Error(`${position}: "${line}" is outside a block of { and }`)
    else if (line !== '}') block.push({ line, position })
    else {
      const [name, id, ...frames] = block
      if (name === undefined || id === undefined)
        throw new Error(`${position}: the block of line ${blockStart} needs a name and the id of a finding`)
      if (id.line !== '*' && !findingIds.some(known => known === id.line))
        throw new Error(`${id.position}: there is no finding "${id.line}"; \`userdma check --explain\` lists them`)
      suppressions.push({
        name: name.line,
        id: id.line,
        stacks: parseStacks(frames),
      })
      block = undefined
    }
  })
  if (block !== undefined) throw new Error(`${file}:${blockStart}: the block has no }`)
  return suppressions
}

/** Those of libraries, which are on by default. */
export const defaultSuppressions = (): Suppression[] =>
  librarySuppressions.map(({ library, name, id, frames }) => ({
    library,
    name,
    id,
    stacks: parseStacks(frames.map(line => ({ line, position: library }))),
  }))

const matchesFrame = ({ kind, pattern }: Exclude<FramePattern, '...'>, frame: Frame): boolean => {
  switch (kind) {
    case 'fun':
      return matches(pattern, frame.function)
    case 'obj':
      return frame.object !== undefined && matches(pattern, frame.object)
    case 'src': {
      const { file = '', line } = frame
      const names = [file, file.slice(file.lastIndexOf('/') + 1)]
      // Files below the current folder have relative paths, and match by their absolute paths too. Names of Node's own
      // files begin with `node:`, and names of the C library's with `.`.
      if (!/^(node:|\.)/.test(file)) names.push(resolve(file))
      return file !== '' && names.some(name => matches(pattern, name) || matches(pattern, `${name}:${line}`))
    }
  }
}

/**
 * Whether the patterns match the innermost frames. The patterns between two `...` match where they first can: a later
 * match would leave fewer frames to the patterns that follow, and so need not be tried.
 */
const matchesFrames = (patterns: readonly FramePattern[], frames: readonly Frame[]): boolean => {
  /** The pattern after the last `...`, and the frame where it was last tried; undefined: there was no `...`. */
  let retry: { readonly pattern: number; frame: number } | undefined
  for (let p = 0, f = 0; p < patterns.length; ) {
    const pattern = patterns[p]!
    const frame = frames[f]
    if (pattern === '...') retry = { pattern: ++p, frame: f }
    else if (frame === undefined) return false
    else if (matchesFrame(pattern, frame)) {
      p++
      f++
    } else if (retry === undefined) return false
    else {
      p = retry.pattern
      f = ++retry.frame
    }
  }
  return true
}

/**
 * The first suppression that matches a finding with this id and these stacks. `stacks` is called only if a suppression
 * has the id: to find the frames may take seconds.
 */
export const suppressionOf = (
  suppressions: readonly Suppression[],
  id: string,
  stacks: () => FindingStacks,
): Suppression | undefined => {
  const ofId = suppressions.filter(known => known.id === '*' || known.id === id)
  if (ofId.length === 0) return undefined
  const found = stacks()
  return ofId.find(known =>
    known.stacks.every(
      ({ of, frames }) =>
        (of === 'all' && frames.length === 0) || found[of].some(stack => matchesFrames(frames, stack)),
    ),
  )
}

/** The stacks of a finding that suppressions match. */
export const stacksOfFinding = (finding: Pick<Finding, 'moments' | 'objects'>, symbols: Symbols): FindingStacks => {
  const { moments, objects } = finding
  const posted = moments.map(({ stack }) => symbols.framesOf(stack))
  const registered = objects.map(({ history: [creation] }) => symbols.framesOf(creation?.stack ?? []))
  return { all: [posted.flat()], posted, registered }
}

/** Maximum frames of a generated block, the innermost ones. */
const MAX_FRAMES = 24

/** A line that matches the frame. */
const frameLine = ({ function: name, object, file, line }: Frame): string => {
  if (name !== '' && name !== '<anonymous>') return `fun:${name}`
  if (file !== undefined) return `src:${file}:${line}`
  return object === undefined ? '...' : `obj:${object}`
}

/** A block that suppresses this finding with this stack (`--gen-suppressions`). */
export const suppressionBlock = (
  finding: Pick<Finding, 'id' | 'device' | 'moments' | 'program'>,
  symbols: Symbols,
): string => {
  const frames = finding.moments.flatMap(({ stack }) => symbols.framesOf(stack, MAX_FRAMES)).slice(0, MAX_FRAMES)
  const name = printable(`${finding.id} of ${finding.program?.command ?? finding.device}`)
  // `*` for characters that cannot be printed: the line must still match the frame.
  const lines = [name, finding.id, ...frames.map(frame => frameLine(frame).replace(/\p{C}+/gu, '*'))]
  return `{\n${lines.map(line => `   ${line}\n`).join('')}}\n`
}
