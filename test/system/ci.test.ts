/*
 * What CI jobs use: a daemon in the background, `userdma env`, the GitHub action (action.yml), the GitLab template
 * (ci/gitlab.yml), and the matrix of docs/how-to/ci.md.
 */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { describe, it } from 'node:test'
import { longOnly } from '../long-run.ts'
import { loopbackText } from '../loopback.ts'
import { repoRoot } from '../paths.ts'
import { findTool } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  type Finished,
  lacking,
  ownProgram,
  run,
  type Scope,
  temporaryFolder,
} from './programs.ts'
import { parseYaml } from './yaml.ts'

const bin = join(repoRoot, 'bin')

/** The sockets of daemons in a folder. Not by `recursive`, which follows the links in the daemons' trees of files. */
const socketsIn = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return entry.name.endsWith('.tree') ? [] : socketsIn(path)
    return entry.name === 'sock' ? [path] : []
  })

/** A folder, and an environment in which the user's own daemon has its socket there. No daemon below stays. */
const setUp = (t: Scope, path: readonly string[] = [bin]) => {
  const cleanups: (() => unknown)[] = []
  const folder = temporaryFolder({ after: cleanup => void cleanups.push(cleanup) })
  const { LD_PRELOAD: _preload, ...inherited } = cleanEnvironment({ XDG_RUNTIME_DIR: folder })
  const env = { ...inherited, PATH: [...path, process.env.PATH].join(delimiter) }
  t.after(async () => {
    for (const socket of socketsIn(folder))
      await run({ after: () => {} }, join(bin, 'userdma'), ['stop', '--socket', socket], { env })
    for (const cleanup of cleanups) cleanup()
  })
  return { folder, env }
}

