/*
 * Shared by packet scripts for the responder: a script with receive buffers, memory contents, a refusal.
 */
import assert from 'node:assert/strict'
import { startScript } from './script.ts'

export const MTU = 1024
export const ERR = 6

/** A script with eight receive buffers of 4096 bytes and a word of value 5 at 0x8000. */
export const start = (...args: Parameters<typeof startScript>) => {
  const t = startScript(...args)
  t.receives(8, 4096)
  t.node.words.setBigUint64(0x8000, 5n, true)
  return t
}
export type Script = ReturnType<typeof start>
export const word = (t: Script): bigint => t.node.words.getBigUint64(0x8000, true)
export const data = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 7 + 1)
export const inMemory = (t: Script, at: number, length: number): Uint8Array => t.node.memory.slice(at, at + length)
export const flushed = (first: number, last: number): string[] =>
  Array.from({ length: last - first + 1 }, (_, i) => `${first + i} FLUSH`)

/** The QP is in error and every receive WQE is flushed except those in `completions`. */
export const assertRefused = (t: Script, sent: string[], completions: string[], events: string[] = []): void => {
  assert.deepEqual(t.sent(), sent)
  assert.deepEqual(t.completions(), completions)
  assert.equal(t.state, ERR)
  assert.deepEqual(t.node.events, events)
}
