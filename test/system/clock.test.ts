/*
 * The clock that skips (`--clock skip`), with unmodified programs.
 */
import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { repoRoot } from '../paths.ts'
import { compileC } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  type Running,
  run,
  runUserdma,
  type Scope,
  start,
  temporaryFolder,
  userdma,
} from './programs.ts'

const library = join(repoRoot, 'build', 'native', 'libuserdma_clock.so')

/** `userdma run` with a clock that skips. */
const skip = (t: Scope, ...words: readonly string[]) =>
  runUserdma(t, ['run', '--private', '--clock', 'skip', '--', ...words])

/** A program of docs/findings. */
const ownFinding = (name: string): string => join(repoRoot, 'build', 'findings', name)

/** A library for which the machine's clock is 1000 s behind once the file SET_BACK exists. */
const SET_CLOCK = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *const file = getenv("SET_BACK");
    const int result = next(clock, time);
    if (result == 0 && file && access(file, F_OK) == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec -= 1000;
    return result;
}
`

/** Waits for a semaphore in a file of a folder; or posts it, after two seconds. */
const SEMAPHORE = `
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int count, char **words)
{
    if (chdir(words[1]) != 0)
        return 1;
    const int fd = open("shared", O_RDWR | O_CREAT, 0600);
    if (ftruncate(fd, sizeof(sem_t)) != 0)
        return 1;
    sem_t *const semaphore = mmap(NULL, sizeof *semaphore, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (count > 2)
        return sleep(2) != 0 || sem_post(semaphore) != 0;
    sem_init(semaphore, 1, 0);
    printf("waits\\n");
    fflush(stdout);
    return sem_wait(semaphore) != 0;
}
`

/** Writes to the numbers of used places in the clock's page (shim/clock/clock.h), and sleeps an hour. */
const OVERWRITE = `
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
    char line[512];
    unsigned *page = NULL;
    FILE *const maps = fopen("/proc/self/maps", "r");
    while (!page && fgets(line, sizeof line, maps))
        if (strstr(line, ".clock"))
            sscanf(line, "%p", (void **)&page);
    if (!page)
        return 1;
    page[10] = page[11] = page[12] = ~0u;
    return sleep(3600) != 0;
}
`

/** Cases of test/programs/clock/details.c. */
const DETAILS = {
  'sockets and pipes':
    'copied_socket stream_of_socket socket_alone accepted_socket held_back named_pipes terminals spliced packet_time',
  'sleeps and children':
    'children ended_children shells remainders refused_clocks refused_times no_pointers long_handler late_handler left_wait kept_errno read_by_disk',
  timers:
    'copied_timer shared_timer unread_timer far_timer past_timers short_timer one_signal_for_two notice_blocks_signals system_calls blocked_timer forgotten_timer lock_with_limit',
}

const needed = [
  library,
  ownProgram('hours'),
  ownProgram('answers'),
  ownProgram('spins'),
  ownProgram('confined'),
  ownProgram('timerfds'),
  ownProgram('details'),
  'ucmatose',
  'ib_send_bw',
]

describe('a clock that skips', { skip: lacking(...needed) }, () => {
  for (const [command, ...options] of [['run', '--private'], ['check']] as const)
    it(`skips an hour in each way to wait, in threads and children too (${command})`, async t => {
      const finished = await runUserdma(t, [command, ...options, '--clock', 'skip', '--', ownProgram('hours')])
      assertGood(finished)
      const lines = finished.stdout.trim().split('\n')
      assert.ok(lines.length >= 28, finished.stdout)
      for (const line of lines) assert.match(line, /^\w+ 360[01] 360[01]$/)
      assert.match(finished.stderr, /userdma: (?:9[7-9]|1\d\d),\d{3} s skipped in \d+ jumps, \d+\.\d s real\n/)
    })

  it('ends no wait whose answer is on its way, by threads, processes, pipes and sockets', async t => {
    const finished = await skip(t, ownProgram('answers'), '5', '20', '100')
    assertGood(finished)
    assert.equal(finished.stdout, '500 answers in time\n')
  })

  for (const device of ['rxe0@127.0.0.1', 'mlx5_0@127.0.0.1,driver=mlx5', 'efa_0@127.0.0.1,driver=efa'])
    it(`lets time go on while a program spins on a completion queue of ${device}, which takes real time if asked`, async t => {
      const spin = ['--', ownProgram('spins'), 'alone', '5', 'cq', device.replace(/@.*/, '')]
      const words = ['run', '--private', '--device', device, '--clock', 'skip']
      const skipped = await runUserdma(t, [...words, ...spin])
      assertGood(skipped)
      assert.match(skipped.stdout, /^5\.\d s\n$/)
      assert.match(skipped.stderr, /\d s of it by spinning, /)
      const real = await runUserdma(t, [...words, '--no-clock-spin', ...spin.with(-3, '0.5')])
      assertGood(real)
      assert.match(real.stderr, /userdma: 0 s skipped in 0 jumps, /)
    })

  it('leaves the clock alone that perftest compares with the counter of the processor', async t => {
    // Without -R: its client does not wait until the server of its second connection listens (rdmacm/rdmacm.ts).
    const pair = 'ib_send_bw -n 100 & sleep 0.5; ib_send_bw -n 100 127.0.0.1 && wait $!'
    const finished = await runUserdma(t, ['run', '--private', '--clock', 'skip', '--verbose', '--', 'sh', '-c', pair])
    assertGood(finished)
    assert.match(finished.stderr, /not covered: .*the processor's counter, which ib_send_bw reads/)
  })

  it('keeps real time for a sleep that it cannot end, and says so', async t => {
    for (const [way, said] of [
      ['blocked', /not covered: a wait of confined, which blocks the C library's signals$/m],
      ['filtered', /not covered: .*seccomp filter of its own/],
    ] as const) {
      const finished = await skip(t, ownProgram('confined'), way)
      assertGood(finished)
      assert.match(finished.stdout, /^0\.[5-9] s\n$/, way)
      assert.match(finished.stderr, said)
    }
  })

  for (const [way, wait] of [
    ['stream', 'a read of a socket with a time limit by the C library'],
    ['ring', 'a wait by io_uring'],
  ] as const)
    it(`does not pass ${wait}, and says so`, async t => {
      const finished = await skip(t, 'sh', '-c', `${ownProgram('confined')} ${way} & sleep 100; wait $!`)
      if (finished.status === 77) return t.skip('the system forbids io_uring')
      assertGood(finished)
      assert.match(finished.stdout, /^0\.[5-9] s\n$/)
      assert.match(finished.stderr, /not covered: a wait of confined \(system call \d+\)$/m)
    })

  for (const [call, number, expected, said] of [
    [
      'pidfd_getfd',
      { x64: 438, arm64: 438 },
      /^0\.[5-9] s\n$/,
      /100 s skipped .*not covered: timerfds: .*pidfd_getfd is forbidden/,
    ],
    ['rt_tgsigqueueinfo', { x64: 297, arm64: 240 }, /^0\.5 s\n$/, /10[01] s skipped in 2 jumps, \d+\.\d s real\n$/],
  ] as const)
    it(`falls back to what works without the system call ${call}, and says what is lost`, async t => {
      const script = `${ownProgram('confined')} timerfd; sleep 100`
      const without = ['without', String(number[process.arch as 'x64' | 'arm64'])]
      const words = [...without, userdma, 'run', '--private', '--clock', 'skip', '--', 'sh', '-c', script]
      const finished = await run(t, ownProgram('confined'), words, { env: cleanEnvironment() })
      assertGood(finished)
      assert.match(finished.stdout, expected)
      assert.match(finished.stderr, said)
    })

  it("goes on when the machine's clock is set back", async t => {
    const folder = temporaryFolder(t)
    const source = join(folder, 'set.c')
    writeFileSync(source, SET_CLOCK)
    const library = compileC(join(folder, 'set.so'), [source], ['-shared', '-fPIC', '-ldl'])
    const script = 'before=$(date +%s); touch "$SET_BACK"; sleep 100; echo $(($(date +%s) - before))'
    const env = { LD_PRELOAD: library, SET_BACK: join(folder, 'back') }
    const finished = await runUserdma(t, ['run', '--private', '--clock', 'skip', '--', 'sh', '-c', script], {
      env: cleanEnvironment(env),
    })
    assertGood(finished)
    assert.match(finished.stdout, /^10[0-5]\n$/)
  })

  it('tells what is left of a timerfd, also after spinning', async t => {
    const finished = await skip(t, ownProgram('timerfds'), 'left')
    assertGood(finished)
    assert.match(finished.stdout, /^(90\.0|89\.\d)\n$/)
  })

  it('passes no timer of a thousand and more, and knows those that were inherited, copied or closed', async t => {
    const many = await skip(t, ownProgram('timerfds'), 'many', '1500')
    assertGood(many)
    // A jump from the first timer to the last would make the first 1.5 s late. Real time of a busy machine counts too.
    assert.match(many.stdout, /^1[1-3]\.\d 0\.\d+\n$/)
    for (const way of ['inherited', 'copied', 'again']) assertGood(await skip(t, ownProgram('timerfds'), way))
  })

  for (const [details, cases] of Object.entries(DETAILS))
    it(`is to programs as the machine's: ${details}`, async t => {
      const script = `for name in ${cases}; do ${ownProgram('details')} $name || exit; done`
      assertGood(await skip(t, 'sh', '-c', script))
    })

  it('says what kept real time', async t => {
    const script = 'n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; sleep 5'
    const words = ['run', '--private', '--clock', 'skip', '--verbose', '--', 'sh', '-c', script]
    const { stderr } = await runUserdma(t, words)
    assert.match(
      stderr,
      /s real\n(?: {2}real .*\n)* {2}real time for \d\.\d{3} s: sh \(process (\d+), thread \1\) runs\n/,
    )
  })

  it('lets time go on while two processes spin', async t => {
    // Both need a processor at the same time: in a session of its own, which Linux prefers if it may.
    const preferred = '{ echo -20 > /proc/self/autogroup; } 2> /dev/null; exec "$0" "$@"'
    const words = [userdma, 'run', '--private', '--clock', 'skip', '--', ownProgram('spins'), 'alone', '5', 'two']
    const finished = await run(t, 'sh', ['-c', preferred, ...words], { env: cleanEnvironment(), detached: true })
    assertGood(finished)
    assert.match(finished.stderr, /s of it by spinning, /)
  })

  it('adds no time by spinning while another thread or process works, however it was woken', async t => {
    const finished = await skip(t, ownProgram('spins'), 'asks', '35')
    assertGood(finished)
    assert.match(finished.stdout, /^at most [0-4]\.\d+ ms ahead\n$/)
  })

  it('skips what a connection to nobody takes', async t => {
    const words = ['run', '--private', '--link', 'udp', '--clock', 'skip', '--', 'ucmatose', '-s', '127.0.0.9']
    const { stdout, stderr } = await runUserdma(t, words)
    assert.match(stdout, /RDMA_CM_EVENT_UNREACHABLE, error: -110/)
    assert.match(stderr, /7\d(?:\.\d)? s skipped/)
  })

  it('waits for what is on its way: threads that work, and devices', async t => {
    const script = 'n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; echo counted'
    const { stdout } = await skip(t, 'sh', '-c', `timeout 100000 sh -c '${script}' & sleep 5; wait; echo ended`)
    assert.equal(stdout, 'counted\nended\n')
  })

  it('skips the retries of a device', async t => {
    const rule = 'drop=100%,opcode=RC_SEND_ONLY,count=2'
    const { status, stderr } = await runUserdma(t, [
      ...['run', '--private', '--clock', 'skip', '--fault', rule, '--'],
      ...['sh', '-c', 'ucmatose -C 1 & sleep 60; ucmatose -C 1 -s 127.0.0.1; wait'],
    ])
    assert.equal(status, 0, stderr)
    assert.match(stderr, /(?:59(?:\.\d)?|6\d(?:\.\d)?) s skipped/)
  })

  it('tells a deadlock of two programs, and ends with 66', async t => {
    const [pair, words] = ['rping -s -p 7000 & ucmatose -p 7001; wait', ['--clock', 'skip', '--', 'sh', '-c']]
    const finished = await runUserdma(t, ['run', '--private', ...words, pair])
    assert.equal(finished.status, 66, finished.stderr)
    assert.match(finished.stderr, /deadlock: all threads wait, and no time limit is left\n/)
    const both = /who waits for whom:[\s\S]*\(rping\) waits for .*\n[\s\S]*\(ucmatose\) waits /
    assert.match(finished.stderr, both)
    const stackOf = (program: string) => new RegExp(`\\(${program}\\) is at\\n {4}#0 rdma_get_cm_event `)
    for (const program of ['rping', 'ucmatose']) assert.match(finished.stderr, stackOf(program))
    const checked = await runUserdma(t, ['check', ...words, pair])
    assert.equal(checked.status, 66, checked.stderr)
    assert.match(checked.stderr, both)
    assert.match(checked.stderr, stackOf('ucmatose'))
    assert.match(checked.stderr, /could not go on: all threads waited, and no time limit was left; SIGTERM ended it/)
  })

  it('tells waits of programs whose time limit it skips', async t => {
    for (const program of ['deadlock', 'lost-wakeup']) {
      const words = ['check', '--clock', 'skip', '--', 'timeout', '600', ownFinding(program)]
      const { stderr } = await runUserdma(t, words)
      assert.match(
        stderr,
        new RegExp(
          `check: warning ${program}: process \\d+ \\(${program}\\), rxe0: .* (?:has no end|was armed with 1 unpolled completion in it, which raise no event)`,
        ),
      )
    }
  })

  it('knows a hang of a walk when it is one', async t => {
    const script = 'rping -s -C 1 -a 127.0.0.1 & sleep 1; rping -c -C 1 -a 127.0.0.1; wait'
    const words = ['walk', '--clock', 'skip', '--kinds', 'calls', '--points', '1', '--', 'sh', '-c', script]
    const { status, stdout, stderr } = await runUserdma(t, words)
    assert.equal(status, 65, stdout + stderr)
    assert.match(stdout + stderr, /hang: cq\.reqNotify fails .*: all threads wait, and no time limit is left/)
    assert.match(stdout + stderr, /userdma run --private .*--clock skip --fault/)
  })

  it('is left by a walk of a program that fails with it', async t => {
    const script = 'a=$(cut -d. -f1 /proc/uptime); sleep 2; b=$(cut -d. -f1 /proc/uptime); [ $b -gt $a ]'
    const { status, stderr } = await runUserdma(t, ['walk', '--', 'sh', '-c', script])
    assert.match(stderr, /sh fails without failures \(exit status 1\), so the walk takes real time \(--clock real\)\n/)
    assert.equal(status, 0, stderr)
  })

  it('takes a wait for input from elsewhere for no deadlock', async t => {
    const command = `${userdma} run --private --clock skip --`
    const script = `{ ${command} sleep 1000; ${command} sleep 1000; echo over; } | ${command} cat`
    const finished = await start(t, 'sh', ['-c', script]).ended
    assertGood(finished)
    assert.equal(finished.stdout, 'over\n')
  })

  it('takes a wait for a signal by a pipe to itself for no deadlock, and a timer that was deleted for no end of a wait', async t => {
    const startDetails = (name: string): Running =>
      start(t, userdma, ['run', '--private', '--clock', 'skip', '--', ownProgram('details'), name])
    const waiting = startDetails('wait_for_end')
    await waiting.printed(/waits/)
    // So that a deadlock would be seen.
    await setTimeout(2000)
    waiting.child.kill()
    assertGood(await waiting.ended)
    const finished = await startDetails('wait_after_notice').ended
    assert.equal(finished.status, 66, finished.stderr)
  })

  it('takes a wait for a semaphore of another session for no deadlock', async t => {
    const folder = temporaryFolder(t)
    const source = join(folder, 'semaphore.c')
    writeFileSync(source, SEMAPHORE)
    const program = compileC(join(folder, 'semaphore'), [source], ['-pthread'])
    const waiting = start(t, userdma, ['run', '--private', '--clock', 'skip', '--', program, folder])
    await waiting.printed(/waits/)
    assertGood(await run(t, program, [folder, 'post']))
    assertGood(await waiting.ended)
  })

  it('is kept by its daemon when a program has overwritten how much of its page is used', async t => {
    const folder = temporaryFolder(t)
    const source = join(folder, 'overwrite.c')
    writeFileSync(source, OVERWRITE)
    assertGood(await skip(t, compileC(join(folder, 'overwrite'), [source])))
  })

  it('goes on by the time of the machine for programs whose command and daemon were killed', async t => {
    const script = 'echo begins; timeout 2 sh -c "while :; do :; done"; timeout 1 sleep 3600; echo $?'
    const running = start(t, userdma, ['run', '--private', '--clock', 'skip', '--', 'sh', '-c', script])
    await running.printed(/begins/)
    running.child.kill('SIGKILL')
    assert.match((await running.ended).stdout, /\n124\n/)
  })

  it('is refused by a daemon with the real clock, and ends with its daemon', async t => {
    const socket = join(temporaryFolder(t), 'sock')
    const real = start(t, userdma, ['daemon', '--socket', socket])
    await real.printed(/ready on/)
    const refused = await runUserdma(t, ['run', '--socket', socket, '--clock', 'skip', '--', 'true'])
    assert.match(refused.stderr, /has --clock real, not skip/)
    real.child.kill()
    assertGood(await real.ended)
    const skipping = start(t, userdma, ['daemon', '--socket', socket, '--clock', 'skip'])
    await skipping.printed(/ready on/)
    assertGood(await runUserdma(t, ['run', '--socket', socket, '--', 'sleep', '3600']))
    skipping.child.kill()
    assertGood(await skipping.ended)
    assert.ok(!existsSync(`${socket}.clock`))
  })
})
