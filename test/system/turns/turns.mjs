/*
 * For the program longest_calls: a device without verbs that measures how long the daemon's main thread works between
 * two polls of its devices, or two turns of its event loop, in processor time. So long, programs wait. The file $TURNS
 * has a number from 0 to 63, an int64, and an array of doubles: the most microseconds so far, by that number.
 */
import { openSync, readSync, writeSync } from 'node:fs'
import koffi from 'koffi'
import * as core from 'userdma/core'
import * as spec from 'userdma/spec'

const CLOCK_THREAD_CPUTIME_ID = 3
/** Microseconds; shorter times are not written. */
const LEAST = 200

const readClock = koffi.load(null).func('int clock_gettime(int clock, void *time)')
const time = new BigInt64Array(2)
const worked = () => {
  readClock(CLOCK_THREAD_CPUTIME_ID, time)
  return Number(time[0]) * 1e6 + Number(time[1]) / 1e3
}

const file = openSync(process.env.TURNS, 'r+')
const phase = new BigInt64Array(1)
const longest = new Float64Array(1)
let last = worked()
const measure = () => {
  const duration = worked() - last
  if (duration >= LEAST) {
    readSync(file, phase, 0, 8, 0)
    const at = 8 + 8 * Number(phase[0])
    readSync(file, longest, 0, 8, at)
    if (duration > longest[0]) writeSync(file, new Float64Array([duration]), 0, 8, at)
  }
  last = worked()
}
const everyTurn = () => {
  measure()
  setImmediate(everyTurn)
}

const { Classes } = spec
export const driver = {
  name: 'turns',
  id: 0,
  classes: [Classes.interface, Classes.device, Classes.async_fd, Classes.pd].map(cls => core.driverClass(cls)),
  createDevice(owner, name) {
    everyTurn()
    const device = core.register(owner, {
      name,
      driver,
      state: undefined,
      attributes: { ...spec.zeroRecord(spec.DeviceAttributes), maxPd: 1 },
      extended: spec.zeroRecord(spec.ExtendedDeviceAttributes),
      ports: [],
      numCompVectors: 0,
      limits: { pd: 1 },
    })
    return {
      device,
      poll() {
        measure()
        return false
      },
      nextTimeout: () => Number.POSITIVE_INFINITY,
    }
  },
}
