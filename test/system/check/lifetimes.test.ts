/*
 * `userdma check` on memory of outstanding requests that is freed, or belongs to a stack frame that returns
 * (test/programs/check/lifetimes.c).
 */
import assert from 'node:assert/strict'
import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import { compileC } from '../../tools.ts'
import { lacking, ownProgram, suiteScope, temporaryFolder } from '../programs.ts'
import { checkScript, isOf } from './checking.ts'

const program = ownProgram('lifetimes')
/** A library that calls `*after_realloc` once, in a realloc that has moved the block. */
const reallocSource = `#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
void (*after_realloc)(void);
void *realloc(void *block, size_t size)
{
    void *moved = ((void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc"))(block, size);
    void (*call)(void) = after_realloc;
    after_realloc = NULL;
    if (call)
        call();
    return moved;
}
`
/** A library whose constructor frees a block, and a program that fails if the C library has not unmapped it. */
const constructorSource = `#include <stdlib.h>
void *freed_early;
__attribute__((constructor)) static void free_early(void)
{
    free(freed_early = malloc(1 << 28));
}
`
const constructorProgramSource = `#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
extern void *freed_early;
int main(void)
{
    static unsigned char resident[1 << 16];
    /* Another mapping may be in a part of the block. */
    void *page = (void *)((uintptr_t)freed_early & -(uintptr_t)4096);
    return mincore(page, 1 << 28, resident) == -1 && errno == ENOMEM ? 0 : 3;
}
`
const lifetimeIds: readonly FindingId[] = ['buffer-freed', 'frame-returned', 'fork-outstanding', 'context-inherited']

/** Cases with their findings. */
const mistakes = [
  ['moved', 'buffer-freed'],
  ['shrunk', 'buffer-freed'],
  ['ends_at_once', 'buffer-freed'],
  ['closed', 'buffer-freed'],
  ['closed_range', 'buffer-freed'],
  ['replaced', 'buffer-freed'],
  ['ends_quickly', 'buffer-freed'],
  ['ends_by_abort', 'buffer-freed'],
  ['ends_by_assertion', 'buffer-freed'],
  ['ends_by_allocator', 'buffer-freed'],
  ['ends_by_exec', 'buffer-freed'],
  ['ends_by_fault', 'buffer-freed'],
  ['ends_by_signal', 'buffer-freed'],
  ['ends_child', 'buffer-freed'],
  ['unpolled', 'buffer-freed'],
  ['built', 'buffer-freed'],
  ['built_when_full', 'buffer-freed'],
  ['freed_shared', 'buffer-freed'],
  ['frame_of_thread', 'frame-returned'],
  ['frame_left', 'frame-returned'],
] as const

describe('memory of outstanding requests', { skip: lacking(program) }, () => {
  const suite = suiteScope()
  let checked: Awaited<ReturnType<typeof checkScript>>
  // One run for all: the name of each link tells whose finding it is.
  before(async () => {
    const folder = temporaryFolder(suite)
    const lines = mistakes.map(([name]) => {
      symlinkSync(program, join(folder, name))
      return `${join(folder, name)} ${name} >&2;`
    })
    checked = await checkScript(suite, `${lines.join(' ')} true`)
  })

  for (const [name, expected] of mistakes)
    it(`${name}: ${expected}`, () => {
      const ids = checked.found.filter(isOf(name)).map(({ id }) => id)
      assert.deepEqual(
        ids.filter(id => lifetimeIds.includes(id)),
        [expected],
        checked.stderr,
      )
    })

  it('a receive of a queue pair with an SRQ is reported as refused, with its wr_id and the reason', async t => {
    const { found, stderr } = await checkScript(t, `${program} beside_srq >&2`)
    const posts = found.filter(({ id }) => id === 'refused-call' || lifetimeIds.includes(id))
    assert.deepEqual(
      posts.map(({ id, text }) => `${id}: ${text.replace(/^receive on .*?, /, '')}`),
      ['refused-call: wr_id 77: a call was refused for its arguments: the queue pair has an SRQ: post to the SRQ'],
      stderr,
    )
  })

  it('memory that realloc has given back may be posted by another thread before realloc returns', {
    skip: lacking('cc'),
  }, async t => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'realloc.c'), reallocSource)
    const library = compileC(join(folder, 'realloc.so'), [join(folder, 'realloc.c')], ['-shared', '-fPIC'])
    const { found, status, stderr } = await checkScript(t, `LD_PRELOAD="$LD_PRELOAD:${library}" ${program} reused >&2`)
    assert.equal(status, 0, stderr)
    assert.deepEqual(
      found.filter(({ id }) => lifetimeIds.includes(id)).map(({ text }) => text),
      [],
    )
  })

  it('blocks that constructors of libraries free are freed', { skip: lacking('cc') }, async t => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'early.c'), constructorSource)
    writeFileSync(join(folder, 'main.c'), constructorProgramSource)
    const library = compileC(join(folder, 'libearly.so'), [join(folder, 'early.c')], ['-shared', '-fPIC'])
    const early = compileC(join(folder, 'early'), [join(folder, 'main.c')], [library])
    const { status, stderr } = await checkScript(t, `${early} >&2`)
    assert.equal(status, 0, stderr)
  })

  it('a report that is kept until a program ends does not change how it ends', async t => {
    const ends = 'for i in ends_by_fault ends_by_signal ends_by_allocator ends_by_exec'
    const { stdout, stderr } = await checkScript(t, `${ends}; do ${program} $i >&2; echo $?; done`)
    const [SIGSEGV, SIGABRT] = [128 + 11, 128 + 6]
    assert.equal(stdout, `${SIGSEGV}\n${SIGSEGV}\n${SIGABRT}\n0\n`, stderr)
  })

  it('nothing is found in programs without such mistakes', async t => {
    const cases = [
      'polled',
      'unsignaled',
      'not_moved',
      'flushed',
      'reset',
      'polled_shared',
      'exits',
      'child',
      'coroutines',
      'alternate_stack',
      'beside_stack',
    ]
    // Without a limit, the C library counts all memory from the stack down to the next mapping, the heap, as the stack.
    const unlimited = `ulimit -s unlimited || exit 0; ${program} beside_stack >&2`
    const { found, status, stderr } = await checkScript(
      t,
      `set -e; for i in ${cases.join(' ')}; do ${program} $i >&2; done; ${unlimited}`,
    )
    assert.deepEqual(
      found.filter(({ id }) => lifetimeIds.includes(id)).map(({ id, text }) => `${id}: ${text}`),
      [],
    )
    assert.equal(status, 0, stderr)
  })
})
