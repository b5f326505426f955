/*
 * Reads the file to which programs append their stacks when they crash, or hang and get SIGQUIT
 * (shim/check/crashes.c).
 */
import { readFileSync, rmSync } from 'node:fs'
import { constants as os } from 'node:os'
import type { Stack } from '../../spec/check/finding.ts'

export interface CrashRecord {
  readonly pid: number
  readonly command: string
  readonly signal: string
  /** False: SIGQUIT, which tells where the thread is. */
  readonly isCrash: boolean
  readonly stack: Stack
}

const signalNames = new Map<number, string>(Object.entries(os.signals).map(([name, number]) => [number, name]))

const parseCrashes = (text: string): readonly CrashRecord[] =>
  text
    .split('\n\n')
    .map(record => record.split('\n').filter(Boolean))
    .flatMap(([head = '', ...stack]) => {
      const [, number, pid, command = ''] = /^(\d+) (\d+) (.*)$/.exec(head) ?? []
      if (number === undefined) return []
      const signal = signalNames.get(Number(number)) ?? `signal ${number}`
      return [{ pid: Number(pid), command, signal, isCrash: signal !== 'SIGQUIT', stack }]
    })

/** The records of the file, which is emptied by removing it. None if there is no file. */
export const takeCrashes = (file: string): readonly CrashRecord[] => {
  try {
    return parseCrashes(readFileSync(file, 'utf8'))
  } catch {
    return []
  } finally {
    rmSync(file, { force: true })
  }
}
