/*
 * Stack numbers for `userdma check` of a program on a daemon's device. The program sends each stack to the daemon once
 * (message STACK), and afterwards only the stack's number.
 */
import { MAX_STACKS, Messages, SessionEnv } from '../../../spec/session.ts'
import { captureStack } from '../watch/stacks.ts'

/** Whether the program records stacks: `userdma check` sets the variable to 1, with `--races` to 2. */
export const areStacksWanted = (): boolean => ['1', '2'].includes(process.env[SessionEnv.stacks] ?? '')

/** Whether the program writes the event log: under `userdma check --races`. */
export const isEventLogWanted = (): boolean => process.env[SessionEnv.stacks] === '2'

/** Bytes of the field `frames`. */
const FRAMES_BYTES = Messages.stack.fields.find(({ name }) => name === 'frames')!.size

/** The first frames that fit into `frames` before its NUL, one a line. */
const framesText = (stack: readonly string[]): string => {
  let text = ''
  for (const frame of stack) {
    const line = `${frame}\n`
    if (Buffer.byteLength(text) + Buffer.byteLength(line) >= FRAMES_BYTES) break
    text += line
  }
  return text
}

/**
 * Returns a function for the number of the caller's stack; 0: no number. `define` sends a new stack to the daemon, and
 * returns false if the daemon has no space for the stack.
 */
export const createStackNumbers = (define: (id: number, frames: string) => boolean): (() => number) => {
  const known = new Map<string, number>()
  return () => {
    const formatStack = captureStack()
    const frames = framesText(formatStack())
    const number = known.get(frames)
    if (number !== undefined) return number
    // One stack over the maximum is sent, so that the daemon knows that stacks are missing.
    if (frames === '' || known.size > MAX_STACKS) return 0
    const id = known.size + 1
    const newNumber = define(id, frames) ? id : 0
    known.set(frames, newNumber)
    return newNumber
  }
}