/** Programs that only write their arguments to the file `calls`. */
const stubs = (t: Scope, ...names: readonly string[]) => {
  const folder = temporaryFolder(t)
  const calls = join(folder, 'calls')
  for (const name of names) {
    writeFileSync(join(folder, name), `#!/bin/sh\necho ${name} "$@" >> ${calls}\n`)
    chmodSync(join(folder, name), 0o755)
  }
  return { folder, calls: () => (existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n') : []) }
}

describe('a daemon in the background', { skip: lacking('ibv_devices') }, () => {
  it('is ready when the command ends, serves programs of shells with `env`, and ends with `stop`', async t => {
    const { folder, env } = setUp(t)
    const shells = { zsh: 'eval "$(userdma env --shell zsh)"', fish: 'userdma env --shell fish | source' }
    const others = Object.entries(shells)
      .filter(([shell]) => findTool(shell) !== undefined)
      .map(([shell, text]) => `${shell} -c '${text}; ibv_devices | grep mlx5_0'`)
    const script = `userdma daemon --detach --device mlx5_0@127.0.0.1
      userdma daemon --detach || echo "status $?"
      userdma daemon --detach --socket ${folder}/missing/sock || echo "status $?"
      ${others.join('\n')}
      eval "$(userdma env)"; eval "$(userdma env)"
      ibv_devices; sh -c ibv_devices
      userdma env --shell toString || echo "status $?"
      userdma stop; echo stopped
      LD_PRELOAD="$LD_PRELOAD:libm.so.6"; eval "$(userdma env --unset)"
      echo "s\${USERDMA_SOCKET-}: $LD_PRELOAD"; unset LD_PRELOAD
      (eval "$(userdma env)"; echo wrong)`
    const { status, stdout, stderr } = await run(t, 'sh', ['-ec', script], { env })
    const [ready, ...lines] = stdout.trim().split('\n')
    assert.match(ready!, /^userdma daemon: ready on .* \(mlx5_0@127\.0\.0\.1\)$/)
    assert.deepEqual(
      lines.filter(line => /^[sw]/.test(line)),
      ['status 1', 'status 1', 'status 2', 'stopped', 's: libm.so.6'],
    )
    assert.equal(lines.filter(line => line.includes('mlx5_0')).length, 2 + others.length)
    const errors = stderr.trim().split('\n')
    for (const [i, pattern] of [
      /^userdma: mlx5_0: driver rxe \(for libmlx5: driver=mlx5\)$/,
      /^userdma: .* is served already by process \d+ .* with mlx5_0@127\.0\.0\.1/,
      /^userdma: socket .*\/missing\/sock: folder .*\/missing does not exist$/,
      /^userdma: --shell "toString" is not one of sh, bash, zsh, fish, github$/,
      /^userdma: no daemon at .*; start one with `userdma daemon/,
    ].entries())
      assert.match(errors[i]!, pattern)
    assert.equal(status, 1, '`eval` fails without a daemon')
  })
})

interface Step {
  readonly id?: string
  readonly if?: string
  readonly uses?: string
  readonly env?: Readonly<Record<string, string>>
  readonly run?: string
}

interface Action {
  readonly inputs: Readonly<Record<string, { readonly default: string }>>
  readonly outputs: Readonly<Record<string, { readonly value: string }>>
  readonly runs: { readonly using: string; readonly steps: readonly Step[] }
}

/** Plays GitHub's runner: runs the action's steps, and returns a function that runs later steps of the job. */
const playAction = async (
  t: Scope,
  given: Readonly<Record<string, string>>,
  { path = [bin], actionPath = repoRoot }: { readonly path?: readonly string[]; readonly actionPath?: string } = {},
) => {
  const { inputs, outputs, runs } = parseYaml(readFileSync(join(repoRoot, 'action.yml'), 'utf8')) as unknown as Action
  assert.equal(runs.using, 'composite')
  for (const name of Object.keys(given)) assert.ok(name in inputs, name)
  const { folder, env: runnerEnv } = setUp(t, path)
  const files = Object.fromEntries(
    ['ENV', 'PATH', 'OUTPUT', 'STEP_SUMMARY'].map(name => [`GITHUB_${name}`, join(folder, name)]),
  )
  for (const file of Object.values(files)) writeFileSync(file, '')
  const valuesOf = (name: string): Record<string, string> =>
    Object.fromEntries(
      [...readFileSync(files[name]!, 'utf8').matchAll(/^(\w+)=(.*)$/gm)].map(([, key, value]) => [key, value]),
    )
  const evaluated = (text: string): string =>
    text.replace(/\$\{\{ ([\w.-]+) \}\}/g, (_, expression: string) => {
      const name = expression.split('.').at(-1)!
      if (expression.startsWith('inputs.')) return given[name] ?? inputs[name]!.default
      assert.match(expression, /^steps\.\w+\.outputs\./)
      return valuesOf('GITHUB_OUTPUT')[name]!
    })
  const runStep = (script: string, env: NodeJS.ProcessEnv = {}): Promise<Finished> => {
    writeFileSync(join(folder, 'step.sh'), script)
    const added = readFileSync(files.GITHUB_PATH!, 'utf8').split('\n').filter(Boolean).reverse()
    return run(t, 'bash', ['--noprofile', '--norc', '-eo', 'pipefail', join(folder, 'step.sh')], {
      env: {
        ...runnerEnv,
        ...files,
        RUNNER_TEMP: folder,
        GITHUB_ACTION_PATH: actionPath,
        ...valuesOf('GITHUB_ENV'),
        PATH: [...added, runnerEnv.PATH].join(delimiter),
        ...env,
      },
    })
  }
  const isWanted = (condition = ''): boolean =>
    condition
      .split(' && ')
      .filter(Boolean)
      .every(term => {
        const [, input] = /^inputs\.([\w-]+) != ''$/.exec(term) ?? []
        if (input !== undefined) return (given[input] ?? inputs[input]!.default) !== ''
        const [, output = '', value] = /^steps\.look\.outputs\.(\w+) == '(\w+)'$/.exec(term) ?? []
        return valuesOf('GITHUB_OUTPUT')[output] === value
      })
  const used: string[] = []
  for (const { if: condition, uses, env = {}, run: script = '' } of runs.steps) {
    if (!isWanted(condition)) continue
    if (uses !== undefined) used.push(uses)
    else
      assertGood(
        await runStep(script, Object.fromEntries(Object.entries(env).map(([name, text]) => [name, evaluated(text)]))),
      )
  }
  const results = Object.fromEntries(Object.entries(outputs).map(([name, { value }]) => [name, evaluated(value)]))
  return { runStep, results, used, summary: readFileSync(files.GITHUB_STEP_SUMMARY!, 'utf8') }
}

/**
 * Devices of a job, and a line for a shell that fails in a daemon with others, without the job's link or without its
 * faults.
 */
const JOB_DEVICES = [`mlx5_0@${loopbackText(2)},driver=mlx5`, `rxe1@${loopbackText(3)}`]
const IN_JOB = `userdma run ${JOB_DEVICES.map(device => `--device ${device}`).join(' ')} --link udp -- true && userdma fault show | grep 'drop=0.01,seed=7'`

/** A line of a walk's report. */
const OLD_RESULT = { kind: 'calls', outcome: 'crash', isFinding: true, text: 'mr.create fails with ENOMEM', frames: [] }

describe('the GitHub action', { skip: lacking('ibv_devinfo', ownProgram('loopback')) }, () => {
  it('shows its devices to later steps', async t => {
    const inputs = {
      devices: 'rxe0@127.0.0.1\nmlx5_0@127.0.0.2,pci=0000:81:00.0,numa=0,model=mlx5\n',
      faults: 'drop=1%,seed=7\ndevice=rxe0,delay=1us\n',
      like: 'mlx5',
    }
    const { runStep, results } = await playAction(t, inputs)
    const found = await runStep(
      'ibv_devinfo -d mlx5_0; readlink -f /sys/class/infiniband/mlx5_0/device; userdma fault show; userdma check --socket "$USERDMA_SOCKET" -- ibv_devices',
    )
    assertGood(found)
    assert.match(
      found.stdout,
      /PORT_ACTIVE[\s\S]*\/sys\/devices\/pci0000:81\/0000:81:00\.0\ndrop=0\.01,seed=7[\s\S]*device=rxe0,delay/,
    )
    assert.match(readFileSync(results.log!, 'utf8'), /serves .*mlx5_0@127\.0\.0\.2/)
    assertGood(await runStep('userdma stop && userdma env --unset --shell github >> "$GITHUB_ENV"'))
    const after = await runStep('echo "[$USERDMA_SOCKET$LD_PRELOAD]"')
    assert.equal(after.stdout, '[]\n')
  })

  it('walks on its devices, faults and link, and begins with what the last report has not', {
    skip: longOnly,
  }, async t => {
    const report = join(temporaryFolder(t), 'walk.json')
    const job = { devices: JOB_DEVICES.join('\n'), faults: 'drop=1%,seed=7', link: 'udp' }
    const inputs = { walk: 'ibv_devices', 'walk-minutes': '1', 'walk-report': report }
    const { summary } = await playAction(t, { ...inputs, ...job, walk: IN_JOB })
    assert.match(summary, /userdma walk: 0 runs in \d+ s: nothing to fail;/)
    // A report of nothing is none.
    writeFileSync(report, `${JSON.stringify(OLD_RESULT)}\n`)
    assert.match((await playAction(t, inputs)).summary, /\nuserdma walk: since .*: 0 new findings, 0 known, 0 mended\n/)
  })

  it('builds its own checkout if userdma is not installed', async t => {
    const actionPath = temporaryFolder(t)
    const { folder, calls } = stubs(t, 'dpkg', 'sudo', 'setup')
    symlinkSync(bin, join(actionPath, 'bin'))
    mkdirSync(join(actionPath, 'scripts'))
    const setup = "import { execFileSync } from 'node:child_process'\nexecFileSync('setup', process.argv.slice(2))\n"
    writeFileSync(join(actionPath, 'scripts', 'setup.mjs'), setup)
    const { runStep, used } = await playAction(t, {}, { path: [folder], actionPath })
    const packages = 'gcc libc6-dev libibverbs-dev ibverbs-providers ibverbs-utils'
    assert.deepEqual(calls(), [`dpkg -s ${packages}`, 'setup --for start'])
    // Node.js is installed only where it is missing.
    assert.deepEqual(used, [])
    assert.match((await runStep('ibv_devices')).stdout, /rxe0/)
  })
})

describe('the GitHub action in a container, as root without sudo', {
  skip: lacking('ibv_devices') || (process.geteuid?.() !== 0 && 'only root can'),
}, () => {
  it('installs a package from a URL', async t => {
    const { folder, calls } = stubs(t, 'apt-get', 'curl', 'sudo')
    const { runStep } = await playAction(t, { package: 'https://a.example/u_amd64.deb' }, { path: [folder, bin] })
    const [update, fetch, install, ...others] = calls()
    assert.deepEqual([update, others], ['apt-get update', []])
    const [, file = ''] = /^curl .* --output (\S+\.deb) https:\/\/a\.example\/u_amd64\.deb$/.exec(fetch ?? '') ?? []
    assert.equal(install, `apt-get install -y --no-install-recommends ${file} ibverbs-utils`)
    assert.match((await runStep('ibv_devices')).stdout, /rxe0/)
  })
})

describe('the GitLab template', { skip: lacking('ibv_devices') }, () => {
  it('shows devices to the script of a job', async t => {
    const template = parseYaml(readFileSync(join(repoRoot, 'ci', 'gitlab.yml'), 'utf8')) as unknown as {
      '.userdma-walk': { readonly script: readonly string[] }
      '.userdma': { readonly before_script: readonly string[]; readonly after_script: readonly string[] }
    }
    const { before_script: before, after_script: after } = template['.userdma']
    const { folder, calls } = stubs(t, 'apt-get', 'curl')
    const { env } = setUp(t, [folder, bin])
    const forgotten = await run(t, 'bash', ['-ec', before.join('\n')], { env })
    assert.deepEqual([forgotten.status, calls()], [1, []])
    assert.match(forgotten.stderr, /set USERDMA_PACKAGE to the URL or file/)
    const url = 'https://a.example/u_amd64.deb'
    const devices = JOB_DEVICES.map(device => `--device ${device}`).join(' ')
    const job = {
      ...env,
      USERDMA_PACKAGE: url,
      USERDMA_OPTIONS: `${devices} --link udp --fault drop=1%,seed=7`,
      USERDMA_WALK_MINUTES: '1',
    }
    const walk = template['.userdma-walk'].script
    for (const since of [false, true]) {
      // GitLab's runner gives one shell both, and another one what comes after.
      const script = [...before, 'ibv_devices', ...walk].join('\n')
      const inJob = { ...job, USERDMA_WALK: since ? 'ibv_devices' : IN_JOB }
      const walked = await run(t, 'bash', ['-ec', script], { env: inJob, cwd: folder })
      assertGood(walked)
      assert.match(walked.stdout, /mlx5_0/)
      assert.equal(/since userdma-walk\/last\.json: 0 new findings/.test(walked.stdout), since, walked.stdout)
      writeFileSync(join(folder, 'userdma-walk', 'report.json'), `${JSON.stringify(OLD_RESULT)}\n`)
      assertGood(await run(t, 'bash', ['-ec', after.join('\n')], { env: job }))
    }
    const [update, tools = '', fetch = '', install] = calls()
    assert.equal(update, 'apt-get update')
    assert.match(tools, / curl ibverbs-utils$/)
    assert.match(fetch, new RegExp(`^curl .* /tmp/userdma.deb ${url}$`))
    assert.equal(install, 'apt-get install -y --no-install-recommends /tmp/userdma.deb')
  })
})

describe('the matrix of docs/how-to/ci.md', { skip: lacking(ownProgram('loopback')) }, () => {
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'ci.md'), 'utf8')
  const rows = [...page.matchAll(/^ {10}- ((?:run|check) .*)$/gm)].map(([, row]) => row!)
  assert.equal(rows.length, 4)
  for (const row of rows)
    it(row, async t => {
      const { folder, env } = setUp(t)
      // 20 seeds take a while.
      const args = row.replace('--torment-search 20', '--torment-search 2').split(' ')
      assertGood(await run(t, 'userdma', [...args, '--', ownProgram('loopback')], { cwd: folder, env }))
      assert.equal(existsSync(join(folder, 'findings.sarif')), args.includes('findings.sarif'))
    })
})
