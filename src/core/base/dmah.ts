/*
 * Core's own DMA handles (class `dmah`), with Linux's checks: those of its core, then those of its mlx5, the one driver
 * that has them. The hints have no effect.
 *
 * - EINVAL: no such processor; no `ph`; `cpuId` without `tphMemType`, or the reverse;
 * - EPERM: the caller may not run on the processor.
 */
import { Dmah } from '../../spec/classes/dmah.ts'
import { callError } from '../../spec/errno.ts'
import { because, type Reason, the } from '../../spec/reason.ts'
import { driverClass } from '../devices/driver.ts'

const refuse = (reason: Reason | string): never => {
  throw callError.EINVAL`${the.method('dmah.create')}: ${reason}`
}

export const dmahClass = driverClass(Dmah, {
  create({ caller }, _object, { cpuId, tphMemType, ph }) {
    const processors = cpuId === undefined ? undefined : caller.processors?.()
    if (processors !== undefined && cpuId! >= processors.length)
      refuse(because`${the.attribute('cpuId')}: ${cpuId} is not in 0 to ${processors.length - 1}`)
    if (processors?.[cpuId!] === false)
      throw callError.EPERM`${the.method('dmah.create')}: ${the.attribute('cpuId')}: the caller may not run on processor ${cpuId}`
    if (ph === undefined) return refuse(because`${the.attribute('ph')} is missing: the processing hint, 0 to 3`)
    if ((cpuId === undefined) !== (tphMemType === undefined)) refuse('attributes cpuId and tphMemType belong together')
    return {}
  },
  destroy: () => ({}),
})
