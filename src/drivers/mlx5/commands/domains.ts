/*
 * Firmware commands for domains: protection domains and XRC domains, which are objects of the model, and transport
 * domains, which here only have a number.
 */
import { answered } from '../../../core/devices/driver.ts'
import { createOwned } from '../../../core/dispatch/owned.ts'
import { Pd } from '../../../spec/classes/pd.ts'
import { Xrcd } from '../../../spec/classes/xrcd.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { giveNumber, takeNumber } from '../numbers.ts'
import { creation } from './handler.ts'

export const domainCommands = [
  creation(Commands.ALLOC_PD, ({ call }, object) =>
    answered(createOwned(call, object, Pd, {}), ({ object: target, out }) => ({
      out: { pd: (out as { number: number }).number },
      target,
    })),
  ),
  creation(Commands.ALLOC_XRCD, ({ call }, object) =>
    answered(createOwned(call, object, Xrcd, { flags: 0 }), ({ object: target }) => {
      const xrcd = giveNumber(call.context, 'xrcd', target)
      return { out: { xrcd }, target, end: ({ context }) => takeNumber(context, 'xrcd', xrcd) }
    }),
  ),
  creation(Commands.ALLOC_TRANSPORT_DOMAIN, ({ call }, object) => {
    const number = giveNumber(call.context, 'transportDomain', object)
    return {
      out: { transport_domain: number },
      end: ({ context }) => takeNumber(context, 'transportDomain', number),
    }
  }),
]
