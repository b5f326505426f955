/*
 * The commands in blocks of type `console` print what their pages show. `$ ` begins a command, and a line `…` stands
 * for any lines. Addresses, numbers of objects and processes, and times differ from run to run: they are not compared.
 * `sleep`, with which pages wait for a server, returns when the server of ibv_rc_pingpong listens.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { cleanEnvironment, lacking, run, temporaryFolder } from '../../system/programs.ts'

/** Pages, and the programs that their commands need. */
const pages: Readonly<Record<string, readonly string[]>> = {
  'README.md': ['cc'],
  'docs/start/tour.md': ['cc', 'ibv_devinfo', 'ibv_rc_pingpong'],
  'docs/reference/five-commands.md': ['cc', 'ibv_devices', 'ibv_rc_pingpong'],
  'docs/start/tutorials/first-ping-pong.md': ['ibv_devinfo', 'ibv_rc_pingpong'],
  'docs/start/tutorials/break-the-network.md': ['ibv_rc_pingpong'],
  'docs/start/tutorials/find-a-race.md': ['cc'],
  'docs/why/object-model.md': [],
}

interface Command {
  readonly command: string
  readonly shown: readonly string[]
}

const commandsOf = (page: string): readonly Command[] =>
  [...page.matchAll(/^```console\n([\s\S]*?)^```$/gm)].flatMap(([, block]) =>
    block
      .split(/^\$ /m)
      .slice(1)
      .map(part => {
        const [command, ...shown] = part.trimEnd().split('\n')
        return { command, shown }
      }),
  )

/** Without what differs from run to run. */
const comparable = (line: string): string =>
  line
    .replaceAll(`${repoRoot}/`, '')
    .replace(/0x[0-9a-f]+/g, '0x#')
    .replace(/\b(pid|process|request|object|CQ) \d+/g, '$1 #')
    .replace(/\bibv_rc_pingpong \(\d+\)|\b\d+ ibv_rc_pingpong\b/g, 'ibv_rc_pingpong #')
    .replace(/<\d+\.\d{6}>$/, '<#>')
    .replace(/\bready on \S+/, 'ready on #')
    // Columns are as wide as their longest value.
    .replace(/(?<=\S) {2,}/g, '  ')
    .replace(/^\d+\.\d{6} /, '')
    .replace(/\bverbs\.h:\d+/g, 'verbs.h:#')
    // Either request of the race may be executed first.
    .replace(/\brace\.c:1[37]\b/g, 'race.c:#')
    .replace(/\d+(?:\.\d+)? (ms|s|us|µs|seconds|Mbit\/sec|usec\/iter)\b/g, '# $1')
    // Of less than 0.1 s milliseconds are printed.
    .replace(/packets in # (?:ms|s)\b/, 'packets in #')
    .trimEnd()

/** Fails unless `printed` is `shown`, in which `…` stands for any lines. */
const assertShown = (command: string, shown: readonly string[], printed: readonly string[]): void => {
  let from = 0
  let skips = false
  for (const line of shown) {
    if (line === '…') {
      skips = true
      continue
    }
    const at = skips ? printed.indexOf(comparable(line), from) : from
    assert.ok(
      at >= 0 && printed[at] === comparable(line),
      `${command} does not print\n${line}\nbut\n${printed.join('\n')}`,
    )
    from = at + 1
    skips = false
  }
  if (!skips) assert.deepEqual(printed.slice(from), [], `${command} prints more than is shown`)
}

/** Port 18515 (0x4853) in state LISTEN (0A). */
const SLEEP = `#!/bin/sh
until grep -qE ':4853 [0-9A-F]+:0000 0A' /proc/net/tcp /proc/net/tcp6; do /bin/sleep 0.02; done
`

const END = '\u0001'

for (const [name, programs] of Object.entries(pages))
  test(`the commands of ${name} print what it shows`, { skip: lacking(...programs) }, async t => {
    const commands = commandsOf(readFileSync(join(repoRoot, name), 'utf8'))
    assert.ok(commands.length >= 2, `only ${commands.length} commands were found`)
    const folder = temporaryFolder(t)
    for (const link of ['bin', 'docs', 'examples']) symlinkSync(join(repoRoot, link), join(folder, link))
    const tools = join(folder, 'tools')
    mkdirSync(tools)
    writeFileSync(join(tools, 'sleep'), SLEEP, { mode: 0o755 })
    const env = cleanEnvironment({
      PATH: `${tools}:${join(repoRoot, 'bin')}:${process.env.PATH}`,
      XDG_RUNTIME_DIR: folder,
    })
    // The next command sees the exit status of the one before.
    const script = commands.map(({ command }) => `${command}\ns=$?; printf '${END}'; (exit $s)`).join('\n')
    const { stdout } = await run(t, 'bash', ['-c', `exec 2>&1\n${script}`], { cwd: folder, env, detached: true })
    const outputs = stdout.split(END)
    for (const [i, { command, shown }] of commands.entries()) {
      const lines = (outputs[i] ?? '').split('\n').map(comparable)
      while (lines.at(-1) === '') lines.pop()
      assertShown(command, shown, lines)
    }
  })

test('the recording on the first page shows what the demo prints', {
  skip: lacking('ibv_devinfo', 'ibv_rc_pingpong'),
}, async t => {
  const { stdout } = await run(t, join(repoRoot, 'bin', 'userdma'), ['demo'], { env: cleanEnvironment({}) })
  const picture = readFileSync(join(repoRoot, 'docs', 'images', 'demo.svg'), 'utf8')
  const drawn = [...picture.matchAll(/^<text[^>]*>(.*)<\/text>$/gm)].map(([, text]) => text.trim())
  // The lines of calls and packets come in another order each time, and a sleeping daemon gets more calls.
  const fixed = stdout.split('\n').filter(line => /^\w|^ {4}\$/.test(line) && !/\d (?:more )?packets|-p \d/.test(line))
  assert.ok(fixed.length > 20)
  for (const line of fixed) assert.ok(drawn.includes(line.trim()), `"${line}" is missing: node scripts/recording.mjs`)
})
