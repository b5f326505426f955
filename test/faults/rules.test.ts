import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { type FaultRule, faultDirections, isActive, noFaults, targetOf } from '../../src/faults/rule.ts'
import { formatFaults, formatRule, opcodeNumbers, parseFaults, parseRule } from '../../src/faults/rules.ts'
import { opcodes } from '../../src/spec/wire/opcodes.ts'

describe('fault rules', () => {
  it('are parsed with their selectors and effects', () => {
    assert.deepEqual(parseRule('drop=0.01,dup=.02,reorder=0.5,corrupt=1,delay=2.5,jitter=1,seed=7'), {
      ...noFaults,
      drop: 0.01,
      dup: 0.02,
      reorder: 0.5,
      corrupt: 1,
      delay: 2.5,
      jitter: 1,
      seed: 7,
    })
    assert.deepEqual(parseRule('device=rxe0,dir=sent,qp=0x12+19,opcode=rc_acknowledge+0x81,rate=10mbit'), {
      ...noFaults,
      device: 'rxe0',
      dir: 'sent',
      qp: [0x12, 0x13],
      opcode: ['RC_ACKNOWLEDGE', '0x81'],
      rate: 10e6,
    })
    assert.deepEqual(parseRule('cm=dreq+REP,dup=1'), { ...noFaults, cm: ['DREQ', 'REP'], dup: 1 })
    assert.throws(() => parseRule('cm=DREQ+QUIT,drop=1'), /fault cm: "DREQ\+QUIT" is not REQ, MRA, REJ, REP, RTU, DREQ/)
    assert.throws(() => parseRule('cm=DREQ,call=mr.create,errno=ENOMEM'), /cm is for packets/)
    assert.deepEqual(parseRule(' drop = 0.5 , seed = 3 '), { ...noFaults, drop: 0.5, seed: 3 })
    assert.deepEqual(parseRule(''), noFaults)
  })

  it('select by what a request or packet has, and are written as they are read', () => {
    for (const text of [
      'length=0+1..64+4096..,rkey=0x1234+0x0,imm=0x7,dscp=26+24..31,message=2+3,packet=4,per=flow,nth=2,drop=1',
      'wr_id=7+18446744073709551615,length=8,inline=no,per=qp,post=EIO',
      'completion=SEND,wr_id=0,per=device,status=RETRY_EXC_ERR',
      'call=mr.create,cable=leaf1:spine1:3000ms,manager=1000',
      'cable=way',
    ])
      assert.equal(formatRule(parseRule(text)), text)
    assert.deepEqual(parseRule('wr_id=0xff,post=EIO').wr_id, [255n])
    assert.equal(formatRule(parseRule('dscp=EF+cs3..af31+le,drop=1')), 'dscp=46+24..26+1,drop=1')
  })

  it('use the units of tc', () => {
    for (const [text, name, value] of [
      ['drop=0.1%', 'drop', 0.001],
      ['drop=100%', 'drop', 1],
      ['delay=200us', 'delay', 0.2],
      ['delay=5ms', 'delay', 5],
      ['delay=1.5s', 'delay', 1500],
      ['rate=1000', 'rate', 1000],
      ['rate=2.5Gbit', 'rate', 2.5e9],
      ['rate=1tbit', 'rate', 1e12],
    ] as const)
      assert.equal(parseRule(text)[name], value, text)
  })

  it('round numbers to twelve decimals, so that formatting and parsing do not change them again', () => {
    const rules = parseFaults('drop=1.32542949673%,delay=0.0123456789012345')
    assert.deepEqual(parseFaults(formatFaults(rules)), rules)
    assert.equal(rules[0].drop, 0.013254294967)
  })

  it('are separated by semicolons; rules without an effect are omitted', () => {
    const rules = parseFaults('drop=1%; opcode=RC_ACKNOWLEDGE,delay=1;drop=0,seed=4;')
    assert.deepEqual(rules.map(formatRule), ['drop=0.01', 'opcode=RC_ACKNOWLEDGE,delay=1'])
    assert.deepEqual(parseFaults(''), [])
    assert.equal(isActive(parseRule('drop=0,seed=5')), false)
    assert.throws(() => parseFaults('drop=1;'.repeat(257)), /there are 257 fault rules; 256 are allowed at most/)
    assert.equal(parseFaults('drop=1;'.repeat(257), 257).length, 257)
    assert.equal(parseFaults(`${'rate=1gbit;'.repeat(32)}drop=1`).length, 33)
    assert.throws(() => parseFaults('rate=1gbit;'.repeat(33)), /there are 33 fault rules with a rate; 32 are allowed/)
  })

  it('name opcodes by patterns', () => {
    const namesOf = (text: string): string[] =>
      opcodeNumbers(parseRule(`${text},drop=1`)).map(
        number => opcodes.find(({ opcode }) => opcode === number)?.name ?? '?',
      )
    assert.deepEqual(namesOf('opcode=RC_READ_RESP_*'), [
      'RC_READ_RESP_FIRST',
      'RC_READ_RESP_MIDDLE',
      'RC_READ_RESP_LAST',
      'RC_READ_RESP_ONLY',
    ])
    assert.deepEqual(namesOf('opcode=*_ACKNOWLEDGE'), ['RC_ACKNOWLEDGE', 'XRC_ACKNOWLEDGE'])
    assert.deepEqual(namesOf('opcode=17+UD_SEND_ONLY'), ['RC_ACKNOWLEDGE', 'UD_SEND_ONLY'])
    assert.deepEqual(opcodeNumbers(parseRule('drop=1')), [])
    const manyStars = '*'.repeat(40)
    assert.deepEqual(namesOf(`opcode=RC_ACK${manyStars}GE`), ['RC_ACKNOWLEDGE'])
    assert.throws(() => parseRule(`opcode=${manyStars}Z,drop=1`), /is not an opcode name/)
  })

  it('that are invalid are refused with the wrong value and the allowed values', () => {
    const refused: [string, RegExp][] = [
      ['drop=2', /drop: "2" is not a probability from 0 to 1 or from 0% to 100%/],
      ['drop=-0.1', /drop: "-0\.1" is not a probability/],
      ['dup=101%', /dup: "101%" is not a probability/],
      ['corrupt=0x1', /corrupt: "0x1"/],
      ['drop=1e-2', /drop: "1e-2"/],
      ['delay=20000', /delay: "20000" is not milliseconds from 0 to 10000, or a time like/],
      ['delay=5h', /delay: "5h" is not milliseconds/],
      ['rate=10mbps', /rate: "10mbps" is not bits per second from 1kbit to 1tbit/],
      ['rate=0', /rate: "0" is not bits per second/],
      ['seed=1.5', /seed: "1\.5" is not an integer/],
      ['qp=0x1000000', /qp: "0x1000000" is not a QPN from 0 to 0xffffff/],
      ['qp=1+', /qp: "1\+" is not/],
      ['opcode=RC_ACK', /opcode: "RC_ACK" is not an opcode name of traces \(RC_ACKNOWLEDGE\)/],
      ['opcode=0x100', /opcode: "0x100" is not an opcode/],
      ['dir=in', /dir: "in" is not received, sent, both/],
      ['device=a b', /device: "a b" is not the name/],
      ['seed=4', /fault "seed=4": the rule has no effect/],
      ['dir=sent', /fault "dir=sent": the rule has no effect; add one of drop, /],
      [
        'loss=0.1',
        /no "loss"; there are call, completion, device, program, process, role, phase, pid, class, site, dir, qp, opcode, cm, ack, notice, request, wr_id, length, inline, rkey, imm, dscp, message, packet, per, nth, /,
      ],
      ['drop', /write drop=VALUE, where VALUE is a probability/],
      ['drop=', /write drop=VALUE/],
      ['drop=1=1', /write drop=VALUE/],
      ['drop=0.1,', /there is no ""/],
      ['drop=0.1,drop=0.2', /drop: given twice, as 0\.1 and as 0\.2/],
      ['jitter=1', /jitter=1: more than delay=0/],
      ['length=5..4,drop=1', /length: "5\.\.4" is not bytes from 0 to 4294967296, as 0, 1\.\.64 or 4096\.\./],
      ['length=..4,drop=1', /length: "\.\.4" is not/],
      ['message=0,drop=1', /message: "0" is not the number of a message from 1 to 4294967295/],
      ['dscp=26..24,drop=1', /dscp: "26..24" is not a DSCP from 0 to 63, a name as ef, af31 or cs3, or a range as 24/],
      ['dscp=26,call=mr.create,errno=ENOMEM', /dscp is for packets/],
      ['rkey=0x100000000,drop=1', /rkey: "0x100000000" is not an rkey from 0 to 0xffffffff/],
      ['imm=-1,drop=1', /imm: "-1" is not immediate data/],
      ['per=message,drop=1', /per: "message" is not device, qp, flow/],
      ['per=flow,post=EIO', /flows are of packets; allowed for posts are per=device, per=qp/],
      ['per=qp,call=mr.create,errno=ENOMEM', /per is for packets and posts and completions/],
      ['wr_id=0x10000000000000000,post=EIO', /wr_id: "0x10000000000000000" is not a wr_id of at most 64 bits/],
      ['wr_id=1,drop=1', /wr_id is for posts and completions, and this rule is for packets/],
      ['cable=leaf1', /cable: "leaf1" is not two switches as leaf1:spine1, or way, and perhaps a time/],
      ['cable=a:b:9h', /cable: "a:b:9h" is not .* milliseconds from 1 to 600000/],
      ['cable=a:a', /cable: "a:a" is not two switches/],
      ['cable=way:1s:1s', /cable: "way:1s:1s" is not/],
      ['manager=0', /manager: "0" is not milliseconds/],
      ['inline=maybe,post=EIO', /inline: "maybe" is not yes, no/],
    ]
    for (const [text, message] of refused) assert.throws(() => parseRule(text), message, text)
  })

  it('for programs are parsed with their selectors and effects', () => {
    assert.deepEqual(
      parseRule('call=mr.create+cq.*,program=my app,pid=4711,class=mr,nth=3,every=2,share=50%,count=5,errno=ENOMEM'),
      {
        ...noFaults,
        call: ['mr.create', 'cq.*'],
        program: 'my app',
        pid: [4711],
        class: ['mr'],
        nth: 3,
        every: 2,
        share: 0.5,
        count: 5,
        errno: 'ENOMEM',
      },
    )
    assert.deepEqual(parseRule('completion=RDMA_WRITE+recv,class=rc_qp,status=WR_FLUSH_ERR'), {
      ...noFaults,
      completion: ['WRITE', 'RECV'],
      class: ['rc_qp'],
      status: 'WR_FLUSH_ERR',
    })
    for (const [text, target] of [
      ['drop=1', 'packet'],
      ['call=*.create,delay=2s', 'call'],
      ['call=rc_qp.modify,event=QP_FATAL', 'call'],
      ['post=ENOMEM,request=SEND_WITH_IMM+RECV,qp=0x12', 'post'],
      ['completion=*,status=FATAL_ERR', 'completion'],
      ['event=PORT_ERR,delay=1s', 'event'],
      ['device=rxe0,delay=2s,link=3s', 'event'],
      ['call=cm_id.connect,nth=2,link=50ms', 'call'],
      ['completion=WRITE,nth=1000,link=600s', 'completion'],
    ] as const) {
      const rule = parseRule(text)
      assert.equal(targetOf(rule), target, text)
      assert.deepEqual(parseRule(formatRule(rule)), rule, text)
    }
    assert.deepEqual(parseFaults('call=mr.create,errno=ENOMEM,share=0'), [])
  })

  it('for programs that no adapter could obey are refused with what is allowed', () => {
    const refused: [string, RegExp][] = [
      ['call=mr.open,errno=ENOMEM', /call: "mr\.open" is not a method as traces name it \(mr\.create\), a pattern/],
      ['call=mr.create', /the rule has no effect; add one of errno, event, delay, link, gid/],
      ['call=mr.create,errno=EFOO', /errno: "EFOO" is not the name of an error/],
      ['call=mr.destroy,errno=ENOMEM', /errno: ENOMEM is no error of mr\.destroy; allowed are EBUSY, EIO$/],
      ['call=mr.create,class=cq,errno=ENOMEM', /mr\.create is no method of cq; leave out class/],
      ['call=mr.create,event=QP_FATAL', /QP_FATAL is no event of an object of mr\.create; allowed are PORT_ERR, /],
      ['call=mr.create,errno=EIO,event=PORT_ERR', /a call that fails raises no event/],
      ['call=mr.create,drop=1%', /drop is for packets, and this rule is for calls; write two rules, separated by ;/],
      ['post=EBUSY', /post: EBUSY is no error of a post; allowed are ENOMEM, EINVAL, EIO/],
      ['post=EIO,class=mr', /class: nothing is posted to a mr; allowed are rc_qp, /],
      ['post=EIO,request=FOO', /request: "FOO" is not WRITE, WRITE_WITH_IMM, SEND, /],
      ['completion=SEND', /the rule has no effect; add status/],
      ['completion=SEND,status=SUCCESS', /status: "SUCCESS" is not the status of a failed completion/],
      ['completion=READ,class=driver_qp,status=LOC_PROT_ERR', /there is no READ on driver_qp; queue pairs are rc_qp, /],
      ['completion=READ,class=ud_qp,status=GENERAL_ERR', /there is no READ on ud_qp; queue pairs are rc_qp, /],
      ['completion=RECV,status=RETRY_EXC_ERR', /RETRY_EXC_ERR is no status of RECV; allowed are LOC_LEN_ERR, /],
      ['completion=SEND,class=ud_qp+uc_qp,status=REM_OP_ERR', /REM_OP_ERR is no status of SEND on ud_qp\+uc_qp;/],
      ['completion=SEND,status=MW_BIND_ERR', /MW_BIND_ERR is no status of SEND;/],
      ['event=QP_FATAL', /QP_FATAL is an event of an object; name the call after which it comes/],
      ['event=LID_CHANGE', /event: "LID_CHANGE" is not an event that a rule can raise/],
      ['event=PORT_ERR,nth=0', /nth: "0" is not an integer from 1 to/],
      ['link=0', /link: "0" is not milliseconds from 1 to 600000/],
      ['link=601s', /link: "601s" is not milliseconds from 1 to 600000/],
      ['post=ENOMEM,link=1s', /link is for calls and completions and asynchronous events, and this rule is for posts/],
      ['opcode=RC_SEND_ONLY,link=1s', /opcode is for packets, and this rule is for asynchronous events/],
      ['notice=COMPLETION', /the rule has no effect; add delay, as delay=100ms, again or turn/],
      ['notice=HELLO,delay=1', /notice: "HELLO" is not the name of an event, as COMPLETION, /],
      ['notice=ESTABLISHED,again=1', /ESTABLISHED is an event of rdma_cm, which comes once; leave out again/],
      ['call=mr.create,gid=9', /gid: "9" is not an integer from 1 to 8/],
      ['call=mr.create,fatal=yes', /fatal: "yes" is not qps/],
      ['call=mr.create,signal=STOP', /signal: "STOP" is not KILL, TERM, INT, HUP, ABRT/],
      ['call=mr.create,process=0,errno=EIO', /process: "0" is not the number of a process from 1 to/],
      ['ack=RNR,drop=1', /ack: "RNR" is not ACK, NAK, RNR_NAK/],
      ['drop=1,gone=1s', /drop is for packets, and this rule is for asynchronous events/],
      ['post=ENOMEM,dir=sent', /dir is for packets, and this rule is for posts/],
    ]
    for (const [text, message] of refused) assert.throws(() => parseRule(text), message, text)
  })

  it('parse and format are inverse', () => {
    const probability = fc.integer({ min: 0, max: 1e9 }).map(billionths => billionths / 1e9)
    const rule: fc.Arbitrary<FaultRule> = fc
      .record({
        device: fc.constantFrom('', 'rxe0', 'rxe_1.a-b'),
        dir: fc.constantFrom(...faultDirections),
        qp: fc.array(fc.nat(0xffffff), { maxLength: 3 }),
        opcode: fc.array(fc.constantFrom('RC_SEND_ONLY', '*', '0x17'), { maxLength: 3 }),
        drop: probability,
        dup: probability,
        reorder: probability,
        corrupt: probability,
        delay: fc.integer({ min: 0, max: 1e7 }).map(us => us / 1000),
        jitter: fc.integer({ min: 0, max: 10000 }),
        rate: fc.oneof(fc.constant(0), fc.integer({ min: 1000, max: 1e12 })),
        seed: fc.nat(),
      })
      .map(values => ({ ...noFaults, ...values, jitter: Math.min(values.jitter, values.delay) }))
      .filter(isActive)
    fc.assert(fc.property(rule, value => assert.deepEqual(parseRule(formatRule(value)), value)))
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), rules => assert.deepEqual(parseFaults(formatFaults(rules)), rules)),
    )
    assert.equal(formatRule(noFaults), '')
  })
})
