/*
 * Checks the options of `createNetwork`, and reads what they say.
 */

import { createRandom } from '../../base/random.ts'
import { type Clock, realClock } from '../../host/event-loop/clock.ts'
import { secureRandom } from '../../host/random.ts'
import {
  isSeed,
  kindsOf,
  readHold,
  SEED_RANGE,
  type TormentKind,
  type TormentSetting,
  tormentOf,
} from '../../spec/check/torment.ts'
import { LineRate } from '../../spec/congestion.ts'
import { links, paths } from '../../uapi/tool.ts'
import { checkOptions, checkRecord, copyOfValue, type KnownOptions } from '../verbs/arguments/options.ts'
import { checkChoice, checkFunction, formatValue, invalidArgument } from '../verbs/error.ts'
import { checkRecording, type NetworkOptions, type TormentOptions } from './contract.ts'
import { checkFabric } from './infiniband.ts'
import { compileTopology, lineRateOf } from './links.ts'
import { createVirtualClock, type VirtualClock } from './virtual/virtual-clock.ts'

const networkOptionNames: KnownOptions<NetworkOptions> = {
  fault: true,
  link: true,
  path: true,
  random: true,
  check: true,
  torment: true,
  record: true,
  clock: true,
  links: true,
  fabric: true,
  dcqcn: true,
  seed: true,
  external: true,
}

/** Checks the options of virtual time, and returns the clock. Throws RdmaError EINVAL. */
const clockOf = (options: NetworkOptions): Clock | VirtualClock => {
  const { clock = 'real', seed, external, link, path, random, links: topology } = options
  const call = 'createNetwork'
  checkChoice(call, 'clock', clock, ['real', 'virtual'])
  if (seed !== undefined && !isSeed(seed))
    throw invalidArgument(call, `seed ${formatValue(seed)} is not a seed`, `a seed is ${SEED_RANGE}`)
  if (seed !== undefined && random !== undefined)
    throw invalidArgument(call, `random and seed ${seed}: both give the random numbers`, 'leave out one of them')
  if (clock === 'real') {
    if (external !== undefined) throw invalidArgument(call, `external ${formatValue(external)} is for clock 'virtual'`)
    if (topology !== undefined)
      throw invalidArgument(
        call,
        "links are for clock 'virtual': in real time, delays of this process would count as the network's",
        'use `userdma net` or fault rules with delay and rate',
      )
    return realClock
  }
  if (external !== undefined) checkChoice(call, 'external', external, ['refuse', 'wait'])
  if (link !== undefined && link !== 'memory')
    throw invalidArgument(
      call,
      `link "${link}": sockets are not in virtual time`,
      "leave out link, or clock: 'virtual'",
    )
  if (path === 'direct')
    throw invalidArgument(call, 'path "direct": messages without packets take no time', 'leave out path')
  return createVirtualClock(external ?? 'refuse')
}

const tormentNames: KnownOptions<TormentOptions> = { seed: true, kinds: true, only: true }

/** Throws RdmaError EINVAL. */
const readKinds = (kinds: readonly string[]): readonly TormentKind[] => {
  try {
    return kindsOf(kinds)
  } catch (error) {
    throw invalidArgument('createNetwork', 'torment.kinds', (error as Error).message)
  }
}

/** Throws RdmaError EINVAL. */
const readTorment = (torment: number | TormentOptions): TormentSetting => {
  const { seed, kinds, only }: TormentOptions =
    typeof torment === 'object' && torment !== null ? torment : { seed: torment }
  if (typeof torment === 'object') checkOptions('createNetwork', 'torment', torment, tormentNames)
  if (!isSeed(seed))
    throw invalidArgument('createNetwork', `torment ${formatValue(seed)} is not a seed`, `a seed is ${SEED_RANGE}`)
  const setting = { ...tormentOf(seed), ...(kinds !== undefined && { kinds: readKinds(kinds) }) }
  if (only === undefined) return setting
  const wrong = Array.isArray(only) ? only.find(id => readHold(id) === undefined) : only
  if (wrong !== undefined)
    throw invalidArgument(
      'createNetwork',
      `torment.only: ${formatValue(wrong)} is not the identity of a decision`,
      'write KIND/DEVICE/PROCESS/OBJECT/THING, as a recording has it',
    )
  return { ...setting, only: [...only] }
}

/** Throws RdmaError EINVAL. */
export const readNetworkOptions = (options: NetworkOptions) => {
  checkOptions('createNetwork', 'options', options, networkOptionNames)
  const clock = clockOf(options)
  const given = { ...options, links: copyOfValue(options.links) }
  const { seed = clock.isVirtual ? 0 : undefined, fault = '', link = 'memory', fabric, dcqcn } = options
  const { check, torment, record } = options
  const topology = options.links === undefined ? undefined : compileTopology(options.links)
  lineRateOf('createNetwork', dcqcn, LineRate.DEFAULT)
  if (fabric !== undefined) checkFabric(fabric)
  const { path = clock.isVirtual ? 'packets' : 'direct' } = options
  const seeded = seed === undefined || options.random !== undefined ? undefined : createRandom(seed)
  const { random = seeded ?? secureRandom } = options
  checkChoice('createNetwork', 'link', link, links)
  checkChoice('createNetwork', 'path', path, paths)
  checkFunction('createNetwork', 'random', random)
  if (check !== undefined && typeof check !== 'boolean')
    checkRecord('createNetwork', 'check', check, 'give true, false or an object of options')
  checkRecording('createNetwork', record)
  return {
    clock,
    /** A copy, for networks with the same options. */
    given,
    seed,
    fault,
    link,
    path,
    topology,
    fabric,
    dcqcn,
    check,
    record,
    torment: torment === undefined ? undefined : readTorment(torment),
    /** Random numbers are the same in each run. */
    isSeeded: clock.isVirtual || seeded !== undefined,
    random,
    checkedRandom: (): number => {
      const value = random()
      if (value >>> 0 === value) return value
      throw invalidArgument(
        'createNetwork',
        `random returned ${formatValue(value)}`,
        'return an integer from 0 to 2^32 - 1',
      )
    },
  }
}
