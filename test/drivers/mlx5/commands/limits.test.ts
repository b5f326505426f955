/*
 * QUERY_HCA_CAP tells the limits that `--torment` has decided, as verbs do.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { mlx5Driver } from '../../../../src/drivers/mlx5/device.ts'
import { createTorment } from '../../../../src/drivers/soft/torment/torment.ts'
import { CapabilityModifier, Commands } from '../../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { cmdHcaCap } from '../../../../src/spec/drivers/mlx5-firmware/device.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { decodeFields } from '../../../../src/uapi/firmware/fields.ts'
import { driverMachine } from '../../machine.ts'
import { seedWith } from '../../torment-seeds.ts'
import { withCommands } from '../firmware.ts'
import { program } from '../machine.ts'

const log = (limit: number): number => Math.floor(Math.log2(limit))

it('a program under torment reads the same limits by commands and by verbs', () => {
  const torment = createTorment(
    { seed: seedWith('adapter', 0.5), maxDecisions: Number.POSITIVE_INFINITY },
    plainArena(4096),
  )
  const m = driverMachine(mlx5Driver, ['mlx5_0'], '', { torment })
  const { attributes } = m.devices[0]!.device
  const own = driverMachine(mlx5Driver, ['mlx5_0'], '').devices[0]!.device.attributes
  const told = (['maxQpWr', 'maxCqe', 'maxSrqWr', 'maxQpRdAtom'] as const).filter(
    name => attributes[name] !== own[name],
  )
  assert.ok(told.length > 0, 'the seed changes no limit')
  const { capability } = withCommands(program(m, 0)).general(
    Commands.QUERY_HCA_CAP,
    {},
    { opMod: CapabilityModifier.GENERAL << 1 },
  )
  const caps = decodeFields(cmdHcaCap, capability)
  assert.deepEqual(
    [caps.log_max_qp_sz, caps.log_max_cq_sz, caps.log_max_srq_sz, caps.log_max_ra_req_qp, caps.log_max_ra_res_qp],
    [
      log(attributes.maxQpWr),
      log(attributes.maxCqe + 1),
      log(attributes.maxSrqWr + 1),
      log(attributes.maxQpInitRdAtom),
      log(attributes.maxQpRdAtom),
    ],
  )
})
