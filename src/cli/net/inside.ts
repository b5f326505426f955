/*
 * Commands that ask the daemons of a net made without root: only processes in the net's user namespace reach them.
 */
import { userdmaScript } from '../paths.ts'
import { endAs, runProgram } from '../program/program.ts'
import type { NetFolder, NetState } from './state.ts'
import { NetSystem } from './system.ts'

/**
 * Runs `userdma` in the net's user namespace with these arguments, and ends as it. False if this process is there
 * already, or the namespace has ended.
 */
export const ranInside = async (folder: NetFolder, state: NetState, args: readonly string[]): Promise<boolean> => {
  const system = new NetSystem(folder, state)
  const [enter, ...words] = system.canEnter() ? system.enter : []
  if (enter === undefined) return false
  endAs(await runProgram(enter, [...words, process.execPath, userdmaScript, ...args, '--at', folder.path], process.env))
  return true
}
