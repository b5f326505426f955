/*
 * CREATE_PSV: a protection signature value, the first value of block signatures
 * (src/drivers/mlx5/signature/signature.ts). It is of a protection domain; work requests set it.
 */
import { addParent } from '../../../core/objects/lifetime.ts'
import { chargeMemory, releaseMemory } from '../../../core/objects/limits.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { stateOf } from '../state.ts'
import { creation } from './handler.ts'
import { findPd } from './lookup.ts'

/** What the device has for one. */
const PSV_BYTES = 128

export const psvCommands = [
  creation(Commands.CREATE_PSV, ({ call, input }, object) => {
    const pd = findPd(call, input.pd)
    const { signatures } = stateOf(call)
    const { account } = call.context
    chargeMemory(account, 'CREATE_PSV', PSV_BYTES)
    const number = signatures.create(pd.id)
    addParent(object, pd)
    return {
      out: { psv0_index: number },
      end() {
        signatures.psvs.delete(number)
        releaseMemory(account, PSV_BYTES)
      },
    }
  }),
]
