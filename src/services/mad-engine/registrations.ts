/*
 * Finds the agent of a datagram that is not a response. Agents register for methods of a class and version, and of an
 * OUI if the class has OUIs. A method has at most one agent (IBA 13.4.4; Linux's ib_register_mad_agent).
 */
import { isVendorClass, MAD_METHODS } from '../../spec/wire/management.ts'
import type { MadFields } from '../../transport/wire/mad/management.ts'

/** The requests that an agent receives. */
export interface MadClaim {
  readonly mgmtClass: number
  readonly classVersion: number
  /** 0 for a class without an OUI. */
  readonly oui: number
  /** Methods without the response bit. */
  readonly methods: readonly number[]
}

const keyOf = (claim: Omit<MadClaim, 'methods'>, method: number): string => {
  const { mgmtClass, classVersion, oui } = claim
  return `${mgmtClass}.${classVersion}.${isVendorClass(mgmtClass) ? oui : 0}.${method}`
}

export class Registrations<A> {
  readonly #agents = new Map<string, A>()

  /** Registers an agent. Returns false, and registers nothing, if another agent has one of the methods. */
  add(claim: MadClaim, agent: A): boolean {
    const keys = claim.methods.map(method => keyOf(claim, method))
    if (keys.some(key => this.#agents.has(key))) return false
    for (const key of keys) this.#agents.set(key, agent)
    return true
  }

  remove(claim: MadClaim, agent: A): void {
    for (const method of claim.methods) {
      const key = keyOf(claim, method)
      if (this.#agents.get(key) === agent) this.#agents.delete(key)
    }
  }

  /** The agent of a datagram with these fields, which is not a response. */
  find(fields: MadFields): A | undefined {
    return this.#agents.get(keyOf(fields, fields.method))
  }
}

/** The methods in a mask of 128 bits. Bit 0 is the lowest bit of the first byte. */
export const methodsOf = (mask: Uint8Array): number[] =>
  Array.from({ length: MAD_METHODS }, (_, method) => method).filter(
    method => ((mask[method >> 3] ?? 0) & (1 << (method & 7))) !== 0,
  )
