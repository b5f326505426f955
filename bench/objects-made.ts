/*
 * What the rows of objects.ts measure: for each kind of object a function that makes one, idle. "held" is what a
 * program of the library has, with the library's object; the others are what the subsystem has, made by a call alone.
 */
import { Ah } from '../src/spec/classes/ah.ts'
import { Cq } from '../src/spec/classes/cq.ts'
import { Mr } from '../src/spec/classes/mr.ts'
import { Mw } from '../src/spec/classes/mw.ts'
import { Pd } from '../src/spec/classes/pd.ts'
import { RcQp } from '../src/spec/classes/rc_qp.ts'
import { Srq } from '../src/spec/classes/srq.ts'
import { UcQp } from '../src/spec/classes/uc_qp.ts'
import { UdQp } from '../src/spec/classes/ud_qp.ts'
import { XrcIniQp, XrcTgtQp } from '../src/spec/classes/xrc_qp.ts'
import { Xrcd } from '../src/spec/classes/xrcd.ts'
import { AccessFlags, MwType, QpState, XrcdFlags } from '../src/spec/enums.ts'
import type { AnyValues, ObjectClass } from '../src/spec/schema.ts'
import type { Carrier } from '../src/verbs/carrier.ts'
import { connectSteps, reliableSteps } from '../src/verbs/connection.ts'
import type { Device } from '../src/verbs/index.ts'
import type { PathFacts } from '../src/verbs/plan.ts'

export interface Place {
  readonly device: Device
  readonly carrier: Carrier
  readonly path: PathFacts
}

export interface Made {
  close(): void
}

/** Answers what makes one; what it needs besides is made once. */
export type Maker = (place: Place) => () => Made

/** Of classes whose creation takes these arguments and what `needed` makes. */
const bare =
  (cls: ObjectClass, args: AnyValues, needed: (place: Place) => AnyValues = () => ({})): Maker =>
  place => {
    const { carrier } = place
    const all = { ...args, ...needed(place) }
    const { close } = madeBy(carrier, cls)
    return () => {
      const { object } = carrier.call(cls, 'create', 0, all as never)
      return { object, close } as Made
    }
  }

/** One function for all objects of a class, so that what holds them costs little. */
const madeBy = (carrier: Carrier, cls: ObjectClass) => ({
  close(this: { object: number }): void {
    carrier.call(cls, 'destroy', this.object, {} as never)
  },
})

const pdOf = ({ device }: Place) => ({ pd: device.pd().handle })
const queues = (place: Place) => {
  const { handle } = place.device.cq()
  return { ...pdOf(place), sendCq: handle, recvCq: handle }
}
const cap = (requests: number, pieces: number) => ({
  cap: { maxSendWr: requests, maxRecvWr: requests, maxSendSge: pieces, maxRecvSge: pieces, maxInlineData: 0 },
  userHandle: 0n,
})
const sixteen = cap(16, 1)
const noQueues = cap(0, 0)

/** A queue pair that is connected to itself. */
const connected =
  (make: Maker): Maker =>
  place => {
    const { carrier, path } = place
    const one = make(place)
    return () => {
      const qp = one() as Made & { object: number }
      const { qpNum: qpn } = { qpNum: 0, ...carrier.call(RcQp, 'query', qp.object, {}).out }
      const { init, rtr, rts } = connectSteps(path, 1, { qpn, gid: place.device.address, psn: 1 })
      const { answering, asking } = reliableSteps()
      carrier.call(RcQp, 'modify', qp.object, init)
      carrier.call(RcQp, 'modify', qp.object, { ...rtr, ...answering })
      carrier.call(RcQp, 'modify', qp.object, { ...rts, ...asking, state: QpState.values.RTS })
      return qp
    }
  }

const { LOCAL_WRITE } = AccessFlags.values
const rc = bare(RcQp, sixteen, queues)

export const makers = {
  pd: bare(Pd, {}),
  mr: bare(Mr, { access: LOCAL_WRITE, length: 64n }, place => {
    const start = place.carrier.addressOf(new Uint8Array(64))
    return { ...pdOf(place), start, iova: start }
  }),
  mw: bare(Mw, { type: MwType.values.TYPE_2 }, pdOf),
  ah: bare(Ah, { userHandle: 0n }, place => ({
    ...pdOf(place),
    address: connectSteps(place.path, 1, { qpn: 17, gid: '127.0.0.2', psn: 1 }).rtr.address,
  })),
  cq: bare(Cq, { cqe: 16, userHandle: 0n, compVector: 0 }),
  srq: bare(Srq, { maxWr: 16, maxSge: 1, limit: 0, userHandle: 0n }, pdOf),
  rc_qp: rc,
  'rc_qp 0+0': bare(RcQp, noQueues, queues),
  'rc_qp connected': connected(rc),
  uc_qp: bare(UcQp, sixteen, queues),
  ud_qp: bare(UdQp, sixteen, queues),
  xrc_ini_qp: bare(XrcIniQp, sixteen, place => {
    const { pd, sendCq } = queues(place)
    return { pd, sendCq }
  }),
  xrc_tgt_qp: bare(XrcTgtQp, { userHandle: 0n }, ({ carrier }) => ({
    xrcd: carrier.call(Xrcd, 'create', 0, { flags: XrcdFlags.values.CREAT }).object,
  })),
  'held pd':
    ({ device }) =>
    () =>
      device.pd(),
  'held mr': ({ device }) => {
    const pd = device.pd()
    const buffer = new Uint8Array(64)
    return () => pd.register(buffer)
  },
  'held cq':
    ({ device }) =>
    () =>
      device.cq({ entries: 16 }),
  'held rc_qp': ({ device }) => {
    const pd = device.pd()
    const sendCq = device.cq()
    return () => pd.rcQp({ sendCq })
  },
} as const satisfies Record<string, Maker>

export type ObjectKind = keyof typeof makers
