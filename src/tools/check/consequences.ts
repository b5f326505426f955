/*
 * What follows from a mistake that was found: of a program that it has ended, or that has ended because of it.
 */

/** Processes that are kept, the latest. */
const MAX_PROCESSES = 1024

const keep = (map: Map<number, number>, pid: number, number: number): void => {
  const [oldest] = map.keys()
  if (oldest !== undefined && map.size === MAX_PROCESSES) map.delete(oldest)
  map.set(pid, number)
}

export class Consequences {
  /** By pid: the number of the finding that explains why a signal has ended the process. */
  readonly #deaths = new Map<number, number>()
  /** By pid: the number of the last mistake, unless the process has made or changed an object since. */
  readonly #mistakes = new Map<number, number>()

  /** This finding explains why a signal has ended the process. */
  explainsDeath(pid: number | undefined, number: number | undefined): void {
    if (pid !== undefined && number !== undefined) keep(this.#deaths, pid, number)
  }

  /** The finding that explains the death of one of these processes. */
  deathOf(pids: readonly (number | undefined)[]): number | undefined {
    return pids.map(pid => this.#deaths.get(pid ?? -1)).find(number => number !== undefined)
  }

  /** If the process ends now, this finding is why. */
  givesUp(pid: number | undefined, number: number | undefined): void {
    if (pid !== undefined && number !== undefined) keep(this.#mistakes, pid, number)
  }

  goesOn(pid: number | undefined): void {
    this.#mistakes.delete(pid ?? -1)
  }

  /** The finding because of which the process ends; undefined: it has gone on since, or none is known. */
  mistakeOf(pid: number | undefined): number | undefined {
    return this.#mistakes.get(pid ?? -1)
  }
}
