/* What each value of a failure means, with how sure that is. */

import { cmEventMeanings, deviceEventMeanings } from '../../spec/check/event-meanings.ts'
import { type StatusName, statuses } from '../../spec/check/statuses.ts'
import { rejectText } from '../../spec/wire/mad.ts'
import type { Failure } from './analysis.ts'
import type { Certainty } from './meanings/certainty.ts'
import { errnoLabel, errnoMeaning, negatedReason, nvmeReject } from './meanings/errnos.ts'
import { commandStatus, commandSyndrome, healthSyndrome, irdmaEvent } from './meanings/firmware.ts'
import { opcodeNamed, statusNumber } from './meanings/statuses.ts'
import { familyName, vendorRow } from './meanings/vendor-errors.ts'

export interface Value {
  /** `status 12`, as the log has it. */
  readonly name: string
  readonly text: string
  readonly certainty: Certainty
  readonly source: string
}

const hex = (number: number): string => `0x${number.toString(16)}`
const IBA = 'InfiniBand, and rdma-core'

const statusValue = (status: StatusName): Value => ({
  name: `status ${statusNumber(status)}, ${status}`,
  text: statuses[status],
  certainty: 'sure',
  source: IBA,
})

const vendorValue = ({ vendor, fields, status, family, shape }: Failure): Value | undefined => {
  if (vendor === undefined) return undefined
  const printed = fields.vendor!
  const same = /^0x/i.test(printed) || String(vendor) !== printed ? '' : vendor > 9 ? ` = ${hex(vendor)}` : ''
  const name = `vendor error ${/^0x/i.test(printed) || shape.base === 10 ? printed : `0x${printed}`}${shape.base === 10 && !/^0x/i.test(printed) ? same : ''}`
  if (family === 'none') return { name, text: 'this adapter has no vendor errors', certainty: 'sure', source: IBA }
  // Where the adapter is not named: only if the table of ConnectX, which most are, fits the status.
  const row = vendorRow(family ?? 'mlx5', vendor, status)
  const fits =
    row !== undefined && (row.statuses === undefined || status === undefined || row.statuses.includes(status))
  if (row === undefined || !fits)
    return {
      name,
      text:
        vendor === 0
          ? 'none'
          : `no public meaning${family === undefined ? ' that fits, and the log does not say which adapter it is' : ` for ${familyName(family)}`}; the status says more`,
      certainty: 'none',
      source: '',
    }
  if (family === undefined)
    return {
      name,
      text: `if the adapter is ${familyName('mlx5')}: ${row.text}`,
      certainty: row.certainty === 'sure' ? 'likely' : row.certainty,
      source: row.source,
    }
  return { name, text: `${familyName(family)}: ${row.text}`, certainty: row.certainty, source: row.source }
}

/** All values of a failure that mean something. */
export const valuesOf = (failure: Failure): readonly Value[] => {
  const { kind, status, fields, errno, event, rejection, shape } = failure
  const values: Value[] = []
  const add = (name: string, meaning: { text: string; certainty: Certainty; source: string } | undefined): void => {
    if (meaning !== undefined) values.push({ name, ...meaning })
  }
  if (status !== undefined) values.push(statusValue(status))
  const vendor = vendorValue(failure)
  if (vendor !== undefined) values.push(vendor)
  if (kind === 'completion' && fields.opcode !== undefined && status !== undefined) {
    const known = opcodeNamed(fields.opcode)
    add(`opcode ${fields.opcode}${fields.length === undefined ? '' : `, length ${fields.length}`}`, {
      text: `not valid: of a failed completion only wr_id, status, qp_num and vendor_err are${known === undefined ? '; this is what the memory had before' : ''}`,
      certainty: 'sure',
      source: 'ibv_poll_cq(3)',
    })
  }
  if (fields.hwSyndrome !== undefined && !/^0\/0$/.test(fields.hwSyndrome))
    add(`hw_synd ${fields.hwSyndrome}`, {
      text: 'no public meaning; equal numbers have an equal cause',
      certainty: 'none',
      source: '',
    })
  if (kind === 'command') {
    if (fields.commandStatus !== undefined && failure.family === 'mlx5')
      add(`command status 0x${fields.commandStatus}`, commandStatus(Number.parseInt(fields.commandStatus, 16)))
    if (fields.syndrome !== undefined)
      add(
        `syndrome 0x${fields.syndrome} of ${fields.command ?? fields.call ?? 'the command'}`,
        commandSyndrome(fields.command ?? '', Number.parseInt(fields.syndrome, 16)),
      )
  }
  if (kind === 'health' && fields.syndrome !== undefined)
    add(`health syndrome 0x${fields.syndrome}`, healthSyndrome(Number.parseInt(fields.syndrome, 16)))
  if (fields.event === 'irdma' && fields.value !== undefined) {
    const id = Number.parseInt(fields.value, 16)
    add(
      `irdma event ${hex(id)}`,
      irdmaEvent(id) ?? { text: 'no public meaning beyond its name in the driver', certainty: 'none', source: '' },
    )
  } else if (event !== undefined && event in deviceEventMeanings)
    add(`event ${event}`, {
      text: deviceEventMeanings[event as keyof typeof deviceEventMeanings].meaning,
      certainty: 'sure',
      source: IBA,
    })
  else if (event !== undefined && event in cmEventMeanings)
    add(`event ${event}`, {
      text: cmEventMeanings[event as keyof typeof cmEventMeanings].meaning,
      certainty: 'sure',
      source: 'rdma_get_cm_event(3)',
    })
  if (rejection !== undefined && kind === 'refused') {
    if (event === 'REJECTED')
      add(`status ${fields.rejection}`, {
        text: rejectText(rejection),
        certainty: 'sure',
        source: 'InfiniBand 12.6.7.2',
      })
  }
  if (errno !== undefined && kind === 'refused' && fields.rejection !== undefined)
    add(`status ${fields.rejection}`, {
      text: `${errnoLabel(errno)}${event === 'REJECTED' ? ', an errno, as of iWARP: not a reason of InfiniBand' : ''}`,
      certainty: 'sure',
      source: 'Linux 6.1 drivers/infiniband/core/cma.c',
    })
  if (shape.id === 'nvme-rejected' && fields.value !== undefined) {
    const text = nvmeReject[Number(fields.value)]
    if (text !== undefined)
      add(`nvme status ${fields.value}`, { text, certainty: 'sure', source: 'Linux include/linux/nvme-rdma.h' })
  }
  if (fields.negated !== undefined)
    add(`prov_err ${fields.negated}`, {
      text: negatedReason(Number(fields.negated)),
      certainty: 'sure',
      source: 'libfabric prov/verbs/src/verbs_eq.c',
    })
  if (errno !== undefined && (kind === 'call' || kind === 'unreachable' || kind === 'command')) {
    const call = kind === 'command' ? 'devx' : (fields.call ?? '')
    const meaning = errnoMeaning(errno, call, fields.state)
    if (meaning !== undefined || kind !== 'command')
      add(
        `${errnoLabel(errno)}${fields.call === undefined ? '' : ` of ${fields.call}`}${fields.state === undefined ? '' : ` to ${fields.state}`}`,
        meaning ?? { text: 'the log does not say more', certainty: 'none', source: '' },
      )
  }
  return values
}
