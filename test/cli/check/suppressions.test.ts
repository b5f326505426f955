/*
 * Suppression files of `userdma check`.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  defaultSuppressions,
  parseSuppressions,
  stacksOfFinding,
  suppressionBlock,
  suppressionOf,
} from '../../../src/cli/check/suppressions.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type { Frame } from '../../../src/spec/check/frames.ts'
import { type Symbols, v8Frame } from '../../../src/tools/check/finding-text.ts'

const frames = [
  { function: 'ibv_post_send', file: '/usr/include/infiniband/verbs.h', line: 3342, object: '/opt/app' },
  { function: 'send_all', file: 'src/client.c', line: 42, object: '/opt/app' },
  { function: 'main', object: '/opt/app' },
]
const block = (...lines: string[]): string => `# a comment\n{\n  known\n  ${lines.join('\n  ')}\n}\n`
/** A finding with one stack, of a post. */
const posted = (stack: readonly Frame[]) => ({ all: [stack], posted: [stack], registered: [] })
const isSuppressed = (id: string, ...lines: string[]): boolean =>
  suppressionOf(parseSuppressions(block(...lines), 'f.supp'), id, () => posted(frames)) !== undefined

test('wildcards match as in a regular expression, and patterns that make one try for hours end', () => {
  const isMatch = (pattern: string, name: string): boolean =>
    suppressionOf(parseSuppressions(block('leak', `fun:${pattern}`), 'f'), 'leak', () =>
      posted([{ function: name }]),
    ) !== undefined
  fc.assert(
    fc.property(
      fc.stringMatching(/^[ab*?]{1,8}$/),
      fc.stringMatching(/^[ab]{0,8}$/),
      (pattern, name) =>
        isMatch(pattern, name) === new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(name),
    ),
  )
  assert.equal(isMatch(`${'*a'.repeat(2000)}*b`, 'a'.repeat(5000)), false)
  assert.equal(isMatch(`${'*a'.repeat(2000)}*b`, `${'a'.repeat(5000)}b`), true)
})

test('a block suppresses findings with its id whose innermost frames match in order', () => {
  const cases: readonly (readonly [boolean, ...string[]])[] = [
    [true, 'stale-rkey'],
    [true, '*'],
    [false, 'leak'],
    [true, 'stale-rkey', 'fun:ibv_post_send'],
    [true, 'stale-rkey', 'fun:ibv_*', 'src:client.c:42'],
    [true, 'stale-rkey', '...', 'fun:main'],
    [true, 'stale-rkey', '...', 'src:src/client.c'],
    [true, 'stale-rkey', '...', `src:${process.cwd()}/src/client.c:42`],
    [true, 'stale-rkey', 'obj:*/app'],
    [true, 'stale-rkey', 'fun:ibv_post_sen?'],
    [false, 'stale-rkey', 'fun:main'],
    [false, 'stale-rkey', 'fun:ibv_post_send', 'src:client.c:43'],
    [false, 'stale-rkey', 'src:client_c'],
    [false, 'stale-rkey', '...', 'fun:main', 'fun:start'],
  ]
  for (const [expected, ...lines] of cases)
    assert.equal(isSuppressed('stale-rkey', ...lines), expected, lines.join(' '))
})

test('a block with many `...` is compared in linear time', () => {
  const deep = Array.from({ length: 200 }, () => ({ function: 'recurse' }))
  const lines = Array.from({ length: 10 }, () => ['...', 'fun:recurse']).flat()
  const suppressions = (last: string) => parseSuppressions(block('*', ...lines, '...', last), 'f.supp')
  assert.equal(
    suppressionOf(suppressions('fun:main'), 'leak', () => posted(deep)),
    undefined,
  )
  assert.notEqual(
    suppressionOf(suppressions('fun:main'), 'leak', () => posted([...deep, { function: 'main' }])),
    undefined,
  )
})

test('the frames after `...` may match only from a later frame on', () => {
  const suppressions = parseSuppressions(block('*', '...', 'fun:a', 'fun:b'), 'f.supp')
  const stack = ['a', 'a', 'b'].map(name => ({ function: name }))
  assert.notEqual(
    suppressionOf(suppressions, 'leak', () => posted(stack)),
    undefined,
  )
  assert.equal(
    suppressionOf(suppressions, 'leak', () => posted(stack.slice(0, 2))),
    undefined,
  )
})

