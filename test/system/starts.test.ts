/*
 * `userdma run` by its C program (shim/run/) and by Node.js: the same programs, with the same environment, descriptors,
 * limits and signals, end in the same way.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { casesOf } from '../long-run.ts'
import { repoRoot } from '../paths.ts'
import { findTool } from '../tools.ts'
import {
  cleanEnvironment,
  type Finished,
  lacking,
  run,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

const runner = join(repoRoot, 'build', 'native', 'userdma-run')

/** What a program finds: its arguments, environment, folder, descriptors, limits, signals and parent. */
const REPORT = `
printf '%s\\n' "$0" "$@" "in $PWD"
env -0 | sort -z | tr '\\0' '\\n' | grep -v '^_='
for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e /proc/$$/fd/$fd ] && echo "$fd $(readlink /proc/$$/fd/$fd | sed 's/[[][0-9]*]//')"; done
ulimit -Sn; ulimit -Hn; ulimit -Ss
while read -r key value; do case $key in SigBlk:|SigIgn:) echo $key $value;; esac; done </proc/$$/status
read -r line <&3 && echo "$line"
`

interface Case {
  readonly name: string
  /** A line of sh; $run is the command, $folder a folder with the files below and nothing else. */
  readonly line: string
  readonly env?: NodeJS.ProcessEnv
  /** Node.js answers both. */
  readonly isLeft?: true
}

const CASES: readonly Case[] = [
  { name: 'arguments, environment, descriptors, limits', line: '$run -- sh report -x -- --socket y z= 3<in 7>out' },
  {
    name: 'libraries of the user, marks of other programs, a link to bin/userdma',
    line: `LD_PRELOAD="$folder/libuserdma_shim.so libm.so.6:$folder/libuserdma_waits.so:$folder/libuserdma_clock.so" "$folder"/link run --socket "$USERDMA_SOCKET" sh report a 3<in`,
    env: {
      USERDMA_TAG: 'a',
      USERDMA_STACKS: '1',
      USERDMA_CALLS: 'messages',
      NODE_EXTRA_CA_CERTS: '/none',
      NODE_OPTIONS: '--no-warnings',
    },
  },
  {
    name: 'ignored signals, closed and non-blocking descriptors, low soft limits',
    line: `trap '' HUP PIPE USR1; ulimit -Sn 256; $run -- sh report 3<in <&- 2>&-`,
  },
  { name: 'status', line: '$run -- sh 42 <in' },
  { name: 'SIGKILL', line: '$run --socket="$USERDMA_SOCKET" -- sh KILL' },
  { name: 'SIGTERM', line: '$run -- sh TERM' },
  { name: 'SIGPIPE', line: '$run -- sh PIPE' },
  { name: 'a crash', line: 'ulimit -c 0; $run -- sh SEGV' },
  { name: 'a crash with low limits', line: 'ulimit -c 0; ulimit -Ss 900; $run -- sh SEGV', isLeft: true },
  { name: 'a closed output', line: '{ $run -- yes 2>err; echo $? >status; } | head -n 1; cat status err' },
  { name: 'a path of a program', line: '$run -- "$folder"/copy report 3<in' },
  { name: 'a program of the folder', line: 'PATH=":$PATH" $run -- copy report 3<in' },
  { name: 'no program', line: '$run -- nothing-of-this-name', isLeft: true },
  { name: 'an empty name', line: '$run -- ""', isLeft: true },
  { name: 'no name', line: '$run', isLeft: true },
  { name: 'a folder', line: '$run -- ./sub', isLeft: true },
  { name: 'not executable', line: '$run -- ./report', isLeft: true },
  { name: 'a linker that does not exist', line: '$run -- ./unlinked', isLeft: true },
  { name: 'an unknown option', line: '$run --nonsense -- true', isLeft: true },
  { name: 'help', line: '$run --help', isLeft: true },
  { name: 'no daemon', line: '$run --socket /none/sock -- true', isLeft: true },
  { name: 'a socket that is none', line: '$run --socket "$folder"/in -- true', isLeft: true },
  { name: 'a program that changes its user', line: '$run -- ./set-user -c :', isLeft: true },
  { name: 'an emptied environment', line: '$run -- env -i sh report 3<in', isLeft: true },
  { name: 'a line of a shell', line: `$run -- sh -c 'env -i true'`, isLeft: true },
  { name: 'a script', line: '$run -- ./script', isLeft: true },
  { name: 'a private daemon', line: 'USERDMA_SOCKET= $run --private -- sh report 3<in; ls | grep -c private' },
  {
    name: 'a private daemon that ends',
    line: 'USERDMA_SOCKET= $run --private -- sh end-daemon 2>err; cat err; ls | grep -c private',
  },
  { name: 'the user’s daemon', line: 'mkdir -m 700 userdma-$(id -u); USERDMA_SOCKET= $run -- sh report 3<in' },
  {
    name: 'a private daemon with options',
    line: 'USERDMA_SOCKET= $run --private --device rxe7@127.0.0.7 --device=mlx5_0@127.0.0.2,driver=mlx5 --fault drop=1% --fault qp=3,dup=1 --timers 0.5 --torment 7 --ignore-memlock -- sh settings',
  },
  { name: 'options of a daemon that runs', line: '$run --fault drop=1% -- true', isLeft: true },
  {
    name: 'a value that a private daemon refuses',
    line: 'USERDMA_SOCKET= $run --private --link none -- true',
    isLeft: true,
  },
  {
    name: 'a driver of which is told',
    line: 'USERDMA_SOCKET= $run --private --device mlx5_0@127.0.0.1 -- true',
    isLeft: true,
  },
  {
    name: 'a fault that needs stacks',
    line: 'USERDMA_SOCKET= $run --private --fault call=any,site=x,errno=EIO -- true',
    isLeft: true,
  },
  { name: 'a mark of another clock', line: 'USERDMA_CLOCK=/none $run -- sh report 3<in' },
]

