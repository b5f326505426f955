/*
 * The handlers of all firmware commands that the device has, by opcode.
 */
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { deviceCommands } from './device-queries.ts'
import { domainCommands } from './domains.ts'
import { flowCommands } from './flows.ts'
import { generalObjectCommands } from './general-objects.ts'
import { type CommandHandlers, generalCommand } from './handler.ts'
import { mkeyCommands } from './mkeys.ts'
import { psvCommands } from './psvs.ts'
import { cqCommands } from './queues/cq.ts'
import { dctCommands } from './queues/dct.ts'
import { qpCommands } from './queues/qp.ts'
import { receiveCommands } from './queues/receives.ts'
import { transitionCommands } from './queues/transitions.ts'

export const handlers: CommandHandlers = new Map([
  generalCommand(Commands.NOP, () => ({})),
  ...deviceCommands,
  ...domainCommands,
  ...mkeyCommands,
  ...psvCommands,
  ...flowCommands,
  ...cqCommands,
  ...qpCommands,
  ...transitionCommands,
  ...receiveCommands,
  ...dctCommands,
  ...generalObjectCommands,
])
