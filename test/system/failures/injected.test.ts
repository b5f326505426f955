/*
 * Fault rules for calls, posts, completions and events, as unmodified programs see them
 * (test/programs/failures/injected.c, rping).
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { openToolSession, type ToolSession } from '../../../src/daemon/client/tool-session.ts'
import { vendorErrorOf } from '../../../src/spec/check/causes.ts'
import { checkScript } from '../check/checking.ts'
import { lacking, ownProgram, run, runUserdma, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'

const program = ownProgram('injected')
const injected = `vendor_err 0x${vendorErrorOf('INJECTED').toString(16)}`
const flushed = `Work Request Flushed Error, vendor_err 0x${vendorErrorOf('FLUSHED').toString(16)}`
const success = 'success, vendor_err 0x0'
/** Numbers of ibv_qp_state. */
const [RTS, ERR] = [3, 6]

describe('fault rules for programs', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  let client: ToolSession
  before(async () => {
    daemon = await startDaemon(suite)
    client = await openToolSession(daemon.socket)
    suite.after(() => client.close())
  })

  for (const [title, name, rule, lines, counts] of [
    [
      'a call fails with an errno, the third only',
      'regions',
      'call=mr.create,nth=5,errno=ENOMEM',
      ['ibv_reg_mr: ok', 'ibv_reg_mr: ok', 'ibv_reg_mr: ENOMEM', 'ibv_reg_mr: ok'],
      { matched: 6, injected: 1 },
    ],
    [
      'every second call from the fourth on, at most twice',
      'regions',
      'program=injected,call=mr.*,class=mr,nth=3,every=2,count=2,errno=EPERM',
      ['ibv_reg_mr: EPERM', 'ibv_reg_mr: ok', 'ibv_reg_mr: EPERM', 'ibv_reg_mr: ok'],
      undefined,
    ],
    [
      'rules for other programs and processes do not act',
      'regions',
      'program=other,call=mr.create,errno=ENOMEM;pid=1,call=mr.create,errno=ENOMEM',
      ['ibv_reg_mr: ok', 'ibv_reg_mr: ok', 'ibv_reg_mr: ok', 'ibv_reg_mr: ok'],
      { matched: 0, injected: 0 },
    ],
    [
      'a call is delayed, and executed',
      'duration',
      'call=pd.create,nth=3,delay=100ms',
      ['ibv_alloc_pd: ok after 100 or more ms'],
      { matched: 3, injected: 1 },
    ],
    [
      'a call is delayed, and fails',
      'duration',
      'call=pd.create,nth=3,delay=100ms,errno=ENOMEM',
      ['ibv_alloc_pd: ENOMEM after 100 or more ms'],
      { matched: 3, injected: 1 },
    ],
    [
      'a post fails; the requests before it in the list are posted',
      'list',
      'post=ENOMEM,request=WRITE,nth=3',
      [
        'ibv_post_send: ENOMEM, bad_wr 3',
        `wr_id 1: ${success}`,
        `wr_id 2: ${success}`,
        `state ${RTS}`,
        'list unchanged',
      ],
      { matched: 3, injected: 1 },
    ],
    [
      'the post with one wr_id fails, by its length and place',
      'list',
      'post=ENOMEM,wr_id=3,length=1..,inline=no,per=qp',
      [
        'ibv_post_send: ENOMEM, bad_wr 3',
        `wr_id 1: ${success}`,
        `wr_id 2: ${success}`,
        `state ${RTS}`,
        'list unchanged',
      ],
      { matched: 1, injected: 1 },
    ],
    [
      'the post of a receive fails by its length',
      'receives',
      'post=EIO,length=64,class=rc_qp,count=1',
      ['ibv_post_recv: EIO', 'ibv_post_recv: ok', 'ibv_post_srq_recv: ok', 'ibv_post_srq_recv: ok'],
      { matched: 2, injected: 1 },
    ],
    [
      'the completion with one wr_id fails',
      'sends',
      'completion=WRITE,wr_id=2,status=RETRY_EXC_ERR',
      [
        `wr_id 1: ${success}`,
        `wr_id 2: transport retry counter exceeded, ${injected}`,
        `wr_id 3: ${flushed}`,
        `wr_id 4: ${flushed}`,
        `state ${ERR}`,
      ],
      { matched: 1, injected: 1 },
    ],
    [
      'a post of a receive fails',
      'receives',
      'post=EIO,request=RECV,class=rc_qp,count=1',
      ['ibv_post_recv: EIO', 'ibv_post_recv: ok', 'ibv_post_srq_recv: ok', 'ibv_post_srq_recv: ok'],
      { matched: 2, injected: 1 },
    ],
    [
      'a post to a shared receive queue fails',
      'receives',
      'post=ENOMEM,class=srq,nth=2',
      ['ibv_post_recv: ok', 'ibv_post_recv: ok', 'ibv_post_srq_recv: ok', 'ibv_post_srq_recv: ENOMEM'],
      { matched: 2, injected: 1 },
    ],
    [
      'a completion fails: the queue pair goes to ERR, and the rest is flushed',
      'sends',
      'completion=WRITE,status=RETRY_EXC_ERR,nth=2',
      [
        `wr_id 1: ${success}`,
        `wr_id 2: transport retry counter exceeded, ${injected}`,
        `wr_id 3: ${flushed}`,
        `wr_id 4: ${flushed}`,
        `state ${ERR}`,
      ],
      { matched: 2, injected: 1 },
    ],
    [
      'the completion of a receive fails',
      'receive',
      'completion=RECV,status=LOC_LEN_ERR',
      [`wr_id 101: local length error, ${injected}`, `wr_id 102: ${flushed}`, `state ${ERR}`],
      { matched: 1, injected: 1 },
    ],
    [
      'an event comes when the program opens the device',
      'event',
      'event=PORT_ERR,delay=1ms',
      ['event: port error, port 1'],
      { matched: 1, injected: 1 },
    ],
    [
      'an event of an object comes after a call',
      'event',
      'call=rc_qp.create,nth=2,event=QP_FATAL',
      ['event: local work queue catastrophic error of the queue pair: right'],
      { matched: 2, injected: 1 },
    ],
  ] as const)
    it(title, async t => {
      // A rule for events acts on the contexts that exist.
      await daemon.settled(({ contexts }) => contexts === 0)
      await client.faults(rule)
      const { status, stdout, stderr } = await run(t, program, [name], { env: daemon.env })
      assert.deepEqual({ status, lines: stdout.trimEnd().split('\n'), stderr }, { status: 0, lines, stderr: '' })
      if (counts === undefined) return
      for (const { rule: _, ...found } of await client.faults()) assert.deepEqual(found, counts)
    })

  it('a share of the calls fails, the same share with the same seed', async t => {
    const outputs: string[] = []
    for (const seed of [3, 3, 4]) {
      await client.faults(`call=mr.create,nth=3,count=9,share=50%,seed=${seed},errno=ENOMEM`)
      outputs.push((await run(t, program, ['regions'], { env: daemon.env })).stdout)
    }
    assert.equal(outputs[0], outputs[1])
    assert.notEqual(outputs[0], outputs[2])
  })

  it('calls of rdma_cm fail', { skip: lacking('rping') }, async t => {
    await client.faults('call=cm_id.resolveAddress,errno=ENODEV')
    const { status, stderr } = await run(t, 'rping', ['-c', '-a', '127.0.0.1', '-C', '1'], { env: daemon.env })
    assert.notEqual(status, 0)
    assert.match(stderr, /rdma_resolve_addr: No such device/)
  })

  it('calls of rdma_cm fail by their events', { skip: lacking('rping') }, async t => {
    const connect = ['rping', '-c', '-a', '127.0.0.1', '-C', '1']
    for (const [method, event, status] of [
      ['resolveAddress', 'ADDR_ERROR', -110],
      ['resolveRoute', 'ROUTE_ERROR', -110],
      ['connect', 'REJECTED', 28],
      ['connect', 'UNREACHABLE', -110],
    ] as const) {
      await client.faults(`call=cm_id.${method},event=${event}`)
      const { stderr } = await runUserdma(t, ['trace', '--errors', '--socket', daemon.socket, '--', ...connect])
      assert.ok(stderr.includes(`RDMA_CM_EVENT_${event}, error ${status}\n`), stderr)
      assert.ok(
        stderr.includes(`event ${event}: injected by fault rule 1 (call=cm_id.${method},event=${event})`),
        stderr,
      )
    }
    await client.faults('call=cm_id.accept,event=DISCONNECTED,nth=1')
    // Until the server listens, the client is rejected.
    const script = `rping -s -C 3 & for i in $(seq 500); do ${connect.join(' ')} 2>&1 | grep DISCONNECT && break; done; wait $!; echo $?`
    const { stdout, stderr } = await run(t, 'sh', ['-c', script], { env: daemon.env })
    assert.match(stderr, /server DISCONNECT EVENT/)
    assert.equal(stdout, 'client DISCONNECT EVENT...\n255\n')
  })

  it('events that a call of rdma_cm cannot lead to are not counted, and the call works', {
    skip: lacking('udaddy'),
  }, async t => {
    await client.faults('call=cm_id.accept,event=DISCONNECTED;call=cm_id.connect,event=REJECTED')
    // Until the server listens, the client is refused.
    const script =
      'udaddy -C 1 >&2 & for i in $(seq 500); do udaddy -s 127.0.0.1 -C 1 2>/dev/null && break; done; wait $!'
    const { stdout, status } = await run(t, 'sh', ['-c', script], { env: daemon.env })
    assert.equal(status, 0, stdout)
    const { stdout: rules } = await runUserdma(t, ['fault', 'show', '--socket', daemon.socket])
    assert.equal(rules.match(/# of 0 calls: none/g)?.length, 2, rules)
  })

  it('`fault show` prints the rules with their counts; `trace` says what a rule has injected', async t => {
    await client.faults('call=mr.create,nth=3,errno=ENOMEM;post=ENOMEM,nth=9')
    const traced = await runUserdma(t, ['trace', '--errors', '--socket', daemon.socket, '--', program, 'regions'])
    assert.match(
      traced.stderr,
      / mr\.create\(.*\) = -1 ENOMEM \(mr\.create: injected by fault rule 1 \(call=mr\.create,/,
    )
    const { stdout } = await runUserdma(t, ['fault', 'show', '--socket', daemon.socket])
    assert.deepEqual(stdout.split('\n'), [
      'call=mr.create,nth=3,errno=ENOMEM  # of 6 calls: injected 1',
      'nth=9,post=ENOMEM                  # of 0 posts: none',
      '',
    ])
    await client.faults('completion=WRITE,status=RETRY_EXC_ERR;post=EIO,request=RECV')
    for (const [name, line] of [
      ['sends', /QP 0x[0-9a-f]+ WRITE wr_id 1: RETRY_EXC_ERR: injected by fault rule 1 \(completion=WRITE,/],
      ['receives', /QP 0x[0-9a-f]+ post of a receive, wr_id 1: EIO: injected by fault rule 2 \(request=RECV,post=EIO/],
    ] as const) {
      const { stderr } = await runUserdma(t, ['trace', '--socket', daemon.socket, '--', program, name])
      assert.match(stderr, line)
    }
  })

  it('`check` blames the program for no injected fault', async t => {
    const rules = ['call=mr.create,nth=3,errno=ENOMEM', 'post=ENOMEM,nth=3', 'completion=WRITE,status=REM_ACCESS_ERR']
    const script = ['regions', 'list', 'receives', 'sends'].map(name => `${program} ${name} >&2`).join('; ')
    const { found, stderr } = await checkScript(t, script, ['--fault', rules.join(';')])
    assert.match(stderr, /ENOMEM/)
    assert.deepEqual(
      found.filter(({ severity }) => severity !== 'note').filter(({ id }) => id !== 'leak'),
      [],
      stderr,
    )
  })

  it('what no adapter could do is refused with a sentence', async t => {
    for (const [rule, message] of [
      [
        'completion=SEND,class=ud_qp,status=RNR_RETRY_EXC_ERR',
        /RNR_RETRY_EXC_ERR is no status of SEND on ud_qp; allowed are LOC_LEN_ERR, /,
      ],
      ['call=cm_id.connect,event=ADDR_ERROR', /ADDR_ERROR is no event of .*; allowed are REJECTED, UNREACHABLE, /],
      ['call=mr.create,errno=EADDRINUSE', /EADDRINUSE is no error of mr\.create; allowed are ENOMEM, EINVAL, /],
    ] as const) {
      const { status, stderr } = await runUserdma(t, ['fault', 'set', rule, '--socket', daemon.socket])
      assert.equal(status, 2)
      assert.match(stderr, message)
    }
  })
})