const makeFiles = (folder: string): void => {
  for (const name of ['sub', 'bin']) mkdirSync(join(folder, name))
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text)
  write('report', REPORT)
  write('in', 'three\n')
  write('settings', 'ls /sys/class/infiniband; set -- $run; $1 fault show; $1 env | grep -v SOCKET')
  write('42', 'cat; echo error >&2; exit 42')
  for (const name of ['KILL', 'TERM', 'PIPE', 'SEGV']) write(name, `kill -${name} $$`)
  write('script', '#!/bin/sh\necho script\n')
  write(
    'end-daemon',
    'kill -KILL $(cat /proc/$PPID/task/*/children | tr " " "\\n" | grep -v "^$$\\$" | head -n 1); until [ -s err ]; do sleep 0.1; done',
  )
  write('bin/node', '#!/bin/sh\ncase "$*" in *userdma*run*) echo >"$folder/used"; esac\nexec "$real" "$@"\n')
  for (const name of ['script', 'bin/node']) chmodSync(join(folder, name), 0o755)
  symlinkSync(userdma, join(folder, 'link'))
  for (const name of ['shim', 'waits', 'clock'])
    symlinkSync(join(runner, '..', 'libuserdma_native.so'), join(folder, `libuserdma_${name}.so`))
  const shell = findTool('sh')!
  for (const name of ['copy', 'set-user']) copyFileSync(shell, join(folder, name))
  chmodSync(join(folder, 'set-user'), 0o6755)
  if (process.getuid?.() === 0) execFileSync('chown', ['65534:65534', join(folder, 'set-user')])
  chmodSync(join(folder, 'set-user'), 0o6755)
  const bytes = readFileSync(shell)
  const at = bytes.indexOf('/ld-linux')
  bytes.write('/no-linux', at, 'latin1')
  writeFileSync(join(folder, 'unlinked'), bytes, { mode: 0o755 })
}

const isMissing = lacking('yes', runner)

