/*
 * Counters of ports (Linux: nldev_stat_get, nldev_stat_set). The soft device has the counters of `hw_counters`; none is
 * optional. There are no counters per queue pair. As with Linux's rxe, the mode of such counters can be set without
 * effect.
 */

import { countersOf } from '../../assembly/counters.ts'
import type { Device } from '../../core/model.ts'
import { callError } from '../../spec/errno.ts'
import { CounterMask, CounterMode, NldevAttributes } from '../../spec/linux/nldev.ts'
import type { Attributes, Entries, Entry } from '../../uapi/nldev/attributes.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import {
  type AnswerList,
  type Answers,
  deviceOf,
  handleOf,
  hwCounters,
  type Managed,
  type ParsedRequest,
  portOf,
  required,
  requiredPort,
} from './answers.ts'
import { mrStatistic, mrStatistics } from './resources.ts'

const { RES_QP, RES_MR } = NldevAttributes

/** By device: bits of CounterMask that programs have set for automatic counters; absent: no automatic counters. */
const autoMasks = new WeakMap<Device, number>()

const countersOfPort = ({ device, network }: DaemonDevice): readonly (readonly [string, number])[] => {
  if (network?.counters === undefined) throw callError.EINVAL`device ${device.name} has no counters`
  return Object.entries(countersOf(network).hw_counters)
}

/** The device of a request, and the first attributes of its answer: device and port. Throws CallError. */
const deviceAndHead = (daemon: Managed, parsed: ParsedRequest) => {
  const found = deviceOf(daemon, parsed)
  const port = requiredPort(found, parsed)
  const head: Entries = [...handleOf(found), ['PORT_INDEX', port]]
  return { found, head }
}

const counterValues = (daemon: Managed, parsed: ParsedRequest): Entries => {
  const { found, head } = deviceAndHead(daemon, parsed)
  return [...head, hwCounters(countersOfPort(found).map(([name, value]) => [name, BigInt(value)]))]
}

const counterNames = (daemon: Managed, parsed: ParsedRequest): Entries => {
  const { found, head } = deviceAndHead(daemon, parsed)
  const flagged = countersOfPort(found).map(
    ([name], index): Entry => [
      'STAT_HWCOUNTER_ENTRY',
      {
        flagged: [
          ['STAT_HWCOUNTER_ENTRY_NAME', name],
          ['STAT_HWCOUNTER_INDEX', index],
        ],
      },
    ],
  )
  return [...head, ['STAT_HWCOUNTERS', { flagged }]]
}

const refuseCounter = (counter: number): never => {
  throw callError.ENOENT`there is no counter ${counter}`
}

const qpCounterMode = (daemon: Managed, parsed: ParsedRequest): Entries => {
  const { attributes } = parsed
  const { found, head } = deviceAndHead(daemon, parsed)
  if (attributes.STAT_COUNTER_ID !== undefined) refuseCounter(attributes.STAT_COUNTER_ID)
  required(attributes, 'STAT_MODE')
  const mask = autoMasks.get(found.device)
  return mask === undefined
    ? [...head, ['STAT_MODE', CounterMode.NONE]]
    : [...head, ['STAT_MODE', CounterMode.AUTO], ['STAT_AUTO_MODE_MASK', mask]]
}

const refuseKind = (kind: number): never => {
  throw callError.EINVAL`attribute STAT_RES: ${kind} is not ${RES_QP.number} (queue pairs) or ${RES_MR.number} (memory regions)`
}

/** As on Linux, counters are bound to queue pairs only. */
const requireQpKind = (attributes: Attributes): void => {
  const kind = required(attributes, 'STAT_RES')
  if (kind !== RES_QP.number) throw callError.EINVAL`attribute STAT_RES: ${kind} is not ${RES_QP.number} (queue pairs)`
}

const getStatistics = (daemon: Managed, parsed: ParsedRequest) => {
  const { STAT_RES: kind } = parsed.attributes
  if (kind === undefined) return counterValues(daemon, parsed)
  if (kind === RES_QP.number) return qpCounterMode(daemon, parsed)
  return kind === RES_MR.number ? mrStatistic(daemon, parsed) : refuseKind(kind)
}

function* emptyList(): Generator<Uint8Array> {}

const listStatistics: AnswerList = (daemon, parsed) => {
  const kind = required(parsed.attributes, 'STAT_RES')
  if (kind === RES_MR.number) return mrStatistics(daemon, parsed)
  portOf(deviceOf(daemon, parsed), parsed)
  return kind === RES_QP.number ? emptyList() : refuseKind(kind)
}

const requireQp = ({ device, network }: DaemonDevice, qpn: number): void => {
  if (network?.queues?.qpOfNumber(qpn) === undefined)
    throw callError.ENOENT`device ${device.name} has no queue pair ${qpn}`
}

/** Sets the mode for new queue pairs. Binding a counter to an existing queue pair always fails. */
const setMode = (found: DaemonDevice, { attributes }: ParsedRequest): void => {
  requireQpKind(attributes)
  if (attributes.STAT_MODE === CounterMode.AUTO) {
    const mask = attributes.STAT_AUTO_MODE_MASK ?? 0
    const unknown = (mask & ~(CounterMask.QP_TYPE | CounterMask.PID)) >>> 0
    if (unknown !== 0) throw callError.EINVAL`attribute STAT_AUTO_MODE_MASK has unknown bits 0x${unknown.toString(16)}`
    if (mask === 0) autoMasks.delete(found.device)
    else autoMasks.set(found.device, mask)
    return
  }
  const qpn = required(attributes, 'RES_LQPN')
  if (autoMasks.has(found.device))
    throw callError.EINVAL`counters of device ${found.device.name} are bound automatically; set auto off first`
  requireQp(found, qpn)
  if (attributes.STAT_COUNTER_ID !== undefined) refuseCounter(attributes.STAT_COUNTER_ID)
  throw callError.ENOMEM`the driver has no counters per queue pair`
}

const setStatistics = (daemon: Managed, parsed: ParsedRequest): Entries => {
  const { found, head } = deviceAndHead(daemon, parsed)
  const { STAT_MODE: mode, STAT_HWCOUNTERS: counters } = parsed.attributes
  if (mode === undefined && counters === undefined) throw callError.EINVAL`STAT_MODE or STAT_HWCOUNTERS is required`
  if (mode !== undefined) setMode(found, parsed)
  if (counters !== undefined && counters.length > 0)
    throw callError.EINVAL`attribute STAT_HWCOUNTERS: there are no optional counters; all are always enabled`
  return head
}

const refuseUnbind = (daemon: Managed, parsed: ParsedRequest): never => {
  const { attributes } = parsed
  const { found } = deviceAndHead(daemon, parsed)
  requireQpKind(attributes)
  const counter = required(attributes, 'STAT_COUNTER_ID')
  const qpn = required(attributes, 'RES_LQPN')
  requireQp(found, qpn)
  throw callError.EINVAL`queue pair ${qpn} is not bound to counter ${counter}: there are no counters per queue pair`
}

export const statisticAnswers: Answers = {
  STAT_GET: { one: getStatistics, list: listStatistics },
  STAT_SET: { one: setStatistics },
  STAT_DEL: { one: refuseUnbind },
  STAT_GET_STATUS: { one: counterNames },
}
