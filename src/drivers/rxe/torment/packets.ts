/*
 * Kind `packet` of torment (spec/torment.ts): a fault layer (phy/faults/) on the port of a device whose rules only do
 * what a reliable connection repairs. Services without acknowledgements are left alone: their messages would be lost,
 * which is allowed too, but programs that tolerate it are rare.
 */
import { type FaultPort, withFaults } from '../../../phy/faults/layer.ts'
import { parseFaults } from '../../../phy/faults/rules.ts'
import type { Port } from '../../../phy/port.ts'
import { opcodeByNumber } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthOpcode } from '../../../wire/bth.ts'
import type { Decisions } from './decisions.ts'

/** Shares of the packets that are received twice, and that later ones overtake, if the kind takes every opportunity. */
const TWICE = 0.1
const OVERTAKEN = 0.05

/**
 * The port with the layer; undefined if the seed does not use the kind. `setFaults([])` ends it; a burst of packets may
 * have some decisions more.
 */
export const withPacketTorment = (port: Port, device: string, decisions: Decisions): FaultPort | undefined => {
  const share = decisions.share('packet')
  if (share === 0 || decisions.isOver) return undefined
  const rules = parseFaults(
    `opcode=RC_*+XRC_*,dup=${TWICE * share},reorder=${OVERTAKEN * share},seed=${decisions.seed}`,
  )
  const layer = withFaults(port, device, rules)
  layer.tap = ({ outcome, direction, arena: { view }, offset }) => {
    if (outcome === 'passed' || direction === 'sent') return
    const name = opcodeByNumber[bthOpcode(view, offset)]?.name
    decisions.note('packet', device, () => `${outcome}: ${name} to QP 0x${bthDestQp(view, offset).toString(16)}`)
  }
  return layer
}
