/*
 * Core's own class `interface` (R13): a device describes itself from its dispatch table, so description and calls
 * agree.
 */
import { Interface, REASON_BYTES } from '../../spec/classes/device/interface.ts'
import { encodeReason } from '../../spec/reason.ts'
import { type Description, describe } from '../../uapi/object/description.ts'
import { driverClass } from '../devices/driver.ts'
import { type ChainOutcome, runChain } from '../dispatch/chain.ts'
import type { DispatchTable } from '../model.ts'

/** Cached: dispatch tables do not change, and devices share them. */
const descriptions = new WeakMap<DispatchTable, Description>()

/** A caller in this process may change its copy. */
const copyOf = (description: Description): Description => {
  const copies = Object.entries(description).map(([name, rows]) => [
    name,
    rows instanceof Uint8Array ? rows.slice() : rows.map(row => ({ ...row })),
  ])
  return Object.fromEntries(copies) as Description
}

const chainAnswer = ({ results, done, error, reason }: ChainOutcome) => ({
  results,
  done,
  error,
  ...(reason !== undefined && { reason: encodeReason(reason, REASON_BYTES) }),
})

export const interfaceClass = driverClass(Interface, {
  query({ device: { sharedTable } }) {
    let description = descriptions.get(sharedTable)
    if (description === undefined) {
      const classes = [...sharedTable.byName.values()].map(table => table.class)
      description = describe(classes.sort((a, b) => a.id - b.id))
      descriptions.set(sharedTable, description)
    }
    return copyOf(description)
  },

  chain(call, _object, { entries, onError }) {
    const outcome = runChain(call, entries, onError)
    return outcome instanceof Promise ? outcome.then(chainAnswer) : chainAnswer(outcome)
  },
})
