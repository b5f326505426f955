/*
 * `userdma check` on batches of ibv_wr_* (test/programs/check/batches.c): every function that adds a request with every
 * setter, in right and wrong orders.
 */
import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('batches')

const INLINE = ['set_inline_data', 'set_inline_data_list']
const DATA = ['set_sge', 'set_sge_list', ...INLINE]
/** By function: the setters of data that it takes. */
const adders: Readonly<Record<string, readonly string[]>> = {
  rdma_write: DATA,
  rdma_write_imm: DATA,
  send: DATA,
  send_imm: DATA,
  send_inv: DATA,
  rdma_read: ['set_sge', 'set_sge_list'],
  atomic_cmp_swp: ['set_sge', 'set_sge_list'],
  atomic_fetch_add: ['set_sge', 'set_sge_list'],
  bind_mw: [],
  local_inv: [],
}
const flags: Readonly<Record<string, string>> = {
  rdma_write: 'RDMA_WRITE',
  rdma_write_imm: 'RDMA_WRITE_WITH_IMM',
  send: 'SEND',
  send_imm: 'SEND_WITH_IMM',
  send_inv: 'SEND_WITH_INV',
  rdma_read: 'RDMA_READ',
  atomic_cmp_swp: 'ATOMIC_CMP_AND_SWP',
  atomic_fetch_add: 'ATOMIC_FETCH_AND_ADD',
  bind_mw: 'BIND_MW',
  local_inv: 'LOCAL_INV',
}

/** A list of calls, and the sentence of its finding with # for numbers; undefined: it is correct. */
type Case = readonly [calls: string, expected?: string, severity?: 'warning']

const OUTSIDE = 'on QP # outside a batch: ibv_wr_start was not called before'
const NOT_MINE = 'on QP # in a batch that another thread has started'

const reasonAgainst = (setter: string): string =>
  INLINE.includes(setter) ? 'only SEND and RDMA_WRITE take inline data' : 'it has no data'

const casesOfAdder = (adder: string): Case[] => {
  const takes = adders[adder]!
  const request = `ibv_wr_${adder} (wr_id #)`
  const calls = `start,${adder},send,set_sge,abort`
  const text = `${request} on QP # has no data: no setter such as ibv_wr_set_sge was called after it`
  /** READ and atomics are useless without memory. */
  const noData: Case = takes.length === 0 ? [calls] : takes.length === 2 ? [calls, text] : [calls, text, 'warning']
  return [
    [adder, `ibv_wr_${adder} ${OUTSIDE}`],
    [`start,thread:${adder},abort`, `ibv_wr_${adder} ${NOT_MINE}`],
    ...DATA.map(
      (setter): Case =>
        takes.includes(setter)
          ? [`start,${adder},${setter},abort`]
          : [`start,${adder},${setter},abort`, `ibv_wr_${setter} on QP # for ${request}: ${reasonAgainst(setter)}`],
    ),
    [
      `start,${adder},set_ud_addr,abort`,
      `ibv_wr_set_ud_addr on QP # for ${request}: a queue pair of type UD takes it, no other`,
    ],
    [`start,${adder},abort`],
    noData,
  ]
}

const casesOfSetter = (setter: string): Case[] => [
  [setter, `ibv_wr_${setter} ${OUTSIDE}`],
  [`start,send,thread:${setter},abort`, `ibv_wr_${setter} ${NOT_MINE}`],
  [
    `start,${setter},abort`,
    `ibv_wr_${setter} on QP # before the first request of the batch: it sets nothing of the request that follows`,
  ],
  [
    `start,send,set_sge,${setter},abort`,
    `ibv_wr_${setter} on QP # for ibv_wr_send (wr_id #), whose data was set already`,
  ],
  [
    `start,rdma_write,id,${setter},abort`,
    'wr_id or wr_flags of QP # was changed after ibv_wr_rdma_write (wr_id #) was added: the request has the values from before',
  ],
]

const others: readonly Case[] = [
  ['complete', `ibv_wr_complete ${OUTSIDE}`],
  ['abort', `ibv_wr_abort ${OUTSIDE}`],
  ['start,thread:abort', `ibv_wr_abort ${NOT_MINE}`],
  ['start,thread:complete,abort', `ibv_wr_complete ${NOT_MINE}`],
  ['start,abort,start,abort'],
  ['start,abort,abort', 'ibv_wr_abort on QP # outside a batch: the last one was completed or aborted'],
  ['start,complete'],
  ['start,send,set_sge,rdma_read,set_sge,local_inv,bind_mw,abort'],
  ['start,id,send,set_sge,id,send,set_sge,id,abort'],
  ['start,destroy', 'QP # was destroyed with a batch of QP # open', 'warning'],
  [
    'start,rdma_read,set_sge,rdma_read,set_sge,destroy',
    'QP # was destroyed with a batch of QP # open, and # requests in it were never posted',
  ],
  ['ud:start,send,set_ud_addr,set_sge,abort'],
  ['ud:start,send_imm,set_inline_data,set_ud_addr,abort'],
  ...['send', 'send_imm'].map(
    (adder): Case => [
      `ud:start,${adder},set_sge,send,set_sge,set_ud_addr,abort`,
      `ibv_wr_${adder} (wr_id #) on QP # has no address: ibv_wr_set_ud_addr was not called after it`,
    ],
  ),
  [
    'ud:start,send,set_ud_addr,set_ud_addr,abort',
    'ibv_wr_set_ud_addr on QP # for ibv_wr_send (wr_id #), whose address was set already',
  ],
  [
    'ud:start,set_ud_addr,abort',
    'ibv_wr_set_ud_addr on QP # before the first request of the batch: it sets nothing of the request that follows',
  ],
]

