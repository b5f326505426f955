/*
 * Programs without RDMA behave the same with and without the preload library (the shim). No daemon serves the socket:
 * an attempt to connect would print a message.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { compileC, requireTool, scratchFolder } from '../tools.ts'
import { currentShim, runProgram, shimIsPossible } from './program.ts'

const folder = scratchFolder()

/** Each script runs in an empty folder. */
const commands: Readonly<Record<string, readonly [tool: string, script: string]>> = {
  'a shell with pipes, redirections and high descriptors': [
    'sh',
    'exec 9>out; echo one >&9; exec 9>&-; (echo two; echo three >&2) 2>&1 | sort; cat out; exit 3',
  ],
  'bash with process substitution and a descriptor of 900': [
    'bash',
    'exec 900>nine; echo x >&900; exec 900>&-; cat nine; diff <(echo a) <(echo b); read -r l < <(echo q); echo "$l"',
  ],
  'git makes a repository and commits': [
    'git',
    'export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q . && echo x > f && git add f && ' +
      'git -c user.name=a -c user.email=a@b -c core.abbrev=7 commit -q -m first --date=@0 && git log --format=%s && git fsck',
  ],
  'python3 runs programs with all descriptors closed': [
    'python3',
    `python3 -c '
import os, subprocess, socket, multiprocessing, tempfile
print(subprocess.run(["sh", "-c", "ls /proc/self/fd | wc -l"], close_fds=True, capture_output=True).stdout)
print(subprocess.run(["cat"], input=b"hello", stdout=subprocess.PIPE, close_fds=False).stdout)
pid = os.fork()
if pid == 0:
    os.closerange(3, 2000)
    os.execv("/bin/echo", ["echo", "child"])
os.waitpid(pid, 0)
print(os.posix_spawn("/bin/echo", ["echo", "spawned"], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 5)]) > 0, os.wait()[1])
a, b = socket.socketpair(); a.sendall(b"x"); print(b.recv(1), os.stat("/dev/null").st_rdev, os.path.realpath("/dev/../dev/null"))
try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(); print("netlink")
except OSError as e: print(e)
with tempfile.TemporaryDirectory() as d: print(os.listdir(d), os.access(d, os.W_OK))
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(abs, [-1, -2]))
'`,
  ],
  'node starts children and workers': [
    'node',
    `node -e '
const { execFileSync } = require("child_process"), fs = require("fs"), { Worker } = require("worker_threads")
console.log(execFileSync("echo", ["child"], { encoding: "utf8" }), fs.statSync("/dev/null").rdev, fs.realpathSync("/dev/../dev/null"))
fs.writeFileSync("file", "text"); console.log(fs.readFileSync("file", "utf8"), fs.readdirSync("."))
new Worker("require(\\"worker_threads\\").parentPort.postMessage(7)", { eval: true }).on("message", m => console.log("worker", m))
'`,
  ],
  'tar packs and unpacks': [
    'tar',
    'mkdir d && echo x > d/a && ln -s a d/b && tar cf t.tar --owner=0 --group=0 --mtime=@0 d && rm -r d && tar xvf t.tar && ' +
      'cksum t.tar && readlink d/b',
  ],
  'find walks device files': [
    'find',
    'find /dev/null /dev/zero /sys/class/mem -maxdepth 1 -printf "%p %y %m\\n" | sort',
  ],
  'ls shows /sys/class and /dev': [
    'ls',
    'ls /sys/class; ls -l /dev/null | cut -c1-10; ls /nowhere; ls /dev/inf*; echo $?',
  ],
  'locales and conversions': [
    'iconv',
    'LC_ALL=C.UTF-8 sh -c "printf \'é\\n\' | iconv -f utf-8 -t latin1 | od -c; locale charmap"',
  ],
  'xargs and many processes': ['xargs', 'seq 40 | xargs -P 4 -n 1 sh -c "echo \\$0" | sort -n'],
}

