/*
 * The limits of this process (getrlimit(2)) that may end a program at its start, for messages: daemons and programs
 * inherit them.
 */
import { readFileSync } from 'node:fs'
import { LowLimits } from './low-limits.ts'

/** Limits by their names in /proc/self/limits; `option`: of the shell's ulimit, `unit`: of its value in the file. */
const LIMITS = [
  { name: 'Max address space', option: '-v', unit: 1024, enough: LowLimits.addressSpace },
  { name: 'Max data size', option: '-d', unit: 1024, enough: LowLimits.data },
  { name: 'Max stack size', option: '-s', unit: 1024, enough: LowLimits.stack },
  { name: 'Max file size', option: '-f', unit: 1024, enough: LowLimits.fileSize },
  { name: 'Max processes', option: '-u', unit: 1, enough: LowLimits.processes },
  { name: 'Max open files', option: '-n', unit: 1, enough: LowLimits.openFiles },
  { name: 'Max cpu time', option: '-t', unit: 1, enough: LowLimits.cpuTime },
] as const

/**
 * The soft limit of this process with this name in /proc/self/limits, in the file's unit; Infinity: none. Undefined if
 * the file does not exist or lacks the name.
 */
export const limitOf = (name: string): number | undefined => {
  let limits = ''
  try {
    limits = readFileSync('/proc/self/limits', 'latin1')
  } catch {
    // /proc is not mounted.
  }
  const value = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1]
  return value === 'unlimited' ? Number.POSITIVE_INFINITY : value === undefined ? undefined : Number(value)
}

/** The limits that may be too low, to be appended to a message; empty: none. */
export const lowLimits = (): string => {
  const low = LIMITS.flatMap(({ name, option, unit, enough }) => {
    const value = limitOf(name)
    return value !== undefined && value < enough ? [`\`ulimit ${option}\` is ${Math.floor(value / unit)}`] : []
  })
  return low.length === 0 ? '' : `; a limit of this process may be too low: ${low.join(', ')}`
}
