/*
 * TypeScript types of a driver's handlers (R19).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { driverClass, type Handlers } from '../../../src/core/devices/driver.ts'
import type { CoreObject } from '../../../src/core/model.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { at, optional, record, u64 } from '../../../src/spec/schema/schema.ts'

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <T extends true>(_yes?: T): void => {}

const added = { create: { out: { queue: optional(record(0x8000, { offset: at(0, u64(0)) })) } } }

test("a handler's arguments and result are typed by its method's declaration", () => {
  interface CqState {
    depth: number
  }
  const cq: Handlers<typeof Cq, CqState, typeof added> = {
    create(_call, object, { cqe, channel, compVector, userHandle }) {
      same<Equal<typeof cqe, number>>()
      same<Equal<typeof userHandle, bigint>>()
      same<Equal<typeof channel, CoreObject | undefined>>()
      same<Equal<typeof object.state, CqState>>()
      object.state = { depth: cqe + compVector }
      return { cqe, queue: { offset: 0n } }
    },
    // @ts-expect-error a CQ has no method of this name
    polish: () => ({}),
  }
  assert.equal(driverClass(Cq, cq, added).handlers.create, cq.create)

  driverClass(Cq, {
    // @ts-expect-error cqe is missing in the result
    create: () => ({}),
    // @ts-expect-error a result must be a number
    modify: () => ({ cqe: '1' }),
    reqNotify: () => ({}),
    destroy: (call, object, args, core) => core(call, object, args),
  })
  driverClass(RcQp, {
    create(_call, _object, { pd, sendCq, cap }) {
      same<Equal<typeof pd, CoreObject>>()
      same<Equal<typeof sendCq, CoreObject>>()
      same<Equal<typeof cap.maxSendWr, number>>()
      // @ts-expect-error a record has only its declared fields
      ;({}) as { qkey: (typeof cap)['qkey'] }
      return { cap, qpNum: 1 }
    },
    modify(_call, _object, { state, address }) {
      same<Equal<typeof state, number | undefined>>()
      same<Equal<typeof address extends { dgid: Uint8Array } | undefined ? true : false, true>>()
      return {}
    },
    query: null,
  })
})
