/*
 * The post log of a program on a daemon's device, for `userdma check`: posts note the numbers of their stacks in the
 * context's file (spec/session.ts).
 */
import type { Mapping } from '../../host/memory/mapping.ts'
import { rxeLayout } from '../../spec/drivers/ring-layout.ts'
import { Messages, PostLog, PostQueue, postSlot } from '../../spec/session.ts'
import { writeRequest } from '../../uapi/session-codec.ts'
import { type Checked, onPost } from '../check/checked.ts'
import type { Session } from './daemon-session.ts'
import { ringPool } from './file-rings.ts'

const { size } = Messages.post
const offsetOf = (name: string): number => Messages.post.fields.find(one => one.name === name)!.offset
const WR_ID = offsetOf('wrId')
const QUEUE = offsetOf('queue')
const NUMBER = offsetOf('number')
const PID = offsetOf('pid')
const STACK = offsetOf('stack')

/** `file`: the context's memory file. */
export const createPostLog = (session: Session, context: number, file: number): Checked => {
  let mapping: Mapping | undefined

  const note = (queue: number, number: number, wrId: bigint): void => {
    const stack = session.stackNumber()
    if (stack === 0) return
    mapping ??= ringPool().map(file, PostLog.offset, PostLog.entries * size)
    const { view } = mapping
    const at = postSlot(queue, number, wrId) * size
    view.setBigUint64(at + WR_ID, wrId, true)
    view.setUint32(at + QUEUE, queue, true)
    view.setUint32(at + NUMBER, number, true)
    view.setUint32(at + PID, process.pid, true)
    view.setUint32(at + STACK, stack, true)
  }

  return {
    posts: {
      watch(queue, number, _place, ring) {
        const wrIdAt = queue === PostQueue.SEND ? rxeLayout.send.WR_ID : rxeLayout.receive.WR_ID
        onPost(ring, slot =>
          note(queue, number, ring.view.getBigUint64(ring.data + (slot << ring.log2) + wrIdAt, true)),
        )
      },
      forget() {},
      refused(queue, number, wrId, error, state) {
        session.ask('check', (to, from) =>
          writeRequest(
            to,
            'REFUSED',
            { ...from, context, fd: file },
            { queue, number, wrId: BigInt(wrId), error, state },
          ),
        )
      },
    },
    findings: [],
    end() {
      if (mapping !== undefined) ringPool().release(mapping)
      mapping = undefined
    },
  }
}
