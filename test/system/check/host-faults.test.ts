/*
 * `--allow-host-faults`: fault rules for programs on the machine's own devices. As in host.test.ts, the machine's
 * devices are those of a daemon.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { vendorErrorOf } from '../../../src/spec/check/causes.ts'
import { cleanEnvironment, lacking, ownProgram, runUserdma, suiteScope, userdma } from '../programs.ts'

const program = ownProgram('injected')
const polls = ownProgram('extended_polls')

/** A rule on a command and its program: what the program prints, and a line of the command. */
interface Case {
  readonly title: string
  readonly command: string
  readonly rule: string
  readonly program: string
  readonly prints: readonly string[]
  readonly line?: RegExp
}

const success = 'success, vendor_err 0x0'
const vendor = (id: 'INJECTED' | 'FLUSHED'): string => `vendor_err 0x${vendorErrorOf(id).toString(16)}`
const flushed = `Work Request Flushed Error, ${vendor('FLUSHED')}`
const ok = 'ibv_reg_mr: ok'
const cases: readonly Case[] = [
  {
    title: 'a call fails with its errno, in a program of this command only',
    command: 'trace --class mr --errors',
    rule: 'call=mr.create,nth=5,errno=ENOMEM',
    program: `${program} regions; ${program} regions`,
    prints: [ok, ok, 'ibv_reg_mr: ENOMEM', ok, ok, ok, ok, ok],
    line: /mr\.create\(.* = -1 ENOMEM \(injected by fault rule 1 \(call=mr\.create,nth=5,errno=ENOMEM\)\)/,
  },
  {
    title: 'a call is delayed',
    command: 'run',
    rule: 'device=rxe0,call=pd.create,nth=3,delay=100ms',
    program: `${program} duration`,
    prints: ['ibv_alloc_pd: ok after 100 or more ms'],
  },
  {
    title: 'a post fails; the requests before it in the list are posted',
    command: 'run',
    rule: 'program=injected,post=ENOMEM,request=WRITE,wr_id=3,length=1..,inline=no',
    program: `${program} list`,
    prints: [
      'ibv_post_send: ENOMEM, bad_wr 3',
      `wr_id 1: ${success}`,
      `wr_id 2: ${success}`,
      'state 3',
      'list unchanged',
    ],
    line: /post of WRITE, wr_id 3: ENOMEM: injected by fault rule 1/,
  },
  {
    title: 'a completion fails: the queue pair goes to ERR, and the rest is flushed',
    command: 'run',
    rule: 'completion=WRITE,status=RETRY_EXC_ERR,nth=2',
    program: `${program} sends`,
    prints: [
      `wr_id 1: ${success}`,
      `wr_id 2: transport retry counter exceeded, ${vendor('INJECTED')}`,
      `wr_id 3: ${flushed}`,
      `wr_id 4: ${flushed}`,
      'state 6',
    ],
    line: /wr_id 2: RETRY_EXC_ERR: injected by fault rule 1/,
  },
  {
    title: 'a completion of an extended CQ fails',
    command: 'run',
    rule: 'completion=RECV,status=LOC_PROT_ERR,nth=2',
    program: `${polls} deregisters`,
    prints: ['the message is not delivered'],
    line: /receive wr_id 1: LOC_PROT_ERR: injected by fault rule 1/,
  },
  {
    title: 'check blames no program for an injected fault',
    command: 'check -o /dev/null',
    rule: 'completion=WRITE,status=REM_ACCESS_ERR,nth=4',
    program: `${program} sends && echo no error`,
    prints: [
      ...[1, 2, 3].map(id => `wr_id ${id}: ${success}`),
      `wr_id 4: remote access error, ${vendor('INJECTED')}`,
      'state 6',
      'no error',
    ],
  },
]

describe('--allow-host-faults', { skip: lacking(program, polls) }, () => {
  let printed: readonly (readonly string[])[] = []
  before(async () => {
    const scope = suiteScope()
    const runs = cases.map(
      ({ command, rule, program }) =>
        `${userdma} ${command} --host --allow-host-faults --fault '${rule}' -- ${program}; echo END`,
    )
    const { stdout } = await runUserdma(
      scope,
      ['run', '--private', '--', 'sh', '-c', `exec 2>&1; ${runs.join('; ')}`],
      {
        env: cleanEnvironment(),
      },
    )
    printed = stdout.split('END\n').map(text => text.split('\n').filter(Boolean))
  })

  for (const [i, { title, prints, line }] of cases.entries())
    it(title, () => {
      const all = printed[i] ?? []
      assert.deepEqual(
        all.filter(one => !/^userdma|^\[pid|^#/.test(one)),
        prints,
      )
      assert.ok(line === undefined || all.some(one => line.test(one)), all.join('\n'))
    })

  it('is needed for faults; what needs devices of userdma is refused', async t => {
    for (const [command, options, message] of [
      ['run', ['--fault', 'post=EIO'], /--fault post=EIO with --host .*; add --allow-host-faults/],
      ['trace', ['--allow-host-faults', '--fault', 'drop=1%'], /fault "drop=0\.01": the packets .* are not seen/],
      ['run', ['--payload', '64', '--record', 'unused.udr'], /--host and --payload exclude each other/],
      ['check', ['--torment-search', '3'], /--host and --torment-search exclude each other/],
    ] as const) {
      const { status, stderr } = await runUserdma(t, [command, '--host', ...options, '--', 'true'])
      assert.match(stderr, message)
      assert.notEqual(status, 0)
    }
  })
})