test('frames after `posted:` and `registered:` match one stack of the finding of that kind', () => {
  const stack = (...names: string[]): Frame[] => names.map(name => ({ function: name }))
  const [second, first] = [stack('ibv_post_send', 'put'), stack('ibv_post_send', 'get')]
  const registered = [stack('ibv_create_qp', 'connect'), stack('ibv_reg_mr', 'make_pool', 'main')]
  const stacks = { all: [[...second, ...first]], posted: [second, first], registered }
  const cases: readonly (readonly [boolean, ...string[]])[] = [
    [true, 'posted:', 'fun:ibv_post_send', 'fun:get'],
    [false, 'fun:ibv_post_send', 'fun:get'],
    [false, 'posted:', 'fun:ibv_post_send', 'fun:put', 'fun:ibv_post_send'],
    [true, 'registered:', '...', 'fun:make_pool'],
    [false, 'registered:', 'fun:ibv_post_send'],
    [true, 'fun:ibv_post_send', 'posted:', '...', 'fun:get', 'registered:', 'fun:ibv_reg_mr*'],
    [false, 'posted:', '...', 'fun:get', 'registered:', 'fun:ibv_reg_dmabuf_mr'],
  ]
  for (const [expected, ...lines] of cases) {
    const found = suppressionOf(parseSuppressions(block('race', ...lines), 'f.supp'), 'race', () => stacks)
    assert.equal(found !== undefined, expected, lines.join(' '))
  }
})

test('an error of a suppression file names its line', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['stale-rkey\n', /^f\.supp:1: "stale-rkey" is outside a block/],
    [block('no-such'), /^f\.supp:4: there is no finding "no-such"/],
    [block('leak', 'func:main', 'fun:x'), /^f\.supp:5: "func:main" is not a frame; write fun:FUNCTION/],
    ['{\n a\n', /^f\.supp:1: the block has no }/],
    ['{\n{\n', /^f\.supp:2: "\{" within the block of line 1/],
    ['{\n a\n}\n', /^f\.supp:3: the block of line 1 needs a name and the id/],
  ]
  for (const [text, message] of cases) assert.throws(() => parseSuppressions(text, 'f.supp'), { message })
})

test('a generated block suppresses its finding, and no finding with another stack or id', () => {
  const native: Readonly<Record<string, Frame>> = {
    post: frames[0]!,
    operator: { function: 'Queue::operator*(int)', object: '/opt/app' },
    stripped: { function: '', object: '/opt/app [1].so' },
    main: { function: 'main', object: '/opt/app' },
    other: { function: 'other', object: '/opt/app' },
  }
  const symbols: Symbols = { framesOf: stack => stack.map(name => native[name] ?? v8Frame(name, path => path)) }
  const findingAt = (id: Finding['id'], ...stacks: readonly string[][]) => ({
    id,
    device: 'rxe0',
    moments: stacks.map(stack => ({ action: 'posted', time: 1, stack })),
    objects: [],
  })
  const cases = [
    findingAt('stale-rkey', ['post', 'operator', 'stripped', 'main']),
    findingAt('race', ['post', 'main'], ['post', 'stripped', 'main']),
    findingAt('stale-rkey', ['Object.send (file:///opt/app.js:3:5)', 'file:///opt/app.js:9:1']),
    // A zero-width joiner, which cannot be printed.
    findingAt('stale-rkey', ['a\u200dsend (file:///opt/app.js:3:5)', 'main']),
    findingAt('leak', []),
  ]
  const others = [findingAt('stale-rkey', ['post', 'other', 'main']), findingAt('race', ['post', 'other'], ['post'])]
  for (const suppressed of cases) {
    const suppressions = parseSuppressions(suppressionBlock(suppressed, symbols), 'generated')
    assert.deepEqual(
      [...cases, ...others].filter(
        found => suppressionOf(suppressions, found.id, () => stacksOfFinding(found, symbols)) !== undefined,
      ),
      [suppressed],
    )
  }
})

