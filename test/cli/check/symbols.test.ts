/*
 * Looking up the symbols of stack frames. Programs, which may be hostile, choose the file names of frames.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createSymbols } from '../../../src/cli/check/symbols.ts'
import { trimFrames } from '../../../src/spec/check/frames.ts'
import type { Symbols } from '../../../src/tools/check/finding-text.ts'
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

/** Compiles a program with debug information; returns its path and the address of its function `found`. */
const build = (...options: string[]) => {
  const source = join(folder, 'program.c')
  writeFileSync(source, 'int found(void);\nint found(void) { return 1; }\nint main(void) { return found(); }\n')
  const program = compileC(join(folder, 'program'), [source], ['-g', ...options])
  const [address = ''] = /^[0-9a-f]+(?= T found$)/m.exec(spawnSync('nm', [program], { encoding: 'utf8' }).stdout) ?? []
  return { program, address: `0x${address.replace(/^0+/, '')}` }
}

test('a file name is never read as an option or as a file of options', { skip: lacking }, () => {
  const { program, address } = build()
  const functionOf = (object: string): string | undefined =>
    createSymbols().framesOf([`${object}+${address} symbol`])[0]?.function
  assert.equal(functionOf(program), 'found')
  // Tools read arguments from @FILE.
  writeFileSync(join(folder, 'options'), program)
  assert.equal(functionOf(`@${join(folder, 'options')}`), 'symbol')
  assert.equal(functionOf('--help'), 'symbol')
})

test('in a stripped file, an address after an exported function is not taken for a part of that function', {
  skip: lacking || (findTool('strip') ? false : 'strip is missing'),
}, () => {
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
  const functions = () =>
    createSymbols()
      .framesOf([`${library}+${exported} exported`, `${library}+${internal} `])
      .map(frame => frame.function)
  assert.deepEqual(functions(), ['exported', 'internal'])
  assert.equal(spawnSync('strip', [library]).status, 0)
  assert.deepEqual(functions(), ['exported', ''])
})

test('a frame of JavaScript is no frame of a C program, whatever the name of its file', () => {
  assert.deepEqual(createSymbols().framesOf(['at send (file:///opt/a+0x1.js:3:4)', '/opt/a b+0x10 ', '/opt/c+0x10']), [
    { function: 'send', file: '/opt/a+0x1.js', line: 3 },
    { function: '', object: '/opt/a b' },
    { function: '', object: '/opt/c' },
  ])
})

test('a relative path in debug information stays as it is, because its folder is unknown', { skip: lacking }, () => {
  const { program, address } = build(...[folder, process.cwd()].map(path => `-fdebug-prefix-map=${path}=.`))
  assert.equal(createSymbols().framesOf([`${program}+${address} found`])[0]?.file, '././program.c')
})

test('addr2line alone names the header of a function that is the first of its program', { skip: lacking }, t => {
  const { header, program, address } = compileWithHeader(folder, '-gdwarf-5')
  const bin = join(folder, 'addr2line-only')
  mkdirSync(bin)
  symlinkSync(findTool('addr2line') ?? '', join(bin, 'addr2line'))
  setPath(bin, t)
  assert.deepEqual(createSymbols().framesOf([`${program}+${address} inHeader`]), [
    { function: 'inHeader', file: header, line: 3, object: program },
  ])
})

test('a file that is not regular, or has an impossible name, is not opened', { skip: lacking }, () => {
  const fifo = join(folder, 'fifo')
  spawnSync('mkfifo', [fifo])
  for (const object of [fifo, folder, '/dev/zero', `/${'x'.repeat(4000)}`, 'x\0y'])
    assert.deepEqual(createSymbols().framesOf([`${object}+0x10 symbol`]), [{ function: 'symbol', object }])
})

test('prepare starts a tool once for each file', t => {
  const bin = join(folder, 'bin')
  const log = join(folder, 'starts')
  mkdirSync(bin)
  writeFileSync(join(bin, 'llvm-symbolizer'), `#!/bin/sh\necho >> ${log}\n`, { mode: 0o755 })
  setPath(`${bin}:${process.env.PATH}`, t)
  const files = ['first', 'second'].map(name => join(folder, name))
  for (const file of files) writeFileSync(file, '')
  const stacks = ['0x1', '0x2', '0x3'].map(address => files.map(file => `${file}+${address} symbol`))
  const symbols = createSymbols()
  symbols.prepare?.(stacks)
  for (const stack of stacks) assert.equal(symbols.framesOf(stack).length, 2)
  assert.equal(readFileSync(log, 'utf8').length, files.length)
})

test('a tool that does not end is started once for each file, and never after the total time limit', t => {
  const tools = join(folder, 'tools')
  const log = join(folder, 'log')
  mkdirSync(tools)
  for (const tool of ['addr2line', 'llvm-symbolizer'])
    writeFileSync(join(tools, tool), `#!/bin/sh\necho >> ${log}\nexec sleep 1000\n`, { mode: 0o755 })
  setPath(`${tools}:${process.env.PATH}`, t)
  /** The number of started tools: each start adds a byte to the log. */
  const started = (): number => readFileSync(log, 'utf8').length
  for (const name of ['one', 'two', 'three']) writeFileSync(join(folder, name), '')
  const frames = (symbols: Symbols, name: string, address: string) =>
    symbols.framesOf([`${join(folder, name)}+${address} symbol`]).map(frame => frame.function)

  const symbols = createSymbols({ perLookUp: 500, total: 60_000 })
  for (const address of ['0x1', '0x2']) assert.deepEqual(frames(symbols, 'one', address), ['symbol'])
  assert.equal(started(), 1)
  frames(symbols, 'two', '0x1')
  assert.equal(started(), 2)
  const shortTotal = createSymbols({ perLookUp: 500, total: 500 })
  for (const name of ['one', 'two', 'three']) assert.deepEqual(frames(shortTotal, name, '0x1'), ['symbol'])
  assert.equal(started(), 3)

  // A part of the time, for frames of a recording: the rest remains for others.
  const withPart = createSymbols({ perLookUp: 500, total: 60_000 })
  const stackOf = (name: string) => [`${join(folder, name)}+0x1 symbol`]
  withPart.prepare?.([stackOf('one'), stackOf('two')], 400)
  assert.equal(started(), 4)
  frames(withPart, 'two', '0x1')
  assert.equal(started(), 4)
  frames(withPart, 'three', '0x1')
  assert.equal(started(), 5)
})

test('after Ctrl-C, which ends the tool too, no other tool is started', t => {
  const tools = join(folder, 'interrupted')
  const log = join(folder, 'interrupted-log')
  mkdirSync(tools)
  for (const tool of ['addr2line', 'llvm-symbolizer'])
    writeFileSync(join(tools, tool), `#!/bin/sh\necho >> ${log}\nkill -INT $$\n`, { mode: 0o755 })
  setPath(`${tools}:${process.env.PATH}`, t)
  const files = ['four', 'five'].map(name => join(folder, name))
  for (const file of files) writeFileSync(file, '')
  const symbols = createSymbols()
  symbols.prepare?.([files.map(file => `${file}+0x1 symbol`)], 1000)
  assert.deepEqual(symbols.framesOf([`${files[1]}+0x2 symbol`]), [{ function: 'symbol', object: files[1] }])
  assert.equal(readFileSync(log, 'utf8').length, 1)
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
