/*
 * Looking up the symbols of stack frames. Programs, which may be hostile, choose the file names of frames.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createSymbols, type LookUp, lookUp } from '../../../src/cli/check/symbols.ts'
import type { Stack } from '../../../src/spec/check/finding.ts'
import { trimFrames } from '../../../src/spec/check/frames.ts'
import { scaled } from '../../limits.ts'
import { compileC, findTool, scratchFolder } from '../../tools.ts'
import { compileWithHeader } from './with-header.ts'

const folder = scratchFolder()
const lacking = ['cc', 'nm', 'addr2line'].every(name => findTool(name)) ? false : 'cc, nm or addr2line is missing'

/** Sets PATH until the test has ended. */
const setPath = (path: string, t: TestContext): void => {
  const before = process.env.PATH
  t.after(() => {
    process.env.PATH = before
  })
  process.env.PATH = path
}

const framesOf = (stack: Stack) => lookUp(symbols => symbols.framesOf(stack))

/**
 * Makes tools of shell scripts, and no others are found. Returns their starts: process and file of each. By default
 * there is one, which answers every address with the function `f` in /x.c, line 1.
 */
const makeTools = (t: TestContext, scripts: Readonly<Record<string, string>> = { 'llvm-symbolizer': ANSWERS }) => {
  const bin = mkdtempSync(join(folder, 'bin'))
  const log = join(bin, 'log')
  writeFileSync(log, '')
  for (const [tool, script] of Object.entries(scripts)) {
    const head = `#!${findTool('sh')}\nPATH='${process.env.PATH}'\nLOG=${log}\nfor file; do :; done\necho "$$ $file" >> $LOG`
    writeFileSync(join(bin, tool), `${head}\n${script}\n`, { mode: 0o755 })
  }
  setPath(bin, t)
  return () =>
    readFileSync(log, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map(line => ({ pid: Number(line.split(' ')[0]), file: line.slice(line.indexOf(' ') + 1) }))
}
const ANSWERS = 'while read address; do echo $address; echo f; echo /x.c:1; done'

const emptyFiles = (...names: readonly string[]): string[] =>
  names.map(name => {
    writeFileSync(join(folder, name), '')
    return join(folder, name)
  })

/** Compiles a program with debug information; returns its path and the address of its function `found`. */
const build = (...options: string[]) => {
  const source = join(folder, 'program.c')
  writeFileSync(source, 'int found(void);\nint found(void) { return 1; }\nint main(void) { return found(); }\n')
  const program = compileC(join(folder, 'program'), [source], ['-g', ...options])
  const [address = ''] = /^[0-9a-f]+(?= T found$)/m.exec(spawnSync('nm', [program], { encoding: 'utf8' }).stdout) ?? []
  return { program, address: `0x${address.replace(/^0+/, '')}` }
}

test('a file name is never read as an option or as a file of options', { skip: lacking }, async () => {
  const { program, address } = build()
  const functionOf = async (object: string): Promise<string | undefined> =>
    (await framesOf([`${object}+${address} symbol`]))[0]?.function
  assert.equal(await functionOf(program), 'found')
  // Tools read arguments from @FILE.
  writeFileSync(join(folder, 'options'), program)
  assert.equal(await functionOf(`@${join(folder, 'options')}`), 'symbol')
  assert.equal(await functionOf('--help'), 'symbol')
})

test('in a stripped file, an address after an exported function is not taken for a part of that function', {
  skip: lacking || (findTool('strip') ? false : 'strip is missing'),
}, async () => {
  const source = join(folder, 'library.c')
  writeFileSync(
    source,
    'int exported(void);\nint exported(void) { return 1; }\n__attribute__((used)) static int internal(void) { return 2; }\n',
  )
  const library = compileC(join(folder, 'library.so'), [source], ['-shared', '-fPIC', '-fno-toplevel-reorder'])
  const names = spawnSync('nm', [library], { encoding: 'utf8' }).stdout
  const [exported, internal] = [/^0*(\w+) T exported$/m, /^0*(\w+) t internal$/m].map(
    name => `0x${name.exec(names)?.[1]}`,
  )
  assert.ok(Number(internal) > Number(exported))
  /** The functions of two frames, of which each has the symbol that the preload library sends after its address. */
  const functions = async () =>
    (await framesOf([`${library}+${exported} exported`, `${library}+${internal} `])).map(frame => frame.function)
  assert.deepEqual(await functions(), ['exported', 'internal'])
  assert.equal(spawnSync('strip', [library]).status, 0)
  assert.deepEqual(await functions(), ['exported', ''])
})

test('a frame of JavaScript is no frame of a C program, whatever the name of its file', async () => {
  assert.deepEqual(await framesOf(['at send (file:///opt/a+0x1.js:3:4)', '/opt/a b+0x10 ', '/opt/c+0x10']), [
    { function: 'send', file: '/opt/a+0x1.js', line: 3 },
    { function: '', object: '/opt/a b' },
    { function: '', object: '/opt/c' },
  ])
})

test('a relative path in debug information stays as it is, because its folder is unknown', {
  skip: lacking,
}, async () => {
  const { program, address } = build(...[folder, process.cwd()].map(path => `-fdebug-prefix-map=${path}=.`))
  assert.equal((await framesOf([`${program}+${address} found`]))[0]?.file, '././program.c')
})

test('addr2line alone names the header of a function that is the first of its program', { skip: lacking }, async t => {
  const { header, program, address } = compileWithHeader(folder, '-gdwarf-5')
  const bin = join(folder, 'addr2line-only')
  mkdirSync(bin)
  symlinkSync(findTool('addr2line') ?? '', join(bin, 'addr2line'))
  setPath(bin, t)
  assert.deepEqual(await framesOf([`${program}+${address} inHeader`]), [
    { function: 'inHeader', file: header, line: 3, object: program },
  ])
})

test('a file that is not regular, or has an impossible name, is not opened', { skip: lacking }, async () => {
  const fifo = join(folder, 'fifo')
  spawnSync('mkfifo', [fifo])
  for (const object of [fifo, folder, '/dev/zero', `/${'x'.repeat(4000)}`, 'x\0y'])
    assert.deepEqual(await framesOf([`${object}+0x10 symbol`]), [{ function: 'symbol', object }])
})

test('a tool is started once for each file, and ends with the look-up', async t => {
  const files = emptyFiles(...Array.from({ length: 20 }, (_, i) => `file${i}`))
  const starts = makeTools(t)
  const symbols = createSymbols()
  for (const addresses of [
    ['0x1', '0x2'],
    ['0x2', '0x3'],
  ])
    for (const file of files.slice(0, 3)) {
      const stack = addresses.map(address => `${file}+${address} symbol`)
      const frames = await symbols.render(known => known.framesOf(stack))
      assert.deepEqual(frames, Array(2).fill({ function: 'f', file: '/x.c', line: 1, object: file }))
      assert.deepEqual(symbols.framesOf(stack), frames)
    }
  assert.deepEqual(
    starts().map(({ file }) => file),
    files.slice(0, 3),
  )
  await symbols.render(known => files.map(file => known.framesOf([`${file}+0x1 symbol`, `${file}+0x4 symbol`])))
  const all = starts()
  assert.deepEqual(new Set(all.map(({ file }) => file)), new Set(files))
  assert.equal(all.length, files.length)
  const living = () => all.filter(({ pid }) => existsSync(`/proc/${pid}`)).length
  assert.ok(living() > 0)
  await symbols.close()
  assert.equal(living(), 0)
})

test('the tools of several files run at the same time', async t => {
  const files = emptyFiles('first', 'second', 'third')
  makeTools(t, { 'llvm-symbolizer': `until [ $(wc -l < $LOG) -eq 3 ]; do sleep 0.01; done\n${ANSWERS}` })
  const frames = await framesOf(files.map(file => `${file}+0x1 symbol`))
  assert.deepEqual(
    frames.map(({ line }) => line),
    [1, 1, 1],
  )
})

test('only frames that are printed are looked up: no callers of main, and of verbs libraries what was called', async t => {
  const [program, libc, plugin, libibverbs] = emptyFiles('program1', 'libc.so.6', 'libplugin.so', 'libibverbs.so.1')
  const starts = makeTools(t, {
    'llvm-symbolizer': ANSWERS.replace('echo f;', '[ $address = 0x9 ] && echo main || echo f;'),
  })
  const stack = [
    `${libibverbs}+0x1 `,
    `${libibverbs}+0x2 ibv_cmd_create_qp`,
    `${program}+0x3 `,
    `${plugin}+0x4 `,
    `${program}+0x9 `,
    `${libc}+0x5 __libc_start_main`,
    `${program}+0x6 _start`,
  ]
  const files = () => starts().map(({ file }) => file)
  const symbols = createSymbols()
  t.after(symbols.close)
  await symbols.render(known => known.framesOf(stack, 2))
  assert.deepEqual(files().sort(), [libibverbs, program].sort())
  const frames = await symbols.render(known => known.framesOf(stack))
  assert.deepEqual(
    frames.map(({ function: name }) => name),
    ['f', 'f', 'f', 'main'],
  )
  assert.deepEqual(files().sort(), [libibverbs, program, plugin].sort())
  // The start of a thread has no main.
  await symbols.render(known => known.framesOf([`${program}+0x3 `, `${libc}+0x7 start_thread`]))
  assert.equal(starts().length, 4)
})

test('a tool that does not end is started once for each file, and never after the total time limit', async t => {
  const starts = makeTools(t, { 'llvm-symbolizer': 'exec sleep 1000', addr2line: 'exec sleep 1000' })
  const files = emptyFiles('one', 'two', 'three')
  const frames = async (symbols: LookUp, file: string, address: string) =>
    (await symbols.render(known => known.framesOf([`${file}+${address} symbol`]))).map(frame => frame.function)
  const [one, two, three] = files as [string, string, string]

  // long enough for a tool to say that it has started
  const [short, long] = [scaled(500), scaled(60_000)]
  const symbols = createSymbols({ timeouts: { perLookUp: short, total: long } })
  for (const address of ['0x1', '0x2']) assert.deepEqual(await frames(symbols, one, address), ['symbol'])
  assert.equal(starts().length, 1)
  await frames(symbols, two, '0x1')
  assert.equal(starts().length, 2)
  const shortTotal = createSymbols({ timeouts: { perLookUp: short, total: short } })
  for (const file of files) assert.deepEqual(await frames(shortTotal, file, '0x1'), ['symbol'])
  assert.equal(starts().length, 3)

  // A part of the time, for frames of a recording: the rest remains for others.
  const withPart = createSymbols({ timeouts: { perLookUp: short, total: long } })
  await withPart.render(known => [one, two].map(file => known.framesOf([`${file}+0x1 symbol`])), 0.8 * short)
  assert.equal(starts().length, 5)
  await frames(withPart, two, '0x1')
  assert.equal(starts().length, 5)
  await frames(withPart, three, '0x1')
  assert.equal(starts().length, 6)
  await Promise.all([symbols, shortTotal, withPart].map(each => each.close()))
  assert.ok(starts().every(({ pid }) => !existsSync(`/proc/${pid}`)))
})

test('a tool that fails is followed by the other one, and then by none', async t => {
  const file = emptyFiles('failing')[0]!
  const starts = makeTools(t, {
    'llvm-symbolizer': 'read address; exit 1',
    addr2line: `read address; ${ANSWERS.replace('do', () => 'do [ $address = 0x3 ] && kill -9 $$;')}`,
  })
  const symbols = createSymbols()
  // `read` takes the first of each.
  const lines = (...addresses: readonly string[]) =>
    symbols.render(known => addresses.map(address => known.framesOf([`${file}+${address} symbol`])[0]?.line))
  assert.deepEqual(await lines('0x1', '0x2'), [undefined, 1])
  assert.deepEqual(await lines('0x3', '0x4'), [undefined, undefined])
  assert.deepEqual(await lines('0x5'), [undefined])
  assert.equal(starts().length, 2)
})

test('thousands of addresses of a program are looked up, and those that no file has are unknown', {
  skip: lacking,
}, async () => {
  const { program, address } = build()
  const found = Number(address)
  const addresses = [...Array(2000).keys()].map(i => `0x${(found + i).toString(16)}`)
  const strange = ['0xffffffffffffffff', `0x${'f'.repeat(40)}`, '0x01', '0x0']
  const frames = await lookUp(symbols =>
    [...addresses, ...strange].map(one => symbols.framesOf([`${program}+${one} `])[0]),
  )
  assert.equal(frames.length, addresses.length + strange.length)
  assert.equal(frames[0]?.function, 'found')
  for (const frame of frames.slice(-strange.length)) assert.equal(frame?.file, undefined)
})

test('frames in a provider are left out, also in one with functions of its own', () => {
  for (const provider of ['libibverbs/librxe-rdmav34.so', 'libmlx5.so.1.24.44.0', 'libefa.so.1']) {
    const [inner, library, main] = [
      { function: 'ibv_cmd_create_qp_ex', object: '/usr/lib/libibverbs.so.1' },
      { function: '', object: `/usr/lib/${provider}` },
      { function: 'main', object: '/home/me/program' },
    ]
    assert.deepEqual(trimFrames([inner!, library!, main!]), [inner, main])
  }
})

test('what calls the tests of a program is left out, and nothing else', () => {
  const named = (...names: string[]) => names.map(name => ({ function: name, object: '/home/me/tests' }))
  const runners = {
    GoogleTest: [
      'void testing::internal::HandleExceptionsInMethodIfSupported<testing::Test, void>(testing::Test*, void (testing::Test::*)(), char const*)',
      'testing::Test::Run()',
      'testing::TestInfo::Run()',
      'testing::TestSuite::Run()',
      'testing::internal::UnitTestImpl::RunAllTests()',
      'testing::UnitTest::Run()',
      'RUN_ALL_TESTS()',
      '_ZN7testing4Test3RunEv',
      '_ZN7testing8internal12UnitTestImpl11RunAllTestsEv',
      '_Z13RUN_ALL_TESTSv',
    ],
    Catch2: ['Catch::RunContext::invokeActiveTestCase()', 'Catch::Session::run()', '_ZN5Catch7Session3runEv'],
    doctest: ['doctest::Context::run()', '_ZN7doctest7Context3runEv'],
  }
  for (const [name, machinery] of Object.entries(runners)) {
    const [body, helper, main] = named('Queue_Sends_Test::TestBody()', 'testing::Helper::send()', 'main')
    assert.deepEqual(trimFrames([helper!, body!, ...named(...machinery), main!]), [helper, body, main], name)
  }
  const python = (file: string) => ({ function: 'call', file, line: 1 })
  const own = python('tests/test_queue.py')
  const ofPytest = [
    '/usr/lib/python3/dist-packages/_pytest/python.py',
    '/usr/lib/python3/dist-packages/pluggy/_callers.py',
  ]
  assert.deepEqual(trimFrames([own, ...ofPytest.map(python)]), [own])
  const onlyRunners = named('testing::Test::Run()', 'main').slice(0, 1)
  assert.deepEqual(trimFrames(onlyRunners), onlyRunners)
})
