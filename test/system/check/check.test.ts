/*
 * The options and the report of `userdma check`; findings of test/programs/check, of programs in TypeScript and Python;
 * real programs.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { watch } from '../../../src/host/event-loop/poll.ts'
import { hasNative } from '../../../src/host/native.ts'
import { accept, close, listen } from '../../../src/host/net/sockets.ts'
import type { FindingId } from '../../../src/spec/check/findings.ts'
import { casesOf, inLongRun, longOnly } from '../../long-run.ts'
import { libraryUrl } from '../../paths.ts'
import { compileC } from '../../tools.ts'
import {
  cleanEnvironment,
  lacking,
  ownProgram,
  run,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from '../programs.ts'
import {
  assertFound,
  checkScript,
  EX_DATAERR,
  faulty,
  fixed,
  linesOf,
  PYTHON,
  PYVERBS,
  pythonFramesOf,
  refusedRegistration,
  sources,
} from './checking.ts'

/** A library whose constructor calls the function at the address $CONSTRUCTOR; the loader holds its lock meanwhile. */
const CONSTRUCTOR = `
#include <stdint.h>
#include <stdlib.h>
__attribute__((constructor)) static void begin(void)
{
    ((void (*)(void))(uintptr_t)strtoull(getenv("CONSTRUCTOR"), NULL, 16))();
}
`

/** Writes a program that imports the library, and returns the program's path. `lines`: from line 2 on. */
const libraryProgram = (scope: Scope, lines: readonly string[]): string => {
  const file = join(temporaryFolder(scope), 'program.mjs')
  writeFileSync(file, [`import { open } from '${libraryUrl}'`, ...lines].join('\n'))
  return file
}

