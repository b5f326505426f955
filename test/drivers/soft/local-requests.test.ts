/*
 * Invalidation of memory windows by LOCAL_INV and by SEND with invalidate, and requests to a process that has ended,
 * with packets ('packets') and without ('direct').
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ScanScope } from '../../../src/core/driver-contract.ts'
import { invokeNow } from '../../../src/core/index.ts'
import { type Bind, bindWindow } from '../../../src/core/memory/windows.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Mw } from '../../../src/spec/classes/mw.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags, MwType } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import type { Path } from '../../../src/transport/phy/memory/port.ts'
import { errnoOf } from '../../core/fixture.ts'
import {
  connectQps,
  machine,
  makeCq,
  makeQp,
  program,
  Qps,
  query,
  type Region,
  register,
  type TestQp,
} from '../rxe/machine.ts'
import { completions, pairOn, sgeOf } from '../rxe/pair.ts'
import { postReceive, postSend, Wr } from '../rxe/provider.ts'

const { SUCCESS, LOC_QP_OP_ERR, MW_BIND_ERR, REM_INV_REQ_ERR, RETRY_EXC_ERR } = WcStatus.values
const { LOCAL_INV, SEND_WITH_INV } = WrOpcode.values
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND } = AccessFlags.values
const ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | MW_BIND

/** The arguments that bind a window to the first 64 bytes of a region. */
const bindFirst64 = (window: number, mr: Region): Bind => ({
  window,
  key: window,
  lkey: mr.lkey,
  hi: Math.floor(mr.address / 2 ** 32),
  lo: mr.address >>> 0,
  lengthHi: 0,
  lengthLo: 64,
  access: AccessFlags.values.REMOTE_WRITE,
})

/** Creates a type 2 window and binds it to the first 64 bytes of `mr` for queue pair `qp`. Returns the R_Key. */
const bindNewWindow = ({ program: p, qpn }: TestQp, mr: Region): number => {
  const { rkey } = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller).out
  const pd = p.context.handles.slots.find(object => object?.class.name === 'pd')!.id
  assert.ok(bindWindow(p.rxe.device.memory, pd, qpn, bindFirst64(rkey, mr)))
  return rkey
}

/** Two queue pairs of `b` are connected to two queue pairs of `a`. A type 2 window is bound to `qps[0]`. */
const setUp = (path: Path) => {
  const m = machine(2, { path })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [cqA, cqB] = [makeCq(a), makeCq(b)]
  const peers = [makeQp(a, cqA), makeQp(a, cqA)]
  const qps = [makeQp(b, cqB), makeQp(b, cqB)]
  qps.forEach((qp, i) => {
    connectQps(peers[i], qp)
  })
  const mr = register(b, 8192, ACCESS)
  const rkey = bindNewWindow(qps[0], mr)
  return { m, cqA, cqB, peers, qps, rkey, mr, peerMr: register(a, 4096) }
}

for (const path of ['packets', 'direct'] as const)
  describe(`path '${path}'`, () => {
    it('LOCAL_INV fails for a window of another queue pair and for an unknown key', () => {
      for (const [qpIndex, key, status] of [
        [0, 'bound', SUCCESS],
        [1, 'bound', MW_BIND_ERR],
        [1, 'unknown', LOC_QP_OP_ERR],
      ] as const) {
        const { m, cqB, qps, rkey } = setUp(path)
        postSend(qps[qpIndex].send, { opcode: LOCAL_INV, id: 1n, imm: key === 'bound' ? rkey : rkey ^ 0x1_0000 })
        m.settle()
        assert.deepEqual(
          completions(cqB).map(completion => [completion.status, completion.opcode]),
          [[status, WcOpcode.values.LOCAL_INV]],
        )
        assert.equal(query(qps[qpIndex]).state, status === SUCCESS ? Qps.RTS : Qps.ERR)
      }
    })
    it('the destruction of a queue pair unbinds its windows', () => {
      const { qps, mr } = setUp(path)
      const { program: b, handle } = qps[0]
      const deregister = () => errnoOf(() => invokeNow(b.context, Mr, 'destroy', mr.handle, {}, b.caller))
      assert.equal(deregister(), 'EBUSY')
      invokeNow(b.context, RcQp, 'destroy', handle, {}, b.caller)
      assert.equal(deregister(), 'ok')
    })
    it('a SEND with invalidate of a window that is bound to another queue pair is not acknowledged', () => {
      const { m, cqA, cqB, peers, qps, rkey, mr, peerMr } = setUp(path)
      postReceive(qps[1].receive, 7n, [sgeOf(mr, 1024, 100)])
      postSend(peers[1].send, { opcode: SEND_WITH_INV, id: 1n, imm: rkey, sges: [sgeOf(peerMr, 0, 10)] })
      m.settle()
      assert.deepEqual(completions(cqA), [])
      assert.deepEqual(
        completions(cqB).map(({ id, status }) => [id, status]),
        [[7, REM_INV_REQ_ERR]],
      )
      assert.equal(query(qps[1]).state, Qps.ERR)
      while (query(peers[1]).state === Qps.RTS) assert.ok(m.tick())
      assert.deepEqual(
        completions(cqA).map(({ id, status }) => [id, status]),
        [[1, RETRY_EXC_ERR]],
      )
    })
    it('a READ from a process that has ended is requested once, and fails after the retries', () => {
      const { m, a, b } = pairOn(machine(2, { path }))
      // the process of `b` has ended
      Object.assign(b.p.space, { locate: undefined, read: () => Errno.ESRCH })
      const sges = [sgeOf(a.mr, 0, 100), sgeOf(a.mr, 200, 100)]
      postSend(a.qp.send, { opcode: Wr.READ, id: 1n, sges, remote: b.mr.address, rkey: b.mr.rkey })
      m.settle()
      assert.equal(m.ports[0].counters.sentPackets, 1)
      assert.equal(query(b.qp).state, Qps.ERR)
      while (query(a.qp).state === Qps.RTS) assert.ok(m.tick())
      assert.deepEqual(
        completions(a.cq).map(({ id, status }) => [id, status]),
        [[1, RETRY_EXC_ERR]],
      )
    })
    it('an invalidation takes effect before a WRITE that another queue pair posts later', () => {
      // with each way to look for new requests
      for (const scope of [ScanScope.ALL, ScanScope.USED]) {
        const m = machine(1, { path })
        const p = program(m)
        const cq = makeCq(p)
        const [first, second] = [makeQp(p, cq), makeQp(p, cq)]
        connectQps(first, second)
        const mr = register(p, 4096, ACCESS)
        const rkey = bindNewWindow(second, mr)
        const write = (id: bigint, key: number) =>
          postSend(first.send, { opcode: Wr.WRITE, id, sges: [sgeOf(mr, 64, 8)], remote: mr.address, rkey: key })
        write(1n, rkey)
        m.settle()
        postSend(second.send, { opcode: LOCAL_INV, id: 2n, imm: rkey })
        write(3n, rkey)
        p.rxe.poll(m.now, scope)
        m.settle()
        const statuses = completions(cq).map(({ id, status }) => [id, status])
        assert.deepEqual(statuses.sort(), [
          [1, SUCCESS],
          [2, SUCCESS],
          [3, WcStatus.values.REM_ACCESS_ERR],
        ])
      }
    })
  })
