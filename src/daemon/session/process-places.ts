/*
 * The places of processes in the tree of forks, for identities of torment (spec/check/torment.ts): the commands of the
 * ancestors that run under userdma too, and the process's own. Of equal ones among the children of a process, the
 * second has `-2`. Pids and the order of first calls do not do: they differ from run to run.
 */
import { childrenOf, commandName, hasVariable, parentOf, startOf } from '../../host/process-status.ts'
import { SessionEnv } from '../../spec/session.ts'

/** An identity has letters, digits, `_`, `.` and `-` only. */
const word = (command: string): string => command.replace(/\W/g, '_') || '_'

const MAX_DEPTH = 16

export class ProcessPlaces {
  /** By pid and start. */
  readonly #places = new Map<string, string>()
  readonly #taken = new Set<string>()

  of(pid: number, depth = 0): string {
    const key = `${pid} ${startOf(pid)}`
    let place = this.#places.get(key)
    if (place === undefined) {
      place = this.#find(pid, depth)
      this.#places.set(key, place)
    }
    return place
  }

  #find(pid: number, depth: number): string {
    const parent = parentOf(pid)
    const isBelow = depth < MAX_DEPTH && parent > 1 && hasVariable(parent, SessionEnv.socket)
    const own = word(commandName(pid) ?? '')
    const name = isBelow ? `${this.of(parent, depth + 1)}.${own}` : own
    const start = startOf(pid)
    const isOlder = (sibling: number): boolean => {
      const other = startOf(sibling)
      return (
        other > 0 && (other < start || (other === start && sibling < pid)) && word(commandName(sibling) ?? '') === own
      )
    }
    // those that have not been asked for yet
    const older = isBelow ? childrenOf(parent).filter(sibling => sibling !== pid && isOlder(sibling)) : []
    let number = 1 + older.filter(sibling => !this.#places.has(`${sibling} ${startOf(sibling)}`)).length
    const numbered = (): string => (number === 1 ? name : `${name}-${number}`)
    while (this.#taken.has(numbered())) number++
    this.#taken.add(numbered())
    return numbered()
  }
}