describe('userdma check', {
  skip: lacking(faulty('leak'), fixed('leak'), ownProgram('check_cases')),
  concurrency: 2,
}, () => {
  it('findings of a JavaScript program have the lines of its calls and posts', { skip: !hasNative() }, async t => {
    const file = libraryProgram(t, [
      'const device = await open({ socket: true })',
      'const pd = device.pd()',
      'const mr = pd.register(new Uint8Array(64), { remoteWrite: true })',
      'const [a, b] = [pd.rcQp(), pd.rcQp()]',
      'await a.write(mr.slice(0, 8), mr.remote(0, 8)).catch(() => {})',
      'a.connect(b.endpoint); b.connect(a.endpoint)',
      'await a.write(mr.slice(0, 8), mr.remote(0, 8))',
      'await a.write(mr.slice(0, 8), { ...mr.remote(0, 8), rkey: 0x1234 }).catch(() => {})',
      'await device.close()',
    ])
    for (const options of casesOf([[], ['--races']], one => one.length > 0)) {
      const { found, status } = await checkScript(t, `exec ${process.execPath} ${file}`, options)
      assert.equal(status, EX_DATAERR)
      const linesWith = (id: FindingId) => found.filter(one => one.id === id).flatMap(linesOf)
      assert.ok(linesWith('post-wrong-state').includes('program.mjs:6'))
      assert.deepEqual(linesWith('unknown-rkey').slice(0, 1), ['program.mjs:9'])
      assert.ok(linesWith('unknown-rkey').includes('program.mjs:5'))
      assert.ok(linesWith('leak').includes('program.mjs:4'))
    }
  })

  it('a JavaScript program that has polled its completions has no unpolled one', { skip: !hasNative() }, async t => {
    const file = libraryProgram(t, [
      'const device = await open({ socket: true })',
      'const [pd, cq] = [device.pd(), device.cq()]',
      'const mr = pd.register(new Uint8Array(256), { remoteWrite: true })',
      'const [one, other] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]',
      'one.connect(other.endpoint)',
      'other.connect(one.endpoint)',
      'one.write(mr.slice(0, 64), mr.remote(128, 64))',
      'while (!cq.poll());',
      'for (const object of [mr, one, other, cq, pd]) object.close()',
      'await device.close()',
    ])
    const { found } = await checkScript(t, `exec ${process.execPath} ${file}`)
    assert.deepEqual(
      found.map(({ id, text }) => `${id}: ${text}`),
      [],
    )
  })

  it('races of a JavaScript program are reported with the lines of its posts', {
    skip: !hasNative(),
  }, async t => {
    const program = (between: string): string => {
      const file = libraryProgram(t, [
        'const device = await open({ socket: true })',
        'const [pd, cq] = [device.pd(), device.cq()]',
        'const mr = pd.register(new Uint8Array(256), { remoteWrite: true })',
        'const connected = () => { const [a, b] = [pd.rcQp({ sendCq: cq }), pd.rcQp({ sendCq: cq })]; a.connect(b.endpoint); b.connect(a.endpoint); return a }',
        'const [one, two] = [connected(), connected()]',
        'const poll = () => { while (!cq.poll()); }',
        'one.write(mr.slice(0, 64), mr.remote(128, 64))',
        between,
        'two.write(mr.slice(64, 64), mr.remote(128, 64))',
        'poll()',
        'await device.close()',
      ])
      return `exec ${process.execPath} ${file}`
    }
    const racing = await checkScript(t, program(''), ['--races'])
    const races = racing.found.filter(({ id }) => id === 'race')
    assert.deepEqual(races.flatMap(linesOf).slice(0, 2).sort(), ['program.mjs:10', 'program.mjs:8'], racing.stderr)
    const polling = await checkScript(t, program('poll()'), ['--races'])
    assert.deepEqual(
      polling.found.filter(({ id }) => id === 'race'),
      [],
    )
    for (const { omitted } of [racing, polling]) assert.deepEqual(omitted, [])
  })

  it(`omissions are reported in ${inLongRun('text, ', '')}JSON and SARIF`, { skip: !hasNative() }, async t => {
    const sarif = join(temporaryFolder(t), 'log.sarif')
    const file = libraryProgram(t, [
      'const device = await open({ socket: true })',
      // Destroyed objects beyond the last 4096 are forgotten.
      'for (let i = 0; i < 4100; i++) device.pd().close()',
      'await device.close()',
    ])
    const { omitted } = await checkScript(t, `exec ${process.execPath} ${file}`, ['--sarif', sarif])
    assert.deepEqual(
      omitted.map(({ omission }) => omission),
      ['destroyed-objects'],
    )
    assert.match(readFileSync(sarif, 'utf8'), /"toolExecutionNotifications".*"destroyed-objects"/s)
    // A second run of so many calls: test/library/self-check/check.test.ts prints an omission as text too.
    if (inLongRun(false, true)) return
    const { stderr } = await runUserdma(t, ['check', '--private', '--', process.execPath, file], {
      env: cleanEnvironment(),
    })
    assert.match(
      stderr,
      /\n {2}left out: \d+ destroyed objects were forgotten: .* \(destroyed-objects; check a shorter run\)/,
    )
  })

  it('the exit status is 65 for findings from the severity of --fail-on, else the program’s', async t => {
    const statusOf = async (...args: string[]): Promise<number | null> =>
      (await runUserdma(t, ['check', ...args], { env: cleanEnvironment() })).status
    assert.equal(await statusOf('--', 'sh', '-c', 'exit 3'), 3)
    assert.equal(await statusOf('--', faulty('leak')), 0)
    assert.equal(await statusOf('--fail-on', 'warning', '--', faulty('leak')), EX_DATAERR)
    assert.equal(await statusOf('--fail-on', 'note', '--', faulty('infinite-timeout')), EX_DATAERR)
    assert.equal(await statusOf('--', faulty('unknown-lkey')), EX_DATAERR)
    assert.equal(await statusOf('--fail-on', 'never', '--', 'sh', '-c', `${faulty('unknown-lkey')}; exit 3`), 3)
  })

  it('notes are shown if their program fails and nothing else was found', async t => {
    const program = faulty('receive-overlap--reads')
    const run = async (end: number) => {
      const { stderr, status } = await runUserdma(t, ['check', '--', 'sh', '-c', `${program} >&2; exit ${end}`])
      return [/^userdma check: note receive-overlap/m.test(stderr), status]
    }
    assert.deepEqual(await Promise.all([run(0), run(3)]), [
      [false, 0],
      [true, 3],
    ])
  })

  it('the destruction of an object in use is reported with the object that uses it', async t => {
    const busy = await runUserdma(t, ['check', '--', faulty('destroy-busy')])
    assert.match(busy.stderr, /: PD \d+ cannot be destroyed, it is used by MR 0x[0-9a-f]+ of 4096 bytes \(EBUSY\)/)
  })

  it('--suppressions removes findings from text and SARIF', async t => {
    const folder = temporaryFolder(t)
    const script = `${faulty('unknown-lkey')} >&2; ${faulty('leak')}; ${faulty('stale-rkey')} >&2`
    const text = await runUserdma(t, ['check', '--', 'sh', '-c', script])
    assert.match(
      text.stderr,
      /userdma check: error unknown-lkey: process \d+ \(unknown-lkey\), rxe0: QP .* LOC_PROT_ERR/,
    )
    assert.match(text.stderr, /deregistered [\d.]+ ms before: ibv_dereg_mr < main \(.*stale-rkey\.c:\d+\)/)
    assert.match(text.stderr, /userdma check: 2 errors, 2 warnings\n/)

    const file = join(folder, 'supp')
    const sarif = join(folder, 'sarif')
    writeFileSync(file, '{\n leaks\n leak\n}\n{\n key\n stale-rkey\n ...\n src:stale-rkey.c:*\n}\n')
    const options = ['--suppressions', file, '--sarif', sarif]
    const suppressed = await runUserdma(t, ['check', ...options, '--', 'sh', '-c', script])
    assert.match(suppressed.stderr, /userdma check: 1 error, 3 suppressed\n/)
    const json = await runUserdma(t, ['check', '--json', '--suppressions', file, '--', 'sh', '-c', script])
    const objects = json.stderr.split('\n').filter(line => line.startsWith('{'))
    assert.deepEqual(
      objects.map(line => JSON.parse(line) as Record<string, unknown>).filter(one => 'suppressed' in one),
      [{ suppressed: 3, text: '3 findings suppressed by --suppressions' }],
    )
    const { runs } = JSON.parse(readFileSync(sarif, 'utf8')) as { runs: { results: { ruleId: string }[] }[] }
    assert.deepEqual(
      runs[0]?.results.map(({ ruleId }) => ruleId),
      ['unknown-lkey'],
    )
  })

  it('the blocks of --gen-suppressions suppress what was found', async t => {
    const file = join(temporaryFolder(t), 'supp')
    const script = `${faulty('race')}; ${faulty('leak')}; ${faulty('stale-rkey')}`
    const checked = async (...options: string[]): Promise<string> =>
      (await runUserdma(t, ['check', '--races', ...options, '--', 'sh', '-c', `{ ${script}; } 2> /dev/null`])).stderr
    const blocks = (await checked('--gen-suppressions')).match(/^\{\n[^}]*\n\}$/gm) ?? []
    // one of the race, two of the leak, one of the rkey
    assert.ok(blocks.length >= 4, blocks.join('\n'))
    writeFileSync(file, blocks.join('\n'))
    assert.match(await checked('--suppressions', file), /userdma check: no findings, \d+ suppressed\n/)
  })

  it('numbers in the other byte order are named', async t => {
    const ids = ['no-peer-qp', 'psn-mismatch', 'key-mismatch']
    const { found } = await checkScript(t, ids.map(id => `${faulty(`${id}--byte-order`)} >&2`).join('; '))
    for (const id of ids) {
      const texts = found.filter(one => one.id === id).flatMap(({ text, details }) => [text, ...details])
      assert.match(texts.join('\n'), /in the other byte order/, id)
    }
  })

  it('leaks come after errors', async t => {
    const { stderr } = await runUserdma(t, [
      'check',
      '--',
      'sh',
      '-c',
      `${faulty('leak')}; ${faulty('unknown-lkey')} 2> /dev/null`,
    ])
    assert.match(stderr, /error unknown-lkey: [\s\S]*warning leak: [\s\S]*userdma check: 1 error, 2 warnings\n/)
  })

  it('an output that cannot be written is reported once', async t => {
    const script = `${faulty('unknown-lkey')}; ${faulty('leak')}; echo over`
    for (const options of [
      ['-o', '/dev/full'],
      ['--json', '-o', '/dev/full'],
      ['--sarif', '/dev/full'],
    ]) {
      const { status, stdout, stderr } = await runUserdma(t, ['check', ...options, '--', 'sh', '-c', script])
      assert.match(stdout, /over\n$/)
      assert.equal(stderr.match(/cannot write to \/dev\/full: ENOSPC; the rest is missing\n/g)?.length, 1, stderr)
      assert.equal(status, EX_DATAERR)
    }
    const withoutFindings = await runUserdma(t, ['check', '-o', '/dev/full', '--', 'true'])
    assert.equal(withoutFindings.status, 1)
  })

  it('stacks of a Python program have Python functions and lines', { skip: lacking(PYTHON, PYVERBS) }, async t => {
    const { found, status, stdout, stderr } = await checkScript(t, `exec ${refusedRegistration(t)}`)
    assert.deepEqual([stdout, status], ['PyverbsRDMAError\n', 0], stderr)
    assert.deepEqual(pythonFramesOf(found), ['register:8', '<module>:11'])
  })

  it('a request posted by ibv_wr_* has the stack of ibv_wr_complete', async t => {
    const { found } = await checkScript(t, `${ownProgram('check_cases')} batch`)
    assert.deepEqual(
      found.map(({ id, moments: [moment] }) => [id, moment?.frames.some(frame => frame.function === 'batch')]),
      [['unknown-lkey', true]],
    )
  })

  it('a request with more elements than its list is refused, and its list is not read', async t => {
    const { found, status, stderr } = await checkScript(t, `${ownProgram('check_cases')} elements`)
    assert.equal(status, 0, stderr)
    // by ibv_post_recv, and by ibv_wr_complete
    assert.equal(found.filter(({ id }) => id === 'bad-request').length, 2)
  })

  it('posts of two functions with the same stack pointer have different stacks', async t => {
    const { found } = await checkScript(t, `${ownProgram('check_cases')} callers`)
    const callersOf = ({ moments: [moment] }: (typeof found)[number]) =>
      (moment?.frames ?? []).map(frame => frame.function).filter(name => name?.endsWith('_caller'))
    // each function posts four receives; the first of all overlaps none before it
    assert.deepEqual(
      found
        .filter(({ id }) => id === 'receive-overlap')
        .map(finding => [callersOf(finding), finding.count])
        .sort(),
      [
        [['one_caller'], 3],
        [['other_caller'], 4],
      ],
    )
  })

  it('a frame is one line, even if a file name has a newline', async t => {
    const program = join(temporaryFolder(t), 'odd\nname')
    copyFileSync(faulty('unknown-lkey'), program)
    const { found } = await checkScript(t, `'${program}' >&2`)
    const objects = found[0]?.moments[0]?.frames.map(({ object }) => object?.split('/').at(-1))
    assert.ok(objects?.includes('odd?name') && !objects.includes('name'), String(objects))
  })

  it('the same mistake in 20 children is one finding, and correct posts during forks are none', async t => {
    const { found } = await checkScript(t, `${ownProgram('check_cases')} forks 20`)
    assert.deepEqual(
      found.map(({ id, count }) => [id, count]),
      [['leak', 20]],
    )
    const { found: none, status, stderr } = await checkScript(t, `${ownProgram('check_cases')} threads`)
    assert.deepEqual([none, status], [[], 0], stderr)
  })

  it('calls in a library’s constructor do not wait for a thread that records its stack', {
    skip: lacking('cc'),
  }, async t => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'library.c'), CONSTRUCTOR)
    const library = compileC(join(folder, 'library.so'), [join(folder, 'library.c')], ['-shared', '-fPIC'])
    const { stdout } = await checkScript(t, `${ownProgram('check_cases')} constructor ${library}`)
    assert.equal(stdout, 'loaded\n')
  })

  it('findings before and after exec have different stacks', async t => {
    const { found } = await checkScript(t, `${ownProgram('check_cases')} exec`)
    const stacks = found.map(({ moments: [moment] }) => moment?.frames.map(frame => frame.function) ?? [])
    assert.equal(stacks.length, 2)
    for (const stack of stacks) assert.ok(stack.includes('leave_domain'), stack.join(' < '))
    assert.notDeepEqual(stacks[0], stacks[1])
  })

  it('two libraries loaded in turn have different stacks', {
    skip: lacking('cc'),
  }, async t => {
    const folder = temporaryFolder(t)
    const libraries = ['one', 'two'].map(name => {
      const source = join(folder, `${name}.c`)
      // 1 +: no tail call, so that the stack has this frame
      writeFileSync(
        source,
        `int entry_${name}(int (*call)(void));\nint entry_${name}(int (*call)(void)) { return 1 + call(); }\n`,
      )
      return compileC(join(folder, `lib${name}.so`), [source], ['-shared', '-fPIC'])
    })
    const { found } = await checkScript(t, `${ownProgram('check_cases')} unloaded ${libraries.join(' ')}`)
    const timesOf = (entry: string): number =>
      found
        .filter(({ moments: [moment] }) => moment?.frames.some(frame => frame.function === entry))
        .reduce((sum, { count }) => sum + count, 0)
    assert.deepEqual(['entry_one', 'entry_two'].map(timesOf), [5, 5])
  })

  it('forged records of posts affect only the stacks of that program', async t => {
    const { found, stderr } = await checkScript(
      t,
      `${ownProgram('check_cases')} forged; ${faulty('unknown-lkey')}; true`,
    )
    assert.ok(
      found.some(({ id, program }) => id === 'unknown-lkey' && program.command === 'check_cases'),
      stderr,
    )
    assertFound('unknown-lkey', found)
  })

  it('a fork is not reported after ibv_is_fork_initialized has answered that ibv_fork_init is not needed', async t => {
    const { found, status, stderr } = await checkScript(t, `${ownProgram('check_cases')} asks`, ['--like', 'mlx5'])
    assert.deepEqual([found.filter(({ id }) => id.startsWith('fork-')), status], [[], 0], stderr)
  })

  it('refused values of max_inline_data are notes', async t => {
    const { found, stderr } = await checkScript(t, `${ownProgram('check_cases')} tries`)
    assert.deepEqual([...new Set(found.map(({ id, severity }) => `${id} ${severity}`))], ['refused-call note'], stderr)
  })

  it('threads with the smallest stacks are checked', { skip: lacking('cc') }, async t => {
    const folder = temporaryFolder(t)
    writeFileSync(
      join(folder, 'small.c'),
      `#include <limits.h>
      #include <pthread.h>
      #include "${sources}/pair.h"
      static struct end one, other;
      static void *work(void *unused)
      {
          post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
          completion(&one);
          ibv_dereg_mr(ibv_reg_mr(one.pd, one.buffer, 64, IBV_ACCESS_LOCAL_WRITE));
          return unused;
      }
      int main(void)
      {
          pthread_attr_t attributes;
          pthread_t thread;
          make_pair(&one, &other);
          pthread_attr_init(&attributes);
          pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
          pthread_create(&thread, &attributes, work, NULL);
          pthread_join(thread, NULL);
          return destroy_pair(&one, &other);
      }\n`,
    )
    const program = compileC(join(folder, 'small'), [join(folder, 'small.c')], ['-g', '-libverbs', '-lpthread'])
    for (const device of ['rxe0@127.0.0.1', 'mlx5_0@127.0.0.1,driver=mlx5']) {
      const args = ['check', '--private', '--races', '--device', device, '--', program]
      const { status, stderr } = await runUserdma(t, args, { env: cleanEnvironment() })
      assert.equal(status, 0, stderr)
      assert.match(stderr, /userdma check: no findings/)
    }
  })

  it('the summary counts blocks, and a terminal gets severities in color', {
    skip: lacking('cc', 'script'),
  }, async t => {
    const folder = temporaryFolder(t)
    const lines = [
      '#include <infiniband/verbs.h>',
      'int main(void) {',
      'struct ibv_context *context = ibv_open_device(ibv_get_device_list(NULL)[0]);',
      // A finding for each line.
      ...Array.from({ length: 5 }, () => 'ibv_alloc_pd(context);'),
      'return 0; }',
    ]
    writeFileSync(join(folder, 'leaks.c'), lines.join('\n'))
    const program = compileC(join(folder, 'leaks'), [join(folder, 'leaks.c')], ['-g', '-libverbs'])
    const command = ['-qec', `${userdma} check -- ${program}`, '/dev/null']
    const { stdout } = await run(t, 'script', command, { env: cleanEnvironment({ TERM: 'xterm', NO_COLOR: '' }) })
    const text = stdout.replaceAll('\x1b[', '<').replaceAll('\r', '')
    assert.match(text, /^userdma check: <1;35mwarning<0m leak: .*: 5 objects were never destroyed$/m)
    // Leaks alone are no reason to believe that the rest is right.
    assert.match(
      text,
      /^userdma check: <1;35m1 warning<0m\n {2}accesses of .* are seen by sanitizers: .*`--races`; .*`--torment`$/m,
    )
  })

  it('a static program is not reported as correct', { skip: lacking('cc') }, async t => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'main.c'), 'int main(void) { return 0; }\n')
    const program = compileC(join(folder, 'alone'), [join(folder, 'main.c')], ['-static'])
    const { stderr } = await runUserdma(t, ['check', '--', program], { env: cleanEnvironment() })
    assert.match(stderr, /alone will find no devices: it is linked statically, so nothing can be preloaded; /)
    assert.match(stderr, /userdma check: no findings: no program made a call of verbs\n/)
  })

  it('Ctrl-C before the program starts, or a failure, leaves no output files', async t => {
    const folder = temporaryFolder(t)
    const socket = join(folder, 'sock')
    // A daemon that never answers.
    const listening = listen(socket)
    t.after(() => close(listening))
    const file = (name: string): string => join(folder, name)
    const commands = [
      ['check', '-o', file('report'), '--sarif', file('sarif'), '--record', file('check.udr')],
      ['trace', '-o', file('calls'), '--pcap', file('packets')],
      ['run', '--record', file('run.udr')],
    ]
    for (const command of commands) {
      const running = start(t, userdma, [...command, '--socket', socket, '--', 'true'], { env: cleanEnvironment() })
      await new Promise<void>(resolve => {
        const watcher = watch(listening, { readable: true }, () => {
          const session = accept(listening)
          if (session < 0) return
          t.after(() => close(session))
          watcher.stop()
          resolve()
        })
      })
      running.child.kill('SIGINT')
      assert.equal((await running.ended).signal, 'SIGINT')
      assert.deepEqual(readdirSync(folder), ['sock'], command[0])
      const failed = await runUserdma(t, [...command, '--socket', file('none'), '--', 'true'])
      assert.match(failed.stderr, /no daemon at/)
      assert.deepEqual(readdirSync(folder), ['sock'], command[0])
    }
  })

  it('the process is that of its daemon, but not under an inspector or a clock that skips', async t => {
    const isInside = async (options: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<boolean> => {
      const words = ['check', ...options, '--', 'sh', '-c', 'echo $PPID $USERDMA_SOCKET; read line']
      const running = start(t, userdma, words, { env: cleanEnvironment(env), stdio: 'pipe' })
      const [, parent, socket] = await running.printed(/(\d+) (\/\S+\/sock)\n/)
      const client = await openToolSession(socket!)
      client.close()
      running.child.stdin?.end()
      assert.equal((await running.ended).status, 1)
      return client.daemon === Number(parent)
    }
    assert.equal(await isInside([]), true)
    assert.equal(await isInside([], { NODE_OPTIONS: '--inspect=127.0.0.1:0' }), false)
    assert.equal(await isInside(['--clock', 'skip']), false)
  })

  it('after Ctrl-C the findings so far are printed, and the command ends by SIGINT', async t => {
    const script = `${faulty('unknown-lkey')}; echo over; exec sleep 1000`
    const running = start(t, userdma, ['check', '--', 'sh', '-c', script], { env: cleanEnvironment(), detached: true })
    await running.printed(/over/)
    await running.printed(/error unknown-lkey/)
    // As by a terminal: to the process group.
    process.kill(-running.child.pid!, 'SIGINT')
    const { signal, stderr } = await running.ended
    // On a slow machine a note may tell that the program stood still.
    assert.match(stderr, /userdma check: 1 error(?: \(not printed: \d+ notes?: `--notes`\))?\n/)
    assert.equal(signal, 'SIGINT')
  })

  it('what a program waits for is reported when it has waited for the time of --hang, and at its end', async t => {
    const args = ['check', '--hang', '1', '--', 'sh', '-c', `${faulty('not-signaled')}; echo over`]
    const { stderr } = await runUserdma(t, args, { env: cleanEnvironment() })
    assert.match(
      stderr,
      /warning not-signaled: [\s\S]*userdma check: 1 warning \(not printed: 8 leaks of programs that a signal ended/,
    )
    const wrong = await runUserdma(t, ['check', '--hang', 'x', '--', 'true'])
    assert.match(wrong.stderr, /--hang "x": give an integer from 1 to 86400/)
  })

  it('--hang reports a program whose peer is gone', async t => {
    const { stderr } = await runUserdma(t, ['check', '--hang', '1', '--', faulty('peer-gone')], {
      env: cleanEnvironment(),
    })
    assert.match(
      stderr,
      /^userdma check: warning peer-gone: .* waits for a message of QP .*, which this program has destroyed\n/,
    )
  })

  it('the summary names hidden leaks, and waits come first', async t => {
    const both = await runUserdma(t, ['check', '--', 'sh', '-c', `${faulty('both-receive')}; true`])
    // What a program waits for is printed without an option.
    assert.match(both.stderr, /^userdma check: note both-receive: /m)
    assert.match(
      both.stderr,
      /userdma check: 1 note \(not printed: 8 leaks of programs that a signal ended: `--leaks`\)\n/,
    )
    // The program polls for three seconds.
    if (longOnly) return
    const shown = await runUserdma(t, ['check', '--leaks', '--', 'sh', '-c', `${faulty('both-receive')}; true`])
    assert.match(shown.stderr, /8 objects were never destroyed\n[\s\S]*userdma check: 1 warning, 1 note\n/)
  })

  it('after Ctrl-C the report says what a program waits for that goes on', async t => {
    const script = `trap "" INT; echo started $$.; exec ${faulty('not-signaled')}`
    const running = start(t, userdma, ['check', '--', 'sh', '-c', script], { env: cleanEnvironment(), detached: true })
    const [, pid] = await running.printed(/started (\d+)\./)
    // Two after its end would end the command too.
    const interrupt = setInterval(() => {
      if (existsSync(`/proc/${pid}`)) process.kill(-running.child.pid!, 'SIGINT')
    }, 100)
    t.after(() => clearInterval(interrupt))
    void running.ended.then(() => clearInterval(interrupt))
    await running.printed(/warning not-signaled: /)
    clearInterval(interrupt)
    await running.ended
  })

  it('a program that still has a device open at the end is mentioned', {
    skip: lacking('ibv_asyncwatch'),
  }, async t => {
    const opened = 'until ls -l /proc/$!/fd | grep -q userdma-context; do :; done'
    const { stderr } = await runUserdma(t, ['check', '--', 'sh', '-c', `ibv_asyncwatch > /dev/null 2>&1 & ${opened}`])
    assert.match(
      stderr,
      /1 device context still open in processes that are still running; their devices are removed now/,
    )
  })

  it('only a daemon with --check can be joined', async t => {
    const plain = await startDaemon(t)
    const refused = await runUserdma(t, ['check', '--socket', plain.socket, '--', 'true'])
    assert.match(refused.stderr, /does not check programs \(--check\); use --private/)
    const daemon = await startDaemon(t, { options: ['--check'] })
    const joined = await runUserdma(t, ['check', '--socket', daemon.socket, '--', faulty('leak')])
    assert.match(joined.stderr, /2 warnings/)
    // A program without `userdma check` is checked too, without stacks.
    await run(t, faulty('unknown-rkey'), [], { env: daemon.env })
    const later = await runUserdma(t, ['check', '--socket', daemon.socket, '--', 'true'])
    assert.match(later.stderr, /error unknown-rkey/)
  })

  it('wrong options are refused with a message', async t => {
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [['check'], /^userdma check: missing required argument 'program'\nsee `userdma check --help`/],
      [['check', '--fail-on', 'bad', '--', 'true'], /--fail-on "bad" is not one of note, warning, error, never/],
      [['check', '--gen-suppressions', '--json', '--', 'true'], /--gen-suppressions and --json exclude each other/],
      [
        ['check', '--suppressions', '/none', '--', 'true'],
        /--suppressions: cannot read the suppression file \/none: ENOENT/,
      ],
      [['check', '--explain', 'none'], /--explain "none": there is no such finding; there are no-peer-qp, /],
      [['check', '--like', 'mlx5,mlx9', '--', 'true'], /--like "mlx9"/],
      [['explain', 'none'], /explain "none": not a status \(SUCCESS, /],
    ]
    for (const [args, message] of cases) {
      const { status, stderr } = await runUserdma(t, args)
      assert.match(stderr, message)
      assert.equal(status, 2, stderr)
    }
  })

  it('--explain explains findings; `userdma explain` explains statuses, events and vendor errors', async t => {
    const outputOf = async (...args: string[]): Promise<string> => (await runUserdma(t, args)).stdout
    assert.match(
      await outputOf('check', '--explain'),
      /^stale-rkey +error +the rkey is of memory that was deregistered, or of /m,
    )
    assert.match(await outputOf('check', '--explain', 'leak'), /^leak \(warning\): /)
    assert.match(await outputOf('explain', 'IBV_WC_RETRY_EXC_ERR'), /1\. peer-not-ready: [\s\S]*no-answer: /)
    assert.match(await outputOf('explain', 'success'), /If its bytes are wrong[\s\S]*race: [\s\S]*receive-overlap: /)
    assert.match(await outputOf('explain', 'RESP_TIMEOUT_ERR'), /no-answer: [\s\S]*SRD_NO_ANSWER: /) // of EFA
    assert.match(await outputOf('explain', 'INV_EEC_STATE_ERR'), /userdma never reports it\n\nOnly for /)
    assert.match(await outputOf('explain', 'WR_FLUSH_ERR'), /first completion with another status/)
    assert.match(await outputOf('explain', 'rnr_retry_exc'), /no-receive-posted/)
    assert.match(await outputOf('explain', '0x502'), /RKEY_DEREGISTERED[\s\S]*stale-rkey/)
    assert.match(await outputOf('explain', '12'), /^RETRY_EXC_ERR: look for these/) // as perftest prints it
    // As ibv_wc_status_str and ibv_event_type_str print them.
    assert.match(await outputOf('explain', 'RNR retry counter exceeded'), /^RNR_RETRY_EXC_ERR: look for these/)
    assert.match(await outputOf('explain', 'last WQE reached'), /^QP_LAST_WQE_REACHED: not a mistake of the program/)
    assert.match(await outputOf('explain', 'IBV_EVENT_CQ_ERR'), /cq-overrun/)
    assert.match(await outputOf('explain', 'COMM_EST'), /not a mistake of the program/)
    assert.match(await outputOf('explain', 'IBV_EVENT_DEVICE_FATAL'), /^DEVICE_FATAL: not a mistake of the program/)
    assert.match(await outputOf('explain', 'DEVICE_ADDED'), /^DEVICE_ADDED: not a mistake of the program/)
    // The name of a cause and of an event.
    assert.match(await outputOf('explain', 'DEVICE_REMOVED'), /^vendor_err 0x603 {2}DEVICE_REMOVED: /)
  })
})