/** Asserts that a program does the same without and with the shim; returns what it does. */
const assertSameWithShim = async (program: string, args: readonly string[], t: { name: string }) => {
  const runFolder = mkdtempSync(join(folder, 'run-'))
  const plain = { PATH: process.env.PATH, TZ: 'UTC', LC_ALL: 'C', GIT_COMMITTER_DATE: '@0 +0000' }
  const withShim = { ...plain, LD_PRELOAD: currentShim(folder), USERDMA_SOCKET: join(runFolder, 'nobody') }
  const results = []
  for (const [name, env] of Object.entries({ plain, withShim })) {
    // The same name for both runs: programs print it.
    const cwd = join(runFolder, name, 'x')
    mkdirSync(cwd, { recursive: true })
    const { status, stdout, stderr } = await runProgram(program, args, env, { cwd })
    const withoutFolder = (text: string): string => text.replaceAll(cwd, '.')
    results.push({ status, stdout: withoutFolder(stdout), stderr: withoutFolder(stderr) })
  }
  assert.deepEqual(results[1], results[0], t.name)
  return results[0]
}

for (const [title, [tool, script]] of Object.entries(commands)) {
  test(`unchanged: ${title}`, async t => {
    if (!shimIsPossible(t) || !requireTool(tool, t)) return
    const { stdout } = await assertSameWithShim(tool === 'bash' ? 'bash' : 'sh', ['-c', script], t)
    assert.ok(stdout.length > 0, 'the commands print something')
  })
}

/** A program that closes, copies and inherits descriptors in ways that shells do not. */
const UNUSUAL = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    int closed = 0;
    for (int fd = 3; fd < 2000; fd++)
        closed += close(fd) == 0;
    printf("closed %d\\n", closed);
    printf("%d %d %d\\n", dup2(1, 901), close(901), close(901));
    printf("%d\\n", close_range(3, ~0u, 0));
    closefrom(3);
    printf("%d %d\\n", ioctl(1, 0xc0181b01, 0), errno); /* RDMA_VERBS_IOCTL */
    printf("%d %d\\n", fcntl(1, F_DUPFD, 950), fcntl(950, F_GETFD));
    pid_t pid = vfork();
    if (pid == 0) {
        close(950);
        dup2(1, 5);
        execl("/bin/echo", "echo", "from vfork", NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
    printf("%d\\n", fcntl(950, F_GETFD));
    fflush(stdout);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, 1, 12);
    posix_spawn_file_actions_addclose(&actions, 950);
    char *arguments[] = {"echo", "spawned", NULL};
    posix_spawn(&pid, "/bin/echo", &actions, NULL, arguments, environ);
    waitpid(pid, NULL, 0);
    struct stat st;
    errno = 0;
    printf("%d %d\\n", stat("/sys/class/infinite", &st), errno);
    printf("%d %d\\n", open("/dev/infiniban", O_RDWR), errno);
    FILE *f = fopen("/dev/zero", "r");
    char text[4];
    printf("%zu\\n", fread(text, 1, 4, f));
    printf("%d\\n", fclose(f));
    return 5;
}
`

test('unchanged: a program with unusual calls on descriptors, vfork and posix_spawn', async t => {
  if (!shimIsPossible(t)) return
  const source = join(folder, 'unusual.c')
  writeFileSync(source, UNUSUAL)
  const { status, stdout } = await assertSameWithShim(compileC(join(folder, 'unusual'), [source]), [], t)
  assert.equal(status, 5)
  assert.match(stdout, /from vfork.*spawned/s)
})

test('threads of a library’s constructor may all make the first call at once', async t => {
  if (!shimIsPossible(t)) return
  const source = join(repoRoot, 'test/shim/starting_threads.c')
  const library = compileC(join(folder, 'starting.so'), [source], ['-shared', '-fPIC', '-lpthread'])
  const empty = join(folder, 'empty.c')
  writeFileSync(empty, 'int main(void) { return 0; }\n')
  const program = compileC(join(folder, 'starting'), [empty], ['-Wl,--no-as-needed', library])
  const RUNS = 600
  const repeat = compileC(join(folder, 'repeat'), [source], ['-DPROGRAM'])
  const ended = await runProgram(repeat, [String(RUNS), program], { LD_PRELOAD: currentShim(folder) })
  assert.deepEqual(ended, { status: 0, stdout: '', stderr: '' })
})

test('the shim exports no internal functions', async t => {
  if (!shimIsPossible(t) || !requireTool('nm', t, 'binutils')) return
  const { stdout } = await runProgram('nm', ['-D', '--defined-only', currentShim(folder)], { PATH: process.env.PATH })
  const names = stdout.split('\n').flatMap(line => line.split(' ')[2] ?? [])
  assert.ok(names.includes('open') && names.includes('ibv_open_device'))
  const header = readFileSync(join(repoRoot, 'shim', 'loading', 'loading.h'), 'utf8')
  const interposed = new Set([...header.matchAll(/\bX\((\w+)\)/g)].map(match => match[1]))
  // Replacements, some of which only call others, and functions that the other libraries of `userdma check` call, or
  // runtimes of sanitizers, which also log; and calls by which processes tell each other something.
  const isPublic = (name: string): boolean =>
    interposed.has(name) ||
    /^(_?ibv_\w+|rdma_\w+|(mlx[45]|efa|hns|mana)dv_\w+|verbs_set_ops|(n?ftw|readdir|scandir|scandirat)64|scandir|userdma_\w+|wait(pid|id|3|4)?|sigwait(info)?|kill|unshare|msg(rcv|snd)|sendfile|accept4?|f(read|gets|getc|write|puts|flush|printf)|getc|_*getdelim|getline|dprintf|syslog|__asan_default_options|dl_iterate_phdr)$/.test(
      name,
    )
  assert.deepEqual(
    names.filter(name => !isPublic(name)),
    [],
  )
})

for (const [end, status, signal, message] of [
  ['abort()', null, 'SIGABRT', ''],
  ['assert(!name)', null, 'SIGABRT', "Assertion `!name' failed"],
  ['_exit(7)', 7, null, ''],
  ['_Exit(8)', 8, null, ''],
] as const)
  test(`an allocator that calls ${end} while the shim looks up functions ends the program`, t => {
    if (!shimIsPossible(t)) return
    const library = compileC(
      join(folder, `early_${end.replaceAll(/\W/g, '')}.so`),
      [join(repoRoot, 'test/shim/early_end.c')],
      // The trap would end the program by another signal if the call returned.
      ['-shared', '-fPIC', '-ldl', `-DEND=${end};__builtin_trap()`],
    )
    const ended = spawnSync('/bin/true', {
      encoding: 'utf8',
      env: { LD_PRELOAD: `${currentShim(folder)}:${library}`, USERDMA_SOCKET: join(folder, 'nobody') },
    })
    assert.deepEqual([ended.status, ended.signal], [status, signal], ended.stderr)
    assert.ok(ended.stderr.includes(message), ended.stderr)
  })

