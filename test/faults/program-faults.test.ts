/*
 * On which opportunities rules for programs act, and what they do then.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createProgramFaults, type FaultSubject } from '../../src/faults/program-faults.ts'
import { noHappening } from '../../src/faults/rule.ts'
import { parseFaults, sameRules } from '../../src/faults/rules.ts'

const SUBJECT: FaultSubject = { device: 'rxe0', pid: 7, program: () => 'a-long-program-name', site: () => '0000abcd' }
const faultsOf = (text: string) => createProgramFaults(parseFaults(text))

/** The numbers, from 1, of the calls of `mr.create` that fail. */
const failing = (selectors: string, calls: number): number[] => {
  const faults = faultsOf(`call=mr.create,errno=EIO${selectors}`)
  return Array.from({ length: calls }, (_, i) => i + 1).filter(() => faults.onCall(SUBJECT, 'mr.create') !== undefined)
}

describe('rules for programs', () => {
  for (const [selectors, expected] of [
    ['', [1, 2, 3, 4, 5, 6, 7]],
    [',nth=1', [1]],
    [',nth=3', [3]],
    [',nth=3,count=2', [3, 4]],
    [',every=3', [3, 6]],
    [',nth=2,every=3', [2]],
    [',nth=2,every=3,count=9', [2, 5]],
    [',count=2', [1, 2]],
  ] as const)
    it(`act on the matches that "${selectors}" selects`, () => assert.deepEqual(failing(selectors, 7), expected))

  it('act on a share of the matches, which the seed chooses', () => {
    const [few, many] = [failing(',share=10%', 2000).length, failing(',share=90%', 2000).length]
    assert.ok(few > 100 && few < 300 && many > 1700 && many < 1900, `${few}, ${many}`)
    assert.notDeepEqual(failing(',share=50%,seed=3', 50), failing(',share=50%,seed=4', 50))
  })

  it('select the device, the process, the program by the characters that Linux keeps, and the call site', () => {
    for (const [selector, isSelected] of [
      ['device=rxe0', true],
      ['device=rxe1', false],
      ['pid=6+7', true],
      ['pid=6', false],
      ['program=a-long-program-other', true],
      ['program=a-long-progra', false],
      ['site=0000abcd', true],
      ['site=0000abce', false],
    ] as const)
      assert.equal(failing(`,${selector}`, 1).length === 1, isSelected, selector)
    assert.equal(
      faultsOf('post=EIO,site=0000abcd').onPost({ ...SUBJECT, site: () => undefined }, 'srq', 1, 'RECV'),
      undefined,
    )
  })

  it('add up their delays; the first error counts, and a call that fails raises no event', () => {
    const faults = faultsOf(
      'call=rc_qp.modify,delay=1;call=rc_qp.modify,event=QP_FATAL,delay=2,count=2;call=rc_qp.modify,errno=EIO,delay=4,nth=2;call=rc_qp.modify,errno=EINVAL,nth=2',
    )
    const call = () => {
      const { number, delay, errno, event } = faults.onCall(SUBJECT, 'rc_qp.modify') ?? {}
      return [number, delay, errno, event]
    }
    assert.deepEqual(
      [call(), call(), call()],
      [
        [2, 3, '', 'QP_FATAL'],
        [3, 7, 'EIO', ''],
        [1, 1, '', ''],
      ],
    )
  })

  it('select posts and completions by class, number and request', () => {
    const posts = faultsOf('post=ENOMEM,class=rc_qp,qp=0x12,request=SEND')
    const post = (cls: string, qpn: number, request: string) => posts.onPost(SUBJECT, cls, qpn, request)?.errno
    assert.deepEqual(
      [
        post('rc_qp', 0x12, 'SEND'),
        post('uc_qp', 0x12, 'SEND'),
        post('rc_qp', 0x13, 'SEND'),
        post('rc_qp', 0x12, 'WRITE'),
      ],
      ['ENOMEM', undefined, undefined, undefined],
    )
    const completions = faultsOf('completion=WRITE,class=rc_qp,qp=0x12,status=RETRY_EXC_ERR')
    const complete = (cls: string, qpn: number, name: string) =>
      completions.onCompletion(SUBJECT, cls, qpn, name)?.status
    assert.deepEqual(
      [
        complete('rc_qp', 0x12, 'WRITE'),
        complete('uc_qp', 0x12, 'WRITE'),
        complete('rc_qp', 1, 'WRITE'),
        complete('rc_qp', 0x12, 'SEND'),
      ],
      ['RETRY_EXC_ERR', undefined, undefined, undefined],
    )
  })

  it('select wr_ids, lengths and inline data; what is unknown is not selected', () => {
    const details = [
      { wrId: 7n, length: 0, isInline: true },
      { wrId: 2n ** 64n - 1n, length: 64, isInline: false },
      { wrId: 7n },
    ]
    for (const [selectors, expected] of [
      ['wr_id=7', [0, 2]],
      ['wr_id=1+0xffffffffffffffff', [1]],
      ['length=0', [0]],
      ['length=1..', [1]],
      ['inline=yes', [0]],
      ['inline=no', [1]],
    ] as const) {
      const faults = faultsOf(`post=ENOMEM,${selectors}`)
      const refused = details.flatMap((one, i) => (faults.onPost(SUBJECT, 'rc_qp', 1, 'SEND', one) ? [i] : []))
      assert.deepEqual(refused, expected, selectors)
    }
    const completions = faultsOf('completion=*,wr_id=7,status=RETRY_EXC_ERR')
    const failed = [7n, 8n].map(wrId => completions.onCompletion(SUBJECT, 'rc_qp', 1, 'SEND', wrId)?.status)
    assert.deepEqual(failed, ['RETRY_EXC_ERR', undefined])
  })

  it('count matches of each queue pair or device apart', () => {
    for (const [per, expected] of [
      ['', [false, true, false, false]],
      ['per=qp,', [false, false, true, true]],
      ['per=device,', [false, true, false, true]],
    ] as const) {
      const faults = faultsOf(`completion=SEND,${per}nth=2,status=RETRY_EXC_ERR`)
      const complete = (device: string, qpn: number) =>
        faults.onCompletion({ ...SUBJECT, device }, 'rc_qp', qpn, 'SEND') !== undefined
      const failed =
        per === 'per=device,'
          ? [complete('a', 1), complete('a', 2), complete('b', 1), complete('b', 2)]
          : [complete('a', 1), complete('a', 2), complete('a', 1), complete('a', 2)]
      assert.deepEqual(failed, expected, per)
    }
  })

  it('count matches and acts, each rule for itself, and rules for packets have no counts', () => {
    const faults = faultsOf('drop=1;call=mr.create,errno=EIO,nth=2;event=PORT_ERR,delay=5')
    assert.deepEqual([faults.has('call'), faults.has('post')], [true, false])
    faults.onCall(SUBJECT, 'mr.create')
    assert.equal(faults.canAct('call'), true)
    faults.onCall(SUBJECT, 'mr.create')
    faults.onCall(SUBJECT, 'mr.create')
    assert.deepEqual([faults.has('call'), faults.canAct('call')], [true, false])
    assert.deepEqual(faults.onOpen(SUBJECT), [
      { number: 3, text: 'event=PORT_ERR,delay=5', event: 'PORT_ERR', happening: noHappening, delay: 5 },
    ])
    assert.deepEqual(faults.counts, [undefined, { matched: 3, injected: 1 }, { matched: 1, injected: 1 }])
  })
})

