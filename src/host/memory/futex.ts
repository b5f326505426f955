/*
 * Waits for other processes by a word of shared memory: futex(2).
 */
import { libcFunctions } from '../native.ts'
import { type Arena, mapArena } from './mapping.ts'

const sys = libcFunctions({
  syscall: 'int64_t syscall(int64_t number, int64_t word, int64_t operation, int64_t value, int64_t limit)',
})

const FUTEX = process.arch === 'arm64' ? 98 : 202
const FUTEX_WAIT = 0
const FUTEX_WAKE = 1
let limit: Arena | undefined

/** Wakes all processes that wait for the word at `address`. */
export const wakeWord = (address: number): void => {
  sys().syscall(FUTEX, address, FUTEX_WAKE, 0x7fff_ffff, 0)
}

/** Blocks while the word at `address` is `value`, at most `milliseconds`, or until a signal. */
export const waitWord = (address: number, value: number, milliseconds: number): void => {
  limit ??= mapArena(16)
  limit.view.setBigInt64(0, BigInt(Math.floor(milliseconds / 1000)), true)
  limit.view.setBigInt64(8, BigInt(Math.round((milliseconds % 1000) * 1e6)), true)
  sys().syscall(FUTEX, address, FUTEX_WAIT, value, limit.address)
}