const withoutNumbers = (text: string): string => text.replace(/0x[0-9a-f]+|\d+/g, '#')

const found = async (t: TestContext, script: string) => {
  const { found: all, status, stderr } = await checkScript(t, script)
  const batches = all.filter(({ id }) => id === 'batch-misused')
  return {
    texts: batches.map(({ severity, text }) => `${severity} ${withoutNumbers(text)}`).sort(),
    batches,
    all,
    status,
    stderr,
  }
}

describe('batches of ibv_wr_*', { skip: lacking(program) }, () => {
  it('correct batches have no finding', async t => {
    const { all, status, stderr } = await found(t, `${program} correct`)
    assert.deepEqual(
      all.map(({ id, text }) => `${id}: ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
  })

  it('each mistake of functions and setters has its sentence, and each correct order none', async t => {
    const cases = [...Object.keys(adders).flatMap(casesOfAdder), ...DATA.flatMap(casesOfSetter), ...others]
    const expected = cases.flatMap(([, text, severity = 'error']) =>
      text === undefined ? [] : [`${severity} ${text}`],
    )
    const { texts, stderr } = await found(t, `${program} ${cases.map(([calls]) => calls).join(' ')} || true`)
    assert.deepEqual([...new Set(texts)], [...new Set(expected)].sort(), stderr)
  })

  it('a request without its data, which libmlx5 does not post, makes no other request another one', async t => {
    const options = ['--buffers', 'all', '--device', 'mlx5_0@127.0.0.1,driver=mlx5']
    const { found: all, stderr } = await checkScript(t, `${program} unfinished`, options)
    assert.deepEqual([...new Set(all.map(({ id }) => id))], ['batch-misused'], stderr)
  })

  it('a function that the queue pair lacks is named before the program crashes', async t => {
    const missing = [...Object.keys(adders), 'set_xrc_srqn']
    const script = missing.map(call => `${program} ${call === 'set_xrc_srqn' ? '' : 'none:'}start,${call}`).join('; ')
    const { texts, stderr } = await found(t, `{ ${script}; } 2> /dev/null || true`)
    assert.deepEqual(
      texts,
      [
        ...Object.entries(flags).map(
          ([adder, flag]) =>
            `error ibv_wr_${adder} on QP # calls a NULL pointer: send_ops_flags lacked IBV_QP_EX_WITH_${flag} when the queue pair was created`,
        ),
        'error ibv_wr_set_xrc_srqn on QP # calls a NULL pointer: its provider has no such setter for it',
      ].sort(),
      stderr,
    )
  })

  it('calls that wait for ever are told before they wait, and a batch that is open at the end', async t => {
    const lists = [
      'start,send,set_sge,start',
      'start,post',
      'thread:start,start',
      'start,send,set_sge,exit',
      'thread:start,exit',
    ]
    const script = lists.map(list => `${program} ${list} &`).join(' ')
    const { texts, stderr } = await found(t, `${script} wait; true`)
    assert.deepEqual(
      texts,
      [
        'error ibv_post_send on QP # waits for ever: this thread has started a batch of # requests and has neither completed nor aborted it',
        'error ibv_wr_start on QP # waits for ever: the thread that has started a batch of # requests has ended without ibv_wr_complete or ibv_wr_abort',
        'error ibv_wr_start on QP # waits for ever: this thread has started a batch of # request and has neither completed nor aborted it',
        'warning the program ended with a batch of QP # open',
        'warning the program ended with a batch of QP # open, and # request in it was never posted',
      ],
      stderr,
    )
  })

  it('a batch that is refused for its sizes says which limit it exceeds', async t => {
    const lists = ['rts:start,send,set_long_inline_data,complete', 'rts:start,send,set_long_list,complete']
    const { all, stderr } = await found(t, `${program} ${lists.join(' ')} || true`)
    const texts = all.filter(({ moments }) => moments[0]?.action === 'posted').map(({ id, text }) => `${id}: ${text}`)
    assert.match(texts.join('\n'), /request-length: .* it has 33 bytes inline, and max_inline_data is 32/, stderr)
    assert.match(texts.join('\n'), /bad-request: .* it has 3 scatter\/gather elements, and max_send_sge is 2/, stderr)
  })
})