describe('rules that let something happen', () => {
  it('are one happening of all that act: the longest times, and the first names', () => {
    const faults = faultsOf(
      'call=mr.create,link=2s,signal=sigkill,cable=a:b:1s;call=mr.*,link=3s,cable=way,router=r1:2s,manager=2s,gid=1,gone=1s,fatal=qps,stop=5ms,signal=TERM',
    )
    assert.deepEqual(faults.onCall(SUBJECT, 'mr.create')?.happening, {
      link: 3000,
      gid: 1,
      cable: { between: ['a', 'b'], lasts: 1000 },
      router: { name: 'r1', lasts: 2000 },
      manager: 2000,
      gone: 1000,
      fatal: 'qps',
      signal: 'KILL',
      stop: 5,
    })
  })

  it('select processes by their role, whichever makes its first call first, and the second with the same', () => {
    const names = new Map([
      [7, 'serve'],
      [8, 'ask'],
      [9, 'ask'],
    ])
    const roles = createProgramFaults([], pid => names.get(pid)!)
    const [serve, ask, again] = [7, 8, 9].map(roles.roleOf)
    assert.match(`${serve} ${ask}`, /^[0-9a-f]{8} [0-9a-f]{8}$/)
    assert.equal(again, `${ask}.2`)
    for (const order of [
      [7, 8, 9],
      [8, 9, 7],
    ]) {
      const select = (role: string) => {
        const faults = createProgramFaults(parseFaults(`call=mr.create,role=${role},errno=EIO`), pid => names.get(pid)!)
        return order.filter(pid => faults.onCall({ ...SUBJECT, pid }, 'mr.create') !== undefined)
      }
      assert.deepEqual([serve!, ask!, again!].map(select), [[7], [8], [9]])
    }
  })

  it('select what a process does in a phase: a send is one, its completion comes when it comes', () => {
    const faults = faultsOf('call=ah.create,phase=transfers,nth=1,errno=EIO')
    const fails = () => faults.onCall(SUBJECT, 'ah.create') !== undefined
    assert.deepEqual(
      ['call', 'post', 'completion'].map(target => faults.has(target as 'call')),
      [true, true, true],
    )
    assert.equal(fails(), false)
    faults.onCall(SUBJECT, 'ud_qp.modify')
    faults.onPost(SUBJECT, 'ud_qp', 1, 'RECV')
    assert.equal(fails(), false)
    faults.onPost(SUBJECT, 'ud_qp', 1, 'SEND')
    assert.deepEqual([fails(), fails()], [true, false])
  })

  it('select processes in the order of their first calls, also of calls that they do not name', () => {
    const faults = faultsOf('completion=SEND,process=2,signal=KILL')
    const [a, b] = [7, 8].map(pid => ({ ...SUBJECT, pid }))
    assert.ok(faults.has('call'))
    faults.onCall(b, 'device.query')
    faults.onCall(a, 'device.query')
    assert.equal(faults.onCompletion(b, 'rc_qp', 1, 'SEND'), undefined)
    assert.equal(faults.onCompletion(a, 'rc_qp', 1, 'SEND')?.happening.signal, 'KILL')
    assert.deepEqual([8, 7, 9].map(faults.processNumber), [1, 2, 3])
    faults.setRules([])
    assert.equal(faults.processNumber(7), 1)
  })

  it('go on if they are kept: counts, processes, and contexts to which they were applied', () => {
    const before = parseFaults('call=mr.create,nth=3,errno=EIO;event=PORT_ERR')
    const after = parseFaults(
      'call=mr.create,nth=2,errno=EIO;event=PORT_ERR;call=mr.create,nth=3,errno=EIO;event=PORT_ERR',
    )
    const actedOf = (isKept: boolean) => {
      const faults = createProgramFaults(before)
      for (let i = 0; i < 2; i++) faults.onCall(SUBJECT, 'mr.create')
      assert.equal(faults.onOpen(SUBJECT).length, 1)
      const { edition } = faults
      faults.setRules(after, isKept ? sameRules(before, after) : undefined)
      const other = { ...SUBJECT, pid: SUBJECT.pid + 1 }
      return [
        faults.onOpen(SUBJECT, edition).map(({ number }) => number),
        faults.processNumber(other.pid),
        faults.onCall(SUBJECT, 'mr.create')?.number,
        faults.counts.map(counts => counts?.matched),
      ]
    }
    assert.deepEqual(actedOf(true), [[4], 2, 3, [1, 1, 3, 1]])
    assert.deepEqual(actedOf(false), [[2, 4], 2, undefined, [1, 1, 1, 1]])
  })

  it('delay received events, and repeat those that may come again', () => {
    const faults = faultsOf('notice=*,nth=2,delay=20ms;notice=COMPLETION+PORT_ERR,nth=2,again=5ms,turn=7ms')
    assert.equal(faults.onNotice(SUBJECT, 'COMPLETION'), undefined)
    const { delay, again, turn } = faults.onNotice(SUBJECT, 'PORT_ERR') ?? {}
    assert.deepEqual({ delay, again, turn }, { delay: 20, again: 5, turn: 7 })
    assert.equal(faultsOf('notice=*,again=5ms').onNotice(SUBJECT, 'ESTABLISHED'), undefined)
  })
})
