import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { checkHostRule } from '../../src/cli/program/host-rules.ts'
import { parseRule } from '../../src/faults/rules.ts'

describe("fault rules on the machine's own devices", () => {
  it('act on calls, posts and completions', () => {
    for (const rule of [
      'call=mr.*,errno=ENOMEM',
      'call=cm_id.connect,delay=2s',
      'call=mad_agent.create,errno=EPERM',
      'post=ENOMEM,share=1%,seed=7',
      'completion=WRITE,status=RETRY_EXC_ERR,nth=100',
    ])
      checkHostRule(parseRule(rule))
  })

  it('are refused with a sentence if the machine cannot do it', () => {
    for (const [rule, message] of [
      ['drop=1%', /fault "drop=0\.01": the packets .* are not seen; with --host allowed are call=/],
      ['link=3s', /the links of the machine's own devices are not userdma's; with --host allowed are call=/],
      ['event=PORT_ERR', /gives the events, PORT_ERR too; with --host allowed are call=/],
      ['call=rc_qp.modify,event=QP_FATAL', /gives the events, QP_FATAL too/],
      ['call=mad_channel.receive,errno=EIO', /programs make no ioctl or write for mad_channel\.receive/],
    ] as const)
      assert.throws(() => checkHostRule(parseRule(rule)), message)
  })
})
