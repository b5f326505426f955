/*
 * Functions that create idle objects for objects.ts. "library" kinds are objects of the library, the others are created
 * by calls.
 */

import type { Device } from '../src/library/index.ts'
import type { Carrier } from '../src/library/verbs/carrier.ts'
import type { LocalPath } from '../src/library/verbs/plan.ts'
import { connectSteps, reliableSteps } from '../src/library/verbs/qp/connection.ts'
import { Ah } from '../src/spec/classes/ah.ts'
import { Cq } from '../src/spec/classes/cq.ts'
import { Mr } from '../src/spec/classes/mr.ts'
import { Mw } from '../src/spec/classes/mw.ts'
import { Pd } from '../src/spec/classes/pd.ts'
import { RcQp } from '../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../src/spec/classes/qp/ud_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../src/spec/classes/qp/xrc_qp.ts'
import { Srq } from '../src/spec/classes/srq.ts'
import { Xrcd } from '../src/spec/classes/xrcd.ts'
import { AccessFlags, MwType, XrcdFlags } from '../src/spec/enums.ts'
import type { AnyValues, ObjectClass } from '../src/spec/schema/schema.ts'

export interface Setup {
  readonly device: Device
  readonly carrier: Carrier
  readonly path: LocalPath
}

/** An object of the library, or the handle of an object that a call has created. */
export type CreatedObject = Disposable | number

interface Maker {
  readonly class: ObjectClass
  /** Creates what all objects share; returns the function that creates one object. */
  prepare(setup: Setup): () => CreatedObject
}

/** Destroys an object that a maker created. */
export const destroyObject = ({ carrier }: Setup, { class: cls }: Maker, object: CreatedObject): void => {
  if (typeof object === 'number') carrier.call(cls, 'destroy', object, {} as never)
  else object[Symbol.dispose]()
}

/** Creates objects by calls with the arguments of `args` and `setupArgs`. */
const byCall = (cls: ObjectClass, args: AnyValues, setupArgs: (setup: Setup) => AnyValues = () => ({})): Maker => ({
  class: cls,
  prepare(setup) {
    const { carrier } = setup
    const allArgs = { ...args, ...setupArgs(setup) }
    return () => carrier.call(cls, 'create', 0, allArgs as never).object
  },
})

const byLibrary = (cls: ObjectClass, prepare: (device: Device) => () => Disposable): Maker => ({
  class: cls,
  prepare: ({ device }) => prepare(device),
})

const pdOf = ({ device }: Setup) => ({ pd: device.pd().handle })
const pdAndCqs = (setup: Setup) => {
  const { handle } = setup.device.cq()
  return { ...pdOf(setup), sendCq: handle, recvCq: handle }
}
const qpArgs = (requests: number, sges: number) => ({
  cap: { maxSendWr: requests, maxRecvWr: requests, maxSendSge: sges, maxRecvSge: sges, maxInlineData: 0 },
  userHandle: 0n,
})
const sixteenRequests = qpArgs(16, 1)
const noRequests = qpArgs(0, 0)

/** The first PSN of either end. */
const PSN = 1

/** A queue pair in RTS. The peer does not exist. */
const connected = (maker: Maker): Maker => ({
  class: maker.class,
  prepare(setup) {
    const { carrier, path } = setup
    const create = maker.prepare(setup)
    return () => {
      const qp = create() as number
      const { init, rtr, rts } = connectSteps(path, PSN, { qpn: 0x123456, gid: setup.device.address, psn: PSN })
      const { responder, requester } = reliableSteps()
      carrier.call(RcQp, 'modify', qp, init)
      carrier.call(RcQp, 'modify', qp, { ...rtr, ...responder })
      carrier.call(RcQp, 'modify', qp, { ...rts, ...requester })
      return qp
    }
  },
})

const { LOCAL_WRITE } = AccessFlags.values
const rc = byCall(RcQp, sixteenRequests, pdAndCqs)

export const makers = {
  pd: byCall(Pd, {}),
  mr: byCall(Mr, { access: LOCAL_WRITE, length: 64n }, setup => {
    const start = setup.carrier.addressOf(new Uint8Array(64), 'pd.register')
    return { ...pdOf(setup), start, iova: start }
  }),
  mw: byCall(Mw, { type: MwType.values.TYPE_2 }, pdOf),
  ah: byCall(Ah, { userHandle: 0n }, setup => ({
    ...pdOf(setup),
    address: connectSteps(setup.path, PSN, { qpn: 17, gid: '127.0.0.2', psn: PSN }).rtr.address,
  })),
  cq: byCall(Cq, { cqe: 16, userHandle: 0n, compVector: 0 }),
  srq: byCall(Srq, { maxWr: 16, maxSge: 1, limit: 0, userHandle: 0n }, pdOf),
  rc_qp: rc,
  'rc_qp without requests': byCall(RcQp, noRequests, pdAndCqs),
  'rc_qp connected': connected(rc),
  uc_qp: byCall(UcQp, sixteenRequests, pdAndCqs),
  ud_qp: byCall(UdQp, sixteenRequests, pdAndCqs),
  xrc_ini_qp: byCall(XrcIniQp, sixteenRequests, setup => {
    const { pd, sendCq } = pdAndCqs(setup)
    return { pd, sendCq }
  }),
  xrc_tgt_qp: byCall(XrcTgtQp, { userHandle: 0n }, ({ carrier }) => ({
    xrcd: carrier.call(Xrcd, 'create', 0, { flags: XrcdFlags.values.CREAT }).object,
  })),
  'library pd': byLibrary(Pd, device => () => device.pd()),
  'library mr': byLibrary(Mr, device => {
    const pd = device.pd()
    const buffer = new Uint8Array(64)
    return () => pd.register(buffer)
  }),
  'library cq': byLibrary(Cq, device => () => device.cq({ entries: 16 })),
  'library srq': byLibrary(Srq, device => {
    const pd = device.pd()
    return () => pd.srq({ maxWr: 16 })
  }),
  'library ah': byLibrary(Ah, device => {
    const pd = device.pd()
    return () => pd.addressHandle({ gid: '127.0.0.2' })
  }),
  'library rc_qp': byLibrary(RcQp, device => {
    const pd = device.pd()
    const sendCq = device.cq()
    return () => pd.polledRcQp({ sendCq, maxInlineData: 0 })
  }),
} as const satisfies Record<string, Maker>

export type ObjectKind = keyof typeof makers
