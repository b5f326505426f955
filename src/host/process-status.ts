/*
 * What /proc tells everybody about a process: its name, its capabilities.
 */
import { readFileSync } from 'node:fs'

/** The process's command name (15 bytes at most, as ps shows it); undefined if it is gone. */
export const commandName = (pid: number): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd()
  } catch {
    return undefined
  }
}

/** Whether a process has a capability (its number, CAP_…) now, in its own user namespace; false if it has ended. */
export const hasCapability = (pid: number, capability: number): boolean => {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return effective !== undefined && ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n
  } catch {
    return false
  }
}
