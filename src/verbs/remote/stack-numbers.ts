/*
 * Numbers of stacks of a program on a daemon's device, for `userdma check` (SessionEnv.stacks): as the preload library
 * does, the daemon gets each stack once (STACK), and its number afterwards.
 */
import { Messages, SessionEnv } from '../../spec/session.ts'
import { captureStack } from '../check/stacks.ts'

/** Whether the program records stacks: it runs under `userdma check`. */
export const areStacksWanted = (): boolean => ['1', '2'].includes(process.env[SessionEnv.stacks] ?? '')

/** Whether it runs under `userdma check --races`. */
export const areEventsWanted = (): boolean => process.env[SessionEnv.stacks] === '2'

/** As in the preload library. */
const MAX_STACKS = 8192
const FRAMES = Messages.stack.fields.find(({ name }) => name === 'frames')!.size

/** Whole frames that fit. */
const framesText = (stack: readonly string[]): string => {
  let text = ''
  for (const frame of stack) {
    const line = `${frame}\n`
    if (Buffer.byteLength(text) + Buffer.byteLength(line) >= FRAMES) break
    text += line
  }
  return text
}

/**
 * The number of the caller's stack; 0: none. `define` sends a new one to the daemon, and answers whether it keeps it.
 */
export const createStackNumbers = (define: (id: number, frames: string) => boolean): (() => number) => {
  const known = new Map<string, number>()
  return () => {
    const frames = framesText(captureStack()())
    const number = known.get(frames)
    if (number !== undefined || frames === '' || known.size === MAX_STACKS) return number ?? 0
    const id = known.size + 1
    const kept = define(id, frames) ? id : 0
    known.set(frames, kept)
    return kept
  }
}
