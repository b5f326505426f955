/*
 * What users need in C, as targets of compile.mjs: the preload libraries of programs, the small library that Node
 * loads, which load with glibc 2.28 and newer (shim/old-glibc.h), and the program that starts programs.
 */
import { sep } from 'node:path'
import { inRoot } from './common.mjs'
import { C_FLAGS, sourcesIn, VERBS } from './compile.mjs'

const SHARED = ['-shared', '-fPIC', '-fvisibility=hidden']

/** By file: `-ldl` and `-lpthread` name static libraries, which are empty in a newer glibc. */
const LIBRARIES = ['-Wl,--push-state,--no-as-needed', '-l:libdl.so.2', '-l:libpthread.so.0', '-Wl,--pop-state']

/** True for sources of shim/ that belong to a separate library. */
const isOwnLibrary = path =>
  ['waits', 'frees', 'host', 'clock', 'run'].some(name => path.startsWith(inRoot('shim', name) + sep))

/** Of sanitizers, without the calls that only a library that redirects has. */
const sanitizers = () => sourcesIn('shim/sanitizers').filter(path => !path.endsWith('calls.c'))

/** `folder`: below build/. */
export const nativeTargets = (folder = 'native') => [
  ...libraries().map(({ name, ...target }) => ({
    ...target,
    output: `${folder}/libuserdma_${name}.so`,
    includes: [inRoot('shim', 'old-glibc.h')],
    flags: [...C_FLAGS, ...SHARED],
    libraries: LIBRARIES,
  })),
  {
    output: `${folder}/userdma-run`,
    sources: sourcesIn('shim/run'),
    flags: [...C_FLAGS, '-fPIE', '-static-pie'],
    needs: { archive: 'libc.a', package: 'libc6-dev' },
    without: '`userdma run` takes longer to start a program',
  },
]

const libraries = () => [
  {
    name: 'native',
    sources: sourcesIn('native'),
    without: 'packets are checked with zlib, which is slower, and memory that never answers keeps the daemon waiting',
  },
  {
    name: 'shim',
    sources: sourcesIn('shim').filter(path => !isOwnLibrary(path)),
    needs: VERBS,
    without: 'only programs in TypeScript can use the device',
  },
  {
    name: 'waits',
    sources: sourcesIn('shim/waits'),
    without: '`userdma check --races` does not run',
  },
  {
    name: 'frees',
    sources: sourcesIn('shim/frees'),
    without: '`userdma check` does not run',
  },
  {
    name: 'clock',
    sources: sourcesIn('shim/clock'),
    without: '`--clock skip` does not run',
  },
  {
    name: 'host',
    sources: [...sourcesIn('shim/host'), ...sourcesIn('shim/recorder'), ...sanitizers()],
    needs: VERBS,
    without: "`--host` does not run: programs on the machine's devices are not observed",
  },
]
