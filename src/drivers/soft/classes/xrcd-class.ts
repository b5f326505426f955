/*
 * Class `xrcd` of the soft device: XRC domains (IBA annex A14). Processes that open the domain of the same file share
 * the domain. Errors are Linux's: EAGAIN if the file has no domain and CREAT is not set, EINVAL if the file has a
 * domain and EXCL is set, EBADF for a number that is no descriptor. Like Linux, and unlike ibv_open_xrcd(3), the device
 * does not require CREAT without a file.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { Xrcd } from '../../../spec/classes/xrcd.ts'
import { XrcdFlags } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { because, type Reason, the } from '../../../spec/reason.ts'
import { stateOf, type XrcDomain } from '../state.ts'

const { CREAT, EXCL } = XrcdFlags.values
const KNOWN = CREAT | EXCL

const refuse = (code: 'EAGAIN' | 'EINVAL' | 'EBADF', reason: Reason | string): never => {
  throw new CallError(code, because`${the.method('xrcd.create')}: ${reason}`)
}

export const xrcdClass = driverClass<typeof Xrcd, XrcDomain>(Xrcd, {
  create(call, object, { file, flags }) {
    const { domains } = stateOf(call)
    if (flags & ~KNOWN) refuse('EINVAL', because`${the.attribute('flags')}: ${flags} has bits beyond CREAT and EXCL`)
    const name = file === undefined ? undefined : call.caller.file?.(file)
    if (file !== undefined && name === undefined)
      refuse('EBADF', because`${the.attribute('file')}: ${file} is not a descriptor`)
    const existing = name === undefined ? undefined : domains.get(name)
    if (file !== undefined && existing === undefined && !(flags & CREAT))
      refuse('EAGAIN', 'the file has no domain, and CREAT is not set')
    if (existing !== undefined && flags & EXCL) refuse('EINVAL', 'the domain of this file exists, and EXCL is set')
    const domain: XrcDomain = existing ?? { file: name, openers: 0 }
    domain.openers++
    if (name !== undefined) domains.set(name, domain)
    object.state = domain
    return {}
  },

  query: (_call, { state: { file, openers }, uses }) => ({ shared: file === undefined ? 0 : 1, openers, users: uses }),

  destroy(call, { state: domain }) {
    domain.openers--
    if (domain.openers === 0 && domain.file !== undefined) stateOf(call).domains.delete(domain.file)
    return {}
  },
})