describe('userdma run', { skip: isMissing }, () => {
  it('does the same by Node.js and without', async t => {
    const { socket } = await startDaemon(t)
    for (const { name, line, env, isLeft } of casesOf(CASES, (one, i) => one.isLeft !== true || i % 3 === 0)) {
      const ends: Finished[] = []
      for (const way of [{}, { USERDMA_NODE: '1' }]) {
        const folder = temporaryFolder(t)
        makeFiles(folder)
        const PATH = `${join(folder, 'bin')}:${process.env.PATH}`
        const names = { folder, run: `${userdma} run`, real: process.execPath, fd: 'x', home: 'y' }
        const given = { ...cleanEnvironment(env), ...way, ...names, PATH, TMPDIR: folder, USERDMA_SOCKET: socket }
        const { stdout, stderr, ...end } = await run(t, 'sh', ['-c', line], { cwd: folder, env: given })
        const told = (text: string): string =>
          text
            .replaceAll(folder, 'FOLDER')
            .replace(/^USERDMA_NODE=.*\n/m, '')
            .replace(/(-private-)\w{6}|(process )\d+/g, '$1$2')
        ends.push({ ...end, stdout: told(stdout), stderr: told(stderr) })
        const isByNode = way.USERDMA_NODE !== undefined || isLeft === true
        assert.equal(existsSync(join(folder, 'used')), isByNode, `${name}: by Node.js`)
      }
      assert.deepEqual(ends[0], ends[1], name)
      // A program runs, or is refused with words.
      assert.ok(ends[0]!.stdout !== '' || ends[0]!.stderr !== '' || ends[0]!.status !== 0, name)
    }
  })

  it('passes signals on, and holds the daemon, which it says if that ends', async t => {
    for (const way of [{}, { USERDMA_NODE: '1' }]) {
      const { socket, running: daemon, pid } = await startDaemon(t, { options: ['--end-with-last-client'] })
      const folder = temporaryFolder(t)
      const signals = ['HUP', 'TERM', 'USR1', 'USR2', 'INT', 'QUIT']
      // Not a shell: dash loses a signal that comes shortly before its `wait`.
      const program = [
        `for (const name of ${JSON.stringify(signals)}) process.on('SIG' + name, () => console.log('got ' + name))`,
        "process.on('SIGCONT', () => process.exit(5))",
        'setInterval(() => {}, 2 ** 30)',
        "console.log('ready')",
      ]
      writeFileSync(join(folder, 'signals.cjs'), program.join('\n'))
      const env = { ...cleanEnvironment(), ...way }
      const args = ['run', '--socket', socket, process.execPath, join(folder, 'signals.cjs')]
      // Without a terminal, which would send two of them itself.
      const running = start(t, 'setsid', ['--wait', userdma, ...args], { env })
      await running.printed(/ready/)
      const { pid: run } = children(running.child.pid!)[0] ?? { pid: running.child.pid! }
      for (const signal of signals) {
        process.kill(run, `SIG${signal}`)
        await running.printed(new RegExp(`got ${signal}`))
      }
      daemon.child.kill('SIGKILL')
      await running.printed(/ended while/)
      process.kill(run, 'SIGCONT')
      const { status, stderr } = await running.ended
      assert.deepEqual(
        [status, stderr],
        [5, `userdma: the daemon at ${socket} (process ${pid}) ended while ${process.execPath} was running\n`],
      )
    }
  })

  it('keeps a daemon that would end with its last client', async t => {
    const { socket, running } = await startDaemon(t, { options: ['--end-with-last-client'] })
    const program = start(t, userdma, ['run', '--socket', socket, 'cat'], { stdio: ['pipe', 'pipe', 'pipe'] })
    program.child.stdin!.write('ready\n')
    await program.printed(/ready/)
    assert.ok(existsSync(socket))
    program.child.stdin!.end()
    assert.equal((await program.ended).status, 0)
    await running.ended
    rmSync(socket, { force: true })
  })
})

const children = (pid: number): readonly { readonly pid: number }[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
    .map(text => ({ pid: Number(text) }))
