/*
 * `userdma doctor` on this machine, and on machines that lack something.
 */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { doctorChecks } from '../../src/cli/doctor/diagnosis.ts'
import { readElf } from '../../src/cli/program/elf.ts'
import { repoRoot } from '../paths.ts'
import { compileC } from '../tools.ts'
import { cleanEnvironment, lacking, ownProgram, run, temporaryFolder, userdma } from './programs.ts'

interface Report {
  readonly works: boolean
  readonly diagnoses: readonly {
    readonly check: string
    readonly verdict: string
    readonly text: string
    readonly page: string
    readonly advice?: string
  }[]
}

const doctor = async (t: Parameters<typeof run>[0], command: readonly [string, ...string[]], ...args: string[]) => {
  const [program, ...before] = command
  const env = cleanEnvironment({ TMPDIR: temporaryFolder(t), XDG_RUNTIME_DIR: '' })
  const { status, stdout, stderr } = await run(t, program, [...before, userdma, 'doctor', '--json', ...args], {
    env,
  })
  assert.equal(stderr, '')
  const { works, diagnoses } = JSON.parse(stdout) as Report
  assert.equal(status, works ? 0 : 1)
  const of = (check: string) => diagnoses.filter(diagnosis => diagnosis.check === check)
  return { works, diagnoses, of }
}

test('every check works here, and a program is described by its libraries', { skip: lacking('rping') }, async t => {
  const { works, diagnoses, of } = await doctor(t, ['node'], 'rping')
  assert.ok(works, JSON.stringify(diagnoses))
  assert.deepEqual(new Set(diagnoses.map(({ check }) => check)), new Set(Object.keys(doctorChecks)))
  assert.match(of('programs')[0]!.text, /has opened rxe0/)
  assert.match(of('program')[0]!.text, /rping is linked with .*librdmacm\.so\.1/)
})

test('an InfiniBand port without a subnet manager', async t => {
  const options = ['--fabric', 'manager=none', '--device', 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband']
  const { of } = await doctor(t, [userdma, 'run', '--private', ...options, '--', 'node'])
  assert.deepEqual(
    of('daemon')
      .map(({ verdict, text }) => `${verdict}: ${text}`)
      .slice(1),
    ['limited: the InfiniBand port of mlx5_0 is INIT: no subnet manager has come: programs send nothing by it'],
  )
})

test('an adapter on which no queue pair can be made', { skip: lacking('ibv_rc_pingpong') }, async t => {
  const rules = 'device=rxe0,call=*_qp.create,errno=EPERM'
  const devices = ['--device', 'rxe0@127.0.0.1', '--device', 'rxe1@127.0.0.2']
  const { of } = await doctor(t, [userdma, 'run', '--private', ...devices, '--fault', rules, '--', 'node'])
  assert.deepEqual(
    of('adapters').map(({ verdict, text }) => [verdict, text]),
    [
      ['note', "rxe0, rxe1: programs under `userdma run` see userdma's devices instead"],
      [
        'limited',
        "rxe0: no program can make a queue pair on it (Couldn't create QP, says ibv_rc_pingpong), though it is there, its port 4: ACTIVE",
      ],
    ],
  )
})

test('programs that will find no device, or do not exist, fail', { skip: lacking('cc') }, async t => {
  const folder = temporaryFolder(t)
  const source = join(folder, 'main.c')
  writeFileSync(source, 'int main(void) { return 0; }\n')
  const staticProgram = compileC(join(folder, 'static'), [source], ['-static'])
  const plain = join(folder, 'not-executable')
  writeFileSync(plain, '')
  chmodSync(plain, 0o644)
  const { of } = await doctor(t, ['node'], staticProgram, plain, 'no-such-program')
  assert.deepEqual(
    of('program').map(({ verdict }) => verdict),
    ['fails', 'fails', 'fails'],
  )
  assert.match(
    of('program')
      .map(({ text }) => text)
      .join('\n'),
    /linked statically[\s\S]*not executable[\s\S]*no such program/,
  )
})

test('a low limit of locked memory limits, a network without an address fails', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async t => {
  const limited = await doctor(t, [
    'prlimit',
    '--memlock=65536',
    'setpriv',
    '--bounding-set=-all',
    '--inh-caps=-all',
    'node',
  ])
  assert.match(limited.of('limits')[0]!.text, /64 KiB/)
  const alone = await doctor(t, ['unshare', '-n', 'node'])
  assert.equal(alone.works, false)
  assert.match(alone.of('udp')[0]!.text, /no interface has an address/)
  assert.equal(alone.of('programs')[0]!.verdict, 'ok')
})

test('each check has a section of the page', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'doctor.md'), 'utf8')
  const sections = [...page.matchAll(/^## (\w+)$/gm)].map(([, name]) => name)
  assert.deepEqual(sections, Object.keys(doctorChecks))
})

test('garbled ELF files are read without an error', { skip: lacking(ownProgram('loopback')) }, t => {
  const bytes = readFileSync(ownProgram('loopback'))
  const path = join(temporaryFolder(t), 'garbled')
  for (let at = 4; at < 2000; at += 7) {
    const garbled = Buffer.from(bytes)
    garbled.fill(0xff, at, at + 8)
    writeFileSync(path, garbled)
    readElf(path)
  }
  assert.ok(readElf(ownProgram('loopback'))?.needed.includes('libibverbs.so.1'))
})
