/*
 * Firmware commands that ask about the device (spec/drivers/mlx5-firmware/device.ts). A capability is told only if the
 * device has what it promises.
 */
import { CapabilityModifier, Commands, capabilityStructs } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { encodeFields } from '../../../uapi/firmware/fields.ts'
import { capabilities } from './capabilities.ts'
import { generalCommand, refuseCommand } from './handler.ts'

export const deviceCommands = [
  generalCommand(Commands.QUERY_HCA_CAP, ({ call, opMod }) => {
    const kind = opMod >> 1
    const struct = capabilityStructs[kind]
    if (struct === undefined)
      return refuseCommand(
        'unsupportedModifier',
        `op_mod 0x${opMod.toString(16)}: capabilities of kind 0x${kind.toString(16)}; there are those of ${Object.values(
          CapabilityModifier,
        )
          .map(one => `0x${one.toString(16)}`)
          .join(', ')}`,
      )
    return { capability: encodeFields(struct, capabilities(call.device)[kind] ?? {}) }
  }),
]
