/*
 * The flight recorder (`run --host --flight-recorder`): what a program has posted and polled last is in a session file
 * after a request has failed, after a signal, and when it is asked for, also while the program overwrites its rings.
 * The machine's devices are those of a daemon here.
 */
import assert from 'node:assert/strict'
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../paths.ts'
import { lacking, temporaryFolder, userdma } from './programs.ts'

const failing = join(repoRoot, 'build', 'findings', 'unknown-rkey')

/** Runs a command under a daemon, whose devices are the machine's, with a runtime folder of its own. */
const underDaemon = (folder: string, ...args: readonly string[]): SpawnSyncReturns<string> =>
  spawnSync(userdma, ['run', '--private', '--', ...args], {
    encoding: 'utf8',
    env: { ...process.env, XDG_RUNTIME_DIR: folder },
  })

const flying = (folder: string, ...words: readonly string[]): readonly string[] => [
  userdma,
  'run',
  '--host',
  '--flight-recorder=1M',
  '--flight-folder',
  folder,
  ...words,
]

const textOf = (file: string): string => {
  const { stdout, status, stderr } = spawnSync(userdma, ['export', file, '--to', 'text'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
  })
  assert.equal(status, 0, stderr)
  assert.equal(stderr, '')
  return stdout
}

const dumpsIn = (folder: string): string[] => readdirSync(folder).filter(name => name.endsWith('.udr'))

test('a request that fails: a file with it, its queue pair and its completion', { skip: lacking(failing) }, t => {
  const folder = temporaryFolder(t)
  const { status, stderr } = underDaemon(folder, ...flying(folder, '--', failing))
  assert.equal(status, 0, stderr)
  assert.match(stderr, /REM_ACCESS_ERR: peer QP .* is unknown/)
  const [, file] = /a request has failed: what happened before is in (\S+\.udr)\n/.exec(stderr) ?? []
  const text = textOf(file!)
  assert.match(text, /created: rc_qp /)
  assert.match(
    text,
    /request 1 posted to object \d+: RDMA_WRITE wr_id 1 4096 B\n(?:.*\n)*?.*request 1 completed: REM_ACCESS_ERR/,
  )
  assert.match(text, /end: a request has failed/)
})

test('a program that goes on: files that are asked for, and one after a signal', {
  skip: lacking('ibv_rc_pingpong'),
}, t => {
  const folder = temporaryFolder(t)
  const script = join(folder, 'script')
  writeFileSync(
    script,
    `ibv_rc_pingpong -g 1 -s 262144 -n 100000000 > /dev/null 2>&1 &
server=$!
# The server listens soon; then the client runs until it is ended.
until
  ibv_rc_pingpong -g 1 -s 262144 -n 100000000 localhost > /dev/null 2>&1 &
  client=$!
  # It may have sent nothing yet. Its messages are long: each send of rxe is a call, and too many calls at once are lost.
  until file=$('${userdma}' dump $client 2> /dev/null) && '${userdma}' export "$file" --to text | grep -q ': SEND'; do
    kill -0 $client 2> /dev/null || break
  done
  kill -0 $client 2> /dev/null
do :; done
for i in 1 2 3 4 5; do '${userdma}' dump $client; done
'${userdma}' dump 1
kill -SEGV $client
wait $client
kill $server
wait
`,
  )
  const { stdout, stderr } = underDaemon(folder, ...flying(folder, '--', 'sh', script))
  const asked = stdout.trim().split('\n')
  assert.equal(asked.length, 5, `${stdout}${stderr}`)
  assert.match(stderr, /dump 1: process 1 has no flight recorder/)
  const [, crashed] = /a signal has ended the program: what happened before is in (\S+\.udr)\n/.exec(stderr) ?? []
  assert.ok(crashed !== undefined, stderr)
  for (const file of [asked.at(-1)!, asked.at(-2)!, crashed]) {
    const text = textOf(file)
    const posted = [...text.matchAll(/ request (\d+) posted to object \d+: SEND/g)].map(([, id]) => Number(id))
    assert.ok(posted.length > 0, `${file}: ${posted.length} sends`)
    assert.match(text, / completed: SUCCESS/)
    assert.match(text, /object \d+ (?:exists|created): rc_qp /)
  }
})

test('files are limited in number, and one that cannot be written does not end the program', {
  skip: lacking(failing),
}, t => {
  const folder = temporaryFolder(t)
  const dumps = join(folder, 'dumps')
  mkdirSync(dumps)
  const many = underDaemon(folder, ...flying(dumps, '--', 'sh', '-c', `for i in 1 2 3 4; do '${failing}'; done`))
  assert.equal(many.status, 0, many.stderr)
  // All within seconds: at most one each second.
  assert.ok(dumpsIn(dumps).length >= 1 && dumpsIn(dumps).length <= 4)
  rmSync(dumps, { recursive: true })
  mkdirSync(dumps)
  const without = underDaemon(folder, ...flying(dumps, '--', 'sh', '-c', `rmdir '${dumps}' && '${failing}'`))
  assert.equal(without.status, 0, without.stderr)
  assert.match(without.stderr, /the flight recorder cannot write to .*ENOENT/)
})

test('a program that clears the memory where its files are goes on, and so does the recorder', {
  skip: lacking(failing),
}, t => {
  const folder = temporaryFolder(t)
  const script = `rm -r "$(dirname "\${USERDMA_OBSERVE_FLIGHT#*:}")"; '${failing}'; exit 7`
  const { status, stderr } = underDaemon(folder, ...flying(folder, '--', 'sh', '-c', script))
  assert.equal(status, 7, stderr)
  assert.doesNotMatch(stderr, /ENOENT/)
})

test('mistakes get a sentence', t => {
  const folder = temporaryFolder(t)
  const run = (...args: string[]): SpawnSyncReturns<string> =>
    spawnSync(userdma, args, { encoding: 'utf8', env: { ...process.env, XDG_RUNTIME_DIR: folder } })
  const mistakes: readonly (readonly [args: readonly string[], message: RegExp])[] = [
    [['run', '--flight-recorder', '--', 'true'], /--flight-recorder is for --host/],
    [['run', '--host', '--flight-recorder=1K', '--', 'true'], /--flight-recorder "1K": give bytes, such as 64M/],
    [['run', '--host', '--flight-recorder', '--record', 'x', '--', 'true'], /--flight-recorder and --record exclude/],
    [['run', '--host', '--flight-folder', folder, '--', 'true'], /--flight-folder is for --flight-recorder/],
    [['run', '--host', '--flight-recorder', '--flight-folder', join(folder, 'none'), '--', 'true'], /no such folder/],
    [['dump', 'x'], /dump "x": give the number of a process/],
    [['dump', '1'], /no program of yours runs with/],
  ]
  for (const [args, message] of mistakes) {
    const { status, stderr } = run(...args)
    assert.equal(status, 2, `${args.join(' ')}: ${stderr}`)
    assert.match(stderr, message)
  }
})

test('a flight recorder that gives no answer is named', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'userdma'), { mode: 0o700 })
  const socket = join(folder, 'userdma', 'flight-1')
  const server = createServer(connection => connection.destroy()).listen(socket)
  t.after(() => server.close())
  await once(server, 'listening')
  const command = spawn(userdma, ['dump', '1'], { env: { ...process.env, XDG_RUNTIME_DIR: folder } })
  let stderr = ''
  command.stderr.on('data', part => {
    stderr += part
  })
  const [status] = await once(command, 'close')
  assert.equal(status, 2)
  assert.match(stderr, /dump 1: the flight recorder at \S+flight-1 does not answer/)
})
