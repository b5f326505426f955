/*
 * Helpers for packet scripts for the responder.
 */
import assert from 'node:assert/strict'
import { QpState } from '../../../src/spec/enums.ts'
import { startScript } from './script.ts'

/** Default path MTU of scripts, bytes. */
export const MTU = 1024
export const { ERR } = QpState.values

/** A script with eight receive WQEs of 4096 bytes (IDs 100 to 107), and the atomic word 5 at 0x8000. */
export const startResponder = (...args: Parameters<typeof startScript>) => {
  const t = startScript(...args)
  t.postReceives(8, 4096)
  t.node.words.setBigUint64(0x8000, 5n, true)
  return t
}
export type Script = ReturnType<typeof startResponder>
export const atomicWord = (t: Script): bigint => t.node.words.getBigUint64(0x8000, true)
/** The payload that `packet` (script.ts) makes for a length. */
export const patternOf = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 7 + 1)
/** A copy of a range of client memory. */
export const memoryAt = (t: Script, at: number, length: number): Uint8Array => t.node.memory.slice(at, at + length)
/** Flushed completions of the work requests `first` to `last`, as `Script.completions` returns them. */
export const flushed = (first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, i) => `${first + i} FLUSH`)

/** The QP must be in ERR. */
export const assertRefused = (t: Script, sent: string[], completions: string[], events: string[] = []): void => {
  assert.deepEqual(t.sent(), sent)
  assert.deepEqual(t.completions(), completions)
  assert.equal(t.state, ERR)
  assert.deepEqual(t.node.events, events)
}
