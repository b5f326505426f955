/*
 * `userdma check` on polls of extended CQs (test/programs/check/poll_orders.c): start, next, end and reads in every
 * wrong order, fields that were not asked for, and queues that were promised to one thread.
 */
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { scaled } from '../../limits.ts'
import { longOnly } from '../../long-run.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('poll_orders')
const MLX5 = ['--device', 'mlx5_0@127.0.0.1,driver=mlx5']

const READS: Readonly<Record<string, string>> = {
  opcode: '',
  vendor_err: '',
  wc_flags: '',
  byte_len: 'BYTE_LEN',
  imm_data: 'IMM',
  qp_num: 'QP_NUM',
  src_qp: 'SRC_QP',
  slid: 'SLID',
  sl: 'SL',
  dlid_path_bits: 'DLID_PATH_BITS',
  completion_ts: 'COMPLETION_TIMESTAMP',
  cvlan: 'CVLAN',
  flow_tag: 'FLOW_TAG',
  tm_info: 'TM_INFO',
  completion_wallclock_ns: 'COMPLETION_TIMESTAMP_WALLCLOCK',
}

const OUTSIDE = 'outside a poll: ibv_start_poll was not called before'
const ENDED = 'outside a poll: ibv_end_poll has ended the last one'
const EMPTY = 'outside a poll: the last ibv_start_poll of this thread has found no completion, so it has begun none'
const NOT_MINE = 'in a poll that another thread has started'
const TURNS = 'by one of two threads that use it in turns'

/** Calls that are not made by a thread that has a poll with a completion: the name in the program, and the function. */
const calls = [
  ['next', 'ibv_next_poll'],
  ['end', 'ibv_end_poll'],
  ...['opcode', 'byte_len', 'wc_flags'].map(field => [`read_${field}`, `ibv_wc_read_${field}`] as const),
] as const

/** A list of calls, and the start of its finding's text without the name of the CQ; undefined: it is correct. */
type Case = readonly [list: string, expected?: string]

const orders: readonly Case[] = [
  ...calls.flatMap(([call, name]): Case[] => [
    [call, `error ${name} ${OUTSIDE}`],
    [`start,end,${call}`, `error ${name} ${ENDED}`],
    [`[empty]start,${call}`, `error ${name} ${EMPTY}`],
    [`start,thread:${call}`, `error ${name} ${NOT_MINE}`],
  ]),
  ['start,drain,read_opcode,end', 'error ibv_wc_read_opcode after ibv_next_poll has found no further completion'],
  ['start,destroy_qp,end', 'warning ibv_destroy_qp needs the lock'],
]

/** Without findings other than notes about completions that are left. */
const correct = ['start,end', 'take,take,take,take', '[empty]take,take', 'start,next,read_opcode,drain,next,end']

const textsOf = async (t: TestContext, script: string, options: readonly string[] = []) => {
  const { found, stderr } = await checkScript(t, script, options)
  const own = found.filter(({ id }) => id === 'poll-misused' || id === 'thread-promise')
  const texts = own.map(({ severity, text }) => `${severity} ${text.replace(/ (on|of) (CQ|QP) (0x)?[0-9a-f]+/, '')}`)
  return { texts: texts.sort(), own, found, stderr }
}

const assertStarts = (texts: readonly string[], expected: readonly string[], stderr: string): void => {
  for (const start of expected)
    assert.ok(
      texts.some(text => text.startsWith(start)),
      `${start} is not in:\n${texts.join('\n')}\n${stderr}`,
    )
  const others = texts.filter(text => !expected.some(start => text.startsWith(start)))
  assert.deepEqual(others, [], stderr)
}

describe('polls of extended CQs', { skip: lacking(program) }, () => {
  for (const [device, options] of [['rxe', []] as const, ['mlx5', MLX5] as const])
    it(`correct orders have no finding on ${device}`, async t => {
      const { found, stderr } = await textsOf(t, `${program} ${correct.join(' ')} >&2`, options)
      assert.deepEqual(
        found.filter(({ severity }) => severity !== 'note').map(({ id, text }) => `${id}: ${text}`),
        [],
        stderr,
      )
    })

  it('each wrong order has its sentence', async t => {
    const script = orders.map(([list]) => `timeout ${scaled(10)} ${program} '${list}' &`).join(' ')
    const { texts, stderr } = await textsOf(t, `${script} wait`)
    assertStarts(
      texts,
      orders.flatMap(([, text]) => (text === undefined ? [] : [text])),
      stderr,
    )
  })

  it('calls that wait for ever are told before they wait, and a poll that is open at the end', async t => {
    const lists = ['start,start', 'start,poll', 'start,resize', 'thread:start,start', 'start,exit', 'start,destroy_cq']
    // The first four wait, until the time-out. A CQ with a queue pair is not destroyed.
    const script = lists.map(list => `timeout ${scaled(3)} ${program} '${list}' &`).join(' ')
    const { texts, stderr } = await textsOf(t, `${script} wait`)
    assertStarts(
      texts,
      [
        'error ibv_start_poll waits for ever: this thread has started a poll of it',
        'error ibv_poll_cq waits for ever: this thread has started a poll of it',
        'error ibv_resize_cq needs the lock',
        'error ibv_start_poll waits for ever: the thread that has started a poll of it has ended',
        'warning the program ended in a poll',
        'warning ibv_destroy_cq in a poll',
      ],
      stderr,
    )
  })

  it('a field that was not asked for is named before the program crashes', async t => {
    const script = Object.keys(READS).map(field => `${program} '[none]start,read_${field},end' &`)
    const { texts, stderr } = await textsOf(t, `{ ${script.join(' ')} wait; } 2> /dev/null`)
    assertStarts(
      texts,
      Object.entries(READS).flatMap(([field, flag]) =>
        flag === '' ? [] : [`error ibv_wc_read_${field}: wc_flags lacked IBV_WC_EX_WITH_${flag} when`],
      ),
      stderr,
    )
  })

  it('two threads in a queue that was promised to one', { skip: longOnly }, async t => {
    const lists = [
      '[single]take,take',
      '[domain]take,receive,thread:take,receive',
      '[single]two:take',
      '[single]two:poll',
      '[single]rush',
      '[domain]two:take',
      '[domain empty]two:receive',
      'two:take',
    ]
    const script = lists.map(list => `timeout ${scaled(10)} ${program} '${list}' &`).join(' ')
    const { texts, stderr } = await textsOf(t, `${script} wait`, MLX5)
    assertStarts(
      texts,
      [
        `warning ibv_start_poll ${TURNS}: IBV_CREATE_CQ_ATTR_SINGLE_THREADED`,
        `warning ibv_poll_cq ${TURNS}: IBV_CREATE_CQ_ATTR_SINGLE_THREADED`,
        'error ibv_start_poll while another thread is in a call on it, which IBV_CREATE_CQ_ATTR_SINGLE_THREADED',
        `note ibv_start_poll ${TURNS}: a thread domain`,
        `note ibv_post_recv ${TURNS}: a thread domain`,
      ],
      stderr,
    )
  })
})