/** Libraries that are preloaded after the shim. */
const otherLibraries: Readonly<Record<string, readonly [file: string, extraEnv?: NodeJS.ProcessEnv]>> = {
  'a program whose dlsym opens and maps files': ['early_calls'],
  'a program whose allocator reads a link at its first allocation': ['early_allocator'],
  'a program with this allocator, while stacks are recorded': ['early_allocator', { USERDMA_STACKS: '1' }],
  'a program with a library whose functions on sockets work only after socket()': ['late_calls'],
}

for (const [title, [name, extraEnv]] of Object.entries(otherLibraries))
  test(`unchanged: ${title}`, async t => {
    if (!shimIsPossible(t)) return
    const library = compileC(
      join(folder, `${name}.so`),
      [join(repoRoot, 'test/shim', `${name}.c`)],
      ['-shared', '-fPIC', '-ldl'],
    )
    const { status, stdout, stderr } = await runProgram(
      '/bin/sh',
      ['-c', 'echo text > f && cat f'],
      {
        PATH: process.env.PATH,
        LD_PRELOAD: `${currentShim(folder)}:${library}`,
        USERDMA_SOCKET: join(folder, 'nobody'),
        ...extraEnv,
      },
      { cwd: mkdtempSync(join(folder, `${name}-`)) },
    )
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'text\n', stderr: '' })
  })
