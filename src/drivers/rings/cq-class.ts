/*
 * Class `cq` of devices with rings: completion queues as rings that the program maps (R19, R22). Core arms them and
 * counts completion events.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { affiliate, shareArming } from '../../core/events/events.ts'
import { mmapInfo } from '../../core/memory/rings.ts'
import type { CallContext } from '../../core/model.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { RxeAttributes } from '../../spec/drivers/rxe.ts'
import { CqFlags, CqKind } from '../../spec/enums.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { coded, the } from '../../spec/reason.ts'
import { afterCatchUp, describeCq } from '../soft/classes/cq-query.ts'
import { stateOf } from '../soft/state.ts'
import { type CqRing, createCqRing, type RingCqObject, resizeCqRing } from './completion-ring.ts'
import { isInProcess, ringMemoryOf } from './context.ts'

const { ENTRIES, COUNTING } = CqKind.values
const { IGNORE_OVERRUN } = CqFlags.values

const requireCqe = (call: CallContext, method: string, cqe: number): void => {
  const { maxCqe } = stateOf(call).limits
  if (cqe > maxCqe)
    throw new CallError(
      'EINVAL',
      coded(
        'above-device-limit',
      )`${the.method(`cq.${method}`)}: ${the.attribute('cqe')}: ${cqe} is above ${maxCqe}, the device's max_cqe`,
    )
}

/** `--torment` may limit a CQ to the requested entries, although its ring has more slots. */
const limitEntries = (call: CallContext, cq: RingCqObject, cqe: number): void => {
  const { torment } = stateOf(call)
  const { state } = cq
  if (torment !== undefined && state.kind !== COUNTING)
    state.ring = { ...state.ring, capacity: torment.entriesOf(cq, cqe, state.ring.capacity) }
}

const caughtUp = <T>(call: CallContext, answer: () => T): T | Promise<T> =>
  afterCatchUp(call, isInProcess(call.context), answer)

export const cqClass = driverClass<typeof Cq, CqRing, typeof RxeAttributes.cq>(
  Cq,
  {
    create(call, object, { cqe, userHandle, channel, compVector, flags = 0, asyncFd, kind = ENTRIES }) {
      if ((flags & ~IGNORE_OVERRUN) !== 0)
        throw callError.EOPNOTSUPP`${the.method('cq.create')}: ${the.attribute('flags')}: 0x${flags.toString(16)}: the device knows only IGNORE_OVERRUN (0x${IGNORE_OVERRUN})`
      requireCqe(call, 'create', cqe)
      if (compVector >= call.device.numCompVectors)
        throw callError.EINVAL`${the.method('cq.create')}: ${the.attribute('compVector')}: ${compVector}: the device has vectors 0 to ${call.device.numCompVectors - 1}`
      const state = createCqRing(ringMemoryOf(call.context), kind === COUNTING ? 0 : cqe, kind, compVector, flags !== 0)
      object.state = state
      limitEntries(call, object, cqe)
      state.number = stateOf(call).cqs.add(object)
      affiliate(object, userHandle, { channel, asyncFd })
      if (channel !== undefined) shareArming(object)
      return { cqe: state.ring.capacity, queue: mmapInfo(state.ring) }
    },

    query: (call, object) => caughtUp(call, () => describeCq(object)),

    modify(call, object, args, core) {
      const { cqe, ...moderation } = args
      const { state } = object
      if (cqe === undefined && moderation.count === undefined && moderation.period === undefined)
        throw callError.EINVAL`${the.method('cq.modify')}: there is nothing to change: give cqe, count or period`
      if (cqe === undefined) {
        core(call, object, args)
        return { cqe: state.ring.capacity }
      }
      requireCqe(call, 'modify', cqe)
      if (state.kind === COUNTING)
        throw callError.EINVAL`${the.method('cq.modify')}: ${the.attribute('cqe')}: a queue that counts has no entries`
      return caughtUp(call, () => {
        const rings = ringMemoryOf(call.context)
        const old = resizeCqRing(rings, state, cqe)
        if (!old)
          throw callError.EINVAL`${the.method('cq.modify')}: ${the.attribute('cqe')}: ${cqe} is less than the completions that wait to be polled`
        rings.free(old)
        limitEntries(call, object, cqe)
        core(call, object, moderation)
        return { cqe: state.ring.capacity, queue: mmapInfo(state.ring) }
      })
    },

    destroy(call, object, args, core) {
      stateOf(call).cqs.remove(object.state.number)
      ringMemoryOf(call.context).free(object.state.ring)
      return core(call, object, args)
    },
  },
  RxeAttributes.cq,
)