/** Frames from `FUNCTION@LIBRARY`; `?` for an unknown function. */
const stackOf = (text: string): Frame[] =>
  text.split(' < ').map(one => {
    const [name, object] = one.split('@')
    return { function: name === '?' ? '' : name!, object: `/lib/x86_64-linux-gnu/${object}` }
  })

/** As Debian 12's UCX 1.13.1 and libfabric 1.17.0 have them, without symbols of their own functions. */
const FREED =
  'uct_mem_free@libuct.so.0 < uct_iface_mp_chunk_release@libuct.so.0 < ucs_mpool_cleanup@libucs.so.0 < ?@ucx/libuct_ib.so.0 < ucs_class_call_cleanup_chain@libucs.so.0 < ?@ucx/libuct_ib.so.0 < ucp_worker_iface_cleanup@libucp.so.0 < ?@libucp.so.0 < ucp_worker_destroy@libucp.so.0'
const CHUNK =
  'ibv_reg_mr_iova2@libibverbs.so.1 < uct_ib_reg_mr@ucx/libuct_ib.so.0 < uct_ib_reg_key_impl@ucx/libuct_ib.so.0 < ?@ucx/libuct_ib.so.0 < ucs_rcache_get@libucs.so.0 < ?@ucx/libuct_ib.so.0 < uct_iface_mem_alloc@libuct.so.0 < uct_iface_mp_chunk_alloc@libuct.so.0 < ucs_mpool_grow@libucs.so.0 < uct_ud_iface_t_init@ucx/libuct_ib.so.0'
const UD_QP =
  'ibv_cmd_create_qp@libibverbs.so.1 < uct_ib_iface_create_qp@ucx/libuct_ib.so.0 < ?@ucx/libuct_ib.so.0 < uct_ud_iface_t_init@ucx/libuct_ib.so.0 < ?@ucx/libuct_ib.so.0 < uct_iface_open@libuct.so.0'
const POSTED = '?@ucx/libuct_ib.so.0 < ?@libucs.so.0 < ucp_worker_progress@libucp.so.0'

test('known findings in libraries are suppressed by frames of the library, those of the program are not', () => {
  /** The library that is named; `first`: the stack of the finding's first moment. */
  const libraryOf = (id: string, first: string, ...registered: string[]) =>
    suppressionOf(defaultSuppressions(), id, () => {
      const moments = [stackOf(first), stackOf(POSTED)]
      return { all: [moments.flat()], posted: moments, registered: registered.map(stackOf) }
    })?.library
  const cases: readonly (readonly [string | undefined, string, string, ...string[]])[] = [
    ['libuct_ib', 'buffer-freed', FREED, CHUNK, UD_QP],
    // The program frees a buffer of its own request, or one that it registered through UCX.
    [undefined, 'buffer-freed', `release@app < main@app`, CHUNK, UD_QP],
    [undefined, 'buffer-freed', `release@app < ${FREED}`, CHUNK, UD_QP],
    [undefined, 'stale-lkey', FREED, CHUNK, UD_QP],
    ['libuct_ib', 'region-unmapped', CHUNK, CHUNK, UD_QP],
    [undefined, 'region-unmapped', CHUNK, CHUNK],
    [
      undefined,
      'region-unmapped',
      'ibv_reg_mr@libibverbs.so.1 < main@app',
      'ibv_reg_mr@libibverbs.so.1 < main@app',
      UD_QP,
    ],
    // ucp_mem_map of the program's memory: no chunk of a pool.
    [
      undefined,
      'region-unmapped',
      CHUNK,
      'ibv_reg_mr_iova2@libibverbs.so.1 < uct_ib_reg_mr@ucx/libuct_ib.so.0 < ucp_mem_map@libucp.so.0 < main@app',
      UD_QP,
    ],
    ['libfabric', 'conn-param-uninitialised', 'rdma_connect@librdmacm.so.1 < ?@libfabric.so.1 < main@app'],
    ['libfabric', 'conn-param-uninitialised', 'rdma_accept@librdmacm.so.1 < ?@libfabric.so.1 < main@app'],
    [undefined, 'conn-param-uninitialised', 'rdma_connect@librdmacm.so.1 < main@app < ?@libfabric.so.1'],
  ]
  for (const [expected, id, first, ...registered] of cases)
    assert.equal(libraryOf(id, first, ...registered), expected, `${id}: ${first}`)
})
